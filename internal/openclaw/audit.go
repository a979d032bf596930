package openclaw

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/credresolve/credresolve/internal/json5"
	"github.com/credresolve/credresolve/internal/lazyregexp"
	"github.com/credresolve/credresolve/internal/sqliteread"
	"github.com/credresolve/credresolve/secretref"
)

// FindingCode says what an audit found.
type FindingCode string

// The codes of OpenClaw's own audit.
const (
	PlaintextFound   FindingCode = "PLAINTEXT_FOUND"         // a secret where a ref could be
	RefUnresolved    FindingCode = "REF_UNRESOLVED"          // a ref that has no value, or a file that cannot be read
	RefShadowed      FindingCode = "REF_SHADOWED"            // a ref that a profile takes precedence of
	LegacyResidue    FindingCode = "LEGACY_RESIDUE"          // credentials of older releases, and oauth
	StoreResidue     FindingCode = "STORE_PLAINTEXT_RESIDUE" // a secret that OpenClaw's store has too
	PlaceholderValue FindingCode = "PLACEHOLDER_VALUE"       // a value that is what a redacted output shows
)

// Severity is how bad a finding is.
type Severity string

// The severities.
const (
	SeverityInfo  Severity = "info"
	SeverityWarn  Severity = "warn"
	SeverityError Severity = "error"
)

// Finding is one thing that an audit found. It holds no value.
type Finding struct {
	Code     FindingCode `json:"code"`
	Severity Severity    `json:"severity"`
	File     string      `json:"file"`
	Path     string      `json:"jsonPath"` // "<root>" for the file as a whole
	Message  string      `json:"message"`
	Provider string      `json:"provider,omitempty"` // of models
	Profile  string      `json:"profileId,omitempty"`

	// Line is where it stands in File, 0 when that is not known.
	Line int `json:"-"`
	// Detail is more of the reason than OpenClaw's report says; empty when Message says it all.
	Detail string `json:"-"`
	// Remedy says what to do.
	Remedy string `json:"-"`
}

// AuditStatus sums an audit up.
type AuditStatus string

// The statuses.
const (
	AuditClean      AuditStatus = "clean"
	AuditFindings   AuditStatus = "findings"
	AuditUnresolved AuditStatus = "unresolved" // a ref has no value
)

// AuditResolution tells how far refs were resolved.
type AuditResolution struct {
	Checked  int  `json:"refsChecked"`
	Skipped  int  `json:"skippedExecRefs"`
	Complete bool `json:"resolvabilityComplete"`
}

// AuditSummary counts findings.
type AuditSummary struct {
	Plaintext    int  `json:"plaintextCount"`
	Unresolved   int  `json:"unresolvedRefCount"` // placeholders too
	Shadowed     int  `json:"shadowedRefCount"`
	StoreResidue *int `json:"storeResidueCount,omitempty"` // not in 2026.3.2
	Legacy       int  `json:"legacyResidueCount"`
}

// AuditReport is the answer of an audit, in the form of the release whose rules hold.
type AuditReport struct {
	Version    int              `json:"version"` // 1
	Status     AuditStatus      `json:"status"`
	Resolution *AuditResolution `json:"resolution,omitempty"` // not in 2026.3.2
	Files      []string         `json:"filesScanned"`
	Summary    AuditSummary     `json:"summary"`
	Findings   []Finding        `json:"findings"`

	// Checked and Skipped are those of Resolution, by whatever rules.
	Checked, Skipped int `json:"-"`
}

// ExitStatus is that of OpenClaw's command: 2 when a ref has no value, 1 when there is any finding and check is set, else 0.
func (r *AuditReport) ExitStatus(check bool) int {
	switch {
	case r.Summary.Unresolved > 0:
		return 2
	case check && len(r.Findings) > 0:
		return 1
	}
	return 0
}

// AuditOptions say what an audit may do.
type AuditOptions struct {
	// AllowExec lets providers of source exec run, each once. Without it their refs are counted as skipped.
	AllowExec bool
}

// Audit looks through a home for secrets in plain text, refs without a value, and what older releases left behind. It
// changes nothing. Refs are resolved in one pass: one process for each program at most. It fails when ctx is done; all else
// that goes wrong is a finding.
func (h Home) Audit(ctx context.Context, o AuditOptions) (*AuditReport, error) {
	d, err := h.Load()
	a := &audit{Document: d, ctx: ctx, options: o, files: map[string]bool{d.Config: true},
		shadowable: map[string][]string{}, profiled: map[string][]string{}}
	if err == nil {
		err = a.unreadable()
	}
	if err != nil {
		a.add(Finding{Code: RefUnresolved, Severity: SeverityError, File: d.Config, Path: rootPath,
			Message: "Config is invalid; cannot validate secret references reliably.", Detail: err.Error(),
			Remedy: "correct the configuration, then audit again"})
	} else {
		a.config()
		a.profiles()
		a.models()
		a.resolve()
		a.shadowing()
		a.storeResidue()
	}
	a.envFiles()
	a.storePlaceholders()
	a.legacy()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return a.report(), nil
}

const rootPath = "<root>"

// audit is an audit under way.
type audit struct {
	*Document
	ctx      context.Context
	options  AuditOptions
	findings []Finding
	files    map[string]bool

	refs       []assignment
	plaintexts []assignment        // of the configuration
	shadowable map[string][]string // paths of refs by provider of models
	profiled   map[string][]string // how profiles authenticate, by provider of models

	checked, skipped int
	store            map[string]storeEntry // of OpenClaw; nil until it was read
	storeErr         error
}

// assignment is a ref or a value at a place.
type assignment struct {
	file, path, provider string
	ref                  secretref.Ref
	value                string
	expected             secretref.Expected
	line                 int
	profile              string
}

func (a *audit) add(f Finding) { a.findings = append(a.findings, f) }

// place is a value at a surface of the configuration.
type place struct {
	surface Surface
	steps   []string
	shown   string
	value   any
	at      int // its offset in the configuration, -1 in a file that it includes
}

// provider is the id of a provider of models, or of speech, that the place is of.
func (p place) provider() string {
	if p.surface.ProviderAt > 0 {
		return p.steps[p.surface.ProviderAt]
	}
	return ""
}

// places gives what stands at the surfaces that OpenClaw's audit looks at: those of a surface in the order of the document.
func (d *Document) places() []place {
	var out []place
	for _, s := range surfaces() {
		if s.Profile || s.RuntimeOnly {
			continue
		}
		from := len(out)
		expand(d.Value, s.steps, nil, "", func(steps []string, shown string, v any) {
			out = append(out, place{s, steps, shown, v, d.offset(steps)})
		})
		slices.SortStableFunc(out[from:], func(a, b place) int { return a.at - b.at })
	}
	return out
}

// expand calls each with every place below v that the steps of a pattern match.
func expand(v any, pattern, steps []string, shown string, each func(steps []string, shown string, v any)) {
	if len(pattern) == 0 {
		each(steps, shown, v)
		return
	}
	if pattern[0] == "[]" {
		list, _ := v.([]any)
		for i, item := range list {
			expand(item, pattern[1:], append(slices.Clip(steps), strconv.Itoa(i)), AppendIndex(shown, i), each)
		}
		return
	}
	object := object(v)
	for _, key := range slices.Sorted(maps.Keys(object)) {
		if pattern[0] == "*" && key != "" || pattern[0] == key {
			expand(object[key], pattern[1:], append(slices.Clip(steps), key), AppendKey(shown, key), each)
		}
	}
}

// unreadable says why OpenClaw would refuse the configuration although its syntax is right: a surface has what is neither a
// text nor a ref. The rest of OpenClaw's schema is not held here.
func (a *audit) unreadable() error {
	for _, p := range a.places() {
		_, isRef := a.Grammar.FromValue(p.value)
		switch v := p.value.(type) {
		case nil, string:
		case map[string]any:
			if _, named := v["provider"]; isRef && !named && a.State != "" {
				return fmt.Errorf("%s: openclaw refuses a ref without a provider in its configuration; add provider: %q", a.at(p.steps, p.shown), secretref.DefaultAlias)
			}
			if !isRef && p.surface.Expected != secretref.StringOrObject {
				return fmt.Errorf("%s: an object here must be a ref with the keys source, provider and id, and no other", a.at(p.steps, p.shown))
			}
		default:
			return fmt.Errorf("%s: a text or a ref is expected", a.at(p.steps, p.shown))
		}
	}
	return nil
}

// line gives the line of a place of the configuration, 0 when an included file has it.
func (d *Document) line(steps []string) int {
	at := d.offset(steps)
	if at < 0 {
		return 0
	}
	line, _ := d.File.Place(at)
	return line
}

// offset is where a place of the configuration begins in its file; -1 when an included file has it.
func (d *Document) offset(steps []string) int {
	if d.File == nil {
		return -1
	}
	if n := d.File.Root().Get(steps...); n != nil {
		return n.Start
	}
	return -1
}

// at writes a place of the configuration for a person.
func (d *Document) at(steps []string, shown string) string {
	if line := d.line(steps); line > 0 {
		return fmt.Sprintf("%s:%d: %s", d.Config, line, shown)
	}
	return d.Config + ": " + shown
}

// filled reports whether v is a secret in plain text where that is expected.
func filled(v any, expected secretref.Expected) bool {
	switch v := v.(type) {
	case string:
		return strings.TrimSpace(v) != ""
	case map[string]any:
		return expected == secretref.StringOrObject && len(v) > 0
	}
	return false
}

const toRef = "put it into a store and write a ref here: credresolve secretref configure"

func (a *audit) config() {
	seen := map[string]bool{}
	for _, p := range a.places() {
		seen[p.shown] = true
		if ref, ok := a.Grammar.FromValue(p.value); ok {
			a.refs = append(a.refs, assignment{file: a.Config, path: p.shown, provider: p.provider(), ref: ref, expected: p.surface.Expected, line: a.line(p.steps)})
			if p.surface.Pattern == "models.providers.*.apiKey" {
				key := providerID(p.provider())
				a.shadowable[key] = append(a.shadowable[key], p.shown)
			}
			continue
		}
		value := text(p.value)
		switch {
		case !filled(p.value, p.surface.Expected):
			continue
		case p.surface.Pattern == "models.providers.*.headers.*" && a.Compat == secretref.Newest && !SensitiveHeader(p.steps[len(p.steps)-1]):
			continue
		case p.surface.Pattern == "models.providers.*.apiKey" && a.Compat == secretref.Newest && NoSecretMarker(value):
			continue
		}
		if value != "" {
			a.plaintexts = append(a.plaintexts, assignment{file: a.Config, path: p.shown, value: value, line: a.line(p.steps)})
		}
		f := Finding{Code: PlaintextFound, Severity: SeverityWarn, File: a.Config, Path: p.shown, Message: p.shown + " is stored as plaintext.",
			Provider: p.provider(), Line: a.line(p.steps), Remedy: toRef}
		if secretref.Retired(value) {
			f.Remedy = "this marker of an older release is no ref any more: write {source: \"env\", provider: \"default\", id: \"NAME\"}, or run openclaw doctor --fix"
		}
		a.add(f)
	}
	if a.State == "" {
		a.elsewhere(seen)
	}
}

// elsewhere adds the three-key objects of a document by itself that are at no surface: it need not be of OpenClaw.
func (a *audit) elsewhere(seen map[string]bool) {
	targets, err := Targets(a.Value, a.Grammar)
	if err != nil {
		return
	}
	for _, t := range targets {
		if !seen[t.Path] {
			seen[t.Path] = true
			a.refs = append(a.refs, assignment{file: a.Config, path: t.Path, ref: t.Ref, expected: t.Expected})
		}
	}
}

// providerID is how OpenClaw compares providers of models.
func providerID(id string) string { return strings.ToLower(strings.TrimSpace(id)) }

// credential is one entry of a store of auth profiles.
type credential struct {
	id, provider, kind string
	field              string // where the secret stands
	value, ref         any
	oauth              bool // it holds oauth material
}

// credentials gives the entries of a decoded store.
func credentials(store map[string]any) []credential {
	var out []credential
	profiles := member(store, "profiles")
	for _, id := range slices.Sorted(maps.Keys(profiles)) {
		profile := object(profiles[id])
		c := credential{id: id, provider: text(profile["provider"]), kind: text(profile["type"])}
		if strings.TrimSpace(c.provider) == "" {
			continue
		}
		switch c.kind {
		case "api_key":
			c.field = "key"
		case "token":
			c.field = "token"
		case "oauth":
			c.oauth = filled(profile["access"], secretref.String) || filled(profile["refresh"], secretref.String)
		default:
			continue
		}
		if c.field != "" {
			c.value, c.ref = profile[c.field], profile[c.field+"Ref"]
		}
		out = append(out, c)
	}
	return out
}

func (a *audit) profiles() {
	for _, s := range a.ProfileStores(a.ctx) {
		a.files[s.Path] = true
		if s.Err != nil {
			a.add(Finding{Code: RefUnresolved, Severity: SeverityError, File: s.Path, Path: rootPath,
				Message: "Invalid JSON in auth-profiles store: " + s.Err.Error(), Remedy: "see whether openclaw itself can read it: openclaw doctor"})
			continue
		}
		for _, c := range credentials(s.Root) {
			path := "profiles." + c.id
			if c.kind == "oauth" {
				if c.oauth {
					a.add(Finding{Code: LegacyResidue, Severity: SeverityInfo, File: s.Path, Path: path, Provider: c.provider, Profile: c.id,
						Message: "OAuth credentials are present (out of scope for static SecretRef migration).",
						Remedy:  "leave them: openclaw changes them while it uses them"})
					a.track(c)
				}
				continue
			}
			path += "." + c.field
			ref, explicit := a.Grammar.FromValue(c.ref)
			inline, isInline := a.Grammar.FromValue(c.value)
			if !explicit {
				ref = inline
			}
			if explicit || isInline {
				a.refs = append(a.refs, assignment{file: s.Path, path: path, provider: c.provider, ref: ref, expected: secretref.String, profile: c.id})
				a.track(c)
			}
			if isInline && a.Compat == secretref.Newest || !filled(c.value, secretref.String) {
				continue
			}
			what := map[string]string{"api_key": "API key", "token": "token"}[c.kind]
			a.add(Finding{Code: PlaintextFound, Severity: SeverityWarn, File: s.Path, Path: path, Provider: c.provider, Profile: c.id,
				Message: "Auth profile " + what + " is stored as plaintext.", Remedy: toRef})
			a.track(c)
		}
	}
}

func (a *audit) track(c credential) {
	key := providerID(c.provider)
	if !slices.Contains(a.profiled[key], c.kind) {
		a.profiled[key] = append(a.profiled[key], c.kind)
	}
}

// models looks through the files that OpenClaw generates from configuration and profiles, which are to hold markers alone.
func (a *audit) models() {
	if a.Compat == secretref.V2026_3_2 {
		return
	}
	const remedy = "let openclaw write the file again, from refs"
	for _, path := range a.modelsFiles() {
		content, err := readFile(path, mostModels)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		a.files[path] = true
		var root map[string]any
		if err == nil {
			root, err = decodeObject(content)
		}
		clear(content)
		if err != nil {
			a.add(Finding{Code: RefUnresolved, Severity: SeverityError, File: path, Path: rootPath, Message: "Invalid JSON in models.json: " + err.Error() + ".", Remedy: remedy})
			continue
		}
		add := func(code FindingCode, severity Severity, provider, path, file, message string) {
			a.add(Finding{Code: code, Severity: severity, File: file, Path: path, Message: message, Provider: provider, Remedy: remedy})
		}
		// Defaults are left out here as OpenClaw does.
		g := secretref.Grammar{Compat: a.Compat, Shorthands: true}
		providers := member(root, "providers")
		for _, id := range slices.Sorted(maps.Keys(providers)) {
			provider := object(providers[id])
			key := provider["apiKey"]
			if _, ok := g.FromValue(key); ok {
				add(RefUnresolved, SeverityError, id, "providers."+id+".apiKey", path, "models.json contains an unresolved SecretRef object; regenerate models.json.")
			} else if filled(key, secretref.String) && !NoSecretMarker(text(key)) {
				add(PlaintextFound, SeverityWarn, id, "providers."+id+".apiKey", path, "models.json provider apiKey is stored as plaintext.")
			}
			headers := member(provider, "headers")
			for _, name := range slices.Sorted(maps.Keys(headers)) {
				at := "providers." + id + ".headers." + name
				value := headers[name]
				if _, ok := g.FromValue(value); ok {
					add(RefUnresolved, SeverityError, id, at, path, "models.json contains an unresolved SecretRef object for provider headers; regenerate models.json.")
				} else if filled(value, secretref.String) && !headerMarker(text(value)) && SensitiveHeader(name) {
					add(PlaintextFound, SeverityWarn, id, at, path, "models.json provider header value is stored as plaintext.")
				}
			}
		}
	}
}

// resolve resolves the refs that were found, in one pass, and adds those without a value.
func (a *audit) resolve() {
	var asked []secretref.Ref
	answers := map[secretref.Ref]error{}
	outcomes := map[secretref.Ref]secretref.Outcome{}
	skipped := map[secretref.Ref]bool{}
	seen := map[secretref.Ref]bool{}
	for _, r := range a.refs {
		if seen[r.ref] {
			continue
		}
		seen[r.ref] = true
		switch {
		case r.ref.Source == secretref.Exec && !a.options.AllowExec:
			a.skipped++
			if err := a.static(r.ref); err != nil {
				answers[r.ref] = fmt.Errorf("Error: %w", err) // as OpenClaw's audit words it
			} else {
				skipped[r.ref] = true
			}
		case r.ref.Source == secretref.Store && a.State != "" && a.Grammar.Check(r.ref) != nil && errors.Is(a.Grammar.Check(r.ref), secretref.ErrForeign):
			a.checked++
			if err := a.inStore(r.ref); err != nil {
				answers[r.ref] = err
			} else {
				skipped[r.ref] = true
			}
		default:
			asked = append(asked, r.ref)
		}
	}
	a.checked += len(asked)
	for _, o := range secretref.Resolve(a.ctx, a.Secrets, a.Host(), asked) {
		outcomes[o.Ref] = o
		if o.Err != nil {
			answers[o.Ref] = o.Err
		}
	}
	for _, r := range a.refs {
		if skipped[r.ref] {
			continue
		}
		err := answers[r.ref]
		if err == nil {
			if err = secretref.CheckValue(r.path, outcomes[r.ref].Value, r.expected); err == nil {
				continue
			}
		}
		f := Finding{Code: RefUnresolved, Severity: SeverityError, File: r.file, Path: r.path, Line: r.line, Provider: r.provider, Remedy: remedyOf(err)}
		reason := err.Error()
		var value *secretref.ValueError
		var own *secretref.Error
		switch {
		case errors.As(err, &value) && value.Placeholder, errors.As(err, &own) && own.Code == secretref.RefRedactedValue, errors.Is(err, errPlaceholder):
			if a.Compat == secretref.Newest {
				f.Code = PlaceholderValue
			}
		case errors.As(err, &value) && r.expected == secretref.StringOrObject:
			reason = "resolved value is not a string/object"
		case errors.As(err, &value):
			reason = "resolved value is not a non-empty string"
		}
		f.Message = fmt.Sprintf("Failed to resolve %s (%s).", r.ref.Key(), reason)
		a.add(f)
	}
}

// static gives what is wrong with a ref of a program that does not run.
func (a *audit) static(r secretref.Ref) error {
	if err := a.Grammar.Check(r); err != nil {
		return err
	}
	switch p, ok := a.Secrets.Providers[r.Provider]; {
	case !ok:
		return &secretref.Error{Scope: secretref.ScopeProvider, Code: secretref.ProviderNotConfigured, Source: r.Source, Provider: r.Provider,
			Reason: fmt.Sprintf("Secret provider %q is not configured (ref: %s).", r.Provider, r.Key())}
	case p.Source != r.Source:
		return &secretref.Error{Scope: secretref.ScopeProvider, Code: secretref.ProviderInvalid, Source: r.Source, Provider: r.Provider,
			Reason: fmt.Sprintf("Secret provider %q has source %q but ref requests %q.", r.Provider, p.Source, r.Source)}
	}
	return nil
}

// remedyOf says what to do about a ref without a value.
func remedyOf(err error) string {
	var own *secretref.Error
	if !errors.As(err, &own) {
		return ""
	}
	switch own.Code {
	case secretref.ProviderNotConfigured:
		return fmt.Sprintf("define secrets.providers.%s, or name a provider that is there", own.Provider)
	case secretref.ProviderInvalid:
		return "let the ref's source be that of its provider"
	case secretref.RefNotFound:
		if own.Source == secretref.Env {
			return fmt.Sprintf("set %s in the gateway's environment", own.RefID)
		}
		return "store the secret under this id, or correct the id"
	case secretref.RefPolicyDenied:
		return fmt.Sprintf("add %s to secrets.providers.%s.allowlist", own.RefID, own.Provider)
	case secretref.RefRedactedValue:
		return "store the real value"
	case secretref.ProviderUnavailable, secretref.PathUnverifiable:
		return fmt.Sprintf("see to secrets.providers.%s", own.Provider)
	}
	return ""
}

func (a *audit) shadowing() {
	for _, provider := range slices.Sorted(maps.Keys(a.shadowable)) {
		modes := a.profiled[provider]
		if len(modes) == 0 {
			continue
		}
		for _, path := range a.shadowable[provider] {
			a.add(Finding{Code: RefShadowed, Severity: SeverityWarn, File: configName, Path: path, Provider: provider,
				Message: fmt.Sprintf("Auth profile credentials (%s) take precedence for provider %q, so this config ref may never be used.", strings.Join(modes, "/"), provider),
				Remedy:  "remove the profile, or the ref"})
		}
	}
}

// storeEntry is a value of OpenClaw's own store.
type storeEntry struct {
	value       string
	placeholder bool
}

var errPlaceholder = errors.New("the store's entry is a redaction placeholder")

// loadStore reads the team's entries of OpenClaw's own store. They are compared here and given to nobody.
func (a *audit) loadStore() {
	if a.store != nil || a.State == "" || a.Compat != secretref.Newest {
		return
	}
	a.store = map[string]storeEntry{}
	path := a.storePath()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return
	}
	rows, err := sqliteread.List(a.ctx, path, databasePolicy, "secret_store_entries", "scope_kind", "name", "value", "deleted_at_ms")
	if err != nil {
		a.storeErr = err
		return
	}
	for _, row := range rows {
		if name := string(row[1].Bytes); string(row[0].Bytes) == "team" && row[3].Int == 0 && envName().MatchString(name) {
			a.store[name] = storeEntry{string(row[2].Bytes), secretref.Placeholder(string(row[2].Bytes))}
		}
		clear(row[2].Bytes)
	}
}

var envName = lazyregexp.New(`^[A-Z][A-Z0-9_]{0,127}$`)

func (a *audit) storePath() string { return filepath.Join(a.State, "state", "openclaw.sqlite") }

// inStore says why OpenClaw would not find a ref in its own store.
func (a *audit) inStore(r secretref.Ref) error {
	a.loadStore()
	entry, ok := a.store[strings.TrimSpace(r.ID)]
	switch {
	case a.storeErr != nil:
		return fmt.Errorf("OpenClaw's store cannot be read: %w", a.storeErr)
	case !ok:
		return &secretref.Error{Scope: secretref.ScopeRef, Code: secretref.RefNotFound, Source: r.Source, Provider: r.Provider, RefID: r.ID,
			Reason: fmt.Sprintf("Secret store entry %q was not found.", r.ID)}
	case entry.placeholder:
		return errPlaceholder
	}
	return nil
}

func (a *audit) storeResidue() {
	a.loadStore()
	for _, p := range a.plaintexts {
		for _, name := range slices.Sorted(maps.Keys(a.store)) {
			if a.store[name].value == p.value {
				a.add(Finding{Code: StoreResidue, Severity: SeverityWarn, File: p.file, Path: p.path, Line: p.line,
					Message: fmt.Sprintf("%s duplicates team secret store entry %q; replace the plaintext with a store SecretRef.", p.path, name),
					Remedy:  fmt.Sprintf("write {source: \"store\", provider: \"default\", id: %q}", name)})
			}
		}
	}
}

// storePlaceholders adds the entries of OpenClaw's store that are placeholders and that no ref names: those were resolved.
func (a *audit) storePlaceholders() {
	a.loadStore()
	named := map[string]bool{}
	for _, r := range a.refs {
		if r.ref.Source == secretref.Store {
			named[r.ref.ID] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.store)) {
		if a.store[name].placeholder && !named[name] {
			a.add(Finding{Code: PlaceholderValue, Severity: SeverityError, File: a.storePath(), Path: "secret_store_entries." + name,
				Message: fmt.Sprintf("Secret store entry %q contains a redaction placeholder and is unavailable.", name),
				Remedy:  "store the real value: openclaw secrets store set " + name})
		}
	}
}

// envAssignment is a line of an .env file as OpenClaw's audit reads it.
var envAssignment = lazyregexp.New(`^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)$`)

func (a *audit) envFiles() {
	files := a.EnvFiles
	if a.Compat == secretref.V2026_3_2 && len(files) > 1 {
		files = files[:1] // of the state directory
	}
	for _, path := range files {
		content, err := readFile(path, mostEnv)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		a.files[path] = true
		if err != nil {
			a.add(Finding{Code: RefUnresolved, Severity: SeverityError, File: path, Path: rootPath, Message: "The .env file cannot be read: " + err.Error() + ".",
				Remedy: "let its owner read it, or remove it"})
			continue
		}
		number := 0
		for line := range strings.Lines(string(content)) {
			number++
			m := envAssignment().FindStringSubmatch(strings.TrimRight(line, "\r\n"))
			if m == nil || !SecretVariable(m[1]) || unquoted(m[2]) == "" {
				continue
			}
			a.add(Finding{Code: PlaintextFound, Severity: SeverityWarn, File: path, Path: "$env." + m[1], Line: number,
				Message: fmt.Sprintf("Potential secret found in .env (%s).", m[1]), Remedy: "put it into a store and remove the line: credresolve secretref apply scrubs it"})
		}
		clear(content)
	}
}

// unquoted takes one pair of quotes off a value of an .env file.
func unquoted(raw string) string {
	raw = strings.TrimSpace(raw)
	for _, quote := range []string{`"`, "'"} {
		if len(raw) >= 2 && strings.HasPrefix(raw, quote) && strings.HasSuffix(raw, quote) {
			return raw[1 : len(raw)-1]
		}
	}
	return raw
}

// legacy adds the files of older releases.
func (a *audit) legacy() {
	if a.State == "" {
		return
	}
	if a.Compat == secretref.V2026_3_2 {
		a.legacyAuth()
		return
	}
	type source struct{ kind, path string }
	seen := map[string]bool{}
	var sources []source
	oauth := filepath.Join(a.State, "credentials")
	if dir, ok := a.variable("OPENCLAW_OAUTH_DIR"); ok {
		oauth = a.Path(dir)
	}
	for i, agent := range a.Agents {
		sources = append(sources, source{"auth-profiles", filepath.Join(agent.Dir, "auth-profiles.json")},
			source{"auth-state", filepath.Join(agent.Dir, "auth-state.json")}, source{"legacy-auth", filepath.Join(agent.Dir, "auth.json")})
		if i == 0 { // the one that is always there
			sources = append(sources, source{"legacy-oauth", filepath.Join(oauth, "oauth.json")})
		}
	}
	for _, s := range sources {
		if _, err := os.Stat(s.path); err != nil || seen[s.path] {
			continue
		}
		seen[s.path] = true
		severity := SeverityWarn
		if s.kind == "auth-state" {
			severity = SeverityInfo
		}
		a.add(Finding{Code: LegacyResidue, Severity: severity, File: s.path, Path: rootPath,
			Message: fmt.Sprintf("Retired auth source %s is present; run openclaw doctor --fix to migrate and archive it.", s.kind)})
	}
	for _, s := range sources {
		entries, err := os.ReadDir(filepath.Dir(s.path))
		if err != nil {
			continue
		}
		base := filepath.Base(s.path)
		for _, e := range entries {
			path := filepath.Join(filepath.Dir(s.path), e.Name())
			if seen[path] || !strings.HasPrefix(e.Name(), base+".migrated-") && !(strings.HasPrefix(e.Name(), base+".sqlite-import.") && strings.HasSuffix(e.Name(), ".bak")) {
				continue
			}
			seen[path] = true
			a.add(Finding{Code: LegacyResidue, Severity: SeverityWarn, File: path, Path: rootPath,
				Message: fmt.Sprintf("Archived auth source %s may contain plaintext credentials; retain it only as long as recovery requires.", s.kind)})
		}
	}
}

// legacyAuth adds the keys that auth.json holds, by the rules of 2026.3.2.
func (a *audit) legacyAuth() {
	for _, agent := range a.Agents {
		path := filepath.Join(agent.Dir, "auth.json")
		content, err := readFile(path, json5.MaxBytes)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		a.files[path] = true
		var root map[string]any
		if err == nil {
			root, err = decodeObject(content)
		}
		clear(content)
		if err != nil {
			a.add(Finding{Code: RefUnresolved, Severity: SeverityError, File: path, Path: rootPath, Message: "Invalid JSON in legacy auth.json: " + err.Error() + "."})
			continue
		}
		for _, provider := range slices.Sorted(maps.Keys(root)) {
			if entry := object(root[provider]); text(entry["type"]) == "api_key" && filled(entry["key"], secretref.String) {
				a.add(Finding{Code: LegacyResidue, Severity: SeverityWarn, File: path, Path: provider, Provider: provider,
					Message: "Legacy auth.json contains static api_key credentials.", Remedy: "move them to a store, and remove the file"})
			}
		}
	}
}

func (a *audit) report() *AuditReport {
	r := &AuditReport{Version: 1, Status: AuditClean, Files: slices.Sorted(maps.Keys(a.files)), Findings: a.findings, Checked: a.checked, Skipped: a.skipped}
	if r.Findings == nil {
		r.Findings = []Finding{}
	}
	if len(a.findings) > 0 {
		r.Status = AuditFindings
	}
	residue := 0
	for _, f := range a.findings {
		switch f.Code {
		case PlaintextFound:
			r.Summary.Plaintext++
		case RefUnresolved, PlaceholderValue:
			r.Summary.Unresolved++
		case RefShadowed:
			r.Summary.Shadowed++
		case LegacyResidue:
			r.Summary.Legacy++
		case StoreResidue:
			residue++
		}
	}
	if r.Summary.Unresolved > 0 {
		r.Status = AuditUnresolved
	}
	if a.Compat == secretref.Newest {
		r.Summary.StoreResidue = &residue
		r.Resolution = &AuditResolution{Checked: a.checked, Skipped: a.skipped, Complete: a.skipped == 0}
	}
	return r
}
