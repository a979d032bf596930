package main

import (
	"bytes"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/config/schema"
)

var update = flag.Bool("update", false, "write credresolve.schema.json anew")

// The schema that is linked is the one of the Go types, with their comments.
func TestSchemaIsOfTheTypes(t *testing.T) {
	t.Parallel()
	c := comments{t: t, packages: map[string]map[string]string{}}
	want, err := schema.Generate(kinds(), c.of)
	if err != nil {
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

// comments finds the documentation of types and fields in the source.
type comments struct {
	t        *testing.T
	packages map[string]map[string]string // by "Type" and "Type.Field"
}

func (c comments) of(typ reflect.Type, field string) string {
	dir, ours := strings.CutPrefix(typ.PkgPath(), "github.com/credresolve/credresolve/")
	if !ours {
		return ""
	}
	if c.packages[dir] == nil {
		c.packages[dir] = c.read(dir)
	}
	name := typ.Name()
	if field != "" {
		name += "." + field
	}
	return c.packages[dir][name]
}

func (c comments) read(dir string) map[string]string {
	c.t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(dir), "*.go"))
	if err != nil || len(files) == 0 {
		c.t.Fatalf("no source of %s: %v", dir, err)
	}
	found := make(map[string]string)
	for _, path := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, decl := range f.Decls {
			group, ok := decl.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range group.Specs {
				typ, ok := spec.(*ast.TypeSpec)
				if !ok {
					continue
				}
				found[typ.Name.Name] = group.Doc.Text() + typ.Doc.Text()
				if s, ok := typ.Type.(*ast.StructType); ok {
					for _, field := range s.Fields.List {
						for _, name := range field.Names {
							found[typ.Name.Name+"."+name.Name] = field.Doc.Text() + field.Comment.Text()
						}
					}
				}
			}
		}
	}
	return found
}
