//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/oidctest"
	"github.com/credresolve/credresolve/internal/secretservicetest"
)

// desk is a machine of a person who logs in to a provider.
type desk struct {
	t   *testing.T
	dir string
	env []string
}

// newDesk gives a machine whose configuration has that text behind the token store, an encrypted file.
func newDesk(t *testing.T, providers string) *desk {
	t.Helper()
	d := &desk{t: t, dir: t.TempDir()}
	d.write("key.password", "the-password-of-the-c4nary-file-0123456789")
	d.write("credresolve.yaml", `version: 1
logins: {store: tokens}
providers:
  tokens: {kind: keychain, backend: file, path: tokens, password: {provider: key, id: value}}
  key: {kind: file, path: key.password, mode: raw}
`+providers)
	d.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + d.dir, "CREDRESOLVE_CONFIG=" + filepath.Join(d.dir, "credresolve.yaml"),
		"XDG_STATE_HOME=" + filepath.Join(d.dir, "state"), "CREDRESOLVE_SOCKET=" + filepath.Join(d.dir, "run", "sock"), "GORACE=atexit_sleep_ms=0",
	}
	return d
}

func oauthProvider(p *oidctest.Provider, more string) string {
	return fmt.Sprintf("  gh: {kind: oauth2, issuer: %q, client_id: %s, scopes: [openid, profile, offline_access]%s}\n", p.Issuer, oidctest.Public, more)
}

func (d *desk) write(name, text string) string {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return path
}

// browser makes a program that opens the address it is given, as a person with a browser does, and notes its command line.
func (d *desk) browser() {
	d.t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		d.t.Skip("needs curl: apt-get install curl")
	}
	path := d.write("browser", "#!/bin/sh\ntr '\\0' '\\n' < /proc/$$/cmdline >> "+d.dir+"/opened\n"+
		"exec curl -sSL --cookie-jar "+d.dir+"/jar --cookie "+d.dir+"/jar -o "+d.dir+"/page \"$1\"\n")
	if err := os.Chmod(path, 0o700); err != nil {
		d.t.Fatal(err)
	}
	d.env = append(d.env, "BROWSER="+path)
}

// command is one under way.
type command struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout bytes.Buffer

	mu     sync.Mutex
	stderr bytes.Buffer
}

func (r *command) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stderr.Write(b)
}

func (r *command) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stderr.String()
}

// start runs a command whose standard input is a pipe.
func (d *desk) start(args ...string) *command {
	d.t.Helper()
	r := d.prepare(args...)
	r.begin()
	return r
}

// prepare is start of a command that is not begun yet.
func (d *desk) prepare(args ...string) *command {
	d.t.Helper()
	r := &command{t: d.t, cmd: exec.Command("credresolve", args...)}
	r.cmd.Dir, r.cmd.Env, r.cmd.Stdout, r.cmd.Stderr = d.dir, d.env, &r.stdout, r
	var err error
	if r.stdin, err = r.cmd.StdinPipe(); err != nil {
		d.t.Fatal(err)
	}
	return r
}

func (r *command) begin() {
	r.t.Helper()
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = r.cmd.Process.Kill() })
}

// expect waits for what is said, and gives the first group of the pattern.
func (r *command) expect(pattern string) string {
	r.t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if m := re.FindStringSubmatch(r.said()); m != nil {
			return m[len(m)-1]
		}
	}
	r.t.Fatalf("%q was not said, but:\n%s", pattern, r.said())
	return ""
}

func (r *command) enter(text string) {
	r.t.Helper()
	if _, err := io.WriteString(r.stdin, text); err != nil {
		r.t.Fatal(err)
	}
}

// ends waits for the exit status.
func (r *command) ends(want int) {
	r.t.Helper()
	done := make(chan struct{})
	go func() {
		_ = r.cmd.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		r.t.Fatalf("it does not end; it said:\n%s", r.said())
	}
	if got := r.cmd.ProcessState.ExitCode(); got != want {
		r.t.Fatalf("exit status %d, want %d; it said:\n%s", got, want, r.said())
	}
}

// run runs a command to its end, and gives what it answers and says.
func (d *desk) run(want int, stdin string, args ...string) (stdout, stderr string) {
	d.t.Helper()
	r := d.start(args...)
	_, _ = io.WriteString(r.stdin, stdin)
	_ = r.stdin.Close()
	r.ends(want)
	return r.stdout.String(), r.said()
}

var address = regexp.MustCompile(`(?m)^  (https?://\S+)$`)

// callback gives the address at which the browser of a person who accepts ends, without going there.
func callback(t *testing.T, said string) string {
	t.Helper()
	m := address.FindStringSubmatch(said)
	if m == nil {
		t.Fatalf("no address was said:\n%s", said)
	}
	_, at := oidctest.Browse(t, m[1], "http://127.0.0.1")
	return at
}

// The whole way of a person with a browser: login, whoami, get, explain, status, doctor, logout. What the login gave is in
// no message, no process list and no file in plain text.
func TestLoginWithABrowser(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	d := newDesk(t, oauthProvider(p, ""))
	d.browser()
	out, _ := d.run(8, "", "whoami", "gh")
	if out != "" {
		t.Errorf("whoami of nobody prints %q", out)
	}
	if _, said := d.run(8, "", "get", "cred://gh/default#access_token"); !strings.Contains(said, "credresolve login gh") {
		t.Errorf("get does not say how to log in: %s", said)
	}
	out, said := d.run(0, "", "-v", "login", "gh", "--output", "json")
	var info struct {
		Provider, ID, Status string
		Account              map[string]string
		Refreshable          bool
		KeptIn               string    `json:"kept_in"`
		ExpiresAt            time.Time `json:"expires_at"`
	}
	if err := json.Unmarshal([]byte(out), &info); err != nil || info.Status != "active" || info.Account["subject"] != oidctest.Person || !info.Refreshable || info.ExpiresAt.Before(time.Now()) || !strings.Contains(info.KeptIn, "tokens") {
		t.Errorf("login answers %s (%v)", out, err)
	}
	if !strings.Contains(said, "logged in to gh as "+oidctest.Person) {
		t.Errorf("it said %s", said)
	}
	token, _ := d.run(0, "", "get", "cred://gh/default#access_token")
	if token == "" {
		t.Fatal("no token")
	}
	var all strings.Builder
	all.WriteString(out + said)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"whoami"}, `(?m)^gh +default +id1 +active`},
		{[]string{"whoami", "gh"}, `(?m)^subject +id1$`},
		{[]string{"whoami", "--output", "json"}, `"status": "active"`},
		{[]string{"explain", "cred://gh/default"}, `(?m)^  login +gh is logged in as id1 until .*; kept in provider tokens`},
		{[]string{"explain", "--resolve", "--output", "json", "cred://gh/default"}, `"next_refresh"`},
		{[]string{"doctor"}, `(?m)^  login +ok: gh is logged in as id1`},
		{[]string{"-v", "doctor", "--output", "json", "gh"}, `"ok": true`},
		{[]string{"__complete", "logout", "gh", ""}, `(?m)^default$`},
		{[]string{"__complete", "login", ""}, `(?m)^gh$`},
	} {
		out, said := d.run(0, "", c.args...)
		all.WriteString(out + said)
		if !regexp.MustCompile(c.want).MatchString(out) {
			t.Errorf("%v prints %s (%s), want %s", c.args, out, said, c.want)
		}
	}
	out, said = d.run(6, "", "status")
	if !regexp.MustCompile(`(?m)^gh +default +id1 +active`).MatchString(out) || !strings.Contains(said, "no sidecar listens") {
		t.Errorf("status prints %s (%s)", out, said)
	}
	// The URL has neither the code nor the verifier; nothing else is in the command line of the browser.
	opened, err := os.ReadFile(filepath.Join(d.dir, "opened"))
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Split(strings.TrimSpace(string(opened)), "\n")
	u, err := url.Parse(words[len(words)-1])
	if err != nil || len(words) != 3 || u.Query().Get("code_challenge") == "" || u.Query().Has("code") || u.Query().Has("code_verifier") {
		t.Errorf("the browser was started with %q", words)
	}
	if page, err := os.ReadFile(filepath.Join(d.dir, "page")); err != nil || !strings.Contains(string(page), "You are logged in") {
		t.Errorf("the browser shows %s %v", page, err)
	}
	if strings.Contains(all.String(), token) || strings.Contains(all.String(), "code_verifier") {
		t.Error("a token or verifier was said")
	}
	err = filepath.WalkDir(d.dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte(token)) {
			t.Errorf("%s holds the token", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// Again: it is said who was logged in, and replaced.
	if _, said := d.run(0, "", "login", "gh"); !strings.Contains(said, "gh is logged in as id1") || !strings.Contains(said, "the new login replaces that") {
		t.Errorf("a second login said %s", said)
	}
	out, said = d.run(0, "", "logout", "gh", "--output", "json")
	if !strings.Contains(out, `"revoked": true`) || !strings.Contains(said, "ended at the store") {
		t.Errorf("logout: %s %s", out, said)
	}
	if _, said = d.run(0, "", "logout", "gh"); !strings.Contains(said, "nobody is logged in") {
		t.Errorf("a second logout said %s", said)
	}
	d.run(8, "", "get", "cred://gh/default#access_token")
	if out, _ := d.run(0, "", "whoami", "--output", "json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("whoami prints %s", out)
	}
	if out, _ = d.run(8, "", "doctor", "gh"); !regexp.MustCompile(`login +failed auth_required: nobody has logged in\n +→ credresolve login gh`).MatchString(out) {
		t.Errorf("doctor prints %s", out)
	}
}

// Where the browser is elsewhere, the address at which it ends is pasted. What is no such address is said, and what was
// meant for another login is refused.
func TestLoginWithAPastedAddress(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	for name, args := range map[string][]string{"no browser": {"--no-browser"}, "ssh": nil, "no browser is found": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t, oauthProvider(p, ""))
			if name == "ssh" {
				d.env = append(d.env, "SSH_CONNECTION=192.0.2.1 1 192.0.2.2 22")
			}
			r := d.start(append([]string{"login", "gh", "work"}, args...)...)
			r.expect(`(?m)^  http`)
			if name == "ssh" {
				r.expect("--device may be easier")
			}
			at := callback(t, r.said())
			r.enter(at + "\n")
			r.ends(0)
			if code := regexp.MustCompile(`code=([^&]+)`).FindStringSubmatch(at); code == nil || strings.Contains(r.said(), code[1]) {
				t.Errorf("the code was said: %s", r.said())
			}
			d.run(0, "", "get", "cred://gh/work#access_token")
		})
	}
	for name, c := range map[string]struct {
		paste  func(string) string
		status int
		want   string
	}{
		"no address": {func(string) string { return "hello\n" }, 2, "paste the whole address"},
		"another login's": {func(at string) string {
			return regexp.MustCompile(`state=[^&]*`).ReplaceAllString(at, "state=x") + "\n"
		}, 4, "belongs to another login"},
		"the end": {func(string) string { return "" }, 2, "nothing was stored"},
		"refused by the person": {func(at string) string {
			return regexp.MustCompile(`code=[^&]*`).ReplaceAllString(at, "error=access_denied") + "\n"
		}, 4, "access_denied"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t, oauthProvider(p, ""))
			r := d.start("login", "--no-browser", "gh")
			r.expect(`(?m)^  http`)
			r.enter(c.paste(callback(t, r.said())))
			_ = r.stdin.Close()
			r.ends(c.status)
			if !strings.Contains(r.said(), c.want) {
				t.Errorf("it said %s", r.said())
			}
			d.run(8, "", "whoami", "gh")
		})
	}
}

// On a terminal a wrong address is asked for again, and ^C ends the login with nothing stored.
func TestLoginOnATerminal(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	d := newDesk(t, oauthProvider(p, ""))
	s := startOnTerminal(t, d.dir, d.env, "credresolve", "login", "--no-browser", "gh")
	s.expect(`the address at which the browser ended: `)
	at := callback(t, strings.ReplaceAll(s.text(), "\r\n", "\n"))
	s.enter("hello\r")
	s.expect(`paste the whole address(?s:.)*ended: `)
	s.enter(at + "&pad=" + strings.Repeat("x", 10000) + "\r") // longer than a line that the terminal itself collects
	s.expect(`logged in to gh as id1`)
	s.wantStatus(0)
	d.run(0, "", "logout", "gh")

	s = startOnTerminal(t, d.dir, d.env, "credresolve", "login", "--no-browser", "gh")
	s.expect(`the address at which the browser ended: `)
	s.enter("\x03")
	s.wantStatus(130)
	if !echoes(t, s.tty) {
		t.Error("the terminal does not show what is typed any more")
	}
	d.run(8, "", "whoami", "gh")

	// The terminal goes away.
	s = startOnTerminal(t, d.dir, d.env, "credresolve", "login", "--no-browser", "gh")
	s.expect(`the address at which the browser ended: `)
	if err := syscall.Kill(s.cmd.Process.Pid, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.wantStatus(129)
	d.run(8, "", "whoami", "gh")
}

// A device's code: shown with its page, accepted or refused elsewhere.
func TestLoginWithADevice(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	for name, c := range map[string]struct {
		settle func(context.Context, string) error
		status int
		want   string
	}{
		"accepted": {p.Approve, 0, "logged in to gh as id1"},
		"refused":  {p.Deny, 4, "access_denied"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t, oauthProvider(p, ""))
			d.browser()
			r := d.start("login", "--device", "gh")
			code := r.expect(`enter the code (\S+)`)
			r.expect(`(?m)^  http`)
			if err := c.settle(t.Context(), code); err != nil {
				t.Fatal(err)
			}
			r.ends(c.status)
			if !strings.Contains(r.said(), c.want) {
				t.Errorf("it said %s", r.said())
			}
			if _, err := os.Stat(filepath.Join(d.dir, "opened")); err == nil {
				t.Error("a browser was opened")
			}
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t, oauthProvider(p, ""))
		r := d.start("login", "--device", "gh")
		code := r.expect(`enter the code (\S+)`)
		if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		r.ends(130)
		if err := p.Approve(t.Context(), code); err != nil {
			t.Fatal(err)
		}
		d.run(8, "", "whoami", "gh")
	})
	t.Run("not in time", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t, oauthProvider(p, ", login_timeout: 1s"))
		if _, said := d.run(9, "", "login", "--device", "gh"); !strings.Contains(said, "not finished in time; nothing was stored") {
			t.Errorf("it said %s", said)
		}
		if _, said := d.run(11, "", "--timeout", "300ms", "login", "--device", "gh"); !strings.Contains(said, "not done within") {
			t.Errorf("it said %s", said)
		}
	})
}

// What a person can get wrong has one clear answer each.
func TestLoginMistakes(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	d := newDesk(t, oauthProvider(p, "")+"  app: {kind: memory}\n")
	for _, c := range []struct {
		status int
		want   string
		args   []string
	}{
		{2, `unknown provider "gj"; did you mean "gh"?`, []string{"login", "gj"}},
		{5, "app: nobody logs in to this provider of kind memory", []string{"login", "app"}},
		{5, "app: nobody logs in to this provider of kind memory", []string{"logout", "app"}},
		{2, "the name of a provider must match", []string{"login", "C4NARY"}},
		{2, "takes a provider and perhaps an id", []string{"login"}},
		{2, "--device and --no-browser exclude each other", []string{"login", "--device", "--no-browser", "gh"}},
		{2, "name one, or use --all", []string{"logout"}},
		{2, "--all stands without an id", []string{"logout", "--all", "gh", "x"}},
		{2, `unknown provider "gj"; did you mean "gh"?`, []string{"doctor", "gj"}},
		{2, "no such consumer", []string{"explain", "--consumer", "nobody", "cred://app/x"}},
		{2, `unknown provider "gj"`, []string{"explain", "cred://gj/x"}},
		{8, "gh: nobody is logged in; log in: credresolve login gh work", []string{"whoami", "gh", "work"}},
	} {
		if out, said := d.run(c.status, "", c.args...); !strings.Contains(said, c.want) || out != "" || strings.Contains(said, "C4NARY") {
			t.Errorf("%v: %q, said %s", c.args, out, said)
		}
	}
	if _, said := d.run(0, "", "logout", "--all"); !strings.Contains(said, "nobody is logged in") {
		t.Errorf("logout of all said %s", said)
	}
	// A server that is away, and one that leads elsewhere.
	away := newDesk(t, `  gh: {kind: oauth2, issuer: "http://127.0.0.1:1", client_id: x}`+"\n")
	if _, said := away.run(6, "", "login", "gh"); !strings.Contains(said, "gh: 127.0.0.1:1") {
		t.Errorf("a server that is away: %s", said)
	}
	brief := newDesk(t, "")
	brief.write("credresolve.yaml", "version: 1\nlogins: {store: m}\nproviders:\n  m: {kind: memory}\n"+oauthProvider(p, ""))
	if _, said := brief.run(2, "", "login", "gh"); !strings.Contains(said, "nothing would be kept") || address.MatchString(said) {
		t.Errorf("a store that ends with the command: %s", said)
	}
	odd := newDesk(t, `  gh: {kind: oauth2, endpoints: {authorization: "https://login.example/a", token: "https://login.example/t"}, client_id: x}`+"\n")
	odd.env = append(odd.env, "BROWSER=/nonexistent")
	if _, said := odd.run(2, "", "login", "--no-browser", "gh"); !strings.Contains(said, "https://login.example/a?") {
		t.Errorf("without discovery: %s", said)
	}
}

// Who adds providers at the same time loses none.
func TestProvidersAddedTogether(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "")
	var all []*command
	for i := range 8 {
		all = append(all, d.start("provider", "add", fmt.Sprintf("g%d", i), "--template", "github", "--client-id", "x"))
	}
	for _, r := range all {
		r.ends(0)
	}
	text, err := os.ReadFile(filepath.Join(d.dir, "credresolve.yaml"))
	if n := strings.Count(string(text), "kind: oauth2"); err != nil || n != len(all) {
		t.Errorf("%d providers of %d are there: %v", n, len(all), err)
	}
}

// A state directory that cannot be used hides no login: what needs it says so.
func TestLoginsOfAStateDirectoryThatIsRefused(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	d := newDesk(t, oauthProvider(p, "")+"  form: {kind: static, fields: [{name: key}]}\n")
	d.run(0, "k-c4nary", "login", "form")
	state := filepath.Join(d.dir, "state", "credresolve")
	if err := os.Chmod(state, 0o770); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"whoami"}, {"whoami", "--output", "json"}, {"logout", "--all"}, {"logout", "--all", "form"}} {
		if out, said := d.run(2, "", args...); out != "" || !strings.Contains(said, "the list of logins cannot be read") || !strings.Contains(said, "chmod 700 "+state) {
			t.Errorf("%v: %q, said %s", args, out, said)
		}
	}
	if _, said := d.run(2, "", "login", "gh"); !strings.Contains(said, "no lock by which processes refresh a login once") || address.MatchString(said) {
		t.Errorf("a login that would be refreshed: %s", said)
	}
	if out, _ := d.run(2, "", "doctor", "form"); strings.Contains(out, "nobody has logged in") {
		t.Errorf("doctor prints %s", out)
	}
	if out, _ := d.run(0, "", "explain", "cred://form/default"); !strings.Contains(out, "unknown: the list of logins cannot be read") {
		t.Errorf("explain prints %s", out)
	}
	if got, _ := d.run(0, "", "get", "cred://form/default"); got != "k-c4nary" { // it keeps nobody from a key
		t.Errorf("get prints %q", got)
	}
	if err := os.Chmod(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, _ := d.run(0, "", "whoami"); !strings.Contains(out, "form") {
		t.Errorf("whoami prints %s", out)
	}
	// Nor does an entry of the list that nobody can read, or a list that is none.
	damaged := d.write("state/credresolve/logins/damaged.json", "{")
	if _, said := d.run(1, "", "logout", "--all"); !strings.Contains(said, "a login is not ended: "+damaged) || !strings.Contains(said, "logged out of form") {
		t.Errorf("logout of all with a damaged entry said %s", said)
	}
	if err := os.RemoveAll(filepath.Join(state, "logins")); err != nil {
		t.Fatal(err)
	}
	d.write("state/credresolve/logins", "")
	if _, said := d.run(2, "", "whoami"); !strings.Contains(said, "it is no directory") {
		t.Errorf("a list that is none: %s", said)
	}
}

// Without a keychain, and with one that is locked, nobody is sent to a browser in vain.
func TestLoginNeedsATokenStore(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t, oauthProvider(p, ""))
		d.write("credresolve.yaml", "version: 1\nproviders:\n"+oauthProvider(p, ""))
		d.env = append(d.env, "DBUS_SESSION_BUS_ADDRESS=unix:path=/nonexistent", "PASSWORD_STORE_DIR="+d.dir+"/none")
		_, said := d.run(6, "", "login", "gh")
		if !strings.Contains(said, "logins.store") || address.MatchString(said) {
			t.Errorf("it said %s", said)
		}
		if out, _ := d.run(6, "", "doctor", "--allow-exec"); !regexp.MustCompile(`token store\n  reach +failed unavailable: .*\n +→ set logins.store`).MatchString(out) {
			t.Errorf("doctor prints %s", out)
		}
	})
	t.Run("locked", func(t *testing.T) {
		t.Parallel()
		keyring := secretservicetest.Start(t)
		d := newDesk(t, oauthProvider(p, ""))
		d.write("credresolve.yaml", "version: 1\nlogins: {store: tokens}\nproviders:\n  tokens: {kind: keychain, backend: secret-service}\n"+oauthProvider(p, ""))
		for _, kv := range keyring.Env() {
			if strings.HasPrefix(kv, "DBUS_") {
				d.env = append(d.env, kv)
			}
		}
		d.browser()
		d.run(0, "", "login", "gh")
		token, _ := d.run(0, "", "get", "cred://gh/default#access_token")
		keyring.Lock(t)
		for _, args := range [][]string{{"login", "gh"}, {"logout", "gh"}, {"whoami", "gh"}, {"get", "cred://gh/default#access_token"}} {
			if _, said := d.run(7, "", args...); strings.Contains(said, token) || !strings.Contains(said, "locked") {
				t.Errorf("%v said %s", args, said)
			}
		}
		// The index is no secret and needs no keychain.
		if out, _ := d.run(0, "", "whoami"); !strings.Contains(out, "active") {
			t.Errorf("whoami prints %s", out)
		}
		if out, _ := d.run(7, "", "doctor"); !strings.Contains(out, "failed locked") {
			t.Errorf("doctor prints %s", out)
		}
		if n := keyring.Prompts(t); n != 0 {
			t.Errorf("%d prompts were made", n)
		}
		keyring.Unlock(t)
		if again, _ := d.run(0, "", "get", "cred://gh/default#access_token"); again != token {
			t.Error("the login was lost")
		}
	})
}

// The sidecar has what a login or logout beside it has changed.
func TestLoginTellsTheSidecar(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	d := newDesk(t, oauthProvider(p, ""))
	d.browser()
	serve := d.serve()
	get := []string{"-v", "get", "cred://gh/default#access_token"}
	d.run(8, "", get...)
	d.run(0, "", "login", "gh")
	first, said := d.run(0, "", get...)
	if !strings.Contains(said, "the sidecar is asked") {
		t.Errorf("the sidecar is not asked: %s", said)
	}
	out, _ := d.run(0, "", "explain", "cred://gh/default")
	if !strings.Contains(out, "the sidecar of this user") || !strings.Contains(out, "next refresh in") || strings.Contains(out, first) {
		t.Errorf("explain prints %s", out)
	}
	d.run(0, "", "login", "gh")
	second, _ := d.run(0, "", get...)
	if second == first {
		t.Error("the sidecar gives the token of the login before")
	}
	if out, _ := d.run(0, "", "status"); !strings.Contains(out, "gh        default  id1") || !strings.Contains(out, "secrets cached") {
		t.Errorf("status prints %s", out)
	}
	if out, _ := d.run(0, "", "doctor", "gh"); !strings.Contains(out, "all is well") {
		t.Errorf("doctor prints %s", out)
	}
	d.run(0, "", "logout", "gh")
	d.run(8, "", get...)
	_ = serve.cmd.Process.Signal(os.Interrupt)
	serve.ends(0)
	for _, token := range []string{first, second} {
		if strings.Contains(serve.said(), token) {
			t.Error("the sidecar said a token")
		}
	}
}

// serve starts the sidecar, and waits until it is ready.
func (d *desk) serve() *command {
	d.t.Helper()
	serve := d.start("serve")
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		probe := exec.Command("credresolve", "status")
		probe.Dir, probe.Env = d.dir, d.env
		if probe.Run() == nil {
			return serve
		}
		if time.Now().After(deadline) {
			d.t.Fatal(serve.said())
		}
	}
}

// What subjects of the sidecar logged in to is ended with all else, and is not taken for a login of one's own.
func TestLogoutOfSubjects(t *testing.T) {
	t.Parallel()
	d := newDesk(t, `  tool: {kind: static, scope: [plugin], fields: [{name: key}]}
  bank: {kind: static, scope: [end_user], id_template: "of/{end_user}/{id}", fields: [{name: key}]}
`)
	serve := d.serve()
	ctx := t.Context()
	connect := func(token string) *client.Client {
		conf := client.Config{Socket: filepath.Join(d.dir, "run", "sock")}
		if token != "" {
			conf.Token = backend.Literal(backend.NewSecretString(token))
		}
		c, err := client.New(conf)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	owner := connect("")
	logIn := func(provider string, subject client.Subject) *client.Client {
		one, err := owner.StartSession(ctx, client.SessionRequest{Consumer: "host", Allow: []string{"cred://" + provider + "/default"}, Login: true, Subject: &subject})
		if err != nil {
			t.Fatal(err)
		}
		c := connect(one.Token)
		st, err := c.StartLogin(ctx, client.LoginRequest{Provider: provider, ID: "default"})
		if err == nil {
			st, err = c.SubmitLogin(ctx, st.State, map[string]backend.Secret{"key": backend.NewSecretString("key-c4nary")})
		}
		if err != nil || st.Status != "success" {
			t.Fatalf("the login of %+v: %+v, %v", subject, st, err)
		}
		return c
	}
	uses := func(c *client.Client, provider string) error {
		_, err := c.Resolve(ctx, credref.Ref{Provider: provider, ID: "default"})
		return err
	}
	mail, notes := logIn("tool", client.Subject{Plugin: "mail"}), logIn("tool", client.Subject{Plugin: "notes"})
	ann := logIn("bank", client.Subject{EndUser: "ann"})
	for c, provider := range map[*client.Client]string{mail: "tool", notes: "tool", ann: "bank"} {
		if err := uses(c, provider); err != nil {
			t.Fatal(err)
		}
	}

	for provider, want := range map[string]string{"tool": "not one of yours, but of 2 subjects", "bank": "a login for each subject"} {
		_, said := d.run(5, "", "logout", provider)
		if !strings.Contains(said, want) || !strings.Contains(said, "credresolve logout --all "+provider+" ends") {
			t.Errorf("logout %s said %s", provider, said)
		}
	}
	if _, err := mail.Logout(ctx, credref.Ref{Provider: "tool", ID: "default"}); err != nil { // with its own token
		t.Error(err)
	}
	if err := uses(mail, "tool"); !errors.Is(err, backend.ErrAuthRequired) {
		t.Errorf("the plugin that logged out: %v", err)
	}
	if err := uses(notes, "tool"); err != nil {
		t.Errorf("the other plugin: %v", err)
	}

	out, said := d.run(0, "", "logout", "--all", "--output", "json")
	if !strings.Contains(said, "logged out of tool of plugin=notes") || !strings.Contains(said, "of end_user=ann") || strings.Count(out, `"was_logged_in": true`) != 2 ||
		!strings.Contains(out, `"plugin": "notes"`) || strings.Contains(out+said, canary) {
		t.Errorf("logout of all: %s %s", out, said)
	}
	for c, provider := range map[*client.Client]string{notes: "tool", ann: "bank"} {
		if err := uses(c, provider); !errors.Is(err, backend.ErrAuthRequired) {
			t.Errorf("%s after it: %v", provider, err)
		}
	}
	if out, _ := d.run(0, "", "whoami", "--output", "json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("left is %s", out)
	}
	_ = serve.cmd.Process.Signal(os.Interrupt)
	serve.ends(0)
}

// doctor starts no program and asks nobody, unless it is allowed to.
func TestDoctorStartsNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t, `  corp: {kind: exec, command: ./corp}
  app: {kind: vault, address: "http://127.0.0.1:1", auth: {token: {provider: corp, id: x}}}
`)
	path := d.write("corp", "#!/bin/sh\ncat > /dev/null\ntouch "+d.dir+"/started\necho '{\"protocolVersion\": 1, \"values\": {\"x\": \"token-c4nary\"}}'\n")
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	d.write("credresolve.yaml", strings.ReplaceAll(readFile(t, filepath.Join(d.dir, "credresolve.yaml")), "./corp", path))
	out, _ := d.run(0, "", "doctor")
	if !regexp.MustCompile(`app \(vault\)\n  reach +skipped: it starts .*/corp, for cred://corp/x\n +→ let it: credresolve doctor --allow-exec app`).MatchString(out) ||
		!regexp.MustCompile(`corp \(exec\)\n  reach +skipped: it starts `).MatchString(out) {
		t.Errorf("doctor prints %s", out)
	}
	if _, err := os.Stat(filepath.Join(d.dir, "started")); err == nil {
		t.Error("the program was started")
	}
	out, said := d.run(6, "", "-v", "doctor", "--allow-exec", "app")
	if !regexp.MustCompile(`app \(vault\)\n  reach +failed unavailable: `).MatchString(out) || strings.Contains(out+said, "c4nary") {
		t.Errorf("doctor prints %s %s", out, said)
	}
	if _, err := os.Stat(filepath.Join(d.dir, "started")); err != nil {
		t.Error("the program was not started, though it was allowed")
	}
	// The tree of the chain.
	out, _ = d.run(0, "", "explain", "cred://app/kv/x")
	if !regexp.MustCompile(`(?s)^cred://app/kv/x\n│ provider  app \(vault\).*\n└─ cred://corp/x\n     provider  corp \(exec\).*reaches   executable `).MatchString(out) {
		t.Errorf("explain prints %s", out)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
