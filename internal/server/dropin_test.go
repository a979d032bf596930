package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// shelf is a store of a test whose credentials are of any form.
type shelf struct {
	mu    sync.Mutex
	holds map[string]shelved
	reads map[string]int
}

type shelved struct {
	credential *backend.Credential
	err        error
}

type shelfConfig struct{}

// Reach implements backend.Reacher.
func (shelfConfig) Reach() []backend.Reach { return nil }

func (s *shelf) kind() backend.Kind {
	return backend.NewKind("shelf", "a store of a test", func(shelfConfig, backend.Host) (backend.Backend, error) { return s, nil })
}

func (s *shelf) put(id string, c *backend.Credential, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds == nil {
		s.holds, s.reads = map[string]shelved{}, map[string]int{}
	}
	s.holds[id] = shelved{c, err}
}

func (s *shelf) read(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads[id]
}

func (s *shelf) Get(_ context.Context, req backend.Request) (*backend.Credential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	got, ok := s.holds[req.ID]
	switch {
	case !ok:
		return nil, backend.Errorf(backend.CodeNotFound, "there is no such secret")
	case req.Version != "":
		return nil, backend.Errorf(backend.CodeUnsupported, "the store has no versions")
	}
	s.reads[req.ID]++
	return got.credential, got.err
}

// fields makes the fields of a credential.
func fields(pairs ...string) map[string]backend.Secret {
	out := map[string]backend.Secret{}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = backend.NewSecretString(pairs[i+1])
	}
	return out
}

// startWith is start with further providers, which are indented by two.
func startWith(t *testing.T, more, serve string, kinds ...backend.Kind) *sidecar {
	t.Helper()
	sc := &sidecar{t: t, dir: t.TempDir(), logs: &buffer{}, kinds: testKinds(kinds...)}
	sc.socket = filepath.Join(sc.dir, "run", "sock")
	sc.write("conf.json", `{"a": "a-c4nary", "n": 7}`)
	sc.configure(providers+more, serve)
	sc.open()
	return sc
}

// at gives the address of a listener.
func (sc *sidecar) at(door string) string {
	sc.t.Helper()
	m := regexp.MustCompile(`door=` + door + ` address=(\S+)`).FindStringSubmatch(sc.logs.String())
	if m == nil {
		sc.t.Fatalf("there is no listener %s", door)
	}
	return m[1]
}

// token gives the token in a file of the configuration's directory.
func (sc *sidecar) token(file string) string {
	sc.t.Helper()
	text, err := os.ReadFile(filepath.Join(sc.dir, file))
	if err != nil {
		sc.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// ask sends one request to a listener with the given headers, "Name: value" each.
func (sc *sidecar) ask(door, method, path string, headers ...string) reply {
	sc.t.Helper()
	req, err := http.NewRequestWithContext(sc.t.Context(), method, "http://"+sc.at(door)+path, http.NoBody)
	if err != nil {
		sc.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
		if name == "Host" {
			req.Host = value
		}
	}
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := transport.RoundTrip(req)
	if err != nil {
		sc.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		sc.t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, string(text)}
}

// public fails the test when one of secrets is in what the sidecar logs, audits or counts.
func (sc *sidecar) public(secrets ...string) {
	sc.t.Helper()
	counted := sc.do("GET", "/metrics", "")
	if counted.status != http.StatusOK {
		sc.t.Fatalf("the metrics: status %d", counted.status)
	}
	for name, text := range map[string]string{"the log": sc.logs.String(), "the audit log": sc.auditLog(), "the metrics": counted.body} {
		for _, secret := range append(secrets, canary) {
			if strings.Contains(text, secret) {
				sc.t.Errorf("a secret is in %s", name)
			}
		}
	}
}

const dropIns = `
  aws_agent: {listen: "127.0.0.1:0", token_file: aws.token, provider: m, consumer: app}
  vault: {listen: "127.0.0.1:0", token_file: vault.token, mounts: {kv: m}, consumer: app}
  container_credentials: {listen: "127.0.0.1:0", token_file: aws-container.token, roles: {deploy: cred://s/keys, other: cred://m/other}, consumer: app}
  tokens: {ci: ci.token}
  consumers:
    - {name: app, allow: [{provider: m, id: plain}, {provider: s, id: keys}], rate: {calls: 1000, per: 1s}}
    - {name: ci, token: ci, allow: [{provider: m, id: other}]}
`

// What each drop-in must refuse, and what it must do as the sidecar's own API does.
func TestDropInsGoTheWayOfAll(t *testing.T) {
	t.Parallel()
	var s shelf
	s.put("keys", &backend.Credential{Fields: fields("access_key_id", "AKIA-c4nary", "secret_access_key", "key-c4nary")}, nil)
	sc := startWith(t, "  s: {kind: shelf}\n", dropIns, s.kind())
	for _, d := range []struct {
		door, header, file string
		extra              []string
		good, denied       string
		refused, forbidden int // for a token that is not good, for what policy denies
	}{
		{"aws_agent", "X-Aws-Parameters-Secrets-Token: ", "aws.token", nil, "/secretsmanager/get?secretId=plain", "/secretsmanager/get?secretId=other", 403, 400},
		{"vault", "X-Vault-Token: ", "vault.token", []string{"X-Vault-Request: true"}, "/v1/kv/data/plain", "/v1/kv/data/other", 403, 403},
		{"container_credentials", "Authorization: ", "aws-container.token", nil, "/v1/credentials/deploy", "/v1/credentials/other", 401, 403},
	} {
		t.Run(d.door, func(t *testing.T) {
			sc := *sc
			sc.t = t
			own := d.header + sc.token(d.file)
			get := func(path string, headers ...string) reply {
				return sc.ask(d.door, "GET", path, append(headers, d.extra...)...)
			}
			if got := get(d.good, own); got.status != 200 || !strings.Contains(got.body, canary) || got.header.Get("Cache-Control") != "no-store" || got.header.Get("Content-Type") != "application/json" {
				t.Errorf("a good request: status %d, %v", got.status, got.header)
			}
			for name, c := range map[string]struct {
				path    string
				headers []string
				status  int
			}{
				"denied by policy":       {d.denied, []string{own}, d.forbidden},
				"no token":               {d.good, nil, d.refused},
				"a wrong token":          {d.good, []string{d.header + "c4nary-wrong"}, d.refused},
				"an empty token":         {d.good, []string{d.header}, d.refused},
				"two tokens":             {d.good, []string{own, own}, d.refused},
				"another host":           {d.good, []string{own, "Host: evil.example"}, 403},
				"another port":           {d.good, []string{own, "Host: 127.0.0.1:1"}, 403},
				"a browser":              {d.good, []string{own, "Origin: https://evil.example"}, 403},
				"a browser's fetch":      {d.good, []string{own, "Sec-Fetch-Site: cross-site"}, 403},
				"a proxy":                {d.good, []string{own, "Forwarded: for=10.0.0.1"}, 403},
				"another proxy":          {d.good, []string{own, "X-Forwarded-Host: x"}, 403},
				"the native API":         {"/v1/resolve?ref=cred%3A%2F%2Fm%2Fplain", []string{own}, map[string]int{"aws_agent": 400}[d.door]},
				"its description":        {"/openapi.json", []string{own}, 404},
				"metrics":                {"/metrics", []string{own}, 404},
				"a token of a session":   {d.good, []string{d.header + sc.session(`{"consumer":"x","allow":["cred://m/plain","cred://s/keys"]}`).Token}, 200},
				"a session without this": {d.good, []string{d.header + sc.session(`{"consumer":"x","allow":["cred://m/db"]}`).Token}, d.forbidden},
				"another named token":    {d.good, []string{d.header + sc.token("ci.token")}, d.forbidden},
				"what that one may have": {d.denied, []string{d.header + sc.token("ci.token")}, map[string]int{"container_credentials": 422}[d.door]},
			} {
				if c.status == 0 {
					c.status = map[bool]int{true: 404, false: 200}[name == "the native API"]
				}
				got := get(c.path, c.headers...)
				if got.status == http.StatusTooManyRequests && c.status == d.refused { // too many bad tokens of this test
					continue
				}
				if got.status != c.status || c.status != 200 && strings.Contains(got.body, canary) {
					t.Errorf("%s: status %d, want %d", name, got.status, c.status)
				}
			}
			for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "LIST", "OPTIONS"} {
				if got := sc.ask(d.door, method, d.good, append(d.extra, own)...); got.status != http.StatusMethodNotAllowed || strings.Contains(got.body, canary) {
					t.Errorf("%s: status %d", method, got.status)
				}
			}
			log := sc.auditLog()
			for _, want := range []string{
				`"event":"reveal"[^\n]*"consumer":"app"[^\n]*"remote":"` + d.door + `"`,
				`"event":"denial"[^\n]*"consumer":"app"[^\n]*"remote":"` + d.door + `"`,
				`"event":"denial"[^\n]*"remote":"` + d.door + `"[^\n]*no identity`,
			} {
				if !regexp.MustCompile(want).MatchString(log) {
					t.Errorf("the audit log has no line like %s", want)
				}
			}
			sc.public(sc.token(d.file), sc.token("ci.token"))
		})
	}
	counted := sc.do("GET", "/metrics", "").body
	for _, path := range []string{awsQueryPath, vaultSecretPath, containerPath} {
		if !strings.Contains(counted, `"`+path+`"`) {
			t.Errorf("the metrics do not count %s", path)
		}
	}
}

// The consumer, the provider, mounts and roles of a drop-in are those of the configuration that holds now.
func TestDropInsFollowAReload(t *testing.T) {
	t.Parallel()
	var s shelf
	s.put("keys", &backend.Credential{Fields: fields("access_key_id", "AKIA-c4nary", "secret_access_key", "key-c4nary")}, nil)
	sc := startWith(t, "  s: {kind: shelf}\n", dropIns, s.kind())
	headers := []string{"X-Vault-Request: true", "X-Vault-Token: " + sc.token("vault.token")}
	if got := sc.ask("vault", "GET", "/v1/kv/data/other", headers...); got.status != 403 {
		t.Errorf("before: status %d", got.status)
	}
	sc.configure(providers+"  s: {kind: shelf}\n", strings.NewReplacer("{kv: m}, consumer: app", "{secret: m}, consumer: ci").Replace(dropIns))
	if got := sc.do("POST", "/v1/reload", "{}"); got.status != 200 {
		t.Fatalf("the reload: status %d: %s", got.status, got.body)
	}
	for path, want := range map[string]int{"/v1/secret/data/other": 200, "/v1/secret/data/plain": 403, "/v1/kv/data/other": 404} {
		if got := sc.ask("vault", "GET", path, headers...); got.status != want {
			t.Errorf("after, %s: status %d, want %d", path, got.status, want)
		}
	}
}

// Overload, a consumer's rate and a store that fails are told in the words of each protocol.
func TestDropInsTellOfFailure(t *testing.T) {
	t.Parallel()
	var s shelf
	for id, code := range map[string]backend.Code{
		"denied": backend.CodeDenied, "invalid": backend.CodeInvalidID, "unavailable": backend.CodeUnavailable,
		"auth": backend.CodeAuthRequired, "locked": backend.CodeLocked, "expired": backend.CodeExpired, "internal": backend.CodeInternal,
	} {
		s.put(id, nil, &backend.Error{Code: code, Reason: "it is so"})
	}
	s.put("throttled", nil, &backend.Error{Code: backend.CodeThrottled, Reason: "it is so", RetryAfter: 7 * time.Second})
	more, roles, mounts := "", "", ""
	for i, id := range []string{"missing", "denied", "invalid", "auth", "locked", "expired", "internal", "throttled", "unavailable"} {
		// One for each, and none like another, since failures of a store are remembered.
		more += fmt.Sprintf("  %s: {kind: shelf, limits: {retries: 0, concurrency: %d}}\n", id, i+1)
		roles += id + ": cred://" + id + "/" + id + ", "
		mounts += "kv/" + id + ": " + id + ", "
	}
	sc := startWith(t, more, `
  aws_agent: {listen: "127.0.0.1:0", token_file: aws.token, provider: m}
  vault: {listen: "127.0.0.1:0", token_file: vault.token, mounts: {`+mounts+`}}
  container_credentials: {listen: "127.0.0.1:0", token_file: aws-container.token, roles: {`+roles+`}}
`, s.kind())
	for _, c := range []struct {
		id               string
		aws              int
		awsName          string
		vault, container int
	}{
		{"missing", 400, "ResourceNotFoundException", 404, 404},
		{"denied", 400, "AccessDeniedException", 403, 403},
		{"invalid", 400, "InvalidParameterException", 400, 422},
		{"auth", 400, "UnrecognizedClientException", 502, 401},
		{"locked", 400, "UnrecognizedClientException", 502, 423},
		{"expired", 400, "InvalidRequestException", 404, 410},
		{"internal", 500, "InternalFailure", 500, 500},
		{"throttled", 429, "ThrottlingException", 429, 429},
		{"unavailable", 502, "ConnectionError", 503, 503},
	} {
		got := sc.ask("aws_agent", "GET", "/secretsmanager/get?secretId=cred%3A%2F%2F"+c.id+"%2F"+c.id, "X-Aws-Parameters-Secrets-Token: "+sc.token("aws.token"))
		var aws struct {
			Type    string `json:"__type"`
			Message string `json:"message"`
		}
		if got.json(t, &aws); got.status != c.aws || aws.Type != c.awsName || (aws.Message == "") != (c.id == "internal") {
			t.Errorf("the AWS agent, %s: status %d, %s", c.id, got.status, got.body)
		}
		if c.id == "throttled" && got.header.Get("Retry-After") == "" {
			t.Error("the AWS agent does not say when to come again")
		}
		got = sc.ask("vault", "GET", "/v1/kv/"+c.id+"/data/"+c.id, "X-Vault-Request: true", "X-Vault-Token: "+sc.token("vault.token"))
		var vault struct{ Errors []string }
		if got.json(t, &vault); got.status != c.vault || vault.Errors == nil || (len(vault.Errors) == 0) != (c.id == "missing") {
			t.Errorf("Vault, %s: status %d, %s", c.id, got.status, got.body)
		}
		if c.id == "throttled" && got.header.Get("Retry-After") == "" {
			t.Error("Vault does not say when to come again")
		}
		got = sc.ask("container_credentials", "GET", "/v1/credentials/"+c.id, "Authorization: "+sc.token("aws-container.token"))
		var container struct{ Code, Message string }
		if got.json(t, &container); got.status != c.container || container.Code == "" || container.Message == "" {
			t.Errorf("the container endpoint, %s: status %d, %s", c.id, got.status, got.body)
		}
	}
}
