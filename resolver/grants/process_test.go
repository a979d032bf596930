package grants_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/credresolve/credresolve/adapters/keychain"
	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/adapters/vault"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/oidctest"
	"github.com/credresolve/credresolve/internal/vaulttest"
	"github.com/credresolve/credresolve/resolver/grants"
)

const childVariable = "CREDRESOLVE_TEST_GRANTS_CHILD"

func TestMain(m *testing.M) {
	if text := os.Getenv(childVariable); text != "" {
		os.Exit(child(text))
	}
	goleak.VerifyTestMain(m)
}

// setup is what a process needs to share logins with others.
type setup struct {
	Issuer   string
	StateDir string
	Files    string // the directory of the encrypted files that are the token store; empty: Vault is
	Vault    string
	Token    string
	Mount    string
	Kill     int // the write at whose beginning the process kills itself; zero: none
}

// result is what a process tells.
type result struct {
	Sum  string // of the token
	Code backend.Code
	Text string // of the error
}

func (s setup) open() *grants.Backend {
	b, err := oauth2.New(oauth2.Config{Issuer: s.Issuer, ClientID: oidctest.Public, Scopes: []string{"openid", "offline_access", "profile"}}, backend.Host{})
	if err != nil {
		panic(err)
	}
	return grants.NewStore(grants.Config{Open: s.openStore, Prefix: s.prefix(), StateDir: s.StateDir, ManyHosts: s.Files == ""}).Keep("desk", b)
}

func (s setup) prefix() string {
	if s.Mount != "" {
		return s.Mount + "/credresolve"
	}
	return "credresolve"
}

func (s setup) openStore() (backend.Backend, error) {
	noEnv := func(string) (string, bool) { return "", false }
	var w backend.Writer
	var err error
	if s.Files != "" {
		w, err = keychain.New(keychain.Config{Backend: "file", Path: s.Files, Password: backend.Literal(backend.NewSecretString("passw0rd"))},
			backend.Host{StateDir: s.StateDir, LookupEnv: noEnv})
	} else {
		w, err = vault.New(vault.Config{Address: s.Vault, Auth: vault.Auth{Token: backend.Literal(backend.NewSecretString(s.Token))}},
			backend.Host{Dir: s.StateDir, LookupEnv: noEnv})
	}
	if s.Kill > 0 && err == nil {
		w = &deadly{Writer: w, at: int64(s.Kill)}
	}
	return w, err
}

// deadly kills its process at the beginning of a write.
type deadly struct {
	backend.Writer
	at int64
	n  atomic.Int64
}

func (d *deadly) Put(ctx context.Context, req backend.Request, v backend.Value, cond backend.Condition) (string, error) {
	if d.n.Add(1) == d.at {
		self, err := os.FindProcess(os.Getpid())
		if err != nil {
			panic(err)
		}
		_ = self.Kill()
		select {}
	}
	return d.Writer.Put(ctx, req, v, cond)
}

// child waits until stdin ends, asks for the token, and tells how that went.
func child(text string) int {
	var s setup
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return 2
	}
	b := s.open()
	os.Stdout.WriteString("ready\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var out result
	c, err := b.Get(ctx, me)
	if err != nil {
		out.Code, out.Text = backend.CodeOf(err), err.Error()
	} else {
		out.Sum = sum(c)
	}
	_ = b.Close()
	_ = json.NewEncoder(os.Stdout).Encode(out)
	return 0
}

func sum(c *backend.Credential) string {
	h := sha256.Sum256(c.Secret.Reveal())
	return hex.EncodeToString(h[:])
}

// run runs n processes that all ask for the token at the same moment, and gives what they told; a killed one tells nothing.
func (s setup) run(t *testing.T, n int, each func(i int, s *setup)) []result {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	start, release, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer start.Close()
	defer release.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	results := make([]result, n)
	var ready, done sync.WaitGroup
	for i := range n {
		s := s
		if each != nil {
			each(i, &s)
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(ctx, self)
		cmd.Env = []string{childVariable + "=" + string(text), "GOMAXPROCS=1"}
		cmd.Stdin = start
		var complaint bytes.Buffer
		cmd.Stderr = &complaint
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ready.Add(1)
		done.Go(func() {
			in := bufio.NewReader(out)
			if line, err := in.ReadString('\n'); line != "ready\n" {
				t.Errorf("process %d: %q %v %s", i, line, err, &complaint)
			}
			ready.Done()
			_ = json.NewDecoder(in).Decode(&results[i])
			_ = cmd.Wait()
		})
	}
	ready.Wait()
	release.Close() // now
	done.Wait()
	return results
}

// holds fails the test if a file below dir holds one of the texts.
func holds(t testing.TB, dir string, texts ...string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		for _, text := range texts {
			if bytes.Contains(content, []byte(text)) {
				t.Errorf("%s holds a secret", path)
			}
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// alter puts text in the place of each match of pattern in what w keeps of me.
func alter(t testing.TB, w backend.Writer, prefix, pattern, text string) {
	t.Helper()
	at := backend.Request{ID: prefix + "/desk/me"}
	c, err := w.Get(context.Background(), at)
	if err != nil {
		t.Fatal(err)
	}
	kept := c.Secret
	if kept.IsZero() { // a store of fields alone
		kept = c.Fields["value"]
	}
	old := string(kept.Reveal())
	altered := regexp.MustCompile(pattern).ReplaceAllString(old, text)
	if altered == old {
		t.Fatal("the document has another form than this test knows")
	}
	if _, err := w.Put(context.Background(), at, backend.Value{Secret: backend.NewSecretString(altered)}, backend.Condition{}); err != nil {
		t.Fatal(err)
	}
}

// over ends the access token that is kept, so that its successor is due.
func over(t testing.TB, w backend.Writer, prefix string) {
	t.Helper()
	alter(t, w, prefix, `"expires":"[^"]*"`, `"expires":"`+time.Now().Add(-time.Second).UTC().Format(time.RFC3339)+`"`)
}

// due makes the successor of what is kept due, and gives how many exchanges there were.
func (s setup) due(t testing.TB, p *oidctest.Provider) int {
	t.Helper()
	w, err := s.openStore()
	if err != nil {
		t.Fatal(err)
	}
	defer w.(io.Closer).Close()
	over(t, w.(backend.Writer), s.prefix())
	return p.Calls("/oauth/token")
}

// shared gives what processes of one host need to share the login of me, and who is logged in.
func shared(t *testing.T) (s setup, p *oidctest.Provider, b *grants.Backend) {
	p = oidctest.Start(t, oidctest.Options{})
	s = setup{Issuer: p.Issuer, StateDir: t.TempDir() + "/state", Files: t.TempDir()}
	return s, p, s.enter(t)
}

// enter gives a process in which somebody logged in as me.
func (s setup) enter(t *testing.T) *grants.Backend {
	t.Helper()
	b := s.open()
	t.Cleanup(func() { _ = b.Close() })
	logIn(t, b, me)
	return b
}

// killed runs a process that kills itself at the n-th write.
func (s setup) killed(t *testing.T, n int) {
	t.Helper()
	s.Kill = n
	if r := s.run(t, 1, nil); r[0] != (result{}) {
		t.Fatalf("it was not killed: %+v", r)
	}
}

func TestManyGoroutinesSpendATokenOnce(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	w := vessel(t)
	b := open(t, w, desk(t, p), grants.Config{})
	logIn(t, b, me)
	old := token(t, b, me)
	for range 3 {
		over(t, w, "credresolve")
		before := p.Calls("/oauth/token")
		tokens := make([]string, 1000)
		var wg sync.WaitGroup
		for i := range tokens {
			wg.Go(func() {
				c, err := b.Get(context.Background(), me)
				if err != nil {
					t.Error(err)
					return
				}
				tokens[i] = sum(c)
			})
		}
		wg.Wait()
		if n := p.Calls("/oauth/token") - before; n != 1 {
			t.Errorf("%d exchanges, want one", n)
		}
		for _, got := range tokens {
			if got != tokens[0] {
				t.Fatal("they got different tokens")
			}
		}
		if now := token(t, b, me); now == old {
			t.Error("the token is the old one")
		} else {
			old = now
		}
	}
}

func TestManyProcessesSpendATokenOnce(t *testing.T) {
	n := 200
	if testing.Short() {
		n = 20
	}
	s, p, b := shared(t)
	first := token(t, b, me)
	before := s.due(t, p)
	results := s.run(t, n, nil)
	if n := p.Calls("/oauth/token") - before; n != 1 {
		t.Errorf("%d exchanges, want one", n)
	}
	c, err := b.Get(t.Context(), me)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.Sum != sum(c) {
			t.Errorf("process %d: %+v, want the token that is kept", i, r)
		}
	}
	second := token(t, b, me)
	if second == first {
		t.Error("the token is the old one")
	}
	for _, dir := range []string{s.StateDir, s.Files} {
		holds(t, dir, first, second, first[:16], second[:16], "passw0rd")
	}
}

// A process that is killed between the exchange and the write leaves a spent token. That is noticed, tried once, and told.
func TestKilledBeforeTheWrite(t *testing.T) {
	t.Parallel()
	s, p, b := shared(t)
	before := s.due(t, p)
	s.killed(t, 2) // the first write says that the exchange begins
	if n := p.Calls("/oauth/token") - before; n != 1 {
		t.Fatalf("%d exchanges before it was killed", n)
	}
	logins, err := grants.NewStore(grants.Config{StateDir: s.StateDir}).Logins()
	if err != nil || len(logins) != 1 || logins[0].Status != grants.StatusInterrupted || !strings.Contains(logins[0].Reason, "ended while it refreshed") {
		t.Errorf("%+v %v", logins, err)
	}
	if e, err := b.Status(t.Context(), me); err != nil || e.Status != grants.StatusInterrupted {
		t.Errorf("%+v %v", e, err)
	}
	for range 5 {
		_, err = b.Get(t.Context(), me)
		fails(t, err, backend.ErrAuthRequired, "invalid_grant", "was interrupted before its outcome could be kept", "run: credresolve login desk me")
	}
	if n := p.Calls("/oauth/token") - before; n != 2 {
		t.Errorf("%d exchanges in all, want that of the killed process and one more", n)
	}
	if e, err := b.Status(t.Context(), me); err != nil || e.Status != grants.StatusInterrupted || !strings.Contains(e.Reason, "interrupted") {
		t.Errorf("%+v %v", e, err)
	}
	logIn(t, b, me)
	if e, err := b.Status(t.Context(), me); err != nil || e.Status != grants.StatusActive || e.Reason != "" {
		t.Errorf("%+v %v", e, err)
	}
	token(t, b, me)
}

// A process that is killed in the one more exchange too ends that: there is no loop of processes that are killed.
func TestKilledTwice(t *testing.T) {
	t.Parallel()
	s, p, b := shared(t)
	before := s.due(t, p)
	for range 2 {
		s.killed(t, 2)
	}
	for range 3 {
		_, err := b.Get(t.Context(), me)
		fails(t, err, backend.ErrAuthRequired, "two refreshes of the login of desk/me were interrupted", "run: credresolve login desk me")
	}
	killed := s
	killed.Kill = 2
	if r := killed.run(t, 3, nil); r[0].Code != backend.CodeAuthRequired || r[1].Code != backend.CodeAuthRequired || r[2].Code != backend.CodeAuthRequired {
		t.Errorf("%+v", r)
	}
	if n := p.Calls("/oauth/token") - before; n != 2 {
		t.Errorf("%d exchanges, want two", n)
	}
	if e, err := b.Status(t.Context(), me); err != nil || e.Status != grants.StatusInterrupted {
		t.Errorf("%+v %v", e, err)
	}
}

// Before the exchange nothing is lost by a kill.
func TestKilledBeforeTheExchange(t *testing.T) {
	t.Parallel()
	s, p, b := shared(t)
	before := s.due(t, p)
	killed := s
	killed.Kill = 1
	killed.run(t, 3, nil)
	if n := p.Calls("/oauth/token") - before; n != 0 {
		t.Errorf("%d exchanges", n)
	}
	token(t, b, me)
	if n := p.Calls("/oauth/token") - before; n != 1 {
		t.Errorf("%d exchanges, want one", n)
	}
}

// onVault gives what a host needs that shares nothing but Vault, by the policy that docs/token-store.md names.
func onVault(t *testing.T, v *vaulttest.Server, p *oidctest.Provider) setup {
	mount := v.Mount(t, "kv", map[string]string{"version": "2"})
	policy := v.Policy(t, strings.ReplaceAll(`
		path "MOUNT/data/credresolve/*" { capabilities = ["read", "create", "update"] }
		path "MOUNT/metadata/credresolve/*" { capabilities = ["read"] }
		path "MOUNT/delete/credresolve/*" { capabilities = ["update"] }`, "MOUNT", mount))
	return setup{
		Issuer: p.Issuer, StateDir: t.TempDir() + "/state", Vault: v.Addr, Mount: mount,
		Token: v.NewToken(t, map[string]any{"policies": []string{"default", policy}}),
	}
}

// Hosts that share nothing but Vault spend a token once.
func TestManyHostsSpendATokenOnce(t *testing.T) {
	v := vaulttest.Start(t)
	p := oidctest.Start(t, oidctest.Options{})
	s := onVault(t, v, p)
	b := s.enter(t)
	before := s.due(t, p)
	hosts := []string{t.TempDir() + "/a", t.TempDir() + "/b", s.StateDir}
	results := s.run(t, 24, func(i int, s *setup) { s.StateDir = hosts[i%len(hosts)] })
	if n := p.Calls("/oauth/token") - before; n != 1 {
		t.Errorf("%d exchanges, want one", n)
	}
	c, err := b.Get(t.Context(), me)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.Sum != sum(c) {
			t.Errorf("process %d: %+v, want the token that is kept", i, r)
		}
	}
	for _, dir := range hosts {
		holds(t, dir, token(t, b, me), s.Token)
	}
	if _, err := b.Logout(t.Context(), me); err != nil {
		t.Error(err)
	}
	_, err = b.Get(t.Context(), me)
	fails(t, err, backend.ErrAuthRequired, "nobody has logged in")
	logIn(t, b, me) // in the place of what was deleted
}

// A host that is killed is waited for by others as long as its lease is; a process of its own host takes over at once.
func TestHostIsKilled(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	p := oidctest.Start(t, oidctest.Options{})
	s := onVault(t, v, p)
	b := s.enter(t)
	before := s.due(t, p)
	s.killed(t, 2)
	other := s
	other.StateDir = t.TempDir() + "/state"
	elsewhere := other.open()
	defer elsewhere.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := elsewhere.Get(ctx, me); err == nil || ctx.Err() == nil {
		t.Errorf("the other host does not wait for the lease: %v", err)
	}
	if e, err := elsewhere.Status(t.Context(), me); err != nil || e.Status != grants.StatusRefreshing {
		t.Errorf("%+v %v", e, err)
	}
	if n := p.Calls("/oauth/token") - before; n != 1 {
		t.Errorf("%d exchanges, want that of the killed process", n)
	}
	_, err := b.Get(t.Context(), me)
	fails(t, err, backend.ErrAuthRequired, "interrupted")
	_, err = elsewhere.Get(t.Context(), me)
	fails(t, err, backend.ErrAuthRequired, "interrupted")
	if n := p.Calls("/oauth/token") - before; n != 2 {
		t.Errorf("%d exchanges, want one more", n)
	}
}
