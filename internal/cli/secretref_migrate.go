package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/credref/document"
	"github.com/credresolve/credresolve/internal/openclaw"
	"github.com/credresolve/credresolve/secretref"
)

func (a *app) secretrefMigrate() *cobra.Command {
	var doc documentFlags
	var o migrateOptions
	var output *string
	cmd := &cobra.Command{
		Use:   "migrate FILE [PATH...]",
		Short: "Propose the CredentialRef that stands for a SecretRef, and write it where asked to",
		Long: `Propose, for the SecretRefs at PATHs of a document or for all of them, the CredentialRef that has the same value, and
the provider that the configuration needs for it. Both are resolved and compared, and no value is shown; programs run with
--allow-exec alone.

With --write the references at the PATHs are replaced in FILE, in short form, once their providers are in the configuration and
their values are the same; everything else in FILE stays byte for byte. OpenClaw takes no CredentialRefs: in a document of its
own nothing is written without --force.

The exit status is 1 when a value differs, or a reference that was named has no CredentialRef.`,
		Example: `  credresolve secretref migrate app.yaml
  credresolve secretref migrate app.yaml db.password
  credresolve secretref migrate --write app.yaml db.password`,
		Args:              atLeast(1, "a document, and the paths of references in it"),
		ValidArgsFunction: completeDocuments,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.allowExec = doc.allowExec
			switch {
			case args[0] == "-":
				return backend.Errorf(backend.CodeUsage, "migrate takes a file, not standard input")
			case o.write && len(args) == 1:
				return &backend.Error{Code: backend.CodeUsage, Reason: "--write needs the paths of the references to replace", Remedy: "name them; without --write all are listed"}
			case o.write && o.noVerify:
				return backend.Errorf(backend.CodeUsage, "--write and --no-verify exclude each other")
			case o.write && a.isOpenClaw(args[0], doc) && !o.force:
				return &backend.Error{
					Code: backend.CodeDenied, Reason: args[0] + " is a document of OpenClaw, which takes no CredentialRefs",
					Remedy: "keep the SecretRef, and let this program answer for it: credresolve secretref install; or repeat with --force",
				}
			}
			ctx, s, done, err := a.openDocuments(cmd.Context(), args[:1], doc)
			if err != nil {
				return err
			}
			defer done()
			m, err := s.migrate(ctx, args[0], args[1:], doc, o)
			if err != nil {
				return err
			}
			if *output == outputJSON {
				err = a.writeJSON(m)
			} else {
				err = a.write(m.text())
			}
			if err != nil {
				return err
			}
			if m.failed(len(args) > 1) {
				return &exit{status: 1}
			}
			return nil
		},
	}
	doc.add(cmd)
	cmd.Flags().Lookup("allow-exec").Usage = "run programs to compare values, those of OpenClaw documents outside of your home too"
	cmd.Flags().BoolVar(&o.write, "write", false, "replace the references that are named")
	cmd.Flags().BoolVar(&o.force, "force", false, "write into a document of OpenClaw too")
	cmd.Flags().BoolVar(&o.noVerify, "no-verify", false, "resolve nothing")
	output = outputFlag(cmd)
	return cmd
}

type migrateOptions struct{ write, force, noVerify, allowExec bool }

// migrations is what migrate proposes.
type migrations struct {
	References []*migration      `json:"references"`
	Providers  map[string]string `json:"providers"` // what the configuration lacks, as lines of YAML by name
	names      []string          // of Providers, in order
	file       string            // of the configuration
}

// migration is what is proposed for one SecretRef. It holds no value.
type migration struct {
	File      string       `json:"file"`
	Line      int          `json:"line"`
	Path      string       `json:"path"`
	SecretRef string       `json:"secret_ref"` // source:provider:id
	Ref       *credref.Ref `json:"ref,omitempty"`
	Short     string       `json:"short,omitempty"`
	// Value is same, differs, or not compared.
	Value   string `json:"value"`
	Reason  string `json:"reason,omitempty"` // why there is no Ref, or why the values were not compared
	Written bool   `json:"written"`

	site *document.Site
}

const (
	valueSame        = "same"
	valueDiffers     = "differs"
	valueNotCompared = "not compared"
)

func (m *migrations) failed(named bool) bool {
	return slices.ContainsFunc(m.References, func(one *migration) bool { return one.Value == valueDiffers || named && one.Ref == nil })
}

// migrate proposes a CredentialRef for the SecretRefs of a document at paths, all when there are none.
func (s *session) migrate(ctx context.Context, path string, paths []string, f documentFlags, o migrateOptions) (*migrations, error) {
	d, err := s.read(ctx, path, f)
	if err != nil {
		return nil, err
	}
	m := &migrations{References: []*migration{}, Providers: map[string]string{}, file: s.file.Path()}
	p := &proposer{session: s, of: map[providerKey]*proposed{}}
	seen := map[string]bool{}
	for _, site := range d.Refs() {
		ref, ok := staticRef(site)
		if !ok || len(paths) > 0 && !slices.Contains(paths, site.Path) {
			continue
		}
		seen[site.Path] = true
		one := &migration{File: site.File, Line: site.Line, Path: site.Path, SecretRef: ref.Key(), Value: valueNotCompared, site: site}
		to, reason := p.propose(site.Foreign.(static))
		if one.Reason = reason; reason == "" {
			one.Ref, one.Short = &to, to.String()
		}
		m.References = append(m.References, one)
	}
	for _, want := range paths {
		if !seen[want] {
			return nil, &backend.Error{Code: backend.CodeUsage, Reason: "there is no SecretRef at " + want, Remedy: "list their paths with: credresolve secretref migrate " + path}
		}
	}
	for _, n := range p.order {
		if !n.there {
			m.names = append(m.names, n.name)
			m.Providers[n.name] = n.yaml()
		}
	}
	if !o.noVerify {
		if err := s.compare(ctx, m, p, o); err != nil {
			return nil, err
		}
	}
	if o.write {
		return m, s.writeMigrations(ctx, path, d, m)
	}
	return m, nil
}

// proposer makes CredentialRefs of SecretRefs, and the providers that they need.
type proposer struct {
	*session
	of    map[providerKey]*proposed
	order []*proposed
}

type providerKey struct {
	of       *statics
	source   secretref.Source
	provider string
}

// proposed is the provider that stands for one of a section secrets.
type proposed struct {
	name     string
	there    bool // the configuration has one of that name and kind
	kind     string
	settings []setting
}

type setting struct {
	key   string
	value any // as JSON, which is YAML too
}

// yaml writes the provider as the value of its name.
func (p *proposed) yaml() string {
	var b strings.Builder
	b.WriteString("{kind: " + p.kind)
	for _, s := range p.settings {
		text, _ := json.Marshal(s.value) // texts, numbers and lists of these
		if word, ok := s.value.(string); ok && isWord(word) {
			text = []byte(word)
		}
		b.WriteString(", " + s.key + ": " + string(text))
	}
	return b.String() + "}"
}

func isWord(s string) bool { return s == "json" || s == "raw" }

// propose gives the CredentialRef for a SecretRef, or the reason why there is none.
func (p *proposer) propose(st static) (credref.Ref, string) {
	ref := st.Ref
	ref.ID = strings.TrimSpace(ref.ID)
	if err := st.of.grammar.Check(ref); err != nil {
		return credref.Ref{}, strings.TrimSuffix(err.Error(), ".")
	}
	if st.of.err != nil {
		return credref.Ref{}, st.of.err.Error()
	}
	def, defined := st.of.config.Providers[ref.Provider]
	builtIn := ref.Source == secretref.Env && ref.Provider == st.of.config.Defaults.Of(secretref.Env) && (!defined || def.Source != secretref.Env)
	switch {
	case builtIn:
		def = secretref.Provider{Source: secretref.Env, Env: &secretref.EnvProvider{}}
	case !defined || def.Source != ref.Source:
		return credref.Ref{}, "its provider is not configured"
	}
	if def.Exec != nil && isOurs(def.Exec) {
		return p.inner(ref, def.Exec)
	}
	kind, settings, reason := describe(def, st.of.host)
	if reason != "" {
		return credref.Ref{}, reason
	}
	to := p.provider(providerKey{st.of, ref.Source, ref.Provider}, ref.Provider, kind, settings, builtIn)
	if kind == "env" && !to.there {
		names := to.settings[0].value.([]string)
		if !slices.Contains(names, ref.ID) {
			to.settings[0].value = append(names, ref.ID)
		}
	}
	return credref.Ref{Provider: to.name, ID: ref.ID}, ""
}

// provider gives the one that stands for key, under a name that nothing else has.
func (p *proposer) provider(key providerKey, name, kind string, settings []setting, builtIn bool) *proposed {
	if n := p.of[key]; n != nil {
		return n
	}
	if builtIn {
		name = "env"
	}
	n := &proposed{kind: kind, settings: settings}
	for _, n.name = range []string{name, name + "-" + kind, name + "-openclaw"} {
		have := p.file.Provider(n.name)
		n.there = have != nil && have.Kind == kind
		taken := have != nil && !n.there || slices.ContainsFunc(p.order, func(o *proposed) bool { return o.name == n.name })
		if !taken {
			break
		}
	}
	p.of[key] = n
	p.order = append(p.order, n)
	return n
}

// describe gives the kind and the settings that stand for a provider, or why none do.
func describe(def secretref.Provider, host secretref.Host) (kind string, settings []setting, reason string) {
	switch def.Source {
	case secretref.Env:
		return "env", []setting{{"allow", []string{}}}, ""
	case secretref.File:
		f := def.File
		path := f.Path
		if rest, ok := strings.CutPrefix(path, "~/"); ok {
			path = filepath.Join(host.Home, rest)
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(host.Dir, path)
		}
		settings = append(settings, setting{"path", path})
		if f.Mode == secretref.ModeSingleValue {
			settings = append(settings, setting{"mode", "raw"}, setting{"trim_newline", true})
		} else {
			settings = append(settings, setting{"mode", "json"})
		}
		if f.MaxBytes > 0 {
			settings = append(settings, setting{"max_bytes", f.MaxBytes})
		}
		return "file", settings, ""
	}
	e := def.Exec
	switch {
	case e.Plugin != nil:
		return "", nil, "its program is a plugin of OpenClaw"
	case e.AllowText:
		return "", nil, "its program may answer with plain text (jsonOnly: false), which a provider of kind exec either always or never does"
	case len(e.Env) > 0:
		return "", nil, "env of its provider holds literals; put them into a store, and write the provider of kind exec with refs to them"
	}
	settings = append(settings, setting{"command", e.Command})
	if len(e.Args) > 0 {
		settings = append(settings, setting{"args", e.Args})
	}
	if len(e.PassEnv) > 0 {
		settings = append(settings, setting{"pass_env", e.PassEnv})
	}
	if e.Timeout > 0 {
		settings = append(settings, setting{"timeout", e.Timeout.String()})
	}
	if e.NoOutputTimeout > 0 {
		settings = append(settings, setting{"no_output_timeout", e.NoOutputTimeout.String()})
	}
	if e.MaxOutputBytes > 0 {
		settings = append(settings, setting{"max_output", e.MaxOutputBytes})
	}
	if len(e.TrustedDirs) > 0 {
		settings = append(settings, setting{"allow_dirs", e.TrustedDirs})
	}
	return "exec", settings, ""
}

// isOurs reports whether a program is this one, as secretref install writes it.
func isOurs(e *secretref.ExecProvider) bool {
	return strings.TrimSuffix(filepath.Base(e.Command), ".exe") == "credresolve" && slices.Contains(e.Args, "openclaw-exec")
}

// inner gives the CredentialRef that this program makes of an id of OpenClaw.
func (p *proposer) inner(ref secretref.Ref, e *secretref.ExecProvider) (credref.Ref, string) {
	if slices.Contains(e.Args, "--vault-env") {
		return credref.Ref{}, "its program is credresolve without a configuration (--vault-env); write a provider of kind vault"
	}
	if i := slices.Index(e.Args, "--config"); i >= 0 && i+1 < len(e.Args) && filepath.Clean(e.Args[i+1]) != p.file.Path() {
		return credref.Ref{}, "its program is credresolve with another configuration: repeat this with --config " + e.Args[i+1]
	}
	to, err := openClawNames(p.file, ref.Provider).Ref(ref.ID)
	if err != nil {
		return credref.Ref{}, err.Error()
	}
	return to, ""
}

// compare resolves both references of each migration.
func (s *session) compare(ctx context.Context, m *migrations, p *proposer, o migrateOptions) error {
	var ours []*migration
	var sites []*document.Site
	for _, one := range m.References {
		ref, _ := staticRef(one.site)
		switch {
		case one.Ref == nil:
		case ref.Source == secretref.Exec && !o.allowExec:
			one.Reason = "its program does not run without --allow-exec"
		default:
			ours, sites = append(ours, one), append(sites, one.site)
		}
	}
	if len(ours) == 0 {
		return nil
	}
	old := s.settle(ctx, sites)
	with := s
	if len(m.names) > 0 {
		var text strings.Builder
		text.WriteString("version: 1\nproviders:\n")
		for _, name := range m.names {
			text.WriteString("  " + name + ": " + m.Providers[name] + "\n")
		}
		file, err := config.Parse(filepath.Join(s.file.Dir(), config.FileName), []byte(text.String()), s.app.kinds)
		if err != nil {
			return err
		}
		_, added, done, err := s.app.openFile(ctx, file, false)
		if err != nil {
			return err
		}
		defer done()
		with = added
	}
	for i, one := range ours {
		if old[i].how != howRef {
			one.Reason = "the SecretRef has no value: " + old[i].err.Error()
			continue
		}
		asked := s
		if _, isNew := m.Providers[one.Ref.Provider]; isNew {
			asked = with
		}
		got := asked.resolve(ctx, []credref.Ref{*one.Ref})[0]
		if got.Err != nil {
			one.Value, one.Reason = valueDiffers, "the CredentialRef has no value: "+got.Err.Error()
			continue
		}
		now := got.Value.Secret()
		if one.Value = valueDiffers; now.Equal(old[i].static) && now.IsJSON() == old[i].static.IsJSON() {
			one.Value = valueSame
		}
	}
	return stopped(ctx)
}

// writeMigrations replaces the references of m in the document at path, if all can be, and nothing else.
func (s *session) writeMigrations(ctx context.Context, path string, d *document.Document, m *migrations) error {
	to := map[*document.Site]*migration{}
	for _, one := range m.References {
		reason := ""
		switch {
		case one.Ref == nil:
			reason = one.Reason
		case m.Providers[one.Ref.Provider] != "":
			reason = "the configuration has no provider " + one.Ref.Provider + " yet; add to providers: " + one.Ref.Provider + ": " + m.Providers[one.Ref.Provider]
		case one.Value == valueDiffers && one.Reason == "":
			reason = "the CredentialRef " + one.Short + " has another value"
		case one.Value != valueSame:
			reason = one.Reason
		}
		if reason != "" {
			return backend.Errorf(backend.CodeUsage, "%s:%d: %s: %s; nothing was written", one.File, one.Line, one.Path, reason)
		}
		to[one.site] = one
	}
	text, err := d.Render(func(site *document.Site) (document.Replacement, error) {
		if one := to[site]; one != nil {
			return document.Replacement{Secret: backend.NewSecretString(one.Short)}, nil
		}
		return document.Replacement{Keep: true}, nil
	})
	if err != nil {
		return err
	}
	if err := openclaw.ReplaceFile(ctx, path, d.Source(), text); err != nil {
		return backend.Errorf(backend.CodeUsage, "%v", err)
	}
	for _, one := range m.References {
		one.Written = true
	}
	return nil
}

func (m *migrations) text() []byte {
	var out bytes.Buffer
	for _, one := range m.References {
		fmt.Fprintf(&out, "%s:%d: %s: %s\n", one.File, one.Line, printable(one.Path), printable(one.SecretRef))
		switch {
		case one.Ref == nil:
			fmt.Fprintf(&out, "  stays: %s\n", printable(one.Reason))
			continue
		case one.Written:
			fmt.Fprintf(&out, "  is now %s\n", one.Short)
			continue
		case one.Value == valueSame:
			fmt.Fprintf(&out, "  %s, the same value\n", one.Short)
			continue
		}
		fmt.Fprintf(&out, "  %s, value %s", one.Short, one.Value)
		if one.Reason != "" {
			fmt.Fprintf(&out, ": %s", printable(one.Reason))
		}
		out.WriteString("\n")
	}
	if len(m.References) == 0 {
		out.WriteString("there is no SecretRef\n")
	}
	if len(m.names) > 0 {
		fmt.Fprintf(&out, "add to providers in %s:\n", m.file)
		for _, name := range m.names {
			fmt.Fprintf(&out, "  %s: %s\n", name, m.Providers[name])
		}
	}
	return out.Bytes()
}
