package conformance

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// networkTime is how long a backend has for a Get over a broken network, before its context ends.
const networkTime = 500 * time.Millisecond

func networkCases() []Case {
	const capNetwork, capHTTP = "network", "http"
	// broken is a case in which the first request of a backend meets a broken line.
	broken := func(name, rule string, k lineKind) Case {
		return Case{
			Name: "network/" + name, Capability: capNetwork, Rule: rule, Needs: []string{"get/value"},
			run: func(t *trial) {
				id := t.overNetwork()
				d := t.dialer()
				d.set(line{kind: k})
				b := t.openThrough(d)
				t.wantErr("Get", t.getBroken(b, id), backend.CodeUnavailable)
			},
		}
	}
	answer := func(name, rule, head, body string, judge func(t *trial, err error)) Case {
		return Case{
			Name: "http/" + name, Capability: capHTTP, Rule: rule, Needs: []string{"get/value"},
			run: func(t *trial) {
				id := t.overNetwork()
				d := t.dialer()
				text := strings.ReplaceAll(body, "CANARY", string(t.canary()))
				d.set(line{kind: lineAnswer, answer: fmt.Appendf(nil, "HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s", head, len(text), text)})
				b := t.openThrough(d)
				err := t.getBroken(b, id)
				_, inHTTP := d.repeated()
				t.need(inHTTP, "a store that speaks HTTP", "open it without TLS for these cases")
				judge(t, err)
			},
		}
	}
	const (
		throttled = "429 Too Many Requests\r\nRetry-After: 7\r\nContent-Type: application/json"
		down      = "503 Service Unavailable\r\nRetry-After: 7\r\nContent-Type: application/json"
		failed    = `{"errors": ["the store says CANARY"], "message": "CANARY", "__type": "CANARY"}`
	)
	return []Case{
		broken("refused", "a store that refuses connections is unavailable", lineRefuse),
		broken("reset", "a connection that is reset makes a Get unavailable", lineReset),
		{
			Name: "network/half-open", Capability: capNetwork, Rule: "a store that takes connections and never answers holds a Get no longer than its context",
			Needs: []string{"get/value", "context/deadline"},
			run: func(t *trial) {
				id := t.overNetwork()
				d := t.dialer()
				d.set(line{kind: lineHalfOpen})
				t.wantDeadline(func() backend.Backend { return t.openThrough(d) }, id, backend.CodeTimeout, backend.CodeUnavailable)
			},
		},
		broken("garbage", "noise instead of an answer is unavailable", lineGarbage),
		{
			Name: "network/truncated", Capability: capNetwork, Rule: "an answer that is cut short is unavailable, never a short secret", Needs: []string{"get/value"},
			run: func(t *trial) {
				t.overNetwork()
				size := 64 << 10
				if most := t.h.Limits.MaxValue; most > 0 {
					size = min(size, int(most))
				}
				t.need(size >= 1<<10, "a store that holds values of 1 KiB", "Limits.MaxValue says that this one does not")
				id := t.id("large")
				t.put(id, randomText(size))
				d := t.dialer()
				left := new(atomic.Int64)
				left.Store(int64(size) * 3 / 4)
				d.set(line{kind: lineTruncate, left: left})
				err := t.getBroken(t.openThrough(d), id)
				t.wantErr("Get of a large value", err, backend.CodeUnavailable)
			},
		},
		{
			Name: "network/slow", Capability: capNetwork, Rule: "an answer that comes in small pieces is an answer", Needs: []string{"get/value"},
			run: func(t *trial) {
				t.overNetwork()
				id := t.id("slow")
				v := randomText(2 << 10)
				if most := t.h.Limits.MaxValue; most > 0 {
					v = v[:min(int64(len(v)), most)]
				}
				t.put(id, v)
				d := t.dialer()
				d.set(line{kind: lineSlow})
				t.check(t.openThrough(d), id, v)
			},
		},
		{
			Name: "network/recovers", Capability: capNetwork, Rule: "when the network is back, the same backend answers again, also over connections that died meanwhile",
			Needs: []string{"network/refused", "network/reset"},
			run: func(t *trial) {
				d := t.dialer()
				b := t.openThrough(d)
				id, v := t.stored()
				t.check(b, id, v)
				t.need(d.accepted.Load() > 0, "a store that is reached over the network", "let Harness.Open connect through its Dialer")
				for _, k := range []lineKind{lineRefuse, lineReset} {
					d.set(line{kind: k})
					_ = t.getBroken(b, id)
					d.set(line{})
					t.check(b, id, v)
				}
			},
		},
		answer("throttled", "status 429 is throttled, with its Retry-After", throttled, failed, func(t *trial, err error) {
			t.wantErr("Get", err, backend.CodeThrottled)
			if got := backend.RetryAfter(err); got != 7*time.Second {
				t.Errorf("RetryAfter of the error: expected 7s, saw %v", got)
			}
		}),
		answer("unavailable", "status 503 is unavailable, with its Retry-After", down, failed, func(t *trial, err error) {
			t.wantErr("Get", err, backend.CodeUnavailable)
			if got := backend.RetryAfter(err); got != 7*time.Second {
				t.Errorf("RetryAfter of the error: expected 7s, saw %v", got)
			}
		}),
		answer("page", "a page of HTML where the store should answer is unavailable", "200 OK\r\nContent-Type: text/html", "<html><body>Sign in to the network: CANARY</body></html>", func(t *trial, err error) {
			t.wantErr("Get", err, backend.CodeUnavailable)
		}),
		answer("body", "no error holds what a response said", "500 Internal Server Error\r\nContent-Type: application/json", failed, func(t *trial, err error) {
			if err == nil {
				t.Errorf("Get: expected an error, saw none")
			}
			t.hidesErr("the error of Get", err)
		}),
		{
			Name: "http/no-retry", Capability: capHTTP, Rule: "nothing is retried: one Get asks the store the same at most once", Needs: []string{"http/unavailable"},
			run: func(t *trial) {
				id := t.overNetwork()
				d := t.dialer()
				d.set(line{kind: lineAnswer, answer: fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")})
				_ = t.getBroken(t.openThrough(d), id)
				times, inHTTP := d.repeated()
				t.need(inHTTP, "a store that speaks HTTP", "open it without TLS for these cases")
				if times > 1 {
					t.Errorf("one Get of a store that answers 503: expected each request once, saw one of them %d times", times)
				}
			},
		},
	}
}

// overNetwork gives the id of a secret that a backend has read over the network, or skips the case.
func (t *trial) overNetwork() (id string) {
	t.need(!t.h.Private, "a store that is reached over the network", "Harness.Private says that this one is not")
	d := t.dialer()
	b := t.openThrough(d)
	id, v := t.stored()
	t.check(b, id, v)
	t.need(d.accepted.Load() > 0, "a store that is reached over the network", "let Harness.Open connect through its Dialer")
	return id
}

// getBroken gives the error of a Get over a broken line, and ends the case when it outlives its context by far.
func (t *trial) getBroken(b backend.Backend, id string) error {
	ctx, cancel := context.WithTimeout(t.ctx, networkTime)
	defer cancel()
	done := make(chan error, 1)
	t.at("in Get over a broken network")
	t.spawn(func() {
		_, err := b.Get(ctx, request(id))
		done <- err
	})
	select {
	case err := <-done:
		return err
	case <-time.After(networkTime + someTime):
		t.Fatalf("Get over a broken network: expected its return within %v, saw none", networkTime)
		return nil
	}
}

func tlsCases() []Case {
	const capTLS = "tls"
	refused := func(name, rule string, cert certKind) Case {
		return Case{
			Name: "tls/" + name, Capability: capTLS, Rule: rule, Needs: []string{"tls/trusted"},
			run: func(t *trial) {
				d := t.tlsDialer()
				d.set(line{cert: cert})
				b := t.closing(t.h.OpenTLS(t, d))
				id, _ := t.stored()
				t.wantErr("Get", t.getBroken(b, id), backend.CodeUnavailable)
			},
		}
	}
	return []Case{
		{
			Name: "tls/trusted", Capability: capTLS, Rule: "a store is trusted that shows a certificate of the authority that was configured", Needs: []string{"get/value"},
			run: func(t *trial) {
				d := t.tlsDialer()
				b := t.closing(t.h.OpenTLS(t, d))
				id, v := t.stored()
				t.check(b, id, v)
			},
		},
		refused("authority", "a certificate of another authority is unavailable", certUnknownAuthority),
		refused("name", "a certificate for another name is unavailable", certOtherName),
		refused("expired", "a certificate that has expired is unavailable", certExpired),
	}
}

// tlsDialer gives a way to the store that speaks TLS to the backend, or skips the case.
func (t *trial) tlsDialer() *Dialer {
	t.need(t.h.OpenTLS != nil, "a backend that speaks TLS", "set Harness.OpenTLS")
	is, err := newIssuer()
	if err != nil {
		t.Fatalf("the suite cannot make certificates: %v", err)
	}
	d := newDialer(t.recorder, is)
	t.Cleanup(d.close)
	t.at("opening a backend that speaks TLS")
	return d
}
