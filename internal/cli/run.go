package cli

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/credref/document"
	"github.com/credresolve/credresolve/internal/redact"
	"github.com/credresolve/credresolve/internal/requirements"
)

// runFlags are the flags of run.
type runFlags struct {
	doc    documentFlags
	masked bool
	single []string
	needs  needFlags
	as     sessionFlags
	watch  watchFlags
	revoke bool
}

func (a *app) run() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [FILE...] [--env NAME=REF]... [--requirements FILE]... -- COMMAND [ARG...]",
		Short: "Run a command with resolved references in its environment",
		Long: `Run a command whose environment is this one's, with the variables of the files added: each reference is resolved, a
literal stays as it is. A file is a .env file, or a flat map in YAML, JSON, JSON5 or TOML. A later file wins over an
earlier one, --requirements over files, --env over both, and all of them over what is in the environment already.

With --requirements the command gets what a skill or a plugin declares that it needs, and is not started unless all is there:
see credresolve requirements.

With --session references are resolved for a session of this one command: what it gets of providers that are scoped by session,
end user or tenant is its own, and ends with it. A sidecar gives the session, for exactly these references; without one it is
kept in this process.

With --watch the command is restarted when a value that it has changes, or gets a signal, or is ended: --on-change.

Signals pass through to the command, and its exit status comes back, 128+n for signal n. Status 125 means that nothing was
run, 126 that the command could not be started, 127 that there is no such command. What has a lease is kept alive while the
command runs.

With --redact the resolved values are masked in the output of the command.`,
		Example: `  credresolve run app.env -- ./server --port 8080
  credresolve run --env DB_PASSWORD=cred://app/kv/app/db#password -- psql
  credresolve run --redact ci.env -- make test
  credresolve run --requirements skills/report/SKILL.md -- python3 report.py
  credresolve run --session new --end-user alice --reason "ticket 4711" app.env -- ./agent
  credresolve run --watch --grace 30s app.env -- ./server
  credresolve run --watch --on-change signal:HUP app.env -- ./server
  credresolve run --revoke-leases app.env -- ./nightly`,
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
			if at == 0 && len(f.single) == 0 && len(f.needs.files) == 0 {
				return &exit{statusNotRun, backend.Errorf(backend.CodeUsage, "no file, no --env and no --requirements: nothing to resolve")}
			}
			if err := f.check(cmd); err != nil {
				return notRun(err)
			}
			return a.runCommand(cmd.Context(), args[:at], args[at:], &f)
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return notRun(flagError(cmd, err)) })
	f.doc.add(cmd)
	cmd.Flags().BoolVar(&f.masked, "redact", false, "mask the resolved values in the output of the command")
	cmd.Flags().StringArrayVar(&f.single, "env", nil, "set the variable `NAME=REF`; may be repeated")
	cmd.Flags().StringArrayVar(&f.needs.files, "requirements", nil, "set the variables that a SKILL.md or another `FILE` requires; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("requirements", completeRequirements)
	f.needs.add(cmd)
	f.as.add(cmd)
	f.watch.add(cmd)
	cmd.Flags().BoolVar(&f.revoke, "revoke-leases", false, "revoke what has a lease when the command has ended; resolves in this process")
	return cmd
}

// check refuses flags that mean nothing without another.
func (f *runFlags) check(cmd *cobra.Command) error {
	for _, of := range []struct{ flag, needs string }{
		{"on-change", "watch"}, {"grace", "watch"},
		{"end-user", "session"}, {"tenant", "session"}, {"reason", "session"},
		{"map", "requirements"},
	} {
		if cmd.Flags().Changed(of.flag) && !cmd.Flags().Changed(of.needs) {
			e := backend.Errorf(backend.CodeUsage, "--%s does nothing without --%s", of.flag, of.needs)
			if of.needs == "session" {
				e.Remedy = "add --session new"
			}
			return e
		}
	}
	return nil
}

// runCommand resolves what files and flags say, and runs argv with it.
func (a *app) runCommand(cmdCtx context.Context, files, argv []string, f *runFlags) error {
	open := func() (context.Context, *session, func(), error) { return a.openDocuments(cmdCtx, files, f.doc) }
	if len(f.needs.files) > 0 {
		open = func() (context.Context, *session, func(), error) { return a.open(cmdCtx) }
	}
	ctx, s, done, err := open()
	if err != nil {
		return notRun(err)
	}
	defer done()
	s.ownOnly = f.revoke
	needs, err := s.requirements(ctx, f.needs)
	if err != nil {
		return notRun(err)
	}
	vars, err := s.variables(ctx, files, f.single, needs, f.doc)
	if err != nil {
		return notRun(err)
	}
	a.warnOfDefaults(sitesOf(vars))
	ctx, err = s.begin(ctx, f.as, vars)
	if err != nil {
		return notRun(err)
	}
	defer s.finish(f.revoke)
	env, err := s.environment(ctx, vars)
	if err != nil {
		return notRun(err)
	}
	defer s.hold(ctx, env.outcomes)()
	c := &child{argv: argv, env: env.list, stdin: a.stdin, stdout: a.stdout, stderr: a.stderr}
	if f.masked {
		c.mask(a, env)
	}
	if f.watch.on {
		w := s.watchEnvironment(ctx, vars, env)
		defer w.stop()
		c.changes, c.onChange, c.grace, c.tell = w.changes, f.watch.action, f.watch.grace, a.note
		if c.redact != nil {
			c.learn = func(env *environment) *redact.Redactor { c.mask(a, env); return c.redact }
		}
	}
	c.signals = a.signals.handOver()
	status, err := c.runAll(cmdCtx)
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
}

// keptGenerations is how many sets of values are masked in the output: what was true lately may still be said.
const keptGenerations = 8

// mask makes c mask the values of env, and those that it had before.
func (c *child) mask(a *app, env *environment) {
	if c.masked = append(c.masked, env); len(c.masked) > keptGenerations {
		c.masked = c.masked[1:]
	}
	var secrets []backend.Secret
	for _, env := range c.masked {
		secrets = append(secrets, env.secrets...)
	}
	var short []int
	c.redact, short = redact.New(secrets)
	for _, i := range short {
		if i -= len(secrets) - len(env.secrets); i >= 0 {
			a.warn("%s: the value is shorter than %d bytes and is not masked", env.names[i], redact.MinLen)
		}
	}
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

// variable is one that a child gets.
type variable struct {
	document.Var
	need *requirements.Requirement // whose Site it is; nil: it was not required
	// lacks is why need cannot be met, whatever its store says; then Site is not looked for.
	lacks error
	told  requirements.Status // what was warned of
}

// environment is that of a child.
type environment struct {
	list     []string
	names    []string // of what was resolved
	secrets  []backend.Secret
	outcomes []settled // of the variables that have a ref
	changed  []string  // the names of what differs from the environment before
}

// environment resolves vars, on top of our own environment.
func (s *session) environment(ctx context.Context, vars []variable) (*environment, error) {
	outcomes := s.settleVariables(ctx, vars)
	if stop := stopped(ctx); stop != nil {
		return nil, stop
	}
	now := time.Now()
	var errs []error
	for i, v := range vars {
		o := &outcomes[i]
		if v.need != nil && v.Site != nil {
			s.meet(&vars[i], o, now)
		}
		if o.how == howFailed {
			errs = append(errs, failures([]*document.Site{v.Site}, []settled{*o})...)
		}
	}
	if err := joined(errs); err != nil {
		return nil, err
	}
	env := &environment{list: without(s.app.environ, vars)}
	for i, v := range vars {
		if v.Site == nil {
			env.list = append(env.list, v.Name+"="+v.Value)
			continue
		}
		site, o := v.Site, outcomes[i]
		env.outcomes = append(env.outcomes, o)
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
	return env, nil
}

// joined gives errs as one error that says each thing once; nil when there are none.
func joined(errs []error) error {
	seen := make(map[string]bool)
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool {
		text := err.Error()
		twice := seen[text]
		seen[text] = true
		return twice
	})...)
}

// settleVariables settles vars: an outcome for each, zero for a literal. SecretRefs, which are resolved once and for all, keep
// their first.
func (s *session) settleVariables(ctx context.Context, vars []variable) []settled {
	outcomes := make([]settled, len(vars))
	var sites []*document.Site
	var where []int
	for i, v := range vars {
		switch first, known := s.statics[v.Site]; {
		case v.Site == nil:
		case v.lacks != nil:
			outcomes[i] = settled{how: howFailed, err: v.lacks}
		case known:
			outcomes[i] = first
		default:
			sites, where = append(sites, v.Site), append(where, i)
		}
	}
	for k, o := range s.settle(ctx, sites) {
		outcomes[where[k]] = o
		if sites[k].Foreign != nil {
			if s.statics == nil {
				s.statics = map[*document.Site]settled{}
			}
			s.statics[sites[k]] = o
		}
	}
	return outcomes
}

// variables lists what is to be set, each name once: the last that sets it wins.
func (s *session) variables(ctx context.Context, files, pairs []string, needs []requirements.Requirement, f documentFlags) ([]variable, error) {
	var vars []variable
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
		for _, v := range own {
			vars = append(vars, variable{Var: v})
		}
	}
	for i := range needs {
		vars = append(vars, s.required(&needs[i]))
	}
	for i, pair := range pairs {
		name, ref, err := namedRef("env", i, pair)
		if err != nil {
			return nil, err
		}
		vars = append(vars, variable{Var: document.Var{Name: name, Site: &document.Site{Ref: ref, File: "--env", Path: name}}})
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

// namedRef reads NAME=REF, number i of a flag. What is malformed may be a secret, and is not repeated.
func namedRef(flag string, i int, pair string) (name string, ref credref.Ref, err error) {
	name, text, ok := strings.Cut(pair, "=")
	if !ok || name == "" || strings.ContainsRune(name, 0) {
		return "", ref, backend.Errorf(backend.CodeUsage, "--%s number %d must have the form NAME=cred://provider/id", flag, i+1)
	}
	if ref, err = credref.Parse(text); err != nil {
		return "", ref, backend.Errorf(backend.CodeUsage, "--%s %s: %v", flag, name, err)
	}
	return name, ref, nil
}

func sitesOf(vars []variable) (sites []*document.Site) {
	for _, v := range vars {
		if v.Site != nil && v.lacks == nil {
			sites = append(sites, v.Site)
		}
	}
	return sites
}

// refsOf gives every ref that vars may take their values from, each once.
func refsOf(vars []variable) (refs []credref.Ref) {
	seen := make(map[credref.Ref]bool)
	for _, site := range sitesOf(vars) {
		if site.Foreign != nil {
			continue
		}
		for _, ref := range append([]credref.Ref{site.Ref}, site.Fallback...) {
			if !seen[ref] {
				seen[ref] = true
				refs = append(refs, ref)
			}
		}
	}
	return refs
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
func without(environ []string, vars []variable) []string {
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
