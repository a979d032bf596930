package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/credresolve/credresolve/internal/vaulttest"
)

// compare runs commands without a sidecar, and again once with has started one, and fails the test where they print something
// else. It gives what was printed.
func (u *user) compare(with func(), commands ...[]string) []printed {
	u.t.Helper()
	alone := make([]printed, len(commands))
	for i, args := range commands {
		alone[i] = u.run(args...)
	}
	with()
	for i, args := range commands {
		if got := u.run(args...); got != alone[i] {
			u.t.Errorf("%v prints\n%+v\nwith a sidecar, and\n%+v\nwithout", args, got, alone[i])
		}
	}
	return alone
}

// audited is what the sidecar's audit log says.
func (u *user) audited() string {
	u.t.Helper()
	log, err := os.ReadFile(filepath.Join(u.dir, ".local/state/credresolve/audit.jsonl"))
	if err != nil {
		u.t.Fatal(err)
	}
	return string(log)
}

// between lets commands reach the sidecar through a socket on which handle may answer in its place: it reports whether it did.
func (u *user) between(handle func(http.ResponseWriter, *http.Request) bool) {
	u.t.Helper()
	real, socket := filepath.Join(u.dir, "run", "sock"), filepath.Join(u.dir, "between")
	l, err := net.Listen("unix", socket)
	if err != nil {
		u.t.Fatal(err)
	}
	to := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "localhost"}) },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", real)
		}},
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !handle(w, r) {
			to.ServeHTTP(w, r)
		}
	})}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	u.t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	u.env = append(u.env, "CREDRESOLVE_SOCKET="+socket)
}

// A sidecar that has the providers and then cannot answer, for whatever reason of its own, is as if it had not been there.
func TestSidecarThatFailsInTheMiddle(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]http.HandlerFunc{
		"it goes away":      func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"it is overloaded":  answering(503, `{"error":{"code":"unavailable","message":"the sidecar is busy","retryable":true}}`),
		"it wants a token":  answering(401, `{"error":{"code":"auth_required","message":"none"}}`),
		"it cannot audit":   answering(500, `{"error":{"code":"internal","message":"the disk is full"}}`),
		"it is no sidecar":  answering(200, "<html>c4nary</html>"),
		"it answers partly": answering(200, `{"results":[]}`),
		"it is cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"results":[{"value":"c4nary`)
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUser(t)
			u.write("credresolve.yaml", fmt.Sprintf("version: 1\nproviders:\n  m: {kind: memory, values: {x: x-c4nary}}\n  conf: {kind: file, path: %s}\n", filepath.Join(u.dir, "secrets.json")))
			u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"))
			u.write("doc.yaml", "a: cred://m/x\nb: cred://conf//key\nc: {provider: m, id: none, fallback: [{provider: conf, id: /key}]}\n")
			var asked atomic.Int32
			got := u.compare(
				func() {
					u.serve()
					u.between(func(w http.ResponseWriter, r *http.Request) bool {
						if r.URL.Path != "/v1/resolve" {
							return false
						}
						asked.Add(1)
						fail(w, r)
						return true
					})
				},
				[]string{"get", "cred://m/x"}, []string{"get", "--output", "json", "cred://m/x", "cred://conf//key", "cred://conf//none"},
				[]string{"render", "doc.yaml"}, []string{"run", "--env", "X=cred://conf//key", "--", "sh", "-c", "echo $X"},
			)
			if got[0].stdout != "x-c4nary" || asked.Load() < 4 {
				t.Errorf("%+v; the sidecar was asked %d times", got[0], asked.Load())
			}
			if _, stderr, _ := strings.Cut(u.run("--verbose", "get", "cred://m/x").stderr, "the sidecar gives no answer"); stderr == "" || strings.Contains(stderr, canary) {
				t.Error("at debug level nothing is told of it, or a secret")
			}
		})
	}
}

func answering(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

// What the sidecar's policy gives to a program of its user is no limit for a command that could resolve by itself.
func TestSidecarThatMayAnswerLess(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("credresolve.yaml", fmt.Sprintf(`version: 1
providers:
  m: {kind: memory, values: {x: x-c4nary, y: y-c4nary}}
  each: {kind: memory, values: {t/x: tenant-c4nary}, scope: [tenant], id_template: "{tenant}/{id}"}
serve:
  consumers:
    - {name: me, uid: %d, subject: {tenant: t}, allow: [{provider: m, id: x}, {provider: each, id: "**"}]}
`, os.Geteuid()))
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"))
	got := u.compare(func() { u.serveUnasked() },
		[]string{"get", "cred://m/x"}, []string{"get", "cred://m/y"}, []string{"get", "cred://m/x", "cred://m/y", "cred://m/z"}, []string{"get", "cred://each/x"})
	if got[1].stdout != "y-c4nary" || got[3].status != 4 {
		t.Errorf("%+v", got)
	}
	if log := u.audited(); !strings.Contains(log, "cred://m/x") || strings.Contains(log, "cred://each/x") {
		t.Error("the sidecar was not asked for what it may answer, or for what it gives to a tenant")
	}
}

// serveUnasked is serve where this user is a consumer who may not ask how the sidecar is.
func (u *user) serveUnasked() {
	u.t.Helper()
	cmd := exec.Command("credresolve", "serve")
	cmd.Dir, cmd.Env = u.dir, u.env
	if err := cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			u.t.Errorf("the sidecar: %v", err)
		}
	})
	u.await(filepath.Join(u.dir, "run", "sock"))
}

// await waits until somebody listens on socket.
func (u *user) await(socket string) {
	u.t.Helper()
	for range 600 {
		if c, err := net.Dial("unix", socket); err == nil {
			_ = c.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	u.t.Fatal("nobody listens")
}

// A variable that only the sidecar has makes its provider another one, and so all that depend on it.
func TestSidecarOfAnotherEnvironmentIsNotAsked(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("credresolve.yaml", `version: 1
providers:
  m: {kind: memory, values: {x: x-c4nary}}
  v: {kind: vault, address: "http://127.0.0.1:1", auth: {method: token, token: {provider: m, id: x}}, limits: {retries: 0}}
  w: {kind: vault, address: "http://127.0.0.1:1", auth: {method: token, token: {provider: v, id: secret/x, field: y}}, limits: {retries: 0}}
`)
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"))
	u.compare(func() {
		own := u.env
		u.env = append(u.env[:len(u.env):len(u.env)], "VAULT_NAMESPACE=other")
		u.serve()
		u.env = own
	}, []string{"get", "cred://m/x"}, []string{"--now", "get", "cred://v/secret/x#y"}, []string{"--now", "get", "cred://w/secret/x#y"})
	u.run("get", "cred://v/secret/x#y")
	u.run("get", "cred://w/secret/x#y")
	if log := u.audited(); !strings.Contains(log, "cred://m/x") || strings.Contains(log, "cred://v/") || strings.Contains(log, "cred://w/") {
		t.Error("the sidecar was asked for what is another in its environment")
	}
}

// A command that stores or deletes a secret ends what the sidecar knows of it.
func TestSidecarHearsOfWhatIsWritten(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("key", strings.Repeat("k-c4nary", 5))
	u.write("credresolve.yaml", fmt.Sprintf(`version: 1
providers:
  key: {kind: file, path: %s, mode: raw}
  desk: {kind: keychain, backend: file, path: %s, password: {provider: key, id: value}, cache: {ttl: 1h, negative_ttl: 1h}}
`, filepath.Join(u.dir, "key"), filepath.Join(u.dir, "desk")))
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"))
	u.serve()
	put := func(value string, flags ...string) {
		t.Helper()
		cmd := exec.Command("credresolve", append(flags, "put", "--replace", "cred://desk/x")...)
		cmd.Dir, cmd.Env, cmd.Stdin = u.dir, u.env, strings.NewReader(value)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	want := func(value string, status int) {
		t.Helper()
		if got := u.run("get", "cred://desk/x"); got.stdout != value || got.status != status {
			t.Errorf("%+v, want status %d", got, status)
		}
	}
	want("", 3)
	for i, flags := range [][]string{nil, {"--now"}, {"--interactive"}, nil} {
		value := fmt.Sprintf("%d-c4nary", i)
		put(value, flags...)
		want(value, 0)
	}
	if got := u.run("rm", "--yes", "cred://desk/x"); got.status != 0 {
		t.Errorf("%+v", got)
	}
	want("", 3)
	if n := strings.Count(u.audited(), `"event":"invalidate"`); n != 5 {
		t.Errorf("the sidecar heard of %d writes, want 5", n)
	}
	put("unheard-c4nary", "--no-sidecar")
	want("", 3)
	if got := u.run("--no-sidecar", "get", "cred://desk/x"); got.stdout != "unheard-c4nary" {
		t.Errorf("%+v", got)
	}
}

// --timeout ends a command that waits for a store through the sidecar as it ends one that waits for the store.
func TestTimeoutHoldsWithASidecar(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("program", "#!/bin/sh\nexec sleep 5\n")
	if err := os.Chmod(filepath.Join(u.dir, "program"), 0o700); err != nil {
		t.Fatal(err)
	}
	u.write("credresolve.yaml", fmt.Sprintf("version: 1\nproviders:\n  slow: {kind: exec, command: %s}\n  m: {kind: memory, values: {x: x-c4nary}}\n", filepath.Join(u.dir, "program")))
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"))
	u.write("doc.yaml", "a: cred://slow/x\nb: cred://m/x\n")
	var hangs atomic.Bool
	got := u.compare(func() {
		u.serve()
		u.between(func(_ http.ResponseWriter, r *http.Request) bool {
			if hangs.Load() {
				<-r.Context().Done()
			}
			return hangs.Load()
		})
	},
		[]string{"--timeout", "1s", "get", "cred://slow/x"}, []string{"--timeout", "1s", "get", "cred://m/x", "cred://slow/x"}, []string{"--timeout", "1s", "render", "doc.yaml"},
		[]string{"--timeout", "1s", "check", "doc.yaml"}, []string{"--timeout", "1s", "run", "--env", "X=cred://slow/x", "--", "true"})
	if got[0].status != 11 || !strings.Contains(got[0].stderr, "not done within 1s") {
		t.Errorf("%+v", got[0])
	}
	hangs.Store(true)
	if got := u.run("--timeout", "200ms", "get", "cred://m/x"); got.status != 11 && got.stdout != "x-c4nary" {
		t.Errorf("with a sidecar that does not answer: %+v", got)
	}
}

// A real store, whose errors come over the network and the sidecar, and a login that hangs on another provider.
func TestSidecarAnswersForVault(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	mount := s.Mount(t, "kv", map[string]string{"version": "2"})
	s.Write(t, mount+"/data/db", map[string]any{"data": map[string]any{"user": "u-c4nary", "n": 7}})
	s.Write(t, mount+"/data/db", map[string]any{"data": map[string]any{"user": "v-c4nary", "n": 8, "list": []any{"a", 1.5}}})
	u := newUser(t)
	u.write("token", s.Token)
	u.write("wrong", "wrong-c4nary")
	u.write("credresolve.yaml", fmt.Sprintf(`version: 1
providers:
  tokens: {kind: file, path: %[2]s, mode: raw}
  wrong: {kind: file, path: %[3]s, mode: raw}
  env: {kind: env, allow: [TOKEN]}
  app: {kind: vault, address: %[1]q, auth: {method: token, token: {provider: tokens, id: value}}}
  out: {kind: vault, address: %[1]q, auth: {method: token, token: {provider: wrong, id: value}}}
  own: {kind: vault, address: %[1]q, auth: {method: token, token: {provider: env, id: TOKEN}}}
`, s.Addr, filepath.Join(u.dir, "token"), filepath.Join(u.dir, "wrong")))
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"), "TOKEN="+s.Token)
	app := "cred://app/" + mount + "/db"
	u.write("doc.yaml", fmt.Sprintf("a: %s#user\nb: '%s?version=1#n'\nc: {provider: app, id: %s/none, field: x, optional: true}\nd: cred://own/%[3]s/db#user\n", app, app, mount))
	u.compare(func() { u.serve() },
		[]string{"get", app}, []string{"get", app + "#user"}, []string{"get", app + "?version=1#n"}, []string{"get", app + "?version=9#n"}, []string{"get", app + "#none"},
		[]string{"get", "cred://app/" + mount + "/none#x"}, []string{"get", "cred://app/nowhere/db#x"}, []string{"get", "cred://own/" + mount + "/db#user"},
		[]string{"get", "cred://out/" + mount + "/db#user"}, []string{"get", "--output", "json", app + "#user", app + "?version=1#n", app},
		[]string{"render", "doc.yaml"}, []string{"check", "doc.yaml"}, []string{"run", "--env", "X=" + app + "#list", "--", "sh", "-c", "echo $X"})
	if log := u.audited(); strings.Contains(log, "cred://own/") || strings.Count(log, "cred://app/") < 10 {
		t.Error("the sidecar was asked for what hangs on the environment, or not for the rest")
	}
}
