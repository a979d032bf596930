//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/internal/openclawtest"
	"github.com/credresolve/credresolve/internal/vaulttest"
)

// clawed is somebody whose OpenClaw gets its secrets from a Vault, through the program that secretref install put there.
type clawed struct {
	*user
	home   *openclawtest.Home
	vault  *vaulttest.Server
	proxy  *vaulttest.Proxy
	model  *openclawtest.Model
	kv     string
	port   int
	values map[string]bool // every value that there ever was
}

func newClawed(t *testing.T) *clawed {
	t.Helper()
	home := openclawtest.New(t)
	s := vaulttest.Start(t)
	c := &clawed{home: home, vault: s, proxy: s.Proxy(t), kv: s.Mount(t, "kv", map[string]string{"version": "2"}), model: openclawtest.NewModel(t), port: openclawtest.Port(t), values: map[string]bool{}}
	c.user = &user{t: t, dir: home.Dir, env: append(slices.Clone(home.Env), "GORACE=atexit_sleep_ms=0", "CREDRESOLVE_SOCKET="+filepath.Join(home.Dir, "no-sidecar"))}
	c.write("token", s.NewToken(t, map[string]any{"policies": []string{s.Policy(t, `path "*" { capabilities = ["read"] }`)}}))
	c.write("credresolve.yaml", fmt.Sprintf(`version: 1
providers:
  key: {kind: file, path: %[1]s/token, mode: raw}
  app: {kind: vault, address: %[2]q, auth: {method: token, token: {provider: key, id: value}}, limits: {retries: 0, breaker: {open: 1s}}}
`, c.dir, c.proxy.URL))
	c.configure("")
	c.put(map[string]string{"gateway": "gateway-token-c4nary-1", "model": "model-key-c4nary-1"})
	got := c.run("--config", filepath.Join(c.dir, "credresolve.yaml"), "secretref", "install", "--for", "openclaw", "--copy",
		"--prove", c.id("gateway"), "--timeout-ms", "60000", "--pass-env", "GORACE", "--pass-env", "CREDRESOLVE_SOCKET")
	if got.status != 0 {
		t.Fatalf("install: status %d\n%s", got.status, got.stderr)
	}
	// OpenClaw passes on what its own environment has.
	c.home.Env = append(c.home.Env, "GORACE=atexit_sleep_ms=0", "CREDRESOLVE_SOCKET="+filepath.Join(home.Dir, "no-sidecar"))
	return c
}

// id is the id of a field in OpenClaw's configuration.
func (c *clawed) id(field string) string { return "app/" + c.kv + "/openclaw#" + field }

// put makes fields the secret of the store.
func (c *clawed) put(fields map[string]string) {
	c.t.Helper()
	data := map[string]any{}
	for name, value := range fields {
		data[name] = value
		c.values[value] = true
	}
	c.vault.Write(c.t, c.kv+"/data/openclaw", map[string]any{"data": data})
}

// configure writes OpenClaw's configuration, with more model providers.
func (c *clawed) configure(more string) {
	c.t.Helper()
	c.home.Write(fmt.Sprintf(`{
  // The gateway's token and the model's key are references.
  gateway: {
    mode: "local", port: %d, bind: "loopback", controlUi: {enabled: false}, http: {endpoints: {chatCompletions: {enabled: true}}},
    auth: {mode: "token", token: {source: "exec", provider: "credresolve", id: %q}},
  },
  models: {providers: {
    fake: {baseUrl: %q, api: "openai-completions", models: [{id: "m", name: "m"}], apiKey: {source: "exec", provider: "credresolve", id: %q}},%s
  }},
  agents: {defaults: {model: {primary: "fake/m"}, skipBootstrap: true}},
  logging: {file: %q},
  discovery: {mdns: {mode: "off"}},
  update: {checkOnStart: false},
  cron: {enabled: false},
}
`, c.port, c.id("gateway"), c.model.URL, c.id("model"), more, filepath.Join(c.home.State, "log.jsonl")))
}

// openclawAudit is the part of OpenClaw's report that counts here.
type openclawAudit struct {
	Status     string `json:"status"`
	Resolution struct {
		Checked  int  `json:"refsChecked"`
		Skipped  int  `json:"skippedExecRefs"`
		Complete bool `json:"resolvabilityComplete"`
	} `json:"resolution"`
	Findings []struct{ Code, Message, JSONPath string } `json:"findings"`
}

func (c *clawed) audit(wantStatus int) (a openclawAudit) {
	c.t.Helper()
	got := c.home.Run(nil, "secrets", "audit", "--allow-exec", "--json")
	if err := json.Unmarshal([]byte(got.Stdout), &a); err != nil || got.Status != wantStatus {
		c.t.Fatalf("status %d, want %d (%v)\n%s%s", got.Status, wantStatus, err, got.Stdout, got.Stderr)
	}
	if strings.Contains(got.Stdout+got.Stderr, canary) {
		c.t.Error("the audit shows a secret")
	}
	return a
}

// reload is credresolve secretref reload, of which status and the number of warnings are told.
func (c *clawed) reload(token string) (status, warnings int, message string) {
	c.t.Helper()
	c.write("gateway-token", token)
	got := c.run("secretref", "reload", "--json", "--timeout", "5m", "--token-file", "gateway-token")
	if strings.Contains(got.stdout+got.stderr, canary) {
		c.t.Error("reload shows a secret")
	}
	var answer struct{ WarningCount int }
	if got.status == 0 && json.Unmarshal([]byte(got.stdout), &answer) != nil {
		c.t.Errorf("no answer of a reload: %s", got.stdout)
	}
	_ = os.Remove(filepath.Join(c.dir, "gateway-token"))
	return got.status, answer.WarningCount, got.stderr
}

// reloadWell reloads until it succeeds, for a breaker may be open after an outage, and tells the number of warnings.
func (c *clawed) reloadWell(token string) (warnings int) {
	c.t.Helper()
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		status, warnings, message := c.reload(token)
		if status == 0 {
			return warnings
		}
		if time.Now().After(end) {
			c.t.Fatalf("the reload does not succeed: %s", message)
		}
	}
}

// called has the agent call its model, which must get key.
func (c *clawed) called(g *openclawtest.Gateway, token, key string) {
	c.t.Helper()
	status, answer := g.Chat(token)
	if status != http.StatusOK || !strings.Contains(answer, openclawtest.Reply) {
		c.t.Errorf("the agent answers %d %s\n%s", status, answer, g.Log())
	}
	if got := c.model.Authorizations(); !slices.Contains(got, "Bearer "+key) || len(slices.Compact(got)) != 1 {
		c.t.Errorf("the model was called with %q, want Bearer %s", got, key)
	}
}

func logged(t *testing.T, g *openclawtest.Gateway, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !g.Logs(text, time.Minute) {
			t.Errorf("the gateway does not log %q:\n%s", text, g.Log())
		}
	}
}

// OpenClaw itself takes its secrets from here: its audit, its gateway, its agent's calls, an outage of the store, and what
// lies on its disk afterwards.
func TestOpenClaw(t *testing.T) {
	c := newClawed(t)
	installed, err := os.ReadFile(c.home.Config)
	if err != nil {
		t.Fatal(err)
	}

	t.Log("the audit")
	// The audit is clean.
	if a := c.audit(0); a.Status != "clean" || a.Resolution.Checked != 2 || a.Resolution.Skipped != 0 || !a.Resolution.Complete || len(a.Findings) != 0 {
		t.Errorf("the audit: %+v", a)
	}

	// A reference to nothing is one finding.
	missing := strings.Replace(string(installed), "fake: {", fmt.Sprintf(`other: {baseUrl: %q, api: "openai-completions", models: [], apiKey: {source: "exec", provider: "credresolve", id: %q}},
    fake: {`, c.model.URL, "app/"+c.kv+"/nothing#here"), 1)
	c.home.Write(missing)
	a := c.audit(2)
	if a.Status != "unresolved" || a.Resolution.Checked != 3 || len(a.Findings) != 1 {
		t.Errorf("the audit: %+v", a)
	} else if f := a.Findings[0]; f.Code != "REF_UNRESOLVED" || f.JSONPath != "models.providers.other.apiKey" || !strings.Contains(f.Message, "(NOT_FOUND)") {
		t.Errorf("the finding: %+v", f)
	}
	c.home.Write(string(installed))

	t.Log("the gateway")
	const token, key1, key2 = "gateway-token-c4nary-1", "model-key-c4nary-1", "model-key-c4nary-2"
	g, ready := c.home.Start(c.port)
	if !ready {
		t.Fatalf("the gateway ended:\n%s", g.Log())
	}
	if ok, no := g.Models(token), g.Models("another"); ok != http.StatusOK || no != http.StatusUnauthorized {
		t.Errorf("with its token the gateway answers %d, with another %d", ok, no)
	}
	t.Log("a call of the agent")
	c.called(g, token, key1)
	if status, _, message := c.reload("another"); status != 1 || !strings.Contains(message, "it does not accept the token (AUTH_TOKEN_MISMATCH)") {
		t.Errorf("a reload with another token: %d %s", status, message)
	}
	if got := c.run("secretref", "reload"); got.status != 0 || got.stdout != "reloaded\n" { // its own token, of its reference
		t.Errorf("a reload: %d %s%s", got.status, got.stdout, got.stderr)
	}

	t.Log("the store is away")
	// The store is away: neither command reloads, and what was there goes on.
	undo := c.proxy.Fail("/v1/", -1, vaulttest.Answer(http.StatusServiceUnavailable, `{"errors":["Vault is sealed"]}`))
	if status, _, message := c.reload(token); status != 1 || !strings.Contains(message, "it could not resolve its references, and keeps the values it has (UNAVAILABLE)") {
		t.Errorf("a reload while the store is away: %d %s", status, message)
	}
	logged(t, g, "[SECRETS_PROVIDER_DEGRADED]", "stale gateway:ingress-auth")
	if got := c.home.Run([]string{"OPENCLAW_GATEWAY_TOKEN=" + token}, "secrets", "reload", "--json"); got.Status != 1 {
		t.Errorf("openclaw secrets reload while the store is away: %d %s%s", got.Status, got.Stdout, got.Stderr)
	}
	if got := g.Models(token); got != http.StatusOK {
		t.Errorf("while the store is away the gateway answers %d", got)
	}

	t.Log("the store is back")
	// It is back, without the model's key: that one alone is stale.
	undo()
	c.put(map[string]string{"gateway": token})
	if n := c.reloadWell(token); n != 1 {
		t.Errorf("a reload without the model's key has %d warnings\n%s", n, g.Log())
	}
	logged(t, g, "[SECRETS_DEGRADED] stale provider:fake")

	// All is there, and new.
	c.put(map[string]string{"gateway": token, "model": key2})
	if n := c.reloadWell(token); n != 0 {
		t.Errorf("a reload has %d warnings\n%s", n, g.Log())
	}
	logged(t, g, "[SECRETS_RELOADER_RECOVERED]")
	if !testing.Short() {
		c.called(g, token, key2)
	}
	log := g.Log()
	g.Kill()

	t.Log("a start without the store")
	// Without the store a gateway does not start.
	undo = c.proxy.Fail("/v1/", -1, vaulttest.Answer(http.StatusServiceUnavailable, `{"errors":["Vault is sealed"]}`))
	if g, ready = c.home.Start(c.port); ready {
		t.Error("the gateway starts without its token")
		g.Kill()
	} else if g.Status() != 1 || !strings.Contains(g.Log(), "required secrets are unavailable") {
		t.Errorf("without the store the gateway ends with %d:\n%s", g.Status(), g.Log())
	}
	log += g.Log()
	undo()

	t.Log("a start without the model's key")
	// Without the model's key it does.
	c.put(map[string]string{"gateway": token})
	for end := time.Now().Add(time.Minute); c.run("--config", "credresolve.yaml", "get", "cred://app/"+c.kv+"/openclaw#gateway").status != 0 && time.Now().Before(end); {
		time.Sleep(500 * time.Millisecond) // until the breaker lets calls through
	}
	g, ready = c.home.Start(c.port)
	if !ready {
		t.Fatalf("the gateway does not start without the model's key:\n%s", g.Log())
	}
	logged(t, g, "[SECRETS_DEGRADED] cold provider:fake")
	c.put(map[string]string{"gateway": token, "model": key2})
	if n := c.reloadWell(token); n != 0 {
		t.Errorf("a reload has %d warnings\n%s", n, g.Log())
	}
	log += g.Log()
	g.Kill()

	t.Log("traces")
	// No value is on OpenClaw's disk, nor in what it printed.
	if strings.Contains(log, canary) {
		t.Error("the gateway printed a secret")
	}
	if err := os.RemoveAll(filepath.Join(c.dir, ".local", "libexec")); err != nil { // the program, which is this test and names them
		t.Fatal(err)
	}
	for value := range c.values {
		found, err := openclawtest.Traces(c.dir, value)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			t.Errorf("%s is in %s", value, f)
		}
	}
}
