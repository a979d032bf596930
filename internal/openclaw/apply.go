package openclaw

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/authstore"
	"github.com/credresolve/credresolve/internal/json5"
	"github.com/credresolve/credresolve/secretref"
)

// ApplyMode says whether a plan was carried out.
type ApplyMode string

// The modes.
const (
	ApplyDryRun ApplyMode = "dry-run"
	ApplyWrite  ApplyMode = "write"
)

// ApplyChecks tells what was found out about the plan's refs.
type ApplyChecks struct {
	Resolvability bool `json:"resolvability"`         // none of those that were resolved failed
	Complete      bool `json:"resolvabilityComplete"` // all were resolved
}

// ApplyReport is the answer of an apply, as OpenClaw's command gives it. It holds no value.
type ApplyReport struct {
	Mode         ApplyMode   `json:"mode"`
	Changed      bool        `json:"changed"` // in a dry run: it would be
	ChangedFiles []string    `json:"changedFiles"`
	Checks       ApplyChecks `json:"checks"`
	RefsChecked  int         `json:"refsChecked"`
	SkippedExec  int         `json:"skippedExecRefs"`
	WarningCount int         `json:"warningCount"`
	Warnings     []string    `json:"warnings"`
}

// ApplyOptions say what an apply may do.
type ApplyOptions struct {
	// Write carries the plan out; without it everything is done but the writing.
	Write bool
	// AllowExec lets providers of source exec run, each once. Without it their refs are skipped in a dry run, and a plan that
	// has any is not carried out.
	AllowExec bool

	step func(string) error // told of each step of the writing before it; a test's
}

// ErrNeedsExec is the error of an apply of a plan with programs that may not run, in OpenClaw's words.
//
//lint:ignore ST1005 it is OpenClaw's sentence, which others look for
var ErrNeedsExec = errors.New("Plan contains exec SecretRefs/providers. Re-run with --allow-exec.")

// Apply carries a plan out, or tells what that would change. Every ref of the plan is resolved before anything is written, in
// one pass: one process for each program. The files are exchanged as wholes, those that are scrubbed before the configuration,
// so that an apply that was killed can be done again and finds what is left. Either all files change or, after an error, none:
// the error says so, and names those for which that failed. An error or a report holds no value.
func (h Home) Apply(ctx context.Context, plan *Plan, o ApplyOptions) (*ApplyReport, error) {
	if o.Write && plan.runsPrograms() && !o.AllowExec {
		return nil, ErrNeedsExec
	}
	doc, err := h.Load()
	if err != nil {
		return nil, fmt.Errorf("the configuration cannot be used, and was not changed: %w", err)
	}
	a := &applying{Document: doc, ctx: ctx, plan: plan, options: o, moved: map[string]bool{}, names: map[string]bool{}, migrated: map[string]bool{},
		stores: map[string]*storeChange{}}
	defer a.wipe()
	if err := a.project(); err != nil {
		return nil, err
	}
	if err := a.check(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if o.Write {
		if err := a.write(); err != nil {
			return nil, err
		}
	}
	return a.report(), nil
}

// applying is an apply under way.
type applying struct {
	*Document
	ctx     context.Context
	plan    *Plan
	options ApplyOptions

	next     *Document       // the configuration as it will be
	moved    map[string]bool // secrets that leave their places, without the white space around them
	names    map[string]bool // variables that shorthands read which leave their places
	before   []string        // by target: the secret it had; empty: none
	migrated map[string]bool // providers of models whose key is a ref now
	stores   map[string]*storeChange
	changes  []*fileChange // in the order of their exchange
	warnings []string

	checked, skipped int
}

// storeChange is an auth-profiles.json and what changes in it.
type storeChange struct {
	*fileChange
	agent string
	file  *json5.File
	edits []json5.Edit
}

func (a *applying) warn(format string, args ...any) {
	if w := fmt.Sprintf(format, args...); !slices.Contains(a.warnings, w) {
		a.warnings = append(a.warnings, w)
	}
}

func (a *applying) wipe() {
	for _, c := range a.changes {
		c.wipe()
	}
	for _, s := range a.stores {
		s.wipe()
	}
}

// project finds all that the plan changes.
func (a *applying) project() error {
	config, err := openChange(a.ctx, a.Config)
	if err != nil {
		return err
	}
	defer func() {
		if len(a.changes) == 0 || a.changes[len(a.changes)-1] != config {
			config.wipe()
		}
	}()
	src := config.before
	switch {
	case a.File != nil && a.File.Text() != string(src):
		return fmt.Errorf("%s was changed meanwhile by another program; run the command again", a.Config)
	case a.File == nil && !config.fresh:
		return fmt.Errorf("%s was made meanwhile by another program; run the command again", a.Config)
	case len(bytes.TrimSpace(src)) == 0:
		src = []byte("{}\n")
	}
	file, err := json5.Parse(src)
	if err != nil {
		return fmt.Errorf("%s:%w", a.Config, err)
	}
	if a.File == nil {
		a.File = file
	}
	edits, err := a.providerEdits()
	if err != nil {
		return err
	}
	for _, t := range a.plan.Targets {
		own, secret, err := a.target(t)
		if err != nil {
			return err
		}
		edits = append(edits, own...)
		a.before = append(a.before, secret)
	}
	if config.after, err = file.Apply(edits); err != nil {
		return fmt.Errorf("%s cannot be changed and keep what is in it: %w", a.Config, err)
	}
	if len(edits) == 0 {
		config.after = bytes.Clone(config.before)
	}
	if a.next, err = a.projected(config.after); err != nil {
		return err
	}
	if err := a.scrub(config); err != nil {
		return err
	}
	if !bytes.Equal(config.before, config.after) {
		a.changes = append(a.changes, config) // the last: until then a second try finds all secrets that move
	}
	return nil
}

// projected is the document as it will be with that text.
func (d *Document) projected(content []byte) (*Document, error) {
	next := *d
	next.Included, next.Secrets, next.Grammar = nil, secretref.Config{Compat: d.Compat}, secretref.Grammar{Compat: d.Compat, Shorthands: true}
	if len(bytes.TrimSpace(content)) == 0 {
		content = []byte("{}")
	}
	var err error
	if next.File, err = json5.Parse(content); err != nil {
		return nil, fmt.Errorf("%s:%w", d.Config, err)
	}
	value, err := next.include(next.File.Root().Value(), d.Config, 0, []string{d.Config})
	if err != nil {
		return nil, err
	}
	if next.Value = object(value); next.Value == nil {
		return nil, fmt.Errorf("%s: the configuration is no object; write it as { … }", d.Config)
	}
	if err := next.decode(); err != nil {
		return nil, fmt.Errorf("openclaw would refuse the configuration with the plan: %w", err)
	}
	return &next, nil
}

// providerEdits are the changes of secrets.providers.
func (a *applying) providerEdits() ([]json5.Edit, error) {
	var edits []json5.Edit
	providers := a.File.Root().Get("secrets", "providers")
	left := map[string]bool{}
	if providers != nil {
		for _, m := range providers.Members {
			left[m.Key] = true
		}
	}
	for _, name := range a.plan.Deletes {
		path := []string{"secrets", "providers", name}
		if err := a.own(path); err != nil {
			return nil, err
		}
		if left[name] {
			edits = append(edits, json5.Edit{Path: path, Delete: true})
			delete(left, name)
		}
	}
	if len(edits) > 0 && len(left) == 0 && len(a.plan.Upserts) == 0 {
		edits = []json5.Edit{{Path: []string{"secrets", "providers"}, Delete: true}}
	}
	for _, name := range slices.Sorted(maps.Keys(a.plan.Upserts)) {
		path := []string{"secrets", "providers", name}
		if err := a.own(path); err != nil {
			return nil, err
		}
		if there := a.File.Root().Get(path...); there != nil && reflect.DeepEqual(there.Value(), a.plan.Upserts[name]) && left[name] {
			continue
		}
		edits = append(edits, json5.Edit{Path: path, Value: a.plan.Upserts[name]})
	}
	return edits, nil
}

// own fails for a place that an included file has a say in: the value there would stay, and come back.
func (a *applying) own(path []string) error {
	node := a.File.Root()
	for i := range path {
		if node == nil {
			return nil
		}
		if names := node.Get("$include"); node.Kind == json5.Object && names != nil {
			included, err := a.include(map[string]any{"$include": names.Value()}, a.Config, 0, []string{a.Config})
			if err != nil {
				return err
			}
			if _, there := lookup(included, path[i:]); there {
				return fmt.Errorf("%s: %s comes from a file that is included there; nothing was changed: write the reference into that file, or move the value into this one", a.Config, shownPath(path))
			}
		}
		node = node.Get(path[i])
	}
	return nil
}

// lookup finds the value at path.
func lookup(v any, path []string) (any, bool) {
	for _, step := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = m[step]; !ok {
			return nil, false
		}
	}
	return v, true
}

// target gives the edits of the configuration for a target, or adds those of a store, and the secret that stood there.
func (a *applying) target(t PlanTarget) (edits []json5.Edit, secret string, err error) {
	if t.surface.Profile {
		secret, err = a.profileTarget(t)
		return nil, secret, err
	}
	if t.Type == DocumentValue && a.State != "" {
		return nil, "", fmt.Errorf("%s is no place where openclaw takes a reference; nothing was changed", t)
	}
	if err := a.own(t.Path); err != nil {
		return nil, "", err
	}
	if t.surface.Pattern == "models.providers.*.apiKey" {
		a.migrated[providerID(t.Path[t.surface.ProviderAt])] = true
	}
	had := a.File.Root().Get(t.Path...)
	if had != nil {
		value := had.Value()
		secret = a.leaves(value)
		if sameRef(value, t.Ref) {
			return nil, "", nil
		}
	}
	return []json5.Edit{{Path: t.Path, Value: refJSON(t.Ref)}}, secret, nil
}

func sameRef(v any, r secretref.Ref) bool {
	return reflect.DeepEqual(v, map[string]any{"source": string(r.Source), "provider": r.Provider, "id": r.ID})
}

// leaves notes a value that leaves its place, and gives it if it is a secret in plain text.
func (a *applying) leaves(v any) string {
	s, ok := v.(string)
	if !ok {
		return ""
	}
	s = strings.TrimSpace(s)
	if ref, ok := a.Grammar.FromString(s); ok {
		a.names[ref.ID] = true
		return ""
	}
	for _, m := range variableInText().FindAllStringSubmatch(s, -1) {
		a.names[m[1]] = true
	}
	if s == "" || NoSecretMarker(s) || secretref.Retired(s) || secretref.Placeholder(s) {
		return ""
	}
	a.moved[s] = true
	return s
}

// store opens an agent's auth-profiles.json to change it.
func (a *applying) store(path, agent string) (*storeChange, error) {
	if s := a.stores[path]; s != nil {
		return s, nil
	}
	c, err := openChange(a.ctx, path)
	if err != nil {
		return nil, err
	}
	s := &storeChange{fileChange: c, agent: agent}
	if !c.fresh {
		if s.file, err = json5.Parse(c.before); err != nil {
			c.wipe()
			return nil, fmt.Errorf("%s:%w", path, err)
		}
	}
	a.stores[path] = s
	return s, nil
}

// profileTarget adds the edits for a target in an agent's store, and gives the secret that stood there.
func (a *applying) profileTarget(t PlanTarget) (string, error) {
	i := slices.IndexFunc(a.Agents, func(agent Agent) bool { return agent.ID == t.Agent })
	if i < 0 {
		return "", fmt.Errorf("%s: there is no such agent; nothing was changed", t)
	}
	dir := a.Agents[i].Dir
	if database, err := a.database(a.Agents[i]); err != nil {
		return "", err
	} else if database != "" {
		return "", &backend.Error{
			Code:   backend.CodeUnsupported,
			Reason: "OpenClaw keeps the auth profiles of agent " + t.Agent + " in the database " + database + ", which OpenClaw alone writes; nothing was changed",
			Remedy: "write the plan with --plan-out plan.json, and run: openclaw secrets apply --from plan.json --allow-exec",
		}
	}
	s, err := a.store(filepath.Join(dir, authstore.FileName), t.Agent)
	if err != nil {
		return "", err
	}
	if s.file == nil {
		return "", &backend.Error{Code: backend.CodeUnsupported, Reason: "there is no " + s.path + " yet", Remedy: "let OpenClaw make its store first"}
	}
	at, id := t.Path[:2], t.Path[1]
	in := func(key string) []string { return append(slices.Clone(at), key) }
	had := s.file.Root().Get(at...)
	if had == nil {
		if t.AuthProvider == "" {
			return "", fmt.Errorf("%s: there is no such auth profile, and the plan does not say of which provider a new one is (authProfileProvider)", t)
		}
		s.edits = append(s.edits, json5.Edit{Path: at, Value: map[string]any{"type": t.surface.ProfileType, "provider": t.AuthProvider, t.refPath()[2]: refJSON(t.Ref)}})
		return "", nil
	}
	profile := object(had.Value())
	switch kind := text(profile["type"]); {
	case kind == authstore.TypeOAuth, text(object(object(object(a.Value["auth"])["profiles"])[id])["mode"]) == authstore.TypeOAuth:
		return "", errOAuthProfile
	case kind != "" && kind != t.surface.ProfileType:
		return "", fmt.Errorf("%s: the auth profile is of type %s; nothing was changed", t, kind)
	}
	field := t.Path[2]
	secret := a.leaves(profile[field])
	if !sameRef(profile[field+"Ref"], t.Ref) {
		s.edits = append(s.edits, json5.Edit{Path: in(field + "Ref"), Value: refJSON(t.Ref)})
	}
	if _, there := profile[field]; there {
		s.edits = append(s.edits, json5.Edit{Path: t.Path, Delete: true})
	}
	if text(profile["provider"]) == "" && t.AuthProvider != "" {
		s.edits = append(s.edits, json5.Edit{Path: in("provider"), Value: t.AuthProvider})
	}
	if metadata := object(profile["metadata"]); metadata["managedBy"] == authstore.ManagedBy {
		for _, key := range []string{"managedBy", "ref", "revision"} { // it is no copy any more
			s.edits = append(s.edits, json5.Edit{Path: append(in("metadata"), key), Delete: true})
		}
	}
	return secret, nil
}

// database is where an agent's profiles are kept; empty where they are in a file.
func (a *applying) database(agent Agent) (string, error) {
	if agent.Dir == filepath.Join(a.State, "agents", agent.ID, "agent") {
		return authstore.Home{StateDir: a.State, Agent: agent.ID}.KeptInDatabase(a.ctx)
	}
	path := filepath.Join(agent.Dir, authstore.DatabaseName)
	if _, err := os.Lstat(path); err != nil {
		return "", nil // there is none
	}
	return path, nil
}

// check resolves the plan's refs, and holds all refs of the configuration to its providers.
func (a *applying) check() error {
	var refs []secretref.Ref
	for _, t := range a.plan.Targets {
		if t.Ref.Source != secretref.Exec || a.options.AllowExec {
			refs = append(refs, t.Ref)
		}
	}
	outcomes := map[secretref.Ref]secretref.Outcome{}
	for _, o := range secretref.Resolve(a.ctx, a.next.Secrets, a.next.Host(), refs) {
		outcomes[o.Ref] = o
	}
	if a.ctx.Err() != nil {
		return context.Cause(a.ctx)
	}
	var failed []error
	look := &audit{Document: a.next}
	for i, t := range a.plan.Targets {
		o, resolved := outcomes[t.Ref]
		err := o.Err
		if resolved {
			a.checked++
			if err == nil {
				err = secretref.CheckValue(shownPath(t.Path), o.Value, t.surface.Expected)
			}
		} else {
			a.skipped++
			err = look.static(t.Ref)
		}
		if err != nil {
			reason := fmt.Sprintf("%s: %s does not resolve, and nothing was changed: %v", t, t.Ref.Key(), err)
			if remedy := remedyOf(err); remedy != "" {
				reason += "; " + remedy
			}
			failed = append(failed, errors.New(reason))
			continue
		}
		if resolved && a.before[i] != "" && !holds(o.Value, a.before[i]) {
			a.warn("%s: the reference gives another secret than the one that it replaces", t)
		}
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	return a.consistent()
}

func holds(v backend.Secret, s string) bool {
	same := false
	_ = v.Use(func(text []byte) error {
		same = string(bytes.TrimSpace(text)) == s
		return nil
	})
	return same
}

// consistent fails when a ref that the plan leaves alone would lose its provider.
func (a *applying) consistent() error {
	was, err := TargetsIn(a.Value, a.Grammar, a.LookupEnv)
	if err != nil {
		return err
	}
	will, err := TargetsIn(a.next.Value, a.next.Grammar, a.LookupEnv)
	if err != nil {
		return err
	}
	broken := map[string]bool{}
	for _, t := range was {
		broken[t.Path] = (&audit{Document: a.Document}).dangling(t.Ref) != nil
	}
	for _, t := range will {
		if err := (&audit{Document: a.next}).dangling(t.Ref); err != nil && !broken[t.Path] {
			return fmt.Errorf("%s would lose its provider, and nothing was changed: %w", t.Path, err)
		}
	}
	return nil
}

// dangling is static for refs of any source.
func (a *audit) dangling(r secretref.Ref) error {
	if r.Source == secretref.Store || r.Source == secretref.Env {
		p, ok := a.Secrets.Providers[r.Provider]
		if !ok && r.Provider == a.Grammar.Defaults.Of(r.Source) || ok && p.Source == r.Source {
			return nil
		}
	}
	return a.static(r)
}

// write carries the changes out, under the locks of the stores. A lock that a killed process left is taken too, and so goes.
func (a *applying) write() error {
	for _, agent := range a.Agents {
		path := filepath.Join(agent.Dir, authstore.FileName)
		changes := slices.ContainsFunc(a.changes, func(c *fileChange) bool { return c.path == path })
		if _, err := os.Lstat(path + ".lock"); err != nil && !changes {
			continue
		}
		unlock, err := authstore.Lock(a.ctx, agent.Dir)
		if err != nil {
			return err
		}
		defer unlock()
	}
	return exchange(a.ctx, a.changes, a.options.step)
}

func (a *applying) report() *ApplyReport {
	r := &ApplyReport{Mode: ApplyDryRun, Changed: len(a.changes) > 0, ChangedFiles: []string{}, Checks: ApplyChecks{true, a.skipped == 0},
		RefsChecked: a.checked, SkippedExec: a.skipped, WarningCount: len(a.warnings), Warnings: append([]string{}, a.warnings...)}
	if a.options.Write {
		r.Mode = ApplyWrite
	}
	for _, c := range a.changes {
		r.ChangedFiles = append(r.ChangedFiles, c.path)
	}
	slices.Sort(r.ChangedFiles)
	return r
}
