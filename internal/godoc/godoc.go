// Package godoc reads the documentation of this module's types from their source, for what is generated from Go types: the
// JSON Schema of configurations and the OpenAPI document of the sidecar. It is linked by tests alone.
package godoc

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
)

const module = "github.com/credresolve/credresolve/"

// Comments finds the documentation of types and fields. It is not safe for concurrent use.
type Comments struct {
	root     string
	packages map[string]map[string]string // by folder, then by "Type" and "Type.Field"
	err      error
}

// New gives Comments of the module whose folder is root.
func New(root string) *Comments {
	return &Comments{root: root, packages: map[string]map[string]string{}}
}

// Of gives the documentation of a field of t, or of t itself where field is empty; empty for types of other modules.
func (c *Comments) Of(t reflect.Type, field string) string {
	dir, ours := strings.CutPrefix(t.PkgPath(), module)
	if !ours {
		return ""
	}
	if c.packages[dir] == nil {
		c.packages[dir] = c.read(dir)
	}
	name := t.Name()
	if field != "" {
		name += "." + field
	}
	return c.packages[dir][name]
}

// Err is the first error of reading source.
func (c *Comments) Err() error { return c.err }

func (c *Comments) read(dir string) map[string]string {
	found := make(map[string]string)
	files, err := filepath.Glob(filepath.Join(c.root, filepath.FromSlash(dir), "*.go"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no source of %s", dir)
	}
	for _, path := range files {
		var f *ast.File
		if f, err = parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments); err != nil {
			break
		}
		for _, decl := range f.Decls {
			if group, ok := decl.(*ast.GenDecl); ok {
				collect(group, found)
			}
		}
	}
	if c.err == nil {
		c.err = err
	}
	return found
}

func collect(group *ast.GenDecl, found map[string]string) {
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
