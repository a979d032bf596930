package grants

import (
	"context"
	"errors"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
)

var (
	_ backend.Login            = (*Backend)(nil)
	_ backend.LoginBeginner    = (*Backend)(nil)
	_ backend.Rejecter         = (*Backend)(nil)
	_ backend.KeptGetter       = (*Backend)(nil)
	_ backend.Prober           = (*Backend)(nil)
	_ backend.CredentialProber = (*Backend)(nil)
	_ backend.Describer        = (*Backend)(nil)
	_ io.Closer                = (*Backend)(nil)
)

// Warning is the name in Credential.Metadata of what is wrong with a credential that is good all the same: the code of why its
// refresh failed, "refreshing" while another process is at it, or "rejected" when it was refused where it was used and has no
// successor.
const Warning = "login_warning"

// LoggedIn is the name in Credential.Metadata of when somebody logged in (RFC 3339), by which a login is told from the one before.
const LoggedIn = "logged_in"

// Backend is a provider where a person logs in, with what the logins gave. It is safe for concurrent use.
type Backend struct {
	s        *Store
	provider string
	inner    backend.Backend
	binding  string

	life   context.Context // of what waits: ends at Close
	stop   context.CancelFunc
	ending context.Context // of exchanges: ends a while later
	end    context.CancelFunc
	work   sync.WaitGroup // added to with s.mu held, while it is not closed
	closed bool           // guarded by s.mu

	mu     sync.Mutex
	logins map[string]*login  // by state
	demand map[string]*demand // by id in the token store
}

// Keep gives the backend that keeps what logins at b, the provider of that name, give. Closing it closes b; the Store is closed
// with the last one.
func (s *Store) Keep(provider string, b backend.Backend) *Backend {
	out := &Backend{s: s, provider: provider, inner: b, logins: map[string]*login{}, demand: map[string]*demand{}}
	out.life, out.stop = context.WithCancel(context.Background())
	out.ending, out.end = context.WithCancel(context.Background())
	s.enter()
	return out
}

// As gives b as a Backend of this package.
func As(b backend.Backend) (*Backend, bool) {
	out, ok := b.(*Backend)
	return out, ok
}

// Bind says with what server logins are made, in words for equality: what a login at another one gave is not sent there. It is
// called before the Backend is used. Not called: all are the same.
func (b *Backend) Bind(to string) { b.binding = to }

func (b *Backend) bound(r *record) bool {
	return b.binding == "" || r.Binding == "" || b.binding == r.Binding
}

func (b *Backend) otherServer(k key) *backend.Error {
	return k.loginNeeded("the login of " + k.String() + " was made at another server, or by another client, than the provider has now")
}

func (b *Backend) refreshes(r *record) bool {
	_, ok := b.inner.(backend.Refresher)
	return ok && !r.refresh.IsZero()
}

func (b *Backend) key(req backend.Request) (key, error) {
	if req.Version != "" {
		return key{}, errVersion
	}
	if req.ID == "" {
		return key{}, backend.Errorf(backend.CodeInvalidID, "the id of a login is empty")
	}
	return key{b.provider, backend.Request{ID: req.ID, Subject: req.Subject}}, nil
}

// Describe implements backend.Describer.
func (b *Backend) Describe() backend.Description {
	d := backend.Describe(b.inner)
	d.Login, d.Versions, d.MaxBatch = true, false, 0
	return d
}

const patience = 10 * time.Second // with a refresh, while the credential that is kept is good

// Get implements backend.Backend: it gives the credential that is kept, and its successor when that is due. When a refresh
// fails, a credential that is still good is given with a Warning. RefreshAfter is when the next refresh is due.
func (b *Backend) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	k, err := b.key(req)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := b.s.load(ctx, k)
	if errors.Is(err, backend.ErrNotFound) {
		b.s.forget(k)
		return nil, b.begin(ctx, k, k.noLogin())
	}
	if err != nil {
		return nil, err
	}
	b.s.list(ctx, r)
	now := time.Now()
	id := k.id(b.s.c.Prefix)
	refused := b.s.isRefused(id, r)
	good := r.usable(now) && !refused
	switch {
	case !b.bound(r):
		return nil, b.begin(ctx, k, b.otherServer(k))
	case r.State == stateAuthRequired && good:
		return r.hand(string(backend.CodeAuthRequired), time.Time{}), nil
	case r.State == stateAuthRequired:
		return nil, b.begin(ctx, k, k.loginNeeded(r.Reason))
	case good && !r.isDue(now):
		return r.hand("", r.due()), nil
	case !b.refreshes(r) && r.usable(now):
		if refused {
			return r.hand("rejected", time.Time{}), nil
		}
		return r.hand("", time.Time{}), nil
	case !b.refreshes(r):
		return nil, b.begin(ctx, k, k.loginNeeded("the login of "+k.String()+" ended at "+at(r.Expires)+", and nothing was given to refresh it with"))
	case r.State == stateActive && r.paused(now, good):
		if good {
			return r.hand(string(r.Failure), r.next(true)), nil
		}
		return nil, r.failure(now, false)
	}
	wait, cancel := ctx, context.CancelFunc(func() {})
	if good {
		wait, cancel = context.WithTimeout(ctx, patience)
	}
	defer cancel()
	fresh, err := b.refresh(wait, k, false)
	now = time.Now()
	switch {
	case err == nil && !fresh.usable(now):
		e := backend.Errorf(backend.CodeUnavailable, "the server gave a token for %s whose life is over", k)
		e.Remedy, e.RetryAfter = "compare the clocks of this host and of the server", max(fresh.due().Sub(now), 0)
		return nil, e
	case err == nil:
		return fresh.hand("", fresh.due()), nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case good && r.usable(now):
		if wait.Err() != nil {
			return r.hand("refreshing", now.Add(patience)), nil
		}
		next := now.Add(dueAgain)
		if fresh != nil && fresh.Failures > 0 {
			next = fresh.next(true)
		}
		return r.hand(string(backend.CodeOf(err)), next), nil
	case errors.Is(err, backend.ErrNotFound):
		return nil, b.begin(ctx, k, k.noLogin())
	case errors.Is(err, backend.ErrAuthRequired):
		return nil, b.begin(ctx, k, k.loginNeeded(reasonOf(err)))
	}
	return nil, err
}

// hand gives the credential of r.
func (r *record) hand(warning string, next time.Time) *backend.Credential {
	c := *r.cred
	c.RefreshAfter = next
	c.Metadata = map[string]string{LoggedIn: r.LoggedIn.UTC().Format(time.RFC3339Nano)}
	maps.Copy(c.Metadata, r.cred.Metadata)
	if warning != "" {
		c.Metadata[Warning] = warning
	}
	return &c
}

// gave reports whether c, which hand gave, is of the same login as r: r itself, or a refresh away.
func (r *record) gave(c *backend.Credential) bool {
	return same(r.cred, c) || c.Metadata[LoggedIn] == r.hand("", time.Time{}).Metadata[LoggedIn]
}

// BeginLogin implements backend.LoginBeginner.
func (b *Backend) BeginLogin(ctx context.Context, req backend.Request) error {
	k, err := b.key(req)
	if err != nil {
		return err
	}
	return b.begin(ctx, k, k.noLogin())
}

// Refresh makes a successor of what is kept for req now, whether it is due or not. ErrUnsupported when only a login gives one.
func (b *Backend) Refresh(ctx context.Context, req backend.Request) error {
	k, err := b.key(req)
	if err != nil {
		return err
	}
	_, err = b.refresh(ctx, k, true)
	if errors.Is(err, backend.ErrNotFound) {
		return k.noLogin()
	}
	return err
}

// Reject implements backend.Rejecter. Where the credential has no successor, its server is asked whether it is in force, and if
// it is not, somebody has to log in.
func (b *Backend) Reject(ctx context.Context, req backend.Request, have *backend.Credential) error {
	k, err := b.key(req)
	if err != nil {
		return err
	}
	r, err := b.s.load(ctx, k)
	switch {
	case errors.Is(err, backend.ErrNotFound):
		return nil
	case err != nil:
		return err
	case r.State == stateAuthRequired && r.Ended, !same(r.cred, have): // a newer one is given already
		return nil
	}
	id := k.id(b.s.c.Prefix)
	b.s.refuse(id, r)
	if b.refreshes(r) && r.State != stateAuthRequired {
		return nil
	}
	switch backend.CodeOf(backend.ProbeCredential(ctx, b.inner, k.req, r.cred)) {
	case backend.CodeDenied, backend.CodeExpired, backend.CodeAuthRequired:
		return b.mark(ctx, k, r.Generation, func(r *record) {
			r.State, r.Attempt, r.Ended = stateAuthRequired, nil, true
			r.Reason = "the credential of " + k.String() + " was refused where it was used, and by its server"
		})
	}
	return nil
}

func (s *Store) refuse(id string, r *record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[id] = r.Generation
}

// same reports whether a and b are one credential to who is shown them.
func same(a, b *backend.Credential) bool {
	if b == nil {
		return false
	}
	if !a.Secret.IsZero() || !b.Secret.IsZero() {
		return a.Secret.Equal(b.Secret)
	}
	return maps.EqualFunc(a.Fields, b.Fields, backend.Secret.Equal)
}

// mark changes what is kept of k, if it still is of that generation.
func (b *Backend) mark(ctx context.Context, k key, generation string, change func(*record)) error {
	unlock, err := b.s.lock(ctx, k.id(b.s.c.Prefix))
	if err != nil {
		return err
	}
	defer unlock()
	for range maxRaces {
		r, err := b.s.load(ctx, k)
		if errors.Is(err, backend.ErrNotFound) {
			return nil
		}
		if err != nil || r.Generation != generation {
			return err
		}
		change(r)
		if err = b.s.save(ctx, r); !errors.Is(err, backend.ErrConflict) {
			if err == nil {
				b.s.changed(k)
			}
			return err
		}
	}
	return errBusy
}

// GetKept implements backend.KeptGetter: it gives the credential that is kept, whether it is over or not, and refreshes nothing.
func (b *Backend) GetKept(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	k, err := b.key(req)
	if err != nil {
		return nil, err
	}
	r, err := b.s.load(ctx, k)
	if err != nil {
		return nil, err
	}
	return r.hand("", time.Time{}), nil
}

// Revoke implements backend.Revoker: the login that c is of is ended, here at once and then at its server, so that no successor is
// made of it. What its server could not be told stays, gives nothing, and is what another Revoke, or Logout, ends. Where that
// login is not kept any more, c alone is ended. ErrUnsupported where the server cannot be told: it is ended here alone.
func (b *Backend) Revoke(ctx context.Context, req backend.Request, c *backend.Credential) error {
	k, err := b.key(req)
	if err != nil {
		return err
	}
	kept, err := b.disable(ctx, k, c)
	if err != nil {
		return err
	}
	if !kept {
		return backend.Revoke(ctx, b.inner, k.req, c)
	}
	told, err := b.endLogin(ctx, k, c)
	switch {
	case errors.Is(err, backend.ErrNotFound): // by another
		return nil
	case err == nil && !told:
		return &backend.Error{Code: backend.CodeUnsupported, Reason: "the login of " + k.String() + " is ended here, but its server cannot be told", Remedy: "end it there too"}
	}
	return err
}

// disable has nothing be made of the login that c is of, and reports whether that is kept. It does not wait for the lock: a refresh
// that is under way finds it, and keeps nothing.
func (b *Backend) disable(ctx context.Context, k key, c *backend.Credential) (kept bool, err error) {
	for range maxRaces {
		r, err := b.s.load(ctx, k)
		switch {
		case errors.Is(err, backend.ErrNotFound):
			return false, nil
		case err != nil:
			return false, err
		case !r.gave(c), !r.Revoked.IsZero():
			return r.gave(c), nil
		}
		r.State, r.Attempt, r.Ended, r.Revoked = stateAuthRequired, nil, true, time.Now().Round(0)
		r.Reason = "the login of " + k.String() + " was revoked at " + at(r.Revoked) + ", which its server is yet to be told"
		if err = b.s.save(ctx, r); err == nil {
			b.s.changed(k)
			return true, nil
		} else if !errors.Is(err, backend.ErrConflict) {
			return false, err
		}
	}
	return false, errBusy
}

// Logout ends what is kept for req, at the server where that can be told, and deletes it here. It reports whether the server was
// told. An error after the deletion says so. ErrNotFound when nobody has logged in.
func (b *Backend) Logout(ctx context.Context, req backend.Request) (revoked bool, err error) {
	k, err := b.key(req)
	if err != nil {
		return false, err
	}
	b.cancelDemand(ctx, k.id(b.s.c.Prefix))
	return b.endLogin(ctx, k, nil)
}

// endLogin is Logout of k; with c, of the login that c is of alone, which is deleted only when the server was told or cannot be.
func (b *Backend) endLogin(ctx context.Context, k key, c *backend.Credential) (revoked bool, err error) {
	id := k.id(b.s.c.Prefix)
	if lost := b.s.giveUp(id); lost != nil {
		b.drop(ctx, lost)
	}
	unlock, err := b.s.lock(ctx, id)
	if err != nil {
		return false, err
	}
	defer unlock()
	for range maxRaces {
		text, version, err := b.s.read(ctx, k)
		if errors.Is(err, backend.ErrNotFound) {
			b.s.forget(k)
			return false, backend.Errorf(backend.CodeNotFound, "nobody has logged in as %s", k)
		}
		if err != nil {
			return false, err
		}
		var r *record // nil: what is kept is damaged, and is deleted all the same
		_ = text.Use(func(text []byte) error { r, _ = decode(k, text); return nil })
		if c != nil && (r == nil || !r.gave(c)) {
			return false, errBusy // another login came in between
		}
		var told error
		if revoked = false; r != nil && b.bound(r) {
			revoked, told = b.revoke(ctx, r)
			if ctx.Err() != nil {
				return revoked, ctx.Err()
			}
			if told != nil && c != nil {
				return false, told
			}
		}
		err = b.s.remove(ctx, k, version)
		if errors.Is(err, backend.ErrConflict) {
			continue // another is kept now
		}
		if err != nil && !errors.Is(err, backend.ErrNotFound) {
			return revoked, err
		}
		b.s.forget(k)
		b.s.changed(k)
		if told != nil {
			return false, &backend.Error{Code: backend.CodeOf(told), Remedy: "end it there too",
				Reason: "the login of " + k.String() + " is deleted here, but its server was not told: " + reasonOf(told)}
		}
		return revoked, nil
	}
	return false, errBusy
}

// revoke ends the grant of r at its server, and reports whether that was told. A server that cannot be told is no error.
func (b *Backend) revoke(ctx context.Context, r *record) (bool, error) {
	var err error
	if g, ok := b.inner.(backend.GrantRevoker); ok {
		err = g.RevokeGrant(ctx, r.key.req, r.grant())
	} else {
		err = backend.Revoke(ctx, b.inner, r.key.req, r.cred)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return false, nil
	}
	return err == nil, err
}

// Status tells how the login for req stands, by what the token store has. ErrNotFound when nobody has logged in.
func (b *Backend) Status(ctx context.Context, req backend.Request) (Entry, error) {
	k, err := b.key(req)
	if err != nil {
		return Entry{}, err
	}
	r, err := b.s.load(ctx, k)
	if errors.Is(err, backend.ErrNotFound) {
		b.s.forget(k)
		return Entry{}, backend.Errorf(backend.CodeNotFound, "nobody has logged in as %s", k)
	}
	if err != nil {
		return Entry{}, err
	}
	b.s.list(ctx, r)
	e := r.entry()
	if r.State == stateRefreshing {
		id := k.id(b.s.c.Prefix)
		if b.s.leased(id, r, time.Now()) == 0 && (b.s.c.StateDir == "" || b.s.free(lockName(id))) && !b.s.flying(id) {
			e.Status, e.Reason = StatusInterrupted, interruptedReason
		}
	}
	if !b.refreshes(r) {
		e.Refreshable, e.RefreshAfter = false, time.Time{}
	}
	return e.judged(time.Now()), nil
}

func (s *Store) flying(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flights[id] != nil
}

// Probe implements backend.Prober: the provider is reached, not the token store.
func (b *Backend) Probe(ctx context.Context) error { return backend.Probe(ctx, b.inner) }

// ProbeCredential implements backend.CredentialProber.
func (b *Backend) ProbeCredential(ctx context.Context, req backend.Request, have *backend.Credential) error {
	return backend.ProbeCredential(ctx, b.inner, req, have)
}

const closeTime = 10 * time.Second // for the exchanges under way at Close

// Close ends the logins that are under way, and waits a while for exchanges, whose tokens would be lost.
func (b *Backend) Close() error {
	b.s.mu.Lock()
	twice := b.closed
	b.closed = true
	b.s.mu.Unlock()
	if twice {
		return nil
	}
	b.stop()
	timer := time.AfterFunc(closeTime, b.end)
	b.work.Wait()
	timer.Stop()
	b.end()
	var errs []error
	errs = append(errs, b.s.leave())
	if c, ok := b.inner.(io.Closer); ok {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
