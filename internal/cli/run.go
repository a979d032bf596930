package cli

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/credref/document"
	"github.com/credresolve/credresolve/internal/redact"
)

func (a *app) run() *cobra.Command {
	var doc documentFlags
	var masked bool
	var single []string
	cmd := &cobra.Command{
		Use:   "run [FILE...] [--env NAME=REF]... -- COMMAND [ARG...]",
		Short: "Run a command with resolved references in its environment",
		Long: `Run a command whose environment is this one's, with the variables of the files added: each reference is resolved, a
literal stays as it is. A file is a .env file, or a flat map in YAML, JSON, JSON5 or TOML. A later file wins over an
earlier one, --env over all files, and all of them over what is in the environment already.

Signals pass through to the command, and its exit status comes back, 128+n for signal n. Status 125 means that nothing was
run, 126 that the command could not be started, 127 that there is no such command. What has a lease is kept alive while the
command runs.

With --redact the resolved values are masked in the output of the command.`,
		Example: `  credresolve run app.env -- ./server --port 8080
  credresolve run --env DB_PASSWORD=cred://app/kv/app/db#password -- psql
  credresolve run --redact ci.env -- make test`,
		Args: func(cmd *cobra.Command, args []string) error {
			if at := cmd.ArgsLenAtDash(); at < 0 || at == len(args) {
				return &exit{statusNotRun, &backend.Error{
					Code: backend.CodeUsage, Reason: "no command to run",
					Remedy: "write it behind two dashes: credresolve run app.env -- ./server",
				}}
			}
			return nil
		},
		ValidArgsFunction: completeDocuments,
		RunE: func(cmd *cobra.Command, args []string) error {
			at := cmd.ArgsLenAtDash()
			if at == 0 && len(single) == 0 {
				return &exit{statusNotRun, backend.Errorf(backend.CodeUsage, "no file and no --env: nothing to resolve")}
			}
			ctx, s, done, err := a.openDocuments(cmd.Context(), args[:at], doc)
			if err != nil {
				return notRun(err)
			}
			defer done()
			env, err := s.environment(ctx, args[:at], single, doc)
			if err != nil {
				return notRun(err)
			}
			defer env.release()
			c := &child{argv: args[at:], env: env.list, stdin: a.stdin, stdout: a.stdout, stderr: a.stderr, signals: a.signals.handOver()}
			if masked {
				var short []int
				c.redact, short = redact.New(env.secrets)
				for _, i := range short {
					a.warn("%s: the value is shorter than %d bytes and is not masked", env.names[i], redact.MinLen)
				}
			}
			status, err := c.run(cmd.Context())
			if by := (interrupted{}); errors.As(err, &by) {
				return by
			}
			if status == 0 && err == nil {
				return nil
			}
			if status == 0 {
				status = exitStatusOf(err)
			}
			return &exit{status, err}
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return notRun(flagError(cmd, err)) })
	doc.add(cmd)
	cmd.Flags().BoolVar(&masked, "redact", false, "mask the resolved values in the output of the command")
	cmd.Flags().StringArrayVar(&single, "env", nil, "set the variable `NAME=REF`; may be repeated")
	return cmd
}

// notRun gives err the status that says that no command was run, unless a signal is why.
func notRun(err error) error {
	if by := (interrupted{}); errors.As(err, &by) {
		return err
	}
	var own *exit
	if errors.As(err, &own) {
		err = own.err
	}
	return &exit{statusNotRun, err}
}

// environment is that of a child.
type environment struct {
	list    []string
	names   []string // of what was resolved
	secrets []backend.Secret
	release func() // lets leases go
}

// environment resolves what the files and the NAME=REF pairs say, on top of our own environment.
func (s *session) environment(ctx context.Context, files, pairs []string, f documentFlags) (*environment, error) {
	vars, err := s.variables(ctx, files, pairs, f)
	if err != nil {
		return nil, err
	}
	var sites []*document.Site
	for _, v := range vars {
		if v.Site != nil {
			sites = append(sites, v.Site)
		}
	}
	s.app.warnOfDefaults(sites)
	outcomes := s.settle(ctx, sites)
	if stop := stopped(ctx); stop != nil {
		return nil, stop
	}
	if err := s.app.failed(failures(sites, outcomes), true); err != nil {
		return nil, err
	}
	env := &environment{list: without(s.app.environ, vars)}
	next := 0
	for _, v := range vars {
		if v.Site == nil {
			env.list = append(env.list, v.Name+"="+v.Value)
			continue
		}
		site, o := v.Site, outcomes[next]
		next++
		secret, removed := o.secret(site)
		if removed {
			continue
		}
		err := secret.Use(func(b []byte) error {
			if slices.Contains(b, 0) {
				return &at{site, backend.Errorf(backend.CodeUnsupported, "%s: the value holds a NUL byte, which no environment variable can", o.label(site))}
			}
			env.list = append(env.list, v.Name+"="+string(b))
			return nil
		})
		if err != nil {
			return nil, err
		}
		if o.value != nil || site.Foreign != nil {
			env.names, env.secrets = append(env.names, v.Name), append(env.secrets, secret)
		}
	}
	env.release = s.hold(ctx, outcomes)
	return env, nil
}

// variables lists what is to be set, each name once: the last that sets it wins.
func (s *session) variables(ctx context.Context, files, pairs []string, f documentFlags) ([]document.Var, error) {
	var vars []document.Var
	for _, path := range files {
		d, err := s.read(ctx, path, f)
		if stop := stopped(ctx); stop != nil {
			return nil, stop
		}
		if err != nil {
			return nil, err
		}
		own, err := d.Env()
		if err != nil {
			return nil, err
		}
		vars = append(vars, own...)
	}
	for i, pair := range pairs {
		name, text, ok := strings.Cut(pair, "=")
		if !ok || name == "" || strings.ContainsRune(name, 0) {
			return nil, backend.Errorf(backend.CodeUsage, "--env number %d must have the form NAME=cred://provider/id", i+1)
		}
		ref, err := credref.Parse(text)
		if err != nil {
			return nil, backend.Errorf(backend.CodeUsage, "--env %s: %v", name, err)
		}
		vars = append(vars, document.Var{Name: name, Site: &document.Site{Ref: ref, File: "--env", Path: name}})
	}
	last := make(map[string]int, len(vars))
	for i, v := range vars {
		last[envKey(v.Name)] = i
	}
	kept := vars[:0:0]
	for i, v := range vars {
		if last[envKey(v.Name)] == i {
			kept = append(kept, v)
		}
	}
	return kept, nil
}

// hold keeps what has an end alive until release is called: refreshed, its lease renewed.
func (s *session) hold(ctx context.Context, outcomes []settled) (release func()) {
	var holds []func()
	for _, o := range outcomes {
		if o.value != nil && !o.value.Expires().IsZero() {
			holds = append(holds, s.keep(ctx, o.used))
		}
	}
	return func() {
		for _, end := range holds {
			end()
		}
	}
}

// without gives environ less vars.
func without(environ []string, vars []document.Var) []string {
	names := make(map[string]bool, len(vars))
	for _, v := range vars {
		names[envKey(v.Name)] = true
	}
	return slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return names[envKey(name)]
	})
}

// envKey is what makes two names of variables the same.
func envKey(name string) string {
	if runtime.GOOS == "windows" {
		return strings.ToUpper(name)
	}
	return name
}
