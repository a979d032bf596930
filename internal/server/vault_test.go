package server

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	hashicorp "github.com/hashicorp/vault/api"

	"github.com/credresolve/credresolve/adapters/vault"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/vaulttest"
)

// vaultClient gives a client of Vault's SDK that asks the drop-in, with a token; empty: the listener's.
func (sc *sidecar) vaultClient(token string) *hashicorp.Client {
	sc.t.Helper()
	c := hashicorp.DefaultConfig()
	c.Address, c.MaxRetries = "http://"+sc.at("vault"), 0
	client, err := hashicorp.NewClient(c)
	if err != nil {
		sc.t.Fatal(err)
	}
	if token == "" {
		token = sc.token("vault.token")
	}
	client.SetToken(token)
	client.SetNamespace("")
	sc.t.Cleanup(c.HttpClient.CloseIdleConnections)
	return client
}

// vault asks the drop-in without a library.
func (sc *sidecar) vault(method, path string, headers ...string) reply {
	sc.t.Helper()
	return sc.ask("vault", method, path, append([]string{"X-Vault-Request: true", "X-Vault-Token: " + sc.token("vault.token")}, headers...)...)
}

// says gives the errors of an answer.
func says(t *testing.T, r reply) string {
	t.Helper()
	var e struct{ Errors []string }
	if r.json(t, &e); e.Errors == nil {
		t.Errorf("status %d without errors", r.status)
	}
	return strings.Join(e.Errors, "\n")
}

const vaultServe = "  vault: {listen: \"127.0.0.1:0\", token_file: vault.token, mounts: {kv: m, team/kv: s, conf: conf}}\n"

// Vault's SDK reads from any provider.
func TestVaultSDKReads(t *testing.T) {
	t.Parallel()
	made := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	ends := time.Now().Add(time.Hour).UTC()
	many := fields("user", "u-c4nary", "password", "p-\"c4nary <&>\u2028")
	many["port"], many["exact"], many["none"] = backend.NewJSONSecret([]byte("5432")), backend.NewJSONSecret([]byte("12345678901234567890.10")), backend.NewJSONSecret([]byte("null"))
	many["nested"] = backend.NewJSONSecret([]byte(`{"b":[1,true],"a":1e400}`))
	var s shelf
	s.put("app/db", &backend.Credential{Fields: many, Version: "3", Expires: ends, Metadata: map[string]string{
		"created_time": made.Format(time.RFC3339Nano), "custom_metadata.owner": "me \"and\" you", "custom_metadata.x": "y", "custom": "z",
	}}, nil)
	s.put("one", &backend.Credential{Fields: fields("password", "one-c4nary")}, nil)
	sc := startWith(t, "  s: {kind: shelf}\n", vaultServe, s.kind())
	c := sc.vaultClient("")
	got, err := c.KVv2("team/kv").Get(t.Context(), "app/db")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"user": "u-c4nary", "password": "p-\"c4nary <&>\u2028", "port": json.Number("5432"), "exact": json.Number("12345678901234567890.10"), "none": nil,
		"nested": map[string]any{"b": []any{json.Number("1"), true}, "a": json.Number("1e400")},
	}
	if !reflect.DeepEqual(got.Data, want) {
		t.Error("the data are not those of the store")
	}
	m := got.VersionMetadata
	if m.Version != 3 || !m.CreatedTime.Equal(made) || !m.DeletionTime.Equal(ends) || m.Destroyed || got.Raw.RequestID == "" || got.Raw.LeaseID != "" || got.Raw.WrapInfo != nil || got.Raw.Auth != nil {
		t.Errorf("metadata %+v", m)
	}
	if !reflect.DeepEqual(got.CustomMetadata, map[string]any{"owner": "me \"and\" you", "x": "y"}) {
		t.Errorf("custom metadata %v", got.CustomMetadata)
	}
	for path, want := range map[string]map[string]any{
		"kv/data/db":       {"user": "u-c4nary", "password": "p-c4nary", "port": json.Number("5432")},
		"kv/data/plain":    {"value": "plain-c4nary"},
		"team/kv/data/one": {"password": "one-c4nary"},
		"conf/data//n":     {"value": json.Number("7")},
	} {
		secret, err := c.Logical().ReadWithContext(t.Context(), path)
		if err != nil || secret == nil || !reflect.DeepEqual(secret.Data["data"], want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if got, err := c.KVv2("kv").GetVersion(t.Context(), "db", 1); err != nil || got.VersionMetadata.Version != 1 || !got.VersionMetadata.DeletionTime.IsZero() {
		t.Errorf("a version: %v", err)
	}
	for name, err := range map[string]error{
		"no such version": second(c.KVv2("kv").GetVersion(t.Context(), "db", 2)),
		"no such secret":  second(c.KVv2("kv").Get(t.Context(), "none")),
		"no such mount":   second(c.KVv2("nowhere").Get(t.Context(), "db")),
	} {
		if !errors.Is(err, hashicorp.ErrSecretNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A content has a version of its own where the store has no numbers.
	one, err := c.KVv2("team/kv").Get(t.Context(), "one")
	if err != nil || one.VersionMetadata.Version < 2 || time.Since(one.VersionMetadata.CreatedTime).Abs() > time.Minute {
		t.Errorf("a store without versions: %+v, %v", one, err)
	}
	sc.public(sc.token("vault.token"))
}

func second[T any](_ T, err error) error { return err }

// What the SDK asks beside secrets.
func TestVaultSDKAsksForTheRest(t *testing.T) {
	t.Parallel()
	sc := start(t, strings.Replace(vaultServe, "team/kv: s, ", "", 1)+"  tokens: {app: app.token}\n  consumers:\n    - {name: app, token: app, allow: [{provider: m, id: plain}]}\n")
	c, app := sc.vaultClient(""), sc.vaultClient(sc.token("app.token"))
	if h, err := c.Sys().HealthWithContext(t.Context()); err != nil || !h.Initialized || h.Sealed || h.Standby || h.Version == "" {
		t.Errorf("health: %+v, %v", h, err)
	}
	if s, err := c.Sys().SealStatusWithContext(t.Context()); err != nil || s.Sealed || !s.Initialized {
		t.Errorf("seal status: %+v, %v", s, err)
	}
	if got := sc.ask("vault", "HEAD", "/v1/sys/health"); got.status != 200 || got.body != "" {
		t.Errorf("health by HEAD: status %d", got.status)
	}
	self, err := app.Auth().Token().LookupSelfWithContext(t.Context())
	if err != nil || self.Data["ttl"] != json.Number("0") || self.Data["renewable"] != false || self.Data["meta"].(map[string]any)["consumer"] != "app" || self.Data["id"] != nil {
		t.Errorf("lookup-self: %v", err)
	}
	mount, err := c.Logical().ReadWithContext(t.Context(), "sys/internal/ui/mounts/kv/app/db")
	if err != nil || mount.Data["path"] != "kv/" || mount.Data["type"] != "kv" || mount.Data["options"].(map[string]any)["version"] != "2" {
		t.Errorf("the mount of a path: %v", err)
	}
	for who, want := range map[*hashicorp.Client][]string{c: {"conf/", "kv/"}, app: {"kv/"}} {
		all, err := who.Logical().ReadWithContext(t.Context(), "sys/internal/ui/mounts")
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Sorted(maps.Keys(all.Data["secret"].(map[string]any))); !slices.Equal(got, want) {
			t.Errorf("mounts %v, want %v", got, want)
		}
	}
	for name, err := range map[string]error{
		"no such mount":         second(c.Logical().ReadWithContext(t.Context(), "sys/internal/ui/mounts/none")),
		"a mount of another":    second(app.Logical().ReadWithContext(t.Context(), "sys/internal/ui/mounts/conf")),
		"a secret of another":   second(app.KVv2("kv").Get(t.Context(), "db")),
		"a token that is wrong": second(sc.vaultClient("c4nary").KVv2("kv").Get(t.Context(), "plain")),
	} {
		var e *hashicorp.ResponseError
		if !errors.As(err, &e) || e.StatusCode != http.StatusForbidden || len(e.Errors) != 1 || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", name, err)
		}
	}
	sc.public(sc.token("vault.token"), sc.token("app.token"))
}

// What is not answered is refused, and says what is; it is never answered as if it had been something else.
func TestVaultRefusals(t *testing.T) {
	t.Parallel()
	var s shelf
	s.put("binary", &backend.Credential{Secret: backend.NewSecret([]byte("c4nary\xff"))}, nil)
	s.put("plain", &backend.Credential{Secret: backend.NewSecretString("s-c4nary")}, nil)
	sc := startWith(t, "  s: {kind: shelf}\n", vaultServe, s.kind())
	const me = "credresolve"
	for _, c := range []struct {
		name, method, path string
		headers            []string
		status             int
		text               string
	}{
		{"a write", "PUT", "/v1/kv/data/plain", nil, 405, me},
		{"a write by POST", "POST", "/v1/kv/data/plain", nil, 405, me},
		{"a patch", "PATCH", "/v1/kv/data/plain", nil, 405, me},
		{"a deletion", "DELETE", "/v1/kv/data/plain", nil, 405, me},
		{"a list", "LIST", "/v1/kv/metadata", nil, 405, me},
		{"a list by GET", "GET", "/v1/kv/data/plain?list=true", nil, 405, me},
		{"metadata", "GET", "/v1/kv/metadata/plain", nil, 404, me},
		{"subkeys", "GET", "/v1/kv/subkeys/plain", nil, 404, me},
		{"no path", "GET", "/v1/kv/data/", nil, 404, me},
		{"version 1", "GET", "/v1/kv/plain", nil, 404, "versioned K/V"},
		{"another mount", "GET", "/v1/secret/data/plain", nil, 404, "no handler for route"},
		{"half a mount", "GET", "/v1/team/data/plain", nil, 404, "no handler for route"},
		{"more than a mount", "GET", "/v1/kvx/data/plain", nil, 404, "no handler for route"},
		{"no prefix", "GET", "/kv/data/plain", nil, 404, me},
		{"a login", "POST", "/v1/auth/approle/login", nil, 404, me},
		{"a renewal", "PUT", "/v1/auth/token/renew-self", nil, 404, me},
		{"leases", "PUT", "/v1/sys/leases/renew", nil, 404, me},
		{"unwrapping", "PUT", "/v1/sys/wrapping/unwrap", nil, 404, me},
		{"the cubbyhole", "GET", "/v1/cubbyhole/response", nil, 404, me},
		{"wrapping", "GET", "/v1/kv/data/plain", []string{"X-Vault-Wrap-TTL: 60s"}, 400, "wrapping"},
		{"wrapping as a JWT", "GET", "/v1/kv/data/plain", []string{"X-Vault-Wrap-Format: jwt"}, 400, "wrapping"},
		{"a namespace", "GET", "/v1/kv/data/plain", []string{"X-Vault-Namespace: team"}, 400, "namespaces"},
		{"a namespace for a look", "GET", "/v1/auth/token/lookup-self", []string{"X-Vault-Namespace: team"}, 400, "namespaces"},
		{"a strange version", "GET", "/v1/kv/data/plain?version=c4nary", nil, 400, "not a number"},
		{"a negative version", "GET", "/v1/kv/data/plain?version=-1", nil, 400, "not a number"},
		{"two versions", "GET", "/v1/kv/data/plain?version=1&version=2", nil, 400, "version"},
		{"an unknown parameter", "GET", "/v1/kv/data/plain?c4nary=1", nil, 400, "unknown parameter"},
		{"a version where there are none", "GET", "/v1/team/kv/data/plain?version=1", nil, 400, "no versions"},
		{"no text", "GET", "/v1/team/kv/data/binary", nil, 400, "UTF-8"},
	} {
		got := sc.vault(c.method, c.path, c.headers...)
		if text := says(t, got); got.status != c.status || !strings.Contains(text, c.text) || strings.Contains(got.body, canary) {
			t.Errorf("%s: status %d, want %d: %s", c.name, got.status, c.status, text)
		}
	}
	for _, path := range []string{"/v1/kv/data/plain?version=0", "/v1/kv/data/plain?version=1"} {
		if got := sc.vault("GET", path, "X-Vault-Namespace: "); got.status != 200 {
			t.Errorf("%s: status %d", path, got.status)
		}
	}
	token := "X-Vault-Token: " + sc.token("vault.token")
	for name, headers := range map[string][]string{"nothing": {token}, "another value": {token, "X-Vault-Request: 1"}, "it twice": {token, "X-Vault-Request: true", "X-Vault-Request: true"}} {
		if got := sc.ask("vault", "GET", "/v1/kv/data/plain", headers...); got.status != http.StatusPreconditionFailed || !strings.Contains(says(t, got), "X-Vault-Request") {
			t.Errorf("%s in the place of X-Vault-Request: status %d", name, got.status)
		}
	}
	if got := sc.ask("vault", "GET", "/v1/kv/data/plain", "X-Vault-Request: true", "Authorization: Bearer "+sc.token("vault.token")); got.status != 200 {
		t.Errorf("the token as a bearer's: status %d", got.status)
	}
	sc.public(sc.token("vault.token"))
}

// Our own adapter takes the drop-in for Vault.
func TestVaultAdapterReads(t *testing.T) {
	t.Parallel()
	sc := start(t, strings.Replace(vaultServe, "team/kv: s, ", "", 1)+"  tokens: {app: app.token}\n  consumers:\n    - {name: app, token: app, allow: [{provider: m, id: plain}]}\n")
	open := func(token string) *vault.Backend {
		t.Helper()
		b, err := vault.New(vault.Config{Address: "http://" + sc.at("vault"), Auth: vault.Auth{Token: backend.Literal(backend.NewSecretString(token))}},
			backend.Host{LookupEnv: func(string) (string, bool) { return "", false }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		return b
	}
	b := open(sc.token("vault.token"))
	if err := b.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := b.Get(t.Context(), backend.Request{ID: "kv/db"})
	if err != nil || string(c.Fields["password"].Reveal()) != "p-c4nary" || string(c.Fields["port"].Reveal()) != "5432" || !c.Fields["port"].IsJSON() || c.Version != "1" {
		t.Errorf("a secret: %v", err)
	}
	if c, err := b.Get(t.Context(), backend.Request{ID: "kv/plain", Version: "1"}); err != nil || string(c.Fields["value"].Reveal()) != "plain-c4nary" {
		t.Errorf("a version: %v", err)
	}
	for id, want := range map[string]error{"kv/none": backend.ErrNotFound, "nowhere/x": backend.ErrNotFound} {
		if _, err := b.Get(t.Context(), backend.Request{ID: id}); !errors.Is(err, want) {
			t.Errorf("%s: %v", id, err)
		}
	}
	app := open(sc.token("app.token"))
	if _, err := app.Get(t.Context(), backend.Request{ID: "kv/plain"}); err != nil {
		t.Error(err)
	}
	if _, err := app.Get(t.Context(), backend.Request{ID: "kv/db"}); !errors.Is(err, backend.ErrDenied) {
		t.Errorf("what policy denies: %v", err)
	}
	if _, err := b.Put(t.Context(), backend.Request{ID: "kv/plain"}, backend.Value{Secret: backend.NewSecretString("x-c4nary")}, backend.Condition{}); err == nil || strings.Contains(err.Error(), canary) {
		t.Errorf("a write: %v", err)
	}
	if _, err := open("c4nary-of-nobody").Get(t.Context(), backend.Request{ID: "kv/plain"}); !errors.Is(err, backend.ErrAuthRequired) {
		t.Errorf("a token of nobody: %v", err)
	}
	sc.public(sc.token("vault.token"))
}

// The same reads at a Vault server and at the drop-in in front of it: data and metadata are the same.
func TestVaultAnswersAsVaultDoes(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	mount := s.Mount(t, "kv", map[string]string{"version": "2"})
	put := func(path string, data map[string]any) {
		s.Write(t, mount+"/data/"+path, map[string]any{"data": data})
	}
	put("app/db", map[string]any{"user": "u-c4nary", "password": "old-c4nary"})
	put("app/db", map[string]any{"user": "u-c4nary", "password": "p-c4nary\n\"<>&é", "n": 12345678901234567, "f": json.Number("1.50"), "o": map[string]any{"a": []any{1, nil, true}}})
	put("one", map[string]any{"value": "one-c4nary"})
	put("gone", map[string]any{"value": "gone-c4nary"})
	s.Write(t, mount+"/metadata/one", map[string]any{"custom_metadata": map[string]any{"owner": "me"}})
	if _, err := s.Client(t).Logical().DeleteWithContext(t.Context(), mount+"/data/gone"); err != nil {
		t.Fatal(err)
	}
	settings := "kind: vault, address: \"" + s.Addr + "\", auth: {token: {provider: conf, id: /a}}"
	sc := &sidecar{t: t, dir: t.TempDir(), logs: &buffer{}, kinds: testKinds(vault.Kind())}
	sc.socket = sc.dir + "/run/sock"
	sc.write("conf.json", `{"a": "`+s.Token+`"}`)
	sc.configure(providers+"  v: {"+settings+"}\n  w: {"+settings+", mount: "+mount+"}\n",
		"  vault: {listen: \"127.0.0.1:0\", token_file: vault.token, mounts: {"+mount+": v, other: w}}\n")
	sc.open()
	at := map[string]*hashicorp.Client{mount: sc.vaultClient(""), "other": sc.vaultClient("")}
	for _, read := range []struct {
		path    string
		version string
	}{{"app/db", ""}, {"app/db", "1"}, {"app/db", "2"}, {"app/db", "0"}, {"app/db", "9"}, {"one", ""}, {"gone", ""}, {"none", ""}, {"app", ""}} {
		query := map[string][]string{}
		if read.version != "" {
			query["version"] = []string{read.version}
		}
		want, err := s.Client(t).Logical().ReadWithDataWithContext(t.Context(), mount+"/data/"+read.path, query)
		if err != nil {
			t.Fatal(err)
		}
		if want != nil && want.Data["data"] == nil {
			want = nil // deleted: Vault tells when, and we that it is not there
		}
		for name, c := range at {
			got, err := c.Logical().ReadWithDataWithContext(t.Context(), name+"/data/"+read.path, query)
			if err != nil || (got == nil) != (want == nil) {
				t.Errorf("%v by %s: %v", read, name, err)
				continue
			}
			if got != nil && !reflect.DeepEqual(got.Data, want.Data) {
				t.Errorf("%v by %s: metadata %v, want %v", read, name, got.Data["metadata"], want.Data["metadata"])
			}
		}
	}
	sc.public(sc.token("vault.token"))
}

func TestVaultMountNames(t *testing.T) {
	t.Parallel()
	sc := &sidecar{t: t, dir: t.TempDir(), kinds: testKinds()}
	for mount, says := range map[string]string{
		"kv": "", "team/kv": "", "system": "", `""`: "without /", "kv/": "without /", "/kv": "without /", "sys": "Vault's own", "auth/token": "Vault's own",
	} {
		sc.configure(providers, "  vault: {listen: \"127.0.0.1:0\", token_file: vault.token, mounts: {"+mount+": m}}\n")
		_, err := sc.options(nil).Load(t.Context())
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", mount, err)
		}
	}
}
