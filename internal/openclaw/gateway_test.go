package openclaw

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/credresolve/credresolve/backend"
)

// fakeGateway answers connect and the method with the rest of a response frame; what is asked goes to asked.
func fakeGateway(t *testing.T, secure bool, answers map[string]func() string) (url string, asked chan map[string]any, server *httptest.Server) {
	t.Helper()
	asked = make(chan map[string]any, 100)
	server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		send := func(s string) { _ = conn.Write(r.Context(), websocket.MessageText, []byte(s)) }
		send(`{"type":"event","event":"connect.challenge","payload":{"nonce":"n","ts":1}}`)
		for {
			_, b, err := conn.Read(r.Context())
			if err != nil {
				return
			}
			var f map[string]any
			_ = json.Unmarshal(b, &f)
			asked <- f
			send(`{"type":"event","event":"tick","payload":{}}`)
			answer := answers[f["method"].(string)]()
			if answer == "close" {
				_ = conn.Close(1008, "unauthorized")
				return
			}
			send(fmt.Sprintf(`{"type":"res","id":%q,%s}`, f["id"], answer))
		}
	}))
	scheme := "ws"
	if secure {
		server.StartTLS()
		scheme = "wss"
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return scheme + server.URL[strings.Index(server.URL, ":"):], asked, server
}

func say(s string) func() string { return func() string { return s } }

func refusal(code, message, details string) string {
	return fmt.Sprintf(`"ok":false,"error":{"code":%q,"message":%q,"details":%s}`, code, message, details)
}

const hello = `"ok":true,"payload":{"type":"hello-ok","protocol":4}`

func TestReloadSecrets(t *testing.T) {
	t.Parallel()
	const reloaded = `"ok":true,"payload":{"ok":true,"warningCount":2}`
	for _, c := range []struct {
		name            string
		connect, reload string
		want            string // of the error; empty: it succeeds
	}{
		{"reloads", hello, reloaded, ""},
		{"wrong token", refusal("INVALID_REQUEST", "unauthorized: leaked-c4nary", `{"code":"AUTH_TOKEN_MISMATCH"}`), "", "it does not accept the token (AUTH_TOKEN_MISMATCH)"},
		{"no token", refusal("INVALID_REQUEST", "unauthorized", `{"code":"AUTH_TOKEN_MISSING"}`), "", "it asks for a token or a password (AUTH_TOKEN_MISSING)"},
		{"too many", refusal("INVALID_REQUEST", "unauthorized", `{"code":"AUTH_RATE_LIMITED"}`), "", "it refuses logins for a while"},
		{"not set", refusal("INVALID_REQUEST", "unauthorized", `{"code":"AUTH_TOKEN_NOT_CONFIGURED"}`), "", "see gateway.auth"},
		{"version", refusal("INVALID_REQUEST", "protocol mismatch", `{"code":"PROTOCOL_MISMATCH","expectedProtocol":7}`), "", "it speaks version 7 of its protocol, and this program 3 to 4"},
		{"pairing", refusal("NOT_PAIRED", "pairing required", `{"code":"PAIRING_REQUIRED"}`), "", "it wants a paired device"},
		{"scope", hello, refusal("INVALID_REQUEST", "missing scope: operator.admin", `{}`), "it does not let this client reload"},
		{"outage", hello, refusal("UNAVAILABLE", "secrets.reload failed: leaked-c4nary", `{}`), "keeps the values it has (UNAVAILABLE)"},
		{"unknown method", hello, refusal("INVALID_REQUEST", "unknown method leaked-c4nary", `null`), "it refuses secrets.reload (INVALID_REQUEST)"},
		{"code that is text", hello, refusal("leaked-c4nary", "", `{"code":"leaked-c4nary"}`), "it refuses secrets.reload; see its log"},
		{"another answer", hello, `"ok":true,"payload":{"done":1}`, "its answer to a reload is none that is known"},
		{"closes", "close", "", "it closes the connection, with code 1008"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url, asked, _ := fakeGateway(t, false, map[string]func() string{"connect": say(c.connect), "secrets.reload": say(c.reload)})
			g := Gateway{URL: url, Credential: backend.NewSecretString("tok-\"c4nary\n"), Version: "1"}
			got, err := g.ReloadSecrets(t.Context())
			if c.want == "" {
				if err != nil || !got.OK || got.WarningCount != 2 {
					t.Errorf("%+v, %v", got, err)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "c4nary") {
				t.Errorf("got %v, want …%s…", err, c.want)
			}
			connect := (<-asked)["params"].(map[string]any)
			if token := connect["auth"].(map[string]any)["token"]; token != "tok-\"c4nary\n" {
				t.Errorf("the token came as %q", token)
			}
			if connect["minProtocol"] != 3.0 || connect["maxProtocol"] != 4.0 || connect["role"] != "operator" {
				t.Errorf("connect: %v", connect)
			}
		})
	}
}

func TestReloadOfAGatewayThatStarts(t *testing.T) {
	t.Parallel()
	n := 0
	url, _, _ := fakeGateway(t, false, map[string]func() string{
		"connect": func() string {
			if n++; n < 3 {
				return `"ok":false,"error":{"code":"UNAVAILABLE","message":"starting","retryAfterMs":1,"details":{"reason":"startup-sidecars"}}`
			}
			return hello
		},
		"secrets.reload": say(`"ok":true,"payload":{"ok":true,"warningCount":0}`),
	})
	if got, err := (Gateway{URL: url}).ReloadSecrets(t.Context()); err != nil || !got.OK {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestGatewayThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	url, _, _ := fakeGateway(t, false, map[string]func() string{"connect": func() string { <-release; return hello }})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := Gateway{URL: url}.ReloadSecrets(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "it does not answer in time") {
		t.Error(err)
	}

	plain := httptest.NewServer(http.NotFoundHandler())
	_, err = Gateway{URL: "ws" + strings.TrimPrefix(plain.URL, "http")}.ReloadSecrets(t.Context())
	if err == nil || !strings.Contains(err.Error(), "answers 404 and speaks no WebSocket") {
		t.Error(err)
	}
	plain.Close()
	_, err = Gateway{URL: "ws" + strings.TrimPrefix(plain.URL, "http")}.ReloadSecrets(t.Context())
	if err == nil || !strings.Contains(err.Error(), "nobody listens there") {
		t.Error(err)
	}
}

// The certificate of the home is the only one that is taken.
func TestGatewayCertificate(t *testing.T) {
	t.Parallel()
	url, _, server := fakeGateway(t, true, map[string]func() string{"connect": say(hello), "secrets.reload": say(`"ok":true,"payload":{"ok":true}`)})
	sum := sha256.Sum256(server.Certificate().Raw)
	for _, c := range []struct{ name, fingerprint, want string }{
		{"right", hex.EncodeToString(sum[:]), ""},
		{"as openssl prints it", strings.ToUpper(hex.EncodeToString(sum[:1])) + ":" + hex.EncodeToString(sum[1:]), ""},
		{"other", strings.Repeat("00", 32), "it shows another certificate"},
		{"none", "", "its certificate is not one that this machine trusts"},
		{"no fingerprint", "x", "it shows another certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Gateway{URL: url, Fingerprint: c.fingerprint}.ReloadSecrets(t.Context())
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestGatewayOfADocument(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, _, server := fakeGateway(t, true, nil)
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for name, content := range map[string][]byte{"gateway/tls/gateway-cert.pem": block, "own.pem": block, "none.pem": []byte("x")} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sum := sha256.Sum256(server.Certificate().Raw)
	pin := hex.EncodeToString(sum[:])
	for _, c := range []struct {
		name, config string
		env          map[string]string
		choice       GatewayChoice
		url, secret  string
		password     bool
		pin          string
		want         string
	}{
		{name: "nothing", config: `{}`, url: "ws://127.0.0.1:18789"},
		{name: "port and token", config: `{gateway: {port: 1234, auth: {token: "t1"}}}`, url: "ws://127.0.0.1:1234", secret: "t1"},
		{name: "port of the environment", config: `{gateway: {port: 1234}}`, env: map[string]string{"OPENCLAW_GATEWAY_PORT": "77"}, url: "ws://127.0.0.1:77"},
		{name: "chosen port", config: `{gateway: {mode: "remote", remote: {url: "wss://far"}, auth: {token: "t1"}}}`, choice: GatewayChoice{Port: 5}, url: "ws://127.0.0.1:5", secret: "t1"},
		{name: "reference", config: `{gateway: {auth: {token: {source: "env", provider: "default", id: "TOK"}}}}`, env: map[string]string{"TOK": "t2"}, url: "ws://127.0.0.1:18789", secret: "t2"},
		{name: "shorthand", config: `{gateway: {auth: {mode: "password", token: "t1", password: "${PASS}"}}}`, env: map[string]string{"PASS": "p"}, url: "ws://127.0.0.1:18789", secret: "p", password: true},
		{name: "environment first", config: `{gateway: {auth: {token: {source: "env", provider: "default", id: "TOK"}}}}`, env: map[string]string{"OPENCLAW_GATEWAY_TOKEN": " t3 "}, url: "ws://127.0.0.1:18789", secret: "t3"},
		{name: "no login", config: `{gateway: {auth: {mode: "none", token: "t1"}}}`, url: "ws://127.0.0.1:18789"},
		{name: "chosen credential", config: `{gateway: {auth: {token: {source: "env", provider: "default", id: "TOK"}}}}`, choice: GatewayChoice{Credential: backend.NewSecretString("c")}, url: "ws://127.0.0.1:18789", secret: "c"},
		{name: "missing reference", config: `{gateway: {auth: {token: "$TOK"}}}`, want: "gateway.auth.token: Environment variable \"TOK\" is missing or empty.; to call the gateway without its store, set OPENCLAW_GATEWAY_TOKEN or give a file"},
		{name: "tls", config: `{gateway: {tls: {enabled: true}}}`, url: "wss://127.0.0.1:18789", pin: pin},
		{name: "tls of its own", config: `{gateway: {tls: {enabled: true, certPath: "` + filepath.ToSlash(dir) + `/own.pem"}}}`, url: "wss://127.0.0.1:18789", pin: pin},
		{name: "tls without certificate", config: `{gateway: {tls: {enabled: true, certPath: "` + filepath.ToSlash(dir) + `/none.pem"}}}`, want: "it holds none in PEM"},
		{name: "remote", config: `{gateway: {mode: "remote", remote: {url: "wss://far:1", token: "t4", tlsFingerprint: "ab"}, auth: {token: "t1"}}}`, url: "wss://far:1", secret: "t4", pin: "ab"},
		{name: "remote without address", config: `{gateway: {mode: "remote"}}`, want: "gateway.remote.url is empty"},
		{name: "remote in clear", config: `{gateway: {mode: "remote", remote: {url: "ws://far:1", token: "t4"}}}`, want: "would show the gateway's token to the network"},
		{name: "chosen address", config: `{gateway: {auth: {token: "t1"}}}`, choice: GatewayChoice{URL: "wss://elsewhere"}, want: "needs its token or password too"},
		{name: "chosen address and credential", config: `{gateway: {auth: {token: "t1"}}}`, choice: GatewayChoice{URL: "wss://elsewhere", Credential: backend.NewSecretString("c"), Password: true}, url: "wss://elsewhere", secret: "c", password: true},
		{name: "no address", choice: GatewayChoice{URL: "https://elsewhere"}, config: `{}`, want: "begins with https://"},
		{name: "address with a login", choice: GatewayChoice{URL: "wss://u:p-c4nary@elsewhere"}, config: `{}`, want: "is not of the form"},
	} {
		t.Run(c.name, func(t *testing.T) {
			state := t.TempDir()
			if err := os.Symlink(filepath.Join(dir, "gateway"), filepath.Join(state, "gateway")); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(state, "openclaw.json"), []byte(c.config), 0o600); err != nil {
				t.Fatal(err)
			}
			env := func(name string) (string, bool) { v, ok := c.env[name]; return v, ok }
			home, err := DirHome(state, env, state)
			if err != nil {
				t.Fatal(err)
			}
			d, err := home.Load()
			if err != nil {
				t.Fatal(err)
			}
			g, err := d.Gateway(t.Context(), c.choice)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "c4nary") {
					t.Errorf("got %v, want …%s…", err, c.want)
				}
				return
			}
			if err != nil || g.URL != c.url || string(g.Credential.Reveal()) != c.secret || g.Password != c.password || g.Fingerprint != c.pin {
				t.Errorf("%s %q %v %q, %v", g.URL, g.Credential.Reveal(), g.Password, g.Fingerprint, err)
			}
		})
	}
}
