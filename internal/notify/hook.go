package notify

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/internal/process"
	"github.com/credresolve/credresolve/internal/safefile"
)

// maxOutput is how much a hook may write, which nobody reads.
const maxOutput = 1 << 20

// hook runs a program.
type hook struct {
	config.Hook
	lookup func(string) (string, bool)
}

func newHook(h config.Hook, lookup func(string) (string, bool)) *hook {
	if lookup == nil {
		lookup = os.LookupEnv
	}
	return &hook{h, lookup}
}

// deliver runs the program with m on its standard input. It runs once: what a program did before it failed is not known.
func (h *hook) deliver(ctx context.Context, m message) error {
	file, err := safefile.Await(ctx, func() (*safefile.File, error) {
		return safefile.Open(h.Command, safefile.Policy{
			Owners: []int{os.Geteuid(), 0}, Deny: 0o022, Executable: true, Links: safefile.LinksTrusted, HardLinks: true,
		})
	}, func(f *safefile.File) { _ = f.Close() })
	if err != nil {
		return cannotRun(backend.CodeDenied, err)
	}
	defer func() { _ = file.Close() }()
	var env []string
	for _, name := range h.PassEnv {
		if value, set := h.lookup(name); set {
			env = append(env, name+"="+value)
		}
	}
	out, err := process.Run(ctx, process.Command{
		Path: file.Path(), Args: append([]string{h.Command}, h.Args...), Env: env, Dir: filepath.Dir(h.Command), Stdin: m.body,
		Timeout: cmp.Or(h.Timeout, defaultTimeout), MaxOutput: maxOutput,
	})
	clear(out)
	return cannotRun(backend.CodeUnavailable, err)
}

// cannotRun gives err, of a program or its file, whose texts hold nothing that the program wrote.
func cannotRun(code backend.Code, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return backend.Errorf(code, "the program: %v", err)
}
