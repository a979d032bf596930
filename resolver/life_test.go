package resolver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// script is a store whose next answers a test sets: the value, or an error in its place.
type script struct {
	flaky
	value atomic.Pointer[string]
	fail  atomic.Pointer[backend.Error]
	quick atomic.Bool
}

func newScript(value string) *script {
	s := &script{}
	s.value.Store(&value)
	s.get = func(ctx context.Context, _ backend.Request) (*backend.Credential, error) {
		if e := s.fail.Load(); e != nil {
			return nil, e
		}
		c := plain(*s.value.Load()) // what was there when the call came
		if s.quick.Load() {
			return c, nil
		}
		return c, pause(ctx, 20*time.Millisecond)
	}
	return s
}

func (s *script) set(value string)           { s.value.Store(&value) }
func (s *script) failWith(code backend.Code) { s.fail.Store(backend.Errorf(code, "as told")) }
func (s *script) heal()                      { s.fail.Store(nil) }

func (s *script) wantCalls(t testing.TB, n int64) {
	t.Helper()
	if got := s.calls.Swap(0); got != n {
		t.Fatalf("%d calls to the store, want %d", got, n)
	}
}

func TestTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("one")
		r := open(t, Provider{Backend: s, TTL: time.Minute})
		get := func(w string) { t.Helper(); v, err := r.Resolve(t.Context(), ref("k")); want(t, v, err, w) }

		get("one")
		s.set("two")
		time.Sleep(30 * time.Second)
		get("one")
		s.wantCalls(t, 1)
		time.Sleep(15 * time.Second) // two thirds are over, and it was used since it was fetched
		synctest.Wait()
		s.wantCalls(t, 1)
		get("two")

		s.set("three")
		time.Sleep(10 * time.Minute) // the hit just now is worth one refresh; then it lapses
		s.wantCalls(t, 1)
		if n := r.Stats().Entries; n != 0 {
			t.Errorf("%d entries outlived their time", n)
		}
		s.set("four")
		get("four")
		s.wantCalls(t, 1)
	})
}

func TestNoTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("one")
		r := open(t, Provider{Backend: s, TTL: -1})
		for range 3 {
			v, err := r.Resolve(t.Context(), ref("k"))
			want(t, v, err, "one")
		}
		s.wantCalls(t, 3)
		if n := r.Stats().Entries; n != 0 {
			t.Errorf("%d entries kept", n)
		}
		refs := []credref.Ref{ref("k"), ref("k"), field("k", "")}
		for _, out := range r.ResolveAll(t.Context(), refs) {
			want(t, out.Value, out.Err, "one")
		}
		s.wantCalls(t, 1)
	})
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		life := time.Hour
		store := &flaky{get: func(context.Context, backend.Request) (*backend.Credential, error) {
			c := plain("x")
			c.Expires = time.Now().Add(life)
			return c, nil
		}}
		r := open(t, Provider{Backend: store, TTL: 24 * time.Hour, MaxStale: 24 * time.Hour})
		v, err := r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "x")
		if !v.Expires().Equal(time.Now().Add(life)) {
			t.Errorf("expires %v", v.Expires())
		}
		time.Sleep(life - maxSkew) // neither ttl nor max_stale go past the end
		if _, err = r.Resolve(t.Context(), ref("k")); err != nil || store.calls.Load() != 2 {
			t.Errorf("%d calls, %v; want a second one a minute before the end", store.calls.Load(), err)
		}
		life = -time.Second
		_, err = r.Resolve(t.Context(), ref("dead"))
		wantCode(t, err, backend.CodeExpired)
	})
}

func TestRefreshAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		store := &flaky{get: func(context.Context, backend.Request) (*backend.Credential, error) {
			c := plain(fmt.Sprint(calls.Add(1)))
			c.RefreshAfter = time.Now().Add(10 * time.Second)
			return c, nil
		}}
		r := open(t, Provider{Backend: store, TTL: time.Hour})
		h := r.Handle(ref("k"))
		defer h.Close()
		v, err := h.Get(t.Context())
		want(t, v, err, "1")
		// Somewhat later than the store says, by less than a second and a tenth, so that not all come at once.
		time.Sleep(10*time.Second - time.Millisecond)
		v, err = h.Get(t.Context())
		want(t, v, err, "1")
		time.Sleep(time.Second + time.Millisecond + tick)
		synctest.Wait()
		v, err = h.Get(t.Context())
		want(t, v, err, "2")
		time.Sleep(33*time.Second + tick)
		synctest.Wait()
		v, err = h.Get(t.Context())
		want(t, v, err, "5")
	})
}

func TestStale(t *testing.T) {
	const ttl, maxStale = time.Minute, 10 * time.Minute
	for _, c := range []struct {
		name  string
		code  backend.Code
		then  backend.Code // what a caller gets once the store has answered so
		stale bool
	}{
		{"unavailable", backend.CodeUnavailable, "", true},
		{"throttled", backend.CodeThrottled, "", true},
		{"denied", backend.CodeDenied, backend.CodeDenied, false},
		{"not found", backend.CodeNotFound, backend.CodeNotFound, false},
		{"expired", backend.CodeExpired, backend.CodeExpired, false},
		{"login refused", backend.CodeAuthRequired, backend.CodeAuthRequired, false},
		{"internal", backend.CodeInternal, backend.CodeInternal, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript("one")
				r := open(t, Provider{Backend: s, TTL: ttl, MaxStale: maxStale})
				v, err := r.Resolve(t.Context(), ref("k"))
				want(t, v, err, "one")
				s.failWith(c.code)
				time.Sleep(ttl + time.Second)
				v, err = r.Resolve(t.Context(), ref("k")) // a refresh begins now
				want(t, v, err, "one")
				if !v.Stale() {
					t.Error("not marked stale")
				}
				time.Sleep(10 * time.Second)
				v, err = r.Resolve(t.Context(), ref("k"))
				if !c.stale {
					wantCode(t, err, c.then)
					return
				}
				want(t, v, err, "one")
				if !v.Stale() {
					t.Error("not marked stale")
				}
				time.Sleep(maxStale)
				_, err = r.Resolve(t.Context(), ref("k"))
				wantCode(t, err, c.code)

				s.heal()
				time.Sleep(maxOpen)
				v, err = r.Resolve(t.Context(), ref("k"))
				want(t, v, err, "one")
				if v.Stale() {
					t.Error("fresh again, and marked stale")
				}
			})
		})
	}
}

func TestStaleRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("one")
		r := open(t, Provider{Backend: s, TTL: time.Minute, MaxStale: time.Hour, Retries: -1})
		h := r.Handle(ref("k"))
		defer h.Close()
		v, err := h.Get(t.Context())
		want(t, v, err, "one")
		s.failWith(backend.CodeUnavailable)
		time.Sleep(30 * time.Minute) // an open handle makes the resolver ask, but not all the time
		if n := s.calls.Swap(0); n < 20 || n > 120 {
			t.Errorf("%d calls during an outage of half an hour", n)
		}
		v, err = h.Get(t.Context())
		want(t, v, err, "one")
		if !v.Stale() {
			t.Error("not marked stale")
		}
		s.heal()
		s.set("two")
		time.Sleep(2 * time.Minute)
		v, err = h.Get(t.Context())
		want(t, v, err, "two")
		if v.Stale() {
			t.Error("fresh again, and marked stale")
		}
	})
}

// While a value is fresh an outage, a broken login or a bug of the store does not end it; that the store denies it, or
// has it no more, does.
func TestRefreshOfFreshFails(t *testing.T) {
	for code, ends := range map[backend.Code]bool{
		backend.CodeUnavailable: false, backend.CodeAuthRequired: false, backend.CodeInternal: false, backend.CodeLocked: false,
		backend.CodeDenied: true, backend.CodeNotFound: true,
	} {
		t.Run(string(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript("one")
				r := open(t, Provider{Backend: s, TTL: time.Minute})
				v, err := r.Resolve(t.Context(), ref("k"))
				want(t, v, err, "one")
				s.failWith(code)
				time.Sleep(45 * time.Second)
				v, err = r.Resolve(t.Context(), ref("k"))
				want(t, v, err, "one")
				time.Sleep(8 * time.Second)
				v, err = r.Resolve(t.Context(), ref("k"))
				if ends {
					wantCode(t, err, code)
					return
				}
				want(t, v, err, "one")
				time.Sleep(8 * time.Second)
				_, err = r.Resolve(t.Context(), ref("k"))
				wantCode(t, err, code)
			})
		})
	}
}

func TestNegative(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("one")
		s.failWith(backend.CodeNotFound)
		r := open(t, Provider{Backend: s, NegativeTTL: 5 * time.Second})
		get := func(code backend.Code) {
			t.Helper()
			_, err := r.Resolve(t.Context(), ref("k"))
			wantCode(t, err, code)
		}
		get(backend.CodeNotFound)
		get(backend.CodeNotFound)
		s.wantCalls(t, 1)
		time.Sleep(5 * time.Second)
		get(backend.CodeNotFound)
		s.wantCalls(t, 1)
		s.heal()
		get(backend.CodeNotFound)
		r.Wrote(credref.Ref{Provider: "p", ID: "k", Version: "3"})
		get(backend.CodeOK)
		s.wantCalls(t, 1)

		s.failWith(backend.CodeDenied) // nothing but not_found is remembered
		_, err := r.Resolve(t.Context(), ref("other"))
		wantCode(t, err, backend.CodeDenied)
		_, err = r.Resolve(t.Context(), ref("other"))
		wantCode(t, err, backend.CodeDenied)
		s.wantCalls(t, 2)
	})
}

func TestForgetDetaches(t *testing.T) {
	for name, landsFirst := range map[string]bool{"the old fetch lands first": true, "the new fetch lands first": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript("old")
				r := open(t, Provider{Backend: s})
				go func() {
					// It asked before: what was then will do.
					if _, err := r.Resolve(context.Background(), ref("k")); err != nil {
						t.Error(err)
					}
				}()
				time.Sleep(10 * time.Millisecond)
				r.Forget(ref("k"))
				s.set("new")
				if landsFirst {
					time.Sleep(time.Second)
				} else {
					s.quick.Store(true)
				}
				for range 2 {
					v, err := r.Resolve(t.Context(), ref("k"))
					want(t, v, err, "new")
					time.Sleep(time.Second)
				}
				s.wantCalls(t, 2)
			})
		})
	}
}

func TestWaiterLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("one")
		r := open(t, Provider{Backend: s})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		stays := make(chan struct{})
		go func() {
			defer close(stays)
			time.Sleep(time.Millisecond)
			v, err := r.Resolve(context.Background(), ref("k"))
			want(t, v, err, "one")
		}()
		_, err := r.Resolve(ctx, ref("k"))
		wantCode(t, err, backend.CodeTimeout)
		<-stays
		v, err := r.Resolve(ctx, ref("k")) // a hit does not look at ctx
		want(t, v, err, "one")
		s.wantCalls(t, 1)
	})
}

func TestHandle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("one")
		r := open(t, Provider{Backend: s, TTL: time.Minute})
		h := r.Handle(ref("k"))
		s.wantCalls(t, 0)
		v, err := h.Get(t.Context())
		want(t, v, err, "one")
		s.set("two")
		time.Sleep(time.Hour)
		if n := s.calls.Swap(0); n < 80 || n > 101 {
			t.Errorf("%d calls in an hour for a ttl of a minute", n)
		}
		v, err = h.Get(t.Context())
		want(t, v, err, "two")
		s.wantCalls(t, 0)

		s.set("three")
		r.Forget(ref("k")) // which has it fetched at once
		v, err = h.Get(t.Context())
		want(t, v, err, "three")
		if err := errors.Join(h.Close(), h.Close()); err != nil {
			t.Error(err)
		}
		s.wantCalls(t, 1)
		time.Sleep(time.Hour)
		s.wantCalls(t, 0) // it was not read since
		if st := r.Stats(); st.OpenHandles != 0 || st.Entries != 0 {
			t.Errorf("left behind: %+v", st)
		}
		v, err = h.Get(t.Context())
		want(t, v, err, "three")
	})
}

// leaser is a store of leased credentials, renewable up to a greatest life.
type leaser struct {
	flaky
	made    atomic.Int64
	renewed atomic.Int64
	revoked atomic.Int64
	length  time.Duration
	most    time.Duration
	born    atomic.Pointer[time.Time]
	slow    time.Duration // of a renewal
}

func (l *leaser) age() time.Duration { return time.Since(*l.born.Load()) }

func newLeaser(length, most time.Duration) *leaser {
	l := &leaser{length: length, most: most}
	l.get = func(ctx context.Context, _ backend.Request) (*backend.Credential, error) {
		n := l.made.Add(1)
		l.born.Store(new(time.Now()))
		c := plain(fmt.Sprint("user-", n))
		c.Lease = &backend.Lease{ID: fmt.Sprint(n), Duration: l.length, Renewable: true}
		c.Expires = time.Now().Add(l.length)
		return c, nil
	}
	return l
}

func (l *leaser) Renew(ctx context.Context, lease backend.Lease, increment time.Duration) (backend.Lease, error) {
	l.renewed.Add(1)
	if err := pause(ctx, l.slow); err != nil {
		return backend.Lease{}, err
	}
	left := l.most - l.age()
	if left <= 0 {
		return backend.Lease{}, backend.Errorf(backend.CodeExpired, "gone")
	}
	lease.Duration = min(increment, left)
	return lease, nil
}

func (l *leaser) Revoke(context.Context, backend.Request, *backend.Credential) error {
	l.revoked.Add(1)
	return nil
}

func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeaser(time.Hour, 4*time.Hour)
		r := open(t, Provider{Backend: l, TTL: time.Minute}) // a lease outweighs the ttl
		h := r.Handle(ref("creds/app"))
		defer h.Close()
		events := r.Watch(t.Context(), ref("creds/app"))
		var kinds []EventKind
		go func() {
			for ev := range events {
				if ev.Kind == EventResolved || ev.Kind == EventRefreshed || ev.Kind == EventRotated {
					kinds = append(kinds, ev.Kind)
				}
			}
		}()
		v, err := h.Get(t.Context())
		want(t, v, err, "user-1")
		first := v.Revision()
		for l.age() < 3*time.Hour {
			time.Sleep(time.Minute)
			if v, err = h.Get(t.Context()); err != nil || v.Revision() != first {
				t.Fatalf("after %v: %v, %v", l.age(), v, err)
			}
			if left := time.Until(v.Expires()); left < 15*time.Minute {
				t.Fatalf("the lease ran down to %v", left)
			}
		}
		end := l.born.Load().Add(4 * time.Hour)
		for l.made.Load() == 1 && time.Now().Before(end) {
			time.Sleep(time.Second)
		}
		if left := time.Until(end); left < time.Minute || left > 40*time.Minute {
			t.Errorf("the successor came %v before the end", left)
		}
		synctest.Wait()
		v, err = h.Get(t.Context())
		want(t, v, err, "user-2")
		synctest.Wait()
		if n := l.renewed.Load(); n < 4 || n > 7 {
			t.Errorf("%d renewals in four hours", n)
		}
		if len(kinds) < 3 || kinds[0] != EventResolved || kinds[1] != EventRefreshed || kinds[len(kinds)-1] != EventRotated {
			t.Errorf("events %v", kinds)
		}
		if l.revoked.Load() != 0 {
			t.Error("the predecessor was revoked, which others may still use")
		}
	})
}

func TestUnusedLeaseLapses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeaser(time.Hour, 4*time.Hour)
		r := open(t, Provider{Backend: l})
		v, err := r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "user-1")
		time.Sleep(5 * time.Hour)
		if l.made.Load() != 1 || l.renewed.Load() != 0 {
			t.Errorf("%d made, %d renewed for nobody", l.made.Load(), l.renewed.Load())
		}
	})
}

func TestRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeaser(time.Hour, 4*time.Hour)
		r := openAll(t, map[string]Provider{"p": {Backend: l}, "cannot": {Backend: slow(0)}})
		wantCode(t, r.Revoke(t.Context(), ref("k")), backend.CodeNotFound)
		h := r.Handle(ref("k"))
		defer h.Close()
		v, err := h.Get(t.Context())
		want(t, v, err, "user-1")
		events := r.Watch(t.Context(), ref("k"))
		first := <-events
		if err := r.Revoke(t.Context(), ref("k")); err != nil || l.revoked.Load() != 1 {
			t.Fatalf("%v, %d revoked", err, l.revoked.Load())
		}
		if ev := <-events; first.Kind != EventResolved || ev.Kind != EventRevoked || ev.Ref != ref("k") || ev.Err != nil {
			t.Errorf("watched %+v, then %+v", first, ev)
		}
		v, err = h.Get(t.Context())
		want(t, v, err, "user-2")
		v, err = r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "user-2")

		other := credref.Ref{Provider: "cannot", ID: "k"}
		v, err = r.Resolve(t.Context(), other)
		want(t, v, err, "k")
		if err := r.Revoke(t.Context(), other); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("got %v", err)
		}
	})
}

func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("one")
		r := open(t, Provider{Backend: s, TTL: time.Hour})
		v, err := r.Resolve(t.Context(), ref("k"))
		one := v.Revision()
		want(t, v, err, "one")
		s.wantCalls(t, 1)

		v, err = r.Report(t.Context(), ref("k"), "some other") // unknown is older
		want(t, v, err, "one")
		s.wantCalls(t, 0)

		s.set("two")
		for range 5 { // together and one after the other
			go func() {
				v, err := r.Report(context.Background(), ref("k"), one)
				want(t, v, err, "two")
			}()
		}
		time.Sleep(time.Second)
		v, err = r.Report(t.Context(), ref("k"), one)
		want(t, v, err, "two")
		s.wantCalls(t, 1)

		two := v.Revision()
		v, err = r.Report(t.Context(), ref("k"), two) // within the interval
		want(t, v, err, "two")
		s.wantCalls(t, 0)
		time.Sleep(reportEvery)
		s.failWith(backend.CodeUnavailable)
		_, err = r.Report(t.Context(), ref("k"), two)
		wantCode(t, err, backend.CodeUnavailable)
		v, err = r.Resolve(t.Context(), ref("k")) // one report does not take it from the others
		want(t, v, err, "two")
		s.heal()
		time.Sleep(reportEvery + maxOpen)
		v, err = r.Report(t.Context(), ref("k"), two)
		want(t, v, err, "two")
		if v.Revision() != two {
			t.Error("the same content has another revision")
		}
	})
}

func TestSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("one")
		r := open(t, Provider{Backend: s, TTL: time.Hour})
		src := r.Source(ref("k"))
		s.wantCalls(t, 0)
		secret, rev, err := src.Get(t.Context())
		if string(secret.Reveal()) != "one" || err != nil {
			t.Fatal(rev, err)
		}
		s.set("two")
		src.Reject(rev)
		s.wantCalls(t, 1)
		if secret, _, err = src.Get(t.Context()); string(secret.Reveal()) != "two" || err != nil {
			t.Fatal(err)
		}
		s.wantCalls(t, 1)
	})
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("one")
		r := open(t, Provider{Backend: s, TTL: time.Minute, MaxStale: time.Hour, Retries: -1})
		v, err := r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "one")
		idle := r.Watch(t.Context()) // nobody receives: nothing waits for it
		watched := field("k", "f")
		events := r.Watch(t.Context(), watched, credref.Ref{Provider: "none", ID: "x"})
		next := func() Event {
			t.Helper()
			synctest.Wait()
			select {
			case ev := <-events:
				return ev
			default:
				t.Fatal("no event")
				return Event{}
			}
		}
		if ev := next(); ev.Kind != EventFailed || backend.CodeOf(ev.Err) != backend.CodeInvalidConfig {
			t.Errorf("got %+v", ev)
		}
		if ev := next(); ev.Kind != EventResolved || ev.Ref != watched || ev.Revision != v.Revision() {
			t.Errorf("got %+v", ev)
		}
		s.set("two")
		if v, err = r.Resolve(t.Context(), ref("k")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(45 * time.Second)
		// What led to it was not taken in time.
		if ev := next(); ev.Kind != EventRotated || ev.State != StateActive || ev.Revision == v.Revision() {
			t.Errorf("got %+v", ev)
		}
		s.failWith(backend.CodeUnavailable)
		time.Sleep(61 * time.Second)
		_, _ = r.Resolve(t.Context(), ref("k"))
		var last Event
		for range 3 {
			synctest.Wait()
			select {
			case last = <-events:
			default:
			}
		}
		if last.Kind != EventStale {
			t.Errorf("got %+v", last)
		}
		s.failWith(backend.CodeDenied)
		time.Sleep(61 * time.Second)
		_, _ = r.Resolve(t.Context(), ref("k"))
		for range 3 {
			synctest.Wait()
			select {
			case last = <-events:
			default:
			}
		}
		if last.Kind != EventFailed || last.Ref != watched || !errors.Is(last.Err, backend.ErrDenied) || last.Revision != "" {
			t.Errorf("got %+v", last)
		}
		r.Close()
		synctest.Wait()
		for range events { // closed
		}
		for range idle {
		}
		if _, open := <-r.Watch(t.Context()); open {
			t.Error("a watch on a closed resolver gives events")
		}
	})
}

func TestRetry(t *testing.T) {
	for _, c := range []struct {
		name  string
		code  backend.Code
		after time.Duration
		calls int64
		took  [2]time.Duration
	}{
		{"unavailable", backend.CodeUnavailable, 0, 3, [2]time.Duration{100 * time.Millisecond, 2 * time.Second}},
		{"throttled, with a wish", backend.CodeThrottled, 2 * time.Second, 3, [2]time.Duration{4 * time.Second, 5 * time.Second}},
		{"throttled for long", backend.CodeThrottled, time.Minute, 1, [2]time.Duration{0, time.Millisecond}},
		{"denied", backend.CodeDenied, 0, 1, [2]time.Duration{0, time.Millisecond}},
		{"locked", backend.CodeLocked, 0, 1, [2]time.Duration{0, time.Millisecond}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript("x")
				s.fail.Store(&backend.Error{Code: c.code, RetryAfter: c.after})
				r := open(t, Provider{Backend: s})
				start := time.Now()
				_, err := r.Resolve(t.Context(), ref("k"))
				wantCode(t, err, c.code)
				s.wantCalls(t, c.calls)
				if took := time.Since(start); took < c.took[0] || took > c.took[1] {
					t.Errorf("took %v, want between %v and %v", took, c.took[0], c.took[1])
				}
			})
		})
	}
	t.Run("recovers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newScript("x")
			s.failWith(backend.CodeUnavailable)
			r := open(t, Provider{Backend: s})
			time.AfterFunc(50*time.Millisecond, s.heal)
			v, err := r.Resolve(t.Context(), ref("k"))
			want(t, v, err, "x")
		})
	})
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, Provider{Backend: slow(time.Hour), Timeout: 3 * time.Second})
		start := time.Now()
		_, err := r.Resolve(t.Context(), ref("k"))
		wantCode(t, err, backend.CodeUnavailable)
		if took := time.Since(start); took != 3*time.Second || !strings.Contains(err.Error(), "within 3s") {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("x")
		s.failWith(backend.CodeUnavailable)
		r := open(t, Provider{Backend: s, Retries: -1, Breaker: Breaker{Failures: 3, Open: 10 * time.Second}})
		get := func() error { _, err := r.Resolve(t.Context(), ref("k")); return err }
		for range 100 {
			wantCode(t, get(), backend.CodeUnavailable)
		}
		s.wantCalls(t, 3)
		if err := get(); backend.RetryAfter(err) <= 0 || !strings.Contains(err.Error(), "next try is in 10s") {
			t.Errorf("got %v", err)
		}
		time.Sleep(10*time.Second + time.Millisecond)
		for range 100 {
			wantCode(t, get(), backend.CodeUnavailable)
		}
		s.wantCalls(t, 1)
		s.heal()
		time.Sleep(10*time.Second + time.Millisecond)
		wantCode(t, get(), backend.CodeOK)
	})
}

func TestRefusedLoginIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("x")
		s.failWith(backend.CodeAuthRequired)
		r := open(t, Provider{Backend: s})
		for range 15 * 60 * 10 {
			_, err := r.Resolve(t.Context(), ref("k"))
			wantCode(t, err, backend.CodeAuthRequired)
			time.Sleep(100 * time.Millisecond)
		}
		if n := s.calls.Load(); n > 22 {
			t.Errorf("%d logins in 15 minutes", n)
		}
	})
}

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("x")
		r := open(t, Provider{Backend: s, Budget: Budget{Calls: 10, Per: 10 * time.Second}, Retries: -1})
		var refs []credref.Ref
		for i := range 12 {
			refs = append(refs, ref(fmt.Sprint(i)))
		}
		start := time.Now()
		for _, out := range r.ResolveAll(t.Context(), refs) { // the last two wait for their turn
			want(t, out.Value, out.Err, "x")
		}
		if took := time.Since(start); took < 1500*time.Millisecond || took > 4*time.Second {
			t.Errorf("took %v", took)
		}
		s.wantCalls(t, 12)
		throttled := 0
		for i := range 100 {
			refs = append(refs, ref(fmt.Sprint("more", i)))
		}
		for _, out := range r.ResolveAll(t.Context(), refs) {
			if backend.CodeOf(out.Err) == backend.CodeThrottled {
				throttled++
			}
		}
		if n := s.calls.Load(); n > 12 || throttled != 100-int(n) {
			t.Errorf("%d calls, %d throttled", n, throttled)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closer := &closing{flaky: slow(time.Hour)}
		r, err := New(Config{Providers: map[string]Provider{"p": {Backend: closer, Timeout: time.Hour}}})
		if err != nil {
			t.Fatal(err)
		}
		failed := make(chan error)
		go func() {
			_, err := r.Resolve(context.Background(), ref("k"))
			failed <- err
		}()
		time.Sleep(time.Second)
		if err := errors.Join(r.Close(), r.Close()); err != nil {
			t.Error(err)
		}
		wantCode(t, <-failed, backend.CodeUnavailable)
		if closer.closed.Load() != 1 {
			t.Errorf("closed %d times", closer.closed.Load())
		}
		_, err = r.Resolve(t.Context(), ref("k"))
		wantCode(t, err, backend.CodeUnavailable)
		wantCode(t, r.Apply(Config{}), backend.CodeUnavailable)
	})
}

// A backend that does not heed its context holds up the end of a program for five seconds, which is told.
func TestCloseOfADeafBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deaf := &closing{flaky: &flaky{get: func(context.Context, backend.Request) (*backend.Credential, error) {
			time.Sleep(time.Minute)
			return plain("late"), nil
		}}}
		r, err := New(Config{Providers: map[string]Provider{"p": {Backend: deaf, Timeout: time.Hour}}})
		if err != nil {
			t.Fatal(err)
		}
		go r.Resolve(context.Background(), ref("k"))
		time.Sleep(time.Second)
		began := time.Now()
		err = r.Close()
		wantCode(t, err, backend.CodeInternal)
		if waited := time.Since(began); waited != closePatience || deaf.closed.Load() != 1 || !strings.Contains(err.Error(), "did not return") {
			t.Errorf("after %v, closed %d times: %v", waited, deaf.closed.Load(), err)
		}
		time.Sleep(time.Minute)
	})
}

type closing struct {
	*flaky
	closed atomic.Int64
}

func (c *closing) Close() error { c.closed.Add(1); return nil }

func TestApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, twin, second := &closing{flaky: slow(0)}, &closing{flaky: slow(0)}, &closing{flaky: slow(0)}
		r := open(t, Provider{Backend: first, Digest: "a"})
		v, err := r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "k")
		if err := r.Apply(Config{Providers: map[string]Provider{"p": {Backend: twin, Digest: "a"}}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		v, err = r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "k")
		if first.closed.Load() != 0 || twin.closed.Load() != 1 || first.calls.Load() != 1 {
			t.Error("an unchanged provider was replaced")
		}
		b, err := r.Backend("p")
		if b != first || err != nil {
			t.Errorf("got %v, %v", b, err)
		}

		// Who waits is answered by the successor.
		first.get = slow(time.Hour).get
		second.get = func(context.Context, backend.Request) (*backend.Credential, error) { return plain("new"), nil }
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			v, err := r.Resolve(context.Background(), ref("waiting"))
			want(t, v, err, "new")
			out := r.ResolveAll(context.Background(), []credref.Ref{ref("more")})
			want(t, out[0].Value, out[0].Err, "new")
		}()
		time.Sleep(time.Second)
		if err := r.Apply(Config{Providers: map[string]Provider{"p": {Backend: second, Digest: "b"}}}); err != nil {
			t.Fatal(err)
		}
		<-answered
		synctest.Wait()
		if first.closed.Load() != 1 || second.closed.Load() != 0 {
			t.Errorf("closed: first %d, second %d", first.closed.Load(), second.closed.Load())
		}
		v, err = r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "new")

		wantCode(t, r.Apply(Config{Providers: map[string]Provider{"p": {}}}), backend.CodeInvalidConfig)
		v, err = r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "new")
		if err := r.Apply(Config{}); err != nil {
			t.Fatal(err)
		}
		_, err = r.Resolve(t.Context(), ref("k"))
		wantCode(t, err, backend.CodeInvalidConfig)
		if n := r.Stats().Entries; n != 0 {
			t.Errorf("%d entries of a provider that is gone", n)
		}
	})
}

func TestMisbehaviour(t *testing.T) {
	t.Parallel()
	const canary = "c4nary-7f3a"
	for name, get := range map[string]func(context.Context, backend.Request) (*backend.Credential, error){
		"panic":       func(context.Context, backend.Request) (*backend.Credential, error) { panic(canary) },
		"nothing":     func(context.Context, backend.Request) (*backend.Credential, error) { return nil, nil },
		"plain error": func(context.Context, backend.Request) (*backend.Credential, error) { return nil, errors.New(canary) },
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, Provider{Backend: &flaky{get: get}, Retries: -1})
			_, err := r.Resolve(t.Context(), ref("k"))
			wantCode(t, err, backend.CodeInternal)
			for e := err; e != nil; e = errors.Unwrap(e) {
				if s := fmt.Sprintf("%v %+v %#v", e, e, e); strings.Contains(s, canary) {
					t.Errorf("the error shows what the backend said: %s", s)
				}
			}
		})
	}
}

// zeroed looks at memory that the runtime's cleanup may be writing to, which is the very thing to be seen.
//
//go:norace
func zeroed(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// A secret is zeroed once the cache has let go of it and no caller holds it.
func TestEvictedSecretsAreZeroed(t *testing.T) {
	t.Parallel()
	var lent [][]byte
	store := &flaky{get: func(_ context.Context, req backend.Request) (*backend.Credential, error) {
		c := plain("secret of " + req.ID)
		_ = c.Secret.Use(func(b []byte) error { lent = append(lent, b); return nil })
		return c, nil
	}}
	r, err := New(Config{Providers: map[string]Provider{"p": {Backend: store}}, Cache: CacheLimits{Entries: 2}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := range 3 {
		for range 3 { // slots, not only the entry
			if _, err := r.Resolve(t.Context(), ref(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 100 {
		if zeroed(lent[0]) {
			break
		}
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	if !zeroed(lent[0]) {
		t.Error("an evicted secret stays in memory")
	}
	if zeroed(lent[1]) || zeroed(lent[2]) {
		t.Error("a cached secret was zeroed")
	}
	runtime.KeepAlive(r)
}

// Nothing of a fetch that has landed, as the queue it stood in, keeps its secret in memory.
func TestForgottenSecretsAreZeroed(t *testing.T) {
	var lent [][]byte
	b := newBatcher(0)
	b.results = func(in []backend.Result) []backend.Result {
		for _, res := range in {
			_ = res.Credential.Secret.Use(func(b []byte) error { lent = append(lent, b); return nil })
		}
		return in
	}
	r := open(t, Provider{Backend: b})
	_ = r.ResolveAll(t.Context(), refs(3))
	b.batches = nil
	for _, k := range refs(3) {
		r.Forget(k)
	}
	for i := range lent {
		for range 50 {
			if zeroed(lent[i]) {
				break
			}
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
		if !zeroed(lent[i]) {
			t.Errorf("secret %d stays in memory", i)
		}
	}
	runtime.KeepAlive(r)
}

func TestWatchSeesNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &flaky{get: func(context.Context, backend.Request) (*backend.Credential, error) { return plain("x"), nil }}
		r := open(t, Provider{Backend: s, Scope: []Scope{ScopeTenant}})
		events := r.For(credref.Subject{Tenant: "a"}).Watch(t.Context())
		if _, err := r.For(credref.Subject{Tenant: "b"}).Resolve(t.Context(), ref("k")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case ev := <-events:
			t.Errorf("tenant a is told of tenant b's secret: %+v", ev)
		default:
		}
	})
}

// A slow answer does not make a lease longer.
func TestLeaseRunsFromTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var made time.Time
		s := &flaky{get: func(ctx context.Context, _ backend.Request) (*backend.Credential, error) {
			made = time.Now()
			c := plain("x")
			c.Lease = &backend.Lease{ID: "l", Duration: 20 * time.Second}
			return c, pause(ctx, 10*time.Second)
		}}
		r := open(t, Provider{Backend: s})
		first, err := r.Resolve(t.Context(), ref("k"))
		want(t, first, err, "x")
		end := made.Add(20 * time.Second)
		if first.Expires().After(end) {
			t.Errorf("expires %v after its lease's end", first.Expires().Sub(end))
		}
		time.Sleep(time.Until(end))
		if v := r.cache.Get(&credref.Ref{Provider: "p", ID: "k"}, r.clock.exact()); v == first {
			t.Error("served after its end")
		}
	})
}

// What was rejected is not given again since its successor could not be had.
func TestSourceRemembersRejection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("one")
		r := open(t, Provider{Backend: s, TTL: time.Hour, Retries: -1})
		src := r.Source(ref("k"))
		_, rev, _ := src.Get(t.Context())
		s.set("two")
		src.Reject(rev)
		s.failWith(backend.CodeInternal)
		_, _, err := src.Get(t.Context())
		wantCode(t, err, backend.CodeInternal)
		s.heal()
		time.Sleep(reportEvery)
		secret, _, err := src.Get(t.Context())
		if string(secret.Reveal()) != "two" {
			t.Errorf("got %q, %v", secret.Reveal(), err)
		}
	})
}

func TestResolveAllForNobody(t *testing.T) {
	s := slow(0)
	r := open(t, Provider{Backend: s})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out := r.ResolveAll(ctx, refs(2))
	if !errors.Is(out[0].Err, context.Canceled) || s.calls.Load() != 0 {
		t.Error(out[0].Err, s.calls.Load())
	}
}

type slowRevoker struct {
	*closing
	under bool
}

func (s *slowRevoker) Revoke(ctx context.Context, _ backend.Request, _ *backend.Credential) error {
	s.under = true
	defer func() { s.under = false }()
	<-ctx.Done()
	time.Sleep(time.Second)
	return ctx.Err()
}

func (s *slowRevoker) Close() error {
	if s.under {
		panic("closed under a call")
	}
	return nil
}

func TestCloseWaitsForRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowRevoker{closing: &closing{flaky: slow(0)}}
		r, err := New(Config{Providers: map[string]Provider{"p": {Backend: s}}})
		if err != nil {
			t.Fatal(err)
		}
		v, err := r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "k")
		revoked := make(chan error, 1)
		go func() { revoked <- r.Revoke(context.Background(), ref("k")) }()
		time.Sleep(time.Second)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		wantCode(t, <-revoked, backend.CodeUnavailable)
	})
}

type oneSecret struct {
	*flaky
	gone bool
}

func (s *oneSecret) Revoke(ctx context.Context, _ backend.Request, _ *backend.Credential) error {
	err := pause(ctx, time.Second)
	s.gone = true
	return err
}

// Who asks while the store revokes may still be given the credential, but it is not kept.
func TestRevokedComesNotBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &oneSecret{}
		s.flaky = &flaky{get: func(context.Context, backend.Request) (*backend.Credential, error) {
			if s.gone {
				return nil, backend.Errorf(backend.CodeNotFound, "revoked")
			}
			return plain("x"), nil
		}}
		r := open(t, Provider{Backend: s})
		v, err := r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "x")
		done := make(chan error)
		go func() { done <- r.Revoke(context.Background(), ref("k")) }()
		time.Sleep(time.Millisecond)
		v, err = r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "x")
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		_, err = r.Resolve(t.Context(), ref("k"))
		wantCode(t, err, backend.CodeNotFound)
	})
}

// A report does not wait for the renewal of what it refuses.
func TestReportDuringRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeaser(time.Hour, 4*time.Hour)
		l.slow = time.Minute
		r := open(t, Provider{Backend: l, Timeout: 2 * time.Minute})
		h := r.Handle(ref("k"))
		defer h.Close()
		v, err := h.Get(t.Context())
		want(t, v, err, "user-1")
		for l.renewed.Load() == 0 {
			time.Sleep(time.Second)
		}
		v, err = r.Report(t.Context(), ref("k"), v.Revision())
		want(t, v, err, "user-2")
		time.Sleep(time.Hour)
		v, err = h.Get(t.Context())
		want(t, v, err, "user-2")
	})
}

// What makes revisions is kept, and must not keep what it made them of.
func TestReviserKeepsNothing(t *testing.T) {
	t.Parallel()
	v := newReviser(nil)
	const canary = "c4nary-51c0"
	for n := range 70 { // wherever in a block of the hash it comes to stand
		v.revision(backend.TypeToken, plain(strings.Repeat("x", n)+canary))
		looked := 0
		var look func(reflect.Value)
		look = func(at reflect.Value) {
			switch at.Kind() {
			case reflect.Interface, reflect.Pointer:
				if !at.IsNil() {
					look(at.Elem())
				}
			case reflect.Struct:
				for i := range at.NumField() {
					look(at.Field(i))
				}
			case reflect.Array, reflect.Slice:
				if at.Type().Elem().Kind() != reflect.Uint8 {
					return
				}
				var b []byte
				for i := range at.Len() {
					b = append(b, byte(at.Index(i).Uint()))
				}
				if looked += len(b); bytes.Contains(b, []byte(canary[:4])) || bytes.Contains(b, []byte(canary[4:])) {
					t.Fatalf("after %d bytes: %q", n, b)
				}
			}
		}
		look(reflect.ValueOf(v))
		if looked < sha256.BlockSize {
			t.Fatal("the test sees nothing")
		}
	}
}
