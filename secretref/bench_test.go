//go:build unix

package secretref_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/secretref"
)

// A file of 1 MiB and as many pointers into it as one provider may have.
func BenchmarkFile(b *testing.B) {
	const n = 512
	var text strings.Builder
	refs := make([]secretref.Ref, n)
	for i := range n {
		fmt.Fprintf(&text, `,"k%d":{"key":%q}`, i, strings.Repeat("s", 2000))
		refs[i] = secretref.Ref{Source: secretref.File, Provider: "f", ID: fmt.Sprintf("/k%d/key", i)}
	}
	path := filepath.Join(b.TempDir(), "f.json")
	if err := os.WriteFile(path, []byte("{"+text.String()[1:]+"}"), 0o600); err != nil {
		b.Fatal(err)
	}
	config := secretref.Config{Providers: map[string]secretref.Provider{
		"f": {Source: secretref.File, File: &secretref.FileProvider{Path: path, MaxBytes: 2 << 20}},
	}}
	for b.Loop() {
		for _, o := range secretref.Resolve(context.Background(), config, secretref.Host{}, refs) {
			if o.Err != nil {
				b.Fatal(o.Err)
			}
		}
	}
}
