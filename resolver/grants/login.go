package grants

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/credresolve/credresolve/backend"
)

const (
	keptLogin = 10 * time.Minute // how long the outcome of a login can be asked for
	pollEvery = time.Second      // where the adapter does not say how often
	startTime = 10 * time.Second // for the start of a login that nobody asked for
	maxLogins = 256              // of one provider
)

// login is one login under way. What it gives is kept by whoever asks first how it stands: the caller, or our own goroutine.
type login struct {
	k         key
	cancelled atomic.Bool
	last      atomic.Pointer[backend.LoginState] // without Grant
	ended     atomic.Pointer[time.Time]          // nil: it goes on

	turn  *semaphore.Weighted // held by who asks how it stands
	grant *backend.Grant      // it gave this, which is not kept yet
}

// end ends l, with turn held.
func (l *login) end(s backend.LoginState) backend.LoginState {
	now := time.Now()
	s.Grant, l.grant = nil, nil
	l.last.Store(&s)
	l.ended.Store(&now)
	return s
}

func (l *login) over() bool { return l.ended.Load() != nil }

func (l *login) state() backend.LoginState { return *l.last.Load() }

// StartLogin implements backend.Login. Where the token store would not take what the login gives, it says so at once.
func (b *Backend) StartLogin(ctx context.Context, req backend.Request, o backend.LoginOptions) (backend.LoginState, error) {
	k, err := b.key(req)
	if err != nil {
		return backend.LoginState{}, err
	}
	if _, err := b.s.load(ctx, k); err != nil && !errors.Is(err, backend.ErrNotFound) {
		return backend.LoginState{}, err
	}
	l, err := b.start(ctx, k, o)
	if errors.Is(err, backend.ErrUnavailable) && b.cancelDemand(ctx, k.id(b.s.c.Prefix)) {
		l, err = b.start(ctx, k, o) // the one that a Get began may hold the port to which a browser comes back
	}
	if err != nil {
		return backend.LoginState{}, err
	}
	return l.state(), nil
}

func (b *Backend) start(ctx context.Context, k key, o backend.LoginOptions) (*login, error) {
	inner, err := backend.AsLogin(b.inner)
	if err != nil {
		return nil, err
	}
	if _, ok := b.inner.(backend.Refresher); ok {
		if err := b.s.guarded(); err != nil {
			return nil, err
		}
	}
	if err := b.sweep(); err != nil {
		return nil, err
	}
	s, err := inner.StartLogin(ctx, k.req, o)
	if err != nil {
		return nil, err
	}
	l := &login{k: k, turn: semaphore.NewWeighted(1)}
	l.turn.TryAcquire(1) // nobody else has it yet
	l.last.Store(&backend.LoginState{State: s.State, Status: backend.LoginPending})
	b.mu.Lock()
	b.logins[s.State] = l
	b.mu.Unlock()
	_, _ = b.settle(ctx, l, s) // one that has ended at once is seen by the next poll too
	l.turn.Release(1)
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if b.closed {
		return nil, errClosed
	}
	b.work.Add(1)
	go b.follow(l, s)
	return l, nil
}

// gone reports whether the login ended long ago.
func (l *login) gone() bool {
	at := l.ended.Load()
	return at != nil && time.Since(*at) > keptLogin
}

// sweep forgets the logins that ended long ago.
func (b *Backend) sweep() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for state, l := range b.logins {
		if l.gone() {
			delete(b.logins, state)
		}
	}
	for id, d := range b.demand {
		select {
		case <-d.ready:
			if d.l == nil || d.l.over() {
				delete(b.demand, id)
			}
		default:
		}
	}
	if len(b.logins) >= maxLogins {
		return backend.Errorf(backend.CodeThrottled, "too many logins are under way")
	}
	return nil
}

// follow asks how l stands until it has ended, so that what it gives is kept without anybody asking.
func (b *Backend) follow(l *login, s backend.LoginState) {
	defer b.work.Done()
	interval := pollEvery
	if s.Interval > 0 {
		interval = min(s.Interval, 5*pollEvery)
	}
	for t := time.NewTicker(interval); ; {
		select {
		case <-b.life.Done():
			t.Stop()
			if !l.over() {
				_, _ = b.poll(b.ending, l, s.State) // what came since the last time
			}
			return
		case <-t.C:
			_, err := b.poll(b.ending, l, s.State)
			if l.over() || errors.Is(err, backend.ErrNotFound) {
				t.Stop()
				return
			}
		}
	}
}

func (b *Backend) login(state string) (*login, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.logins[state]; l != nil && !l.gone() {
		return l, nil
	}
	return nil, errNoState
}

// PollLogin implements backend.Login. What the login gave is kept before it says LoginSuccess. An error of the token store
// leaves the login pending, and the next call tries again.
func (b *Backend) PollLogin(ctx context.Context, state string) (backend.LoginState, error) {
	l, err := b.login(state)
	if err != nil {
		return backend.LoginState{}, err
	}
	return b.poll(ctx, l, state)
}

// askState asks the adapter how a login stands.
func (b *Backend) askState(ctx context.Context, state string) (s backend.LoginState, err error) {
	defer calm(&err)
	return b.inner.(backend.Login).PollLogin(ctx, state)
}

func (b *Backend) poll(ctx context.Context, l *login, state string) (backend.LoginState, error) {
	if err := l.turn.Acquire(ctx, 1); err != nil {
		return l.state(), err
	}
	defer l.turn.Release(1)
	if l.over() {
		return l.state(), nil
	}
	if l.grant != nil {
		return b.settle(ctx, l, l.state())
	}
	s, err := b.askState(ctx, state)
	if err != nil {
		if errors.Is(err, backend.ErrNotFound) {
			return l.end(ended(l.state(), backend.LoginExpired, "")), nil
		}
		return l.state(), err
	}
	return b.settle(ctx, l, s)
}

// SubmitLogin implements backend.Login. What it is given goes to the provider of this Backend, for the id and subject with
// which the login began.
func (b *Backend) SubmitLogin(ctx context.Context, state string, input map[string]backend.Secret) (backend.LoginState, error) {
	l, err := b.login(state)
	if err != nil {
		return backend.LoginState{}, err
	}
	// Without l's turn: the login can be cancelled meanwhile.
	s, err := b.inner.(backend.Login).SubmitLogin(ctx, state, input)
	if err != nil {
		return backend.LoginState{}, err
	}
	_ = l.turn.Acquire(context.WithoutCancel(ctx), 1) // what s may have is given once
	defer l.turn.Release(1)
	if l.over() {
		return l.state(), nil
	}
	return b.settle(ctx, l, s)
}

// settle takes over s, how l stands by its adapter, and keeps what it gave. Called with l.turn held.
func (b *Backend) settle(ctx context.Context, l *login, s backend.LoginState) (backend.LoginState, error) {
	if s.Grant != nil && l.grant == nil {
		l.grant = s.Grant
	}
	s.Grant = nil
	switch s.Status {
	case backend.LoginPending:
		if l.grant == nil {
			l.last.Store(&s)
			return s, nil
		}
	case backend.LoginSuccess:
	default:
		return l.end(s), nil
	}
	switch {
	case l.cancelled.Load():
		if l.grant != nil {
			go b.drop(context.WithoutCancel(ctx), newRecord(l.k, b.binding, l.grant, time.Now()))
		}
		return l.end(ended(s, backend.LoginCancelled, "")), nil
	case l.grant == nil || l.grant.Credential == nil:
		return l.end(ended(s, backend.LoginError, "the login gave no credential")), nil
	}
	err := b.keepLogin(ctx, l.k, l.grant)
	if err == nil {
		return l.end(ended(s, backend.LoginSuccess, "")), nil
	}
	switch backend.CodeOf(err) {
	case backend.CodeUnsupported, backend.CodeInvalidID, backend.CodeInvalidConfig: // it will not be otherwise
		return l.end(ended(s, backend.LoginError, "what the login gave could not be kept: "+reasonOf(err))), nil
	}
	if !s.Expires.IsZero() && time.Since(s.Expires) > keptLogin {
		return l.end(ended(s, backend.LoginError, "what the login gave could not be kept: "+reasonOf(err))), nil
	}
	s.Status = backend.LoginPending // until it is kept
	l.last.Store(&s)
	var known *backend.Error
	if errors.As(err, &known) {
		e := *known
		e.Reason = "the login succeeded, but what it gave is not kept: " + reasonOf(known)
		err = &e
	}
	return s, err
}

func ended(s backend.LoginState, status backend.LoginStatus, message string) backend.LoginState {
	return backend.LoginState{State: s.State, Status: status, Message: message, Expires: s.Expires}
}

// keepLogin keeps what a login for k gave, in the place of what was kept.
func (b *Backend) keepLogin(ctx context.Context, k key, g *backend.Grant) error {
	id := k.id(b.s.c.Prefix)
	b.s.giveUp(id)
	unlock, err := b.s.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTime)
	defer cancel()
	r := newRecord(k, b.binding, g, time.Now())
	pause := 50 * time.Millisecond
	for tries := range maxRaces {
		now, err := b.s.load(ctx, k)
		switch {
		case errors.Is(err, backend.ErrNotFound):
			r.version = ""
		case err != nil:
			return err
		default:
			r.version = now.version
		}
		switch err = b.s.save(ctx, r); {
		case err == nil:
			b.s.changed(k)
			return nil
		case errors.Is(err, backend.ErrConflict):
		case !errors.Is(err, backend.ErrUnavailable) || tries >= saveTries:
			return err
		default:
			select {
			case <-time.After(pause):
				pause *= 4
			case <-ctx.Done():
				return err
			}
		}
	}
	return errBusy
}

// CancelLogin implements backend.Login. A login whose outcome is kept already has ended.
func (b *Backend) CancelLogin(ctx context.Context, state string) error {
	l, err := b.login(state)
	if err != nil {
		return err
	}
	l.cancelled.Store(true)
	if err := b.inner.(backend.Login).CancelLogin(ctx, state); err != nil && !errors.Is(err, backend.ErrNotFound) {
		return err
	}
	_, err = b.poll(ctx, l, state)
	if errors.Is(err, backend.ErrNotFound) {
		return nil
	}
	return err
}

// demand is a login that a Get began.
type demand struct {
	ready chan struct{}
	// Set when ready is closed.
	l   *login
	err error
}

// begin gives e, the error of a Get for which somebody has to log in, and begins a login where that is wanted. There is one for
// each grant at a time.
func (b *Backend) begin(ctx context.Context, k key, e *backend.Error) error {
	if !b.s.c.OnDemand || !backend.MayLogin(ctx) {
		return e
	}
	id := k.id(b.s.c.Prefix)
	b.mu.Lock()
	d := b.demand[id]
	if d != nil {
		select {
		case <-d.ready:
			if d.l == nil || d.l.over() {
				d = nil
			}
		default:
		}
	}
	first := d == nil
	if first {
		d = &demand{ready: make(chan struct{})}
		b.demand[id] = d
	}
	b.mu.Unlock()
	if first {
		d.l, d.err = b.startDemanded(ctx, k)
		close(d.ready)
	}
	select {
	case <-d.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	if d.err != nil {
		e.Reason += "; a login could not be begun: " + reasonOf(d.err)
		return e
	}
	if s := d.l.state(); s.Status == backend.LoginPending {
		e.Login = &s
		if s.UserCode != "" {
			e.Remedy = "open " + s.URL + " and enter " + s.UserCode
		} else if s.URL != "" {
			e.Remedy = "open " + s.URL
		}
	}
	return e
}

func (b *Backend) startDemanded(ctx context.Context, k key) (*login, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	l, err := b.start(ctx, k, backend.LoginOptions{Device: true})
	switch backend.CodeOf(err) {
	case backend.CodeUnsupported, backend.CodeInvalidConfig, backend.CodeUsage: // no device codes there
		return b.start(ctx, k, backend.LoginOptions{})
	}
	return l, err
}

// cancelDemand cancels the login that a Get began, and reports whether there was one.
func (b *Backend) cancelDemand(ctx context.Context, id string) bool {
	b.mu.Lock()
	d := b.demand[id]
	delete(b.demand, id)
	b.mu.Unlock()
	if d == nil {
		return false
	}
	select {
	case <-d.ready:
	case <-ctx.Done():
		return false
	}
	if d.l == nil || d.l.over() {
		return false
	}
	return b.CancelLogin(ctx, d.l.state().State) == nil
}
