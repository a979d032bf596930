package conformance

import (
	"context"
	"time"

	"github.com/credresolve/credresolve/backend"
)

func concurrencyCases() []Case {
	return []Case{
		{
			Name: "concurrent/get", Rule: "Gets at once each give their own secret", Needs: []string{"get/identity"},
			run: func(t *trial) {
				b := t.open()
				ids, values := t.several(4)
				t.at("in 8 Gets at once")
				t.all(8, func(i int) {
					for n := range 5 {
						k := (i + n) % len(ids)
						c, err := b.Get(t.ctx, request(ids[k]))
						if err != nil || c == nil {
							t.Errorf("one of many Gets at once: expected a credential, saw %s", t.saw(c, err))
							return
						}
						t.wantPlain("one of many Gets at once", c, values[k])
					}
				})
			},
		},
		{
			Name: "concurrent/methods", Rule: "all methods may be called at once, which the race detector watches", Needs: []string{"concurrent/get"},
			run: func(t *trial) {
				b := t.open()
				id, v := t.stored()
				var others []func()
				add := func(ok bool, f func()) {
					if ok {
						others = append(others, f)
					}
				}
				batch, ok := b.(backend.BatchGetter)
				add(ok, func() { _, _ = batch.GetBatch(t.ctx, requests(id, id)) })
				prober, ok := b.(backend.Prober)
				add(ok, func() { _ = prober.Probe(t.ctx) })
				checker, ok := b.(backend.Checker)
				add(ok, func() { _, _ = checker.CurrentVersion(t.ctx, request(id)) })
				lister, ok := b.(backend.Lister)
				add(ok, func() { _ = t.drain(t.ctx, lister, id) })
				writer, ok := b.(backend.Writer)
				written := t.id("written")
				add(ok, func() { _, _ = writer.Put(t.ctx, request(written), plainValue([]byte("v")), backend.Condition{}) })
				add(ok, func() { _ = writer.Delete(t.ctx, request(written), backend.Condition{}) })
				watcher, ok := b.(backend.Watcher)
				add(ok, func() {
					ctx, cancel := context.WithTimeout(t.ctx, 10*time.Millisecond)
					defer cancel()
					_ = watcher.Watch(ctx, requests(id), func(backend.Request) {})
				})
				add(true, func() { backend.Describe(b) })
				t.at("in all methods at once")
				t.all(2*len(others), func(i int) {
					others[i/2]()
					c, err := b.Get(t.ctx, request(id))
					if err != nil || c == nil {
						t.Errorf("Get while other methods run: expected a credential, saw %s", t.saw(c, err))
						return
					}
					t.wantPlain("Get while other methods run", c, v)
				})
			},
		},
		{
			Name: "concurrent/one-hangs", Rule: "a Get that hangs does not hold up another", Needs: []string{"concurrent/get", "context/cancel"},
			run: func(t *trial) {
				b := t.open()
				stuck, _ := t.stored()
				id, v := t.stored()
				t.check(b, id, v)
				t.fault(Fault{Kind: FaultHang, ID: stuck})
				ctx, cancel := context.WithCancel(t.ctx)
				defer cancel()
				for range 3 {
					t.spawn(func() { _, _ = b.Get(ctx, request(stuck)) })
				}
				pause(maxPause / 2)
				t.at("in Get while another hangs")
				if !t.within(someTime, func() { t.check(b, id, v) }) {
					t.Errorf("Get while another hangs: expected an answer within %v, saw none", someTime)
				}
			},
		},
	}
}
