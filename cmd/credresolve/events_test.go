package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// receiver takes webhooks; while it is held it does not answer.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	taken  []request
	asked  int
	gate   chan struct{} // closed: it answers
	opened int
	closed int
}

type request struct {
	header http.Header
	body   []byte
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{gate: make(chan struct{})}
	close(r.gate)
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.asked++
		gate := r.gate
		r.mu.Unlock()
		select {
		case <-gate:
		case <-req.Context().Done():
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.taken = append(r.taken, request{req.Header, body})
		w.WriteHeader(http.StatusNoContent)
	}))
	r.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		r.mu.Lock()
		defer r.mu.Unlock()
		switch state {
		case http.StateNew:
			r.opened++
		case http.StateClosed:
			r.closed++
		}
	}
	r.Start()
	t.Cleanup(r.Close)
	t.Cleanup(r.CloseClientConnections)
	return r
}

// hold has it answer nobody until it is let go.
func (r *receiver) hold() (letGo func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	gate := make(chan struct{})
	r.gate = gate
	return sync.OnceFunc(func() { close(gate) })
}

func (r *receiver) requests() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// told is what it took: KIND REVISION.
func (r *receiver) told() (lines []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.taken {
		lines = append(lines, told(one.body))
	}
	return lines
}

func told(body []byte) string {
	var n struct {
		Type string
		Data struct{ Kind, Revision string }
	}
	if err := json.Unmarshal(body, &n); err != nil || n.Type != "credential."+n.Data.Kind {
		return fmt.Sprintf("malformed: %s, %v", body, err)
	}
	return n.Data.Kind + " " + n.Data.Revision
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it did not come to this: %s", what)
		}
	}
}

// A sidecar tells a program and an address of rotations, without values; over a reload and until its end nothing is lost, and what
// could not be delivered is told of.
func TestServeTellsHooksAndWebhooks(t *testing.T) {
	t.Parallel()
	needsPOSIX(t)
	const key = "whsec_MTIzNDU2Nzg5MDEyMzQ1Njc4OTBjNG5hcnk=" // 1234567890 twice, and c4nary
	signed, err := webhooks.NewWebhook(key)
	must(t, err)
	p := &process{user: newUser(t)}
	p.env = append(p.env, "CREDRESOLVE_CONFIG="+filepath.Join(p.dir, "credresolve.yaml"))
	p.write("keys.json", fmt.Sprintf(`{"hook": %q}`, key))
	p.write("hook", "#!/bin/sh\ncat >> events\n")
	must(t, os.Chmod(filepath.Join(p.dir, "hook"), 0o700))
	first, second := newReceiver(t), newReceiver(t)
	configure := func(to *receiver) {
		p.write("credresolve.yaml", fmt.Sprintf(`version: 1
providers:
  f: {kind: file, path: s.json, cache: {ttl: 24h}}
  keys: {kind: file, path: keys.json}
events:
  hooks:
    - {command: %q, on: [resolved, rotated], refs: [f/**]}
  webhooks:
    - {url: %q, secret: {provider: keys, id: hook}, on: [resolved, rotated], refs: [f/pw], timeout: 5m}
`, filepath.Join(p.dir, "hook"), to.URL))
	}
	configure(first)
	ref := credref.Ref{Provider: "f", ID: "pw"}
	n := 0
	put := func() {
		n++
		p.write("next.json", fmt.Sprintf(`{"pw": "pw-%d-c4nary"}`, n))
		must(t, os.Rename(filepath.Join(p.dir, "next.json"), filepath.Join(p.dir, "s.json")))
	}
	put()
	p.start()
	events := p.client().Watch(t.Context(), ref)
	next := func(kind resolver.EventKind) string {
		t.Helper()
		for timeout := time.After(2 * time.Minute); ; {
			select {
			case ev := <-events:
				if ev.Kind == kind {
					return string(kind) + " " + ev.Revision
				}
			case <-timeout:
				t.Fatalf("no event %s: %s", kind, p.messages)
			}
		}
	}
	hooked := func() (lines []string) {
		text, err := os.ReadFile(filepath.Join(p.dir, "events"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if strings.Contains(string(text), canary) {
			t.Errorf("the program is told a value: %s", text)
		}
		for line := range bytes.Lines(text) {
			lines = append(lines, told(line))
		}
		return lines
	}
	both := func(to *receiver, what string) {
		t.Helper()
		eventually(t, "the address is told "+what, func() bool { return slices.Contains(to.told(), what) })
		eventually(t, "the program is told "+what, func() bool { return slices.Contains(hooked(), what) })
	}
	rotate := func() string {
		put()
		return next(resolver.EventRotated)
	}

	value(t, p.client(), ref)
	eventually(t, "the first is told", func() bool { return len(first.told()) > 0 && len(hooked()) > 0 })
	both(first, rotate())

	// One is under way and one waits when the configuration changes: the old address gets both, the new one what comes then.
	letGo := first.hold()
	asked := first.requests()
	underWay := rotate()
	eventually(t, "one is under way", func() bool { return first.requests() > asked })
	waits := rotate()
	configure(second)
	must(t, p.cmd.Process.Signal(syscall.SIGHUP))
	eventually(t, "SIGHUP is heeded", func() bool {
		st, err := p.client().Status(t.Context())
		return err == nil && st.ReloadedAt != nil
	})
	after := rotate()
	both(second, after)
	letGo()
	both(first, underWay)
	both(first, waits)
	if got := first.told(); slices.Contains(got, after) {
		t.Errorf("the old address is told what came later: %q", got)
	}
	eventually(t, "no connection to the old address is left", func() bool {
		first.mu.Lock()
		defer first.mu.Unlock()
		return first.opened > 0 && first.opened == first.closed
	})

	// The end waits for what is under way.
	letGo = second.hold()
	asked = second.requests()
	last := rotate()
	eventually(t, "the last is under way", func() bool { return second.requests() > asked })
	go func() {
		for !strings.Contains(p.messages.String(), "stopping") && t.Context().Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		letGo()
	}()
	p.end(syscall.SIGTERM)
	both(second, last)
	if strings.Contains(p.messages.String(), "not delivered") {
		t.Errorf("something was not delivered: %s", p.messages)
	}

	// But not for ever; then it says so.
	defer second.hold()()
	asked = second.requests()
	p.start() // whoever watches comes back, and may have it resolved first
	value(t, p.client(), ref)
	eventually(t, "one is under way", func() bool { return second.requests() > asked })
	p.end(syscall.SIGTERM)
	if said := p.messages.String(); !strings.Contains(said, "not delivered") || !strings.Contains(said, "cred://f/pw") || !strings.Contains(said, "the program ended before") {
		t.Errorf("it does not say what was not delivered: %s", said)
	}

	for _, to := range []*receiver{first, second} {
		to.mu.Lock()
		defer to.mu.Unlock()
		for _, one := range to.taken {
			if err := signed.Verify(one.body, one.header); err != nil {
				t.Errorf("%s: %v", one.body, err)
			}
			if all := fmt.Sprint(one.header, string(one.body)); strings.Contains(all, canary) || strings.Contains(all, key) {
				t.Errorf("a value is told: %s", all)
			}
		}
	}
}
