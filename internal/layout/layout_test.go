// Package layout holds the directions in which the packages of this module may import one another.
package layout

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"strings"
	"testing"
)

const module = "github.com/credresolve/credresolve"

type listed struct {
	ImportPath string
	Standard   bool
	Deps       []string
	Imports    []string
}

// packages lists the packages of the module and what they depend on.
func packages(t *testing.T) (own []listed, standard map[string]bool) {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Deps,Imports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	standard = make(map[string]bool)
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return own, standard
		} else if err != nil {
			t.Fatal(err)
		}
		standard[p.ImportPath] = p.Standard
		if strings.HasPrefix(p.ImportPath, module+"/") {
			own = append(own, p)
		}
	}
}

// allowed says what packages of this module a package may depend on, by patterns of path.Match on the path within the
// module; what matches no key may depend on everything but cmd.
var allowed = []struct {
	who  string
	may  []string
	only bool // the standard library alone beside
}{
	{who: "credref", only: true},
	{who: "backend", only: true},
	{who: "conformance", may: []string{"backend"}, only: true},
	{who: "conformance/*", may: []string{"backend", "conformance", "conformance/*"}, only: true},
	{who: "credref/document", may: []string{"credref", "backend", "internal/json5"}},
	{who: "cache", may: []string{"backend", "credref"}},
	{who: "resolver", may: []string{"backend", "credref", "cache", "internal/statedir"}},
	{who: "resolver/grants", may: []string{"backend", "internal/loginhint", "internal/statedir"}},
	{who: "config", may: []string{"backend", "credref", "cache", "resolver", "resolver/grants", "internal/statedir", "secretref", "internal/lazyregexp", "internal/loginhint", "internal/process", "internal/execproto", "internal/safefile"}},
	{who: "config/schema", may: []string{"config", "backend", "credref", "cache", "resolver", "resolver/grants", "internal/statedir", "secretref", "internal/lazyregexp", "internal/loginhint", "internal/process", "internal/execproto", "internal/safefile"}},
	{who: "adapters/keychain", may: append([]string{"adapters/keychain/internal/*", "adapters/keychain/*"}, leaves...)},
	{who: "adapters/sidecar", may: append([]string{"client", "resolver", "cache", "credref", "internal/peer"}, leaves...)},
	{who: "adapters/*", may: leaves},
	{who: "secretref", may: []string{"backend", "internal/process", "internal/execproto", "internal/safefile"}},
	{who: "internal/neterr", may: []string{"backend"}},
	{who: "internal/statedir"},
	{who: "internal/process"},
	{who: "internal/json5", only: true},
	{who: "internal/lazyregexp", only: true},
	{who: "internal/loginhint", only: true},
	{who: "internal/execproto", may: []string{"backend"}},
	{who: "internal/safefile", may: []string{"backend"}},
	{who: "internal/staged"},
	{who: "internal/sqliteread", may: []string{"backend", "internal/safefile"}},
	{who: "internal/authstore", may: []string{"backend", "internal/safefile", "internal/sqliteread", "internal/staged", "internal/json5", "internal/lazyregexp"}},
	{who: "internal/redact", may: []string{"backend"}},
	{who: "internal/sessionbus"},
	{who: "internal/peer", may: []string{"backend"}},
	{who: "internal/listen", may: []string{"backend", "internal/peer", "internal/safefile"}},
	{who: "internal/sdnotify", may: []string{"backend"}},
	{who: "internal/harden", may: []string{"backend"}},
}

// leaves is what an adapter may depend on, beside its SDK.
var leaves = []string{"backend", "internal/authstore", "internal/awsform", "internal/execproto", "internal/formlogin", "internal/json5", "internal/lazyregexp", "internal/loginhint", "internal/neterr", "internal/process", "internal/safefile", "internal/sessionbus", "internal/sqliteread", "internal/staged", "internal/statedir"}

func TestImportDirections(t *testing.T) {
	t.Parallel()
	own, standard := packages(t)
	if len(own) < len(allowed)/2 {
		t.Fatalf("go list found %d packages alone", len(own))
	}
	for _, p := range own {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, rule := range allowed {
			if ok, _ := path.Match(rule.who, name); !ok {
				continue
			}
			for _, dep := range p.Deps {
				inside, within := strings.CutPrefix(dep, module+"/")
				switch {
				case within && !matches(rule.may, inside):
					t.Errorf("%s depends on %s", name, inside)
				case !within && rule.only && !standard[dep]:
					t.Errorf("%s depends on %s; it is to need the standard library alone", name, dep)
				}
			}
			break
		}
	}
}

func TestAdaptersAreNamedByTheCommandAlone(t *testing.T) {
	t.Parallel()
	own, _ := packages(t)
	for _, p := range own {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, dep := range p.Imports {
			inside, within := strings.CutPrefix(dep, module+"/adapters/")
			self := strings.HasPrefix(name, "adapters/"+strings.Split(inside, "/")[0])
			if within && !self && !strings.HasPrefix(name, "cmd/") && !strings.HasPrefix(name, "examples/") {
				t.Errorf("%s imports adapters/%s", name, inside)
			}
		}
	}
}

func matches(patterns []string, name string) bool {
	for _, p := range patterns {
		if ok, _ := path.Match(p, name); ok {
			return true
		}
	}
	return false
}
