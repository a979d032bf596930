package vault_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/credresolve/credresolve/adapters/vault"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/vaulttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// canary is in every secret of these tests, and in no error.
const canary = "c4nary"

// host gives a Host whose environment is env alone, with a home of its own.
func host(t *testing.T, env map[string]string) backend.Host {
	t.Helper()
	home := t.TempDir()
	return backend.Host{Provider: "app", Dir: home, LookupEnv: func(name string) (string, bool) {
		if v, ok := env[name]; ok {
			return v, true
		}
		if name == "HOME" {
			return home, true
		}
		return "", false
	}}
}

func secret(s string) backend.Source { return backend.Literal(backend.NewSecretString(s)) }

func openWith(t *testing.T, c vault.Config, env map[string]string) *vault.Backend {
	t.Helper()
	b, err := vault.New(c, host(t, env))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// open opens a provider that logs in with a token.
func open(t *testing.T, address, token string) *vault.Backend {
	t.Helper()
	return openWith(t, vault.Config{Address: address, Auth: vault.Auth{Token: secret(token)}}, nil)
}

func get(t *testing.T, b backend.Backend, id, version string) *backend.Credential {
	t.Helper()
	c, err := b.Get(t.Context(), backend.Request{ID: id, Version: version})
	if err != nil {
		t.Fatalf("Get(%q, %q): %v", id, version, err)
	}
	return c
}

// fails checks that err is want, says all of texts, and shows no secret.
func fails(t *testing.T, err error, want error, texts ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v (code %s), want %v", err, backend.CodeOf(err), want)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the error %q lacks %q", err, text)
		}
	}
	if shown := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(shown, canary) {
		t.Errorf("the error shows a secret: %s", shown)
	}
}

func getFails(t *testing.T, b backend.Backend, id, version string, want error, texts ...string) {
	t.Helper()
	c, err := b.Get(t.Context(), backend.Request{ID: id, Version: version})
	if err == nil {
		t.Errorf("Get(%q, %q) gave fields %v", id, version, c.Fields)
		return
	}
	fails(t, err, want, texts...)
}

func field(t *testing.T, c *backend.Credential, name string) string {
	t.Helper()
	f, ok := c.Fields[name]
	if !ok {
		t.Fatalf("there is no field %q", name)
	}
	return string(f.Reveal())
}

func fields(pairs ...string) backend.Value {
	v := backend.Value{Fields: map[string]backend.Secret{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Fields[pairs[i]] = backend.NewSecretString(pairs[i+1])
	}
	return v
}

func put(t *testing.T, b backend.Writer, id string, v backend.Value, cond backend.Condition) string {
	t.Helper()
	version, err := b.Put(t.Context(), backend.Request{ID: id}, v, cond)
	if err != nil {
		t.Fatalf("Put(%q): %v", id, err)
	}
	return version
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	const address = "https://vault.example:8200"
	for _, tt := range []struct {
		name string
		c    vault.Config
		env  map[string]string
		want string
	}{
		{"no address", vault.Config{}, nil, "address is missing; set address, or VAULT_ADDR"},
		{"no URL", vault.Config{Address: "vault.example:8200"}, nil, "address is not a URL"},
		{"user in the URL", vault.Config{Address: "https://u:" + canary + "@vault.example"}, nil, "address has a user"},
		{"other scheme", vault.Config{Address: "ftp://vault.example"}, nil, "address is not a URL"},
		{"redirect", vault.Config{Address: address, RedirectTo: []string{"other"}}, nil, "redirect_to is not a URL"},
		{"mount", vault.Config{Address: address, Mount: "a/../b"}, nil, "mount is not a path"},
		{"version", vault.Config{Address: address, Mount: "kv", KVVersion: 3}, nil, "kv_version is 3"},
		{"version without mount", vault.Config{Address: address, KVVersion: 2}, nil, "without mount"},
		{"timeout", vault.Config{Address: address, Timeout: -1}, nil, "timeout is negative"},
		{"timeout of the environment", vault.Config{Address: address}, map[string]string{"VAULT_CLIENT_TIMEOUT": "soon"}, "VAULT_CLIENT_TIMEOUT"},
		{"proxy", vault.Config{Address: address, ProxyAddr: "x"}, nil, "proxy_addr"},
		{"headers", vault.Config{Address: address}, map[string]string{"VAULT_HEADERS": `{"x-vault-token":"` + canary + `"}`}, "X-Vault-"},
		{"headers of no JSON", vault.Config{Address: address}, map[string]string{"VAULT_HEADERS": canary}, "VAULT_HEADERS"},
		{"authorities", vault.Config{Address: address, TLS: vault.TLS{CAFile: "a", CAPath: "b"}}, nil, "exclude"},
		{"half a certificate", vault.Config{Address: address, TLS: vault.TLS{ClientCert: "a"}}, nil, "need one another"},
		{"TLS version", vault.Config{Address: address, TLS: vault.TLS{MinVersion: "1.1"}}, nil, "min_version"},
		{"skip verify", vault.Config{Address: address}, map[string]string{"VAULT_SKIP_VERIFY": "maybe"}, "VAULT_SKIP_VERIFY"},
		{"method", vault.Config{Address: address, Auth: vault.Auth{Method: "aprole"}}, nil, `did you mean "approle"?`},
		{"foreign setting", vault.Config{Address: address, Auth: vault.Auth{RoleID: "r"}}, nil, "auth.role_id is set, which method token does not use"},
		{"missing setting", vault.Config{Address: address, Auth: vault.Auth{Method: "userpass", Username: "u"}}, nil, "auth.password is missing"},
		{"token file", vault.Config{Address: address, Auth: vault.Auth{Method: "token_file"}}, nil, "auth.token_file is missing"},
		{"wrapped nothing", vault.Config{Address: address, Auth: vault.Auth{Method: "approle", RoleID: "r", SecretIDWrapped: true}}, nil, "without auth.secret_id"},
		{"user name", vault.Config{Address: address, Auth: vault.Auth{Method: "userpass", Username: "../x", Password: secret(canary)}}, nil, "auth.username"},
		{"jwt", vault.Config{Address: address, Auth: vault.Auth{Method: "jwt"}}, nil, "auth.jwt or auth.jwt_file"},
		{"two jwts", vault.Config{Address: address, Auth: vault.Auth{Method: "jwt", JWT: secret(canary), JWTFile: "f"}}, nil, "exclude"},
		{"kubernetes", vault.Config{Address: address, Auth: vault.Auth{Method: "kubernetes"}}, nil, "auth.role is missing"},
		{"cert", vault.Config{Address: address, Auth: vault.Auth{Method: "cert"}}, nil, "tls.client_cert"},
		{"auth mount", vault.Config{Address: address, Auth: vault.Auth{Method: "cert", Mount: "a//b"}, TLS: vault.TLS{ClientCert: "a", ClientKey: "b"}}, nil, "auth.mount"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := vault.New(tt.c, host(t, tt.env))
			fails(t, err, backend.ErrInvalidConfig, tt.want)
		})
	}
}

func TestKindAndReach(t *testing.T) {
	t.Parallel()
	k := vault.Kind()
	c := k.NewConfig().(*vault.Config)
	c.Address = "https://vault.example:8200"
	b, err := k.Open(c, host(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(backend.Capabilities(b), " "); got != "probe check renew revoke write list" {
		t.Errorf("capabilities: %s", got)
	}
	if _, err := k.Open(k.NewConfig(), host(t, nil)); !errors.Is(err, backend.ErrInvalidConfig) {
		t.Errorf("an empty configuration: %v", err)
	}
	reach := fmt.Sprint(c.Reach())
	for _, want := range []string{"{address https://vault.example:8200}", "{environment variable VAULT_TOKEN}", "{file ~/.vault-token}", "{environment variable VAULT_*, BAO_*}"} {
		if !strings.Contains(reach, want) {
			t.Errorf("reach %s lacks %s", reach, want)
		}
	}
	full := vault.Config{RedirectTo: []string{"https://b:8200"}, TLS: vault.TLS{CAFile: "ca.pem"}, Auth: vault.Auth{Method: "kubernetes", Role: "r"}}
	reach = fmt.Sprint(full.Reach())
	for _, want := range []string{"{address https://b:8200}", "{environment variable VAULT_ADDR}", "{file ca.pem}", "serviceaccount/token}"} {
		if !strings.Contains(reach, want) {
			t.Errorf("reach %s lacks %s", reach, want)
		}
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		c      vault.Config
		env    map[string]string
		detail string
		bound  bool
	}{
		{"settings alone", vault.Config{Address: "https://v:8200", Namespace: "/team/", Mount: "kv", Auth: vault.Auth{Token: secret(canary)}}, nil,
			"https://v:8200, namespace team, mount kv, login by token", false},
		{"token of the environment", vault.Config{Address: "https://v:8200"}, nil, "https://v:8200, login by token", true},
		{"address of the environment", vault.Config{Auth: vault.Auth{Token: secret(canary)}}, map[string]string{"VAULT_ADDR": "http://v:8200"},
			"http://v:8200, login by token; WARNING: without TLS", true},
		{"OpenBao's variable", vault.Config{Auth: vault.Auth{Token: secret(canary)}}, map[string]string{"BAO_ADDR": "https://bao:8200"},
			"https://bao:8200, login by token", true},
		{"any server", vault.Config{Address: "https://v:8200", Auth: vault.Auth{Token: secret(canary)}}, map[string]string{"VAULT_SKIP_VERIFY": "1"},
			"https://v:8200, login by token; WARNING: VAULT_SKIP_VERIFY is set, any server is trusted", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := backend.Describe(openWith(t, tt.c, tt.env))
			if d.Detail != tt.detail || d.CallerBound != tt.bound || !d.Versions || !d.Fields {
				t.Errorf("got %+v", d)
			}
		})
	}
}

func TestInvalidIDs(t *testing.T) {
	t.Parallel()
	b := open(t, "http://127.0.0.1:1", canary) // no id gets as far as the server
	for _, id := range []string{"", "/", "/kv/a", "kv/a/", "kv//a", "kv/../sys/mounts", "kv/./a", "kv/a\nb", "..", "kv/a\xff", "kv/" + strings.Repeat("a", 2046)} {
		getFails(t, b, id, "", backend.ErrInvalidID)
	}
}

func FuzzID(f *testing.F) {
	b, err := vault.New(vault.Config{Address: "http://127.0.0.1:1", Mount: "kv", KVVersion: 2, Auth: vault.Auth{Token: secret("t")}}, backend.Host{
		LookupEnv: func(string) (string, bool) { return "", false }})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = b.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // what is past the check of the id answers at once
	for seed, valid := range map[string]bool{"app/db": true, "a b/ü?#%2e": true, "a..b": true, "a/../b": false, "": false, "a/": false, "\x7f": false} {
		if _, err := b.Get(ctx, backend.Request{ID: seed}); errors.Is(err, backend.ErrInvalidID) == valid {
			f.Errorf("seed %q: %v", seed, err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, id string) {
		_, err := b.Get(ctx, backend.Request{ID: id})
		if clean := filepath.ToSlash(filepath.Clean("/x/" + id)); !errors.Is(err, backend.ErrInvalidID) && clean != "/x/"+id {
			t.Errorf("%q is taken, but cleaning makes it %q", id, clean)
		}
	})
}

func TestKV2(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := s.Mount(t, "kv", map[string]string{"version": "2"})
	s.Write(t, m+"/data/app/db", map[string]any{"data": map[string]any{"password": "one-" + canary}})
	s.Write(t, m+"/data/app/db", map[string]any{"data": map[string]any{
		"password": "two-" + canary, "port": 5432, "tls": true, "none": nil, "hosts": []string{"a", "b"}, "number": "0042"}})
	s.Write(t, m+"/metadata/app/db", map[string]any{"custom_metadata": map[string]string{"owner": "team"}})
	b := open(t, s.Addr, s.Token)

	c := get(t, b, m+"/app/db", "")
	for name, want := range map[string]struct {
		text string
		json bool
	}{"password": {"two-" + canary, false}, "port": {"5432", true}, "tls": {"true", true}, "none": {"null", true},
		"hosts": {`["a","b"]`, true}, "number": {"0042", false}} {
		if got := field(t, c, name); got != want.text || c.Fields[name].IsJSON() != want.json {
			t.Errorf("%s = %q, JSON %v", name, got, c.Fields[name].IsJSON())
		}
	}
	if c.Version != "2" || !c.Secret.IsZero() || c.Lease != nil || !c.Expires.IsZero() ||
		c.Metadata["custom_metadata.owner"] != "team" || c.Metadata["created_time"] == "" {
		t.Errorf("got %+v", c)
	}
	if got := field(t, get(t, b, m+"/app/db", "1"), "password"); got != "one-"+canary {
		t.Errorf("version 1 has %q", got)
	}

	getFails(t, b, m+"/app/never", "", backend.ErrNotFound, "there is no secret "+m+"/app/never")
	getFails(t, b, m+"/app/db", "3", backend.ErrNotFound, "no version 3")
	for _, v := range []string{"0", "-1", "x", "01"} {
		getFails(t, b, m+"/app/db", v, backend.ErrNotFound, "no such version")
	}
	getFails(t, b, m+"/data/app/db", "", backend.ErrNotFound, "leave out data/: try "+m+"/app/db")
	getFails(t, b, "no-such-mount/x", "", backend.ErrNotFound, "no secrets engine is mounted")

	s.Write(t, m+"/delete/app/db", map[string]any{"versions": []int{2}})
	getFails(t, b, m+"/app/db", "", backend.ErrNotFound, "version 2 of "+m+"/app/db was deleted", "undelete")
	getFails(t, b, m+"/app/db", "2", backend.ErrNotFound, "version 2 of "+m+"/app/db was deleted")
	s.Write(t, m+"/destroy/app/db", map[string]any{"versions": []int{1}})
	getFails(t, b, m+"/app/db", "1", backend.ErrNotFound, "version 1 of "+m+"/app/db was destroyed")
	s.Write(t, m+"/undelete/app/db", map[string]any{"versions": []int{2}})
	get(t, b, m+"/app/db", "")

	s.Write(t, m+"/metadata/short", map[string]any{"delete_version_after": "2h"})
	s.Write(t, m+"/data/short", map[string]any{"data": map[string]any{"k": canary}})
	if c := get(t, b, m+"/short", ""); c.Expires.IsZero() {
		t.Error("the end of the version is not told")
	}

	odd := m + "/a b/ü ?#%2f+&"
	put(t, b, odd, fields("k", "v-"+canary), backend.Condition{})
	if got := field(t, get(t, b, odd, ""), "k"); got != "v-"+canary {
		t.Errorf("an odd id gave %q", got)
	}
}

func TestKV1(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := s.Mount(t, "kv", map[string]string{"version": "1"})
	s.Write(t, m+"/x", map[string]any{"k": "v-" + canary, "ttl": "30m"})
	b := open(t, s.Addr, s.Token)
	c := get(t, b, m+"/x", "")
	if field(t, c, "k") != "v-"+canary || c.Version != "" || c.Lease != nil || !c.Expires.IsZero() || c.RefreshAfter.IsZero() {
		t.Errorf("got %+v", c)
	}
	getFails(t, b, m+"/x", "1", errors.ErrUnsupported, "only kv version 2")
	getFails(t, b, m+"/y", "", backend.ErrNotFound)

	put(t, b, m+"/y", backend.Value{Secret: backend.NewSecretString("plain-" + canary)}, backend.Condition{})
	if got := field(t, get(t, b, m+"/y", ""), "value"); got != "plain-"+canary {
		t.Errorf("a plain secret came back as %q", got)
	}
	for _, cond := range []backend.Condition{{Absent: true}, {Version: "1"}} {
		_, err := b.Put(t.Context(), backend.Request{ID: m + "/z"}, fields("k", canary), cond)
		fails(t, err, errors.ErrUnsupported)
		fails(t, b.Delete(t.Context(), backend.Request{ID: m + "/y"}, cond), errors.ErrUnsupported)
	}
	if err := b.Delete(t.Context(), backend.Request{ID: m + "/y"}, backend.Condition{}); err != nil {
		t.Error(err)
	}
	fails(t, b.Delete(t.Context(), backend.Request{ID: m + "/y"}, backend.Condition{}), backend.ErrNotFound)
	_, err := b.CurrentVersion(t.Context(), backend.Request{ID: m + "/x"})
	fails(t, err, errors.ErrUnsupported)

	given := openWith(t, vault.Config{Address: s.Addr, Mount: m, KVVersion: 1, Auth: vault.Auth{Token: secret(s.Token)}}, nil)
	if given.Strength() != backend.StrengthNone || b.Strength() != backend.StrengthStore {
		t.Error("wrong strength")
	}
	put(t, given, "f", fields("a", "1"), backend.Condition{})
	if _, err := backend.PutField(t.Context(), given, backend.Request{ID: "f"}, "b", backend.NewSecretString("2"), backend.Condition{}); err != nil {
		t.Fatal(err)
	}
	if c := get(t, given, "f", ""); field(t, c, "a") != "1" || field(t, c, "b") != "2" {
		t.Errorf("got %v", c.Fields)
	}
}

func TestMountIsDetectedOnce(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := s.Mount(t, "kv", map[string]string{"version": "2"})
	direct := open(t, s.Addr, s.Token)
	for i := range 40 {
		put(t, direct, fmt.Sprintf("%s/app/%d", m, i), fields("k", fmt.Sprint(i)), backend.Condition{})
	}
	p := s.Proxy(t)
	auth := s.Auth(t, "approle")
	s.Write(t, "auth/"+auth+"/role/r", map[string]any{"token_policies": s.Policy(t, `path "`+m+`/*" { capabilities = ["read"] }`), "bind_secret_id": false, "secret_id_bound_cidrs": "", "token_bound_cidrs": "127.0.0.0/8"})
	role := s.Read(t, "auth/"+auth+"/role/r/role-id")["role_id"].(string)
	b := openWith(t, vault.Config{Address: p.URL, Auth: vault.Auth{Method: "approle", Mount: auth, RoleID: role}}, nil)
	reqs := make([]backend.Request, 40)
	for i := range reqs {
		reqs[i].ID = fmt.Sprintf("%s/app/%d", m, i)
	}
	results, err := backend.GetBatch(t.Context(), b, reqs)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.Err != nil || field(t, r.Credential, "k") != fmt.Sprint(i) {
			t.Errorf("%d: %v", i, r.Err)
		}
	}
	for path, want := range map[string]int{"/v1/auth/": 1, "/v1/sys/internal/ui/mounts": 1, "/v1/" + m + "/data/": 40, "/v1/": 42} {
		if got := len(p.Calls(path)); got != want {
			t.Errorf("%d requests to %s, want %d", got, path, want)
		}
	}
}

func TestMountOfTheProvider(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := s.Mount(t, "kv", map[string]string{"version": "2"})
	s.Write(t, m+"/data/app/db", map[string]any{"data": map[string]any{"k": "v"}})
	p := s.Proxy(t)
	with := func(c vault.Config) *vault.Backend {
		c.Address, c.Auth.Token = p.URL, secret(s.Token)
		return openWith(t, c, nil)
	}
	given := with(vault.Config{Mount: m, KVVersion: 2})
	if field(t, get(t, given, "app/db", ""), "k") != "v" || len(p.Calls("/v1/sys/internal")) != 0 {
		t.Error("a mount that is given was asked for")
	}
	if field(t, get(t, with(vault.Config{Mount: "/" + m + "/"}), "app/db", ""), "k") != "v" {
		t.Error("wrong value")
	}
	below := with(vault.Config{Mount: m + "/app"}) // a directory of a mount will do
	if field(t, get(t, below, "db", ""), "k") != "v" {
		t.Error("wrong value")
	}
	var ids []string
	for e, err := range below.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	if fmt.Sprint(ids) != "[db]" {
		t.Errorf("listed %v", ids)
	}
	wrong := with(vault.Config{Mount: m, KVVersion: 1})
	getFails(t, wrong, "app/db", "", backend.ErrInvalidConfig, "kv version 2")
	absent := with(vault.Config{Mount: "nowhere"})
	getFails(t, absent, "app/db", "", backend.ErrNotFound, "no secrets engine is mounted at app/db")
	_, err := absent.Put(t.Context(), backend.Request{ID: "x"}, fields("k", canary), backend.Condition{})
	fails(t, err, backend.ErrDenied, "no secrets engine is mounted there")
}

func TestWrite(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := s.Mount(t, "kv", map[string]string{"version": "2"})
	b := open(t, s.Addr, s.Token)
	id := m + "/app/db"
	refused := func(v backend.Value, cond backend.Condition, want error, texts ...string) {
		t.Helper()
		_, err := b.Put(t.Context(), backend.Request{ID: id}, v, cond)
		fails(t, err, want, texts...)
	}
	absent := backend.Condition{Absent: true}
	if v := put(t, b, id, fields("k", "1-"+canary, "other", "o"), absent); v != "1" {
		t.Errorf("the first version is %q", v)
	}
	refused(fields("k", canary), absent, backend.ErrConflict, "exists already")
	if v := put(t, b, id, fields("k", "2"), backend.Condition{Version: "1"}); v != "2" {
		t.Errorf("the second version is %q", v)
	}
	for _, stale := range []string{"1", "3", "x"} {
		refused(fields("k", canary), backend.Condition{Version: stale}, backend.ErrConflict, "has changed")
	}
	put(t, b, id, backend.Value{Secret: backend.NewSecretString("plain")}, backend.Condition{})
	if c := get(t, b, id, ""); field(t, c, "value") != "plain" || c.Version != "3" || len(c.Fields) != 1 {
		t.Errorf("got %+v", c)
	}
	refused(backend.Value{Secret: backend.NewSecret([]byte(canary + "\xff"))}, backend.Condition{}, errors.ErrUnsupported, "not UTF-8")
	refused(backend.Value{Fields: map[string]backend.Secret{"n": backend.NewJSONSecret([]byte("12345678901234567890"))}}, backend.Condition{}, errors.ErrUnsupported, "alter a number")
	put(t, b, id, backend.Value{Fields: map[string]backend.Secret{"n": backend.NewJSONSecret([]byte("5432")), "t": backend.NewSecretString("true\n\"")}}, backend.Condition{})
	if c := get(t, b, id, ""); field(t, c, "n") != "5432" || !c.Fields["n"].IsJSON() || field(t, c, "t") != "true\n\"" || c.Fields["t"].IsJSON() {
		t.Errorf("got %v", c.Fields)
	}
	_, err := b.Put(t.Context(), backend.Request{ID: id, Version: "1"}, fields("k", "v"), backend.Condition{})
	fails(t, err, errors.ErrUnsupported)

	// A deleted secret is absent, and its old version is no longer current.
	if err := b.Delete(t.Context(), backend.Request{ID: id}, backend.Condition{Version: "3"}); !errors.Is(err, backend.ErrConflict) {
		t.Errorf("deleting a stale version: %v", err)
	}
	if err := b.Delete(t.Context(), backend.Request{ID: id}, backend.Condition{Version: "4"}); err != nil {
		t.Error(err)
	}
	fails(t, b.Delete(t.Context(), backend.Request{ID: id}, backend.Condition{}), backend.ErrNotFound)
	refused(fields("k", canary), backend.Condition{Version: "4"}, backend.ErrConflict)
	if v := put(t, b, id, fields("k", "again"), absent); v != "5" {
		t.Errorf("a secret made anew has version %q", v)
	}
	if err := b.Delete(t.Context(), backend.Request{ID: id}, absent); !errors.Is(err, backend.ErrConflict) {
		t.Errorf("deleting what must be absent: %v", err)
	}
	if err := b.Delete(t.Context(), backend.Request{ID: id}, backend.Condition{}); err != nil {
		t.Error(err)
	}
	fails(t, b.Delete(t.Context(), backend.Request{ID: m + "/never"}, backend.Condition{}), backend.ErrNotFound)

	// Of many who write at the same version, one wins.
	put(t, b, m+"/race", fields("k", "0"), absent)
	won := make(chan bool, 10)
	for i := range 10 {
		go func() {
			_, err := b.Put(context.Background(), backend.Request{ID: m + "/race"}, fields("k", fmt.Sprint(i)), backend.Condition{Version: "1"})
			won <- err == nil
		}()
	}
	winners := 0
	for range 10 {
		if <-won {
			winners++
		}
	}
	if winners != 1 {
		t.Errorf("%d writers won", winners)
	}

	s.Write(t, m+"/config", map[string]any{"cas_required": true})
	_, err = b.Put(t.Context(), backend.Request{ID: m + "/cas"}, fields("k", canary), backend.Condition{})
	fails(t, err, errors.ErrUnsupported, "cas_required")

	_, err = b.Put(t.Context(), backend.Request{ID: "sys/policies/acl/x"}, fields("k", canary), backend.Condition{})
	fails(t, err, errors.ErrUnsupported, "only a key-value engine")
}

// A login that may only write or only delete can still do that.
func TestWriteOnlyPolicies(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := s.Mount(t, "kv", map[string]string{"version": "2"})
	s.Write(t, m+"/data/x", map[string]any{"data": map[string]any{"k": canary}})
	b := open(t, s.Addr, s.NewToken(t, map[string]any{"policies": []string{s.Policy(t, `path "`+m+`/data/*" { capabilities = ["create", "update", "delete"] }`)}}))
	put(t, b, m+"/x", fields("k", "2"), backend.Condition{Version: "1"})
	put(t, b, m+"/new", fields("k", "1"), backend.Condition{Absent: true})
	_, err := b.Put(t.Context(), backend.Request{ID: m + "/new"}, fields("k", canary), backend.Condition{Absent: true})
	fails(t, err, backend.ErrConflict)
	getFails(t, b, m+"/x", "", backend.ErrDenied, "permission denied on "+m+"/x")
	_, err = b.CurrentVersion(t.Context(), backend.Request{ID: m + "/x"})
	fails(t, err, errors.ErrUnsupported)
	if err := b.Delete(t.Context(), backend.Request{ID: m + "/x"}, backend.Condition{}); err != nil {
		t.Error(err)
	}
	fails(t, b.Delete(t.Context(), backend.Request{ID: m + "/new"}, backend.Condition{Version: "1"}), backend.ErrDenied)
	getFails(t, open(t, s.Addr, s.Token), m+"/x", "", backend.ErrNotFound, "was deleted")
}

func TestCheck(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := s.Mount(t, "kv", map[string]string{"version": "2"})
	p := s.Proxy(t)
	b := open(t, p.URL, s.Token)
	put(t, b, m+"/x", fields("k", "1"), backend.Condition{})
	put(t, b, m+"/x", fields("k", "2"), backend.Condition{})
	have := get(t, b, m+"/x", "")
	reads := len(p.Calls("/v1/" + m + "/data/"))
	req := backend.Request{ID: m + "/x"}
	if changed, got, err := backend.Changed(t.Context(), b, req, have); changed || got != nil || err != nil {
		t.Errorf("unchanged: %v, %v, %v", changed, got, err)
	}
	if v, err := b.CurrentVersion(t.Context(), backend.Request{ID: m + "/x", Version: "1"}); v != "1" || err != nil {
		t.Errorf("version 1: %q, %v", v, err)
	}
	if n := len(p.Calls("/v1/" + m + "/data/")); n != reads {
		t.Errorf("checking read the secret %d times", n-reads)
	}
	put(t, b, m+"/x", fields("k", "3"), backend.Condition{})
	if changed, _, err := backend.Changed(t.Context(), b, req, have); !changed || err != nil {
		t.Errorf("changed: %v, %v", changed, err)
	}
	for _, missing := range []backend.Request{{ID: m + "/never"}, {ID: m + "/x", Version: "9"}, {ID: m + "/x", Version: "y"}} {
		_, err := b.CurrentVersion(t.Context(), missing)
		fails(t, err, backend.ErrNotFound)
	}
	if err := b.Delete(t.Context(), req, backend.Condition{}); err != nil {
		t.Fatal(err)
	}
	_, err := b.CurrentVersion(t.Context(), req)
	fails(t, err, backend.ErrNotFound, "was deleted")
	s.Write(t, m+"/metadata/empty", map[string]any{"max_versions": 3})
	_, err = b.CurrentVersion(t.Context(), backend.Request{ID: m + "/empty"})
	fails(t, err, backend.ErrNotFound)
}

func TestList(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := s.Mount(t, "kv", map[string]string{"version": "2"})
	m1 := s.Mount(t, "kv", map[string]string{"version": "1"})
	p := s.Proxy(t)
	b := open(t, p.URL, s.Token)
	for _, id := range []string{"a", "a/b", "a/b/c", "ab", "z/y/x"} {
		put(t, b, m+"/"+id, fields("k", canary), backend.Condition{})
		put(t, b, m1+"/"+id, fields("k", canary), backend.Condition{})
	}
	list := func(b *vault.Backend, prefix string) string {
		t.Helper()
		seen := map[string]bool{}
		for e, err := range b.List(t.Context(), prefix) {
			if err != nil {
				t.Fatal(err)
			}
			if seen[e.ID] {
				t.Errorf("%s was listed twice", e.ID)
			}
			seen[e.ID] = true
			get(t, b, e.ID, "")
		}
		out := fmt.Sprint(seen)
		return strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(out, "map["), "]"), ":true", "")
	}
	for _, dir := range []string{m, m1} {
		d := dir + "/"
		for prefix, want := range map[string]string{
			d: "a a/b a/b/c ab z/y/x", d + "a": "a a/b a/b/c ab", d + "a/": "a/b a/b/c", d + "a/b": "a/b a/b/c", d + "ab": "ab", d + "nope/x": "",
			dir: "a a/b a/b/c ab z/y/x", d + "z/y/x": "z/y/x"} {
			var wanted []string
			for id := range strings.FieldsSeq(want) {
				wanted = append(wanted, d+id)
			}
			if got := list(b, prefix); got != strings.Join(wanted, " ") {
				t.Errorf("under %q: %s", prefix, got)
			}
		}
		relative := openWith(t, vault.Config{Address: s.Addr, Mount: dir, Auth: vault.Auth{Token: secret(s.Token)}}, nil)
		if got := list(relative, ""); got != "a a/b a/b/c ab z/y/x" {
			t.Errorf("relative: %s", got)
		}
		if got := list(relative, "a/"); got != "a/b a/b/c" {
			t.Errorf("relative: %s", got)
		}
	}
	before := len(p.Calls("/v1/" + m + "/metadata"))
	for range b.List(t.Context(), m+"/") {
		break
	}
	if n := len(p.Calls("/v1/"+m+"/metadata")) - before; n != 1 {
		t.Errorf("the first id cost %d requests", n)
	}
	for _, err := range b.List(t.Context(), "nowhere/") {
		t.Errorf("an unknown mount: %v", err)
	}
	limited := open(t, s.Addr, s.NewToken(t, map[string]any{"policies": []string{s.Policy(t, `path "`+m+`/data/*" { capabilities = ["read"] }`)}}))
	for _, err := range limited.List(t.Context(), m+"/") {
		fails(t, err, backend.ErrDenied)
	}
	engine := openWith(t, vault.Config{Address: s.Addr, Mount: "cubbyhole", Auth: vault.Auth{Token: secret(s.Token)}}, nil)
	for _, err := range engine.List(t.Context(), "") {
		fails(t, err, errors.ErrUnsupported)
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	p := s.Proxy(t)
	if err := backend.Probe(t.Context(), open(t, p.URL, s.Token)); err != nil {
		t.Error(err)
	}
	bare := s.NewToken(t, map[string]any{"policies": []string{s.Policy(t, `path "x/*" { capabilities = ["read"] }`)}, "no_default_policy": true})
	if err := backend.Probe(t.Context(), open(t, p.URL, bare)); err != nil {
		t.Errorf("without the default policy: %v", err)
	}
	fails(t, backend.Probe(t.Context(), open(t, p.URL, canary)), backend.ErrAuthRequired, "not valid", "vault login")
	fails(t, backend.Probe(t.Context(), openWith(t, vault.Config{Address: p.URL}, nil)), backend.ErrAuthRequired, "there is no token")
	for _, c := range p.Calls("/v1/") {
		if !strings.HasPrefix(c.Path, "/v1/auth/") && !strings.HasPrefix(c.Path, "/v1/sys/") {
			t.Errorf("probing read %s", c.Path)
		}
	}
}

func TestOtherPaths(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	b := open(t, s.Addr, s.Token)
	pki := s.Mount(t, "pki", nil)
	s.Write(t, pki+"/root/generate/internal", map[string]any{"common_name": "x", "ttl": "100h", "key_type": "ec"})
	if c := get(t, b, pki+"/cert/ca", ""); c.Type != backend.TypeCertificate || !strings.Contains(field(t, c, "certificate"), "BEGIN CERTIFICATE") {
		t.Errorf("got %+v", c)
	}
	getFails(t, b, pki+"/issue/r", "", errors.ErrUnsupported, "cannot be read")
	getFails(t, b, pki+"/cert/ca", "1", errors.ErrUnsupported)
	if c := get(t, b, "auth/token/lookup-self", ""); field(t, c, "display_name") == "" {
		t.Error("no name")
	}
	totp := s.Mount(t, "totp", nil)
	s.Write(t, totp+"/keys/k", map[string]any{"generate": true, "issuer": "i", "account_name": "a"})
	if c := get(t, b, totp+"/code/k", ""); len(field(t, c, "code")) != 6 {
		t.Errorf("got %v", c.Fields)
	}
	getFails(t, b, "sys/policies/acl/nope", "", backend.ErrNotFound)
}

func TestCloseEndsAll(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	b := open(t, s.Addr, s.Token)
	if err := b.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	getFails(t, b, "secret/x", "", backend.ErrUnavailable, "closed")
	fails(t, b.Probe(t.Context()), backend.ErrUnavailable, "closed")
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	p := s.Proxy(t)
	m := s.Mount(t, "kv", map[string]string{"version": "2"})
	s.Write(t, m+"/data/x", map[string]any{"data": map[string]any{"k": "v"}})
	b := openWith(t, vault.Config{}, map[string]string{
		"VAULT_ADDR": p.URL + "/", "VAULT_TOKEN": " " + s.Token + "\n", "VAULT_NAMESPACE": "team/a/", "VAULT_HEADERS": `{"X-Gate":"open"}`, "VAULT_CLIENT_TIMEOUT": "5"})
	if field(t, get(t, b, m+"/x", ""), "k") != "v" {
		t.Error("wrong value")
	}
	calls := p.Calls("/v1/")
	if len(calls) != 2 {
		t.Errorf("%d requests", len(calls))
	}
	for _, c := range calls {
		if c.Header.Get("X-Vault-Namespace") != "team/a" || c.Header.Get("X-Gate") != "open" || c.Header.Get("X-Vault-Request") != "true" {
			t.Errorf("%s has the headers %v", c.Path, c.Header)
		}
	}
	h := host(t, map[string]string{"VAULT_ADDR": p.URL})
	if err := os.WriteFile(filepath.Join(h.Dir, ".vault-token"), []byte(s.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	home, err := vault.New(vault.Config{}, h)
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	if field(t, get(t, home, m+"/x", ""), "k") != "v" {
		t.Error("wrong value")
	}
	// A proxy of the settings is used, also for addresses that cannot be reached without it.
	through := openWith(t, vault.Config{Address: "http://vault.invalid:8200", ProxyAddr: p.URL, Auth: vault.Auth{Token: secret(s.Token)}}, nil)
	if err := through.Probe(t.Context()); err != nil {
		t.Errorf("by way of a proxy: %v", err)
	}
}

// The variables of the process itself must not matter: Host.LookupEnv is the truth.
func TestProcessEnvironmentIsIgnored(t *testing.T) {
	s := vaulttest.Start(t)
	p := s.Proxy(t)
	t.Setenv("VAULT_NAMESPACE", "hostile")
	t.Setenv("VAULT_TOKEN", "hostile")
	t.Setenv("VAULT_WRAP_TTL", "60s")
	t.Setenv("VAULT_HEADERS", `{"X-Hostile":"1"}`)
	t.Setenv("VAULT_ADDR", "http://127.0.0.1:1")
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	b := openWith(t, vault.Config{Address: p.URL, Auth: vault.Auth{Token: secret(s.Token)}}, nil)
	if err := b.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range p.Calls("/v1/") {
		if h := c.Header; h.Get("X-Vault-Namespace") != "" || h.Get("X-Hostile") != "" || h.Get("X-Vault-Wrap-Ttl") != "" || h.Get("X-Vault-Token") != s.Token {
			t.Errorf("%s has the headers %v", c.Path, h)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	s := vaulttest.Start(b)
	m := s.Mount(b, "kv", map[string]string{"version": "2"})
	s.Write(b, m+"/data/x", map[string]any{"data": map[string]any{"k": "v"}})
	v, err := vault.New(vault.Config{Address: s.Addr, Auth: vault.Auth{Token: secret(s.Token)}}, backend.Host{LookupEnv: func(string) (string, bool) { return "", false }})
	if err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Get(b.Context(), backend.Request{ID: m + "/x"}); err != nil {
			b.Fatal(err)
		}
	}
}
