package cli_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/cli"
)

const canary = "c4nary"

// faulty is a store that fails in the way that an id names: the codes that no store at hand gives on demand.
type faulty struct{}

func (faulty) Get(_ context.Context, req backend.Request) (*backend.Credential, error) {
	switch req.ID {
	case "panic":
		panic(canary)
	case "silent":
		return nil, nil
	case "binary":
		return &backend.Credential{Secret: backend.NewSecret([]byte("\xff\x00"))}, nil
	}
	return nil, &backend.Error{Code: backend.Code(req.ID), Reason: "the store says so", RetryAfter: 7 * time.Millisecond}
}

func (faulty) Probe(context.Context) error {
	return backend.Errorf(backend.CodeAuthRequired, "no login")
}

// leasing gives credentials with a lease, and counts how often one is renewed.
type leasing struct{ renewed *atomic.Int32 }

func (leasing) Get(context.Context, backend.Request) (*backend.Credential, error) {
	lease := &backend.Lease{ID: "l", Duration: 3 * time.Second, Renewable: true}
	return &backend.Credential{Secret: backend.NewSecretString("leased-" + canary), Lease: lease}, nil
}

func (l leasing) Renew(_ context.Context, lease backend.Lease, _ time.Duration) (backend.Lease, error) {
	l.renewed.Add(1)
	return lease, nil
}

// unconditional is a store that cannot compare.
type unconditional struct{ *memory.Backend }

func (unconditional) Strength() backend.Strength { return backend.StrengthNone }

// program runs commands in a directory with a configuration of one provider of each kind, named as the kind.
type program struct {
	t       *testing.T
	kinds   []backend.Kind
	dir     string
	renewed atomic.Int32
}

type none struct{}

func (none) Reach() []backend.Reach { return nil }

func newProgram(t *testing.T) *program {
	t.Helper()
	p := &program{t: t, dir: t.TempDir()}
	kind := func(name string, open func() (backend.Backend, error)) {
		p.kinds = append(p.kinds, backend.NewKind(name, "for tests", func(none, backend.Host) (backend.Backend, error) { return open() }))
	}
	kind("faulty", func() (backend.Backend, error) { return faulty{}, nil })
	kind("leasing", func() (backend.Backend, error) { return leasing{&p.renewed}, nil })
	kind("unconditional", func() (backend.Backend, error) {
		b, err := memory.New(memory.Config{})
		return unconditional{b}, err
	})
	config := "version: 1\nproviders:\n"
	for _, k := range p.kinds {
		config += "  " + k.Name + ": {kind: " + k.Name + ", limits: {retries: 0, breaker: {failures: 0}}}\n"
	}
	if err := os.WriteFile(filepath.Join(p.dir, "config.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// run gives what a command printed and its exit status.
func (p *program) run(stdin string, args ...string) (stdout, stderr string, status int) {
	p.t.Helper()
	file := func(name string) *os.File {
		f, err := os.CreateTemp(p.dir, name)
		if err != nil {
			p.t.Fatal(err)
		}
		return f
	}
	in, out, err := file("stdin"), file("stdout"), file("stderr")
	defer in.Close()
	if _, e := in.WriteString(stdin); e != nil {
		p.t.Fatal(e)
	}
	if _, e := in.Seek(0, io.SeekStart); e != nil {
		p.t.Fatal(e)
	}
	status = cli.Run(cli.Program{
		Args: args, Environ: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "CREDRESOLVE_CONFIG=" + filepath.Join(p.dir, "config.yaml")},
		Stdin: in, Stdout: out, Stderr: err, Kinds: backend.NewRegistry(p.kinds...),
	})
	text := func(f *os.File) string {
		defer f.Close()
		b, e := os.ReadFile(f.Name())
		if e != nil {
			p.t.Fatal(e)
		}
		return string(b)
	}
	return text(out), text(err), status
}

func TestEveryCodeHasItsStatus(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	for code, want := range map[backend.Code]int{
		backend.CodeInternal: 1, backend.CodeInvalidConfig: 2, backend.CodeNotFound: 3, backend.CodeDenied: 4,
		backend.CodeInvalidID: 5, backend.CodeFieldRequired: 5, backend.CodeUnsupported: 5, backend.CodeUnavailable: 6,
		backend.CodeThrottled: 6, backend.CodeLocked: 7, backend.CodeAuthRequired: 8, backend.CodeExpired: 9,
		backend.CodeConflict: 10, backend.CodeTimeout: 11,
	} {
		ref := "cred://faulty/" + string(code)
		stdout, stderr, status := p.run("", "--now", "get", ref)
		if status != want || stdout != "" || stderr != "credresolve: "+ref+": the store says so\n" {
			t.Errorf("%s: status %d, want %d; printed %q and %q", code, status, want, stdout, stderr)
		}
		stdout, _, status = p.run("", "--now", "get", "--output", "json", ref)
		if status != want || !strings.Contains(stdout, `"code": "`+string(code)+`"`) || !strings.Contains(stdout, `"retry_after_ms": 7`) {
			t.Errorf("%s as JSON: status %d, want %d; printed %s", code, status, want, stdout)
		}
	}
}

func TestABrokenStoreIsAnInternalError(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	for _, id := range []string{"panic", "silent"} {
		stdout, stderr, status := p.run("", "--verbose", "get", "cred://faulty/"+id)
		if status != 1 || stdout != "" || strings.Contains(stderr, canary) {
			t.Errorf("%s: status %d; printed %q and %q", id, status, stdout, stderr)
		}
	}
}

func TestBinaryValue(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	if stdout, _, _ := p.run("", "get", "cred://faulty/binary"); stdout != "\xff\x00" {
		t.Errorf("got %q", stdout)
	}
	if stdout, _, _ := p.run("", "get", "--output", "json", "cred://faulty/binary"); !strings.Contains(stdout, `"value_base64": "/wA="`) {
		t.Errorf("got %s", stdout)
	}
}

func TestProbeTellsWhatFails(t *testing.T) {
	t.Parallel()
	stdout, _, status := newProgram(t).run("", "providers", "--probe")
	if status != 8 || !strings.Contains(stdout, "auth_required  no login\n") || !strings.Contains(stdout, "unsupported    this provider cannot be probed") {
		t.Errorf("status %d, want 8; printed %s", status, stdout)
	}
}

func TestAStoreThatCannotCompareNeedsReplace(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	stdout, stderr, status := p.run(canary, "put", "cred://unconditional/x")
	if status != 5 || stdout != "" || !strings.Contains(stderr, "use --replace") || strings.Contains(stderr, canary) {
		t.Errorf("status %d, want 5; printed %q and %q", status, stdout, stderr)
	}
	if _, stderr, status := p.run(canary, "put", "--replace", "cred://unconditional/x"); status != 0 {
		t.Errorf("status %d, want 0; printed %q", status, stderr)
	}
}

func TestLeasesAreRenewedWhileTheCommandRuns(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	stdout, stderr, status := p.run("", "run", "--env", "A=cred://leasing/x", "--", "sh", "-c", "sleep 2.5; echo $A")
	if status != 0 || stdout != "leased-"+canary+"\n" || stderr != "" {
		t.Errorf("status %d; printed %q and %q", status, stdout, stderr)
	}
	if p.renewed.Load() == 0 {
		t.Error("the lease was not renewed")
	}
}
