package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/openclaw"
	"github.com/credresolve/credresolve/internal/openclawexec"
	"github.com/credresolve/credresolve/secretref"
)

type configureFlags struct {
	providers, providersJSON, remove, set []string
	agent, planOut                        string
	apply, yes, providersOnly             bool
	skipProviders, allowExec, asJSON      bool
	output, compat                        *string
}

// fromFlags reports whether the flags say what to do, so that nothing needs to be asked.
func (f configureFlags) fromFlags() bool {
	return len(f.providers)+len(f.providersJSON)+len(f.remove)+len(f.set) > 0
}

// configured is the answer of secretref configure, for a program.
type configured struct {
	Plan      *openclaw.Plan        `json:"plan"`
	Preflight *openclaw.ApplyReport `json:"preflight"`
	Applied   *openclaw.ApplyReport `json:"applied,omitempty"`
}

func (a *app) secretrefConfigure() *cobra.Command {
	var f configureFlags
	cmd := &cobra.Command{
		Use:   "configure [FILE|DIR]",
		Short: "Choose references for plain-text secrets, and write or carry out a plan",
		Long: `Make a plan that defines secret providers and puts references in the place of plain-text secrets. On a terminal it asks:
first for providers, then, for each secret in plain text, for the reference that takes its place. With --provider,
--provider-json, --remove-provider or --set nothing is asked. No secret is shown or asked for.

A reference is SOURCE:PROVIDER:ID; a cred:// text stands for one of the provider credresolve, which secretref install
defines. A provider is NAME=SOURCE and the keys of its definition; a key that takes a list may be repeated.

The plan is tried first, as secretref apply --dry-run does. --plan-out writes it to a file, which openclaw secrets apply
takes too; --apply carries it out, after a question unless --yes is given. The plain text that it replaces is gone then.

` + homeUsage + `

The exit status is 1 when anything failed, else 0.`,
		Example: `  credresolve secretref configure
  credresolve secretref configure --set models.providers.openai.apiKey=env:default:OPENAI_API_KEY --plan-out plan.json
  credresolve secretref configure --provider 'vault=file,path=~/secrets.json,mode=json' \
    --set gateway.auth.token=file:vault:/gateway/token --apply --yes
  credresolve secretref configure --set models.providers.openai.apiKey=cred://app/kv/app/openai#key --allow-exec --apply`,
		Args:              between(0, 1, "one file or directory at most"),
		ValidArgsFunction: completeHome,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := a.bounded(cmd.Context())
			defer cancel()
			if err := a.configure(ctx, f, strings.Join(args, "")); err != nil {
				return a.asOpenClaw(ctx, err)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.providers, "provider", nil, "define a provider: `NAME=SOURCE,key=value`; may be repeated")
	flags.StringArrayVar(&f.providersJSON, "provider-json", nil, "define a provider by its JSON: `NAME={…}`; may be repeated")
	flags.StringArrayVar(&f.remove, "remove-provider", nil, "remove the provider of that `name`; may be repeated")
	flags.StringArrayVar(&f.set, "set", nil, "put a reference to a place: `PATH=REF`; may be repeated")
	flags.StringVar(&f.agent, "agent", "", "`id` of the agent whose auth profiles are meant; default: "+openclaw.ImplicitAgent())
	flags.StringVar(&f.planOut, "plan-out", "", "write the plan to this `file`")
	flags.BoolVar(&f.apply, "apply", false, "carry the plan out")
	flags.BoolVar(&f.yes, "yes", false, "carry the plan out without a question")
	flags.BoolVar(&f.providersOnly, "providers-only", false, "leave the secrets where they are")
	flags.BoolVar(&f.skipProviders, "skip-provider-setup", false, "leave the providers as they are")
	flags.BoolVar(&f.allowExec, "allow-exec", false, "run the programs of exec providers, each once")
	flags.BoolVar(&f.asJSON, "json", false, "the same as --output json, as OpenClaw calls it")
	for _, name := range []string{"provider", "provider-json", "remove-provider", "set", "agent"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	f.output, f.compat = outputFlag(cmd), compatFlag(cmd)
	return cmd
}

func (a *app) configure(ctx context.Context, f configureFlags, place string) error {
	switch asks := !f.fromFlags(); {
	case f.providersOnly && f.skipProviders:
		return backend.Errorf(backend.CodeUsage, "--providers-only and --skip-provider-setup leave nothing to do")
	case f.providersOnly && len(f.set) > 0:
		return backend.Errorf(backend.CodeUsage, "--providers-only leaves no place for --set")
	case f.skipProviders && len(f.providers)+len(f.providersJSON)+len(f.remove) > 0:
		return backend.Errorf(backend.CodeUsage, "--skip-provider-setup leaves no place for flags about providers")
	case asks && !isTerminal(a.stdin):
		return &backend.Error{Code: backend.CodeUsage, Reason: "there is no terminal to ask on", Remedy: "say it with flags: --provider NAME=SOURCE,key=value " +
			"--set PATH=SOURCE:PROVIDER:ID, and --plan-out FILE or --apply --yes; credresolve secretref audit lists the paths"}
	case f.apply && !f.yes && !isTerminal(a.stdin):
		return &backend.Error{Code: backend.CodeUsage, Reason: "there is no terminal to ask on", Remedy: "add --yes"}
	}
	compat := secretref.Compat(*f.compat)
	home, err := a.openclawHome(place, *f.compat)
	if err != nil {
		return err
	}
	doc, err := home.Load()
	if err != nil {
		return fmt.Errorf("the configuration cannot be used: %w", err)
	}
	f.agent = cmp.Or(f.agent, openclaw.ImplicitAgent())
	if doc.State != "" && !slices.ContainsFunc(doc.Agents, func(one openclaw.Agent) bool { return one.ID == f.agent }) {
		return fmt.Errorf("there is no agent %s in %s", f.agent, doc.State)
	}
	m := planMaker{app: a, doc: doc, flags: f, compat: compat, plan: &openclaw.Plan{GeneratedAt: time.Now(), GeneratedBy: "credresolve secretref configure",
		Options: openclaw.DefaultPlanOptions(compat)}}
	if f.fromFlags() {
		err = m.fromFlags(ctx)
	} else {
		err = m.ask(ctx)
	}
	if err != nil {
		return err
	}
	return m.finish(ctx, home)
}

// planMaker makes a plan.
type planMaker struct {
	app    *app
	doc    *openclaw.Document
	flags  configureFlags
	compat secretref.Compat
	plan   *openclaw.Plan
}

func (m *planMaker) fromFlags(ctx context.Context) error {
	f := m.flags
	for _, s := range f.providers {
		if err := m.provider(openclaw.ParseProvider(s, m.compat)); err != nil {
			return fmt.Errorf("--provider: %w", err)
		}
	}
	for _, s := range f.providersJSON {
		if err := m.provider(openclaw.ParseProviderJSON(s, m.compat)); err != nil {
			return fmt.Errorf("--provider-json: %w", err)
		}
	}
	for _, name := range f.remove {
		if _, ok := m.doc.Secrets.Providers[name]; !ok {
			names := make([]string, 0, len(m.doc.Secrets.Providers))
			for known := range m.doc.Secrets.Providers {
				names = append(names, known)
			}
			e := &backend.Error{Code: backend.CodeNotFound, Reason: "--remove-provider: there is no such provider"}
			if near := backend.Nearest(name, names); near != "" {
				e.Remedy = fmt.Sprintf("did you mean %q?", near)
			}
			return e
		}
		m.plan.Deletes = append(m.plan.Deletes, name)
	}
	for _, s := range f.set {
		path, ref, ok := cutSet(s)
		if !ok {
			return &backend.Error{Code: backend.CodeUsage, Reason: "--set takes PATH=REF", Remedy: "such as --set gateway.auth.token=env:default:GATEWAY_TOKEN"}
		}
		steps, err := openclaw.ParsePath(path)
		if err != nil {
			return fmt.Errorf("--set: the path: %w", err)
		}
		if err := m.target(ctx, steps, ref); err != nil {
			return fmt.Errorf("--set: %w", err)
		}
	}
	return nil
}

// cutSet splits PATH=REF at the first sign = behind which a reference begins: a key in the path may hold one.
func cutSet(s string) (path, ref string, ok bool) {
	for i := range len(s) {
		if s[i] != '=' {
			continue
		}
		for _, start := range []string{"env:", "file:", "exec:", "store:", "cred://"} {
			if strings.HasPrefix(s[i+1:], start) {
				return s[:i], s[i+1:], true
			}
		}
	}
	return strings.Cut(s, "=")
}

func (m *planMaker) provider(name string, definition map[string]any, err error) error {
	if err != nil {
		return err
	}
	if m.plan.Upserts == nil {
		m.plan.Upserts = map[string]any{}
	}
	m.plan.Upserts[name] = definition
	return nil
}

// target adds a place and its reference.
func (m *planMaker) target(ctx context.Context, path []string, text string) error {
	ref, err := m.ref(text)
	if err != nil {
		return err
	}
	t, err := openclaw.NewTarget(path, ref, m.flags.agent, m.doc.State == "", m.compat)
	if err != nil {
		return err
	}
	if t.Agent != "" {
		_, t.AuthProvider = m.doc.Profile(ctx, t.Agent, path[1])
		if t.AuthProvider == "" {
			t.AuthProvider, _, _ = strings.Cut(path[1], ":")
		}
	}
	m.plan.Targets = slices.DeleteFunc(m.plan.Targets, func(one openclaw.PlanTarget) bool {
		return one.Agent == t.Agent && slices.Equal(one.Path, t.Path)
	})
	m.plan.Targets = append(m.plan.Targets, t)
	return nil
}

// ref reads a reference as it is typed.
func (m *planMaker) ref(text string) (secretref.Ref, error) {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "cred://") {
		return openclaw.ParseRef(text, m.compat)
	}
	parsed, err := parseRef(text)
	if err != nil {
		return secretref.Ref{}, err
	}
	id, err := openclawexec.ID(parsed)
	return secretref.Ref{Source: secretref.Exec, Provider: "credresolve", ID: id}, err
}

// ask makes the plan from answers on the terminal.
func (m *planMaker) ask(ctx context.Context) error {
	a := m.app
	if !m.flags.skipProviders {
		for _, name := range slices.Sorted(keysOf(m.doc.Secrets.Providers)) {
			fmt.Fprintln(a.stderr, printable(fmt.Sprintf("provider %s: %s", name, m.doc.Secrets.Providers[name].Source)))
		}
		for {
			line, err := a.ask(ctx, "another provider, as NAME=SOURCE,key=value (empty: go on): ")
			if err != nil {
				return err
			}
			if line == "" {
				break
			}
			if err := m.provider(openclaw.ParseProvider(line, m.compat)); err != nil {
				a.complain(err)
			}
		}
	}
	if m.flags.providersOnly {
		return nil
	}
	candidates := m.doc.Candidates(ctx, m.flags.agent)
	if len(candidates) == 0 {
		fmt.Fprintln(a.stderr, "there is no secret in plain text that a reference could replace")
	}
	for _, c := range candidates {
		place := shown(c.File)
		if c.Line > 0 {
			place += fmt.Sprintf(":%d", c.Line)
		}
		fmt.Fprintln(a.stderr, printable(fmt.Sprintf("%s: %s holds a secret in plain text", place, c)))
		for {
			line, err := a.ask(ctx, "its reference, as SOURCE:PROVIDER:ID (empty: leave it): ")
			if err != nil {
				return err
			}
			if line == "" {
				break
			}
			if err := m.target(ctx, c.Path, line); err != nil {
				a.complain(err)
				continue
			}
			break
		}
	}
	return nil
}

func keysOf[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// ask reads one line of the terminal.
func (a *app) ask(ctx context.Context, prompt string) (string, error) {
	line, err := a.prompt(ctx, prompt, false)
	if errors.Is(err, io.EOF) {
		err = backend.Errorf(backend.CodeCanceled, "nothing was changed")
	}
	return strings.TrimSpace(string(line)), err
}

// finish tries the plan, writes it, and carries it out.
func (m *planMaker) finish(ctx context.Context, home openclaw.Home) error {
	a, f := m.app, m.flags
	if len(m.plan.Targets)+len(m.plan.Upserts)+len(m.plan.Deletes) == 0 {
		return backend.Errorf(backend.CodeUsage, "nothing was chosen, and nothing was changed")
	}
	content, err := m.plan.Encode()
	if err != nil {
		return err
	}
	asJSON := f.asJSON || *f.output == outputJSON
	out := configured{Plan: m.plan}
	if out.Preflight, err = home.Apply(ctx, m.plan, openclaw.ApplyOptions{AllowExec: f.allowExec}); err != nil {
		return m.planned(ctx, content, err)
	}
	var told bytes.Buffer
	told.Write(applyText(out.Preflight))
	if f.planOut != "" {
		if err := m.writePlan(ctx, content); err != nil {
			return err
		}
		fmt.Fprintln(&told, printable("the plan was written to "+shown(f.planOut)))
	}
	apply := f.apply || f.yes
	if isTerminal(a.stdin) && !asJSON && !f.yes && (f.apply || !f.fromFlags()) {
		if _, err := a.stderr.Write(told.Bytes()); err != nil {
			return err
		}
		told.Reset()
		err := a.confirm(ctx, "carry the plan out? The plain text that it replaces is gone then", "add --yes")
		switch {
		case err == nil:
			apply = true
		case f.planOut != "" && backend.CodeOf(err) == backend.CodeCanceled:
			return nil
		default:
			return err
		}
	}
	if apply {
		if out.Applied, err = home.Apply(ctx, m.plan, openclaw.ApplyOptions{Write: true, AllowExec: f.allowExec}); err != nil {
			return err
		}
		told.Reset()
		told.Write(applyText(out.Applied))
	}
	switch {
	case asJSON:
		return a.writeJSON(out)
	case !apply && f.planOut == "":
		fmt.Fprintln(&told, "nothing was written: --plan-out FILE writes the plan, --apply carries it out")
	}
	return a.write(told.Bytes())
}

// planned writes the plan all the same where only OpenClaw can carry it out.
func (m *planMaker) planned(ctx context.Context, content []byte, cause error) error {
	if m.flags.planOut == "" || m.flags.apply || m.flags.yes || backend.CodeOf(cause) != backend.CodeUnsupported {
		return cause
	}
	if err := m.writePlan(ctx, content); err != nil {
		return err
	}
	m.app.warn("%v", cause)
	out := configured{Plan: m.plan}
	if m.flags.asJSON || *m.flags.output == outputJSON {
		return m.app.writeJSON(out)
	}
	return m.app.write([]byte(printable("the plan was written to " + shown(m.flags.planOut) + "\n")))
}

func (m *planMaker) writePlan(ctx context.Context, content []byte) error {
	file, err := newOutFile(m.flags.planOut, m.doc.Config)
	if err != nil {
		return err
	}
	return file.write(ctx, content)
}
