package resolver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// lender is a store that gives each caller a lease of its own, and knows which of them hold.
type lender struct {
	flaky
	slow   time.Duration // of what it does
	length time.Duration

	mu   sync.Mutex
	n    int
	live []string // leases that hold
	fail error    // of revocations
}

func newLender() *lender {
	l := &lender{length: time.Hour}
	l.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
		l.mu.Lock()
		l.n++
		id := fmt.Sprint(req.ID, "/", l.n)
		l.live = append(l.live, id)
		l.mu.Unlock()
		c := plain("c4nary " + id)
		c.Lease = &backend.Lease{ID: id, Duration: l.length}
		return c, pause(ctx, l.slow)
	}
	return l
}

func (l *lender) Revoke(ctx context.Context, _ backend.Request, c *backend.Credential) error {
	if err := pause(ctx, l.slow); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return l.fail
	}
	l.live = slices.DeleteFunc(l.live, func(id string) bool { return id == c.Lease.ID })
	return nil
}

func (l *lender) failWith(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

func (l *lender) wantLive(t testing.TB, want ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.live, want) {
		t.Errorf("the store still has %q, want %q", l.live, want)
	}
}

var errDown = backend.Errorf(backend.CodeUnavailable, "as told")

// Whatever was taken from its holders and could not be ended at the store is ended by a later try, each lease of a key too.
func TestRevokeIsRepeatable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLender()
		r := open(t, Provider{Backend: l})
		get := func(w string) { t.Helper(); v, err := r.Resolve(t.Context(), ref("k")); want(t, v, err, "c4nary "+w) }
		get("k/1")
		l.failWith(errDown)
		wantCode(t, r.Revoke(t.Context(), ref("k")), backend.CodeUnavailable)
		wantCode(t, r.Revoke(t.Context(), ref("k")), backend.CodeUnavailable)
		get("k/2") // the first is given to nobody
		wantCode(t, r.Revoke(t.Context(), ref("k")), backend.CodeUnavailable)
		get("k/3")
		l.wantLive(t, "k/1", "k/2", "k/3")
		l.failWith(nil)
		if err := r.Revoke(t.Context(), ref("k")); err != nil {
			t.Error(err)
		}
		l.wantLive(t)
		wantCode(t, r.Revoke(t.Context(), ref("k")), backend.CodeNotFound)
	})
}

// What is over at its store is not owed any more, and what is owed has a bound.
func TestWhatIsOwedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLender()
		l.failWith(errDown)
		r := open(t, Provider{Backend: l})
		fail := func(n int) {
			for i := range n {
				k := ref(fmt.Sprint("k", i))
				r.Resolve(t.Context(), k)
				wantCode(t, r.Revoke(t.Context(), k), backend.CodeUnavailable)
			}
		}
		owed := func() (n int) {
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, list := range r.owed {
				n += len(list)
			}
			return n
		}
		fail(maxOwed + 10)
		if n := owed(); n != maxOwed {
			t.Errorf("%d are kept, want %d", n, maxOwed)
		}
		time.Sleep(2 * time.Hour)
		fail(3)
		if n := owed(); n != 3 {
			t.Errorf("%d are kept, want 3", n)
		}
		if err := r.Apply(Config{Providers: map[string]Provider{"p": {Backend: newLender()}}}); err != nil {
			t.Fatal(err)
		}
		if n := owed(); n != 0 {
			t.Errorf("%d of a store that is gone are kept", n)
		}
	})
}

func TestRevokeLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLender()
		l.slow = time.Second
		static := newScript("c4nary")
		r := openAll(t, map[string]Provider{"p": {Backend: l, Concurrency: 10, Timeout: 5 * time.Second}, "s": {Backend: static}})
		r.ResolveAll(t.Context(), append(refs(100), credref.Ref{Provider: "s", ID: "x"}))
		h := r.Handle(ref("k7"))
		defer h.Close()
		if _, err := h.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.failWith(errDown)
		n, err := r.RevokeLeases(t.Context())
		if wantCode(t, err, backend.CodeUnavailable); n != 0 {
			t.Errorf("%d revoked", n)
		}
		l.failWith(nil)
		start := time.Now()
		n, err = r.RevokeLeases(t.Context())                                                                     // longer than the timeout of one call
		if took := time.Since(start); err != nil || n != 100 || took < 10*time.Second || took > 12*time.Second { // one may be tried again just then
			t.Errorf("%d revoked in %v, %v", n, took, err)
		}
		l.wantLive(t)
		if e := r.Stats().Entries; e != 1 {
			t.Errorf("%d entries, want that without a lease", e)
		}
		if n, err = r.RevokeLeases(t.Context()); n != 0 || err != nil {
			t.Errorf("%d revoked again, %v", n, err)
		}
		v, err := h.Get(t.Context())
		want(t, v, err, "c4nary k7/101")

		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		n, err = r.RevokeLeases(ctx)
		if wantCode(t, err, backend.CodeTimeout); n != 0 {
			t.Errorf("%d revoked", n)
		}
		l.wantLive(t, "k7/101")
		if err := r.Revoke(t.Context(), ref("k7")); err != nil { // it was not forgotten
			t.Error(err)
		}
		l.wantLive(t)
		r.Close()
		_, err = r.RevokeLeases(t.Context())
		wantCode(t, err, backend.CodeUnavailable)
	})
}

func TestEndSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLender()
		static := &flaky{get: func(_ context.Context, req backend.Request) (*backend.Credential, error) {
			if req.ID == "none" {
				return nil, backend.Errorf(backend.CodeNotFound, "no")
			}
			return plain("c4nary " + req.Subject.Session), nil
		}}
		scope := []Scope{ScopeSession, ScopeTenant}
		r := openAll(t, map[string]Provider{"p": {Backend: l, Scope: scope}, "s": {Backend: static, Scope: scope}})
		a, b := credref.Subject{Tenant: "t", Session: "a"}, credref.Subject{Tenant: "t", Session: "b"}
		tenant := credref.Subject{Tenant: "t"}
		st := credref.Ref{Provider: "s", ID: "x"}
		for _, s := range []credref.Subject{a, b, tenant} {
			for _, k := range []credref.Ref{ref("k"), st, {Provider: "s", ID: "none"}} {
				r.For(s).Resolve(t.Context(), k)
			}
		}
		l.wantLive(t, "k/1", "k/2", "k/3")
		events := r.For(a).Watch(t.Context(), ref("k"), st)
		<-events
		<-events
		if err := r.EndSession(t.Context(), ""); err != nil {
			t.Error(err)
		}
		l.failWith(errDown)
		wantCode(t, r.EndSession(t.Context(), "a"), backend.CodeUnavailable)
		kinds := []EventKind{(<-events).Kind, (<-events).Kind}
		if kinds[0] != EventRevoked || kinds[1] != EventRevoked {
			t.Errorf("events %v", kinds)
		}
		l.failWith(nil)
		if err := r.EndSession(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		l.wantLive(t, "k/2", "k/3")
		for _, s := range []credref.Subject{b, tenant} {
			out := r.For(s).ResolveAll(t.Context(), []credref.Ref{ref("k"), st})
			if out[0].Waited || out[1].Waited || out[0].Err != nil || out[1].Err != nil {
				t.Errorf("another's was ended: %+v", out)
			}
		}
		if err := r.EndSession(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	})
}

// What is being fetched for a session that ends is given to nobody, and its lease does not outlive it.
func TestEndSessionWhileFetching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLender()
		l.slow = time.Second
		r := openAll(t, map[string]Provider{"p": {Backend: l, Scope: []Scope{ScopeSession}}})
		view := r.For(credref.Subject{Session: "a"})
		done := make(chan error)
		go func() { _, err := view.Resolve(context.Background(), ref("k")); done <- err }()
		synctest.Wait()
		if err := r.EndSession(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		wantCode(t, <-done, backend.CodeDenied)
		time.Sleep(5 * time.Second)
		l.wantLive(t)
		if e := r.Stats().Entries; e != 0 {
			t.Errorf("%d entries", e)
		}
	})
}

func TestRevokeAfterClose(t *testing.T) {
	t.Parallel()
	r := open(t, Provider{Backend: newLender()})
	r.Resolve(t.Context(), ref("k"))
	r.Close()
	if err := r.Revoke(t.Context(), ref("k")); !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// What the store did not end is tried again by itself, and told, until it is done.
func TestOwedIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLender()
		l.length = 24 * time.Hour
		r := open(t, Provider{Backend: l})
		v, err := r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "c4nary k/1")
		events := r.Watch(t.Context(), ref("k"))
		wantTold(t, "before", events, "k resolved")
		l.failWith(errDown)
		wantCode(t, r.Revoke(t.Context(), ref("k")), backend.CodeUnavailable)
		synctest.Wait()
		ev := <-events
		for ev.Kind != EventRevokeFailed { // the one before may have been taken
			ev = <-events
		}
		if ev.State != StateRevoked || backend.CodeOf(ev.Err) != backend.CodeUnavailable {
			t.Errorf("told %+v", ev)
		}
		time.Sleep(time.Hour)
		wantTold(t, "still", events, "k revoke_failed unavailable")
		l.wantLive(t, "k/1")
		l.failWith(nil)
		time.Sleep(mostOwed * 2)
		l.wantLive(t)
		wantTold(t, "at last", events, "k revoked")
		wantCode(t, r.Revoke(t.Context(), ref("k")), backend.CodeNotFound)

		// It is said of what was, not of what is served meanwhile.
		v, err = r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "c4nary k/2")
		l.failWith(errDown)
		wantCode(t, r.Revoke(t.Context(), ref("k")), backend.CodeUnavailable)
		v, err = r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "c4nary k/3")
		time.Sleep(time.Minute)
		l.failWith(nil)
		time.Sleep(time.Hour)
		l.wantLive(t, "k/3")
		v, err = r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "c4nary k/3")
	})
}

// A program that ends waits for what its stores still have to end, as long as it wants to.
func TestFinishRevocations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLender()
		r := open(t, Provider{Backend: l})
		if n := r.FinishRevocations(t.Context()); n != 0 {
			t.Errorf("%d left of nothing", n)
		}
		l.failWith(errDown)
		for _, k := range refs(20) {
			r.Resolve(t.Context(), k)
			wantCode(t, r.Revoke(t.Context(), k), backend.CodeUnavailable)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		if n := r.FinishRevocations(ctx); n != 20 || time.Since(began) != 10*time.Second {
			t.Errorf("%d left after %v", n, time.Since(began))
		}
		time.AfterFunc(3*time.Second, func() { l.failWith(nil) })
		if n := r.FinishRevocations(t.Context()); n != 0 {
			t.Errorf("%d left", n)
		}
		l.wantLive(t)

		// One that is under way is waited for too.
		r.Resolve(t.Context(), ref("k"))
		l.slow = 3 * time.Second
		go r.Revoke(context.Background(), ref("k"))
		synctest.Wait()
		if n := r.FinishRevocations(t.Context()); n != 0 {
			t.Errorf("%d left", n)
		}
		l.wantLive(t)
	})
}

// A store that takes no notice of the end of a context holds nobody up.
func TestRevocationsAtADeafStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deaf := make(chan struct{})
		r := open(t, Provider{Backend: &revoker{
			get: func(context.Context, backend.Request) (*backend.Credential, error) {
				c := plain("c4nary")
				c.Lease = &backend.Lease{ID: "l", Duration: time.Hour}
				return c, nil
			},
			revoke: func(*backend.Credential) error { <-deaf; return nil },
		}})
		defer close(deaf)
		r.Resolve(t.Context(), ref("k"))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		if n, err := r.RevokeLeases(ctx); n != 0 || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 6*time.Second {
			t.Errorf("%d ended, %v, after %v", n, err, time.Since(began))
		}
		if n := r.FinishRevocations(ctx); n != 1 || time.Since(began) > 7*time.Second {
			t.Errorf("%d left after %v", n, time.Since(began))
		}
	})
}

// What is being read while it is revoked is neither kept nor given: who waits gets what is read after.
func TestRevokeWhileFetching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLender()
		l.slow = time.Second
		r := open(t, Provider{Backend: l})
		var waiting sync.WaitGroup
		for _, get := range []func() (*Value, error){
			func() (*Value, error) { return r.Resolve(context.Background(), ref("k")) },
			func() (*Value, error) {
				out := r.ResolveAll(context.Background(), []credref.Ref{ref("k")})[0]
				return out.Value, out.Err
			},
			func() (*Value, error) { h := r.Handle(ref("k")); defer h.Close(); return h.Get(context.Background()) },
		} {
			waiting.Go(func() { v, err := get(); want(t, v, err, "c4nary k/2") })
		}
		time.Sleep(time.Millisecond) // it is under way
		wantCode(t, r.Revoke(t.Context(), ref("k")), backend.CodeNotFound)
		waiting.Wait()
		time.Sleep(2 * time.Second)
		l.wantLive(t, "k/2")
		v, err := r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "c4nary k/2")
	})
}

// A lease that is being read while what was there before is revoked is given to nobody, and ended too.
func TestRevokeWhileALeaseIsFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		ended := map[string]bool{}
		r := open(t, Provider{TTL: time.Hour, Backend: &revoker{
			get: func(context.Context, backend.Request) (*backend.Credential, error) {
				n++
				c := plain(fmt.Sprint("c4nary-", n))
				if n > 1 {
					time.Sleep(10 * time.Second)
					c.Lease = &backend.Lease{ID: string(c.Secret.Reveal()), Duration: time.Hour}
				}
				return c, nil
			},
			revoke: func(c *backend.Credential) error {
				time.Sleep(5 * time.Second)
				ended[string(c.Secret.Reveal())] = true
				return nil
			},
		}})
		v, err := r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "c4nary-1")
		revoked := make(chan error)
		go func() { revoked <- r.Revoke(context.Background(), ref("k")) }()
		time.Sleep(time.Second) // the store is at it
		v, err = r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "c4nary-3")
		if err := <-revoked; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if !ended["c4nary-1"] || !ended["c4nary-2"] || ended["c4nary-3"] {
			t.Errorf("ended: %v", ended)
		}
	})
}

// keeper keeps credentials, as of logins, each as long as it is not revoked.
type keeper struct {
	flaky
	mu   sync.Mutex
	kept map[string]string // by session and id
	fail error
}

func newKeeper(kept ...string) *keeper {
	s := &keeper{kept: map[string]string{}}
	for _, at := range kept {
		s.kept[at] = "c4nary " + at
	}
	s.get = s.GetKept
	return s
}

func (s *keeper) GetKept(_ context.Context, req backend.Request) (*backend.Credential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text, ok := s.kept[req.Subject.Session+"/"+req.ID]; ok {
		return plain(text), nil
	}
	return nil, backend.Errorf(backend.CodeNotFound, "nobody has logged in")
}

func (s *keeper) Revoke(_ context.Context, req backend.Request, c *backend.Credential) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := req.Subject.Session + "/" + req.ID; s.fail == nil && s.kept[at] == string(c.Secret.Reveal()) {
		delete(s.kept, at)
	}
	return s.fail
}

// What a provider keeps is revoked also where nobody has asked this process for it, the narrowest first.
func TestRevokeWhatIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newKeeper("/k", "a/k", "/other")
		r := openAll(t, map[string]Provider{"p": {Backend: s, Scope: []Scope{ScopeSession}}})
		v, err := r.For(credref.Subject{}).Resolve(t.Context(), ref("k"))
		want(t, v, err, "c4nary /k")
		a := r.For(credref.Subject{Session: "a"})
		events := a.Watch(t.Context(), ref("k"))
		if ev := <-events; ev.Kind == EventRevoked {
			t.Errorf("told %+v", ev)
		}
		failWith := func(err error) { s.mu.Lock(); defer s.mu.Unlock(); s.fail = err }
		failWith(errDown)
		wantCode(t, a.Revoke(t.Context(), ref("k")), backend.CodeUnavailable)
		failWith(nil)
		time.Sleep(time.Minute) // it is tried again
		synctest.Wait()
		if _, ok := s.kept["a/k"]; ok || len(s.kept) != 2 {
			t.Errorf("kept: %v", s.kept)
		}
		v, err = a.Resolve(t.Context(), ref("k"))
		want(t, v, err, "c4nary /k") // the wider one, which nobody revoked
		if err := a.Revoke(t.Context(), ref("k")); err != nil {
			t.Error(err)
		}
		if err := r.Revoke(t.Context(), ref("other")); err != nil {
			t.Error(err)
		}
		wantCode(t, r.Revoke(t.Context(), ref("other")), backend.CodeNotFound)
		if len(s.kept) != 0 {
			t.Errorf("kept: %v", s.kept)
		}
	})
}

// What is kept is revoked though an older one, whose store has not ended it yet, is owed.
func TestRevokeWhatIsKeptBesideWhatIsOwed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newKeeper("/k")
		r := open(t, Provider{Backend: s})
		set := func(text string, err error) { s.mu.Lock(); defer s.mu.Unlock(); s.kept["/k"], s.fail = text, err }
		set("c4nary old", errDown)
		wantCode(t, r.Revoke(t.Context(), ref("k")), backend.CodeUnavailable)
		set("c4nary new", nil) // somebody logged in again
		if err := r.Revoke(t.Context(), ref("k")); err != nil || len(s.kept) != 0 {
			t.Errorf("kept: %v, %v", s.kept, err)
		}
		time.Sleep(time.Hour)
		wantCode(t, r.Revoke(t.Context(), ref("k")), backend.CodeNotFound)
	})
}

// What another process remembered is ended at its store too.
func TestRevokeWhatWasRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended []string
		store := &revoker{get: newScript("new").Get, revoke: func(c *backend.Credential) error {
			ended = append(ended, string(c.Secret.Reveal()))
			return nil
		}}
		r := open(t, Provider{Backend: store, Digest: "d"})
		if n := r.Restore([]Remembered{{Digest: "d", Ref: ref("k"), Credential: plain("c4nary"), Fetched: time.Now().Add(-time.Minute)}}, time.Hour); n != 1 {
			t.Fatalf("%d restored", n)
		}
		if err := r.Revoke(t.Context(), ref("k")); err != nil || !slices.Equal(ended, []string{"c4nary"}) {
			t.Errorf("ended %q, %v", ended, err)
		}
		if n := len(r.Snapshot()); n != 0 {
			t.Errorf("%d remembered", n)
		}
	})
}
