package secretref

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
	"pgregory.net/rapid"
)

// world is what the providers of a test read, and what its runtime told.
type world struct {
	mu     sync.Mutex
	env    map[string]string
	dir    string
	events []Event
	*Runtime
}

func newWorld(t testing.TB) *world {
	w := &world{env: make(map[string]string)}
	if tt, ok := t.(*testing.T); ok {
		w.dir = tt.TempDir()
	}
	w.Runtime = NewRuntime(RuntimeConfig{
		Host: Host{Dir: w.dir, LookupEnv: func(name string) (string, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			v, ok := w.env[name]
			return v, ok
		}},
		Emit: func(e Event) { w.events = append(w.events, e) },
	})
	return w
}

func (w *world) set(pairs ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			delete(w.env, pairs[i])
		} else {
			w.env[pairs[i]] = pairs[i+1]
		}
	}
}

// file writes what the file provider "vault" reads; an empty text takes the file away.
func (w *world) file(t testing.TB, text string) {
	t.Helper()
	name := filepath.Join(w.dir, "vault.json")
	if text == "" {
		_ = os.Remove(name)
	} else if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *world) config() Config {
	return Config{Providers: map[string]Provider{
		"vault": {Source: File, File: &FileProvider{Path: filepath.Join(w.dir, "vault.json")}},
		"few":   {Source: Env, Env: &EnvProvider{Allowlist: []string{"NONE"}}},
	}}
}

// told gives the events since it was last asked, each as its code and what matters of it.
func (w *world) told() []string {
	var out []string
	for _, e := range w.events {
		s := strings.TrimPrefix(string(e.Code), "SECRETS_")
		switch e.Code {
		case Degraded, OwnerUnavailable:
			s += " " + e.State + " " + e.Owner.String()
		case ProviderDegraded:
			s += " " + string(e.Source) + ":" + e.Provider
			for _, a := range e.Affected {
				s += " " + a.String()
			}
		case GatewayAuthSurface:
			s += " " + e.State + " " + e.Path
		case RefIgnoredInactive, RefOverridesPlaintext:
			s += " " + e.Path
		}
		out = append(out, s)
	}
	w.events = nil
	return out
}

func (w *world) value(t testing.TB, path string) string {
	t.Helper()
	v, err := w.Snapshot().Value(path)
	if err != nil {
		var u *UnavailableError
		if errors.As(err, &u) {
			return "cold"
		}
		return "error: " + err.Error()
	}
	return string(v.Reveal())
}

func env(id string) Ref        { return Ref{Env, "default", id} }
func fileRef(id string) Ref    { return Ref{File, "vault", id} }
func provider(id string) Owner { return Owner{OwnerProvider, id} }

var gateway = Owner{OwnerGateway, "ingress-auth"}

func modelKey(name string, ref Ref, digest string) Target {
	return Target{Path: "models.providers." + name + ".apiKey", Ref: ref, Owner: provider(name), Digest: digest}
}

func gatewayToken(ref Ref) Target {
	return Target{Path: "gateway.auth.token", Ref: ref, Owner: gateway, Digest: "g", Reason: "the mode is token"}
}

// TestActivations follows sequences of activations through what OpenClaw does.
func TestActivations(t *testing.T) {
	t.Parallel()
	const (
		openai = "models.providers.openai.apiKey"
		groq   = "models.providers.groq.apiKey"
		token  = "gateway.auth.token"
	)
	type step struct {
		set     []string          // variables, name and value; an empty value takes it away
		file    string            // of the provider "vault"; "-" takes it away, empty leaves it
		change  func(*Config)     //
		targets []Target          // nil: those of the step before
		fails   string            // part of the error; empty: the activation is published
		told    []string          // all events, in order
		values  map[string]string // by path; "cold" for a cold owner
		states  map[Owner]OwnerState
		count   int // of warnings
	}
	for _, tt := range []struct {
		name  string
		rule  string
		steps []step
	}{
		{"all is there", "eager, and silent but for the gateway's surface", []step{
			{set: []string{"A", "a1", "T", "t1"},
				targets: []Target{modelKey("openai", env("A"), "d"), gatewayToken(env("T"))},
				told:    []string{"GATEWAY_AUTH_SURFACE active gateway.auth.token"},
				values:  map[string]string{openai: "a1", token: "t1"},
				states:  map[Owner]OwnerState{provider("openai"): OwnerReady, gateway: OwnerReady}},
		}},
		{"a gateway's token is missing at start", "gateway auth is strict, and a start that fails emits no event of the reloader", []step{
			{set: []string{"A", "a1"},
				targets: []Target{modelKey("openai", env("A"), "d"), gatewayToken(env("T"))},
				fails:   "startup failed: required secrets are unavailable: gateway.auth.token: ",
				told:    []string{"DEGRADED cold gateway:ingress-auth"}},
		}},
		{"a model's key is missing at start", "a retryable failure of a mapped owner is cold, and the start goes on", []step{
			{set: []string{"B", "b1"},
				targets: []Target{modelKey("openai", env("A"), "d"), modelKey("groq", env("B"), "d")},
				told:    []string{"OWNER_UNAVAILABLE cold provider:openai", "DEGRADED cold provider:openai"},
				values:  map[string]string{openai: "cold", groq: "b1"},
				states:  map[Owner]OwnerState{provider("openai"): OwnerCold, provider("groq"): OwnerReady},
				count:   1},
			{set: []string{"A", "a1"}, // a start with cold owners did not begin a degradation of the reloader
				values: map[string]string{openai: "a1", groq: "b1"}},
		}},
		{"a key goes missing, and comes back", "stale keeps the last good value, others refresh; degraded and recovered once each", []step{
			{set: []string{"A", "a1", "B", "b1"}, targets: []Target{modelKey("openai", env("A"), "d"), modelKey("groq", env("B"), "d")}},
			{set: []string{"A", "", "B", "b2"},
				told:   []string{"OWNER_UNAVAILABLE stale provider:openai", "DEGRADED stale provider:openai", "RELOADER_DEGRADED"},
				values: map[string]string{openai: "a1", groq: "b2"}, count: 1,
				states: map[Owner]OwnerState{provider("openai"): OwnerStale, provider("groq"): OwnerReady}},
			{set: []string{"B", "b3"},
				told:   []string{"OWNER_UNAVAILABLE stale provider:openai", "DEGRADED stale provider:openai"},
				values: map[string]string{openai: "a1", groq: "b3"}, count: 1},
			{set: []string{"A", "a4"}, told: []string{"RELOADER_RECOVERED"}, values: map[string]string{openai: "a4", groq: "b3"}},
			{set: []string{"A", "a5"}, values: map[string]string{openai: "a5", groq: "b3"}},
		}},
		{"the ref changes and fails", "stale needs the same ref", []step{
			{set: []string{"A", "a1"}, targets: []Target{modelKey("openai", env("A"), "d")}},
			{targets: []Target{modelKey("openai", env("OTHER"), "d")},
				told:   []string{"OWNER_UNAVAILABLE cold provider:openai", "DEGRADED cold provider:openai", "RELOADER_DEGRADED"},
				values: map[string]string{openai: "cold"}, count: 1},
			{set: []string{"A", ""}, targets: []Target{modelKey("openai", env("A"), "d")}, // the value before was lost with the cold snapshot
				told:   []string{"OWNER_UNAVAILABLE cold provider:openai", "DEGRADED cold provider:openai"},
				values: map[string]string{openai: "cold"}, count: 1},
			{set: []string{"A", "a4"}, told: []string{"RELOADER_RECOVERED"}, values: map[string]string{openai: "a4"}},
		}},
		{"the owner's configuration changes", "stale needs the same digest", []step{
			{set: []string{"A", "a1"}, targets: []Target{modelKey("openai", env("A"), "d")}},
			{set: []string{"A", ""}, targets: []Target{modelKey("openai", env("A"), "e")},
				told:   []string{"OWNER_UNAVAILABLE cold provider:openai", "DEGRADED cold provider:openai", "RELOADER_DEGRADED"},
				values: map[string]string{openai: "cold"}, count: 1},
		}},
		{"an owner without a digest", "what is not known cannot be said to be unchanged", []step{
			{set: []string{"A", "a1"}, targets: []Target{modelKey("openai", env("A"), "")}},
			{set: []string{"A", ""},
				told:   []string{"OWNER_UNAVAILABLE cold provider:openai", "DEGRADED cold provider:openai", "RELOADER_DEGRADED"},
				values: map[string]string{openai: "cold"}, count: 1},
		}},
		{"the provider's definition changes", "stale needs the same definition", []step{
			{set: []string{"A", "a1"}, targets: []Target{modelKey("openai", env("A"), "d")}},
			{set: []string{"A", ""}, change: func(c *Config) { c.Providers["default"] = Provider{Source: Env, Env: &EnvProvider{}} },
				told:   []string{"OWNER_UNAVAILABLE cold provider:openai", "DEGRADED cold provider:openai", "RELOADER_DEGRADED"},
				values: map[string]string{openai: "cold"}, count: 1},
		}},
		{"an owner of two refs loses one", "an owner keeps all its old values or takes all new ones, never some of each", []step{
			{set: []string{"A", "a1", "H", "h1"}, targets: []Target{modelKey("openai", env("A"), "d"),
				{Path: "models.providers.openai.headers.x", Ref: env("H"), Owner: provider("openai"), Digest: "d"}}},
			{set: []string{"A", "a2", "H", ""},
				told:   []string{"OWNER_UNAVAILABLE stale provider:openai", "DEGRADED stale provider:openai", "RELOADER_DEGRADED"},
				values: map[string]string{openai: "a1", "models.providers.openai.headers.x": "h1"}, count: 1},
		}},
		{"a strict failure on reload", "the snapshot before stays whole, and the reload fails", []step{
			{set: []string{"A", "a1", "T", "t1"}, targets: []Target{modelKey("openai", env("A"), "d"), gatewayToken(env("T"))},
				told: []string{"GATEWAY_AUTH_SURFACE active gateway.auth.token"}},
			{set: []string{"A", "a2", "T", ""}, fails: "reload failed, the last good secrets stay in use: gateway.auth.token: ",
				told:   []string{"DEGRADED stale gateway:ingress-auth", "RELOADER_DEGRADED"},
				values: map[string]string{openai: "a1", token: "t1"}},
			{fails: "gateway.auth.token", told: []string{"DEGRADED stale gateway:ingress-auth"}, values: map[string]string{openai: "a1", token: "t1"}},
			{set: []string{"T", "t3"}, told: []string{"GATEWAY_AUTH_SURFACE active gateway.auth.token", "RELOADER_RECOVERED"},
				values: map[string]string{openai: "a2", token: "t3"}},
		}},
		{"nobody known holds the ref", "an owner that is not mapped is strict", []step{
			{targets: []Target{{Path: "mystery.key", Ref: env("A")}}, fails: "mystery.key", told: []string{"DEGRADED cold unknown:unmapped"}},
		}},
		{"a target says that it is strict", "strict whoever the owner is", []step{
			{targets: []Target{{Path: "x", Ref: env("A"), Owner: provider("x"), Strict: true}}, fails: "x: ", told: []string{"DEGRADED cold provider:x"}},
		}},
		{"a surface is inactive", "its ref is not resolved, and cannot fail", []step{
			{set: []string{"B", "b1"}, targets: []Target{
				{Path: openai, Ref: env("A"), Owner: provider("openai"), Inactive: true, Reason: "the provider is disabled"},
				{Path: token, Ref: env("T"), Owner: gateway, Inactive: true, Reason: "the mode is none"},
				modelKey("groq", env("B"), "d")},
				told:   []string{"GATEWAY_AUTH_SURFACE inactive gateway.auth.token", "REF_IGNORED_INACTIVE_SURFACE " + openai, "REF_IGNORED_INACTIVE_SURFACE " + token},
				values: map[string]string{groq: "b1", openai: "error: " + openai + ": " + ErrInactive.Error()}, count: 2},
		}},
		{"a literal stands beside the ref", "the ref takes precedence, with a warning; no fall-back when it fails", []step{
			{targets: []Target{{Path: openai, Ref: env("A"), Owner: provider("openai"), Overrides: true}},
				told:   []string{"REF_OVERRIDES_PLAINTEXT " + openai, "OWNER_UNAVAILABLE cold provider:openai", "DEGRADED cold provider:openai"},
				values: map[string]string{openai: "cold"}, count: 2},
		}},
		{"a provider goes away", "one event for the provider, with every owner that it hits; the gateway's failure fails the reload", []step{
			{file: `{"a": "a1", "t": "t1"}`, targets: []Target{modelKey("openai", fileRef("/a"), "d"), gatewayToken(fileRef("/t"))},
				told: []string{"GATEWAY_AUTH_SURFACE active gateway.auth.token"}},
			{file: "-", fails: "gateway.auth.token", told: []string{"PROVIDER_DEGRADED file:vault stale gateway:ingress-auth stale provider:openai", "RELOADER_DEGRADED"},
				values: map[string]string{openai: "a1", token: "t1"}},
			{file: `{"t": "t3"}`, told: []string{"GATEWAY_AUTH_SURFACE active gateway.auth.token", "OWNER_UNAVAILABLE stale provider:openai", "DEGRADED stale provider:openai"},
				values: map[string]string{openai: "a1", token: "t3"}, count: 1},
			{file: `{"a": "a4", "t": "t4"}`, told: []string{"GATEWAY_AUTH_SURFACE active gateway.auth.token", "RELOADER_RECOVERED"},
				values: map[string]string{openai: "a4", token: "t4"}},
		}},
		{"a provider goes away under several owners", "its warnings count, and one event tells of them all", []step{
			{set: []string{"B", "b1"}, file: `{"a": "a1", "c": "c1"}`, targets: []Target{
				modelKey("openai", fileRef("/a"), "d"), modelKey("groq", env("B"), "d"), modelKey("cohere", fileRef("/c"), "")}},
			{set: []string{"B", "b2"}, file: "-",
				told:   []string{"PROVIDER_DEGRADED file:vault cold provider:cohere stale provider:openai", "RELOADER_DEGRADED"},
				values: map[string]string{openai: "a1", groq: "b2", "models.providers.cohere.apiKey": "cold"}, count: 2},
		}},
		{"an owner loses a provider and a ref", "both are told", []step{
			{set: []string{"A", "a1"}, file: `{"h": "h1"}`, targets: []Target{modelKey("openai", env("A"), "d"),
				{Path: "models.providers.openai.headers.h", Ref: fileRef("/h"), Owner: provider("openai"), Digest: "d"}}},
			{set: []string{"A", ""}, file: "-",
				told:   []string{"OWNER_UNAVAILABLE stale provider:openai", "DEGRADED stale provider:openai", "PROVIDER_DEGRADED file:vault stale provider:openai", "RELOADER_DEGRADED"},
				values: map[string]string{openai: "a1"}, count: 1},
		}},
		{"a provider goes away under an owner that the new configuration lacks", "the owner is told of too, since the snapshot that stays has it", []step{
			{set: []string{"T", "t1"}, file: `{"a": "a1", "t": "t1"}`, targets: []Target{modelKey("openai", fileRef("/a"), "d"), gatewayToken(env("T"))},
				told: []string{"GATEWAY_AUTH_SURFACE active gateway.auth.token"}},
			{file: "-", targets: []Target{gatewayToken(fileRef("/t"))}, fails: "gateway.auth.token",
				told:   []string{"PROVIDER_DEGRADED file:vault cold gateway:ingress-auth stale provider:openai", "RELOADER_DEGRADED"},
				values: map[string]string{openai: "a1", token: "t1"}},
		}},
		{"policy", "what policy denies is strict, and no event says that it may come back", []step{
			{set: []string{"A", "a1"}, targets: []Target{modelKey("openai", env("A"), "d")}},
			{targets: []Target{modelKey("openai", Ref{Env, "few", "A"}, "d")}, fails: openai, values: map[string]string{openai: "a1"}},
		}},
		{"no such provider", "strict in a configuration", []step{
			{targets: []Target{modelKey("openai", Ref{Exec, "nowhere", "a"}, "d")}, fails: "not configured"},
		}},
		{"no such provider for an auth profile", "costs the profile alone", []step{
			{targets: []Target{{Path: "p", Ref: Ref{Exec, "nowhere", "a"}, Owner: Owner{OwnerAccount, "p"}, Profile: true}},
				told: []string{"PROVIDER_DEGRADED exec:nowhere cold account:p"}, values: map[string]string{"p": "cold"}, count: 1},
		}},
		{"a ref is malformed", "strict", []step{{targets: []Target{modelKey("openai", env("not upper"), "d")}, fails: "Env secret reference id"}}},
		{"a ref to the client's own store", "is foreign: a clear error", []step{{targets: []Target{modelKey("openai", Ref{Store, "default", "A"}, "d")}, fails: openai}}},
		{"a value of the wrong type", "strict, whoever the owner is, and the snapshot before stays", []step{
			{file: `{"a": "a1"}`, targets: []Target{modelKey("openai", fileRef("/a"), "d")}},
			{file: `{"a": 5}`, fails: openai + " resolved to a non-string or empty value.", values: map[string]string{openai: "a1"}},
			{file: `{"a": "  "}`, fails: "non-string or empty", values: map[string]string{openai: "a1"}},
			{file: `{"a": {"b": 1}}`, targets: []Target{{Path: openai, Ref: fileRef("/a"), Owner: provider("openai"), Expected: StringOrObject, Digest: "d"}},
				values: map[string]string{openai: `{"b":1}`}},
		}},
		{"a placeholder", "makes the owner cold although nothing else changed, also beside another failure", []step{
			{set: []string{"A", "a1", "B", "b1"}, targets: []Target{modelKey("openai", env("A"), "d"),
				{Path: "models.providers.openai.headers.x", Ref: env("B"), Owner: provider("openai"), Digest: "d"}}},
			{set: []string{"A", "***", "B", ""}, told: []string{"OWNER_UNAVAILABLE cold provider:openai", "DEGRADED cold provider:openai", "RELOADER_DEGRADED"},
				values: map[string]string{openai: "cold"}, count: 1},
		}},
		{"a placeholder for the gateway", "fails the start", []step{
			{set: []string{"T", "[REDACTED]"}, targets: []Target{gatewayToken(env("T"))}, fails: "redaction placeholder"},
		}},
		{"the old rules", "2026.3.2: all or nothing, and the events of the reloader alone", []step{
			{set: []string{"A", "a1", "B", "b1"}, change: func(c *Config) { c.Compat = V2026_3_2 },
				targets: []Target{modelKey("openai", env("A"), "d"), modelKey("groq", env("B"), "d")}},
			{set: []string{"A", "", "B", "b2"}, fails: openai, told: []string{"RELOADER_DEGRADED"}, values: map[string]string{openai: "a1", groq: "b1"}},
			{fails: openai, values: map[string]string{openai: "a1", groq: "b1"}},
			{set: []string{"A", "a4"}, told: []string{"RELOADER_RECOVERED"}, values: map[string]string{openai: "a4", groq: "b2"}},
		}},
		{"the old rules at start", "2026.3.2: any unresolved ref fails the start, silently", []step{
			{change: func(c *Config) { c.Compat = V2026_3_2 }, targets: []Target{modelKey("openai", env("A"), "d")}, fails: "startup failed"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c := w.config()
			var targets []Target
			for i, s := range tt.steps {
				w.set(s.set...)
				if s.file != "" {
					w.file(t, strings.TrimPrefix(s.file, "-"))
				}
				if s.change != nil {
					c.Providers = maps.Clone(c.Providers)
					s.change(&c)
				}
				if s.targets != nil {
					targets = s.targets
				}
				report, err := w.Activate(t.Context(), c, targets)
				switch {
				case (err == nil) != (s.fails == ""):
					t.Fatalf("step %d: error %v, want %q (%s)", i, err, s.fails, tt.rule)
				case err != nil && !strings.Contains(err.Error(), s.fails):
					t.Errorf("step %d: error %q lacks %q (%s)", i, err, s.fails, tt.rule)
				case err == nil && report.WarningCount() != s.count:
					t.Errorf("step %d: %d warnings, want %d: %v (%s)", i, report.WarningCount(), s.count, report.Warnings, tt.rule)
				}
				if told := w.told(); !slices.Equal(told, s.told) {
					t.Errorf("step %d: told\n\t%s\nwant\n\t%s\n(%s)", i, strings.Join(told, "\n\t"), strings.Join(s.told, "\n\t"), tt.rule)
				}
				for path, want := range s.values {
					if got := w.value(t, path); got != want {
						t.Errorf("step %d: %s is %q, want %q (%s)", i, path, got, want, tt.rule)
					}
				}
				for owner, want := range s.states {
					if got, ok := w.Snapshot().State(owner); got != want || !ok {
						t.Errorf("step %d: %s is %s, want %s (%s)", i, owner, got, want, tt.rule)
					}
				}
			}
		})
	}
}

// TestColdOwner looks at what a reader of a cold owner gets.
func TestColdOwner(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := w.Activate(t.Context(), w.config(), []Target{modelKey("openai", env("A"), "d")}); err != nil {
		t.Fatal(err)
	}
	s := w.Snapshot()
	_, byPath := s.Value("models.providers.openai.apiKey")
	_, byOwner := s.ValueFor("models.providers.openai.apiKey", provider("openai"))
	_, byRef := s.ByRef(env("A"))
	for name, err := range map[string]error{"Value": byPath, "ValueFor": byOwner, "ByRef": byRef, "Available": s.Available(provider("openai"))} {
		var u *UnavailableError
		if !errors.As(err, &u) || u.Code() != SurfaceUnavailable || !errors.Is(err, backend.ErrUnavailable) {
			t.Errorf("%s: %v, want %s", name, err, SurfaceUnavailable)
		}
	}
	if err := s.Available(provider("groq")); err != nil {
		t.Errorf("an owner without refs: %v", err)
	}
	if _, err := s.Value("other"); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("a path without ref: %v, want not found", err)
	}
	for _, e := range w.events {
		if text := e.String(); strings.Contains(text, `"A"`) || strings.Contains(text, ":A") {
			t.Errorf("an event holds the id of a ref: %s", text)
		}
	}
}

// TestActivateWithoutTime shows that an activation whose context is done publishes and tells nothing.
func TestActivateWithoutTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Activate(ctx, w.config(), []Target{modelKey("openai", env("A"), "d")}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
	if w.Snapshot() != nil || len(w.events) > 0 {
		t.Errorf("snapshot %v and events %v", w.Snapshot(), w.events)
	}
}

// TestActivateWhoseContextEnds shows the same for a context that ends during the pass.
func TestActivateWhoseContextEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var events []Event
	r := NewRuntime(RuntimeConfig{Host: Host{LookupEnv: func(string) (string, bool) { cancel(); return "x", true }},
		Emit: func(e Event) { events = append(events, e) }})
	if _, err := r.Activate(ctx, Config{}, []Target{modelKey("openai", env("A"), "d")}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
	if r.Snapshot() != nil || len(events) > 0 {
		t.Errorf("snapshot %v and events %v", r.Snapshot(), events)
	}
}

// TestActivationsAreSerial shows that one activation waits for another, gives up with its context, and keeps no reader
// waiting.
func TestActivationsAreSerial(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		r := NewRuntime(RuntimeConfig{Host: Host{LookupEnv: func(string) (string, bool) { <-hold; return "x", true }}})
		targets := []Target{modelKey("openai", env("A"), "d")}
		first := make(chan error, 1)
		go func() { _, err := r.Activate(t.Context(), Config{}, targets); first <- err }()
		synctest.Wait()

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Activate(ctx, Config{}, targets); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the second activation: %v, want that it gives up", err)
		}
		if r.Snapshot() != nil {
			t.Error("a snapshot before there was one")
		}
		close(hold)
		if err := <-first; err != nil {
			t.Error(err)
		}
		if _, err := r.Activate(t.Context(), Config{}, targets); err != nil || r.Snapshot().Generation() != 2 {
			t.Errorf("the third activation: %v", err)
		}
	})
}

// TestSharedPlace looks at a place that several owners use: what one lacks is no loss of the other.
func TestSharedPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set("A", "a1", "B", "b1")
	one, two := Owner{OwnerAccount, "discord:a"}, Owner{OwnerAccount, "discord:b"}
	targets := []Target{
		{Path: "channels.discord.token", Ref: env("A"), Owner: one, Digest: "d"},
		{Path: "channels.discord.token", Ref: env("A"), Owner: two, Digest: "d"},
		{Path: "channels.discord.accounts.b.pluralkit.token", Ref: env("B"), Owner: two, Digest: "d"},
	}
	for _, b := range []string{"b1", ""} {
		w.set("A", "a"+b, "B", b)
		if _, err := w.Activate(t.Context(), w.config(), targets); err != nil {
			t.Fatal(err)
		}
	}
	s := w.Snapshot()
	for owner, want := range map[Owner]string{one: "a", two: "ab1"} {
		v, err := s.ValueFor("channels.discord.token", owner)
		if err != nil || string(v.Reveal()) != want {
			t.Errorf("%s has %q, %v; want %q", owner, v.Reveal(), err, want)
		}
	}
	if got := w.value(t, "channels.discord.token"); got != "a" {
		t.Errorf("the place is %q, want what is fresh", got)
	}
	if v, err := s.ByRef(env("A")); err != nil || string(v.Reveal()) != "a" {
		t.Errorf("the ref is %q, %v; want what is fresh", v.Reveal(), err)
	}
}

// TestEventTexts holds the lines that an operator reads.
func TestEventTexts(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]Event{
		"[SECRETS_DEGRADED] cold provider:openai: secret reference was not found; retry with: openclaw secrets reload": {Code: Degraded, Owner: provider("openai"),
			State: "cold", Reason: reasonMissing, RetryHint: RetryHint},
		"[SECRETS_PROVIDER_DEGRADED] exec:v: secret provider failed; affected: stale gateway:ingress-auth, cold unknown:unmapped; retry with: x": {Code: ProviderDegraded,
			Source: Exec, Provider: "v", Reason: reasonProvider, Affected: []OwnerStatus{{gateway, OwnerStale}, {Owner{}, OwnerCold}}, RetryHint: "x"},
		"[SECRETS_OWNER_UNAVAILABLE] stale provider:a at x, y: secret provider failed":                                 {Code: OwnerUnavailable, Owner: provider("a"), Paths: []string{"x", "y"}, State: "stale", Reason: reasonProvider},
		"[SECRETS_GATEWAY_AUTH_SURFACE] gateway.auth.token is active: the mode is token":                               {Code: GatewayAuthSurface, Path: "gateway.auth.token", State: "active", Reason: "the mode is token"},
		"[SECRETS_REF_IGNORED_INACTIVE_SURFACE] x: nothing uses this ref as things stand, so it is not resolved (why)": {Code: RefIgnoredInactive, Path: "x", Reason: "why"},
		"[SECRETS_REF_OVERRIDES_PLAINTEXT] x: the ref counts, the plaintext beside it is ignored; remove it":           {Code: RefOverridesPlaintext, Path: "x"},
		"[SECRETS_RELOADER_RECOVERED] every secret resolved again":                                                     {Code: ReloaderRecovered, Reason: "every secret resolved again"},
	} {
		if got := e.String(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if named := e.Name() != ""; named != (e.Code == Degraded || e.Code == ProviderDegraded) {
			t.Errorf("%s: name %q", e.Code, e.Name())
		}
	}
}

// TestPreflight shows that a preflight says what an activation would give, and leaves everything as it was.
func TestPreflight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set("A", "a1")
	targets := []Target{modelKey("openai", env("A"), "d")}
	if _, err := w.Activate(t.Context(), w.config(), targets); err != nil {
		t.Fatal(err)
	}
	before := w.Snapshot()
	w.set("A", "")
	report, err := w.Preflight(t.Context(), w.config(), targets)
	if err != nil || len(report.Failures) != 1 || report.Failures[0].State != OwnerStale {
		t.Errorf("report %+v, error %v", report, err)
	}
	if w.Snapshot() != before || len(w.events) > 0 {
		t.Errorf("a preflight published or told: %v", w.events)
	}
}

// TestReadersSeeOneActivation reads while others activate: every snapshot holds the values of one round alone.
func TestReadersSeeOneActivation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	targets := []Target{modelKey("a", env("A"), "d"), modelKey("b", env("B"), "d"), modelKey("c", env("C"), "d")}
	round := func(n int) {
		v := fmt.Sprint(n)
		w.set("A", v, "B", v, "C", v)
		if _, err := w.Activate(t.Context(), w.config(), targets); err != nil {
			t.Error(err)
		}
	}
	round(0)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			last := uint64(0)
			for {
				select {
				case <-done:
					return
				default:
				}
				s := w.Snapshot()
				if s.Generation() < last {
					t.Errorf("generation %d after %d", s.Generation(), last)
				}
				last = s.Generation()
				var first string
				for i, target := range targets {
					v, err := s.Value(target.Path)
					if err != nil {
						t.Error(err)
						return
					}
					if text := string(v.Reveal()); i == 0 {
						first = text
					} else if text != first {
						t.Errorf("a snapshot holds %s and %s", first, text)
					}
				}
			}
		})
	}
	for n := 1; n <= 200; n++ {
		round(n)
	}
	close(done)
	readers.Wait()
	if g := w.Snapshot().Generation(); g != 201 {
		t.Errorf("generation %d, want 201", g)
	}
}

// TestActivationsProperty runs random sequences against a model of the rules: what a place holds is of this
// activation, or, under the three conditions alone, of the last one that gave its owner everything.
func TestActivationsProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(nil)
		owners := []string{"a", "b", "c"}
		vars := []string{"V0", "V1", "V2", "V3"}
		type had struct {
			refs, digest string
			config       string
			values       map[string]string // by path; nil when cold
		}
		model := make(map[string]had)
		for round := range rapid.IntRange(1, 8).Draw(t, "rounds") {
			for _, v := range vars {
				if rapid.IntRange(0, 3).Draw(t, v) == 0 {
					w.set(v, "")
				} else {
					w.set(v, fmt.Sprintf("%s@%d", v, round))
				}
			}
			c := Config{}
			definition := "none"
			if rapid.IntRange(0, 4).Draw(t, "define") == 0 {
				c.Providers = map[string]Provider{"default": {Source: Env, Env: &EnvProvider{}}}
				definition = "one"
			}
			strict := rapid.IntRange(0, 5).Draw(t, "strict") == 0
			var targets []Target
			next := make(map[string]had)
			strictFails := false
			for _, o := range owners {
				digest := rapid.SampledFrom([]string{"d", "d", "d", "e", ""}).Draw(t, o+" digest")
				refs := rapid.SliceOfN(rapid.SampledFrom(vars), 0, 2).Draw(t, o+" refs")
				h := had{digest: digest, config: definition, values: make(map[string]string)}
				ok := true
				keys := slices.Sorted(slices.Values(refs))
				h.refs = strings.Join(keys, ",")
				for i, v := range refs {
					path := fmt.Sprintf("%s.%d", o, i)
					targets = append(targets, Target{Path: path, Ref: env(v), Owner: provider(o), Digest: digest, Strict: strict && o == "c"})
					h.values[path] = w.env[v]
					ok = ok && w.env[v] != ""
				}
				if len(refs) == 0 {
					continue
				}
				if !ok {
					was := model[o]
					kept := digest != "" && was.digest == digest && was.refs == h.refs && was.config == definition && was.values != nil
					h.values = nil
					if kept {
						h.values = make(map[string]string)
						for i, v := range refs {
							for _, old := range was.values {
								if strings.HasPrefix(old, v+"@") {
									h.values[fmt.Sprintf("%s.%d", o, i)] = old
								}
							}
						}
					}
					strictFails = strictFails || strict && o == "c"
				}
				next[o] = h
			}
			before := w.Snapshot()
			_, err := w.Activate(context.Background(), c, targets)
			if (err != nil) != strictFails {
				t.Fatalf("round %d: error %v, want one: %v", round, err, strictFails)
			}
			if strictFails {
				if w.Snapshot() != before {
					t.Fatal("a failed activation was published")
				}
				continue
			}
			model = next
			s := w.Snapshot()
			for _, target := range targets {
				want, kept := model[target.Owner.ID].values[target.Path]
				v, err := s.Value(target.Path)
				if (err == nil) != kept || err == nil && string(v.Reveal()) != want {
					t.Fatalf("round %d: %s is %q, %v; want %q, %v", round, target.Path, v.Reveal(), err, want, kept)
				}
			}
		}
	})
}
