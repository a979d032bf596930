package notify

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

const canary = "c4nary-value"

// store is a store whose secrets can be changed; its failures are those of a store that is in no test's way.
type store struct {
	mu   sync.Mutex
	held map[string]string
	fail error
}

func (s *store) Get(_ context.Context, req backend.Request) (*backend.Credential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text, ok := s.held[req.ID]; ok && (s.fail == nil || strings.HasPrefix(req.ID, "key")) {
		return &backend.Credential{Secret: backend.NewSecretString(text)}, nil
	}
	if s.fail != nil {
		return nil, s.fail
	}
	return nil, backend.Errorf(backend.CodeNotFound, "no such secret")
}

func (s *store) set(id, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[id] = text
}

func (s *store) failWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// bench is a resolver of a store, with subscribers.
type bench struct {
	t      *testing.T
	store  *store
	r      *resolver.Resolver
	subs   *Subscribers
	mu     sync.Mutex
	counts map[string]int
	log    bytes.Buffer
}

func (b *bench) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.Write(p)
}

func (b *bench) count(key string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counts[key]
}

func newKey(fill byte) string {
	return keyPrefix + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{fill}, 32))
}

func start(t *testing.T, c config.Events) *bench {
	t.Helper()
	b := &bench{t: t, store: &store{held: map[string]string{"key": newKey(1), "a": canary, "b": canary}}, counts: map[string]int{}}
	var err error
	b.r, err = resolver.New(resolver.Config{Providers: map[string]resolver.Provider{
		"p": {Backend: b.store, TTL: time.Hour, Retries: -1, Scope: []resolver.Scope{resolver.ScopeSession}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.r.Close() })
	b.subs, err = Start(c, Options{
		Resolver: b.r, Log: slog.New(slog.NewTextHandler(b, nil)),
		LookupEnv: func(name string) (string, bool) { return "of-" + name, strings.HasPrefix(name, "GIVEN") },
		Count: func(by, outcome string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.counts[by+" "+outcome]++
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		if b.subs != nil {
			b.subs.Close(ended)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, secret := range []string{canary, newKey(1), "127.0.0.1"} {
			if strings.Contains(b.log.String(), secret) {
				t.Errorf("the log says %s", b.log.String())
			}
		}
	})
	return b
}

func ref(id string) credref.Ref { return credref.Ref{Provider: "p", ID: id} }

// rotate makes an event of kind rotated.
func (b *bench) rotate(id string) {
	b.t.Helper()
	ctx := context.Background()
	v, err := b.r.Resolve(ctx, ref(id))
	if err != nil {
		b.t.Fatal(err)
	}
	b.store.set(id, fmt.Sprint(canary, time.Now().UnixNano()))
	if _, err := b.r.Report(ctx, ref(id), v.Revision()); err != nil {
		b.t.Fatal(err)
	}
}

// eventually waits until is reports true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in a minute it did not come to this: %s", what)
		}
	}
}

// request is one that a receiver got.
type request struct {
	header http.Header
	body   []byte
	notice notice
}

// receiver is an address that answers with the statuses of answers, one after the other, then with 204.
func receiver(t *testing.T, answers ...func(http.ResponseWriter)) (url string, got func() []request) {
	var mu sync.Mutex
	var all []request
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		one := request{header: r.Header}
		one.body, _ = io.ReadAll(r.Body)
		_ = json.Unmarshal(one.body, &one.notice)
		mu.Lock()
		n := len(all)
		all = append(all, one)
		mu.Unlock()
		if n < len(answers) {
			answers[n](w)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/hook", func() []request {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

func status(code int, header ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

func verified(t *testing.T, key string, r request) {
	t.Helper()
	w, err := webhooks.NewWebhook(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Verify(r.body, r.header); err != nil {
		t.Errorf("the reference implementation refuses it: %v", err)
	}
	changed := append(slices.Clone(r.body), ' ')
	if w.Verify(changed, r.header) == nil {
		t.Error("a changed body is accepted")
	}
}

func TestWebhook(t *testing.T) {
	t.Parallel()
	url, got := receiver(t)
	b := start(t, config.Events{Webhooks: []config.Webhook{{URL: url, Secret: ref("key"), Refs: []string{"p/a*"}, On: []string{"resolved", "rotated", "revoked"}}}})
	b.rotate("a")
	b.rotate("b") // not asked for
	eventually(t, "the rotation is told", func() bool {
		all := got()
		return len(all) > 0 && all[len(all)-1].notice.Type == "credential.rotated"
	})
	last := got()[len(got())-1]
	verified(t, newKey(1), last)
	v, err := b.r.Resolve(t.Context(), ref("a"))
	if err != nil {
		t.Fatal(err)
	}
	if d := last.notice.Data; d.Ref != ref("a") || d.State != resolver.StateActive || d.Revision != v.Revision() || last.notice.Timestamp.IsZero() {
		t.Errorf("told %s", last.body)
	}
	for _, one := range got() {
		if bytes.Contains(one.body, []byte(canary)) || one.notice.Data.Ref != ref("a") {
			t.Errorf("told %s", one.body)
		}
	}
	// A key that was rotated is used once it is fetched, which the receiver's refusal brings about.
	b.store.set("key", newKey(2))
	refused := receiverThatVerifies(t, newKey(2))
	b.subs.Close(t.Context())
	b.subs = nil
	c := start(t, config.Events{Webhooks: []config.Webhook{{URL: refused.url, Secret: ref("key")}}})
	c.rotate("b")
	eventually(t, "it is refused under the old key", func() bool { return refused.count(401) > 0 })
	c.store.set("key", newKey(2))
	eventually(t, "it is taken under the new key", func() bool { return refused.count(204) > 0 })
}

type verifier struct {
	url    string
	mu     sync.Mutex
	counts map[int]int
}

func (v *verifier) count(code int) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.counts[code]
}

func receiverThatVerifies(t *testing.T, key string) *verifier {
	v := &verifier{counts: map[int]int{}}
	w, err := webhooks.NewWebhook(key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		code := http.StatusNoContent
		if w.Verify(body, r.Header) != nil {
			code = http.StatusUnauthorized
		}
		out.WriteHeader(code)
		v.mu.Lock()
		defer v.mu.Unlock()
		v.counts[code]++
	}))
	t.Cleanup(s.Close)
	v.url = s.URL
	return v
}

// A receiver that fails is tried again, with the same id; one that refuses for good, or points elsewhere, is not.
func TestWebhookAttempts(t *testing.T) {
	t.Parallel()
	elsewhere, wrong := receiver(t)
	for _, c := range []struct {
		name    string
		answers []func(http.ResponseWriter)
		sent    int
		outcome string
	}{
		{"down for a while", []func(http.ResponseWriter){status(503, "Retry-After", "1"), status(500)}, 3, "webhook delivered"},
		{"gone", []func(http.ResponseWriter){status(410)}, 1, "webhook failed"},
		{"not allowed", []func(http.ResponseWriter){status(401), status(401)}, 2, "webhook failed"},
		{"asks to wait for hours", []func(http.ResponseWriter){status(429, "Retry-After", "36000")}, 1, "webhook failed"},
		{"redirects", []func(http.ResponseWriter){status(307, "Location", elsewhere)}, 1, "webhook failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url, got := receiver(t, c.answers...)
			b := start(t, config.Events{Webhooks: []config.Webhook{{URL: url, Secret: ref("key")}}})
			b.rotate("a")
			eventually(t, c.outcome, func() bool { return b.count(c.outcome) == 1 })
			all := got()
			if len(all) != c.sent {
				t.Errorf("sent %d times, want %d", len(all), c.sent)
			}
			for _, one := range all {
				verified(t, newKey(1), one)
				if one.header.Get("webhook-id") != all[0].header.Get("webhook-id") {
					t.Error("another attempt has another id")
				}
			}
		})
	}
	t.Cleanup(func() {
		if len(wrong()) > 0 {
			t.Error("a redirect was followed")
		}
	})
}

// While a receiver is slow the last event of a ref stands for those before it, others go out, and those of one ref keep their order.
func TestCoalescing(t *testing.T) {
	t.Parallel()
	block := make(chan struct{})
	url, got := receiver(t, func(http.ResponseWriter) { <-block })
	b := start(t, config.Events{Webhooks: []config.Webhook{{URL: url, Secret: ref("key"), Timeout: time.Minute}}})
	b.rotate("a")
	eventually(t, "the first is under way", func() bool { return len(got()) == 1 })
	b.rotate("b")
	eventually(t, "another's goes out meanwhile", func() bool { return b.count("webhook delivered") == 1 })
	b.store.failWith(backend.Errorf(backend.CodeDenied, "as told"))
	b.r.Forget(ref("a"))
	_, _ = b.r.Resolve(t.Context(), ref("a"))
	time.Sleep(100 * time.Millisecond)
	if n := len(got()); n != 2 {
		t.Errorf("%d sent, want the second of a ref to wait for its first", n)
	}
	close(block)
	eventually(t, "what waited is told", func() bool { return b.count("webhook delivered") == 3 })
	if last := got()[2].notice; last.Data.Kind != resolver.EventFailed || last.Data.Error == nil || last.Data.Error.Code != backend.CodeDenied || last.Data.Error.Message != "as told" {
		t.Errorf("told last: %+v", last)
	}
}

// What a session holds is nobody's concern but the session's.
func TestSessionsAreNotTold(t *testing.T) {
	t.Parallel()
	url, got := receiver(t)
	b := start(t, config.Events{Webhooks: []config.Webhook{{URL: url, Secret: ref("key"), On: []string{"resolved"}}}})
	if _, err := b.r.For(credref.Subject{Session: "s"}).Resolve(t.Context(), ref("b")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.r.Resolve(t.Context(), ref("a")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "everybody's is told", func() bool { return len(got()) > 0 })
	b.subs.Close(t.Context())
	b.subs = nil
	for _, one := range got() {
		if one.notice.Data.Ref != ref("a") {
			t.Errorf("told %s", one.body)
		}
	}
}

// script writes a program.
func script(t *testing.T, text string) (path, dir string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the program is a shell script")
	}
	dir = t.TempDir()
	path = filepath.Join(dir, "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path, dir
}

func TestHook(t *testing.T) {
	t.Parallel()
	path, dir := script(t, `cat > in.$$ && env > env && echo "$1" > arg && mv in.$$ in`)
	b := start(t, config.Events{Hooks: []config.Hook{{Command: path, Args: []string{"one two"}, PassEnv: []string{"GIVEN", "NOT"}}}})
	b.rotate("a")
	eventually(t, "it ran", func() bool { return b.count("hook delivered") == 1 })
	read := func(name string) string {
		t.Helper()
		out, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	var n notice
	if err := json.Unmarshal([]byte(read("in")), &n); err != nil || n.Type != "credential.rotated" || n.Data.Ref != ref("a") || n.Data.Revision == "" {
		t.Errorf("it read %s, %v", read("in"), err)
	}
	if env := read("env"); strings.Contains(read("in"), canary) || !strings.Contains(env, "GIVEN=of-GIVEN") || strings.Contains(env, "NOT=") || strings.Contains(env, "HOME=") {
		t.Errorf("it has the environment %s", env)
	}
	if arg := read("arg"); arg != "one two\n" {
		t.Errorf("it has the argument %q", arg)
	}
}

// A program that others may change is not run.
func TestHookThatOthersMayChange(t *testing.T) {
	t.Parallel()
	path, dir := script(t, `touch ran`)
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	b := start(t, config.Events{Hooks: []config.Hook{{Command: path}}})
	b.rotate("a")
	eventually(t, "it was refused", func() bool { return b.count("hook failed") == 1 })
	if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
		t.Error("it ran")
	}
}

// Close has what waits delivered, as long as it may take, and ends what takes longer.
func TestClose(t *testing.T) {
	t.Parallel()
	url, got := receiver(t)
	b := start(t, config.Events{Webhooks: []config.Webhook{{URL: url, Secret: ref("key")}}})
	b.rotate("a")
	b.subs.Close(t.Context())
	b.subs = nil
	if len(got()) != 1 {
		t.Errorf("%d delivered", len(got()))
	}
	path, _ := script(t, `trap '' TERM; while :; do sleep 1; done`)
	b = start(t, config.Events{Hooks: []config.Hook{{Command: path, Timeout: time.Hour}}})
	b.rotate("a")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	done := make(chan struct{})
	go func() {
		b.subs.Close(ctx)
		close(done)
	}()
	select {
	case <-done:
		b.subs = nil
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	if b.count("hook failed") != 1 {
		t.Errorf("counts %v", b.counts)
	}
}

// A change leaves alone who is as before, and closes the connections of who is not; the end closes those that are left.
func TestConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	type place struct{ open, taken atomic.Int32 }
	var places [2]place
	var c config.Events
	for i := range places {
		at := &places[i]
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			at.taken.Add(1)
			w.WriteHeader(http.StatusNoContent)
		}))
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				at.open.Add(1)
			case http.StateClosed:
				at.open.Add(-1)
			}
		}
		s.Start()
		t.Cleanup(s.Close)
		c.Webhooks = append(c.Webhooks, config.Webhook{URL: s.URL, Secret: ref("key")})
	}
	b := start(t, c)
	b.rotate("a")
	eventually(t, "both are told", func() bool { return b.count("webhook delivered") == 2 })
	if first, second := places[0].open.Load(), places[1].open.Load(); first != 1 || second != 1 {
		t.Fatalf("%d and %d connections are open", first, second)
	}
	kept := b.subs.now[0]
	c.Webhooks = []config.Webhook{c.Webhooks[0], {URL: c.Webhooks[1].URL, Secret: ref("key"), Refs: []string{"p/none"}}}
	if err := b.subs.Change(c); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connection of the old one is closed", func() bool { return places[1].open.Load() == 0 })
	if b.subs.now[0] != kept || places[0].open.Load() != 1 {
		t.Error("who is as before is another")
	}
	b.rotate("b")
	eventually(t, "who is as before is told", func() bool { return places[0].taken.Load() == 2 })
	c.Webhooks[0].Refs = []string{"p["}
	if err := b.subs.Change(c); backend.CodeOf(err) != backend.CodeInvalidConfig || b.subs.now[0] != kept {
		t.Errorf("a malformed change: %v", err)
	}
	subs := b.subs
	b.subs = nil
	subs.Close(t.Context())
	eventually(t, "no connection is left", func() bool { return places[0].open.Load() == 0 })
	c.Webhooks[0].Refs = nil
	if err := subs.Change(c); err != nil || len(subs.now) != 0 {
		t.Errorf("a change after the end: %v, %d subscribers", err, len(subs.now))
	}
	if n := places[1].taken.Load(); n != 1 {
		t.Errorf("the changed one is told of %d events", n)
	}
}

// What still waits at the end is counted, and told of.
func TestWhatWaitsAtTheEnd(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	var mu sync.Mutex
	counts := map[string]int{}
	all, err := subscribersOf(config.Events{Hooks: []config.Hook{{Command: "/none"}}}, Options{
		Log: slog.New(slog.NewTextHandler(&log, nil)),
		Count: func(_, outcome string) {
			mu.Lock()
			defer mu.Unlock()
			counts[outcome]++
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := all[0]
	s.deliver = func(ctx context.Context, _ message) error {
		<-ctx.Done()
		return ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	events, done := make(chan resolver.Event), make(chan struct{})
	go func() {
		s.run(ctx, events, func() {})
		close(done)
	}()
	for i := range parallel + 2 {
		events <- resolver.Event{Ref: ref(fmt.Sprint(i)), Kind: resolver.EventRotated}
	}
	close(s.drain)
	cancel()
	<-done
	if counts[Failed] != parallel || counts[Dropped] != 2 {
		t.Errorf("counts %v", counts)
	}
	if said := log.String(); strings.Count(said, errEnded.Error()) != parallel+1 || !strings.Contains(said, "events.hooks[0] count=2") {
		t.Errorf("the log says %s", said)
	}
}

// The example of the specification's own library.
func TestSign(t *testing.T) {
	t.Parallel()
	got, err := sign([]byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	for key, code := range map[string]backend.Code{"short": backend.CodeInvalidConfig, "whsec_%%%": backend.CodeInvalidConfig, "whsec_YQ==": backend.CodeInvalidConfig} {
		if _, err := sign([]byte(key), "m", "1", nil); backend.CodeOf(err) != code {
			t.Errorf("%q: %v", key, err)
		}
	}
}
