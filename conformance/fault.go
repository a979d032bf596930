package conformance

import (
	"time"

	"github.com/credresolve/credresolve/backend"
)

func faultCases() []Case {
	fault := func(name, rule string, kind FaultKind, code backend.Code) Case {
		return Case{
			Name: "fault/" + name, Rule: rule, Needs: []string{"get/value"},
			run: func(t *trial) {
				b := t.open()
				id, v := t.stored()
				t.check(b, id, v)
				t.fault(Fault{Kind: kind})
				_, err := t.get(b, request(id))
				t.wantErr("Get", err, code)
			},
		}
	}
	return []Case{
		fault("denied", "what the store refuses is denied", FaultDeny, backend.CodeDenied),
		fault("locked", "a locked store is locked: nothing prompts, nothing waits", FaultLock, backend.CodeLocked),
		fault("throttled", "a store that is asked too often is throttled", FaultThrottle, backend.CodeThrottled),
		fault("unavailable", "a store that is gone is unavailable", FaultDisappear, backend.CodeUnavailable),
		fault("auth-required", "a login that is missing or refused is auth_required", FaultLogout, backend.CodeAuthRequired),
		{
			Name: "fault/retry-after", Rule: "how long the store asks to wait is passed on", Needs: []string{"fault/throttled"},
			run: func(t *trial) {
				t.need(!t.h.Limits.NoRetryAfter, "a store that says how long to wait", "Limits.NoRetryAfter says that this one does not")
				b := t.open()
				id, _ := t.stored()
				const wait = 7 * time.Second
				t.fault(Fault{Kind: FaultThrottle, RetryAfter: wait})
				_, err := t.get(b, request(id))
				if got := backend.RetryAfter(err); got != wait {
					t.Errorf("RetryAfter of the error: expected %v, saw %v", wait, got)
				}
			},
		},
		{
			Name: "fault/one-id", Rule: "a fault of one secret is no fault of the others", Needs: []string{"fault/denied"},
			run: func(t *trial) {
				b := t.open()
				bad, _ := t.stored()
				good, v := t.stored()
				t.fault(Fault{Kind: FaultDeny, ID: bad})
				_, err := t.get(b, request(bad))
				t.wantErr("Get of the secret that is refused", err, backend.CodeDenied)
				t.check(b, good, v)
			},
		},
		{
			Name: "fault/recovers", Rule: "when a fault is over, the same backend answers again", Needs: []string{"fault/unavailable"},
			run: func(t *trial) {
				b := t.open()
				id, v := t.stored()
				t.check(b, id, v)
				undo := t.fault(Fault{Kind: FaultDisappear})
				_, _ = t.get(b, request(id))
				undo()
				t.check(b, id, v)
			},
		},
	}
}
