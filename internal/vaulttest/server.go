// Package vaulttest gives tests a real Vault server, the one in testing/vaultd. It is built by "make test", which tells its
// path in CREDRESOLVE_VAULTD; without it, tests that need the server skip.
package vaulttest

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// Server is a running server. It ends with the process of the test, whose end closes its stdin.
type Server struct {
	// Addr is its URL.
	Addr string
	// Token is the root token.
	Token string
	// UnsealKey is the one key that unseals it.
	UnsealKey string
	// CAFile is what a client must trust; empty without TLS.
	CAFile string

	process *exec.Cmd
	stdin   io.Closer // kept, since the server ends when it closes
}

// shared starts the one server of a test binary. It lives in a variable of the package since tests have nothing else
// in common.
var shared = sync.OnceValues(func() (*Server, error) { return start() })

// Start gives the server that all tests of this binary share, with the engine kv version 2 at secret/. Tests keep to mounts
// of their own (Mount, Auth). It skips the test where there is no server.
func Start(t testing.TB) *Server {
	t.Helper()
	need(t)
	s, err := shared()
	if err != nil {
		t.Fatalf("starting the Vault server: %v", err)
	}
	return s
}

// StartOwn starts a server for one test, with flags of testing/vaultd: for a test that seals it, or wants TLS.
func StartOwn(t testing.TB, flags ...string) *Server {
	t.Helper()
	need(t)
	s, err := start(flags...)
	if err != nil {
		t.Fatalf("starting the Vault server: %v", err)
	}
	t.Cleanup(func() {
		_ = s.stdin.Close()
		_ = s.process.Wait()
	})
	return s
}

func need(t testing.TB) {
	t.Helper()
	if os.Getenv("CREDRESOLVE_VAULTD") == "" {
		t.Skip("needs a Vault server: run make test")
	}
}

func start(flags ...string) (*Server, error) {
	cmd := exec.Command(os.Getenv("CREDRESOLVE_VAULTD"), flags...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	var info struct {
		Addr, Token string
		UnsealKey   string `json:"unseal_key"`
	}
	if err := json.Unmarshal(line, &info); err != nil {
		return nil, err
	}
	return &Server{Addr: info.Addr, Token: info.Token, UnsealKey: info.UnsealKey, process: cmd, stdin: in}, nil
}

// Client gives a client of the SDK that holds the root token.
func (s *Server) Client(t testing.TB) *api.Client {
	t.Helper()
	c := api.DefaultConfig()
	c.Address = s.Addr
	c.MaxRetries = 0
	if s.CAFile != "" {
		if err := c.ConfigureTLS(&api.TLSConfig{CACert: s.CAFile}); err != nil {
			t.Fatal(err)
		}
	}
	client, err := api.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken(s.Token)
	client.SetNamespace("")
	t.Cleanup(c.HttpClient.CloseIdleConnections)
	return client
}

// Write writes to a path as root and gives the answer's data.
func (s *Server) Write(t testing.TB, path string, data map[string]any) map[string]any {
	t.Helper()
	secret, err := s.Client(t).Logical().WriteWithContext(t.Context(), path, data)
	if err != nil {
		t.Fatalf("writing %s: %v", path, err)
	}
	if secret == nil {
		return nil
	}
	return secret.Data
}

// Read reads a path as root and gives the answer's data, nil when there is nothing.
func (s *Server) Read(t testing.TB, path string) map[string]any {
	t.Helper()
	secret, err := s.Client(t).Logical().ReadWithContext(t.Context(), path)
	if err != nil {
		t.Fatalf("reading %s: %v", path, err)
	}
	if secret == nil {
		return nil
	}
	return secret.Data
}

// Mount mounts a secrets engine for one test and gives its path, without a slash. Options are the engine's: "version"
// for kv.
func (s *Server) Mount(t testing.TB, engine string, options map[string]string) string {
	t.Helper()
	path := name(t, engine)
	input := &api.MountInput{Type: engine, Options: options, Config: api.MountConfigInput{MaxLeaseTTL: "87600h"}}
	if err := s.Client(t).Sys().MountWithContext(t.Context(), path, input); err != nil {
		t.Fatalf("mounting %s: %v", engine, err)
	}
	if options["version"] == "2" {
		s.await(t, path+"/config") // a new mount of version 2 upgrades itself for a moment, and answers 400
	}
	return path
}

// Auth enables an auth method for one test and gives its path, without auth/.
func (s *Server) Auth(t testing.TB, method string) string {
	t.Helper()
	path := name(t, method)
	if err := s.Client(t).Sys().EnableAuthWithOptionsWithContext(t.Context(), path, &api.EnableAuthOptions{Type: method}); err != nil {
		t.Fatalf("enabling %s: %v", method, err)
	}
	return path
}

// Policy makes a policy for one test and gives its name.
func (s *Server) Policy(t testing.TB, rules string) string {
	t.Helper()
	policy := name(t, "policy")
	if err := s.Client(t).Sys().PutPolicyWithContext(t.Context(), policy, rules); err != nil {
		t.Fatalf("writing a policy: %v", err)
	}
	return policy
}

// NewToken makes a token as root; data are the parameters of auth/token/create.
func (s *Server) NewToken(t testing.TB, data map[string]any) string {
	t.Helper()
	secret, err := s.Client(t).Logical().WriteWithContext(t.Context(), "auth/token/create", data)
	if err != nil {
		t.Fatalf("creating a token: %v", err)
	}
	return secret.Auth.ClientToken
}

// Seal seals the server; only one of StartOwn.
func (s *Server) Seal(t testing.TB) {
	t.Helper()
	if err := s.Client(t).Sys().SealWithContext(t.Context()); err != nil {
		t.Fatalf("sealing: %v", err)
	}
}

// Unseal unseals it again.
func (s *Server) Unseal(t testing.TB) {
	t.Helper()
	if st, err := s.Client(t).Sys().UnsealWithContext(t.Context(), s.UnsealKey); err != nil || st.Sealed {
		t.Fatalf("unsealing: %v", err)
	}
}

func (s *Server) await(t testing.TB, path string) {
	t.Helper()
	client := s.Client(t)
	for range 100 {
		resp, err := client.Logical().ReadRawWithContext(t.Context(), path)
		if resp != nil {
			resp.Body.Close()
		}
		if err == nil || resp != nil && resp.StatusCode != http.StatusBadRequest {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%s does not become ready", path)
}

// name makes a path that no other test has.
func name(t testing.TB, what string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(t.Name()))
	counter.Lock()
	defer counter.Unlock()
	counter.n++
	return clean + "-" + what + "-" + string(rune('a'+counter.n/26%26)) + string(rune('a'+counter.n%26))
}

// counter tells apart what one test makes twice on the shared server.
var counter struct {
	sync.Mutex
	n int
}
