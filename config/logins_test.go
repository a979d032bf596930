package config_test

import (
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/file"
	"github.com/credresolve/credresolve/adapters/keychain"
	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/adapters/vault"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/oidctest"
	"github.com/credresolve/credresolve/resolver"
	"github.com/credresolve/credresolve/resolver/grants"
)

func loginKinds() *backend.Registry {
	return backend.NewRegistry(memory.Kind(), file.Kind(), keychain.Kind(), vault.Kind(), oauth2.Kind())
}

func parseLogins(t *testing.T, text string) (*config.File, error) {
	t.Helper()
	return config.Parse(filepath.Join(t.TempDir(), "credresolve.yaml"), []byte("version: 1\n"+text), loginKinds())
}

const deskAndStore = `
providers:
  desk: {kind: oauth2, issuer: "ISSUER", client_id: desk, scopes: [openid, offline_access]}
  key: {kind: memory, values: {k: passw0rd}}
  safe: {kind: keychain, backend: file, path: DIR, password: {provider: key, id: k}}
logins: {store: safe, prefix: app/logins}
`

func TestLogins(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	dir, state := t.TempDir(), t.TempDir()+"/state"
	text := strings.NewReplacer("ISSUER", p.Issuer, "DIR", dir).Replace(deskAndStore)
	open := func() *resolver.Resolver {
		f, err := parseLogins(t, text)
		if err != nil {
			t.Fatal(err)
		}
		r, err := f.Open(config.Options{StateDir: state})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		return r
	}
	r := open()
	ref := credref.Ref{Provider: "desk", ID: "me"}
	if _, err := r.Resolve(t.Context(), ref); backend.CodeOf(err) != backend.CodeAuthRequired || !strings.Contains(err.Error(), "credresolve login desk me") {
		t.Errorf("before a login: %v", err)
	}
	of := func(r *resolver.Resolver) *grants.Backend {
		b, err := r.Backend("desk")
		if err != nil {
			t.Fatal(err)
		}
		kept, ok := grants.As(b)
		if !ok {
			t.Fatal("the provider keeps no logins")
		}
		return kept
	}
	s, err := of(r).StartLogin(t.Context(), backend.Request{ID: "me"}, backend.LoginOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := oidctest.Browse(t, s.URL, ""); status != http.StatusOK {
		t.Fatal(status)
	}
	for s.Status == backend.LoginPending {
		time.Sleep(20 * time.Millisecond)
		if s, err = of(r).PollLogin(t.Context(), s.State); err != nil {
			t.Fatal(err)
		}
	}
	resolve := func(r *resolver.Resolver) string {
		v, err := r.Resolve(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if v.Type() != backend.TypeOAuth2 || v.RefreshAfter().IsZero() {
			t.Errorf("%v %v", v.Type(), v.RefreshAfter())
		}
		b, err := r.Resolve(t.Context(), credref.Ref{Provider: "desk", ID: "me", Field: "access_token"})
		if err != nil {
			t.Fatal(err)
		}
		return string(b.Secret().Reveal())
	}
	first := resolve(r)
	if got := resolve(open()); got != first {
		t.Error("another process gets another token")
	}
	if err := of(r).Refresh(t.Context(), backend.Request{ID: "me"}); err != nil {
		t.Fatal(err)
	}
	if got := resolve(r); got == first {
		t.Error("the cache still has what was before a refresh")
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) == 0 {
		t.Error("nothing is in the token store", err)
	}
	if _, err := of(r).Logout(t.Context(), backend.Request{ID: "me"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Resolve(t.Context(), ref); backend.CodeOf(err) != backend.CodeAuthRequired {
		t.Errorf("after a logout: %v", err)
	}
}

// A provider stays, with the logins under way, as long as what it is and where it keeps logins is the same.
func TestLoginsAreReplacedWithTheirStore(t *testing.T) {
	t.Parallel()
	text := strings.NewReplacer("ISSUER", "https://login.example", "DIR", t.TempDir()).Replace(deskAndStore)
	parse := func(text string) *config.File {
		f, err := parseLogins(t, text)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	o := config.Options{StateDir: t.TempDir() + "/state"}
	r, err := parse(text).Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	before, _ := r.Backend("desk")
	for _, tc := range []struct {
		what, from, to string
		stays          bool
	}{
		{"nothing", "", "", true},
		{"the prefix", "prefix: app/logins", "prefix: app/other", false},
		{"the store's settings", "backend: file, ", "backend: file, service: x, ", false},
		{"where the store's password comes from", "values: {k: passw0rd}", "values: {k: other}", false},
		{"another section", "logins:", "cache: {entries: 5}\nlogins:", true},
	} {
		if err := parse(strings.Replace(text, tc.from, tc.to, 1)).Apply(r, o); err != nil {
			t.Fatal(err)
		}
		now, _ := r.Backend("desk")
		if (now == before) != tc.stays {
			t.Errorf("%s: the provider stays: %v", tc.what, now == before)
		}
		if err := parse(text).Apply(r, o); err != nil {
			t.Fatal(err)
		}
		before, _ = r.Backend("desk")
	}
}

func TestLoginsAreChecked(t *testing.T) {
	t.Parallel()
	const desk = "providers:\n  desk: {kind: oauth2, issuer: \"https://login.example\", client_id: desk}\n"
	for name, tc := range map[string]struct{ text, says string }{
		"unknown provider":                  {desk + "logins: {store: saef}", "not configured; known providers: desk"},
		"near provider":                     {desk + "  safe: {kind: memory}\nlogins: {store: saef}", "did you mean safe?"},
		"unknown setting":                   {desk + "logins: {stroe: desk}", `"store"`},
		"prefix that climbs":                {desk + "logins: {prefix: a/../b}", "logins.prefix"},
		"prefix with a mark":                {desk + "logins: {prefix: \"a b\"}", "logins.prefix"},
		"the keychain of many hosts":        {desk + "logins: {many_hosts: true}", "the keychain is that of one host"},
		"a store that compares on one host": {desk + "  safe: {kind: keychain}\nlogins: {store: safe, many_hosts: true}", "logins.many_hosts needs a token store that compares and swaps"},
		"a store that cannot compare":       {desk + "  kv1: {kind: vault, address: \"https://v.example\", mount: kv, kv_version: 1}\nlogins: {store: kv1, many_hosts: true}", "strength none"},
		"a store to read":                   {desk + "  conf: {kind: file, path: /etc/x.json}\nlogins: {store: conf}", "can only be read"},
		"a store that needs a login":        {desk + "  other: {kind: oauth2, issuer: \"https://login.example\", client_id: desk}\nlogins: {store: other}", "can only be read"},
		"itself":                            {desk + "logins: {store: desk}", "desk → desk"},
		"a store that needs the provider":   {desk + "  safe: {kind: vault, address: \"https://v.example\", auth: {token: {provider: desk, id: me}}}\nlogins: {store: safe}", "desk → safe → desk"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := parseLogins(t, tc.text)
			if err == nil {
				var r *resolver.Resolver
				if r, err = f.Open(config.Options{StateDir: t.TempDir() + "/state"}); err == nil {
					_ = r.Close()
				}
			}
			if backend.CodeOf(err) != backend.CodeInvalidConfig || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v, want it to say %q", err, tc.says)
			}
		})
	}
	f, err := parseLogins(t, desk+"  safe: {kind: vault, address: \"https://v.example\"}\nlogins: {store: safe, prefix: secret/credresolve, many_hosts: true}")
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Open(config.Options{StateDir: t.TempDir() + "/state"})
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
}

// Where there is no keychain, the error says what to do.
func TestNoKeychain(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux: other systems have a keychain always")
	}
	f, err := parseLogins(t, "providers:\n  desk: {kind: oauth2, issuer: \"https://login.example\", client_id: desk}\n")
	if err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	r, err := f.Open(config.Options{StateDir: t.TempDir() + "/state", LookupEnv: func(name string) (string, bool) {
		if name == "HOME" || name == "PATH" || name == "XDG_RUNTIME_DIR" {
			return empty, true
		}
		return "", false
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = r.Resolve(t.Context(), credref.Ref{Provider: "desk", ID: "me"})
	if backend.CodeOf(err) != backend.CodeUnavailable || !strings.Contains(err.Error(), "logins.store") || !strings.Contains(err.Error(), "backend: file") {
		t.Errorf("%v", err)
	}
}

// A project's file that is not trusted reads nothing of what its user has logged in to.
func TestUntrustedFileSeesNoLogins(t *testing.T) {
	t.Parallel()
	f, err := parseLogins(t, "providers:\n  desk: {kind: oauth2, issuer: \"https://login.example\", client_id: desk}\n")
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Open(config.Options{StateDir: t.TempDir() + "/state", Untrusted: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := r.Backend("desk")
	if err != nil || !config.IsUntrusted(b) {
		t.Errorf("%T %v", b, err)
	}
}
