package main

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"testing"

	"github.com/credresolve/credresolve/config/schema"
	"github.com/credresolve/credresolve/internal/godoc"
)

var update = flag.Bool("update", false, "write credresolve.schema.json anew")

// The schema that is linked is the one of the Go types, with their comments.
func TestSchemaIsOfTheTypes(t *testing.T) {
	t.Parallel()
	comments := godoc.New(root)
	want, err := schema.Generate(kinds(), comments.Of)
	if err := errors.Join(err, comments.Err()); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("credresolve.schema.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(configSchema, want) {
		t.Error("credresolve.schema.json is not of the Go types any more; run: go test ./cmd/credresolve -run TestSchema -update")
	}
}
