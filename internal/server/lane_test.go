package server

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// What the lane takes for a request, net/http takes for the same.
func FuzzLane(f *testing.F) {
	for _, seed := range []string{
		get + "\r\n",
		get + "User-Agent: curl/8\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n",
		"GET /v1/resolve?ref=a%20b&x=%zz HTTP/1.1\r\nhost: a.b:80\r\nIF-NONE-MATCH: \"x\", W/\"y\" \r\n\r\n",
		"GET /v1/resolve?a#b HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /v1/resolve?a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"GET /v1/resolve?a HTTP/1.1\r\nHost: a\r\nAuthorization:  Bearer x\t\r\n\r\n",
		"GET /v1/resolve?a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
		"GET /v1/resolve?a HTTP/1.1\r\nHost: a\r\nAccept: a\nB: c\r\n\r\n",
		"GET /v1/resolve?a  HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /v1/resolve?a HTTP/1.1\r\nHost : a\r\n\r\n",
		"GET /v1/resolve?a HTTP/1.1\r\n Host: a\r\n\r\n",
		"GET /v1/resolve? HTTP/1.1\r\nHost: a\r\nAccept:\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		end := bytes.Index(head, []byte("\r\n\r\n"))
		if end < 0 {
			return
		}
		head = head[:end+4]
		lc := &laneConn{ctx: context.Background()}
		if !lc.parse(head) {
			return
		}
		got := lc.request
		want, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", head, err)
		}
		if got.Method != want.Method || got.URL.String() != want.URL.String() || got.URL.Path != want.URL.Path || got.URL.RawQuery != want.URL.RawQuery ||
			got.Host != want.Host || got.RequestURI != want.RequestURI || !reflect.DeepEqual(got.Header, want.Header) || want.ContentLength != 0 || want.TransferEncoding != nil || want.Close {
			t.Fatalf("%q is\n%+v to the lane,\n%+v to net/http", head, got, want)
		}
	})
}

func TestLaneTakesThePlainRequest(t *testing.T) {
	t.Parallel()
	for head, taken := range map[string]bool{
		get + "\r\n": true,
		get + "User-Agent: Go-http-client/1.1\r\nX-Credresolve-Request: 1\r\nAccept-Encoding: gzip\r\n\r\n": true,
		get + "User-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n":                                              true,
		get + "Accept-Encoding: identity\r\n\r\n":                                                           true,
		get + "If-None-Match: \"x\"\r\nAuthorization: Bearer x\r\n\r\n":                                     true,
		get + "Content-Length: 0\r\n\r\n":                                                                   false,
		get + "Transfer-Encoding: chunked\r\n\r\n":                                                          false,
		get + "Connection: close\r\n\r\n":                                                                   false,
		get + "Connection: Upgrade\r\n\r\n":                                                                 false,
		get + "X-Forwarded-For: a\r\n\r\n":                                                                  false,
		get + "Host: b\r\n\r\n":                                                                             false,
		get + "Accept: a\r\nAccept: b\r\n\r\n":                                                              false,
		strings.Replace(get, "HTTP/1.1", "HTTP/1.0", 1) + "\r\n":                                            false,
		strings.Replace(get, "GET", "HEAD", 1) + "\r\n":                                                     false,
		"GET /v1/resolve?ref=x HTTP/1.1\r\n\r\n":                                                            false,
	} {
		lc := &laneConn{ctx: context.Background()}
		if got := lc.parse([]byte(head)); got != taken {
			t.Errorf("%q: taken %t, want %t", head, got, taken)
		}
	}
}

// One connection changes from the lane to net/http in the middle, and whoever uses it sees no difference.
func TestConnectionLeavesTheLane(t *testing.T) {
	t.Parallel()
	sc := start(t, "")
	body := `{"refs":[{"provider":"m","id":"plain"}]}`
	post := fmt.Sprintf("POST /v1/resolve HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	for name, pieces := range map[string][]string{
		"one after another": {get + "\r\n", get + "\r\n", post, get + "\r\n"},
		"at once":           {get + "\r\n" + get + "\r\n" + post + get + "\r\n"},
		"in odd pieces":     {get[:30], get[30:] + "\r", "\n" + get, "\r\n" + post[:50], post[50:] + get + "\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("unix", sc.socket)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			go func() {
				for _, p := range pieces {
					if _, err := io.WriteString(c, p); err != nil {
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
			}()
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			r := bufio.NewReader(c)
			for i := range 4 {
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatalf("answer %d: %v", i, err)
				}
				text, err := io.ReadAll(res.Body)
				if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(text), "plain-"+canary) || res.Header.Get("Date") == "" || res.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("answer %d: status %d, %v", i, res.StatusCode, err)
				}
			}
		})
	}
}

// Idle connections do not hold up the end; their descriptors go with them.
func TestStopEndsIdleConnections(t *testing.T) {
	t.Parallel()
	sc := start(t, "  grace: 1m\n")
	var conns []net.Conn
	for i := range 20 {
		c, err := net.Dial("unix", sc.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
		if i%2 == 0 {
			continue // never sends anything
		}
		if _, err := io.WriteString(c, get+"\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if err := sc.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	for i, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}
