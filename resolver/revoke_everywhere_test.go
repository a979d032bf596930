package resolver

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// A revocation ends a credential at once, in the cache, in handles and views, in what may be remembered elsewhere and to watchers,
// also when its store fails; then it is owed, and a later try ends it there.
func TestRevokeEndsEveryCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down, gone := true, 0
		s := newScript("c4nary-1")
		store := &revoker{get: s.Get, revoke: func(*backend.Credential) error {
			if down {
				return errDown
			}
			gone++
			return nil
		}}
		ended := 0
		r, err := New(Config{
			Providers: map[string]Provider{"p": {Backend: store, Digest: "d", TTL: time.Hour, MaxStale: time.Hour, Retries: -1}},
			OnChange: func(c Change) {
				if c == ChangeEnded {
					ended++
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		h, view := r.Handle(ref("k")), r.For(credref.Subject{Tenant: "t"})
		defer h.Close()
		v, err := h.Get(t.Context())
		want(t, v, err, "c4nary-1")
		if n := len(r.Snapshot()); n != 1 {
			t.Fatalf("%d remembered", n)
		}
		events := r.Watch(t.Context(), ref("k"))
		wantTold(t, "before", events, "k resolved")

		s.failWith(backend.CodeUnavailable) // so that nothing new hides what is left of the old
		wantCode(t, r.Revoke(t.Context(), ref("k")), backend.CodeUnavailable)
		wantTold(t, "revoked", events, "k revoked")
		if _, err := h.Get(t.Context()); backend.CodeOf(err) != backend.CodeUnavailable {
			t.Errorf("the handle gives %v", err)
		}
		if _, err := view.Resolve(t.Context(), ref("k")); backend.CodeOf(err) != backend.CodeUnavailable {
			t.Errorf("the view gives %v", err)
		}
		if cached := r.Cached(&credref.Ref{Provider: "p", ID: "k"}); cached != nil || len(r.Snapshot()) != 0 || ended == 0 {
			t.Errorf("cached %v, remembered %d, told of %d ends", cached, len(r.Snapshot()), ended)
		}
		down = false
		if err := r.Revoke(t.Context(), ref("k")); err != nil || gone != 1 {
			t.Errorf("the next try ended %d, %v", gone, err)
		}
		wantCode(t, r.Revoke(t.Context(), ref("k")), backend.CodeNotFound)
	})
}

// Amid a rotation a revocation ends the versions beside the one that is served, too: nothing that was read before is given after it.
func TestRevokeDuringARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &rotating{}
		s.set("current", "pending", "previous")
		r := open(t, Provider{Backend: s, TTL: time.Hour, MaxStale: time.Hour})
		h := r.Handle(ref("k"))
		defer h.Close()
		current, err := h.Get(t.Context())
		want(t, current, err, "current")
		pending, err := r.Report(t.Context(), ref("k"), current.Revision())
		want(t, pending, err, "pending")
		if err := r.Revoke(t.Context(), ref("k")); backend.CodeOf(err) != backend.CodeUnsupported { // such a store ends nothing
			t.Fatal(err)
		}
		s.set("new")
		s.wantCalls(t, 2, 1)
		for _, revision := range []string{current.Revision(), pending.Revision(), "another"} {
			v, err := r.Report(t.Context(), ref("k"), revision)
			want(t, v, err, "new")
		}
		v, err := h.Get(t.Context())
		want(t, v, err, "new")
		s.wantCalls(t, 1, 0)
	})
}
