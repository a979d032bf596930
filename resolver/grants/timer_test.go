package grants_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/resolver/grants"
)

// hung is an issuer of which nothing comes back, as long as it is asked to wait.
type hung struct {
	issuer
	deaf atomic.Bool // also when it is not
	heal chan struct{}
}

func (h *hung) Refresh(ctx context.Context, req backend.Request, have *backend.Grant) (*backend.Grant, error) {
	if h.deaf.Load() {
		ctx = context.WithoutCancel(ctx)
	}
	select {
	case <-h.heal:
		return h.issuer.Refresh(ctx, req, have)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (h *hung) StartLogin(ctx context.Context, req backend.Request, o backend.LoginOptions) (backend.LoginState, error) {
	if !o.Device {
		return h.issuer.StartLogin(ctx, req, o)
	}
	<-ctx.Done()
	return backend.LoginState{}, ctx.Err()
}

// Who asks how a login stands waits no longer than it wants to, also while what the login gave is being kept.
func TestPollWhileTheStoreHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &faulty{Writer: vessel(t)}
		var hangs atomic.Bool
		heal := make(chan struct{})
		store.set(nil, func(int) error {
			if hangs.Load() {
				<-heal
			}
			return nil
		})
		i := &issuer{}
		b := inMemory(t, store, i, grants.Config{})
		defer b.Close()
		s, err := b.StartLogin(t.Context(), me, backend.LoginOptions{})
		if err != nil {
			t.Fatal(err)
		}
		hangs.Store(true)
		i.finish(s.State)
		time.Sleep(10 * time.Second) // the follower is at it
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if s, err := b.PollLogin(ctx, s.State); !errors.Is(err, context.DeadlineExceeded) || s.Status != backend.LoginPending || time.Since(began) != time.Second {
			t.Errorf("after %v: %+v, %v", time.Since(began), s, err)
		}
		hangs.Store(false)
		close(heal)
		synctest.Wait()
		if s, err := b.PollLogin(t.Context(), s.State); err != nil || s.Status != backend.LoginSuccess {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

// While the credential is good, who asks waits for its successor for ten seconds at most, and gets the one that there is.
func TestSlowRefreshOfWhatIsGood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &hung{issuer: issuer{ttl: time.Hour}, heal: make(chan struct{})}
		b := inMemory(t, vessel(t), i, grants.Config{})
		defer b.Close()
		enter(t, b, &i.issuer, me)
		time.Sleep(55 * time.Minute)
		began := time.Now()
		c := want(t, b, "access-c4nary-1")
		if waited := time.Since(began); waited != 10*time.Second || c.Metadata[grants.Warning] != "refreshing" {
			t.Errorf("after %v: %v", waited, c.Metadata)
		}
		time.Sleep(20 * time.Second)
		close(i.heal)
		synctest.Wait()
		began = time.Now()
		if want(t, b, "access-c4nary-2"); time.Since(began) != 0 || i.count() != 1 {
			t.Errorf("after %v, %d exchanges", time.Since(began), i.count())
		}
	})
}

// An exchange that never comes back ends, with an error, before the lease of the record does, and is tried again later.
func TestRefreshThatNeverEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &hung{issuer: issuer{ttl: time.Hour}, heal: make(chan struct{})}
		b := inMemory(t, vessel(t), i, grants.Config{})
		defer b.Close()
		enter(t, b, &i.issuer, me)
		time.Sleep(time.Hour)
		began := time.Now()
		_, err := b.Get(context.Background(), me)
		if waited := time.Since(began); err == nil || errors.Is(err, backend.ErrAuthRequired) || waited != 75*time.Second {
			t.Errorf("after %v: %v", waited, err)
		}
		close(i.heal)
		time.Sleep(2 * time.Second)
		want(t, b, "access-c4nary-2")
	})
}

// Close waits for an exchange under way, whose token would be lost, but not for ever.
func TestCloseDuringAnExchangeThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &hung{issuer: issuer{ttl: time.Hour}, heal: make(chan struct{})}
		b := inMemory(t, vessel(t), i, grants.Config{})
		enter(t, b, &i.issuer, me)
		refreshed := make(chan error, 1)
		go func() { refreshed <- b.Refresh(context.Background(), me) }()
		synctest.Wait()
		began := time.Now()
		if err := b.Close(); err != nil || time.Since(began) != 10*time.Second {
			t.Errorf("closed after %v: %v", time.Since(began), err)
		}
		if err := <-refreshed; err == nil {
			t.Error("a refresh that did not end succeeded")
		}
	})
}

// A server that does not begin a login holds up who resolves for ten seconds at most, and who comes meanwhile no longer.
func TestLoginOnDemandThatDoesNotBegin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := inMemory(t, vessel(t), &hung{}, grants.Config{OnDemand: true})
		defer b.Close()
		began := time.Now()
		for _, late := range []time.Duration{0, 4 * time.Second} {
			go func() {
				time.Sleep(late)
				_, err := b.Get(context.Background(), me)
				var e *backend.Error
				if !errors.As(err, &e) || e.Code != backend.CodeAuthRequired || e.Login != nil || time.Since(began) != 10*time.Second {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
			}()
		}
		time.Sleep(time.Minute)
	})
}

// How a login ended can be asked for ten minutes; then nobody knows it any more.
func TestOutcomeOfALoginIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		b := inMemory(t, vessel(t), i, grants.Config{})
		defer b.Close()
		s, err := b.StartLogin(t.Context(), me, backend.LoginOptions{})
		if err != nil {
			t.Fatal(err)
		}
		i.finish(s.State)
		time.Sleep(10 * time.Minute)
		if now, err := b.PollLogin(t.Context(), s.State); err != nil || now.Status != backend.LoginSuccess {
			t.Errorf("%+v, %v", now, err)
		}
		time.Sleep(2 * time.Second)
		_, err = b.PollLogin(t.Context(), s.State)
		fails(t, err, backend.ErrNotFound)
	})
}
