package grants_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/resolver/grants"
)

// enter logs in at an issuer, which needs no browser.
func enter(t testing.TB, b *grants.Backend, i *issuer, req backend.Request) {
	t.Helper()
	s, err := b.StartLogin(context.Background(), req, backend.LoginOptions{Device: i.device})
	if err != nil {
		t.Fatal(err)
	}
	i.finish(s.State)
	if s, err = b.PollLogin(context.Background(), s.State); err != nil || s.Status != backend.LoginSuccess || s.Grant != nil {
		t.Fatalf("%+v %v", s, err)
	}
}

// inMemory gives a backend without a state directory, whose locks poll: for tests with a clock of their own.
func inMemory(t testing.TB, w backend.Writer, inner backend.Backend, c grants.Config) *grants.Backend {
	t.Helper()
	c.Open = func() (backend.Backend, error) { return lasting{w}, nil }
	return grants.NewStore(c).Keep("desk", inner)
}

// entered is inMemory where somebody has logged in as me, until the test ends.
func entered(t testing.TB, w backend.Writer, i *issuer) *grants.Backend {
	t.Helper()
	b := inMemory(t, w, i, grants.Config{})
	t.Cleanup(func() { _ = b.Close() })
	enter(t, b, i, me)
	return b
}

func want(t testing.TB, b *grants.Backend, secret string) *backend.Credential {
	t.Helper()
	c, err := b.Get(context.Background(), me)
	if err != nil {
		t.Fatalf("want %s: %v", secret, err)
	}
	if got := string(c.Secret.Reveal()); got != secret {
		t.Errorf("got %s, want %s", got, secret)
	}
	return c
}

func TestRefreshWhenItIsDue(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		i    *issuer
		wait time.Duration // until it is due
	}{
		"as advised":                        {&issuer{ttl: time.Hour, advice: func(now time.Time) time.Time { return now.Add(7 * time.Minute) }}, 7 * time.Minute},
		"five minutes before a distant end": {&issuer{ttl: time.Hour}, 55 * time.Minute},
		"after two thirds of a short life":  {&issuer{ttl: time.Minute}, 40 * time.Second},
		"advised for after the end: at it":  {&issuer{ttl: time.Minute, advice: func(now time.Time) time.Time { return now.Add(time.Hour) }}, time.Minute},
		"due at once: half a minute later":  {&issuer{ttl: time.Hour, advice: func(now time.Time) time.Time { return now.Add(-time.Hour) }}, 30 * time.Second},
		"due at once, of a short life":      {&issuer{ttl: 15 * time.Second, advice: func(now time.Time) time.Time { return now }}, 10 * time.Second},
		"advised, and no end is known":      {&issuer{advice: func(now time.Time) time.Time { return now.Add(time.Hour) }}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := tc.i
				b := entered(t, vessel(t), i)
				began := time.Now()
				c := want(t, b, "access-c4nary-1")
				if got := c.RefreshAfter.Sub(began); got != tc.wait {
					t.Errorf("its successor is said to be due after %v, want %v", got, tc.wait)
				}
				time.Sleep(tc.wait - time.Millisecond)
				want(t, b, "access-c4nary-1")
				if i.count() != 0 {
					t.Error("it was refreshed before it was due")
				}
				time.Sleep(time.Millisecond)
				want(t, b, "access-c4nary-2")
				want(t, b, "access-c4nary-2")
				if i.count() != 1 {
					t.Errorf("%d exchanges, want one", i.count())
				}
			})
		})
	}
}

func TestNeverRefreshedWithoutAnEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		b := entered(t, vessel(t), i)
		time.Sleep(1000 * time.Hour)
		if c := want(t, b, "access-c4nary-1"); !c.RefreshAfter.IsZero() || i.count() != 0 {
			t.Errorf("%v, %d exchanges", c.RefreshAfter, i.count())
		}
	})
}

// A server that is away costs no credential that is still good, and is asked ever less often.
func TestServerIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{ttl: time.Hour}
		b := entered(t, vessel(t), i)
		i.failing(backend.Errorf(backend.CodeUnavailable, "issuer.example is away"))
		time.Sleep(55 * time.Minute)
		c := want(t, b, "access-c4nary-1")
		if c.Metadata[grants.Warning] != "unavailable" || c.Metadata["subject"] != "id1" {
			t.Errorf("%v", c.Metadata)
		}
		if wait := time.Until(c.RefreshAfter); wait != 150*time.Second { // half of what is left
			t.Errorf("the next try is in %v", wait)
		}
		for range 10 {
			want(t, b, "access-c4nary-1")
		}
		if i.count() != 1 {
			t.Errorf("%d exchanges, want one", i.count())
		}
		time.Sleep(5 * time.Minute) // it has ended
		_, err := b.Get(t.Context(), me)
		fails(t, err, backend.ErrUnavailable, "is away")
		before := i.count()
		_, err = b.Get(t.Context(), me)
		fails(t, err, backend.ErrUnavailable, "tried again at", "issuer.example is away")
		if i.count() != before || backend.RetryAfter(err) <= 0 || backend.RetryAfter(err) > 5*time.Minute {
			t.Errorf("%d exchanges more; again in %v", i.count()-before, backend.RetryAfter(err))
		}
		for range 100 { // somebody asks every second
			time.Sleep(time.Second)
			_, _ = b.Get(t.Context(), me)
		}
		if n := i.count() - before; n > 8 {
			t.Errorf("%d exchanges in 100 seconds", n)
		}
		i.failing(nil)
		time.Sleep(5 * time.Minute)
		if c := want(t, b, "access-c4nary-2"); c.Metadata[grants.Warning] != "" {
			t.Errorf("%v", c.Metadata)
		}
		if s, err := b.Status(t.Context(), me); err != nil || s.Status != grants.StatusActive || s.Reason != "" {
			t.Errorf("%+v %v", s, err)
		}
	})
}

// While a credential is good for long, failures make the pauses grow to an hour.
func TestPausesGrow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{ttl: 1000 * time.Hour, advice: func(now time.Time) time.Time { return now.Add(time.Hour) }}
		b := entered(t, vessel(t), i)
		i.failing(backend.ErrUnavailable)
		time.Sleep(time.Hour)
		for _, minutes := range []time.Duration{5, 10, 20, 40, 60, 60} {
			before := i.count()
			c := want(t, b, "access-c4nary-1")
			if wait := time.Until(c.RefreshAfter); wait != minutes*time.Minute || i.count() != before+1 {
				t.Errorf("the next try is in %v, want %d minutes", wait, minutes)
			}
			time.Sleep(time.Until(c.RefreshAfter) - time.Millisecond)
			want(t, b, "access-c4nary-1")
			if i.count() != before+1 {
				t.Error("it was tried before")
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// How long to wait is kept too: another process does not ask either.
func TestPauseIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i, w := &issuer{ttl: time.Hour}, vessel(t)
		b := entered(t, w, i)
		i.failing(&backend.Error{Code: backend.CodeThrottled, Reason: "too many", RetryAfter: 8 * time.Minute})
		time.Sleep(56 * time.Minute)
		want(t, b, "access-c4nary-1")
		i.failing(nil)
		other := inMemory(t, w, i, grants.Config{})
		defer other.Close()
		time.Sleep(4*time.Minute + time.Second)
		_, err := other.Get(t.Context(), me)
		fails(t, err, backend.ErrThrottled)
		if i.count() != 1 {
			t.Errorf("%d exchanges", i.count())
		}
		time.Sleep(4 * time.Minute)
		want(t, other, "access-c4nary-2")
		if err := other.Refresh(t.Context(), me); err != nil { // a person asks, whatever the pause
			t.Error(err)
		}
		want(t, b, "access-c4nary-3")
	})
}

func TestServerWantsALogin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{ttl: time.Hour}
		b := entered(t, vessel(t), i)
		i.failing(backend.Errorf(backend.CodeAuthRequired, "invalid_grant: it was revoked"))
		time.Sleep(55 * time.Minute)
		if c := want(t, b, "access-c4nary-1"); c.Metadata[grants.Warning] != "auth_required" {
			t.Errorf("%v", c.Metadata)
		}
		time.Sleep(5 * time.Minute)
		i.failing(nil)
		for range 20 {
			time.Sleep(time.Hour)
			_, err := b.Get(t.Context(), me)
			fails(t, err, backend.ErrAuthRequired, "it was revoked", "run: credresolve login desk me")
			fails(t, b.Refresh(t.Context(), me), backend.ErrAuthRequired)
		}
		if i.count() != 1 {
			t.Errorf("%d exchanges; nothing is asked until somebody has logged in", i.count())
		}
		if s, err := b.Status(t.Context(), me); err != nil || s.Status != grants.StatusAuthRequired || s.Reason == "" {
			t.Errorf("%+v %v", s, err)
		}
		enter(t, b, i, me)
		want(t, b, "access-c4nary-2")
	})
}

func TestNothingToRefreshWith(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{ttl: time.Hour, plain: true}
		b := entered(t, vessel(t), i)
		time.Sleep(59 * time.Minute)
		want(t, b, "access-c4nary-1")
		fails(t, b.Refresh(t.Context(), me), errors.ErrUnsupported)
		time.Sleep(time.Minute)
		_, err := b.Get(t.Context(), me)
		fails(t, err, backend.ErrAuthRequired, "ended at", "credresolve login desk me")
		if s, err := b.Status(t.Context(), me); err != nil || s.Status != grants.StatusExpired || s.Refreshable {
			t.Errorf("%+v %v", s, err)
		}
		if i.count() != 0 {
			t.Error("it was asked all the same")
		}
	})
}

// Whoever reports the token that was in force before gets the one that is now.
func TestReject(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{ttl: time.Hour}
		b := entered(t, vessel(t), i)
		first := want(t, b, "access-c4nary-1")
		for range 5 {
			if err := b.Reject(t.Context(), me, first); err != nil {
				t.Fatal(err)
			}
			want(t, b, "access-c4nary-2")
		}
		if i.count() != 1 {
			t.Errorf("%d exchanges, want one", i.count())
		}
		i.failing(backend.Errorf(backend.CodeUnavailable, "away"))
		if err := b.Reject(t.Context(), me, want(t, b, "access-c4nary-2")); err != nil {
			t.Fatal(err)
		}
		_, err := b.Get(t.Context(), me)
		fails(t, err, backend.ErrUnavailable, "away") // what was refused is not given again
	})
}

func TestRejectOfAKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{plain: true}
		b := entered(t, vessel(t), i)
		key := want(t, b, "access-c4nary-1")
		if err := b.Reject(t.Context(), me, key); err != nil {
			t.Fatal(err)
		}
		if c := want(t, b, "access-c4nary-1"); c.Metadata[grants.Warning] != "rejected" {
			t.Errorf("%v", c.Metadata)
		}
		i.probe = backend.ErrDenied
		if err := b.Reject(t.Context(), me, key); err != nil {
			t.Fatal(err)
		}
		_, err := b.Get(t.Context(), me)
		fails(t, err, backend.ErrAuthRequired, "was refused where it was used, and by its server")
		enter(t, b, i, me)
		want(t, b, "access-c4nary-2")
	})
}

// What is cancelled while its code is exchanged is not kept.
func TestCancelDuringTheExchange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{hold: make(chan struct{}), entered: make(chan struct{}, 1)}
		b := inMemory(t, vessel(t), i, grants.Config{})
		defer b.Close()
		s, err := b.StartLogin(t.Context(), me, backend.LoginOptions{})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan backend.LoginState)
		go func() {
			s, err := b.SubmitLogin(t.Context(), s.State, nil)
			if err != nil {
				t.Error(err)
			}
			done <- s
		}()
		<-i.entered
		if err := b.CancelLogin(t.Context(), s.State); err != nil {
			t.Fatal(err)
		}
		close(i.hold)
		if s := <-done; s.Status != backend.LoginCancelled {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Minute)
		_, err = b.Get(t.Context(), me)
		fails(t, err, backend.ErrAuthRequired, "nobody has logged in")
		if err := b.CancelLogin(t.Context(), s.State); err != nil {
			t.Errorf("a second time: %v", err)
		}
	})
}

// An adapter may not have heard of the cancellation in time: what it gives is ended at the server.
func TestCancelThatComesTooLateForTheAdapter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &deaf{issuer{}}
		b := inMemory(t, vessel(t), i, grants.Config{})
		defer b.Close()
		s, err := b.StartLogin(t.Context(), me, backend.LoginOptions{})
		if err != nil {
			t.Fatal(err)
		}
		i.finish(s.State)
		if err := b.CancelLogin(t.Context(), s.State); err != nil {
			t.Fatal(err)
		}
		if s, err := b.PollLogin(t.Context(), s.State); err != nil || s.Status != backend.LoginCancelled {
			t.Errorf("%+v %v", s, err)
		}
		synctest.Wait()
		_, err = b.Get(t.Context(), me)
		fails(t, err, backend.ErrAuthRequired)
		if !slices.Equal(i.revoked, []string{"refresh-c4nary-1"}) {
			t.Errorf("ended at the server: %q", i.revoked)
		}
	})
}

// deaf is an issuer that does not heed cancellations.
type deaf struct{ issuer }

func (*deaf) CancelLogin(context.Context, string) error { return nil }

// A login belongs to the provider where it began, and to the id and subject.
func TestLoginOfAnother(t *testing.T) {
	t.Parallel()
	i, other, w := &issuer{}, &issuer{}, vessel(t)
	s := grants.NewStore(grants.Config{Open: func() (backend.Backend, error) { return lasting{w}, nil }})
	a, b := s.Keep("desk", i), s.Keep("other", other)
	defer a.Close()
	defer b.Close()
	bob := backend.Request{ID: "me", Subject: backend.Subject{EndUser: "bob"}}
	st, err := a.StartLogin(t.Context(), bob, backend.LoginOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.PollLogin(t.Context(), st.State)
	fails(t, err, backend.ErrNotFound)
	_, err = b.SubmitLogin(t.Context(), st.State, nil)
	fails(t, err, backend.ErrNotFound)
	fails(t, b.CancelLogin(t.Context(), st.State), backend.ErrNotFound)
	i.finish(st.State)
	if st, err = a.PollLogin(t.Context(), st.State); err != nil || st.Status != backend.LoginSuccess {
		t.Fatal(st, err)
	}
	if c, err := a.Get(t.Context(), bob); err != nil || c.Secret.IsZero() {
		t.Error(err)
	}
	for _, req := range []backend.Request{me, {ID: "me", Subject: backend.Subject{EndUser: "eve"}}, {ID: "me", Subject: backend.Subject{Tenant: "bob"}}} {
		_, err := a.Get(t.Context(), req)
		fails(t, err, backend.ErrAuthRequired)
	}
	_, err = b.Get(t.Context(), bob)
	fails(t, err, backend.ErrAuthRequired)
}

func TestLoginOnDemand(t *testing.T) {
	t.Parallel()
	for _, device := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var changed []string
			i := &issuer{device: device}
			b := inMemory(t, vessel(t), i, grants.Config{OnDemand: true, Changed: func(provider string, req backend.Request) {
				changed = append(changed, provider+"/"+req.ID)
			}})
			defer b.Close()
			var first string
			for range 10 {
				began := time.Now()
				_, err := b.Get(t.Context(), me)
				var e *backend.Error
				if !errors.As(err, &e) || e.Code != backend.CodeAuthRequired || e.Login == nil || e.Login.Status != backend.LoginPending || e.Login.Grant != nil {
					t.Fatalf("%+v", err)
				}
				if time.Since(began) != 0 {
					t.Error("it waits")
				}
				if !strings.Contains(err.Error(), "https://issuer.example/login") || device != strings.Contains(err.Error(), "ABCD-1") || time.Until(e.Login.Expires) <= 0 {
					t.Errorf("%v", err)
				}
				if first == "" {
					first = e.Login.State
				}
				if e.Login.State != first {
					t.Error("another login was begun")
				}
				time.Sleep(time.Second)
			}
			i.finish(first)
			time.Sleep(2 * time.Second) // nobody polls
			synctest.Wait()
			want(t, b, "access-c4nary-1")
			if !slices.Equal(changed, []string{"desk/me"}) {
				t.Errorf("changed: %q", changed)
			}
			if s, err := b.PollLogin(t.Context(), first); err != nil || s.Status != backend.LoginSuccess {
				t.Errorf("%+v %v", s, err)
			}
		})
	}
}

func TestLoginOnDemandThatEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		b := inMemory(t, vessel(t), i, grants.Config{OnDemand: true})
		defer b.Close()
		_, err := b.Get(t.Context(), me)
		var e *backend.Error
		if !errors.As(err, &e) || e.Login == nil {
			t.Fatal(err)
		}
		if err := b.CancelLogin(t.Context(), e.Login.State); err != nil {
			t.Fatal(err)
		}
		_, err = b.Get(t.Context(), me)
		var next *backend.Error
		if !errors.As(err, &next) || next.Login == nil || next.Login.State == e.Login.State {
			t.Errorf("%+v", next)
		}
	})
}

func TestLogout(t *testing.T) {
	t.Parallel()
	i := &issuer{}
	b := open(t, vessel(t), i, grants.Config{})
	_, err := b.Logout(t.Context(), me)
	fails(t, err, backend.ErrNotFound)
	enter(t, b, i, me)
	if revoked, err := b.Logout(t.Context(), me); err != nil || !revoked || !slices.Equal(i.revoked, []string{"refresh-c4nary-1"}) {
		t.Error(revoked, err, i.revoked)
	}
	_, err = b.Get(t.Context(), me)
	fails(t, err, backend.ErrAuthRequired)
}

// A logout that comes while a refresh is under way is the last word.
func TestLogoutDuringARefresh(t *testing.T) {
	t.Parallel()
	i := &issuer{hold: make(chan struct{}), entered: make(chan struct{}, 1)}
	w := vessel(t)
	b := open(t, w, i, grants.Config{})
	enterNow(t, b, i)
	refreshed := make(chan error, 1)
	go func() { refreshed <- b.Refresh(context.Background(), me) }()
	<-i.entered
	// Another host, or program, deletes it.
	if err := w.Delete(t.Context(), backend.Request{ID: "credresolve/desk/me"}, backend.Condition{}); err != nil {
		t.Fatal(err)
	}
	close(i.hold)
	fails(t, <-refreshed, backend.ErrAuthRequired, "was ended while it was refreshed")
	if !slices.Equal(i.revoked, []string{"refresh-c4nary-2"}) {
		t.Errorf("ended at the server: %q", i.revoked)
	}
	_, err := b.Get(t.Context(), me)
	fails(t, err, backend.ErrAuthRequired, "nobody has logged in")
}

// enterNow logs in at an issuer whose exchanges are held.
func enterNow(t testing.TB, b *grants.Backend, i *issuer) {
	t.Helper()
	i.mu.Lock()
	hold := i.hold
	i.hold = nil
	i.mu.Unlock()
	enter(t, b, i, me)
	i.mu.Lock()
	i.hold = hold
	i.mu.Unlock()
}

// A login that comes while a refresh fails is not marked by that.
func TestStaleRefusalMarksNothing(t *testing.T) {
	t.Parallel()
	for name, weakly := range map[string]bool{"by compare-and-swap": false, "in a store that does not compare": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := &issuer{hold: make(chan struct{}), entered: make(chan struct{}, 1)}
			var w backend.Writer = vessel(t)
			if weakly {
				w = weak{w}
			}
			a := open(t, w, i, grants.Config{})
			enterNow(t, a, i)
			refreshed := make(chan error, 1)
			go func() { refreshed <- a.Refresh(context.Background(), me) }()
			<-i.entered
			i.failing(backend.Errorf(backend.CodeAuthRequired, "invalid_grant"))
			other := open(t, w, i, grants.Config{}) // with a state directory of its own, as on another host
			enterNow(t, other, i)
			close(i.hold)
			if err := <-refreshed; err != nil {
				t.Errorf("the loser does not adopt what the winner keeps: %v", err)
			}
			for _, b := range []*grants.Backend{a, other} {
				want(t, b, "access-c4nary-2")
				if s, err := b.Status(t.Context(), me); err != nil || s.Status != grants.StatusActive {
					t.Errorf("%+v %v", s, err)
				}
			}
		})
	}
}
