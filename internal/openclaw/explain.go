package openclaw

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/secretref"
)

// Form is how a ref is written.
type Form string

// The forms.
const (
	FormObject  Form = "object"   // {source, provider, id}
	FormLegacy  Form = "legacy"   // {source, id}: the provider is the source's default
	FormBraces  Form = "${NAME}"  // a text: a variable of the environment
	FormDollar  Form = "$NAME"    // a text, since 2026.6
	FormUnknown Form = "not here" // nothing has this ref
)

// Explanation is what is known of one ref without resolving it, and with Options that allow that whether it resolves.
type Explanation struct {
	// Place is where it is written; empty for a ref that was asked for and that nothing has.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	Path string `json:"path,omitempty"`

	Ref  secretref.Ref `json:"ref"`
	Key  string        `json:"key"` // source:provider:id
	Form Form          `json:"form"`
	// Problem is what its grammar says against it.
	Problem string `json:"problem,omitempty"`

	Provider ExplainedProvider `json:"provider"`
	Surface  *ExplainedSurface `json:"surface,omitempty"` // missing: the place is none where OpenClaw takes a ref
	Uses     []ExplainedUse    `json:"uses,omitempty"`
	// Notes are what else matters: a literal beside it, a profile that takes precedence.
	Notes []string `json:"notes,omitempty"`
	// Checks are what resolving it would look at, in that order.
	Checks []string `json:"checks"`

	Outcome ExplainedOutcome `json:"outcome"`
}

// ExplainedProvider is the provider of a ref, without secrets.
type ExplainedProvider struct {
	Name string `json:"name"`
	// Defined is the path of its definition; empty for one that is built in, or not there.
	Defined  string   `json:"defined,omitempty"`
	BuiltIn  bool     `json:"built_in,omitempty"`
	Settings []string `json:"settings,omitempty"` // "mode: json"
	Problem  string   `json:"problem,omitempty"`
}

// ExplainedSurface is the kind of place where a ref is.
type ExplainedSurface struct {
	Pattern  string             `json:"pattern"`
	Expected secretref.Expected `json:"expected"`
	// RuntimeOnly says that the gateway resolves refs here although no plan and no audit of OpenClaw names the place.
	RuntimeOnly bool `json:"runtime_only,omitempty"`
}

// ExplainedUse is an owner that a ref has.
type ExplainedUse struct {
	Owner  string `json:"owner,omitempty"` // "provider:openai"; empty: none is known
	Strict bool   `json:"strict"`          // its failure fails the whole activation
	Active bool   `json:"active"`
	Reason string `json:"reason,omitempty"`
}

// ExplainedOutcome tells whether a ref resolves. It holds no value.
type ExplainedOutcome struct {
	Status    string         `json:"status"` // resolved, failed or skipped
	Code      secretref.Code `json:"code,omitempty"`
	Reason    string         `json:"reason,omitempty"`
	Retryable bool           `json:"retryable,omitempty"`
}

// ExplainOptions say what may be done to explain refs.
type ExplainOptions struct {
	// Resolve resolves refs, those of programs with AllowExec alone.
	Resolve, AllowExec bool
}

// Explain explains the refs of a home, in the order of their places: all of them, or those that what names: a path as OpenClaw
// writes it (models.providers.openai.apiKey), a JSON Pointer, or a ref as source:provider:id. A ref that nothing has is explained
// too; a path without a ref is an error, and so is a configuration that cannot be read.
func (h Home) Explain(ctx context.Context, what string, o ExplainOptions) ([]Explanation, error) {
	d, err := h.Load()
	if err != nil {
		return nil, err
	}
	e := &explainer{Document: d}
	if err := e.gather(ctx); err != nil {
		return nil, err
	}
	found := e.found
	if what != "" {
		if found, err = e.choose(what); err != nil {
			return nil, err
		}
	}
	e.outcomes(ctx, found, o)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return found, nil
}

type explainer struct {
	*Document
	found []Explanation
}

func (e *explainer) gather(ctx context.Context) error {
	targets, err := TargetsIn(e.Value, e.Grammar, e.LookupEnv)
	if err != nil {
		return err
	}
	profiled := map[string][]string{}
	stores := e.ProfileStores(ctx)
	for _, s := range stores {
		for _, c := range credentials(s.Root) {
			profiled[providerID(c.provider)] = append(profiled[providerID(c.provider)], c.id)
		}
	}
	at := map[string]int{}
	for _, t := range targets {
		i, seen := at[t.Path]
		if !seen {
			i = len(e.found)
			at[t.Path] = i
			e.found = append(e.found, e.explain(t.Ref))
			x := &e.found[i]
			steps := SplitPath(t.Path)
			x.File, x.Path, x.Line = e.Config, t.Path, e.line(steps)
			value := valueAt(e.Value, steps)
			x.Form = formOf(value)
			if s, ok := SurfaceAt(steps); ok {
				x.Surface = &ExplainedSurface{s.Pattern, s.Expected, s.RuntimeOnly}
				if s.Pattern == "models.providers.*.apiKey" && len(profiled[providerID(steps[2])]) > 0 {
					x.Notes = append(x.Notes, fmt.Sprintf("auth profiles of provider %q take precedence: %s", steps[2], strings.Join(profiled[providerID(steps[2])], ", ")))
				}
			}
			if legacy := x.Form == FormLegacy; legacy && e.State != "" {
				x.Notes = append(x.Notes, "openclaw refuses a ref without a provider in its configuration; add provider: \""+secretref.DefaultAlias+"\"")
			}
		}
		e.found[i].use(t)
	}
	for _, s := range stores {
		if s.Err != nil {
			return fmt.Errorf("%s: %w", s.Path, s.Err)
		}
		targets, err := ProfileTargets(map[string]any(s.Root), s.Path, e.Value, e.Grammar, time.Now())
		if err != nil {
			return err
		}
		for _, t := range targets {
			x := e.explain(t.Ref)
			rest := strings.TrimPrefix(t.Path, s.Path+".auth-profiles.")
			id, field := rest[:strings.LastIndexByte(rest, '.')], rest[strings.LastIndexByte(rest, '.')+1:]
			profile := object(member(s.Root, "profiles")[id])
			x.File, x.Path = s.Path, "profiles."+id+"."+field+"Ref"
			x.Form = formOf(profile[field+"Ref"])
			if _, ok := e.Grammar.FromValue(profile[field+"Ref"]); !ok {
				x.Path, x.Form = "profiles."+id+"."+field, formOf(profile[field])
			}
			if surface, ok := ProfileSurfaceAt([]string{"profiles", id, field + "Ref"}); ok {
				x.Surface = &ExplainedSurface{surface.Pattern, surface.Expected, surface.RuntimeOnly}
			}
			if t.Overrides {
				x.Notes = append(x.Notes, "the "+field+" in plain text beside it is ignored; remove it")
			}
			x.use(t)
			e.found = append(e.found, x)
		}
	}
	return nil
}

func (x *Explanation) use(t secretref.Target) {
	u := ExplainedUse{Strict: t.Strict || t.Owner == (secretref.Owner{}), Active: !t.Inactive, Reason: t.Reason}
	if t.Owner != (secretref.Owner{}) {
		u.Owner = t.Owner.Kind + ":" + t.Owner.ID
	}
	x.Uses = append(x.Uses, u)
}

// formOf says how a ref is written.
func formOf(v any) Form {
	switch v := v.(type) {
	case string:
		if strings.HasPrefix(strings.TrimSpace(v), "${") {
			return FormBraces
		}
		return FormDollar
	case map[string]any:
		if _, ok := v["provider"]; !ok {
			return FormLegacy
		}
	}
	return FormObject
}

// valueAt gives the value at a path; nil when there is none.
func valueAt(v any, steps []string) any {
	for _, step := range steps {
		switch container := v.(type) {
		case map[string]any:
			v = container[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(container) {
				return nil
			}
			v = container[i]
		default:
			return nil
		}
	}
	return v
}

// SplitPath gives the keys and indices of a path as AppendKey and AppendIndex write it, or of a JSON Pointer.
func SplitPath(path string) []string {
	if strings.HasPrefix(path, "/") {
		steps := strings.Split(path[1:], "/")
		for i := range steps {
			steps[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(steps[i])
		}
		return steps
	}
	var steps []string
	for path != "" {
		switch {
		case strings.HasPrefix(path, `["`):
			quoted, err := strconv.QuotedPrefix(path[1:])
			if err != nil {
				return append(steps, path)
			}
			key, err := strconv.Unquote(quoted)
			if err != nil {
				return append(steps, path)
			}
			steps = append(steps, key)
			path = strings.TrimPrefix(path[1+len(quoted):], "]")
		case strings.HasPrefix(path, "["):
			index, rest, _ := strings.Cut(path[1:], "]")
			steps, path = append(steps, index), rest
		default:
			end := strings.IndexAny(path, ".[")
			if end < 0 {
				end = len(path)
			}
			steps, path = append(steps, path[:end]), path[end:]
		}
		path = strings.TrimPrefix(path, ".")
	}
	return steps
}

// choose gives the explanations that what names.
func (e *explainer) choose(what string) ([]Explanation, error) {
	if source, rest, ok := strings.Cut(what, ":"); ok && slices.Contains([]secretref.Source{secretref.Env, secretref.File, secretref.Exec, secretref.Store}, secretref.Source(source)) {
		provider, id, ok := strings.Cut(rest, ":")
		if !ok || provider == "" || id == "" {
			return nil, errors.New("a ref is written source:provider:id, as in env:default:OPENAI_API_KEY")
		}
		ref := secretref.Ref{Source: secretref.Source(source), Provider: provider, ID: id}
		var chosen []Explanation
		for _, x := range e.found {
			if x.Ref == ref {
				chosen = append(chosen, x)
			}
		}
		if len(chosen) == 0 {
			x := e.explain(ref)
			x.Form = FormUnknown
			chosen = append(chosen, x)
		}
		return chosen, nil
	}
	steps := SplitPath(what)
	var chosen []Explanation
	for _, x := range e.found {
		if own := SplitPath(x.Path); len(own) >= len(steps) && slices.Equal(own[:len(steps)], steps) {
			chosen = append(chosen, x)
		}
	}
	if len(chosen) > 0 {
		return chosen, nil
	}
	switch v := valueAt(e.Value, steps).(type) {
	case nil:
		return nil, fmt.Errorf("%s: there is nothing at this path", e.Config)
	case string:
		if secretref.Retired(v) {
			return nil, fmt.Errorf("%s: the value is a marker of an older release, which is no ref any more; write {source: \"env\", provider: \"default\", id: \"NAME\"}", e.at(steps, what))
		}
		return nil, fmt.Errorf("%s: the value is a plain text, no ref", e.at(steps, what))
	default:
		return nil, fmt.Errorf("%s: there is no ref at this path", e.at(steps, what))
	}
}

// explain gives what a ref alone tells.
func (e *explainer) explain(ref secretref.Ref) Explanation {
	x := Explanation{Ref: ref, Key: ref.Key(), Provider: ExplainedProvider{Name: ref.Provider}, Checks: []string{}}
	if err := e.Grammar.Check(ref); err != nil {
		x.Problem = err.Error()
	}
	p, defined := e.Secrets.Providers[ref.Provider]
	id := strings.TrimSpace(ref.ID)
	matches := defined && p.Source == ref.Source
	builtIn := !matches && (ref.Source == secretref.Env || ref.Source == secretref.Store && e.Compat == secretref.Newest) &&
		ref.Provider == e.Secrets.Defaults.Of(ref.Source)
	if defined && !builtIn {
		x.Provider.Defined = AppendKey("secrets.providers", ref.Provider)
		x.Provider.Settings = settings(p)
	}
	switch {
	case matches, builtIn:
	case defined:
		x.Provider.Problem = fmt.Sprintf("it has source %q, and the ref asks for %q", p.Source, ref.Source)
	default:
		x.Provider.Problem = "it is not configured"
		if near := backend.Nearest(ref.Provider, slices.Sorted(maps.Keys(e.Secrets.Providers))); near != "" {
			x.Provider.Problem += fmt.Sprintf("; did you mean %q?", near)
		}
	}
	x.Provider.BuiltIn = builtIn
	if x.Problem != "" && ref.Source != secretref.Store || x.Provider.Problem != "" {
		return x
	}
	add := func(format string, args ...any) { x.Checks = append(x.Checks, fmt.Sprintf(format, args...)) }
	switch ref.Source {
	case secretref.Env:
		if matches && p.Env.Allowlist != nil {
			add("%s is in the allowlist", id)
		}
		add("the variable %s is set and not blank", id)
	case secretref.File:
		add("%s is a regular file, no link, with one name, of this user, and closed to group and others", p.File.Path)
		add("it has %d bytes at most, and is read within %v", orElse(p.File.MaxBytes, 1<<20), orElse(p.File.Timeout, 5*time.Second))
		if p.File.Mode == secretref.ModeSingleValue {
			add("the id is value; the content is the file without one line break at its end")
		} else {
			add("it holds a JSON object that has something at %s", id)
		}
	case secretref.Exec:
		if p.Exec.Plugin != nil {
			add("the plugin %s provides the program, which only openclaw can start", p.Exec.Plugin.PluginID)
			break
		}
		add("%s is a regular file, no link, of this user, and not writable by group or others", p.Exec.Command)
		if len(p.Exec.TrustedDirs) > 0 {
			add("it is below one of %s", strings.Join(p.Exec.TrustedDirs, ", "))
		}
		add("it ends within %v, with status 0 and an answer of protocol version 1 of %d bytes at most", orElse(p.Exec.Timeout, 5*time.Second), orElse(p.Exec.MaxOutputBytes, 1<<20))
		add("the answer has a value for %s", id)
	case secretref.Store:
		add("openclaw's own store has an entry %s", id)
	}
	add("the value is no placeholder of a redacted output, and not blank")
	return x
}

func orElse[T int64 | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// settings tells a provider's settings, without values of variables.
func settings(p secretref.Provider) []string {
	out := []string{"source: " + string(p.Source)}
	add := func(name, value string) {
		if value != "" {
			out = append(out, name+": "+value)
		}
	}
	switch {
	case p.Env != nil && p.Env.Allowlist != nil:
		out = append(out, "allowlist: "+strings.Join(p.Env.Allowlist, ", "))
	case p.File != nil:
		add("path", p.File.Path)
		add("mode", string(p.File.Mode))
	case p.Exec != nil:
		add("command", p.Exec.Command)
		if len(p.Exec.Args) > 0 {
			add("args", strconv.Itoa(len(p.Exec.Args)))
		}
		add("passEnv", strings.Join(p.Exec.PassEnv, ", "))
		add("env", strings.Join(slices.Sorted(maps.Keys(p.Exec.Env)), ", "))
	}
	return out
}

// outcomes resolves what may be resolved, in one pass.
func (e *explainer) outcomes(ctx context.Context, found []Explanation, o ExplainOptions) {
	var asked []secretref.Ref
	for i := range found {
		x := &found[i]
		switch {
		case !o.Resolve && !o.AllowExec:
			x.Outcome = ExplainedOutcome{Status: "skipped", Reason: "--resolve resolves it"}
		case x.Ref.Source == secretref.Exec && !o.AllowExec:
			x.Outcome = ExplainedOutcome{Status: "skipped", Reason: "--allow-exec runs its program"}
		default:
			asked = append(asked, x.Ref)
		}
	}
	answers := map[secretref.Ref]secretref.Outcome{}
	for _, outcome := range secretref.Resolve(ctx, e.Secrets, e.Host(), asked) {
		answers[outcome.Ref] = outcome
	}
	for i := range found {
		x := &found[i]
		answer, ok := answers[x.Ref]
		if !ok || x.Outcome.Status != "" {
			continue
		}
		err := answer.Err
		if err == nil {
			expected := secretref.String
			if x.Surface != nil {
				expected = x.Surface.Expected
			}
			err = secretref.CheckValue(x.Path, answer.Value, expected)
		}
		x.Outcome = ExplainedOutcome{Status: "resolved"}
		if err != nil {
			x.Outcome = ExplainedOutcome{Status: "failed", Reason: err.Error()}
			var own *secretref.Error
			if errors.As(err, &own) {
				x.Outcome.Code, x.Outcome.Retryable = own.Code, own.Retryable()
			}
		}
	}
}
