package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"iter"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
)

func TestCases(t *testing.T) {
	t.Parallel()
	before := make(map[string]bool)
	rules := make(map[string]bool)
	for _, c := range conformance.Cases() {
		subject, about, ok := strings.Cut(c.Name, "/")
		if !ok || subject == "" || about == "" || before[c.Name] {
			t.Errorf("%q is no name, or stands twice", c.Name)
		}
		if c.Rule == "" || rules[c.Rule] || strings.HasSuffix(c.Rule, ".") {
			t.Errorf("%s: the rule is missing, stands twice or ends in a full stop: %q", c.Name, c.Rule)
		}
		for _, need := range c.Needs {
			if !before[need] {
				t.Errorf("%s needs %q, which does not come before it", c.Name, need)
			}
		}
		before[c.Name], rules[c.Rule] = true, true
	}
}

func TestImportsNoSDK(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Skip("needs the go command: https://go.dev/dl")
	}
	const module = "github.com/credresolve/credresolve/"
	want := []string{module + "backend", module + "conformance"}
	if got := strings.Fields(string(out)); !slices.Equal(got, want) {
		t.Errorf("the suite imports %v, want %v", got, want)
	}
}

// TestSleepsBriefly holds that pause, which is bounded, is the only sleep.
func TestSleepsBriefly(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	sleeps := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			f, ok := n.(*ast.FuncDecl)
			if !ok {
				return true
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Sleep" {
					sleeps++
					if f.Name.Name != "pause" {
						t.Errorf("%s sleeps", f.Name.Name)
					}
				}
				return true
			})
			return false
		})
	}
	if sleeps != 1 {
		t.Errorf("%d sleeps were found, want that of pause", sleeps)
	}
}

// hostile is a backend of which every method does the same.
type hostile struct {
	act func(ctx context.Context) error
}

func (h hostile) Get(ctx context.Context, _ backend.Request) (*backend.Credential, error) {
	return nil, h.act(ctx)
}

func (h hostile) GetBatch(ctx context.Context, _ []backend.Request) ([]backend.Result, error) {
	return nil, h.act(ctx)
}
func (h hostile) Probe(ctx context.Context) error { return h.act(ctx) }
func (h hostile) CurrentVersion(ctx context.Context, _ backend.Request) (string, error) {
	return "", h.act(ctx)
}

func (h hostile) Put(ctx context.Context, _ backend.Request, _ backend.Value, _ backend.Condition) (string, error) {
	return "", h.act(ctx)
}

func (h hostile) Delete(ctx context.Context, _ backend.Request, _ backend.Condition) error {
	return h.act(ctx)
}
func (h hostile) Strength() backend.Strength { return backend.StrengthStore }
func (h hostile) List(ctx context.Context, _ string) iter.Seq2[backend.Entry, error] {
	return func(yield func(backend.Entry, error) bool) {
		for yield(backend.Entry{ID: "again and again"}, nil) {
		}
		_ = h.act(ctx)
	}
}

func (h hostile) Watch(ctx context.Context, reqs []backend.Request, changed func(backend.Request)) error {
	return h.act(ctx)
}
func (h hostile) Close() error { return h.act(context.Background()) }

func (h hostile) Describe() backend.Description {
	return backend.Description{Versions: true, Fields: true}
}

// TestHostileBackends shows that a backend which hangs, panics or lies neither stops the run nor leaves a gap in the report.
func TestHostileBackends(t *testing.T) {
	t.Parallel()
	const secret = "Kanary-of-the-harness-0123456789"
	for name, act := range map[string]func(context.Context) error{
		"hangs":              func(context.Context) error { <-t.Context().Done(); return nil },
		"panics":             func(context.Context) error { panic("no: " + secret) },
		"panics with errors": func(context.Context) error { panic(fmt.Errorf("no: %s", secret)) },
		"panics within":      func(context.Context) error { panic(explosive{}) },
		"panics with nil":    func(context.Context) error { var p *backend.Error; return errors.New(p.Reason) },
		"says nothing":       func(context.Context) error { return nil },
		"says what it knows": func(context.Context) error { return errors.New("no: " + secret) },
		"explodes later":     func(context.Context) error { return explosive{} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := conformance.Harness{
				Open:       func(conformance.T, *conformance.Dialer) backend.Backend { return hostile{act} },
				Put:        func(conformance.T, string, backend.Value) {},
				Delete:     func(conformance.T, string) {},
				Fault:      func(conformance.T, conformance.Fault) func() { return func() {} },
				InvalidIDs: []string{"invalid"},
				Secrets:    [][]byte{[]byte(secret)},
				CaseTime:   100 * time.Millisecond,
			}
			r := conformance.Check(t.Context(), h)
			if len(r.Results) != len(conformance.Cases()) || !r.Failed() {
				t.Errorf("%d results for %d cases, %d failed", len(r.Results), len(conformance.Cases()), r.Count(conformance.Fail))
			}
			for _, x := range r.Results {
				if x.Name == "get/value" && x.Outcome != conformance.Fail {
					t.Errorf("get/value ended as %s", x.Outcome)
				}
				if x.Outcome != conformance.Pass && len(x.Reasons) == 0 {
					t.Errorf("%s ended as %s for no reason", x.Name, x.Outcome)
				}
			}
			var table, text, junit bytes.Buffer
			if err := errors.Join(r.WriteTable(&table), r.WriteJSON(&text), r.WriteJUnit(&junit, "hostile")); err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(junit.String(), "<failure>"); n != r.Count(conformance.Fail) {
				t.Errorf("%d failures for JUnit, want %d", n, r.Count(conformance.Fail))
			}
			if strings.Contains(table.String()+text.String()+junit.String(), secret) {
				t.Error("the report shows a secret")
			}
			var again conformance.Report
			if err := json.Unmarshal(text.Bytes(), &again); err != nil || again.Version != conformance.ReportVersion || len(again.Results) != len(r.Results) {
				t.Errorf("the report read again has version %d and %d results, %v", again.Version, len(again.Results), err)
			}
		})
	}
}

type explosive struct{}

func (explosive) Error() string { panic("an error that panics") }

func TestAHarnessThatFails(t *testing.T) {
	t.Parallel()
	get := func(c conformance.Case) bool { return c.Name == "get/value" }
	for name, h := range map[string]conformance.Harness{
		"no open":      {},
		"open nothing": {Open: func(conformance.T, *conformance.Dialer) backend.Backend { return nil }},
		"open fails": {Open: func(t conformance.T, _ *conformance.Dialer) backend.Backend {
			t.Fatalf("no store")
			return nil
		}},
		"open panics": {Open: func(conformance.T, *conformance.Dialer) backend.Backend { panic("no store") }},
		"open hangs": {CaseTime: 50 * time.Millisecond, Open: func(c conformance.T, _ *conformance.Dialer) backend.Backend {
			<-t.Context().Done()
			return nil
		}},
	} {
		h.Only = get
		r := conformance.Check(t.Context(), h)
		if len(r.Results) != 1 || r.Results[0].Outcome != conformance.Fail || len(r.Results[0].Reasons) == 0 {
			t.Errorf("%s: %+v", name, r.Results)
		}
	}
}

func TestARunThatIsEnded(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := conformance.Check(ctx, newStore(t, full.limits).harness(false, nil))
	if len(r.Results) != len(conformance.Cases()) || r.Count(conformance.Skip) != len(r.Results) {
		t.Errorf("%d of %d cases were skipped", r.Count(conformance.Skip), len(conformance.Cases()))
	}
}

// TestTexts shows what a failure says: what was expected and what was seen.
func TestTexts(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"get/missing":  "Get of a secret that does not exist: expected not_found, saw denied (*backend.Error): \"something else\"",
		"value/64-kib": "Get: expected the 65536 bytes that were stored, saw 65535 bytes, equal in the first 65535",
		"close/twice":  "Close: expected no error, saw an error of no known kind (*backend.Error): \"closed already\"",
	} {
		m := mutants[name]
		h := newStore(t, m.limits).harness(m.plain, func(r *reference) { m.break_(t, r) })
		h.Only = func(c conformance.Case) bool { return c.Name == name }
		for _, x := range conformance.Check(t.Context(), h).Results {
			if len(x.Reasons) == 0 || x.Reasons[0] != want || x.Rule == "" {
				t.Errorf("%s says %q, want %q", name, x.Reasons, want)
			}
		}
	}
}
