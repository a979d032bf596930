package secretref

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/credresolve/credresolve/backend"
)

// Runtime keeps the credentials of a program that resolves them eagerly: all of them when it starts and whenever it is
// told to reload, none in between. Readers take the current [Snapshot], which never blocks and never mixes two
// activations.
//
// An activation either publishes one new snapshot or leaves the current one in place. What another try may cure, a
// provider that fails or a secret that is not found, costs its owner alone: the owner keeps what it had (stale) when
// its refs, the definitions of their providers and the rest of its configuration are what they were, and has nothing
// (cold) otherwise. Everything else fails the activation: what is wrong in form or in policy, the gateway's own
// credentials, and refs that belong to nobody known. With [V2026_3_2] as the configuration's Compat every failure does.
//
// There is no fall-back to a lower precedence, no expiry and no background work. A Runtime is safe for concurrent use.
type Runtime struct {
	config   RuntimeConfig
	turn     chan struct{} // holds one token: whoever takes it activates
	current  atomic.Pointer[Snapshot]
	degraded bool // since the last ReloaderDegraded; belongs to the holder of turn
}

// RuntimeConfig is what a Runtime needs from its program. The zero value works.
type RuntimeConfig struct {
	// Host is what providers read: environment, home, directory.
	Host Host
	// Emit is told what happens, in order, before Activate returns. It is called by one goroutine at a time, and must
	// neither block nor call Activate or Preflight. nil tells nobody.
	Emit func(Event)
	// RetryHint is what events tell a person to do once the store is back; empty is [RetryHint].
	RetryHint string
}

// NewRuntime gives a Runtime that holds no snapshot yet.
func NewRuntime(c RuntimeConfig) *Runtime {
	if c.Emit == nil {
		c.Emit = func(Event) {}
	}
	if c.RetryHint == "" {
		c.RetryHint = RetryHint
	}
	r := &Runtime{config: c, turn: make(chan struct{}, 1)}
	r.turn <- struct{}{}
	return r
}

// Snapshot is the snapshot of the last activation that was published; nil before the first. It never blocks.
func (r *Runtime) Snapshot() *Snapshot { return r.current.Load() }

// Report says what an activation gave.
type Report struct {
	Generation uint64         // of the published snapshot; zero after Preflight
	Refs       int            // distinct refs that were asked for
	Warnings   []Event        // about single places and owners
	Failures   []OwnerFailure // the owners that are stale or cold
}

// WarningCount is the number that OpenClaw reports of a reload.
func (r Report) WarningCount() int { return len(r.Warnings) }

// TargetFailure is a place whose failure fails an activation.
type TargetFailure struct {
	Path  string
	Owner Owner
	Err   error
}

// ActivationError says that an activation failed: the snapshot before it, if any, stays in use.
type ActivationError struct {
	Start    bool            // there was no snapshot yet
	Failures []TargetFailure // at least one, in the order of the targets
}

func (e *ActivationError) Error() string {
	var b strings.Builder
	if e.Start {
		b.WriteString("startup failed: required secrets are unavailable: ")
	} else {
		b.WriteString("reload failed, the last good secrets stay in use: ")
	}
	f := e.Failures[0]
	fmt.Fprintf(&b, "%s: %v", f.Path, f.Err)
	if n := len(e.Failures) - 1; n > 0 {
		fmt.Fprintf(&b, " (and %d more)", n)
	}
	return b.String()
}

// Unwrap is the error of the first place.
func (e *ActivationError) Unwrap() error { return e.Failures[0].Err }

// Activate resolves every active target in one pass and publishes the outcome. It is both start and reload: the first
// one that is published is the start. Activations are serial; one that waits for its turn gives up with ctx. It
// fails with an [ActivationError], or with the error of ctx, in which case nothing is published and nothing is emitted.
// The slice of targets is not kept.
func (r *Runtime) Activate(ctx context.Context, c Config, targets []Target) (Report, error) {
	if err := r.take(ctx); err != nil {
		return Report{}, err
	}
	defer func() { r.turn <- struct{}{} }()

	before := r.current.Load()
	p, err := prepare(ctx, r.config.Host, c, targets, before)
	if err != nil {
		return Report{}, err
	}
	if p.failed != nil {
		r.emitFailed(p, c, before)
		return p.report(), p.failed
	}
	p.next.generation = 1
	if before != nil {
		p.next.generation = before.generation + 1
	}
	r.current.Store(p.next)
	r.emitPublished(p, before == nil)
	return p.report(), nil
}

// Preflight does what Activate would, and publishes and emits nothing.
func (r *Runtime) Preflight(ctx context.Context, c Config, targets []Target) (Report, error) {
	if err := r.take(ctx); err != nil {
		return Report{}, err
	}
	defer func() { r.turn <- struct{}{} }()
	p, err := prepare(ctx, r.config.Host, c, targets, r.current.Load())
	if err != nil {
		return Report{}, err
	}
	if p.failed != nil {
		return p.report(), p.failed
	}
	return p.report(), nil
}

func (r *Runtime) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-r.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prepared is an activation before it is published.
type prepared struct {
	next     *Snapshot
	refs     int
	surfaces []Event
	warnings []Event
	groups   []*ownerGroup
	targets  []Target
	failed   *ActivationError // nil when the snapshot may be published
}

func (p *prepared) report() Report {
	return Report{Generation: p.next.generation, Refs: p.refs, Warnings: p.warnings, Failures: p.next.Failures()}
}

// prepare resolves the targets and decides what every owner has. Its error is that of ctx alone.
func prepare(ctx context.Context, h Host, c Config, targets []Target, before *Snapshot) (*prepared, error) {
	targets = slices.Clone(targets)
	p := &prepared{
		targets: targets,
		next: &Snapshot{
			config:   c,
			places:   make(map[string][]*place),
			refs:     make(map[Ref]*place),
			owners:   make(map[groupKey]*ownerRecord),
			inactive: make(map[string]bool),
		},
	}
	p.notices()

	var refs []Ref
	index := make(map[Ref]int)
	for _, t := range targets {
		if _, ok := index[t.Ref]; !ok && !t.Inactive {
			index[t.Ref] = len(refs)
			refs = append(refs, t.Ref)
		}
	}
	p.refs = len(refs)
	var outcomes []Outcome
	if len(refs) > 0 {
		outcomes = Resolve(ctx, c, h, refs)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}

	p.groups = groupOwners(targets)
	var strict []failedTarget
	for _, g := range p.groups {
		isolate := g.isolated && c.Compat != V2026_3_2
		errs := make([]error, len(g.targets))
		values := make([]backend.Secret, len(g.targets))
		unresolved := false
		for i, t := range g.targets {
			o := outcomes[index[targets[t].Ref]]
			values[i], errs[i] = o.Value, o.Err
			unresolved = unresolved || o.Err != nil
		}
		if !unresolved { // only values that may be used are looked at: an owner that lacks one uses none
			for i, t := range g.targets {
				errs[i] = CheckValue(targets[t].Path, values[i], targets[t].expected())
			}
		}
		failure, must := judge(g, targets, errs, isolate)
		strict = append(strict, must...)
		p.next.settle(g, targets, values, failure, before)
	}
	for i := range p.next.failures {
		f := &p.next.failures[i]
		p.warnings = append(p.warnings, Event{Code: OwnerUnavailable, Owner: f.Owner, Path: f.Paths[0],
			Paths: f.Paths, Reason: f.Reason, State: string(f.State)})
	}
	if len(strict) > 0 {
		slices.SortStableFunc(strict, func(a, b failedTarget) int { return a.target - b.target })
		p.failed = &ActivationError{Start: before == nil}
		for _, f := range strict {
			t := targets[f.target]
			p.failed.Failures = append(p.failed.Failures, TargetFailure{Path: t.Path, Owner: t.Owner, Err: f.err})
		}
	}
	return p, nil
}

// notices says what can be said of the targets without resolving them, once for each place.
func (p *prepared) notices() {
	type notice struct {
		code         EventCode
		path, reason string
	}
	seen := make(map[notice]bool)
	first := func(code EventCode, path, reason string) bool {
		n := notice{code, path, reason}
		was := seen[n]
		seen[n] = true
		return !was
	}
	for _, t := range p.targets {
		state := "active"
		if t.Inactive {
			state = "inactive"
			p.next.inactive[t.Path] = true
			if first(RefIgnoredInactive, t.Path, t.Reason) {
				p.warnings = append(p.warnings, Event{Code: RefIgnoredInactive, Path: t.Path, Reason: t.Reason})
			}
		}
		if t.Overrides && first(RefOverridesPlaintext, t.Path, "") {
			p.warnings = append(p.warnings, Event{Code: RefOverridesPlaintext, Path: t.Path})
		}
		if gatewayAuth[t.Path] && first(GatewayAuthSurface, t.Path, "") {
			p.surfaces = append(p.surfaces, Event{Code: GatewayAuthSurface, Path: t.Path, State: state, Reason: t.Reason})
		}
	}
}

// gatewayAuth is where the gateway's own credentials stand.
var gatewayAuth = map[string]bool{
	"gateway.auth.token": true, "gateway.auth.password": true,
	"gateway.remote.token": true, "gateway.remote.password": true,
}

type failedTarget struct {
	target int
	err    error
}

// reasonNotConfigured is why the owner of an auth profile lacks its provider.
const reasonNotConfigured = "secret provider is not configured"

// ownerFault is why an owner that is kept apart lacks its credentials.
type ownerFault struct {
	OwnerFailure
	placeholder bool // an earlier value must not come back for it
}

// judge looks at the errors of an owner's targets, one for each and nil where there is none. It gives what the owner
// lacks, when it does, and the failures that fail the activation.
func judge(g *ownerGroup, targets []Target, errs []error, isolate bool) (*ownerFault, []failedTarget) {
	var fault *ownerFault
	var strict []failedTarget
	for i, err := range errs {
		if err == nil {
			continue
		}
		var e *Error
		reason := ""
		if errors.As(err, &e) {
			reason = isolatedReason(e, g.profile)
		}
		if reason == "" || !isolate {
			strict = append(strict, failedTarget{g.targets[i], err})
			continue
		}
		if fault == nil {
			fault = &ownerFault{OwnerFailure: OwnerFailure{Owner: g.owner, Reason: reason, cause: err}}
		}
		switch {
		case e.Scope == ScopeProvider:
			if name := (providerName{e.Source, e.Provider}); !slices.Contains(fault.providers, name) {
				fault.providers = append(fault.providers, name)
			}
		case fault.refReason == "" || reason == reasonRedacted:
			fault.refReason = reason
		}
		fault.placeholder = fault.placeholder || reason == reasonRedacted
	}
	if fault != nil {
		if fault.refReason != "" {
			fault.Reason = fault.refReason
		}
		for _, t := range g.targets {
			fault.Paths = append(fault.Paths, targets[t].Path)
		}
		slices.Sort(fault.Paths)
		fault.Paths = slices.Compact(fault.Paths)
	}
	return fault, strict
}

// isolatedReason is the redacted reason of an error that may be kept to an owner; empty for every other.
func isolatedReason(e *Error, profile bool) string {
	switch {
	case e.Code == RefRedactedValue:
		return reasonRedacted
	case e.Code == ProviderNotConfigured && profile:
		return reasonNotConfigured
	case e.Retryable():
		return e.LogReason()
	}
	return ""
}

// settle files what the targets of an owner got: fresh values when fault is nil, what the owner had or nothing
// otherwise.
func (s *Snapshot) settle(g *ownerGroup, targets []Target, values []backend.Secret, fault *ownerFault, before *Snapshot) {
	record := &ownerRecord{state: OwnerReady, keys: g.keys, digest: g.digest, values: make(map[string]backend.Secret)}
	for i, t := range g.targets {
		record.refs = append(record.refs, targets[t].Ref)
		record.values[targets[t].Ref.Key()] = values[i]
	}
	var unavailable error
	if fault != nil {
		record.state, record.values = OwnerCold, nil
		if kept := s.lastGood(g, targets, before); kept != nil && !fault.placeholder {
			record.state, record.values = OwnerStale, kept
		}
		fault.State = record.state
		s.failures = append(s.failures, fault.OwnerFailure)
		unavailable = fault.unavailable()
	}
	if g.owner.Mapped() {
		s.owners[groupKey{g.owner, g.profile}] = record
	}
	for _, t := range g.targets {
		p := &place{target: targets[t], state: record.state, value: record.values[targets[t].Ref.Key()]}
		if p.state == OwnerCold {
			p.err = unavailable
		}
		s.add(p)
	}
}

// lastGood is what the owner had, by key of the ref, when it may keep that: it was not cold, and its refs, its digest
// and the definitions of the providers are what they were. It is nil otherwise.
func (s *Snapshot) lastGood(g *ownerGroup, targets []Target, before *Snapshot) map[string]backend.Secret {
	if before == nil || g.digest == "" {
		return nil
	}
	was := before.owners[groupKey{g.owner, g.profile}]
	if was == nil || was.state == OwnerCold || was.digest != g.digest || !slices.Equal(was.keys, g.keys) {
		return nil
	}
	for _, t := range g.targets {
		if !sameProvider(s.config, before.config, targets[t].Ref.Provider) {
			return nil
		}
	}
	return was.values
}

// sameProvider reports whether two configurations define the provider alike, or both not at all.
func sameProvider(a, b Config, alias string) bool {
	x, inA := a.Providers[alias]
	y, inB := b.Providers[alias]
	return inA == inB && x.Equal(y)
}

// emitPublished tells what a published activation gave.
func (r *Runtime) emitPublished(p *prepared, start bool) {
	for _, e := range p.surfaces {
		r.config.Emit(e)
	}
	told := make(map[Owner]bool) // by the event of a provider alone
	for _, f := range p.next.failures {
		told[f.Owner] = len(f.providers) > 0 && f.refReason == ""
	}
	for _, e := range p.warnings {
		if e.Code != OwnerUnavailable || !told[e.Owner] {
			r.config.Emit(e)
		}
	}
	r.emitFailures(p.next.failures)
	switch {
	case len(p.next.failures) == 0 && r.degraded:
		r.degraded = false
		r.config.Emit(Event{Code: ReloaderRecovered, Reason: "every secret resolved again"})
	case len(p.next.failures) > 0 && !start:
		r.emitDegraded("some owners lack what they need; the others have fresh secrets")
	}
}

// emitFailed tells what an activation that was not published would have cost, as far as another try may cure it.
func (r *Runtime) emitFailed(p *prepared, c Config, before *Snapshot) {
	if c.Compat == V2026_3_2 {
		if before != nil {
			r.emitDegraded("a secret failed; the last good ones stay in use")
		}
		return
	}
	var e *Error
	if !errors.As(p.failed, &e) || !e.Retryable() {
		return
	}
	var hit []OwnerFailure
	add := func(owner Owner, keeps bool) {
		f := OwnerFailure{Owner: owner, State: OwnerCold, Reason: e.LogReason()}
		if keeps {
			f.State = OwnerStale
		}
		hit = append(hit, f)
	}
	now := make(map[groupKey]bool)
	for _, g := range p.groups {
		now[groupKey{g.owner, g.profile}] = true
		if g.owner.Mapped() && slices.ContainsFunc(g.targets, func(t int) bool { return e.concerns(p.targets[t].Ref) }) {
			add(g.owner, p.next.lastGood(g, p.targets, before) != nil)
		}
	}
	for _, key := range before.ownersBut(now) { // which stay, since the snapshot does
		was := before.owners[key]
		theirs := 0
		for _, ref := range was.refs {
			if e.concerns(ref) {
				theirs++
			}
		}
		if theirs > 0 {
			add(key.owner, theirs == len(was.refs) && was.state != OwnerCold && was.digest != "" && sameProvider(c, before.config, e.Provider))
		}
	}
	if len(hit) == 0 {
		hit = []OwnerFailure{{Owner: unmapped, State: OwnerCold, Reason: e.LogReason()}}
	}
	if e.Scope == ScopeProvider {
		for i := range hit {
			hit[i].providers = []providerName{{e.Source, e.Provider}}
		}
	}
	r.emitFailures(hit)
	if before != nil {
		r.emitDegraded("a secret that is required failed; the last good ones stay in use")
	}
}

// concerns reports whether the error is why ref failed.
func (e *Error) concerns(ref Ref) bool {
	return e.Source == ref.Source && e.Provider == ref.Provider &&
		(e.Scope == ScopeProvider || e.RefID == trim(ref.ID))
}

func (r *Runtime) emitDegraded(reason string) {
	if !r.degraded {
		r.degraded = true
		r.config.Emit(Event{Code: ReloaderDegraded, Reason: reason})
	}
}

// emitFailures tells of each owner whose own ref failed, and of each provider that failed once for all its owners.
func (r *Runtime) emitFailures(failures []OwnerFailure) {
	var providers []providerName
	affected := make(map[providerName][]OwnerStatus)
	for _, f := range failures {
		if f.refReason != "" || len(f.providers) == 0 {
			r.config.Emit(Event{Code: Degraded, Owner: f.Owner, Reason: f.Reason, State: string(f.State), RetryHint: r.config.RetryHint})
		}
		for _, name := range f.providers {
			if affected[name] == nil {
				providers = append(providers, name)
			}
			affected[name] = append(affected[name], OwnerStatus{f.Owner, f.State})
		}
	}
	for _, name := range providers {
		hit := affected[name]
		slices.SortFunc(hit, func(a, b OwnerStatus) int { return compareOwners(a.Owner, b.Owner) })
		r.config.Emit(Event{Code: ProviderDegraded, Source: name.source, Provider: name.provider, Affected: hit,
			Reason: reasonProvider, RetryHint: r.config.RetryHint})
	}
}
