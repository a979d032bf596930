package conformance

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/credresolve/credresolve/backend"
)

func watchCases() []Case {
	const capWatch = "watch"
	return []Case{
		{
			Name: "watch/first", Capability: capWatch, Rule: "Watch calls once for each request when it is in place", Needs: []string{"get/value"},
			run: func(t *trial) {
				b := t.watcher()
				id1, _ := t.stored()
				id2, _ := t.stored()
				w := t.watch(b, nil, id1, id2)
				w.called(id1, 1)
				w.called(id2, 1)
			},
		},
		{
			Name: "watch/ends", Capability: capWatch, Rule: "Watch ends with the error of its context, soon after that ended", Needs: []string{"watch/first"},
			run: func(t *trial) {
				b := t.watcher()
				id, _ := t.stored()
				w := t.watch(b, nil, id)
				w.called(id, 1)
				w.cancel()
				w.ended(promptly, backend.CodeCanceled)
			},
		},
		{
			Name: "watch/change", Capability: capWatch, Rule: "after a change comes a call for that request, and a Get then shows the change", Needs: []string{"watch/first", "get/fresh"},
			run: func(t *trial) {
				b := t.watcher()
				id, _ := t.stored()
				w := t.watch(b, nil, id)
				w.called(id, 1)
				pause(maxPause) // what happens at once is the matter of watch/gap
				next := t.canary()
				t.put(id, next)
				w.called(id, 2)
				t.check(b, id, next)
			},
		},
		{
			Name: "watch/gap", Capability: capWatch, Rule: "a change between the first call and the fetch that it leads to is not missed", Needs: []string{"watch/change"},
			run: func(t *trial) {
				b := t.watcher()
				id, _ := t.stored()
				var once sync.Once
				w := t.watch(b, func() { once.Do(func() { t.h.Put(t, id, plainValue(t.canary())) }) }, id)
				w.called(id, 2)
			},
		},
		{
			Name: "watch/burst", Capability: capWatch, Rule: "after the last of many changes comes a call", Needs: []string{"watch/gap"},
			run: func(t *trial) {
				b := t.watcher()
				id, v := t.stored()
				var seen atomic.Pointer[[]byte]
				w := t.watch(b, func() {
					pause(2 * time.Millisecond) // so that changes come while a call is under way
					if c, err := b.Get(t.ctx, request(id)); err == nil {
						s, _ := plainOf(c)
						text := s.Reveal()
						seen.Store(&text)
					}
				}, id)
				w.called(id, 1)
				for range 2 {
					for range 10 {
						v = t.canary()
						t.put(id, v)
					}
					if !eventually(w.patience, func() bool { s := seen.Load(); return s != nil && string(*s) == string(v) }) {
						t.Fatalf("10 changes: expected a call after the last, saw none within %v", w.patience)
					}
				}
			},
		},
		{
			Name: "watch/gone", Capability: capWatch, Rule: "a secret that goes, or comes, is a change", Needs: []string{"watch/gap", "get/removed"},
			run: func(t *trial) {
				b := t.watcher()
				id, _ := t.stored()
				w := t.watch(b, nil, id)
				w.called(id, 1)
				t.remove(id)
				w.called(id, 2)
				n := w.calls(id)
				t.put(id, t.canary())
				w.called(id, n+1)
			},
		},
		{
			Name: "watch/each", Capability: capWatch, Rule: "a change of one secret is told of its request, not of the others", Needs: []string{"watch/gap"},
			run: func(t *trial) {
				b := t.watcher()
				id1, _ := t.stored()
				id2, _ := t.stored()
				w := t.watch(b, nil, id1, id2)
				w.called(id1, 1)
				w.called(id2, 1)
				t.put(id2, t.canary())
				w.called(id2, 2)
				if n := w.calls(id1); n != 1 {
					t.Errorf("a request whose secret did not change: expected no further call, saw %d", n-1)
				}
			},
		},
		{
			Name: "watch/serial", Capability: capWatch, Rule: "Watch never calls twice at once", Needs: []string{"watch/gap"},
			run: func(t *trial) {
				b := t.watcher()
				id1, _ := t.stored()
				id2, _ := t.stored()
				var at, most atomic.Int32
				w := t.watch(b, func() {
					most.Store(max(most.Load(), at.Add(1)))
					pause(5 * time.Millisecond)
					at.Add(-1)
				}, id1, id2)
				for i := range 3 {
					w.called(id1, 1+i)
					t.put(id1, t.canary())
					t.put(id2, t.canary())
				}
				w.called(id1, 2)
				w.called(id2, 2)
				if most.Load() > 1 {
					t.Errorf("calls at once: expected 1, saw %d", most.Load())
				}
			},
		},
	}
}

// watching is a Watch under way.
type watching struct {
	t        *trial
	cancel   context.CancelFunc
	done     chan error
	patience time.Duration

	mu   sync.Mutex
	seen map[string]int
}

func (t *trial) watcher() backend.Watcher { return capability[backend.Watcher](t, t.open(), "watch") }

// watch starts a Watch, which ends with the case. Each call calls also too, when that is not nil.
func (t *trial) watch(b backend.Watcher, also func(), ids ...string) *watching {
	t.need(t.h.Put != nil, "a way to store a secret", "set Harness.Put")
	ctx, cancel := context.WithCancel(t.ctx)
	w := &watching{t: t, cancel: cancel, done: make(chan error, 1), patience: min(3*someTime, t.h.caseTime()/2), seen: make(map[string]int)}
	t.Cleanup(cancel)
	t.spawn(func() {
		w.done <- b.Watch(ctx, requests(ids...), func(req backend.Request) {
			t.alive()
			w.mu.Lock()
			w.seen[req.ID]++
			w.mu.Unlock()
			if also != nil {
				also()
			}
		})
	})
	return w
}

func (w *watching) calls(id string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[id]
}

// called waits for the nth call about id, or ends the case.
func (w *watching) called(id string, n int) {
	w.t.at("waiting for a call from Watch")
	ended := false
	var err error
	if !eventually(w.patience, func() bool {
		select {
		case err = <-w.done:
			ended = true
		default:
		}
		return ended || w.calls(id) >= n
	}) {
		w.t.Fatalf("Watch: expected %d calls about a request, saw %d within %v", n, w.calls(id), w.patience)
	}
	if ended {
		w.t.supported(err, "watch")
		w.t.Fatalf("Watch: expected it to go on, saw it end with %s", w.t.sawErr(err))
	}
}

func (w *watching) ended(limit time.Duration, codes ...backend.Code) {
	w.t.at("waiting for the end of Watch")
	select {
	case err := <-w.done:
		w.t.wantErr("Watch", err, codes...)
	case <-time.After(limit):
		w.t.Errorf("Watch: expected its end within %v, saw it go on", limit)
	}
}
