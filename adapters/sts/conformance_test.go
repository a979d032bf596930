package sts_test

import (
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/sts"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
	"github.com/credresolve/credresolve/internal/conformancetest"
	"github.com/credresolve/credresolve/internal/mototest"
)

// AWS makes the values: nothing is put, so that the cases about what was put do not apply.
func TestConformance(t *testing.T) {
	p := mototest.New(t)
	conformancetest.Run(t, "sts", conformance.Harness{
		Open: func(t conformance.T, dial *conformance.Dialer) backend.Backend {
			c := basic(p)
			c.Endpoint = "http://" + dial.Through(strings.TrimPrefix(p.URL, "http://"))
			b, err := sts.New(c, backend.Host{})
			if err != nil {
				t.Fatalf("opening: %v", err)
			}
			return b
		},
		Fault: func(t conformance.T, f conformance.Fault) func() {
			fault := map[conformance.FaultKind]mototest.Fault{
				conformance.FaultDeny:      mototest.RefuseXML(403, "AccessDenied", canary),
				conformance.FaultThrottle:  mototest.RefuseXML(400, "Throttling", canary),
				conformance.FaultHang:      mototest.Hang,
				conformance.FaultDisappear: mototest.Raw(503, "text/html", canary),
				conformance.FaultLogout:    mototest.RefuseXML(403, "InvalidClientTokenId", canary),
			}[f.Kind]
			if fault == nil || f.ID != "" {
				return nil
			}
			return p.Break(func(mototest.Call) mototest.Fault { return fault })
		},
		ID:         func(name string) string { return "arn:aws:iam::123456789012:role/" + name },
		InvalidIDs: []string{"a name", "ü", "arn:aws:s3:::bucket", strings.Repeat("a", 65)},
		Secrets:    [][]byte{[]byte(canary)},
		Limits:     conformance.Limits{NoRetryAfter: true},
		CaseTime:   time.Minute,
	})
}
