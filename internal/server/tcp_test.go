package server

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
)

// Over TCP each request brings the token and a header that browsers do not send, to the host that it means.
func TestTCP(t *testing.T) {
	t.Parallel()
	sc := start(t, "  tcp: {listen: \"127.0.0.1:0\", token_file: tcp.token}\n")
	m := regexp.MustCompile(`door=tcp address=(\S+)`).FindStringSubmatch(sc.logs.String())
	if m == nil {
		t.Fatal("the log does not tell the address")
	}
	address := m[1]
	file := filepath.Join(sc.dir, "tcp.token")
	token, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 || len(token) < 40 {
		t.Errorf("the token file has %d bytes and %v, %v", len(token), st.Mode(), err)
	}
	bearer := "Bearer " + strings.TrimSpace(string(token))
	do := func(host string, header map[string]string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+address+"/v1/resolve?ref="+escape("cred://m/plain"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		for name, value := range header {
			req.Header.Set(name, value)
		}
		res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || strings.Contains(string(text), canary) != (res.StatusCode == http.StatusOK) {
			t.Errorf("status %d with a value, or without: %v", res.StatusCode, err)
		}
		if res.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Error("browsers of other sites are let in")
		}
		return res.StatusCode
	}
	_, port, _ := net.SplitHostPort(address)
	good := map[string]string{"Authorization": bearer, client.RequestHeader: "1"}
	with := func(name, value string) map[string]string {
		out := map[string]string{name: value}
		for n, v := range good {
			if n != name {
				out[n] = v
			}
		}
		if value == "" {
			delete(out, name)
		}
		return out
	}
	for name, c := range map[string]struct {
		host   string
		header map[string]string
		status int
	}{
		"all is there":    {address, good, 200},
		"by name":         {"localhost:" + port, good, 200},
		"no header":       {address, with(client.RequestHeader, ""), 403},
		"another host":    {"evil.example:" + port, good, 403},
		"another port":    {"127.0.0.1:1", good, 403},
		"no port":         {"127.0.0.1", good, 403},
		"a proxy":         {address, with("X-Forwarded-For", "10.0.0.1"), 403},
		"a proxy's proxy": {address, with("X-Forwarded-Whatever", "x"), 403},
		"a browser":       {address, with("Origin", "http://"+address), 403},
	} {
		if got := do(c.host, c.header); got != c.status {
			t.Errorf("%s: status %d, want %d", name, got, c.status)
		}
	}
	// Bad tokens are slowed down; a good one is not.
	var statuses []int
	for range 8 {
		statuses = append(statuses, do(address, with("Authorization", "Bearer c4nary-wrong")))
	}
	if statuses[0] != http.StatusUnauthorized || statuses[7] != http.StatusTooManyRequests {
		t.Errorf("bad tokens are answered with %v", statuses)
	}
	if got := do(address, with("Authorization", "")); got != http.StatusTooManyRequests && got != http.StatusUnauthorized {
		t.Errorf("no token: status %d", got)
	}
	if got := do(address, good); got != http.StatusOK {
		t.Errorf("a good token after bad ones: status %d", got)
	}
	c, err := client.New(client.Config{Address: "http://" + address, Token: backend.Literal(backend.NewSecret([]byte(strings.TrimSpace(string(token)))))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if v, err := c.Resolve(context.Background(), refOf("cred://m/plain")); err != nil || string(v.Secret().Reveal()) != "plain-c4nary" {
		t.Errorf("the client: %v", err)
	}
	if strings.Contains(sc.auditLog(), strings.TrimSpace(string(token))) || strings.Contains(sc.logs.String(), strings.TrimSpace(string(token))) {
		t.Error("the token is in a log")
	}
}
