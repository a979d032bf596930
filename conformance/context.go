package conformance

import (
	"context"
	"time"

	"github.com/credresolve/credresolve/backend"
)

func contextCases() []Case {
	return []Case{
		{
			Name: "context/ended", Rule: "under a context that has ended already a method gives its error", Needs: []string{"get/value"},
			run: func(t *trial) {
				b := t.open()
				id, v := t.stored()
				t.check(b, id, v)
				ctx, cancel := context.WithCancel(t.ctx)
				cancel()
				_, err := t.getIn(ctx, b, request(id))
				t.wantErr("Get under a canceled context", err, backend.CodeCanceled)
				ctx, cancel = context.WithDeadline(t.ctx, time.Now().Add(-time.Second))
				defer cancel()
				_, err = t.getIn(ctx, b, request(id))
				t.wantErr("Get after the deadline", err, backend.CodeTimeout)
			},
		},
		{
			Name: "context/cancel", Rule: "Get returns within 100 ms of a cancellation, also when the store hangs", Needs: []string{"context/ended"},
			run: func(t *trial) {
				b, id := t.hanging()
				t.returns("Get", backend.CodeCanceled, func(ctx context.Context) error {
					_, err := b.Get(ctx, request(id))
					return err
				})
			},
		},
		{
			Name: "context/deadline", Rule: "Get returns within 100 ms of its deadline, also when the store hangs", Needs: []string{"context/ended"},
			run: func(t *trial) {
				b, id := t.hanging()
				t.wantDeadline(func() backend.Backend { return b }, id, backend.CodeTimeout)
			},
		},
		{
			Name: "context/methods", Rule: "every method returns within 100 ms of a cancellation, also when the store hangs", Needs: []string{"context/cancel"},
			run: func(t *trial) {
				b, id := t.hanging()
				some := false
				try := func(name string, ok bool, f func(ctx context.Context) error) {
					if ok {
						some = true
						t.returns(name, backend.CodeCanceled, f)
					}
				}
				batch, ok := b.(backend.BatchGetter)
				try("GetBatch", ok, func(ctx context.Context) error {
					results, err := batch.GetBatch(ctx, requests(id))
					if err == nil && len(results) == 1 {
						err = results[0].Err
					}
					return err
				})
				prober, ok := b.(backend.Prober)
				try("Probe", ok, func(ctx context.Context) error { return prober.Probe(ctx) })
				checker, ok := b.(backend.Checker)
				try("CurrentVersion", ok, func(ctx context.Context) error {
					_, err := checker.CurrentVersion(ctx, request(id))
					return err
				})
				writer, ok := b.(backend.Writer)
				try("Put", ok, func(ctx context.Context) error {
					_, err := writer.Put(ctx, request(id), plainValue([]byte("x")), backend.Condition{})
					return err
				})
				try("Delete", ok, func(ctx context.Context) error { return writer.Delete(ctx, request(id), backend.Condition{}) })
				lister, ok := b.(backend.Lister)
				try("List", ok, func(ctx context.Context) error { return t.drain(ctx, lister, id) })
				renewer, ok := b.(backend.Renewer)
				lease := backend.Lease{ID: id, Duration: leaseTime, Renewable: true}
				try("Renew", ok, func(ctx context.Context) error {
					_, err := renewer.Renew(ctx, lease, 0)
					return err
				})
				revoker, ok := b.(backend.Revoker)
				try("Revoke", ok, func(ctx context.Context) error {
					return revoker.Revoke(ctx, request(id), &backend.Credential{Lease: &lease})
				})
				t.need(some, "a capability", "this backend has none beside Get")
			},
		},
	}
}

// hanging gives a backend that has worked, and the id of a secret in its store, which hangs now; or skips the case.
func (t *trial) hanging() (backend.Backend, string) {
	b := t.open()
	id, v := t.stored()
	t.check(b, id, v)
	t.fault(Fault{Kind: FaultHang})
	return b, id
}

// returns fails the case unless f gives the error of its context soon after that was canceled. What f gives before is not
// judged: not every method asks the store.
func (t *trial) returns(what string, code backend.Code, f func(ctx context.Context) error) {
	t.at("in " + what + " of a store that hangs")
	early := false
	took, err := fastest(func() (time.Duration, error) {
		ctx, cancel := context.WithCancel(t.ctx)
		defer cancel()
		done := t.after(ctx, func() error { return f(ctx) })
		select {
		case err := <-done:
			early = true
			return 0, err
		case <-time.After(10 * time.Millisecond):
		}
		cancel()
		start := time.Now()
		err := <-done
		return time.Since(start), err
	})
	switch {
	case took > promptly:
		t.Errorf("%s: expected its return within %v of the cancellation, saw none", what, promptly)
	case !early:
		t.wantErr(what+" after a cancellation", err, code)
	}
}

// wantDeadline fails the case unless a Get of a backend that hangs returns soon after its deadline, with one of the codes.
func (t *trial) wantDeadline(hanging func() backend.Backend, id string, codes ...backend.Code) {
	took, err := fastest(func() (time.Duration, error) {
		b := hanging()
		t.at("in Get of a store that hangs")
		ctx, cancel := context.WithTimeout(t.ctx, 20*time.Millisecond)
		defer cancel()
		err := <-t.after(ctx, func() error {
			_, err := b.Get(ctx, request(id))
			return err
		})
		end, _ := ctx.Deadline()
		return time.Since(end), err
	})
	if took > promptly {
		t.Errorf("Get: expected its return within %v of the deadline, saw none", promptly)
		return
	}
	t.wantErr("Get after its deadline", err, codes...)
}

// after calls f and passes its error on, or some error when f does not return soon after ctx ended.
func (t *trial) after(ctx context.Context, f func() error) <-chan error {
	returned, done := make(chan error, 1), make(chan error, 1)
	t.spawn(func() { returned <- f() })
	t.spawn(func() {
		select {
		case err := <-returned:
			done <- err
			return
		case <-ctx.Done():
		}
		select {
		case err := <-returned:
			done <- err
		case <-time.After(2 * promptly):
			done <- ctx.Err()
		}
	})
	return done
}

// fastest gives the shortest of up to three tries, fewer when one is prompt: a busy machine may delay one.
func fastest(try func() (time.Duration, error)) (time.Duration, error) {
	took, err := try()
	for range 2 {
		if took <= promptly {
			break
		}
		if again, e := try(); again < took {
			took, err = again, e
		}
	}
	return took, err
}
