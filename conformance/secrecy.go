package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
)

func secrecyCases() []Case {
	return []Case{
		{
			Name: "secrecy/errors", Rule: "no error of a read holds a secret, in any encoding", Needs: []string{"get/value"},
			run: func(t *trial) {
				b := t.open()
				id, v := t.stored()
				t.check(b, id, v)
				t.provoke(b, id, t.hidesErr)
			},
		},
		{
			Name: "secrecy/write-errors", Capability: "write", Rule: "no error of a write holds the value, in any encoding", Needs: []string{"write/put"},
			run: func(t *trial) {
				w, id, _ := t.written()
				t.holding(w, id)
			},
		},
		{
			Name: "secrecy/credential", Rule: "a credential that is printed or marshalled shows no secret, nor does its version or metadata", Needs: []string{"get/value"},
			run: func(t *trial) {
				b := t.open()
				id, v := t.stored()
				t.check(b, id, v)
				c := t.mustGet(b, request(id))
				t.hidesPrinted("a credential", *c)
				t.hides("Credential.Version", c.Version)
				t.hides("Credential.Metadata", fmt.Sprint(c.Metadata))
				if text, err := json.Marshal(c); err == nil {
					t.hides("a credential as JSON", string(text))
				}
			},
		},
		{
			Name: "secrecy/backend", Rule: "a backend that is printed shows no secret", Needs: []string{"get/value"},
			run: func(t *trial) {
				b := t.open()
				id, v := t.stored()
				t.check(b, id, v)
				if c, ok := b.(io.Closer); ok { // printing one at work would be a race
					t.wantClosed(c)
				}
				t.at("printing the backend")
				t.hidesPrinted("the backend", b)
			},
		},
		{
			Name: "secrecy/list", Capability: "list", Rule: "an entry of a listing holds no secret", Needs: []string{"list/all"},
			run: func(t *trial) {
				l, prefix, _ := t.listing(2)
				for _, e := range t.list(l, prefix) {
					t.hidesPrinted("an entry", e)
				}
			},
		},
		{
			Name: "secrecy/log", Rule: "nothing secret is logged, at any level", Needs: []string{"get/value"},
			run: func(t *trial) {
				b := t.open()
				id, v := t.stored()
				t.at("with the default loggers captured")
				t.hides("what was logged", logged(func() {
					t.check(b, id, v)
					t.provoke(b, id, func(string, error) {})
					if w, ok := b.(backend.Writer); ok {
						_, _ = w.Put(t.ctx, request(id), plainValue(t.canary()), backend.Condition{Absent: true})
					}
				}))
			},
		},
		{
			Name: "hostile/arguments", Rule: "odd arguments give an error or nothing, never a panic", Needs: []string{"get/hostile-ids"},
			run: func(t *trial) {
				b := t.open()
				id, v := t.stored()
				t.check(b, id, v)
				t.odd(b, id)
			},
		},
	}
}

// defaultLoggers are the process's own: one case at a time may capture them.
var defaultLoggers sync.Mutex

// logged gives what the default loggers were told while f ran.
func logged(f func()) string {
	defaultLoggers.Lock()
	defer defaultLoggers.Unlock()
	var out lockedBuffer
	before, writer, flags := slog.Default(), log.Writer(), log.Flags()
	defer func() {
		slog.SetDefault(before)
		log.SetOutput(writer)
		log.SetFlags(flags)
	}()
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug - 100})))
	f()
	return out.String()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (t *trial) hidesPrinted(what string, v any) {
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		t.hides(what+" printed with "+verb, fmt.Sprintf(verb, v))
	}
}

// provoke calls judge with every error that a read of id can be brought to.
func (t *trial) provoke(b backend.Backend, id string, judge func(what string, err error)) {
	for name, hostile := range hostileIDs(id) {
		_, err := t.get(b, request(hostile))
		judge("the error of Get of "+name, err)
	}
	_, err := t.get(b, backend.Request{ID: id, Version: "no-such-version"})
	judge("the error of Get of a version", err)
	for _, kind := range []FaultKind{FaultDeny, FaultLock, FaultThrottle, FaultDisappear, FaultLogout} {
		undo, ok := t.tryFault(Fault{Kind: kind})
		if !ok {
			continue
		}
		_, err := t.get(b, request(id))
		judge(fmt.Sprintf("the error of Get under the fault %s", kind), err)
		if batch, ok := b.(backend.BatchGetter); ok {
			results, err := batch.GetBatch(t.ctx, requests(id))
			judge(fmt.Sprintf("the error of GetBatch under the fault %s", kind), err)
			for _, r := range results {
				judge(fmt.Sprintf("the error of an outcome under the fault %s", kind), r.Err)
			}
		}
		if p, ok := b.(backend.Prober); ok {
			judge(fmt.Sprintf("the error of Probe under the fault %s", kind), p.Probe(t.ctx))
		}
		undo()
	}
}

// holding lets writes of canaries fail in every way, and fails the case when an error holds one.
func (t *trial) holding(w backend.Writer, id string) {
	put := func(what string, req backend.Request, v []byte, cond backend.Condition) {
		t.at("in Put " + what)
		_, err := w.Put(t.ctx, req, plainValue(v), cond)
		t.hidesErr("the error of Put "+what, err)
	}
	put("if absent", request(id), t.canary(), backend.Condition{Absent: true})
	put("if at a version that never was", request(id), t.canary(), backend.Condition{Version: "no-such-version"})
	put("of a version", backend.Request{ID: id, Version: "1"}, t.canary(), backend.Condition{})
	if most := t.h.Limits.MaxValue; most > 0 && most < 64<<20 {
		v := append(t.canary(), randomText(int(most))...)
		put("of a value that is too large", request(id), v, backend.Condition{})
	}
	put("of a value with a NUL", request(id), append(append(t.canary(), 0), t.canary()...), backend.Condition{})
	put("of bytes that are not UTF-8", request(id), append(append(t.canary(), 0xff), t.canary()...), backend.Condition{})
	for _, kind := range []FaultKind{FaultDeny, FaultLock, FaultThrottle, FaultDisappear, FaultLogout} {
		if undo, ok := t.tryFault(Fault{Kind: kind}); ok {
			put(fmt.Sprintf("under the fault %s", kind), request(id), t.canary(), backend.Condition{})
			undo()
		}
	}
}

// odd calls every method with arguments that make little sense. What they answer is their own affair.
func (t *trial) odd(b backend.Backend, id string) {
	ctx, cancel := context.WithTimeout(t.ctx, 20*time.Millisecond)
	defer cancel()
	for _, version := range []string{" ", "-1", "0", "99999999999999999999", "stage:", "id:", "\x00", "%n", "../1"} {
		_, _ = t.get(b, backend.Request{ID: id, Version: version})
	}
	_, _ = t.get(b, backend.Request{ID: id, Subject: backend.Subject{Tenant: "\x00", EndUser: "../x", Session: " ", Plugin: "%s"}})
	if batch, ok := b.(backend.BatchGetter); ok {
		t.at("in GetBatch of hostile ids")
		var reqs []backend.Request
		for _, hostile := range hostileIDs(id) {
			reqs = append(reqs, request(hostile))
		}
		_, _ = batch.GetBatch(t.ctx, reqs)
	}
	if c, ok := b.(backend.Checker); ok {
		t.at("in CurrentVersion of odd requests")
		_, _ = c.CurrentVersion(t.ctx, backend.Request{})
		_, _ = c.CurrentVersion(t.ctx, backend.Request{ID: id, Version: "\x00"})
	}
	if l, ok := b.(backend.Lister); ok {
		t.at("in List of an odd prefix")
		_ = t.drain(t.ctx, l, "\x00\xff../")
	}
	if r, ok := b.(backend.Renewer); ok {
		t.at("in Renew of odd leases")
		_, _ = r.Renew(t.ctx, backend.Lease{}, -time.Hour)
		_, _ = r.Renew(t.ctx, backend.Lease{ID: "\x00../", Renewable: true}, 1<<62)
	}
	if r, ok := b.(backend.Revoker); ok {
		t.at("in Revoke of a credential without a lease")
		_ = r.Revoke(t.ctx, request(id), &backend.Credential{})
	}
	if w, ok := b.(backend.Watcher); ok {
		t.at("in Watch of odd requests")
		_ = w.Watch(ctx, nil, func(backend.Request) {})
		_ = w.Watch(ctx, []backend.Request{{}, {ID: id, Version: "\x00"}, {ID: id}, {ID: id}}, func(backend.Request) {})
	}
	if w, ok := b.(backend.Writer); ok {
		t.at("in Put and Delete with odd arguments")
		odd := t.id("odd")
		_, _ = w.Put(t.ctx, request(odd), backend.Value{}, backend.Condition{})
		_, _ = w.Put(t.ctx, request(odd), backend.Value{Fields: map[string]backend.Secret{"": {}}}, backend.Condition{})
		_, _ = w.Put(t.ctx, request(odd), plainValue(nil), backend.Condition{Absent: true, Version: "1"})
		_, _ = w.Put(t.ctx, backend.Request{}, backend.Value{}, backend.Condition{Version: "\x00"})
		_ = w.Delete(t.ctx, backend.Request{}, backend.Condition{Absent: true})
		_ = w.Delete(t.ctx, backend.Request{ID: odd, Version: "1"}, backend.Condition{Version: "\x00"})
	}
}
