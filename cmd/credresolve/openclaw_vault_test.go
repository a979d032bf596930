//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/credresolve/credresolve/internal/vaulttest"
)

// together counts the calls that are under way at once, and holds each until there were as many as wanted, or for a while.
type together struct {
	mu        sync.Mutex
	now, most int
	wanted    int
	reached   chan struct{}
}

func (c *together) fault(w http.ResponseWriter, r *http.Request, server http.Handler) {
	c.mu.Lock()
	c.now++
	if c.most = max(c.most, c.now); c.now == c.wanted {
		select {
		case <-c.reached:
		default:
			close(c.reached)
		}
	}
	c.mu.Unlock()
	select {
	case <-c.reached:
	case <-time.After(30 * time.Second):
	}
	server.ServeHTTP(w, r)
	c.mu.Lock()
	c.now--
	c.mu.Unlock()
}

// 500 refs are one start and one call of the store each, many at once; with a sidecar the second start is none.
func TestOpenClawFiveHundredRefs(t *testing.T) {
	t.Parallel()
	const refs, concurrency = 500, 32
	s := vaulttest.Start(t)
	mount := s.Mount(t, "kv", map[string]string{"version": "1"}) // of version 2 each write is two
	ids := make([]string, refs)
	for i := range ids {
		s.Write(t, fmt.Sprintf("%s/app-%d", mount, i), map[string]any{"key": fmt.Sprintf("c4nary-%d", i)})
		ids[i] = fmt.Sprintf("app/app-%d#key", i)
	}
	proxy := s.Proxy(t)
	atOnce := &together{wanted: concurrency, reached: make(chan struct{})}
	proxy.Fail("/v1/"+mount, -1, atOnce.fault)
	u := newUser(t)
	u.write("token", s.Token)
	u.write("credresolve.yaml", fmt.Sprintf(`version: 1
providers:
  app: {kind: vault, address: %q, mount: %s, kv_version: 1, auth: {method: token_file, token_file: token}, limits: {concurrency: %d}}
`, proxy.URL, mount, concurrency))
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"))
	resolve := func() {
		t.Helper()
		p := u.ask(requestFor("credresolve", ids...), "--timeout", "100s")
		r := p.response(t)
		if len(r.Values) != refs || r.Values[ids[7]] != "c4nary-7" {
			t.Fatalf("%d values, %s", len(r.Values), p.stderr)
		}
	}

	before := len(proxy.Calls("/v1/" + mount))
	resolve()
	if calls := len(proxy.Calls("/v1/"+mount)) - before; calls != refs {
		t.Errorf("%d refs were %d calls of the store", refs, calls)
	}
	atOnce.mu.Lock()
	if atOnce.most != concurrency {
		t.Errorf("%d calls were under way at once, of %d that may be", atOnce.most, concurrency)
	}
	atOnce.mu.Unlock()

	u.serve()
	resolve()
	// The sidecar looks once how long its own token lives, a second after it first used it: whenever that is.
	before = len(proxy.Calls("/v1/" + mount))
	resolve()
	if calls := len(proxy.Calls("/v1/"+mount)) - before; calls != 0 {
		t.Errorf("the second start with a sidecar was %d calls of the store", calls)
	}
}

// OpenClaw's own resolver for Vault and this program give the same for the same ids, by the same variables or by a
// configuration, with each method of login.
func TestOpenClawVaultResolver(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	mount := s.Mount(t, "kv", map[string]string{"version": "2"})
	old := s.Mount(t, "kv", map[string]string{"version": "1"})
	s.Write(t, mount+"/data/providers/openai", map[string]any{"data": map[string]any{"apiKey": "o-c4nary", "OTHER_KEY": "ü-c4nary\n", "n": 7}})
	s.Write(t, mount+"/data/team:a", map[string]any{"data": map[string]any{"key": "t-c4nary"}})
	s.Write(t, old+"/providers/openai", map[string]any{"apiKey": "v1-c4nary"})
	policy := s.Policy(t, fmt.Sprintf("path \"%s/data/*\" { capabilities = [\"read\"] }\npath \"%s/*\" { capabilities = [\"read\"] }\npath \"%[1]s/data/secret/*\" { capabilities = [\"deny\"] }", mount, old))
	token := s.NewToken(t, map[string]any{"policies": []string{policy}})
	approle := s.Auth(t, "approle")
	s.Write(t, "auth/"+approle+"/role/app", map[string]any{"token_policies": policy})
	s.Write(t, "auth/"+approle+"/role/app/role-id", map[string]any{"role_id": "role-of-" + approle})
	secretID, _ := s.Write(t, "auth/"+approle+"/role/app/secret-id", nil)["secret_id"].(string)

	u := newUser(t)
	u.write("token", token+"\n")
	u.write("secret-id", secretID+"\n")
	common := []string{"VAULT_ADDR=" + s.Addr + "/", "OPENCLAW_VAULT_KV_MOUNT=/" + mount + "/"}
	ids := []string{"providers/openai/apiKey", "providers/openai/OTHER_KEY", "team:a/key"}
	bad := []string{"providers/openai/none", "providers/none/x", "secret/x/y"}
	theirs := resolverOfOpenClaw(t)
	for _, tt := range []struct {
		name string
		env  []string
		ids  []string
		own  bool // OpenClaw's does not have it
	}{
		{"token", []string{"VAULT_TOKEN=" + token + " "}, ids, false},
		{"token_file", []string{"OPENCLAW_VAULT_AUTH_METHOD=token_file", "VAULT_TOKEN_FILE=" + filepath.Join(u.dir, "token")}, ids, false},
		{"kv version 1", []string{"VAULT_TOKEN=" + token, "OPENCLAW_VAULT_KV_MOUNT=" + old, "OPENCLAW_VAULT_KV_VERSION=1"}, ids[:1], false},
		{"approle, a file", []string{
			"OPENCLAW_VAULT_AUTH_METHOD=approle", "OPENCLAW_VAULT_AUTH_MOUNT=" + approle, "VAULT_ROLE_ID=role-of-" + approle,
			"VAULT_SECRET_ID_FILE=" + filepath.Join(u.dir, "secret-id"),
		}, ids, true},
		{"approle, a variable", []string{
			"OPENCLAW_VAULT_AUTH_METHOD=approle", "OPENCLAW_VAULT_AUTH_MOUNT=" + approle, "VAULT_ROLE_ID=role-of-" + approle, "VAULT_SECRET_ID=" + secretID,
		}, ids, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := append(append([]string{"XDG_STATE_HOME=" + filepath.Join(u.dir, "state"), "HOME=" + u.dir}, common...), tt.env...)
			request := requestFor("vault", append(bad, tt.ids...)...)
			ours := u.askAs("/", env, request, "--vault-env").response(t)
			if len(ours.Values) != len(tt.ids) || len(ours.Errors) != len(bad) {
				t.Fatalf("%d values, errors %v", len(ours.Values), ours.Errors)
			}
			if code := ours.Errors["providers/none/x"].Code; code != "NOT_FOUND" {
				t.Errorf("a secret that is not there is %s", code)
			}
			if tt.own {
				return
			}
			other := theirs(t, env, request)
			for _, id := range append(bad, tt.ids...) {
				_, failed := other.Errors[id]
				if _, fails := ours.Errors[id]; fails != failed || ours.Values[id] != other.Values[id] {
					t.Errorf("%s: not what OpenClaw's resolver gives", id)
				}
			}
		})
	}
	t.Run("a token that is refused", func(t *testing.T) {
		env := append([]string{"XDG_STATE_HOME=" + filepath.Join(u.dir, "state"), "VAULT_TOKEN=wrong-c4nary"}, common...)
		if p := u.askAs("/", env, requestFor("vault", ids...), "--vault-env"); p.status != 8 || p.stdout != "" || strings.Contains(p.stderr, canary) {
			t.Errorf("status %d, %q, %q", p.status, p.stdout, p.stderr)
		}
	})
	t.Run("a configuration", func(t *testing.T) {
		u.write("credresolve.yaml", fmt.Sprintf("version: 1\nproviders:\n  app: {kind: vault, address: %q, auth: {method: token_file, token_file: token}}\nopenclaw: {vault_ids: {vault: app/%s}}\n", s.Addr, mount))
		r := u.ask(requestFor("vault", ids...), "--config", "credresolve.yaml").response(t)
		if len(r.Values) != len(ids) || r.Values[ids[0]] != "o-c4nary" {
			t.Errorf("got %v", r)
		}
	})
}

// resolverOfOpenClaw gives what asks the program that OpenClaw brings along for Vault. Where it is not there, its part of a test
// is skipped.
func resolverOfOpenClaw(t *testing.T) func(t *testing.T, env []string, request string) response {
	program := os.Getenv("CREDRESOLVE_OPENCLAW") // as scripts/openclaw-setup.sh prints it
	home := filepath.Dir(program)
	return func(t *testing.T, env []string, request string) response {
		t.Helper()
		if program == "" {
			t.Skip("needs OpenClaw, to compare with its resolver for Vault: run make test")
		}
		script := filepath.Join(home, "node_modules/openclaw/dist/extensions/vault/vault-secret-ref-resolver.js")
		cmd := exec.CommandContext(t.Context(), filepath.Join(home, "node/bin/node"), script)
		cmd.Env, cmd.Stdin = env, strings.NewReader(request)
		var msg bytes.Buffer
		cmd.Stderr = &msg
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s%s", err, out, msg.String())
		}
		var r response
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
}
