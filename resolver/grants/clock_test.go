package grants_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/resolver/grants"
)

// in puts a time from now in the place of what w keeps of me under name.
func in(t testing.TB, w backend.Writer, name string, from time.Duration) {
	t.Helper()
	alter(t, w, "credresolve", `"`+name+`":"[^"]*"`, `"`+name+`":"`+time.Now().Add(from).UTC().Format(time.RFC3339Nano)+`"`)
}

// A clock that is set back by hours makes neither a pause nor a credential last for them.
func TestClockIsSetBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i, w := &issuer{ttl: time.Hour}, vessel(t)
		b := entered(t, w, i)
		in(t, w, "obtained", 3*time.Hour)
		in(t, w, "expires", 4*time.Hour)
		for range 3 {
			want(t, b, "access-c4nary-2") // of the one before nobody knows when it ends
		}
		if i.count() != 1 {
			t.Errorf("%d exchanges", i.count())
		}

		i.failing(backend.Errorf(backend.CodeUnavailable, "away"))
		time.Sleep(time.Hour)
		_, err := b.Get(t.Context(), me)
		fails(t, err, backend.ErrUnavailable)
		in(t, w, "failed", 3*time.Hour)
		_, err = b.Get(t.Context(), me)
		fails(t, err, backend.ErrUnavailable)
		if i.count() != 3 {
			t.Errorf("%d exchanges, want one more", i.count())
		}
		_, err = b.Get(t.Context(), me)
		fails(t, err, backend.ErrUnavailable, "is tried again at")
		if i.count() != 3 {
			t.Error("there is no pause any more")
		}
		in(t, w, "failed", 3*time.Hour)
		i.failing(nil)
		want(t, b, "access-c4nary-3")
	})
}

// A clock that goes ahead by hours, and a machine that sleeps past the end of a credential while its refresh is under way, cost an
// exchange, not a login.
func TestSleepAcrossTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i, w := &issuer{ttl: time.Hour, hold: make(chan struct{}), entered: make(chan struct{}, 1)}, vessel(t)
		b := inMemory(t, w, i, grants.Config{})
		defer b.Close()
		enterNow(t, b, i)
		time.Sleep(55 * time.Minute)
		done := make(chan string)
		go func() { done <- token(t, b, me) }()
		<-i.entered
		in(t, w, "expires", -5*time.Hour) // as it looks when the machine wakes up
		in(t, w, "until", -5*time.Hour)
		close(i.hold)
		if got := <-done; got != "access-c4nary-2" {
			t.Errorf("got %s", got)
		}
		want(t, b, "access-c4nary-2")
		if i.count() != 1 {
			t.Errorf("%d exchanges", i.count())
		}
	})
}

// panics makes f panic at the writes of which at says so.
func (f *faulty) panics(at func() bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = func() {
		if at() {
			panic("c4nary")
		}
	}
}

// A panic of the token store ends neither the process nor the login: what was exchanged is written later.
func TestStorePanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{ttl: time.Hour}
		w := &faulty{Writer: vessel(t)}
		b := entered(t, w, i)
		for _, last := range []int{1, 2} { // the write that says that an exchange begins, the one after it
			n := 0
			w.panics(func() bool { n++; return n >= last })
			err := b.Refresh(t.Context(), me)
			if backend.CodeOf(err) != backend.CodeInternal || strings.Contains(err.Error(), "c4nary") {
				t.Errorf("%v", err)
			}
		}
		w.panics(func() bool { return false })
		time.Sleep(time.Minute)
		want(t, b, "access-c4nary-2")
		if i.count() != 1 {
			t.Errorf("%d exchanges", i.count())
		}
	})
}

// A panic of an adapter that is asked how a login stands, by nobody's order, ends not the process.
func TestPollPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &unsteady{issuer{}}
		b := inMemory(t, vessel(t), i, grants.Config{})
		defer b.Close()
		s, err := b.StartLogin(t.Context(), me, backend.LoginOptions{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // it is followed
		if _, err := b.PollLogin(t.Context(), s.State); backend.CodeOf(err) != backend.CodeInternal || strings.Contains(err.Error(), "c4nary") {
			t.Errorf("%v", err)
		}
		if err := b.CancelLogin(t.Context(), s.State); backend.CodeOf(err) != backend.CodeInternal {
			t.Errorf("%v", err)
		}
	})
}

// unsteady is an issuer that panics when it is asked how a login stands.
type unsteady struct{ issuer }

func (*unsteady) PollLogin(context.Context, string) (backend.LoginState, error) { panic("c4nary") }
