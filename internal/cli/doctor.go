package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/loginhint"
	"github.com/credresolve/credresolve/internal/statedir"
	"github.com/credresolve/credresolve/resolver"
	"github.com/credresolve/credresolve/resolver/grants"
)

// diagnosis is what doctor found, for a program.
type diagnosis struct {
	OK     bool           `json:"ok"`
	Groups []*findingsFor `json:"groups"`
}

// findingsFor are the findings about one thing: the configuration, the state directory, the sidecar, a provider.
type findingsFor struct {
	Name     string    `json:"name"`
	Kind     string    `json:"kind,omitempty"` // of a provider
	Findings []finding `json:"findings"`
}

// finding is one thing that was looked at.
type finding struct {
	Check  string       `json:"check"`
	Status health       `json:"status"`
	Code   backend.Code `json:"code,omitempty"`
	Cause  string       `json:"cause,omitempty"`
	Next   string       `json:"next,omitempty"`
	err    error
}

// health is how a thing is.
type health string

const (
	healthy health = "ok"
	warned  health = "warning"
	skipped health = "skipped"
	failed  health = "failed"
)

func (f *findingsFor) add(check string, status health, cause, next string) {
	f.Findings = append(f.Findings, finding{Check: check, Status: status, Cause: cause, Next: next})
}

// fail adds an error, whose remedy is what to do next.
func (f *findingsFor) fail(check string, err error, next string) {
	found := finding{Check: check, Status: failed, Code: backend.CodeOf(err), Cause: err.Error(), Next: next, err: err}
	var e *backend.Error
	if errors.As(err, &e) && e.Remedy != "" {
		found.Cause = strings.TrimSuffix(found.Cause, "; "+e.Remedy)
		if next == "" {
			found.Next = e.Remedy
		}
	}
	f.Findings = append(f.Findings, found)
}

func (a *app) doctor() *cobra.Command {
	var allowExec bool
	var output *string
	cmd := &cobra.Command{
		Use:   "doctor [PROVIDER...]",
		Short: "Find out what is wrong, and what to do about it",
		Long: `Find out what is wrong, by provider, with the cause and what to do next. Looked at are the configuration and whether it is
trusted, the state directory, the token store, the sidecar and whether it has the same configuration, and each provider:
whether it can be reached and logged in to, who is logged in, and what is remembered of its failures. No secret is shown.

No executable is started: providers of programs, and those whose own secrets come from one, are skipped unless --allow-exec
is given. Nothing asks on the screen without --interactive, and no browser is opened. The status is 0 when all is well, and
else that of the first failure.`,
		Example: `  credresolve doctor
  credresolve doctor app github
  credresolve doctor --allow-exec --output json`,
		Args: atLeast(0, "providers"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			names := slices.DeleteFunc(a.providerNames(), func(name string) bool { return slices.Contains(args, name) })
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				if err := credref.ValidateProvider(name); err != nil {
					return backend.Errorf(backend.CodeUsage, "the name of a provider must match ^[a-z][a-z0-9_-]{0,63}$")
				}
			}
			d, err := a.diagnose(cmd.Context(), args, allowExec)
			if err != nil {
				return err
			}
			var first error
			for _, g := range d.Groups {
				for _, f := range g.Findings {
					if f.Status == failed && first == nil {
						first = f.err
					}
				}
			}
			d.OK = first == nil
			if *output == outputJSON {
				err = a.writeJSON(d)
			} else {
				err = a.write(d.text())
			}
			if err != nil {
				return err
			}
			return a.failed([]error{first}, false)
		},
	}
	cmd.Flags().BoolVar(&allowExec, "allow-exec", false, "let providers start the programs that they need")
	output = outputFlag(cmd)
	return cmd
}

// diagnose looks at everything; names are the providers that are looked at, none: all.
func (a *app) diagnose(ctx context.Context, names []string, allowExec bool) (*diagnosis, error) {
	d := &diagnosis{}
	state := a.diagnoseState()
	configuration := &findingsFor{Name: "configuration"}
	d.Groups = append(d.Groups, configuration, state)
	bounded, cancel := a.bounded(ctx)
	defer cancel()
	file, project, err := a.load(bounded)
	if err != nil {
		if stop := stopped(ctx); stop != nil {
			return nil, stop
		}
		for i, line := range strings.Split(strings.TrimSpace(err.Error()), "\n") {
			if i == 0 {
				configuration.fail("read", err, "")
				configuration.Findings[0].Cause, _, _ = strings.Cut(configuration.Findings[0].Cause, "\n")
			} else {
				configuration.add("read", failed, line, "")
				configuration.Findings[i].Code, configuration.Findings[i].err = backend.CodeOf(err), err
			}
		}
		return d, nil
	}
	for _, name := range names {
		if file.Provider(name) != nil {
			continue
		}
		var known []string
		for _, p := range file.Providers() {
			known = append(known, p.Name)
		}
		e := backend.Errorf(backend.CodeInvalidConfig, "unknown provider %q", name)
		if near := backend.Nearest(name, known); near != "" {
			e.Remedy = fmt.Sprintf("did you mean %q?", near)
		} else {
			e.Remedy = "see: credresolve providers"
		}
		return nil, e
	}
	where := file.Path()
	if project {
		where += ", found in the working directory"
	}
	configuration.add("read", healthy, where, "")
	for _, w := range file.Warnings() {
		configuration.add("settings", warned, w, "")
	}
	quiet := *a // its warnings are findings
	quiet.stderr, _ = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if quiet.stderr == nil {
		quiet.stderr = a.stderr
	} else {
		defer quiet.stderr.Close()
	}
	_, s, done, err := quiet.openFile(bounded, file, project)
	if err != nil {
		configuration.fail("open", err, "")
		return d, nil
	}
	s.app = a
	defer done()
	if s.untrusted && len(file.NeedsTrust()) > 0 {
		configuration.fail("trust", backend.Errorf(backend.CodeDenied, "the project file %s is not trusted, so that its providers do not run", shown(file.Path())),
			"read it, then run: credresolve trust "+shown(file.Path()))
	} else if project {
		configuration.add("trust", healthy, "", "")
	}
	theirs, sidecar := s.diagnoseSidecar(bounded)
	d.Groups = append(d.Groups, sidecar)
	d.Groups = append(d.Groups, s.diagnoseProviders(bounded, names, allowExec, theirs)...)
	if stop := stopped(ctx); stop != nil {
		return nil, stop
	}
	return d, nil
}

func (a *app) diagnoseState() *findingsFor {
	out := &findingsFor{Name: "state"}
	dir, err := statedir.Path(a.lookupEnv)
	if err != nil {
		out.fail("directory", backend.Errorf(backend.CodeInvalidConfig, "%v", err), "without it nothing is remembered from one run to the next, and logins cannot be kept")
		return out
	}
	if _, err = statedir.Key(dir, "revision"); err != nil {
		next := ""
		cause, remedy, ok := strings.Cut(err.Error(), "; run: ")
		if ok {
			next = "run: " + remedy
		} else {
			cause = strings.ReplaceAll(cause, "\n", " ")
		}
		out.fail("directory", backend.Errorf(backend.CodeInvalidConfig, "%s", cause), next)
		return out
	}
	about := dir
	if st, err := os.Lstat(dir); err == nil && runtime.GOOS != "windows" {
		about = fmt.Sprintf("%s, mode %04o, this user's", dir, st.Mode().Perm())
	}
	out.add("directory", healthy, about, "")
	probe, err := os.CreateTemp(dir, ".doctor-*")
	if err == nil {
		_, err = probe.WriteString("some of a disk that may be full")
		err = errors.Join(err, probe.Close(), os.Remove(probe.Name()))
	}
	if err != nil {
		out.fail("write", backend.Errorf(backend.CodeInvalidConfig, "the state directory %s cannot be written: %s", dir, reason(err)), "make room, or let this user write to it")
	}
	return out
}

// diagnoseSidecar tells of the sidecar, and gives what it knows of its providers; nil where none answers.
func (s *session) diagnoseSidecar(ctx context.Context) (map[string]client.ProviderState, *findingsFor) {
	a, out := s.app, &findingsFor{Name: "sidecar"}
	path, err := client.SocketPath(a.lookupEnv)
	if err != nil {
		out.add("reach", skipped, err.Error(), "")
		return nil, out
	}
	st, err := os.Lstat(path)
	switch {
	case a.noSidecar:
		out.add("reach", skipped, "--no-sidecar", "")
		return nil, out
	case errors.Is(err, os.ErrNotExist):
		out.add("reach", healthy, "none runs, which is fine: each command resolves by itself", "")
		return nil, out
	case err == nil && st.Mode().Type() != os.ModeSocket:
		out.fail("reach", backend.Errorf(backend.CodeUnavailable, "%s is no socket", path), "remove it, or set $CREDRESOLVE_SOCKET")
		return nil, out
	}
	c, err := a.dial(path)
	if err == nil {
		defer c.Close()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, probeTime, backend.Errorf(backend.CodeTimeout, "the sidecar did not answer within %v", probeTime))
	defer cancel()
	var answer client.StatusAnswer
	if err == nil {
		answer, err = c.Status(ctx)
	}
	if err != nil {
		out.fail("reach", late(ctx, err), "start it again: credresolve serve")
		return nil, out
	}
	about := fmt.Sprintf("credresolve %s, pid %d", answer.Version, answer.PID)
	if !answer.Ready {
		out.fail("ready", backend.Errorf(backend.CodeUnavailable, "%s is not ready: not all declared secrets are there", about), "see credresolve status")
	} else {
		out.add("ready", healthy, about, "")
	}
	if own := readBuildInfo().Version; answer.Version != own {
		out.add("version", warned, fmt.Sprintf("it is version %s, this program %s", answer.Version, own), "start it again")
	}
	if answer.Config != s.file.Path() {
		out.add("configuration", warned, "it serves another configuration: "+answer.Config, "commands ask it for equal providers alone")
	} else if answer.ConfigSHA != s.file.SHA256() {
		out.add("configuration", warned, "the configuration has changed since it was read there", fmt.Sprintf("reload it: kill -HUP %d", answer.PID))
	}
	theirs := make(map[string]client.ProviderState, len(answer.Providers))
	for _, p := range answer.Providers {
		theirs[p.Name] = p
	}
	return theirs, out
}

// diagnoseProviders looks at providers, all at once.
func (s *session) diagnoseProviders(ctx context.Context, names []string, allowExec bool, theirs map[string]client.ProviderState) []*findingsFor {
	a := s.app
	entries, err := a.knownLogins()
	var groups []*findingsFor
	if err != nil {
		g := &findingsFor{Name: "logins"}
		g.fail("index", err, "")
		groups = append(groups, g)
	}
	states := map[string]resolver.ProviderState{}
	for _, p := range s.Providers() {
		states[p.Name] = p
	}
	x := &examination{s: s, allowExec: allowExec, entries: entries, unlisted: err != nil, states: states, theirs: theirs}
	for _, def := range s.file.Providers() {
		b, err := s.Backend(def.Name)
		if keeper, ok := grants.As(b); err == nil && ok && (len(names) == 0 || slices.Contains(names, def.Name)) {
			g := &findingsFor{Name: "token store"}
			groups = append(groups, g)
			x.readable = x.tokenStore(ctx, keeper, g)
			break
		}
	}
	var wg sync.WaitGroup
	for _, def := range s.file.Providers() {
		if len(names) > 0 && !slices.Contains(names, def.Name) {
			continue
		}
		g := &findingsFor{Name: def.Name, Kind: def.Kind, Findings: []finding{}}
		groups = append(groups, g)
		wg.Go(func() { x.provider(ctx, def, g) })
	}
	wg.Wait()
	return groups
}

// examination is what looks at providers know.
type examination struct {
	s         *session
	allowExec bool
	entries   []grants.Entry
	unlisted  bool // entries could not be read
	states    map[string]resolver.ProviderState
	theirs    map[string]client.ProviderState
	readable  bool // the token store is
}

func (x *examination) provider(ctx context.Context, def *config.Provider, g *findingsFor) {
	s := x.s
	b, err := s.Backend(def.Name)
	if err != nil {
		g.fail("open", err, "")
		return
	}
	if config.IsUntrusted(b) {
		g.add("reach", skipped, "the project file is not trusted", "")
		return
	}
	program := ""
	if !x.allowExec {
		program = s.starts(def, map[string]bool{})
	}
	if program != "" {
		g.add("reach", skipped, "it starts "+program, "let it: credresolve doctor --allow-exec "+def.Name)
	} else {
		x.probe(ctx, b, g)
	}
	if keeper, ok := grants.As(b); ok {
		x.logins(ctx, def, keeper, g)
	}
	x.failures(def, g)
	if their, known := x.theirs[def.Name]; known {
		if own := x.states[def.Name]; their.Digest != own.Digest && own.Digest != "" {
			g.add("sidecar", warned, "the sidecar has another definition of it, and is not asked", "reload the sidecar")
		}
	} else if x.theirs != nil {
		g.add("sidecar", warned, "the sidecar does not have it", "reload the sidecar")
	}
}

// starts gives the program that def, or a provider of its own secrets, would start; empty: none. A program that is not
// installed cannot be started.
func (s *session) starts(def *config.Provider, seen map[string]bool) string {
	if seen[def.Name] {
		return ""
	}
	seen[def.Name] = true
	if !def.Known {
		return "perhaps a program: kind " + def.Kind + " does not tell"
	}
	if program := startable(def.Reach); program != "" {
		return program
	}
	for _, ref := range def.Chain {
		if next := s.file.Provider(ref.Provider); next != nil {
			if program := s.starts(next, seen); program != "" {
				return program + ", for " + ref.String()
			}
		}
	}
	return ""
}

// startable gives the first program of reach that can be started: one that is not installed cannot.
func startable(reach []backend.Reach) string {
	for _, r := range reach {
		if r.What != backend.ReachExecutable {
			continue
		}
		bare := filepath.Base(r.Value) == r.Value && !strings.ContainsAny(r.Value, " ,")
		if _, err := exec.LookPath(r.Value); bare && errors.Is(err, exec.ErrNotFound) {
			continue
		}
		return r.Value
	}
	return ""
}

// tokenStoreStarts is starts of where logins are kept.
func (s *session) tokenStoreStarts() string {
	if def := s.file.Provider(s.file.LoginStore()); def != nil {
		return s.starts(def, map[string]bool{})
	}
	kind, err := s.app.kinds.Lookup("keychain")
	if err != nil {
		return ""
	}
	if r, ok := kind.NewConfig().(backend.Reacher); ok {
		return startable(r.Reach())
	}
	return ""
}

// tokenStore looks at where logins are kept, and reports whether it may be read.
func (x *examination) tokenStore(ctx context.Context, keeper *grants.Backend, g *findingsFor) (readable bool) {
	if program := x.s.tokenStoreStarts(); program != "" && !x.allowExec {
		g.add("reach", skipped, "it may start "+program, "let it: credresolve doctor --allow-exec")
		return false
	}
	ctx, cancel := x.patience(ctx)
	defer cancel()
	about, strength, err := keeper.ProbeStore(ctx)
	if err = late(ctx, err); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		g.fail("reach", err, "set logins.store to a provider that works here, such as one of kind keychain with backend: file")
		if strings.Contains(x.s.tokenStore(), "provider") {
			g.Findings[len(g.Findings)-1].Next = remedyOf(err)
		}
		return false
	}
	text := x.s.tokenStore()
	if about != "" {
		text += ": " + about
	}
	g.add("reach", healthy, text+"; writes compare: "+string(strength), "")
	return true
}

func remedyOf(err error) string {
	var e *backend.Error
	if errors.As(err, &e) {
		return e.Remedy
	}
	return ""
}

// patience bounds one probe where --timeout does not.
func (x *examination) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	if x.s.app.timeout > 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, probeTime, backend.Errorf(backend.CodeTimeout, "not done within %v", probeTime))
}

func (x *examination) probe(ctx context.Context, b backend.Backend, g *findingsFor) {
	ctx, cancel := x.patience(ctx)
	defer cancel()
	began := time.Now()
	err := late(ctx, backend.Probe(ctx, b))
	detail := backend.Describe(b).Detail
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		g.add("reach", skipped, "it cannot be probed without reading a secret", "")
		return
	case err != nil:
		g.fail("reach", err, "")
		if detail != "" {
			g.Findings[len(g.Findings)-1].Cause += " (" + detail + ")"
		}
		return
	}
	if took := time.Since(began); took > time.Second {
		detail += fmt.Sprintf(", in %v", took.Round(100*time.Millisecond))
	}
	if w, err := backend.AsWriter(b); err == nil {
		detail += ", writes compare: " + string(w.Strength())
	}
	g.add("reach", healthy, strings.TrimPrefix(detail, ", "), "")
}

func (x *examination) logins(ctx context.Context, def *config.Provider, keeper *grants.Backend, g *findingsFor) {
	found := false
	for _, e := range x.entries {
		if e.Provider != def.Name {
			continue
		}
		found = true
		i := newLoginInfo(e)
		if e.Subject != (backend.Subject{}) {
			i.ID += " of a subject"
		} else if x.readable {
			// The index is what was last known; the token store is what counts.
			now, err := keeper.Status(ctx, backend.Request{ID: e.ID})
			switch code := backend.CodeOf(err); code {
			case backend.CodeOK:
				i = newLoginInfo(now)
			case backend.CodeNotFound:
				i.Status, i.Reason = grants.StatusAuthRequired, "the token store does not have it"
			default:
				g.fail("login", late(ctx, err), "")
				continue
			}
		}
		switch {
		case isLoggedIn(i.Status):
			g.add("login", healthy, i.present(), "")
		default:
			text := i.name() + ": " + strings.ReplaceAll(string(i.Status), "_", " ")
			if i.Reason != "" {
				text += ": " + i.Reason
			}
			code := backend.CodeAuthRequired
			if i.Status == grants.StatusExpired {
				code = backend.CodeExpired
			}
			g.fail("login", &backend.Error{Code: code, Reason: text}, i.command())
		}
	}
	switch {
	case found:
	case x.unlisted:
		g.add("login", skipped, "the list of logins cannot be read", "")
	default:
		g.fail("login", backend.Errorf(backend.CodeAuthRequired, "nobody has logged in"), loginInfo{Provider: def.Name, ID: loginhint.DefaultID}.command())
	}
}

func (x *examination) failures(def *config.Provider, g *findingsFor) {
	tell := func(where, breaker string, failures int, code backend.Code, why string, retry *time.Time) {
		if breaker == resolver.BreakerClosed && failures == 0 {
			return
		}
		text := fmt.Sprintf("%d calls in a row have failed%s", failures, where)
		if code != "" {
			text += ", the last one with " + string(code)
		}
		if why != "" {
			text += ": " + why
		}
		next := ""
		if retry != nil {
			text += "; the next try is " + ago(*retry, time.Now())
			next = "try at once with --now"
		}
		g.add("failures", warned, text, next)
	}
	own := x.states[def.Name]
	tell("", own.Breaker, own.Failures, own.Code, own.Reason, when(own.RetryAt))
	if t, ok := x.theirs[def.Name]; ok && t.Breaker != resolver.BreakerClosed {
		tell(" at the sidecar", t.Breaker, t.Failures, t.Code, t.Reason, t.RetryAt)
	}
}

func (d *diagnosis) text() []byte {
	var out bytes.Buffer
	failures, warnings := 0, 0
	for _, g := range d.Groups {
		name := g.Name
		if g.Kind != "" {
			name += " (" + g.Kind + ")"
		}
		fmt.Fprintln(&out, cell(name))
		for _, f := range g.Findings {
			text := string(f.Status)
			if f.Status == failed {
				text += " " + string(f.Code)
				failures++
			} else if f.Status == warned {
				warnings++
			}
			line := fmt.Sprintf("  %-13s %s", f.Check, text)
			if f.Cause != "" {
				line += ": " + f.Cause
			}
			fmt.Fprintln(&out, cell(line))
			if f.Next != "" {
				fmt.Fprintf(&out, "  %-13s → %s\n", "", cell(f.Next))
			}
		}
	}
	plural := func(n int, what string) string {
		if n == 1 {
			return "1 " + what
		}
		return fmt.Sprintf("%d %ss", n, what)
	}
	switch {
	case failures > 0 || warnings > 0:
		fmt.Fprintf(&out, "\n%s, %s\n", plural(failures, "failure"), plural(warnings, "warning"))
	default:
		fmt.Fprintln(&out, "\nall is well")
	}
	return out.Bytes()
}
