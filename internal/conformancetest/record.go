// Package conformancetest holds what the suite finds of this repository's adapters to the reports in docs/conformance, from
// which docs/capabilities.md is made.
package conformancetest

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"

	"github.com/credresolve/credresolve/conformance"
)

// Variable names a directory in the environment, into which reports are written instead of being compared.
// scripts/capabilities.sh sets it.
const Variable = "CREDRESOLVE_CONFORMANCE_REPORTS"

// Run runs the suite as conformance.Run does, and holds the report to docs/conformance/<name>.json.
func Run(t *testing.T, name string, h conformance.Harness) {
	t.Helper()
	Hold(t, name, conformance.Run(t, h))
}

// Hold fails t where r differs from docs/conformance/<name>.json in more than the time that the cases took. Cases that did
// not run are not looked at. The reports are those of a Linux system: elsewhere nothing is compared.
func Hold(t *testing.T, name string, r conformance.Report) {
	t.Helper()
	if t.Failed() || r.Failed() { // which says more
		return
	}
	if dir := os.Getenv(Variable); dir != "" {
		if err := write(filepath.Join(dir, name+".json"), normal(r)); err != nil {
			t.Error(err)
		}
		return
	}
	if runtime.GOOS != "linux" {
		return
	}
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := Read(filepath.Join(root, "docs/conformance", name+".json"))
	if err != nil {
		t.Errorf("no report to compare with, scripts/capabilities.sh writes it: %v", err)
		return
	}
	before := make(map[string]conformance.Result, len(recorded.Results))
	for _, x := range recorded.Results {
		before[x.Name] = x
	}
	for _, x := range normal(r).Results {
		switch was, ok := before[x.Name]; {
		case !ok:
			t.Errorf("%s is not in docs/conformance/%s.json: run scripts/capabilities.sh", x.Name, name)
		case !reflect.DeepEqual(was, x):
			t.Errorf("%s: docs/conformance/%s.json says %s %q, this run %s %q: run scripts/capabilities.sh if that is meant",
				x.Name, name, was.Outcome, was.Reasons, x.Outcome, x.Reasons)
		}
	}
}

// normal gives r without what differs from run to run.
func normal(r conformance.Report) conformance.Report {
	out := conformance.Report{Version: r.Version, Results: make([]conformance.Result, len(r.Results))}
	for i, x := range r.Results {
		x.Elapsed, x.Notes = 0, nil
		out.Results[i] = x
	}
	return out
}

// Read reads the report at path.
func Read(path string) (conformance.Report, error) {
	var r conformance.Report
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	return r, err
}

func write(path string, r conformance.Report) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(r.WriteJSON(f), f.Close())
}

// Root gives the folder of the module that the test belongs to.
func Root() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, e := os.Stat(filepath.Join(dir, "go.mod")); e == nil {
			return dir, nil
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		err = fs.ErrNotExist
	}
	return "", err
}
