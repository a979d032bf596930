package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
)

// pluginSidecar runs a sidecar with two plugins by their tokens, one that may read alone, and a consumer that is none.
func pluginSidecar(t *testing.T) (sc *sidecar, token func(name string) string) {
	t.Helper()
	dir := t.TempDir()
	var tokens []string
	for _, name := range []string{"weather", "mail", "reader", "web"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(name+"-0123456789abcdef0123456789abcdef"), 0o600); err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, fmt.Sprintf("%s: %q", name, path))
	}
	sc = &sidecar{t: t, dir: t.TempDir(), logs: &buffer{}, kinds: testKinds()}
	sc.socket = filepath.Join(sc.dir, "run", "sock")
	sc.configure("\n  m: {kind: memory, values: {plain: \"plain-c4nary\"}}\n  kept: {kind: memory}\n", `
  plugins: {store: kept, prefix: of/plugins}
  tokens: {`+strings.Join(tokens, ", ")+`}
  consumers:
    - {name: weather, token: weather, subject: {plugin: weather}, secrets: [read, write], allow: [{provider: "*", id: "**"}]}
    - {name: mail, token: mail, subject: {plugin: Weather}, secrets: [read, write]}
    - {name: reader, token: reader, subject: {plugin: weather}, secrets: [read]}
    - {name: web, token: web, allow: [{provider: "*", id: "**"}]}
`)
	sc.open()
	return sc, func(name string) string { return name + "-0123456789abcdef0123456789abcdef" }
}

func TestPluginSecrets(t *testing.T) {
	t.Parallel()
	sc, token := pluginSidecar(t)
	ctx := t.Context()
	weather, mail := sc.client(token("weather")).Plugin(), sc.client(token("mail")).Plugin()
	has := func(p client.Plugin, key string, want bool) {
		t.Helper()
		if got, err := p.Has(ctx, key); err != nil || got != want {
			t.Errorf("has %s: %t, %v; want %t", key, got, err, want)
		}
	}
	if _, err := weather.Get(ctx, "API_KEY"); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("a key that is not there: %v", err)
	}
	has(weather, "API_KEY", false)
	for key, value := range map[string]string{"API_KEY": "upper-c4nary", "api_key": "lower-c4nary", "binary": "\xff\x00c4nary", "empty": "", "object": `{"a":"c4nary","b":1}`, "number": "5"} {
		if err := weather.Set(ctx, key, backend.NewSecretString(value)); err != nil {
			t.Fatal(err)
		}
		got, err := weather.Get(ctx, key)
		if err != nil || string(got.Reveal()) != value || got.IsJSON() {
			t.Errorf("%s is another value, or %v", key, err)
		}
		has(weather, key, true)
		// What is there for one plugin is not for another, not even whether it is, also where a store would take their names for the same.
		has(mail, key, false)
		if _, err := mail.Get(ctx, key); !errors.Is(err, backend.ErrNotFound) {
			t.Errorf("another plugin's %s: %v", key, err)
		}
		if err := mail.Delete(ctx, key); err != nil {
			t.Error(err)
		}
		has(weather, key, true)
	}
	for range 2 { // it is idempotent
		if err := weather.Delete(ctx, "API_KEY"); err != nil {
			t.Error(err)
		}
		has(weather, "API_KEY", false)
	}
	has(weather, "api_key", true)
	if log := sc.auditLog(); !strings.Contains(log, `"event":"secret_set"`) || !strings.Contains(log, `"event":"secret_has"`) ||
		!strings.Contains(log, `"event":"secret_delete"`) || !strings.Contains(log, `"reason":"plugin weather"`) {
		t.Error("the audit log does not tell of all")
	}
}

// Reading and writing are two permissions, and who is no plugin has none.
func TestPluginSecretsNeedPermission(t *testing.T) {
	t.Parallel()
	sc, token := pluginSidecar(t)
	ctx := t.Context()
	if err := sc.client(token("weather")).Plugin().Set(ctx, "k", backend.NewSecretString("v-c4nary")); err != nil {
		t.Fatal(err)
	}
	reader := sc.client(token("reader")).Plugin()
	if got, err := reader.Get(ctx, "k"); err != nil || string(got.Reveal()) != "v-c4nary" {
		t.Errorf("who may read: %v", err)
	}
	if err := reader.Set(ctx, "k", backend.NewSecretString("x")); backend.CodeOf(err) != backend.CodeDenied {
		t.Errorf("who may read sets: %v", err)
	}
	if err := reader.Delete(ctx, "k"); backend.CodeOf(err) != backend.CodeDenied {
		t.Errorf("who may read deletes: %v", err)
	}
	for name, c := range map[string]*client.Client{"a consumer that is none": sc.client(token("web")), "the owner": sc.client("")} {
		if _, err := c.Plugin().Get(ctx, "k"); backend.CodeOf(err) != backend.CodeDenied {
			t.Errorf("%s gets: %v", name, err)
		}
		if _, err := c.Plugin().Has(ctx, "k"); backend.CodeOf(err) != backend.CodeDenied {
			t.Errorf("%s has: %v", name, err)
		}
	}
	if err := sc.client(token("weather")).EndPlugin(ctx, "weather"); backend.CodeOf(err) != backend.CodeDenied {
		t.Errorf("a plugin ends itself: %v", err)
	}
}

// For whom a request is comes from the connection: whatever says otherwise is refused, and nothing is done.
func TestPluginClaimsAreRefused(t *testing.T) {
	t.Parallel()
	sc, token := pluginSidecar(t)
	auth := "Authorization: Bearer " + token("mail")
	if got := sc.do("PUT", "/v1/secrets/k", `{"value":"own-c4nary"}`, auth); got.status != http.StatusNoContent {
		t.Fatalf("status %d: %s", got.status, got.body)
	}
	for name, c := range map[string]struct {
		method, path, body string
		header             string
	}{
		"plugin in the body":      {"PUT", "/v1/secrets/k", `{"value":"x","plugin":"weather"}`, "A: b"},
		"pluginId in the body":    {"PUT", "/v1/secrets/k", `{"pluginId":"weather","value":"x"}`, "A: b"},
		"subject in the body":     {"PUT", "/v1/secrets/k", `{"subject":{"plugin":"weather"},"value":"x"}`, "A: b"},
		"scope in the body":       {"PUT", "/v1/secrets/k", `{"value":"x","scope":"weather"}`, "A: b"},
		"plugin in the query":     {"GET", "/v1/secrets/k?plugin=weather", "", "A: b"},
		"subject in the query":    {"DELETE", "/v1/secrets/k?subject=weather", "", "A: b"},
		"scope in the query":      {"HEAD", "/v1/secrets/k?scope=weather", "", "A: b"},
		"plugin in a header":      {"GET", "/v1/secrets/k", "", "X-Plugin: weather"},
		"plugin id in a header":   {"GET", "/v1/secrets/k", "", "X-Plugin-Id: weather"},
		"our own name for it":     {"GET", "/v1/secrets/k", "", "X-Credresolve-Plugin: weather"},
		"subject in a header":     {"PUT", "/v1/secrets/k", `{"value":"x"}`, "X-Credresolve-Subject: weather"},
		"a header without prefix": {"PUT", "/v1/secrets/k", `{"value":"x"}`, "Scope: weather"},
	} {
		if got := sc.do(c.method, c.path, c.body, auth, c.header); got.status != http.StatusForbidden {
			t.Errorf("%s: status %d: %s", name, got.status, got.body)
		}
	}
	if got := sc.do("GET", "/v1/secrets/k", "", auth); got.body != `{"value":"own-c4nary"}`+"\n" {
		t.Errorf("a refused request changed something: status %d", got.status)
	}
}

func TestPluginKeysAndValuesThatAreRefused(t *testing.T) {
	t.Parallel()
	sc, token := pluginSidecar(t)
	auth := "Authorization: Bearer " + token("weather")
	for _, key := range []string{"", ".", "..", "...", "a..b", "../mail/k", "..%2Fmail%2Fk", "%2e%2e", "a/b", "a%2Fb", "a%5Cb", "a%20b", "%00", "%C3%A4", "=keys", "+k", "k:v", strings.Repeat("k", 129)} {
		got := sc.do("GET", "/v1/secrets/"+key, "", auth)
		if got.status != http.StatusUnprocessableEntity || got.code(t) != backend.CodeInvalidID {
			t.Errorf("%.20q: status %d: %s", key, got.status, got.body)
		}
	}
	for name, c := range map[string]struct {
		body   string
		status int
	}{
		"no JSON":         {`{"value":c4nary`, 400},
		"nothing":         {`{}`, 400},
		"both":            {`{"value":"c4nary","value_base64":"YQ=="}`, 400},
		"a number":        {`{"value":4}`, 400},
		"no base64":       {`{"value_base64":"c4nary!"}`, 400},
		"an unknown key":  {`{"value":"c4nary","more":1}`, 400},
		"two values":      {`{"value":"c4nary"}{}`, 400},
		"a large value":   {`{"value":"` + strings.Repeat("x", maxSecret+1) + `"}`, 413},
		"one that is not": {`{"value":"` + strings.Repeat("x", maxSecret) + `"}`, 204},
	} {
		got := sc.do("PUT", "/v1/secrets/k", c.body, auth)
		if got.status != c.status || strings.Contains(got.body, canary) {
			t.Errorf("%s: status %d: %.200s", name, got.status, got.body)
		}
	}
	if got := sc.do("GET", "/v1/secrets/k?what=1", "", auth); got.status != http.StatusBadRequest {
		t.Errorf("a query: status %d", got.status)
	}
}

// No rule of a consumer reaches what plugins keep, whatever it matches, and no session's list.
func TestPluginSecretsAreResolvedForNobody(t *testing.T) {
	t.Parallel()
	sc, token := pluginSidecar(t)
	ctx := t.Context()
	if err := sc.client(token("weather")).Plugin().Set(ctx, "k", backend.NewSecretString("v-c4nary")); err != nil {
		t.Fatal(err)
	}
	ref := refOf("cred://kept/of/plugins/weather/k")
	for _, name := range []string{"weather", "web"} {
		if _, err := sc.client(token(name)).Resolve(ctx, ref); backend.CodeOf(err) != backend.CodeDenied {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := sc.client(token(name)).Resolve(ctx, refOf("cred://m/plain")); err != nil {
			t.Errorf("%s, what its rule is for: %v", name, err)
		}
	}
	if got := sc.do("POST", "/v1/sessions", `{"consumer":"job","allow":["`+ref.String()+`"]}`); got.status != http.StatusBadRequest {
		t.Errorf("a session for it: status %d: %s", got.status, got.body)
	}
	if v, err := sc.client("").Resolve(ctx, ref); err != nil || string(v.Secret().Reveal()) != "v-c4nary" {
		t.Errorf("the owner: %v", err)
	}
}

// A session whose subject names a plugin is that plugin, as far as it was given that.
func TestPluginBySession(t *testing.T) {
	t.Parallel()
	sc, token := pluginSidecar(t)
	ctx := t.Context()
	one := sc.session(`{"consumer":"host","allow":[],"secrets":["read","write"],"subject":{"plugin":"weather"}}`)
	plugin := sc.client(one.Token).Plugin()
	if err := plugin.Set(ctx, "k", backend.NewSecretString("v-c4nary")); err != nil {
		t.Fatal(err)
	}
	if got, err := sc.client(token("weather")).Plugin().Get(ctx, "k"); err != nil || string(got.Reveal()) != "v-c4nary" {
		t.Errorf("the same plugin by its token: %v", err)
	}
	plain := sc.session(`{"consumer":"host","allow":["cred://m/plain"],"subject":{"plugin":"weather"}}`)
	if _, err := sc.client(plain.Token).Plugin().Get(ctx, "k"); backend.CodeOf(err) != backend.CodeDenied {
		t.Errorf("a session that was not given secrets: %v", err)
	}
	bounded := sc.session(`{"consumer":"reader","allow":[],"secrets":["read","write"],"subject":{"plugin":"weather"}}`)
	if err := sc.client(bounded.Token).Plugin().Set(ctx, "k", backend.NewSecretString("x")); backend.CodeOf(err) != backend.CodeDenied {
		t.Errorf("a session of a consumer that may only read: %v", err)
	}
	for name, body := range map[string]string{
		"no plugin":            `{"consumer":"host","allow":[],"secrets":["read"]}`,
		"an unknown secrets":   `{"consumer":"host","allow":[],"secrets":["all"],"subject":{"plugin":"weather"}}`,
		"nothing to do for it": `{"consumer":"host","allow":[],"subject":{"plugin":"weather"}}`,
	} {
		if got := sc.do("POST", "/v1/sessions", body); got.status != http.StatusBadRequest {
			t.Errorf("%s: status %d: %s", name, got.status, got.body)
		}
	}
}

// Ending a plugin takes its secrets and its sessions, and nobody else's.
func TestEndPlugin(t *testing.T) {
	t.Parallel()
	sc, token := pluginSidecar(t)
	ctx := t.Context()
	weather, mail := sc.client(token("weather")).Plugin(), sc.client(token("mail")).Plugin()
	for i := range 20 {
		for _, p := range []client.Plugin{weather, mail} {
			if err := p.Set(ctx, fmt.Sprint("k", i), backend.NewSecretString("v-c4nary")); err != nil {
				t.Fatal(err)
			}
		}
	}
	one := sc.session(`{"consumer":"host","allow":["cred://m/plain"],"subject":{"plugin":"weather"}}`)
	other := sc.session(`{"consumer":"host","allow":["cred://m/plain"],"subject":{"plugin":"Weather"}}`)
	owner := sc.client("")
	kept := refOf("cred://kept/of/plugins/weather/k3")
	if _, err := owner.Resolve(ctx, kept); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it is idempotent
		if err := owner.EndPlugin(ctx, "weather"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		if got, err := weather.Has(ctx, fmt.Sprint("k", i)); got || err != nil {
			t.Errorf("k%d is still there, or %v", i, err)
		}
		if got, err := mail.Has(ctx, fmt.Sprint("k", i)); !got || err != nil {
			t.Errorf("another plugin's k%d is gone, or %v", i, err)
		}
	}
	if _, err := owner.Resolve(ctx, kept); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("the owner still resolves it: %v", err)
	}
	if _, err := sc.client(one.Token).Resolve(ctx, refOf("cred://m/plain")); backend.CodeOf(err) != backend.CodeAuthRequired {
		t.Errorf("its session lives: %v", err)
	}
	if _, err := sc.client(other.Token).Resolve(ctx, refOf("cred://m/plain")); err != nil {
		t.Errorf("another plugin's session ended: %v", err)
	}
	store, err := sc.server.resolver.Backend("kept")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Get(ctx, backend.Request{ID: "of/plugins/weather/=keys"}); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("the list of its keys is still there: %v", err)
	}
	if got := sc.do("DELETE", "/v1/plugins/"+strings.Repeat("x", 129), ""); got.status != http.StatusUnprocessableEntity {
		t.Errorf("a long name: status %d", got.status)
	}
	if !strings.Contains(sc.auditLog(), `"event":"plugin_end"`) {
		t.Error("the end is not in the audit log")
	}
}

// However requests come together, and from two sidecars of one store: what is there is in the list, so that ending the plugin leaves nothing.
func TestPluginSecretsTogether(t *testing.T) {
	t.Parallel()
	sc, token := pluginSidecar(t)
	ctx := t.Context()
	secrets, err := sc.server.secretsOf(sc.server.state.Load(), "weather")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			p := sc.client(token("weather")).Plugin()
			for n := range 10 {
				key := fmt.Sprintf("k%d.%d", i, n)
				if err := p.Set(ctx, key, backend.NewSecretString("v-c4nary")); err != nil {
					t.Error(err)
				}
				if n%3 == 0 {
					if err := p.Delete(ctx, key); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Go(func() { // another sidecar
		for n := range 10 {
			for { // who waits for its turn there does not compete here
				err := secrets.set(ctx, fmt.Sprint("far", n), backend.NewSecretString("v-c4nary"))
				if err == nil {
					break
				}
				if !errors.Is(err, backend.ErrConflict) {
					t.Error(err)
					return
				}
			}
		}
	})
	all.Wait()
	keys, _, err := secrets.index(ctx)
	if err != nil || len(keys) != 8*6+10 {
		t.Errorf("%d keys are listed, %v", len(keys), err)
	}
	if err := sc.client("").EndPlugin(ctx, "weather"); err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if _, err := secrets.get(ctx, key); !errors.Is(err, backend.ErrNotFound) {
			t.Errorf("%s is left: %v", key, err)
		}
	}
}

func TestPluginKeepsNoMoreThanItMay(t *testing.T) {
	t.Parallel()
	sc, _ := pluginSidecar(t)
	secrets, err := sc.server.secretsOf(sc.server.state.Load(), "weather")
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxSecretKeys {
		if err := secrets.set(t.Context(), fmt.Sprint("k", i), backend.NewSecretString("v")); err != nil {
			t.Fatal(err)
		}
	}
	if err := secrets.set(t.Context(), "one.more", backend.NewSecretString("v")); backend.CodeOf(err) != backend.CodeDenied {
		t.Errorf("one too many: %v", err)
	}
	if err := secrets.set(t.Context(), "k7", backend.NewSecretString("w")); err != nil {
		t.Errorf("one that is there: %v", err)
	}
}

// No two names are written alike, whatever the store makes of upper and lower case, and each is one part of an id.
func FuzzEscapeName(f *testing.F) {
	for _, seed := range [][2]string{{"API_KEY", "api_key"}, {"a/b", "a=2fb"}, {"..", "=2e=2e"}, {"+a", "A"}, {".", "%2e"}, {"org/Plugin", "org=2f+plugin"}, {"\xff", "ÿ"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := escapeName(a), escapeName(b)
		if (a == b) != strings.EqualFold(x, y) {
			t.Errorf("%q and %q are %q and %q", a, b, x, y)
		}
		if strings.ContainsAny(x, "/\\%") || x == "." || x == ".." || x == indexName || bytes.ContainsFunc([]byte(x), func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("%q is %q", a, x)
		}
	})
}

func TestPluginStoresThatCannotBe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ serve, want string }{
		"one that cannot be written": {"  plugins: {store: conf}\n", "cannot keep secrets of plugins"},
		"one that is not there":      {"  plugins: {store: none}\n", "serve.plugins.store: it must name one of the providers"},
		"a prefix alone":             {"  plugins: {prefix: x}\n", "prefix without store"},
		"secrets without a store":    {"  consumers: [{name: w, uid: 1, subject: {plugin: w}, secrets: [read]}]\n", "serve.plugins.store is not set"},
		"secrets of no plugin":       {"  plugins: {store: m}\n  consumers: [{name: w, uid: 1, secrets: [read]}]\n", "whose they are is missing"},
		"an unknown permission":      {"  plugins: {store: m}\n  consumers: [{name: w, uid: 1, subject: {plugin: w}, secrets: [all]}]\n", "unknown permission"},
		"a rule for the store":       {"  plugins: {store: m}\n  consumers: [{name: w, uid: 1, allow: [{provider: m, id: x}]}]\n", "give it a provider of its own"},
	} {
		sc := &sidecar{t: t, dir: t.TempDir(), logs: &buffer{}, kinds: testKinds()}
		sc.socket = filepath.Join(sc.dir, "run", "sock")
		sc.write("conf.json", `{}`)
		sc.configure(providers, c.serve)
		s, err := Open(context.Background(), sc.options(nil))
		if err == nil {
			_ = s.end()
		}
		if backend.CodeOf(err) != backend.CodeInvalidConfig || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	sc := start(t, "  consumers: [{name: w, subject: {plugin: w}}]\n")
	one := sc.session(`{"consumer":"host","allow":[],"secrets":["read"],"subject":{"plugin":"weather"}}`)
	if _, err := sc.client(one.Token).Plugin().Get(t.Context(), "k"); backend.CodeOf(err) != backend.CodeUnsupported || !strings.Contains(err.Error(), "serve.plugins.store") {
		t.Errorf("without a store: %v", err)
	}
}
