package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// raw sends text as it is, on a connection of its own, and gives all that comes back until the sidecar closes or is silent
// for patience.
func (sc *sidecar) raw(patience time.Duration, text ...string) string {
	sc.t.Helper()
	c, err := net.Dial("unix", sc.socket)
	if err != nil {
		sc.t.Fatal(err)
	}
	defer c.Close()
	for _, part := range text {
		if _, err := io.WriteString(c, part); err != nil {
			break // it need not read to the end
		}
	}
	var out strings.Builder
	buf := make([]byte, 4096)
	for {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		n, err := c.Read(buf)
		out.Write(buf[:n])
		if err != nil {
			return out.String()
		}
	}
}

const get = "GET /v1/resolve?ref=cred%3A%2F%2Fm%2Fplain HTTP/1.1\r\nHost: localhost\r\n"

// What HTTP servers were broken with: each is refused, or answered as the one request that it is.
func TestHostileHTTP(t *testing.T) {
	t.Parallel()
	sc := start(t, "")
	body := `{"refs":[{"provider":"m","id":"plain"}]}`
	post := "POST /v1/resolve HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
	for name, c := range map[string]struct {
		text    string
		answers int    // with a value
		status  string // of the first answer, empty: none
	}{
		"a request":                       {get + "\r\n", 1, "200"},
		"pipelined":                       {strings.Repeat(get+"\r\n", 20), 20, "200"},
		"length and chunks":               {post + fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%s\r\n", 5, get), 0, "400"},
		"chunks by another name":          {post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + get + "\r\n", 0, "501"},
		"chunks, hidden":                  {post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 0, "400"},
		"two lengths":                     {post + fmt.Sprintf("Content-Length: %d\r\nContent-Length: 5\r\n\r\n%s", len(body), body), 0, "400"},
		"a negative length":               {post + "Content-Length: -1\r\n\r\n" + body, 0, "400"},
		"a length with a sign":            {post + fmt.Sprintf("Content-Length: +%d\r\n\r\n%s", len(body), body), 0, "400"},
		"a line feed in a name":           {get + "X-A\nB: c\r\n\r\n", 0, "400"},
		"a NUL in a value":                {get + "X-A: a\x00b\r\n\r\n", 0, "400"},
		"a folded header":                 {get + "X-A: a\r\n Authorization: Bearer x\r\n\r\n", 1, "200"},
		"no host":                         {"GET /v1/providers HTTP/1.1\r\n\r\n", 0, "400"},
		"two hosts":                       {get + "Host: evil\r\n\r\n", 0, "400"},
		"another scheme":                  {"GET http://evil/v1/resolve HTTP/1.1\r\nHost: evil\r\n\r\n", 0, "400"},
		"CONNECT":                         {"CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n", 0, "404"},
		"HTTP/0.9":                        {"GET /v1/resolve\r\n", 0, "400"},
		"garbage":                         {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03c4nary\r\n\r\n", 0, "400"},
		"a huge head":                     {get + "X-A: " + strings.Repeat("a", 64<<10) + "\r\n\r\n", 0, "431"},
		"many headers":                    {get + strings.Repeat("X-A: a\r\n", 8<<10) + "\r\n", 0, "431"},
		"a huge target":                   {"GET /v1/resolve?ref=" + strings.Repeat("a", 64<<10) + " HTTP/1.1\r\nHost: localhost\r\n\r\n", 0, "431"},
		"chunks":                          {post + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body), 1, "200"},
		"chunks without an end":           {post + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n" + body, 0, ""},
		"a body larger than its length":   {post + fmt.Sprintf("Content-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body+get), 1, "200"},
		"a path with dots":                {"GET /v1/../v1/providers HTTP/1.1\r\nHost: localhost\r\n\r\n", 0, "404"},
		"an encoded path":                 {"GET /v1%2Fproviders HTTP/1.1\r\nHost: localhost\r\n\r\n", 0, ""},
		"an upgrade that nobody asked of": {get + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 1, "200"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sc := *sc
			sc.t = t
			got := sc.raw(2*time.Second, c.text)
			if n := strings.Count(got, "plain-"+canary); n != c.answers {
				t.Errorf("%d values came back, want %d", n, c.answers)
			}
			if status, _, _ := strings.Cut(strings.TrimPrefix(got, "HTTP/1.1 "), " "); c.status != "" && status != c.status && !strings.HasPrefix(status, c.status) {
				t.Errorf("status %.20q, want %s", status, c.status)
			}
		})
	}
	t.Cleanup(func() { sc.alive() })
}

// alive fails the test when the sidecar does not answer.
func (sc *sidecar) alive() {
	sc.t.Helper()
	if got := sc.raw(2*time.Second, get+"Connection: close\r\n\r\n"); !strings.Contains(got, "plain-"+canary) {
		sc.t.Errorf("the sidecar no longer answers")
	}
}

// A client that sends its head a byte at a time loses its connection; one that has closed its side is answered.
func TestSlowAndHalfClosedClients(t *testing.T) {
	t.Parallel()
	sc := start(t, "  limits: {connections: 4}\n")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			c, err := net.Dial("unix", sc.socket)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			began := time.Now()
			for _, b := range []byte(get + strings.Repeat("x", 1000)) {
				if _, err := c.Write([]byte{b}); err != nil {
					break
				}
				time.Sleep(50 * time.Millisecond)
				if time.Since(began) > 20*time.Second {
					t.Error("a head that takes for ever is awaited for ever")
					return
				}
			}
		})
	}
	wg.Wait()
	c, err := net.Dial("unix", sc.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, get+"\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	// It counts as gone for what would have to be waited for, and is told so.
	if got, _ := io.ReadAll(c); !strings.HasPrefix(string(got), "HTTP/1.1 200 ") && !strings.Contains(string(got), `"code":"canceled"`) {
		t.Error("a client that has closed its side is not answered")
	}
	sc.alive()
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	sc := start(t, "")
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", sc.socket)
	}}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			res, err := c.Get("http://localhost/v1/resolve?ref=" + escape("cred://m/plain"))
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if text, err := io.ReadAll(res.Body); err != nil || res.ProtoMajor != 2 || !strings.Contains(string(text), "plain-"+canary) {
				t.Errorf("HTTP/%d, status %d, %v", res.ProtoMajor, res.StatusCode, err)
			}
		})
	}
	wg.Wait()
}

// Beyond its connections the sidecar still answers for its health, and says what is the matter to everybody else.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	sc := start(t, "  limits: {connections: 3}\n")
	for range 3 {
		c, err := net.Dial("unix", sc.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, get+"\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := sc.do("GET", "/livez", ""); got.status != http.StatusOK {
		t.Errorf("health: status %d", got.status)
	}
	if got := sc.do("GET", "/v1/resolve?ref="+escape("cred://m/plain"), ""); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
		t.Errorf("a request: status %d", got.status)
	}
}
