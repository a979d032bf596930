package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/vaulttest"
)

// process is a sidecar in a process of its own, in front of a real Vault.
type process struct {
	*user
	vault    *vaulttest.Server
	proxy    *vaulttest.Proxy
	kv, db   string
	cmd      *exec.Cmd
	messages *messages
	ended    chan error
}

// messages is what a running process wrote so far.
type messages struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (m *messages) Write(b []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.b.Write(b)
}

func (m *messages) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.b.String()
}

// newProcess prepares a Vault with a secret and a role that makes database users, and the configuration of a sidecar for it.
func newProcess(t *testing.T, provider, serve string) *process {
	t.Helper()
	s := vaulttest.Start(t)
	p := &process{user: newUser(t), vault: s, proxy: s.Proxy(t), kv: s.Mount(t, "kv", map[string]string{"version": "2"}), db: s.Mount(t, "database", nil)}
	s.Write(t, p.db+"/config/d", map[string]any{"plugin_name": "memdb-database-plugin", "allowed_roles": "*"})
	s.Write(t, p.db+"/roles/app", map[string]any{"db_name": "d", "default_ttl": "1h", "max_ttl": "2h", "creation_statements": "x"})
	p.put("first-c4nary")
	token := s.NewToken(t, map[string]any{"policies": []string{s.Policy(t, `path "*" { capabilities = ["create", "read", "update", "delete", "list"] }`)}})
	p.write("token", token)
	p.configure(provider, serve)
	p.env = append(p.env, "CREDRESOLVE_CONFIG="+filepath.Join(p.dir, "credresolve.yaml"))
	return p
}

func (p *process) configure(provider, serve string) {
	p.user.write("credresolve.yaml", fmt.Sprintf(`version: 1
providers:
  key: {kind: file, path: token, mode: raw}
  app: {kind: vault, address: %q, auth: {method: token, token: {provider: key, id: value}}%s}
  m: {kind: memory, values: {x: x-c4nary}}
serve:
  grace: 5s
%s`, p.proxy.URL, provider, serve))
}

func (p *process) put(password string) {
	p.t.Helper()
	p.vault.Write(p.t, p.kv+"/data/db", map[string]any{"data": map[string]any{"password": password, "user": "u-c4nary"}})
}

// start runs the sidecar until it is ready.
func (p *process) start() {
	p.t.Helper()
	p.cmd, p.messages, p.ended = exec.Command("credresolve", "serve"), new(messages), make(chan error, 1)
	p.cmd.Dir, p.cmd.Env, p.cmd.Stderr = p.dir, p.env, p.messages
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	cmd, ended := p.cmd, p.ended
	go func() { ended <- cmd.Wait() }()
	p.t.Cleanup(func() { _ = cmd.Process.Kill() })
	for range 600 {
		if p.run("status").status == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.t.Fatalf("the sidecar is not ready: %s", p.messages.String())
}

// end sends sig, and waits for the end.
func (p *process) end(sig syscall.Signal) {
	p.t.Helper()
	_ = p.cmd.Process.Signal(sig)
	select {
	case err := <-p.ended:
		if err != nil && sig != syscall.SIGKILL {
			p.t.Errorf("the sidecar: %v: %s", err, p.messages.String())
		}
	case <-time.After(30 * time.Second):
		p.t.Fatal("the sidecar does not end")
	}
	if strings.Contains(p.messages.String(), canary) {
		p.t.Error("a secret is on the sidecar's standard error")
	}
}

func (p *process) client() *client.Client {
	p.t.Helper()
	c, err := client.New(client.Config{Socket: filepath.Join(p.dir, "run", "sock")})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (p *process) password() credref.Ref {
	return credref.Ref{Provider: "app", ID: p.kv + "/db", Field: "password"}
}

func (p *process) user1() credref.Ref {
	return credref.Ref{Provider: "app", ID: p.db + "/creds/app", Field: "username"}
}

// leases is how many database users Vault has made and not ended.
func (p *process) leases() int {
	p.t.Helper()
	list, err := p.vault.Client(p.t).Logical().List("sys/leases/lookup/" + p.db + "/creds/app")
	if err != nil {
		p.t.Fatal(err)
	}
	if list == nil {
		return 0
	}
	keys, _ := list.Data["keys"].([]any)
	return len(keys)
}

func value(t *testing.T, c *client.Client, ref credref.Ref) string {
	t.Helper()
	v, err := c.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return string(v.Secret().Reveal())
}

// A lease is one for all who ask, and ends with a revocation, or with the sidecar where that is configured.
func TestSidecarLeases(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "", "  revoke_on_exit: true\n")
	p.start()
	c := p.client()
	first := value(t, c, p.user1())
	if again := value(t, p.client(), p.user1()); again != first || p.leases() != 1 {
		t.Errorf("two clients got %d leases", p.leases())
	}
	if err := c.Revoke(t.Context(), p.user1()); err != nil {
		t.Fatal(err)
	}
	if n := p.leases(); n != 0 {
		t.Errorf("%d leases after a revocation", n)
	}
	if next := value(t, c, p.user1()); next == first || p.leases() != 1 {
		t.Errorf("the revoked credential is given again, or there are %d leases", p.leases())
	}
	p.end(syscall.SIGTERM)
	if n := p.leases(); n != 0 {
		t.Errorf("%d leases after the end", n)
	}
}

// What Vault did not end at a revocation is ended by another try, and the end of the sidecar waits a while for it.
func TestSidecarOwesRevocations(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "", "")
	p.start()
	c := p.client()
	down := vaulttest.Answer(http.StatusServiceUnavailable, `{"errors":["Vault is sealed"]}`)
	revoke := func() {
		t.Helper()
		value(t, c, p.user1())
		if err := c.Revoke(t.Context(), p.user1()); !errors.Is(err, backend.ErrUnavailable) {
			t.Errorf("a revocation while Vault is away: %v", err)
		}
		if n := p.leases(); n != 1 {
			t.Errorf("%d leases", n)
		}
	}
	undo := p.proxy.Fail("/v1/sys/leases/revoke", -1, down)
	revoke()
	undo()
	for end := time.Now().Add(2 * time.Minute); p.leases() > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not tried again")
		}
	}
	p.proxy.Fail("/v1/sys/leases/revoke", 2, down) // the first one, and the first one at the end
	revoke()
	p.end(syscall.SIGTERM)
	if n := p.leases(); n != 0 {
		t.Errorf("%d leases after the end: %s", n, p.messages.String())
	}

	p.start()
	c = p.client()
	undo = p.proxy.Fail("/v1/sys/leases/revoke", -1, down)
	revoke()
	p.end(syscall.SIGTERM) // which does not wait for ever
	undo()
	if !strings.Contains(p.messages.String(), "was not ended at its store") {
		t.Errorf("nothing is said of the lease that is left: %s", p.messages.String())
	}
}

// A copy in an auth profile ends with the credential, whoever wrote it: another process remembers it for the sidecar.
func TestSidecarEndsCopies(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("needs modes of files: run it on Linux or macOS")
	}
	p := newProcess(t, "", "  revoke_on_exit: true\n")
	const path = "claw/agents/main/agent/auth-profiles.json"
	p.write(path, `{"version": 1, "profiles": {}}`)
	holds := func() bool {
		text, err := os.ReadFile(filepath.Join(p.dir, path))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(text), "p:copy")
	}
	p.start()
	copied := func() {
		t.Helper()
		got := p.run("secretref", "install", "--profile", "p:copy", "--ref", p.user1().String(), "--write-through", filepath.Join(p.dir, "claw"))
		if got.status != 0 || !holds() {
			t.Fatalf("writing a copy: status %d, %s", got.status, got.stderr)
		}
	}
	copied()
	if err := p.client().Revoke(t.Context(), p.user1()); err != nil {
		t.Fatal(err)
	}
	if holds() {
		t.Error("the copy outlived a revocation")
	}
	copied()
	p.end(syscall.SIGTERM)
	if holds() {
		t.Error("the copy outlived the leases that ended with the sidecar")
	}
}

// A provider that did not change keeps its login, its cache and its leases over a reload.
func TestSidecarReloadKeepsWhatDidNotChange(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "", "")
	p.start()
	c := p.client()
	value(t, c, p.password())
	first := value(t, c, p.user1())
	reads := len(p.proxy.Calls("/v1/" + p.kv))
	p.configure("", "  limits: {batch: 7}\n")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	reloaded := func() bool {
		st, err := c.Status(t.Context())
		return err == nil && st.ReloadedAt != nil
	}
	for end := time.Now().Add(20 * time.Second); !reloaded(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("SIGHUP does nothing")
		}
	}
	if got := value(t, c, p.user1()); got != first || p.leases() != 1 {
		t.Errorf("the lease is another, of %d", p.leases())
	}
	if value(t, c, p.password()); len(p.proxy.Calls("/v1/"+p.kv)) != reads {
		t.Error("the cache is empty")
	}
	p.configure(", cache: {ttl: 1m}", "")
	answer, err := c.Reload(t.Context())
	if err != nil || strings.Join(answer.Replaced, " ") != "app" || strings.Join(answer.Kept, " ") != "key m" {
		t.Errorf("a changed provider: %+v, %v", answer, err)
	}
	p.end(syscall.SIGTERM)
	if n := p.leases(); n == 0 {
		t.Error("the lease ended with the sidecar, though nothing says so")
	}
}

// The store dies while a thousand clients ask, answers garbage, throttles, and comes back with another value.
func TestSidecarOutage(t *testing.T) {
	t.Parallel()
	p := newProcess(t, ", cache: {ttl: 1s, max_stale: 1h}, limits: {retries: 0, breaker: {open: 1s}}", "  limits: {connections: 3000, requests: 2000}\n")
	p.start()
	if got := value(t, p.client(), p.password()); got != "first-c4nary" {
		t.Fatal("another value")
	}
	for name, fault := range map[string]vaulttest.Fault{
		"sealed":    vaulttest.Answer(http.StatusServiceUnavailable, `{"errors":["Vault is sealed"]}`),
		"garbage":   vaulttest.Answer(http.StatusOK, "<html>c4nary</html>"),
		"throttled": vaulttest.Answer(http.StatusTooManyRequests, `{"errors":[]}`, "Retry-After", "1"),
	} {
		undo := p.proxy.Fail("/v1/", -1, fault)
		time.Sleep(1500 * time.Millisecond) // past the ttl
		reads, began := len(p.proxy.Calls("/v1/"+p.kv+"/data/db")), time.Now()
		var asking sync.WaitGroup
		var mu sync.Mutex
		var slowest time.Duration
		for range 1000 {
			asking.Go(func() {
				at := time.Now()
				c := p.client()
				defer c.Close()
				v, err := c.Resolve(t.Context(), p.password())
				took := time.Since(at)
				mu.Lock()
				defer mu.Unlock()
				slowest = max(slowest, took)
				if err != nil || !v.Stale() {
					t.Errorf("%s: a client got %v", name, err)
				}
			})
		}
		asking.Wait()
		if calls, most := len(p.proxy.Calls("/v1/"+p.kv+"/data/db"))-reads, int(time.Since(began)/time.Second)+2; calls > most {
			t.Errorf("%s: %d calls to the store in %s", name, calls, time.Since(began))
		}
		if slowest > 20*time.Second {
			t.Errorf("%s: a stale answer took %s", name, slowest)
		}
		if got := p.run("get", p.password().String()); got.status != 0 || got.stdout != "first-c4nary" || !strings.Contains(got.stderr, "is used as it was, since it could not be fetched again: ") || strings.Contains(got.stderr, canary) {
			t.Errorf("%s: the command: status %d, %q", name, got.status, got.stderr)
		}
		undo()
		if t.Failed() {
			break
		}
	}
	p.put("second-c4nary")
	for end := time.Now().Add(90 * time.Second); value(t, p.client(), p.password()) != "second-c4nary"; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the new value never comes")
		}
	}
	p.end(syscall.SIGTERM)
}

// The store comes back with another value while a thousand clients wait: each gets it, of one fetch.
func TestSidecarStoreComesBack(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "", "  limits: {connections: 3000, requests: 2000}\n")
	p.start()
	release := make(chan struct{})
	undo := p.proxy.Fail("/v1/"+p.kv+"/data/db", -1, func(w http.ResponseWriter, r *http.Request, server http.Handler) {
		<-release
		server.ServeHTTP(w, r)
	})
	defer undo()
	var asking sync.WaitGroup
	for range 1000 {
		asking.Go(func() {
			c := p.client()
			defer c.Close()
			if v, err := c.Resolve(t.Context(), p.password()); err != nil || string(v.Secret().Reveal()) != "second-c4nary" {
				t.Errorf("a client got %v", err)
			}
		})
	}
	time.Sleep(time.Second)
	p.put("second-c4nary")
	close(release)
	asking.Wait()
	if n := len(p.proxy.Calls("/v1/" + p.kv + "/data/db")); n != 1 {
		t.Errorf("%d fetches", n)
	}
	p.end(syscall.SIGTERM)
}

// What is sealed on disk outlives a kill, serves while the store is away, and holds no plain text; what was revoked is not in it.
func TestSidecarSealedCopy(t *testing.T) {
	t.Parallel()
	p := newProcess(t, ", limits: {retries: 0}", "  sealed: {path: state/sealed.age, key_file: state/sealed.key}\n")
	if err := os.Mkdir(filepath.Join(p.dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.start()
	c := p.client()
	value(t, c, p.password())
	value(t, c, credref.Ref{Provider: "m", ID: "x"})
	sealed := filepath.Join(p.dir, "state", "sealed.age")
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if st, err := os.Stat(sealed); err == nil && st.Size() > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing is kept")
		}
	}
	if text, err := os.ReadFile(sealed); err != nil || bytes.Contains(text, []byte(canary)) {
		t.Errorf("the copy holds plain text, or %v", err)
	}
	p.end(syscall.SIGKILL)
	undo := p.proxy.Fail("/v1/", -1, vaulttest.Answer(http.StatusServiceUnavailable, `{"errors":["Vault is sealed"]}`))
	p.start()
	v, err := p.client().Resolve(t.Context(), p.password())
	if err != nil || !v.Stale() || string(v.Secret().Reveal()) != "first-c4nary" {
		t.Errorf("with the store away: %v", err)
	}
	_ = p.client().Revoke(t.Context(), p.password()) // Vault cannot end a value of kv, which is over here all the same
	p.end(syscall.SIGKILL)
	p.start()
	if _, err := p.client().Resolve(t.Context(), p.password()); !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("what was revoked: %v", err)
	}
	p.end(syscall.SIGTERM)
	undo()
	p.user.write("state/sealed.age", "age-encryption.org/v1\nc4nary")
	p.start()
	if !strings.Contains(p.messages.String(), "is not used") {
		t.Errorf("nothing is said of a foreign file: %s", p.messages.String())
	}
	value(t, p.client(), p.password())
	p.end(syscall.SIGTERM)
}

// Killed at any time, it leaves no answer that is not in the audit log, and its place to the next.
func TestSidecarKilledUnderLoad(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("credresolve.yaml", "version: 1\nproviders:\n  m: {kind: memory, values: {x: x-c4nary}}\n")
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"))
	p := &process{user: u}
	answered := 0
	for round := range 8 {
		p.start()
		var asking sync.WaitGroup
		var mu sync.Mutex
		ctx, cancel := context.WithCancel(t.Context())
		for range 8 {
			asking.Go(func() {
				c := p.client()
				for ctx.Err() == nil {
					if _, err := c.Resolve(ctx, credref.Ref{Provider: "m", ID: "x"}); err == nil {
						mu.Lock()
						answered++
						mu.Unlock()
					}
				}
			})
		}
		time.Sleep(time.Duration(20+37*round) * time.Millisecond)
		p.end(syscall.SIGKILL)
		cancel()
		asking.Wait()
	}
	log, err := os.ReadFile(filepath.Join(u.dir, ".local/state/credresolve/audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	reveals := 0
	for line := range strings.Lines(string(log)) {
		var l struct{ Event string }
		if json.Unmarshal([]byte(line), &l) != nil {
			continue // cut off by a kill
		}
		if l.Event == "reveal" {
			reveals++
		}
	}
	if answered == 0 || reveals < answered {
		t.Errorf("%d answers, and %d in the audit log", answered, reveals)
	}
}

// Whatever connections did, goroutines and descriptors come back to what they were, and no secret is where none belongs.
func TestSidecarLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("credresolve.yaml", "version: 1\nproviders:\n  m: {kind: memory, values: {x: x-c4nary}}\n")
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"))
	p := &process{user: u}
	p.start()
	socket := filepath.Join(u.dir, "run", "sock")
	goroutines := func() string {
		hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}}
		res, err := hc.Get("http://localhost/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		if bytes.Contains(text, []byte(canary)) {
			t.Error("a secret is in the metrics")
		}
		for line := range strings.Lines(string(text)) {
			if n, ok := strings.CutPrefix(line, "go_goroutines "); ok {
				return strings.TrimSpace(n)
			}
		}
		return ""
	}
	descriptors := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
		if err != nil {
			t.Skip("needs /proc: run it on Linux")
		}
		return len(entries)
	}
	value(t, p.client(), credref.Ref{Provider: "m", ID: "x"})
	before, files := goroutines(), descriptors()
	for i := range 600 {
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		switch i % 6 {
		case 0:
			_, _ = io.WriteString(c, "GET /v1/resolve?ref=cred%3A%2F%2Fm%2Fx HTTP/1.1\r\nHost: localhost\r\n\r\n")
		case 1:
			_, _ = io.WriteString(c, "GET /v1/res")
		case 2:
			_, _ = io.WriteString(c, "GET /v1/watch?ref=cred%3A%2F%2Fm%2Fx HTTP/1.1\r\nHost: localhost\r\n\r\n")
		case 3:
			_, _ = io.WriteString(c, "POST /v1/resolve HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
		case 4:
			_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		}
		_ = c.Close()
	}
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		now, open := goroutines(), descriptors()
		if len(now) < len(before) || len(now) == len(before) && now <= before && open <= files+1 {
			break
		}
		if time.Now().After(end) {
			t.Errorf("%s goroutines and %d descriptors, before %s and %d", now, open, before, files)
			break
		}
	}
	for _, name := range []string{"cmdline", "environ"} {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, name)); err == nil && bytes.Contains(text, []byte(canary)) {
			t.Errorf("a secret is in %s", name)
		}
	}
	p.end(syscall.SIGTERM)
	_ = filepath.WalkDir(filepath.Join(u.dir, ".local"), func(path string, _ os.DirEntry, _ error) error {
		if text, err := os.ReadFile(path); err == nil && bytes.Contains(text, []byte(canary)) {
			t.Errorf("a secret is in %s", path)
		}
		return nil
	})
}

func TestServeForACommand(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("credresolve.yaml", "version: 1\nproviders:\n  m: {kind: memory, values: {x: x-c4nary}}\n")
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"))
	if got := u.run("serve", "--for", "--", "sh", "-c", "credresolve get cred://m/x; echo; echo $CREDRESOLVE_SOCKET; exit 7"); got.status != 7 || !strings.HasPrefix(got.stdout, "x-c4nary\n") {
		t.Errorf("%+v", got)
	} else if _, err := os.Stat(strings.Fields(got.stdout)[1]); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
	if n := u.reveals(); n != 1 {
		t.Errorf("the command asked the sidecar %d times", n)
	}
	for name, args := range map[string][]string{"no command": {"serve", "--for"}, "a bad configuration": {"--config", "none.yaml", "serve", "--for", "--", "true"}} {
		if got := u.run(args...); got.status != statusNotRun || got.stderr == "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

const statusNotRun = 125
