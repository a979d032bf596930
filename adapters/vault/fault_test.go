package vault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/vault"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/vaulttest"
)

// Each fault comes once per phase of a read: at the login, at the question for the mount, and at the read itself.
func TestFaults(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := kv(t, s)
	auth, role, newID := appRole(t, s, m, nil)
	errorsBody := `{"errors":["` + canary + `"]}`
	for _, tt := range []struct {
		name  string
		fault vaulttest.Fault
		want  error
		after time.Duration
		text  string
	}{
		{"412", vaulttest.Answer(412, errorsBody), backend.ErrUnavailable, 0, "has not caught up"},
		{"429", vaulttest.Answer(429, errorsBody, "Retry-After", "7"), backend.ErrThrottled, 7 * time.Second, "rate limit"},
		{"429 without JSON", vaulttest.Answer(429, canary), backend.ErrThrottled, 0, "rate limit"},
		{"472", vaulttest.Answer(472, errorsBody), backend.ErrUnavailable, 0, "disaster recovery"},
		{"473", vaulttest.Answer(473, ""), backend.ErrUnavailable, 0, "standby"},
		{"500", vaulttest.Answer(500, errorsBody), backend.ErrUnavailable, 0, "status 500"},
		{"500 of a standby", vaulttest.Answer(500, `{"errors":["local node not active but active cluster node not found"]}`), backend.ErrUnavailable, 0, "standby without an active server"},
		{"501", vaulttest.Answer(501, errorsBody), backend.ErrUnavailable, 0, "not initialised"},
		{"502", vaulttest.Answer(502, "<html>"+canary), backend.ErrUnavailable, 0, "not reachable"},
		{"503", vaulttest.Answer(503, errorsBody, "Retry-After", "3"), backend.ErrUnavailable, 3 * time.Second, "maintenance"},
		{"503 sealed", vaulttest.Answer(503, `{"errors":["Vault is sealed"]}`), backend.ErrUnavailable, 0, "sealed"},
		{"504", vaulttest.Answer(504, ""), backend.ErrUnavailable, 0, "no answer in time"},
		{"599", vaulttest.Answer(599, ""), backend.ErrUnavailable, 0, "status 599"},
		{"200 of a web server", vaulttest.Answer(200, "<html>"+canary), backend.ErrUnavailable, 0, "not Vault's JSON"},
		{"404 of a web server", vaulttest.Answer(404, "<html>"+canary), backend.ErrUnavailable, 0, "not Vault's JSON"},
		{"404 of another program", vaulttest.Answer(404, `{"message":"`+canary+`"}`), backend.ErrUnavailable, 0, "not Vault's JSON"},
		{"403 of a gateway", vaulttest.Answer(403, canary), backend.ErrUnavailable, 0, "not Vault's JSON"},
		{"empty", vaulttest.Answer(200, ""), backend.ErrUnavailable, 0, "not Vault's JSON"},
		{"other shape", vaulttest.Answer(200, `{"data":"`+canary+`","auth":null}`), backend.ErrUnavailable, 0, "not as Vault's"},
		{"redirect elsewhere", vaulttest.Answer(307, "", "Location", "https://evil.example/v1/x?"+canary), backend.ErrUnavailable, 0, "redirects to another address (https://evil.example)"},
		{"truncated", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"request_id":"1","data":{"data":{"k":"`+canary)
		}, backend.ErrUnavailable, 0, "ended before the answer did"},
		{"reset", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n") // before the first byte net/http itself asks again
				_ = c.Close()
			}
		}, backend.ErrUnavailable, 0, "the connection"},
		{"slow", func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
			_, _ = io.Copy(io.Discard, r.Body) // the server notices only then that the client has left
			<-r.Context().Done()
		}, backend.ErrUnavailable, 0, "no answer in time"},
		{"drip", func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			_, _ = io.Copy(io.Discard, r.Body)
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, " ")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(20 * time.Millisecond)
			}
		}, backend.ErrUnavailable, 0, "no answer in time"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			timeout := 10 * time.Second
			if tt.text == "no answer in time" && !strings.HasPrefix(tt.name, "5") {
				timeout = 400 * time.Millisecond
			}
			for _, at := range []string{"/v1/auth/" + auth + "/login", "/v1/sys/internal/ui/mounts/", "/v1/" + m + "/data/"} {
				p := s.Proxy(t)
				p.Fail(at, 1, tt.fault)
				b := openWith(t, vault.Config{Address: p.URL, Timeout: timeout,
					Auth: vault.Auth{Method: "approle", Mount: auth, RoleID: role, SecretID: secret(newID())}}, nil)
				_, err := b.Get(t.Context(), backend.Request{ID: m + "/x"})
				if err == nil {
					t.Errorf("the fault at %s was not noticed", at)
					continue
				}
				fails(t, err, tt.want, tt.text)
				var e *backend.Error
				if !errors.As(err, &e) || e.RetryAfter != tt.after || !e.Code.Retryable() {
					t.Errorf("at %s: %v: retry after %v, want %v", at, err, e.RetryAfter, tt.after)
				}
				if n := len(p.Calls(at)); n != 1 {
					t.Errorf("%d requests to %s: the client retried", n, at)
				}
				if timeout > time.Second {
					get(t, b, m+"/x", "") // the next one is fine
				}
			}
		})
	}
}

func TestNoServer(t *testing.T) {
	t.Parallel()
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := dead.Addr().String()
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	getFails(t, open(t, "http://"+addr, canary), "kv/x", "", backend.ErrUnavailable, addr+": connection refused")
	getFails(t, open(t, "http://vault.invalid:8200", canary), "kv/x", "", backend.ErrUnavailable, "vault.invalid:8200: ")
	getFails(t, open(t, "unix:///no/such/socket", canary), "kv/x", "", backend.ErrUnavailable, "unix:/no/such/socket: ")
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	getFails(t, open(t, strings.Replace(plain.URL, "http", "https", 1), canary), "kv/x", "", backend.ErrUnavailable, "does not speak TLS")
	getFails(t, open(t, plain.URL, canary), "kv/x", "", backend.ErrUnavailable, "not Vault's JSON", "see that address is a Vault server's")
}

// A server that accepts and never answers does not hold on to a caller that has left.
func TestCancelFromAHalfOpenServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	b := openWith(t, vault.Config{Address: "http://" + l.Addr().String(), Mount: "kv", KVVersion: 2, Auth: vault.Auth{Token: secret(canary)}}, nil)
	login := openWith(t, vault.Config{Address: "http://" + l.Addr().String(), Auth: vault.Auth{Method: "approle", RoleID: "r", SecretID: secret(canary)}}, nil)
	for name, call := range map[string]func(context.Context) error{
		"get":   func(ctx context.Context) error { _, err := b.Get(ctx, backend.Request{ID: "x"}); return err },
		"login": func(ctx context.Context) error { _, err := login.Get(ctx, backend.Request{ID: "kv/x"}); return err },
		"probe": b.Probe,
		"put": func(ctx context.Context) error {
			_, err := b.Put(ctx, backend.Request{ID: "x"}, fields("k", canary), backend.Condition{})
			return err
		},
		"delete": func(ctx context.Context) error { return b.Delete(ctx, backend.Request{ID: "x"}, backend.Condition{}) },
		"check":  func(ctx context.Context) error { _, err := b.CurrentVersion(ctx, backend.Request{ID: "x"}); return err },
		"renew":  func(ctx context.Context) error { _, err := b.Renew(ctx, backend.Lease{ID: "l"}, 0); return err },
		"revoke": func(ctx context.Context) error {
			return b.Revoke(ctx, backend.Request{}, &backend.Credential{Lease: &backend.Lease{ID: "l"}})
		},
		"list": func(ctx context.Context) error {
			for _, err := range b.List(ctx, "") {
				return err
			}
			return nil
		},
	} {
		// The best of some, since other programs share the machine.
		best := time.Hour
		for try := 0; try < 5 && best > 100*time.Millisecond; try++ {
			ctx, cancel := context.WithCancel(t.Context())
			var left time.Time
			time.AfterFunc(30*time.Millisecond, func() { left = time.Now(); cancel() })
			fails(t, call(ctx), context.Canceled)
			best = min(best, time.Since(left))
		}
		if best > 100*time.Millisecond {
			t.Errorf("%s came back %v after its caller left", name, best)
		}
	}
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := kv(t, s)
	active := s.Proxy(t)
	redirect := func(to string) vaulttest.Fault {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, to+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		}
	}
	standby := s.Proxy(t)
	standby.Fail("/v1/", -1, redirect(active.URL))
	b := open(t, standby.URL, s.Token)
	getFails(t, b, m+"/x", "", backend.ErrUnavailable, "redirects to another address ("+active.URL+")", "redirect_to")
	if n := len(active.Calls("/")); n != 0 {
		t.Errorf("the token followed %d redirects", n)
	}
	listed := openWith(t, vault.Config{Address: standby.URL, RedirectTo: []string{active.URL}, Auth: vault.Auth{Token: secret(s.Token)}}, nil)
	get(t, listed, m+"/x", "")
	if v := put(t, listed, m+"/y", fields("k", "v"), backend.Condition{}); v != "1" {
		t.Errorf("a write by redirect made version %q", v)
	}
	// Round and round: one redirect is followed, not two.
	loop := s.Proxy(t)
	loop.Fail("/v1/", -1, func(w http.ResponseWriter, r *http.Request, next http.Handler) { redirect(loop.URL)(w, r, next) })
	getFails(t, open(t, loop.URL, s.Token), m+"/x", "", backend.ErrUnavailable, "redirects")
	if n := len(loop.Calls("/")); n != 2 {
		t.Errorf("%d requests", n)
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := kv(t, s)
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s.Proxy(t)}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	if field(t, get(t, open(t, "unix://"+socket, s.Token), m+"/x", ""), "k") != "v" {
		t.Error("wrong value")
	}
}

func TestSealed(t *testing.T) {
	t.Parallel()
	s := vaulttest.StartOwn(t)
	m := kv(t, s)
	b := open(t, s.Addr, s.Token)
	get(t, b, m+"/x", "")
	s.Seal(t)
	getFails(t, b, m+"/x", "", backend.ErrUnavailable, "sealed", "unseal")
	fails(t, b.Probe(t.Context()), backend.ErrUnavailable, "sealed")
	fails(t, open(t, s.Addr, s.Token).Probe(t.Context()), backend.ErrUnavailable, "sealed")
	s.Unseal(t)
	get(t, b, m+"/x", "")
}

func TestTooLongAnAnswer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"request_id":"1","data":{"k":"`)
		chunk := strings.Repeat("a", 1<<20)
		for range 70 {
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
		}
		_, _ = io.WriteString(w, `"}}`)
	}))
	t.Cleanup(server.Close)
	getFails(t, openWith(t, vault.Config{Address: server.URL, Mount: "kv", KVVersion: 1, Auth: vault.Auth{Token: secret(canary)}}, nil), "x", "", backend.ErrUnavailable, "longer than")
}

func dynamic(t *testing.T, s *vaulttest.Server, ttl, maxTTL string) string {
	t.Helper()
	m := s.Mount(t, "database", nil)
	s.Write(t, m+"/config/d", map[string]any{"plugin_name": "memdb-database-plugin", "allowed_roles": "*"})
	s.Write(t, m+"/roles/app", map[string]any{"db_name": "d", "default_ttl": ttl, "max_ttl": maxTTL, "creation_statements": "x"})
	return m
}

func TestLeases(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := dynamic(t, s, "4s", "6s")
	b := open(t, s.Addr, s.Token)
	c := get(t, b, m+"/creds/app", "")
	if c.Type != backend.TypeBasic || c.Lease == nil || !c.Lease.Renewable || c.Lease.Duration != 4*time.Second || field(t, c, "username") == "" {
		t.Fatalf("got %+v, lease %+v", c, c.Lease)
	}
	if left := time.Until(c.Expires); left <= 3*time.Second || left > 4*time.Second {
		t.Errorf("it expires in %v", left)
	}
	other := get(t, b, m+"/creds/app", "")
	if other.Lease.ID == c.Lease.ID {
		t.Error("two reads gave one credential")
	}
	renewed, err := backend.Renew(t.Context(), b, *c.Lease, time.Hour)
	if err != nil || renewed.ID != c.Lease.ID || renewed.Duration < 5*time.Second || renewed.Duration > 6*time.Second || !renewed.Renewable {
		t.Errorf("renewed beyond the greatest life: %+v, %v", renewed, err)
	}
	renewed, err = backend.Renew(t.Context(), b, *c.Lease, 1500*time.Millisecond)
	if err != nil || renewed.Duration != 2*time.Second {
		t.Errorf("renewed for two seconds: %+v, %v", renewed, err)
	}
	req := backend.Request{ID: m + "/creds/app"}
	for range 2 { // what has ended already is no error
		if err := backend.Revoke(t.Context(), b, req, c); err != nil {
			t.Error(err)
		}
	}
	_, err = b.Renew(t.Context(), *c.Lease, 0)
	fails(t, err, backend.ErrExpired)
	fails(t, b.Revoke(t.Context(), req, &backend.Credential{}), errors.ErrUnsupported)
	getFails(t, b, m+"/creds/nope", "", backend.ErrNotFound, "no role at "+m+"/creds/nope")
	time.Sleep(time.Until(other.Expires) + 300*time.Millisecond)
	_, err = b.Renew(t.Context(), *other.Lease, 0)
	fails(t, err, backend.ErrExpired)

	s.Write(t, m+"/static-roles/st", map[string]any{"db_name": "d", "username": "u", "rotation_period": "1h", "rotation_statements": "x"})
	st := get(t, b, m+"/static-creds/st", "")
	if left := time.Until(st.Expires); st.Lease != nil || left < 50*time.Minute || left > time.Hour {
		t.Errorf("a static role's password: lease %v, expires in %v", st.Lease, left)
	}
	limited := open(t, s.Addr, s.NewToken(t, map[string]any{"policies": []string{s.Policy(t, `path "`+m+`/*" { capabilities = ["read"] }`)}}))
	c = get(t, limited, m+"/creds/app", "")
	if _, err := limited.Renew(t.Context(), *c.Lease, 0); err != nil { // the default policy allows it
		t.Error(err)
	}
	fails(t, limited.Revoke(t.Context(), req, c), backend.ErrDenied)
}

// Vault ends a lease with the token that got it: no lease is told to last longer.
func TestLeaseEndsWithItsLogin(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := dynamic(t, s, "1h", "2h")
	auth, role, newID := appRole(t, s, m, map[string]any{"token_ttl": "30s", "token_max_ttl": "36s"})
	p := s.Proxy(t)
	b := openWith(t, vault.Config{Address: p.URL, Auth: vault.Auth{Method: "approle", Mount: auth, RoleID: role, SecretID: secret(newID())}}, nil)
	c := get(t, b, m+"/creds/app", "")
	loggedIn := time.Now()
	if left := time.Until(c.Expires); left > 30*time.Second || left < 15*time.Second {
		t.Fatalf("it is said to live for %v, the token lives for 30s", left)
	}
	for start := time.Now(); len(p.Calls("/v1/auth/"+auth+"/login")) < 2; time.Sleep(50 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatal("the login was not replaced")
		}
	}
	renewed, err := b.Renew(t.Context(), *c.Lease, 0)
	if end := time.Now().Add(renewed.Duration); err != nil || end.After(loggedIn.Add(36*time.Second)) {
		t.Errorf("under the old login: %+v, %v", renewed, err)
	}
	// The second login has been asked for, and may not be answered yet.
	for start := time.Now(); !get(t, b, m+"/creds/app", "").Expires.After(c.Expires); time.Sleep(50 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			t.Fatal("no successor outlasts the first credential")
		}
	}
}

func TestManyAtOnceLeaveNothing(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	b := open(t, s.Addr, s.Token)
	reqs := make([]backend.Request, 50)
	for i := range reqs {
		reqs[i].ID = fmt.Sprintf("nowhere/%d", i)
	}
	results, err := backend.GetBatch(t.Context(), b, slices.Clone(reqs))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		fails(t, r.Err, backend.ErrNotFound)
	}
}
