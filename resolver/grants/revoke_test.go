package grants_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
	"github.com/credresolve/credresolve/resolver/grants"
)

var errAway = backend.Errorf(backend.CodeUnavailable, "issuer.example is away")

// wantEnded fails the test unless those refresh tokens, in that order, were revoked at the server.
func wantEnded(t testing.TB, i *issuer, tokens ...string) {
	t.Helper()
	if got := i.ended(); !slices.Equal(got, tokens) {
		t.Errorf("ended at the server: %q, want %q", got, tokens)
	}
}

// A revocation ends the login, also where what is revoked has a successor by now, and nothing is refreshed any more.
func TestRevokeEndsTheLogin(t *testing.T) {
	t.Parallel()
	for name, refreshed := range map[string]bool{"at once": false, "after a refresh of another process": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i, w := &issuer{ttl: time.Hour}, vessel(t)
			a, other := open(t, w, i, grants.Config{}), open(t, w, i, grants.Config{})
			enter(t, a, i, me)
			c, last := want(t, a, "access-c4nary-1"), "refresh-c4nary-1"
			if refreshed {
				if err := other.Refresh(t.Context(), me); err != nil {
					t.Fatal(err)
				}
				last = "refresh-c4nary-2"
			}
			if err := a.Revoke(t.Context(), me, c); err != nil {
				t.Fatal(err)
			}
			wantEnded(t, i, last)
			before := i.count()
			for _, b := range []*grants.Backend{a, other} {
				_, err := b.Get(t.Context(), me)
				fails(t, err, backend.ErrAuthRequired, "nobody has logged in", "credresolve login desk me")
				fails(t, b.Refresh(t.Context(), me), backend.ErrAuthRequired)
			}
			if i.count() != before {
				t.Error("it was refreshed")
			}
			if _, err := w.Get(t.Context(), record); !errors.Is(err, backend.ErrNotFound) {
				t.Errorf("the tokens are kept still: %v", err)
			}
		})
	}
}

// What the server could not be told gives nothing, in no process, and is told by another try; a new login is not what was revoked.
func TestRevokeWhileTheServerIsAway(t *testing.T) {
	t.Parallel()
	i, w := &issuer{ttl: time.Hour}, vessel(t)
	a, other := open(t, w, i, grants.Config{}), open(t, w, i, grants.Config{})
	enter(t, a, i, me)
	first := want(t, a, "access-c4nary-1")
	i.deafTo(errAway)
	for range 2 {
		fails(t, a.Revoke(t.Context(), me, first), backend.ErrUnavailable, "is away")
		for _, b := range []*grants.Backend{a, other} {
			_, err := b.Get(t.Context(), me)
			fails(t, err, backend.ErrAuthRequired, "was revoked at", "is yet to be told", "credresolve login desk me")
			fails(t, b.Refresh(t.Context(), me), backend.ErrAuthRequired, "was revoked at")
		}
	}
	if s, err := other.Status(t.Context(), me); err != nil || s.Status != grants.StatusAuthRequired {
		t.Errorf("%+v %v", s, err)
	}
	i.deafTo(nil)
	if err := other.Revoke(t.Context(), me, first); err != nil {
		t.Fatal(err)
	}
	wantEnded(t, i, "refresh-c4nary-1")

	enter(t, a, i, me)
	second := want(t, a, "access-c4nary-2")
	fails(t, a.Revoke(t.Context(), me, first), errors.ErrUnsupported) // alone, which this server cannot
	want(t, other, "access-c4nary-2")
	i.deafTo(errors.ErrUnsupported)
	fails(t, a.Revoke(t.Context(), me, second), errors.ErrUnsupported, "is ended here, but its server cannot be told")
	_, err := other.Get(t.Context(), me)
	fails(t, err, backend.ErrAuthRequired, "nobody has logged in")
	if i.count() != 0 {
		t.Errorf("%d exchanges", i.count())
	}
}

// A token store that is locked loses nothing: what cannot be marked is not told to the server either, and can be revoked later.
func TestRevokeWhileTheStoreIsLocked(t *testing.T) {
	t.Parallel()
	i := &issuer{ttl: time.Hour}
	w := &faulty{Writer: vessel(t)}
	b := open(t, w, i, grants.Config{})
	enter(t, b, i, me)
	c := want(t, b, "access-c4nary-1")
	for _, set := range []func(){
		func() { w.set(backend.ErrLocked, nil) },
		func() { w.set(nil, func(int) error { return backend.ErrLocked }) },
	} {
		set()
		fails(t, b.Revoke(t.Context(), me, c), backend.ErrLocked)
	}
	wantEnded(t, i)
	w.set(nil, nil)
	want(t, b, "access-c4nary-1")
	if err := b.Revoke(t.Context(), me, c); err != nil {
		t.Fatal(err)
	}
	wantEnded(t, i, "refresh-c4nary-1")
}

// A refresh that is under way does not bring back what is revoked meanwhile, and its token does not outlive it.
func TestRevokeDuringARefresh(t *testing.T) {
	t.Parallel()
	for name, weakly := range map[string]bool{"by compare-and-swap": false, "in a store that does not compare": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := &issuer{hold: make(chan struct{}), entered: make(chan struct{}, 1)}
			var w backend.Writer = vessel(t)
			if weakly {
				w = weak{w}
			}
			b, other := open(t, w, i, grants.Config{}), open(t, w, i, grants.Config{})
			enterNow(t, b, i)
			c := want(t, b, "access-c4nary-1")
			refreshed := make(chan error, 1)
			go func() { refreshed <- b.Refresh(context.Background(), me) }()
			<-i.entered
			if err := other.Revoke(t.Context(), me, c); err != nil { // in another state directory, as on another host
				t.Fatal(err)
			}
			close(i.hold)
			fails(t, <-refreshed, backend.ErrAuthRequired, "was ended while it was refreshed")
			wantEnded(t, i, "refresh-c4nary-1", "refresh-c4nary-2")
			for _, b := range []*grants.Backend{b, other} {
				_, err := b.Get(t.Context(), me)
				fails(t, err, backend.ErrAuthRequired, "nobody has logged in")
			}
		})
	}
}

// What a refresh gave and the token store did not take is ended with the rest.
func TestRevokeOfWhatIsNotWritten(t *testing.T) {
	t.Parallel()
	i, w := &issuer{ttl: time.Hour}, &faulty{Writer: vessel(t)}
	b := open(t, w, i, grants.Config{})
	enter(t, b, i, me)
	c := want(t, b, "access-c4nary-1")
	w.set(nil, func(n int) error {
		if n == 1 { // that an exchange begins
			return nil
		}
		return backend.ErrUnavailable
	})
	fails(t, b.Refresh(t.Context(), me), backend.ErrUnavailable, "was refreshed")
	w.set(nil, nil)
	if err := b.Revoke(t.Context(), me, c); err != nil {
		t.Fatal(err)
	}
	// In which order depends on who is first at the store: this, or the next try to write.
	got := i.ended()
	slices.Sort(got)
	if !slices.Equal(got, []string{"refresh-c4nary-1", "refresh-c4nary-2"}) && !slices.Equal(got, []string{"refresh-c4nary-2"}) {
		t.Errorf("ended at the server: %q", got)
	}
	_, err := b.Get(t.Context(), me)
	fails(t, err, backend.ErrAuthRequired, "nobody has logged in")
}

// Whoever revokes the ref of a login ends it, whether it was resolved here or not, and hears of it; what its server could not be told
// is told later.
func TestRevokeOfALoginsRef(t *testing.T) {
	t.Parallel()
	ref := credref.Ref{Provider: "desk", ID: "me"}
	for name, resolved := range map[string]bool{"resolved": true, "not resolved": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r *resolver.Resolver
				i := &issuer{ttl: time.Hour}
				b := inMemory(t, vessel(t), i, grants.Config{Changed: func(provider string, req backend.Request) {
					r.Wrote(credref.Ref{Provider: provider, ID: req.ID})
				}})
				enter := func() { t.Helper(); enter(t, b, i, me) }
				var err error
				if r, err = resolver.New(resolver.Config{Providers: map[string]resolver.Provider{"desk": {Backend: b}}}); err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				enter()
				if resolved {
					if v, err := r.Resolve(t.Context(), ref); err != nil || string(v.Secret().Reveal()) != "access-c4nary-1" {
						t.Fatal(v, err)
					}
				}
				events := r.Watch(t.Context(), ref)
				synctest.Wait()
				i.deafTo(errAway)
				fails(t, r.Revoke(t.Context(), ref), backend.ErrUnavailable, "is away")
				kinds := map[resolver.EventKind]bool{}
				for !kinds[resolver.EventRevokeFailed] {
					kinds[(<-events).Kind] = true
				}
				_, err = r.Resolve(t.Context(), ref)
				fails(t, err, backend.ErrAuthRequired, "was revoked at")
				time.Sleep(2 * time.Hour) // past the end of the access token
				i.deafTo(nil)
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				wantEnded(t, i, "refresh-c4nary-1")
				_, err = r.Resolve(t.Context(), ref)
				fails(t, err, backend.ErrAuthRequired, "nobody has logged in")
				fails(t, r.Revoke(t.Context(), ref), backend.ErrNotFound)
				enter()
				if v, err := r.Resolve(t.Context(), ref); err != nil || string(v.Secret().Reveal()) != "access-c4nary-2" {
					t.Error(v, err)
				}
				if i.count() != 0 {
					t.Errorf("%d exchanges", i.count())
				}
			})
		})
	}
}
