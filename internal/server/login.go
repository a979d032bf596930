package server

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/audit"
	"github.com/credresolve/credresolve/resolver"
	"github.com/credresolve/credresolve/resolver/grants"
)

const (
	maxLoginBody     = 1 << 20
	maxLogins        = 1024 // under way, of all callers
	maxLoginsOfOne   = 32   // of one consumer and subject
	maxLoginTime     = 30 * time.Minute
	loginOutcomeTime = 10 * time.Minute // for which an outcome can be asked for
)

// logins are the logins under way, by their state: whose each is.
type logins struct {
	mu    sync.Mutex
	under map[string]*underway
}

// underway is a login under way. Who is told of it in an error may ask for it as who began it.
type underway struct {
	backend *grants.Backend
	ref     credref.Ref
	whose   map[claimant]bool
	subject credref.Subject // whose login it is
	session string          // of who began it; empty: none
	ends    time.Time       // when it is forgotten
	told    bool            // how it ended is in the audit log
}

// claimant is who may ask for a login.
type claimant struct {
	consumer string
	subject  credref.Subject
	session  string
}

func (c *caller) claimant() claimant {
	out := claimant{consumer: c.consumer.Name(), subject: c.subject}
	if c.session != nil {
		out.session = c.session.ID
	}
	return out
}

var errNoLogin = &backend.Error{Code: backend.CodeNotFound, Reason: "there is no such login under way", Remedy: "start one: POST /v1/login/start"}

// add notes a login of who.
func (l *logins) add(state string, one *underway, who claimant, expires time.Time) error {
	now := time.Now()
	if limit := now.Add(maxLoginTime); expires.IsZero() || expires.After(limit) {
		expires = limit
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if have := l.under[state]; have != nil {
		have.whose[who] = true
		return nil
	}
	own := 0
	for state, u := range l.under {
		if now.After(u.ends) {
			delete(l.under, state)
		} else if u.whose[who] && !u.told {
			own++
		}
	}
	if own >= maxLoginsOfOne || len(l.under) >= maxLogins {
		return &backend.Error{Code: backend.CodeThrottled, Reason: "there are as many logins under way as there may be", Remedy: "finish or cancel some", RetryAfter: time.Minute}
	}
	if l.under == nil {
		l.under = map[string]*underway{}
	}
	one.whose, one.ends = map[claimant]bool{who: true}, expires.Add(loginOutcomeTime)
	l.under[state] = one
	return nil
}

// find gives the login of that state, if it is one of who.
func (l *logins) find(state string, who claimant) (*underway, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.under[state]
	if u == nil || !u.whose[who] || time.Now().After(u.ends) {
		return nil, errNoLogin
	}
	return u, nil
}

func (l *logins) drop(state string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.under, state)
}

// of gives the states of logins that which says, and lets go of them.
func (l *logins) take(which func(*underway) bool) map[string]*underway {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]*underway{}
	for state, u := range l.under {
		if which(u) {
			out[state] = u
			delete(l.under, state)
		}
	}
	return out
}

// once reports whether nobody was told yet how u ended.
func (l *logins) once(u *underway) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := !u.told
	u.told = true
	return first
}

// noteLogin lets who is told of a login in err ask how it stands.
func (s *Server) noteLogin(req *request, ref credref.Ref, err error) {
	var e *backend.Error
	if !errors.As(err, &e) || e.Login == nil || e.Login.State == "" {
		return
	}
	_, at, b, failed := s.loginPlace(req.caller.view, ref)
	if failed != nil {
		return
	}
	one := &underway{backend: b, ref: credref.Ref{Provider: ref.Provider, ID: ref.ID}, subject: credref.Subject(at.Subject)}
	if c := req.caller.session; c != nil {
		one.session = c.ID
	}
	_ = s.logins.add(e.Login.State, one, req.caller.claimant(), e.Login.Expires) // who cannot poll can resolve again
}

// loginPlace gives the provider of ref as one where people log in, and the request for the login that view's subject has there:
// its own, where the provider tells subjects apart.
func (s *Server) loginPlace(view *resolver.View, ref credref.Ref) (credref.Ref, backend.Request, *grants.Backend, error) {
	ref = credref.Ref{Provider: ref.Provider, ID: ref.ID}
	found, err := view.Inspect(ref)
	if e, ok := err.(*resolver.RefError); ok {
		err = e.Err
	}
	if err != nil {
		return ref, backend.Request{}, nil, err
	}
	b, err := s.resolver.Backend(ref.Provider)
	if err != nil {
		return ref, backend.Request{}, nil, err
	}
	kept, ok := grants.As(b)
	if !ok {
		return ref, backend.Request{}, nil, &backend.Error{Code: backend.CodeUnsupported, Reason: "nobody logs in to the provider " + ref.Provider, Remedy: "its credentials can be resolved as they are"}
	}
	at := found.Places[0]
	return ref, backend.Request{ID: at.ID, Subject: backend.Subject(at.Subject)}, kept, nil
}

// mayLogin checks ref, the caller's rate, and its right to log in for ref. What is refused is answered and audited.
func (s *Server) mayLogin(req *request, ref credref.Ref) bool {
	err := ref.Validate()
	switch {
	case err != nil:
		err = bad(http.StatusBadRequest, err.Error(), "")
	case ref.Version != "" || ref.Field != "":
		err = bad(http.StatusBadRequest, "a login is for a provider and an id, without version and field", "")
	default:
		if err = allow(req.caller.limiter, 1); err != nil {
			s.metrics.Limited(req.caller.consumer.Name())
		} else if d := req.caller.consumer.Login(ref); !d.Allowed {
			err = loginDenial(req.caller.consumer.Name(), d.Reason)
			_ = s.auditOne(req, audit.EventDenial, &ref, d.Rule, err)
			s.metrics.Denied(req.caller.consumer.Name())
		}
	}
	if err != nil {
		req.fail(err)
		return false
	}
	return true
}

func loginDenial(consumer, reason string) error {
	if consumer == "" {
		return denial(consumer, reason)
	}
	return &backend.Error{
		Code:   backend.CodeDenied,
		Reason: "the policy does not allow to log in for this to " + consumer + ": " + reason,
		Remedy: "add login: true to a rule of the consumer, or to the session",
	}
}

func (s *Server) startLogin(req *request) {
	var body client.LoginRequest
	if err := req.read(&body, defaultBody); err != nil {
		req.fail(err)
		return
	}
	ref := credref.Ref{Provider: body.Provider, ID: body.ID}
	if !s.mayLogin(req, ref) {
		return
	}
	state, err := func() (backend.LoginState, error) {
		ref, at, b, err := s.loginPlace(req.caller.view, ref)
		if err != nil {
			return backend.LoginState{}, err
		}
		ctx, end, err := req.wait()
		if err != nil {
			return backend.LoginState{}, err
		}
		defer end()
		state, err := b.StartLogin(ctx, at, backend.LoginOptions{Device: body.Device, NoRedirect: body.NoRedirect})
		if err != nil {
			return backend.LoginState{}, err
		}
		one := &underway{backend: b, ref: ref, subject: credref.Subject(at.Subject)}
		if c := req.caller.session; c != nil {
			one.session = c.ID
		}
		err = s.logins.add(state.State, one, req.caller.claimant(), state.Expires)
		if err == nil && req.caller.session != nil && req.caller.session.ctx.Err() != nil {
			s.logins.drop(state.State)
			err = errNoToken // it ended meanwhile
		}
		if err != nil {
			_ = b.CancelLogin(context.WithoutCancel(ctx), state.State)
		}
		return state, err
	}()
	if failed := s.auditOne(req, audit.EventLoginStart, &ref, "", err); failed != nil && err == nil {
		err = failed
		s.abandon(req, state.State)
	}
	if err != nil {
		req.fail(err)
		return
	}
	req.json(http.StatusOK, client.NewLoginState(state))
}

// abandon ends a login of which nobody is told.
func (s *Server) abandon(req *request, state string) {
	if u, err := s.logins.find(state, req.caller.claimant()); err == nil {
		s.logins.drop(state)
		_ = u.backend.CancelLogin(req.ctx(), state)
	}
}

// theirs gives the login of a state that the caller has, after its right to log in was looked at anew.
func (s *Server) theirs(req *request, state string) (*underway, bool) {
	if err := allow(req.caller.limiter, 1); err != nil {
		s.metrics.Limited(req.caller.consumer.Name())
		req.fail(err)
		return nil, false
	}
	u, err := s.logins.find(state, req.caller.claimant())
	if err != nil {
		req.fail(err)
		return nil, false
	}
	// Who was told of it since it may resolve the ref may ask how it stands, and no more.
	if d := req.caller.consumer.Resolve(u.ref); d.Allowed && strings.HasSuffix(req.r.URL.Path, "/poll") {
		return u, true
	}
	if d := req.caller.consumer.Login(u.ref); !d.Allowed {
		err := loginDenial(req.caller.consumer.Name(), d.Reason)
		_ = s.auditOne(req, audit.EventDenial, &u.ref, d.Rule, err)
		s.metrics.Denied(req.caller.consumer.Name())
		req.fail(err)
		return nil, false
	}
	return u, true
}

func (s *Server) submitLogin(req *request) {
	var body client.LoginInput
	if err := req.readSecret(&body, maxLoginBody, nil, "state", "input"); err != nil {
		req.fail(err)
		return
	}
	u, ok := s.theirs(req, body.State)
	if !ok {
		return
	}
	input := make(map[string]backend.Secret, len(body.Input))
	for name, text := range body.Input {
		input[name] = text.Secret
	}
	s.tellLogin(req, u, func(ctx context.Context) (backend.LoginState, error) {
		return u.backend.SubmitLogin(ctx, body.State, input)
	})
}

func (s *Server) pollLogin(req *request) {
	var body client.LoginQuery
	if err := req.read(&body, defaultBody); err != nil {
		req.fail(err)
		return
	}
	if u, ok := s.theirs(req, body.State); ok {
		s.tellLogin(req, u, func(ctx context.Context) (backend.LoginState, error) { return u.backend.PollLogin(ctx, body.State) })
	}
}

// tellLogin answers with how u stands, by ask.
func (s *Server) tellLogin(req *request, u *underway, ask func(context.Context) (backend.LoginState, error)) {
	state, err := func() (backend.LoginState, error) {
		ctx, end, err := req.wait()
		if err != nil {
			return backend.LoginState{}, err
		}
		defer end()
		return ask(ctx)
	}()
	if errors.Is(err, backend.ErrNotFound) {
		err = errNoLogin
	}
	if err == nil && state.Status != backend.LoginPending && s.logins.once(u) {
		if state.Status == backend.LoginSuccess {
			s.resolver.Wrote(u.ref)
		}
		err = s.auditOne(req, audit.EventLoginEnd, &u.ref, string(state.Status), nil)
	}
	if err != nil {
		req.fail(err)
		return
	}
	req.json(http.StatusOK, client.NewLoginState(state))
}

func (s *Server) cancelLogin(req *request) {
	var body client.LoginQuery
	if err := req.read(&body, defaultBody); err != nil {
		req.fail(err)
		return
	}
	u, ok := s.theirs(req, body.State)
	if !ok {
		return
	}
	err := func() error {
		ctx, end, err := req.wait()
		if err != nil {
			return err
		}
		defer end()
		return u.backend.CancelLogin(ctx, body.State)
	}()
	if errors.Is(err, backend.ErrNotFound) {
		err = errNoLogin
	}
	if err == nil && s.logins.once(u) {
		err = s.auditOne(req, audit.EventLoginEnd, &u.ref, string(backend.LoginCancelled), nil)
	}
	if err != nil {
		req.fail(err)
		return
	}
	req.none()
}

func (s *Server) logout(req *request) {
	var body client.LoginRef
	if err := req.read(&body, defaultBody); err != nil {
		req.fail(err)
		return
	}
	if !s.mayLogin(req, body.Ref) {
		return
	}
	revoked, err := func() (bool, error) {
		ref, at, b, err := s.loginPlace(req.caller.view, body.Ref)
		if err != nil {
			return false, err
		}
		ctx, end, err := req.wait()
		if err != nil {
			return false, err
		}
		defer end()
		return s.endLogin(ctx, b, ref, at)
	}()
	if failed := s.auditOne(req, audit.EventLogout, &body.Ref, "", err); err == nil {
		err = failed
	}
	if err != nil {
		req.fail(err)
		return
	}
	req.json(http.StatusOK, client.LogoutAnswer{Revoked: revoked})
}

// endLogin ends what a login gave, and what is known here of it.
func (s *Server) endLogin(ctx context.Context, b *grants.Backend, ref credref.Ref, at backend.Request) (bool, error) {
	revoked, err := b.Logout(ctx, at)
	if !errors.Is(err, backend.ErrNotFound) {
		s.resolver.Wrote(ref)
		if at.Subject == (backend.Subject{}) {
			s.revoked(ctx, ref)
		}
	}
	return revoked, err
}

func (s *Server) refresh(req *request) {
	var body client.LoginRef
	if err := req.read(&body, defaultBody); err != nil {
		req.fail(err)
		return
	}
	if !s.mayLogin(req, body.Ref) {
		return
	}
	entry, err := func() (grants.Entry, error) {
		ref, at, b, err := s.loginPlace(req.caller.view, body.Ref)
		if err != nil {
			return grants.Entry{}, err
		}
		ctx, end, err := req.wait()
		if err != nil {
			return grants.Entry{}, err
		}
		defer end()
		if err := b.Refresh(ctx, at); err != nil {
			return grants.Entry{}, err
		}
		s.resolver.Wrote(ref)
		return b.Status(ctx, at)
	}()
	if failed := s.auditOne(req, audit.EventRefresh, &body.Ref, "", err); err == nil {
		err = failed
	}
	if err != nil {
		req.fail(err)
		return
	}
	req.json(http.StatusOK, newLoginEntry(body.Ref, entry))
}

func newLoginEntry(ref credref.Ref, e grants.Entry) client.LoginEntry {
	out := client.LoginEntry{
		Ref: ref, Status: string(e.Status), Account: e.Account, Refreshable: e.Refreshable, Reason: e.Reason,
		ExpiresAt: at(e.Expires), RefreshAfter: at(e.RefreshAfter), LoggedInAt: at(e.LoggedIn), RefreshedAt: at(e.Refreshed),
	}
	if sub := e.Subject; sub != (backend.Subject{}) {
		out.Subject = &client.Subject{Tenant: sub.Tenant, EndUser: sub.EndUser, Session: sub.Session, Plugin: sub.Plugin}
	}
	return out
}

// at gives t for an answer, nil where it is not known.
func at(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// index gives the logins that are known on this host.
func (s *Server) index() ([]grants.Entry, error) {
	return grants.NewStore(grants.Config{StateDir: s.options.Open.StateDir}).Logins()
}

func (s *Server) getLogins(req *request) {
	entries, err := s.index()
	if err != nil {
		req.fail(err)
		return
	}
	answer := client.LoginsAnswer{Logins: []client.LoginEntry{}}
	for _, e := range entries {
		view, who := req.caller.view, req.caller.consumer
		if who.IsOwner() {
			view = s.resolver.For(credref.Subject(e.Subject))
		}
		ref, known := refOfLogin(view, e)
		switch {
		case known && (who.Resolve(ref).Allowed || who.Login(ref).Allowed):
		case who.IsOwner(): // of a provider that is not configured any more
			ref = credref.Ref{Provider: e.Provider, ID: e.ID}
		default:
			continue
		}
		answer.Logins = append(answer.Logins, newLoginEntry(ref, e))
	}
	req.json(http.StatusOK, answer)
}

// refOfLogin gives the ref by which view's subject finds the login e, if there is one.
func refOfLogin(view *resolver.View, e grants.Entry) (credref.Ref, bool) {
	const mark = "credresolve"
	probe, err := view.Inspect(credref.Ref{Provider: e.Provider, ID: mark})
	if err != nil {
		return credref.Ref{}, false
	}
	for _, place := range probe.Places {
		if backend.Subject(place.Subject) != e.Subject {
			continue
		}
		before, after, _ := strings.Cut(place.ID, mark)
		id, ok := strings.CutPrefix(e.ID, before)
		ref := credref.Ref{Provider: e.Provider, ID: id}
		if id, ok2 := strings.CutSuffix(id, after); ok && ok2 {
			ref.ID = id
		}
		found, err := view.Inspect(ref)
		if err != nil {
			continue
		}
		for _, place := range found.Places {
			if place.ID == e.ID && backend.Subject(place.Subject) == e.Subject {
				return ref, true
			}
		}
	}
	return credref.Ref{}, false
}

// endLogins ends the logins, under way and kept, of the subjects that within says. All are tried; the error is the first.
func (s *Server) endLogins(ctx context.Context, within func(credref.Subject) bool, session string) (first error) {
	for state, u := range s.logins.take(func(u *underway) bool { return within(u.subject) || session != "" && u.session == session }) {
		if err := u.backend.CancelLogin(ctx, state); err != nil && !errors.Is(err, backend.ErrNotFound) {
			first = cmp.Or(first, err)
		}
	}
	entries, err := s.index()
	if err != nil && backend.CodeOf(err) != backend.CodeUnsupported {
		first = cmp.Or(first, err)
	}
	for _, e := range entries {
		if !within(credref.Subject(e.Subject)) {
			continue
		}
		b, err := s.resolver.Backend(e.Provider)
		if err != nil {
			continue // it is not configured any more, and its store cannot be told
		}
		kept, ok := grants.As(b)
		if !ok {
			continue
		}
		ref, known := refOfLogin(s.resolver.For(credref.Subject(e.Subject)), e)
		if !known {
			ref = credref.Ref{Provider: e.Provider, ID: e.ID}
		}
		_, err = s.endLogin(ctx, kept, ref, backend.Request{ID: e.ID, Subject: e.Subject})
		if errors.Is(err, backend.ErrNotFound) {
			continue
		}
		first = cmp.Or(first, err)
		rec := audit.Record{Time: time.Now(), Event: audit.EventLogout, Session: session, Ref: &ref, Outcome: backend.CodeOf(err), Reason: "its scope ended"}
		if failed := s.audit.Write([]audit.Record{rec}); failed != nil {
			s.log.Error("a line of the audit log is lost", "event", audit.EventLogout, "reason", failed.Error())
		}
	}
	return first
}
