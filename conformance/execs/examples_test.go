//go:build unix

package execs

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/credresolve/credresolve/conformance"
	"github.com/credresolve/credresolve/internal/conformancetest"
)

const examples = "../../examples/adapters"

func TestExamplesPass(t *testing.T) {
	t.Parallel()
	for _, example := range []struct{ report, path, interpreter, get string }{
		{"exec-python", "python/adapter.py", "python3", "apt-get install python3"},
		{"exec-shell", "shell/adapter.sh", "jq", "apt-get install jq"},
		{"exec-node", "node/adapter.js", "node", "apt-get install nodejs"},
	} {
		t.Run(example.interpreter, func(t *testing.T) {
			t.Parallel()
			interpreter, err := exec.LookPath(example.interpreter)
			if err != nil {
				t.Skipf("needs %s: %s", example.interpreter, example.get)
			}
			command, err := filepath.Abs(filepath.Join(examples, example.path))
			if err != nil {
				t.Fatal(err)
			}
			known, err := os.Open(filepath.Join(examples, "conformance.json"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = known.Close() }()
			p, err := Read(known, command)
			if err != nil {
				t.Fatal(err)
			}
			// The interpreter may be where the default search path of the system does not lead.
			p.Env = map[string]string{"PATH": filepath.Dir(interpreter) + ":/usr/local/bin:/usr/bin:/bin"}
			r, err := Check(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range r.Results {
				switch x.Outcome {
				case conformance.Pass:
				case conformance.Skip:
					t.Logf("%s: %v", x.Name, x.Reasons)
				default:
					t.Errorf("%s: %s: %v", x.Name, x.Outcome, x.Reasons)
				}
			}
			conformancetest.Hold(t, example.report, r)
			var took time.Duration
			for _, x := range r.Results {
				took += x.Elapsed
			}
			if most := 30 * time.Second; took > most {
				t.Errorf("the run took %v, want less than %v", took, most)
			}
		})
	}
}

// TestGoExamplePasses runs the tests of the example that is a module of its own.
func TestGoExamplePasses(t *testing.T) {
	t.Parallel()
	goCommand, err := exec.LookPath("go")
	if err != nil {
		t.Skip("needs the go command: https://go.dev/dl")
	}
	cmd := exec.Command(goCommand, "test", "./...")
	cmd.Dir = filepath.Join(examples, "go")
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
