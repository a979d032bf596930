package server

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/loginhint"
	"github.com/credresolve/credresolve/internal/metrics"
	"github.com/credresolve/credresolve/internal/policy"
	"github.com/credresolve/credresolve/resolver"
	"github.com/credresolve/credresolve/resolver/grants"
)

const (
	looksAtOnce = 4                // providers and credentials that are looked at together
	lookTime    = 10 * time.Second // for one of them
	lookWindow  = time.Minute      // within which the looks of one round begin, at most
)

// health is what the last looks at providers and credentials found.
type health struct {
	looking sync.Mutex // one round at a time

	mu          sync.Mutex
	providers   map[string]lookedAt
	credentials []client.CredentialHealth
}

// lookedAt is what was found of a provider of that digest.
type lookedAt struct {
	digest string
	client.Health
}

// provider gives what was found of a provider, nil when it was not looked at, or another definition of it was.
func (h *health) provider(name, digest string) *client.Health {
	h.mu.Lock()
	defer h.mu.Unlock()
	found, ok := h.providers[name]
	if !ok || found.digest != digest {
		return nil
	}
	return &found.Health
}

func (h *health) gauges() map[string]metrics.Health {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make(map[string]metrics.Health, len(h.providers))
	for name, found := range h.providers {
		out[name] = metrics.Health{Known: found.Code != backend.CodeUnsupported, Well: found.Code == backend.CodeOK}
	}
	for _, c := range h.credentials {
		if c.Code != backend.CodeOK && c.Code != backend.CodeUnsupported {
			one := out[c.Ref.Provider]
			one.Bad++
			out[c.Ref.Provider] = one
		}
	}
	return out
}

// lookAtHealth looks at everything from time to time, as the configuration says, until ctx ends.
func (s *Server) lookAtHealth(ctx context.Context) {
	for ctx.Err() == nil {
		changed := s.streams.Load().ctx
		interval := s.state.Load().serve.Health.Interval
		if interval == 0 {
			select {
			case <-changed.Done(): // another configuration, or the end
				sleep(ctx, time.Millisecond)
			case <-ctx.Done():
			}
			continue
		}
		wait, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(changed, cancel)
		sleep(wait, interval-interval/10+rand.N(interval/5+1))
		again := wait.Err() == nil
		stop()
		cancel()
		if again {
			s.look(ctx, s.state.Load(), s.state.Load().serve.Health.Executables, min(interval/10, lookWindow))
		}
	}
}

// look looks at every provider, and at the credentials of logins and of the configuration. Programs are started for it only with
// executables. Each look begins at some time within window, so that stores are not asked all at once.
func (s *Server) look(ctx context.Context, st *state, executables bool, window time.Duration) {
	s.health.looking.Lock()
	defer s.health.looking.Unlock()
	var all sync.WaitGroup
	places := make(chan struct{}, looksAtOnce)
	each := func(do func(context.Context)) {
		all.Go(func() {
			if window > 0 {
				sleep(ctx, rand.N(window))
			}
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return
			}
			defer func() { <-places }()
			ctx, cancel := context.WithTimeout(ctx, lookTime)
			defer cancel()
			do(ctx)
		})
	}
	var mu sync.Mutex
	found := map[string]lookedAt{}
	skipped := map[string]bool{}
	for _, p := range s.resolver.Providers() {
		if skipped[p.Name] = !s.harmless(st, p.Name, executables); skipped[p.Name] {
			continue
		}
		each(func(ctx context.Context) {
			one := lookedAt{p.Digest, s.lookAt(ctx, func() error { return s.probe(ctx, p) })}
			mu.Lock()
			defer mu.Unlock()
			found[p.Name] = one
		})
	}
	var credentials []client.CredentialHealth
	add := func(ref credref.Ref, subject credref.Subject, h client.Health) {
		one := client.CredentialHealth{Ref: ref, Health: h}
		if subject != (credref.Subject{}) {
			one.Subject = &client.Subject{Tenant: subject.Tenant, EndUser: subject.EndUser, Session: subject.Session, Plugin: subject.Plugin}
		}
		mu.Lock()
		defer mu.Unlock()
		credentials = append(credentials, one)
	}
	for _, ref := range st.serve.Health.Refs {
		if skipped[ref.Provider] {
			continue
		}
		each(func(ctx context.Context) {
			add(ref, credref.Subject{}, s.lookAt(ctx, func() error {
				return s.probeRef(ctx, ref)
			}))
		})
	}
	entries, _ := s.index()
	for _, e := range entries {
		b, err := s.resolver.Backend(e.Provider)
		kept, ok := grants.As(b)
		if err != nil || !ok || skipped[e.Provider] {
			continue
		}
		subject := credref.Subject(e.Subject)
		ref, known := refOfLogin(s.resolver.For(subject), e)
		if !known || slices.Contains(st.serve.Health.Refs, ref) && subject.IsZero() {
			continue
		}
		each(func(ctx context.Context) {
			add(ref, subject, s.lookAt(ctx, func() error { return probeLogin(ctx, kept, e) }))
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return
	}
	slices.SortFunc(credentials, func(a, b client.CredentialHealth) int { return strings.Compare(a.Ref.String(), b.Ref.String()) })
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	s.health.providers, s.health.credentials = found, credentials
}

func (s *Server) lookAt(ctx context.Context, ask func() error) client.Health {
	began := time.Now()
	err := ask()
	out := client.Health{Code: backend.CodeOf(err), CheckedAt: began.UTC(), Took: client.Duration(time.Since(began).Round(time.Microsecond))}
	switch {
	case err == nil:
	case ctx.Err() != nil:
		out.Code, out.Message = backend.CodeTimeout, "there was no answer in time"
	default:
		out.Message = client.NewError(err).Message
	}
	return out
}

// probe looks at a provider. One that is left alone since it failed is not asked again: that could lock an account.
func (s *Server) probe(ctx context.Context, p resolver.ProviderState) error {
	if p.Breaker != "closed" {
		return &backend.Error{Code: cmp.Or(p.Code, backend.CodeUnavailable), Reason: cmp.Or(p.Reason, "it failed"), Remedy: "it is left alone for a while; see credresolve status"}
	}
	b, err := s.resolver.Backend(p.Name)
	if err != nil {
		return err
	}
	return backend.Probe(ctx, b)
}

// probeRef resolves a ref, and asks its store whether what that gave is in force. A store that cannot be asked is taken at its word.
func (s *Server) probeRef(ctx context.Context, ref credref.Ref) error {
	ref.Field = ""
	everybody := s.resolver.For(credref.Subject{})
	found, err := everybody.Inspect(ref)
	if err != nil {
		return err
	}
	o := everybody.ResolveWith(ctx, []credref.Ref{ref}, resolver.Demand{Whole: true})[0]
	if o.Err != nil {
		return o.Err
	}
	b, err := s.resolver.Backend(ref.Provider)
	if err != nil {
		return err
	}
	v := o.Value
	err = backend.ProbeCredential(ctx, b, backend.Request{ID: found.Places[0].ID, Version: ref.Version}, &backend.Credential{
		Type: v.Type(), Secret: v.Secret(), Fields: v.Fields(), Version: v.Version(), Expires: v.Expires(), RefreshAfter: v.RefreshAfter(), Metadata: v.Metadata(),
	})
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// probeLogin asks whether what a login gave is in force. Nothing is refreshed for it, which nobody may have asked for.
func probeLogin(ctx context.Context, b *grants.Backend, e grants.Entry) error {
	req := backend.Request{ID: e.ID, Subject: e.Subject}
	e, err := b.Status(ctx, req)
	if err == nil {
		err = loginHealth(e)
	}
	soon := time.Now().Add(2 * lookTime)
	due := func(at time.Time) bool { return !at.IsZero() && at.Before(soon) }
	if err != nil || e.Status != grants.StatusActive || due(e.Expires) || due(e.RefreshAfter) {
		return err
	}
	have, err := b.Get(ctx, req)
	if err == nil {
		err = b.ProbeCredential(ctx, req, have)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// loginHealth says what is wrong with a login by what is known of it.
func loginHealth(e grants.Entry) error {
	remedy := "log in again: " + loginhint.Command("login", e.Provider, e.ID)
	switch e.Status {
	case grants.StatusExpired:
		return &backend.Error{Code: backend.CodeExpired, Reason: cmp.Or(e.Reason, "the credential has ended"), Remedy: remedy}
	case grants.StatusAuthRequired, grants.StatusInterrupted:
		return &backend.Error{Code: backend.CodeAuthRequired, Reason: cmp.Or(e.Reason, "somebody has to log in"), Remedy: remedy}
	}
	return nil
}

// harmless reports whether a look at a provider, and at those that its settings need, starts no program unless executables says
// so, and makes the operating system ask nobody.
func (s *Server) harmless(st *state, name string, executables bool) bool {
	seen := map[string]bool{}
	var visit func(name string) bool
	visit = func(name string) bool {
		def := st.kinds[name]
		if def == nil || seen[name] {
			return true
		}
		seen[name] = true
		for _, r := range def.Reach {
			if r.What == backend.ReachExecutable && !executables || r.What == backend.ReachKeychain && s.options.Open.Interactive {
				return false
			}
		}
		if !def.Known && !executables {
			return false
		}
		return !slices.ContainsFunc(def.Chain, func(ref credref.Ref) bool { return !visit(ref.Provider) })
	}
	return visit(name)
}

func (s *Server) getHealth(req *request) {
	query, err := url.ParseQuery(req.r.URL.RawQuery)
	for name, values := range query {
		if name != "now" && name != "executables" || len(values) != 1 || values[0] != "1" {
			err = errors.New("another parameter")
		}
	}
	if err != nil || query.Has("executables") && !query.Has("now") {
		req.fail(bad(http.StatusBadRequest, "the query may be now=1, with executables=1 or without", ""))
		return
	}
	if query.Has("now") {
		if !req.caller.consumer.IsOwner() {
			err := denial(req.caller.consumer.Name(), "to look now is the owner's alone")
			_ = s.auditOne(req, "denial", nil, policy.ByDefault, err)
			s.metrics.Denied(req.caller.consumer.Name())
			req.fail(err)
			return
		}
		ctx, end, err := req.wait()
		if err != nil {
			req.fail(err)
			return
		}
		s.look(ctx, req.state, query.Has("executables") || req.state.serve.Health.Executables, 0)
		err = ctx.Err()
		end()
		if err != nil {
			req.fail(&backend.Error{Code: backend.CodeOf(err), Reason: "not everything was looked at in time", Remedy: "ask again without now=1 for what was found before"})
			return
		}
	}
	req.json(http.StatusOK, s.healthFor(req.state, req.caller))
}

// healthFor gives what the last looks found, as far as who may know of it.
func (s *Server) healthFor(st *state, who *caller) client.HealthAnswer {
	answer := client.HealthAnswer{Providers: []client.ProviderHealth{}, Credentials: []client.CredentialHealth{}}
	for _, p := range s.resolver.Providers() {
		h := s.health.provider(p.Name, p.Digest)
		if h == nil {
			continue
		}
		one := client.ProviderHealth{Name: p.Name, Health: *h}
		if def := st.kinds[p.Name]; def != nil {
			one.Kind = def.Kind
		}
		answer.Providers = append(answer.Providers, one)
	}
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	for _, c := range s.health.credentials {
		whose := credref.Subject{}
		if c.Subject != nil {
			whose = credref.Subject{Tenant: c.Subject.Tenant, EndUser: c.Subject.EndUser, Session: c.Subject.Session, Plugin: c.Subject.Plugin}
		}
		if who.consumer.IsOwner() || who.consumer.Resolve(c.Ref).Allowed && (whose.IsZero() || whose == who.subject) {
			answer.Credentials = append(answer.Credentials, c)
		}
	}
	return answer
}
