package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/resolver"
)

// stream is an open GET /v1/watch.
type stream struct {
	t      *testing.T
	events chan event
	status int
	close  func()
}

type event struct {
	id   string
	data client.WatchEvent
}

func (sc *sidecar) watch(token, last string, refs ...string) *stream {
	sc.t.Helper()
	query := ""
	for _, ref := range refs {
		query += "&ref=" + escape(ref)
	}
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", "http://localhost/v1/watch?"+strings.TrimPrefix(query, "&"), nil)
	if err != nil {
		sc.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", sc.socket)
	}}
	res, err := transport.RoundTrip(req)
	if err != nil {
		sc.t.Fatal(err)
	}
	out := &stream{t: sc.t, events: make(chan event, 100), status: res.StatusCode, close: cancel}
	done := make(chan struct{})
	sc.t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		defer close(out.events)
		defer res.Body.Close()
		var ev event
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "id":
				ev.id = value
			case "data":
				if json.Unmarshal([]byte(value), &ev.data) == nil {
					out.events <- ev
				}
				ev = event{}
			}
		}
	}()
	return out
}

// next gives the next event of one of kinds; others are passed over.
func (s *stream) next(kinds ...resolver.EventKind) event {
	s.t.Helper()
	for {
		select {
		case ev, open := <-s.events:
			if !open {
				s.t.Fatal("the stream ended")
			}
			for _, k := range kinds {
				if ev.data.Kind == k {
					return ev
				}
			}
		case <-time.After(20 * time.Second):
			s.t.Fatalf("no event of %v", kinds)
		}
	}
}

func (s *stream) ends() {
	s.t.Helper()
	for {
		select {
		case _, open := <-s.events:
			if !open {
				return
			}
		case <-time.After(20 * time.Second):
			s.t.Fatal("the stream does not end")
		}
	}
}

func (s *stream) quiet(long time.Duration) {
	s.t.Helper()
	select {
	case ev, open := <-s.events:
		s.t.Fatalf("an event of kind %s came, open %t", ev.data.Kind, open)
	case <-time.After(long):
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	sc := start(t, "")
	const ref = "cred://conf//a"
	w := sc.watch("", "", ref)
	first := w.next(resolver.EventResolved)
	if first.data.Ref != refOf(ref) || first.data.Revision == "" {
		t.Errorf("first came %+v", first.data)
	}
	sc.write("conf.json", `{"a": "changed-c4nary"}`)
	if got := sc.do("POST", "/v1/invalidate", `{"provider":"conf"}`); got.status != http.StatusOK {
		t.Fatalf("status %d", got.status)
	}
	second := w.next(resolver.EventResolved, resolver.EventRotated)
	if second.data.Revision == first.data.Revision || second.id == first.id {
		t.Error("the change has no new revision or id")
	}
	w.close()

	// Who comes back hears what changed meanwhile, and nothing else.
	sc.watch("", second.id, ref).quiet(300 * time.Millisecond)
	if again := sc.watch("", first.id, ref).next(resolver.EventResolved); again.data.Revision != second.data.Revision {
		t.Error("who missed a change is told another revision")
	}
	sc.watch("", "c4nary", ref).next(resolver.EventResolved)
}

// The same after a restart: what an id says does not depend on the process.
func TestWatchResumesAfterARestart(t *testing.T) {
	t.Parallel()
	sc := start(t, "")
	first := sc.watch("", "", "cred://conf//a").next(resolver.EventResolved)
	if err := sc.stop(); err != nil {
		t.Fatal(err)
	}
	sc.open()
	sc.watch("", first.id, "cred://conf//a").quiet(300 * time.Millisecond)
}

func TestWatchTellsOfWhatFails(t *testing.T) {
	t.Parallel()
	sc := start(t, "  consumers:\n    - {name: web, token: web, allow: [{provider: m, id: plain}]}\n  tokens: {web: web.token}\n")
	w := sc.watch("", "", "cred://m/none", "cred://m/plain")
	if ev := w.next(resolver.EventFailed); ev.data.Error == nil || ev.data.Error.Code != backend.CodeNotFound {
		t.Errorf("a missing secret: %+v", ev.data)
	}
	session := sc.session(`{"consumer":"x","allow":["cred://m/plain"]}`)
	w = sc.watch(session.Token, "", "cred://m/db", "cred://m/plain")
	if ev := w.next(resolver.EventFailed); ev.data.Error.Code != backend.CodeDenied {
		t.Errorf("a denied one: %+v", ev.data)
	}
	w.next(resolver.EventResolved)
	sc.do("DELETE", "/v1/sessions/"+session.ID, "")
	w.ends()
}

func TestWatchEndsWithReloadAndStop(t *testing.T) {
	t.Parallel()
	sc := start(t, "")
	w := sc.watch("", "", "cred://m/plain")
	w.next(resolver.EventResolved)
	if got := sc.do("POST", "/v1/reload", "{}"); got.status != http.StatusOK {
		t.Fatalf("status %d: %s", got.status, got.body)
	}
	w.ends()
	w = sc.watch("", "", "cred://m/plain")
	w.next(resolver.EventResolved)
	if err := sc.stop(); err != nil {
		t.Error(err)
	}
	w.ends()
}

func TestWatchIsBounded(t *testing.T) {
	t.Parallel()
	sc := start(t, "  limits: {watchers: 1}\n")
	for name, query := range map[string]string{"none": "", "another parameter": "?ref=" + escape("cred://m/plain") + "&x=1", "malformed": "?ref=c4nary"} {
		if got := sc.do("GET", "/v1/watch"+query, ""); got.status != http.StatusBadRequest || strings.Contains(got.body, canary) {
			t.Errorf("%s: status %d", name, got.status)
		}
	}
	many := "?ref=" + escape("cred://m/0")
	for i := range maxWatched {
		many += fmt.Sprintf("&ref=cred%%3A%%2F%%2Fm%%2F%d", i)
	}
	if got := sc.do("GET", "/v1/watch"+many, ""); got.status != http.StatusBadRequest {
		t.Errorf("too many refs: status %d", got.status)
	}
	sc.watch("", "", "cred://m/plain").next(resolver.EventResolved)
	if got := sc.do("GET", "/v1/watch?ref="+escape("cred://m/plain"), ""); got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" {
		t.Errorf("one too many: status %d", got.status)
	}
}
