package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
)

// gated is a store whose reads wait until they are let through, and of which the test counts them.
type gated struct {
	mu    sync.Mutex
	reads map[string]int
	open  chan struct{}
	fail  error
}

type gatedConfig struct{}

// Reach implements backend.Reacher.
func (gatedConfig) Reach() []backend.Reach { return nil }

func (g *gated) kind() backend.Kind {
	return backend.NewKind("gated", "a store of a test", func(gatedConfig, backend.Host) (backend.Backend, error) { return g, nil })
}

func (g *gated) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	g.mu.Lock()
	if g.reads == nil {
		g.reads = map[string]int{}
	}
	g.reads[req.ID]++
	open, fail := g.open, g.fail
	g.mu.Unlock()
	if open != nil {
		select {
		case <-open:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if fail != nil {
		return nil, fail
	}
	return &backend.Credential{Secret: backend.NewSecretString(req.ID + "-c4nary")}, nil
}

func (g *gated) count(id string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reads[id]
}

func (g *gated) set(open chan struct{}, fail error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open, g.fail = open, fail
}

func TestReload(t *testing.T) {
	t.Parallel()
	sc := start(t, "  consumers:\n    - {name: web, allow: [{provider: m, id: plain}]}\n")
	c := sc.client(sc.session(`{"consumer":"web","allow":["cred://m/plain"]}`).Token)
	if _, err := c.Resolve(t.Context(), refOf("cred://m/plain")); err != nil {
		t.Fatal(err)
	}
	// A bad one changes nothing and says why.
	sc.configure(providers+"  broken: {kind: nothing}\n", "")
	got := sc.do("POST", "/v1/reload", "{}")
	if got.status != http.StatusBadRequest || got.code(t) != backend.CodeInvalidConfig || !strings.Contains(got.body, "unknown kind") {
		t.Errorf("a bad configuration: status %d: %s", got.status, got.body)
	}
	if _, err := c.Resolve(t.Context(), refOf("cred://m/plain")); err != nil {
		t.Errorf("after a bad reload: %v", err)
	}
	sc.configure(strings.Replace(providers, "other-c4nary", "changed-c4nary", 1)+"  more: {kind: memory, values: {x: x-c4nary}}\n",
		"  socket: {path: elsewhere}\n  consumers:\n    - {name: web, allow: [{provider: more, id: x}]}\n")
	got = sc.do("POST", "/v1/reload", "{}")
	var answer client.ReloadAnswer
	got.json(t, &answer)
	if !slices.Equal(answer.Kept, []string{"conf"}) || !slices.Equal(answer.Replaced, []string{"m", "more"}) || !slices.Contains(answer.NeedsRestart, "serve.socket") {
		t.Errorf("the reload answered %+v", answer)
	}
	if text(t, sc.resolve(`{"provider":"m","id":"other"}`)[0]) != "changed-c4nary" {
		t.Error("the old value is still served")
	}
	// The session goes on, under the new rules.
	if _, err := c.Resolve(t.Context(), refOf("cred://m/plain")); backend.CodeOf(err) != backend.CodeDenied {
		t.Errorf("what the consumer may no longer have: %v", err)
	}
	if !strings.Contains(sc.auditLog(), `"event":"reload"`) {
		t.Error("the reload is not in the audit log")
	}
}

func TestPrefetchHoldsReadinessBack(t *testing.T) {
	t.Parallel()
	g := &gated{open: make(chan struct{})}
	sc := &sidecar{t: t, dir: t.TempDir(), logs: &buffer{}, kinds: testKinds(g.kind())}
	sc.socket = filepath.Join(sc.dir, "run", "sock")
	sc.write("conf.json", "{}")
	sc.configure(providers+"  g: {kind: gated}\n", "  prefetch:\n    - {ref: cred://g/needed}\n    - {ref: cred://m/none, optional: true}\n")
	ready := make(chan struct{})
	s, err := Open(t.Context(), sc.options(func() { close(ready) }))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	eventually(t, "it listens", func() bool { _, err := os.Stat(sc.socket); return err == nil })
	eventually(t, "the store is asked", func() bool { return g.count("needed") == 1 })
	got := sc.do("GET", "/readyz", "")
	var answer client.ReadyAnswer
	if got.json(t, &answer); got.status != http.StatusServiceUnavailable || answer.Ready || answer.Waiting != 1 {
		t.Errorf("before: status %d, %+v", got.status, answer)
	}
	close(g.open)
	<-ready
	if got := sc.do("GET", "/readyz", ""); got.status != http.StatusOK {
		t.Errorf("after: status %d", got.status)
	}
}

// Requests under way are answered; no others are.
func TestStopLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	g := &gated{open: make(chan struct{})}
	sc := start(t, "", g.kind())
	sc.configure(providers+"  g: {kind: gated}\n", "")
	if got := sc.do("POST", "/v1/reload", "{}"); got.status != http.StatusOK {
		t.Fatalf("status %d", got.status)
	}
	answered := make(chan error, 1)
	go func() {
		v, err := sc.client("").Resolve(context.Background(), refOf("cred://g/slow"))
		if err == nil && string(v.Secret().Reveal()) != "slow-c4nary" {
			err = errors.New("another value")
		}
		answered <- err
	}()
	eventually(t, "the store is asked", func() bool { return g.count("slow") == 1 })
	stopped := make(chan error, 1)
	go func() { stopped <- sc.stop() }()
	eventually(t, "nobody else is let in", func() bool {
		_, err := sc.client("").Resolve(context.Background(), refOf("cred://m/plain"))
		return backend.CodeOf(err) == backend.CodeUnavailable
	})
	close(g.open)
	if err := <-answered; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(sc.socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// A store that never answers does not keep the sidecar from ending.
func TestStopDoesNotWaitForAHungStore(t *testing.T) {
	t.Parallel()
	g := &gated{open: make(chan struct{})}
	sc := start(t, "", g.kind())
	sc.configure(providers+"  g: {kind: gated}\n", "  grace: 200ms\n")
	if got := sc.do("POST", "/v1/reload", "{}"); got.status != http.StatusOK {
		t.Fatalf("status %d", got.status)
	}
	answered := make(chan string, 2)
	go func() {
		answered <- sc.raw(20*time.Second, "GET /v1/resolve?ref=cred%3A%2F%2Fg%2Fa HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}()
	go func() {
		_, err := sc.client("").Resolve(context.Background(), refOf("cred://g/b"))
		answered <- string(backend.CodeOf(err))
	}()
	eventually(t, "the store is asked", func() bool { return g.count("a") == 1 && g.count("b") == 1 })
	began := time.Now()
	if err := sc.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	for range 2 {
		if got := <-answered; strings.Contains(got, canary) {
			t.Errorf("an answer came: %s", got)
		}
	}
}

// While its store is away every client gets the value that there is, and the store is asked once an interval.
func TestOutage(t *testing.T) {
	t.Parallel()
	g := &gated{}
	sc := start(t, "", g.kind())
	sc.configure("\n  g: {kind: gated, cache: {ttl: 1s, max_stale: 1h}, limits: {retries: 0}}\n", "")
	if got := sc.do("POST", "/v1/reload", "{}"); got.status != http.StatusOK {
		t.Fatalf("status %d", got.status)
	}
	first := sc.resolve(`{"provider":"g","id":"x"}`)[0]
	g.set(nil, backend.Errorf(backend.CodeUnavailable, "the store is away"))
	eventually(t, "the value is stale", func() bool { return sc.resolve(`{"provider":"g","id":"x"}`)[0].Stale })
	if e := sc.resolve(`{"provider":"g","id":"x"}`)[0].RefreshError; e == nil || e.Code != backend.CodeUnavailable || !strings.Contains(e.Message, "the store is away") {
		t.Errorf("why it is not fetched again: %+v", e)
	}
	before, began := g.count("x"), time.Now()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			c := sc.client("")
			for range 40 {
				v, err := c.Resolve(t.Context(), refOf("cred://g/x"))
				if err != nil || !v.Stale() || v.Revision() != first.Revision || !errors.Is(v.RefreshError(), backend.ErrUnavailable) {
					t.Errorf("a client got %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	if calls, most := g.count("x")-before, int(time.Since(began)/time.Second)+2; calls > most {
		t.Errorf("%d store calls in %s", calls, time.Since(began))
	}
	g.set(nil, nil)
	eventually(t, "it is fresh again", func() bool {
		r := sc.resolve(`{"provider":"g","id":"x"}`)[0]
		return !r.Stale && r.RefreshError == nil
	})
}

func TestAuditLines(t *testing.T) {
	t.Parallel()
	sc := start(t, "  tokens: {web: web.token}\n  consumers:\n    - {name: web, token: web, allow: [{provider: m, id: plain}]}\n")
	token, err := os.ReadFile(filepath.Join(sc.dir, "web.token"))
	if err != nil {
		t.Fatal(err)
	}
	web := "Authorization: Bearer " + strings.TrimSpace(string(token))
	revision := sc.resolve(`{"provider":"m","id":"plain"}`)[0].Revision
	sc.do("GET", "/v1/resolve?ref="+escape("cred://m/plain"), "", web)
	sc.do("GET", "/v1/resolve?ref="+escape("cred://m/db"), "", web)
	sc.do("GET", "/v1/resolve?ref="+escape("cred://m/none"), "")
	sc.do("GET", "/v1/resolve?ref="+escape("cred://m/plain"), "", `If-None-Match: "`+revision+`"`)
	sc.do("GET", "/v1/status", "", web)
	type line struct {
		Event, Consumer, Ref, Revision, Outcome, Reason, Executable string
		UID, PID                                                    *int
		Time                                                        time.Time
	}
	var lines []line
	for text := range strings.Lines(sc.auditLog()) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("a line is no JSON: %v", err)
		}
		lines = append(lines, l)
	}
	want := []line{
		{Event: "start", Consumer: "owner", Outcome: "ok"},
		{Event: "reveal", Consumer: "owner", Ref: "cred://m/plain", Revision: revision, Outcome: "ok"},
		{Event: "reveal", Consumer: "web", Ref: "cred://m/plain", Revision: revision, Outcome: "ok"},
		{Event: "denial", Consumer: "web", Ref: "cred://m/db", Outcome: "denied"},
		{Event: "failure", Consumer: "owner", Ref: "cred://m/none", Outcome: "not_found"},
		{Event: "unchanged", Consumer: "owner", Ref: "cred://m/plain", Revision: revision, Outcome: "ok"},
		{Event: "denial", Consumer: "web", Outcome: "denied"},
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d", len(lines), len(want))
	}
	for i, l := range lines {
		w := want[i]
		if l.Event != w.Event || l.Consumer != w.Consumer || l.Ref != w.Ref || l.Revision != w.Revision || l.Outcome != w.Outcome || l.Time.IsZero() {
			t.Errorf("line %d is %+v, want %+v", i, l, w)
		}
		if i > 0 && (l.UID == nil || *l.UID != os.Getuid() || l.PID == nil || *l.PID != os.Getpid() || l.Executable == "") {
			t.Errorf("line %d does not tell who asked: %+v", i, l)
		}
	}
}

func TestCallers(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		t.Fatal(err)
	}
	sc := start(t, "  tcp: {listen: \"127.0.0.1:0\", token_file: tcp.token}\n  consumers:\n    - {name: me, executable: "+self+", allow: [{provider: m, id: plain}], may: [metrics]}\n")
	// A program of the owner's own is bounded where a consumer says so.
	if got := sc.resolve(`{"provider":"m","id":"plain"}`, `{"provider":"m","id":"db"}`); got[0].Error != nil || got[1].Error == nil || got[1].Error.Code != backend.CodeDenied {
		t.Errorf("by its executable: %+v, %+v", got[0].Error, got[1].Error)
	}
	if got := sc.do("GET", "/metrics", ""); got.status != http.StatusOK {
		t.Errorf("metrics, which it may: status %d", got.status)
	}
	if got := sc.do("POST", "/v1/invalidate", `{"provider":"m"}`); got.status != http.StatusForbidden {
		t.Errorf("invalidate, which it may not: status %d", got.status)
	}
	var seen client.ProvidersAnswer
	sc.do("GET", "/v1/providers", "").json(t, &seen)
	if len(seen.Providers) != 1 || seen.Providers[0].Name != "m" || seen.Providers[0].Digest == "" {
		t.Errorf("it sees the providers %+v", seen.Providers)
	}
}
