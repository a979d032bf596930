package resolver

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// shelf is a store of secrets by id and subject, with a batch call.
type shelf struct {
	mu    sync.Mutex
	held  map[string]string // "id" or "id|tenant"; an absent one is not there
	calls [][]string
}

func newShelf(held map[string]string) *shelf { return &shelf{held: held} }

func (s *shelf) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	out, _ := s.GetBatch(ctx, []backend.Request{req})
	return out[0].Credential, out[0].Err
}

func (s *shelf) GetBatch(ctx context.Context, reqs []backend.Request) ([]backend.Result, error) {
	s.mu.Lock()
	var ids []string
	var out []backend.Result
	for _, req := range reqs {
		id := req.ID
		if req.Subject.Tenant != "" {
			id += "|" + req.Subject.Tenant
		}
		ids = append(ids, id)
		if text, ok := s.held[id]; ok {
			out = append(out, backend.Result{Credential: plain(text)})
		} else {
			out = append(out, backend.Result{Err: backend.Errorf(backend.CodeNotFound, "no")})
		}
	}
	slices.Sort(ids)
	s.calls = append(s.calls, ids)
	s.mu.Unlock()
	return out, pause(ctx, 20*time.Millisecond)
}

func (s *shelf) put(id, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text == "" {
		delete(s.held, id)
	} else {
		s.held[id] = text
	}
}

// take gives the calls since.
func (s *shelf) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := fmt.Sprint(s.calls)
	s.calls = nil
	return out
}

// told gives what a watch has told since, as "id kind", once everything has come to rest.
func told(events <-chan Event) (out []string) {
	time.Sleep(100 * time.Millisecond)
	for {
		synctest.Wait()
		select {
		case ev, open := <-events:
			if !open {
				return append(out, "closed")
			}
			text := ev.Ref.ID + " " + string(ev.Kind)
			if ev.Err != nil {
				text += " " + string(backend.CodeOf(ev.Err))
			}
			out = append(out, text)
		default:
			slices.Sort(out)
			return out
		}
	}
}

func wantTold(t testing.TB, what string, events <-chan Event, want ...string) {
	t.Helper()
	if got := told(events); !slices.Equal(got, want) {
		t.Errorf("%s: told %q, want %q", what, got, want)
	}
}

// Who watches what an open handle holds, or has looked for in vain, hears at once what there is after somebody has ended it.
func TestWhatIsPinnedIsFetchedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(map[string]string{"app/a": "c4nary-a", "app/b": "c4nary-b", "app/c": "c4nary-c", "x": "c4nary-x"})
		r := open(t, Provider{Backend: s, NegativeTTL: time.Second})
		events := r.Watch(t.Context(), ref("app/a"), ref("app/b"), ref("app/c"), ref("app/none"), ref("x"))
		var handles []*Handle
		for _, id := range []string{"app/a", "app/b", "app/none", "x"} {
			h := r.Handle(ref(id))
			handles = append(handles, h)
			h.Get(t.Context())
		}
		r.Resolve(t.Context(), ref("app/c"))
		wantTold(t, "at first", events, "app/a resolved", "app/b resolved", "app/c resolved", "app/none failed not_found", "x resolved")
		s.take()

		s.put("app/a", "c4nary-a2")
		if n := r.Forget(ref("app/a")); n != 1 {
			t.Errorf("%d forgotten", n)
		}
		wantTold(t, "forgotten", events, "app/a resolved")
		v, err := handles[0].Get(t.Context())
		want(t, v, err, "c4nary-a2")
		if got := s.take(); got != "[[app/a]]" {
			t.Errorf("calls %s", got)
		}
		time.Sleep(time.Minute)
		s.put("app/none", "c4nary-none")
		r.Wrote(ref("app/none"))
		wantTold(t, "written, and not there before", events, "app/none resolved")
		s.take()
		if n := r.Invalidate("p", "app/"); n != 4 {
			t.Errorf("%d invalidated", n)
		}
		wantTold(t, "invalidated", events, "app/a resolved", "app/b resolved", "app/c lapsed", "app/none resolved")
		if got := s.take(); got != "[[app/a app/b app/none]]" {
			t.Errorf("calls %s, want one for all that is held", got)
		}
		s.put("x", "")
		r.Wrote(ref("x"))
		wantTold(t, "deleted", events, "x failed not_found")
		for _, h := range handles {
			h.Close()
		}
		s.take()
		r.Invalidate("p", "")
		wantTold(t, "let go", events, "app/a lapsed", "app/b lapsed", "app/none lapsed")
		if got := s.take(); got != "[]" {
			t.Errorf("calls %s", got)
		}
		if n := len(r.pins); n != 0 {
			t.Errorf("%d left behind", n)
		}
	})
}

// A forget while a fetch is under way is followed by one that began after it.
func TestForgetOfWhatIsBeingFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("c4nary-old")
		r := open(t, Provider{Backend: s})
		events := r.Watch(t.Context(), ref("k"))
		h := r.Handle(ref("k"))
		defer h.Close()
		done := make(chan struct{})
		go func() {
			defer close(done)
			v, err := h.Get(context.Background())
			want(t, v, err, "c4nary-old")
		}()
		time.Sleep(10 * time.Millisecond)
		s.set("c4nary-new")
		r.Forget(ref("k"))
		<-done
		wantTold(t, "", events, "k resolved")
		v, err := h.Get(t.Context())
		want(t, v, err, "c4nary-new")
		s.wantCalls(t, 2)
	})
}

func TestInvalidate(t *testing.T) {
	t.Parallel()
	r := openAll(t, map[string]Provider{"p": {Backend: slow(0), Scope: []Scope{ScopeTenant}}, "q": {Backend: slow(0)}})
	all := []credref.Ref{
		ref("app/a"), {Provider: "p", ID: "app/a", Version: "2"}, ref("apple"), ref("other"), {Provider: "q", ID: "app/a"},
	}
	for _, tenant := range []string{"", "t", "u"} {
		for _, k := range all {
			if _, err := r.For(credref.Subject{Tenant: tenant}).Resolve(t.Context(), k); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		provider, prefix string
		want             int
	}{{"p", "app/", 6}, {"p", "app/", 0}, {"none", "", 0}, {"p", "a", 3}, {"p", "", 3}, {"q", "", 1}} {
		if n := r.Invalidate(c.provider, c.prefix); n != c.want {
			t.Errorf("%s %q: %d, want %d", c.provider, c.prefix, n, c.want)
		}
	}
}

func TestWatchOutlivesApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newShelf(map[string]string{"a": "c4nary-1", "b": "c4nary-1"})
		keeps := Provider{Backend: newShelf(map[string]string{"a": "c4nary-2"}), Digest: "same"}
		r := openAll(t, map[string]Provider{"p": {Backend: old}, "gone": {Backend: old}, "kept": keeps})
		in := func(provider, id string) credref.Ref { return credref.Ref{Provider: provider, ID: id} }
		events := map[string]<-chan Event{}
		for _, name := range []string{"p", "gone", "kept", "new"} {
			events[name] = r.Watch(t.Context(), in(name, "a"), in(name, "a"))
		}
		all := r.Watch(t.Context())
		h := r.Handle(in("p", "a"))
		defer h.Close()
		h.Get(t.Context())
		r.ResolveAll(t.Context(), []credref.Ref{in("gone", "a"), in("kept", "a")})
		for name, ev := range events {
			want := "a resolved"
			if name == "new" {
				want = "a failed invalid_config"
			}
			wantTold(t, name, ev, want)
		}
		wantTold(t, "all", all, "a resolved", "a resolved", "a resolved")
		next := newShelf(map[string]string{"a": "c4nary-3", "users/t/a": "c4nary-4", "users/t/a|t": "c4nary-4"})
		apply := func(p Provider) {
			t.Helper()
			if err := r.Apply(Config{Providers: map[string]Provider{"p": p, "new": {Backend: next}, "kept": keeps}}); err != nil {
				t.Fatal(err)
			}
		}
		apply(Provider{Backend: next})
		wantTold(t, "replaced", events["p"], "a failed unavailable")
		wantTold(t, "removed", events["gone"], "a failed invalid_config")
		wantTold(t, "kept", events["kept"])
		wantTold(t, "added", events["new"])
		wantTold(t, "all", all, "a failed invalid_config", "a failed unavailable")
		r.Forget(ref("a")) // asks nobody by the old definition
		if got := next.take(); got != "[]" {
			t.Errorf("calls %s before anybody asked", got)
		}
		v, err := h.Get(t.Context())
		want(t, v, err, "c4nary-3")
		wantTold(t, "asked", events["p"], "a resolved")
		r.Resolve(t.Context(), in("new", "a"))
		wantTold(t, "added and asked", events["new"], "a resolved")

		// Where it is found may be another place than before.
		view := r.For(credref.Subject{Tenant: "t"})
		mine := view.Watch(t.Context(), ref("a"))
		hv := view.Handle(ref("a"))
		defer hv.Close()
		hv.Get(t.Context())
		wantTold(t, "a subject's", mine, "a resolved")
		apply(Provider{Backend: next, Scope: []Scope{ScopeTenant}, IDTemplate: "users/{tenant}/{id}"})
		wantTold(t, "replaced again", mine, "a failed unavailable")
		v, err = hv.Get(t.Context())
		want(t, v, err, "c4nary-4")
		wantTold(t, "found elsewhere", mine, "a resolved")
		next.take()
		r.Forget(ref("a"))
		wantTold(t, "forgotten", mine, "a resolved")
		if got := next.take(); got != "[[users/t/a|t]]" {
			t.Errorf("calls %s", got)
		}
		r.Close()
		wantTold(t, "closed", mine, "closed")
	})
}

// A watch of a ref that is looked for in several places tells of what is found.
func TestWatchOfSeveralPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(map[string]string{"k": "c4nary-all"})
		r := open(t, Provider{Backend: s, Scope: []Scope{ScopeTenant}, TTL: time.Hour, NegativeTTL: time.Second})
		mine, all := r.For(credref.Subject{Tenant: "t"}), r.For(credref.Subject{})
		events := mine.Watch(t.Context(), ref("k"))
		h := mine.Handle(ref("k"))
		defer h.Close()
		revision := func(w string) string {
			t.Helper()
			v, err := h.Get(t.Context())
			want(t, v, err, w)
			return v.Revision()
		}
		revision("c4nary-all")
		wantTold(t, "not in the narrow place, and found in the wide one", events, "k resolved")
		for range 5 { // that it is not in the narrow one is asked again and again
			time.Sleep(2 * time.Second)
			revision("c4nary-all")
		}
		wantTold(t, "still there", events)
		r.Forget(ref("k"))
		wantTold(t, "forgotten", events, "k resolved")

		s.put("k|t", "c4nary-t")
		r.Wrote(ref("k"))
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if ev := <-events; ev.Kind != EventResolved || ev.Revision != revision("c4nary-t") {
			t.Errorf("%+v", ev)
		}
		s.put("k", "c4nary-all2") // nothing to who has one of its own
		all.Forget(ref("k"))
		all.Resolve(t.Context(), ref("k"))
		wantTold(t, "another's", events)
		late := mine.Watch(t.Context(), ref("k"))
		if ev := <-late; ev.Kind != EventResolved || ev.Revision != revision("c4nary-t") {
			t.Errorf("%+v", ev)
		}
		wantTold(t, "once", late)

		s.put("k|t", "")
		mine.Forget(ref("k"))
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if ev := <-events; ev.Kind != EventResolved || ev.Revision != revision("c4nary-all2") {
			t.Errorf("%+v", ev)
		}
		s.put("k", "")
		r.Wrote(ref("k"))
		wantTold(t, "nowhere", events, "k failed not_found")
	})
}

// A watcher of everything that takes nothing holds a bounded number of events, the newest.
func TestWatchOfEverythingIsBounded(t *testing.T) {
	t.Parallel()
	w := &watcher{pending: map[credref.Ref]Event{}, wake: make(chan struct{}, 1)}
	for i := range 3 * maxPending {
		w.put(Event{Ref: ref(fmt.Sprint(i))})
		w.put(Event{Ref: ref(fmt.Sprint(i)), Kind: EventRotated})
	}
	if len(w.pending) != maxPending || len(w.order) != maxPending {
		t.Errorf("%d and %d wait", len(w.pending), len(w.order))
	}
	if n := cap(w.order); n > 4*maxPending {
		t.Errorf("room for %d", n)
	}
	for i := range maxPending {
		if ev, ok := w.take(); !ok || ev.Ref != ref(fmt.Sprint(2*maxPending+i)) || ev.Kind != EventRotated {
			t.Fatalf("%d: %+v", i, ev)
		}
	}
	if _, ok := w.take(); ok {
		t.Error("more than there was")
	}
}

// Ten thousand watchers cost an event of another key nothing, and leave nothing behind.
func TestManyWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 10_000
		r := open(t, Provider{Backend: slow(0)})
		ctx, cancel := context.WithCancel(t.Context())
		var channels []<-chan Event
		for i := range n {
			channels = append(channels, r.Watch(ctx, ref(fmt.Sprint(i)), credref.Ref{Provider: "p", ID: fmt.Sprint(i), Field: "f"}))
		}
		r.hub.mu.Lock()
		if k := (key{provider: "p", id: "77"}); len(r.hub.byKey) != n || len(r.hub.byKey[k]) != 1 {
			t.Errorf("%d keys, %d watchers of one", len(r.hub.byKey), len(r.hub.byKey[k]))
		}
		r.hub.mu.Unlock()
		if _, err := r.Resolve(t.Context(), ref("77")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		heard := 0
		for _, c := range channels {
			select {
			case <-c:
				heard++
			default:
			}
		}
		if heard != 1 {
			t.Errorf("%d heard of it", heard)
		}
		cancel()
		synctest.Wait()
		if len(r.hub.byKey) != 0 || len(r.hub.some) != 0 || r.Stats().ActiveWatches != 0 {
			t.Errorf("left behind: %d, %d, %d", len(r.hub.byKey), len(r.hub.some), r.Stats().ActiveWatches)
		}
	})
}
