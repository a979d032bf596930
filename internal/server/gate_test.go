package server

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A store that hangs keeps nobody from what is there, whatever many wait for it, and those who went away wait no longer.
func TestHungStoreTakesNoPlaces(t *testing.T) {
	t.Parallel()
	g := &gated{open: make(chan struct{})}
	sc := start(t, "  limits: {requests: 2, queue: 8}\n", g.kind())
	sc.configure(providers+"  g: {kind: gated}\n", "  limits: {requests: 2, queue: 8}\n")
	if got := sc.do("POST", "/v1/reload", "{}"); got.status != http.StatusOK {
		t.Fatalf("status %d", got.status)
	}
	if got := sc.do("GET", "/v1/resolve?ref=cred://m/plain", ""); got.status != http.StatusOK {
		t.Fatalf("status %d", got.status)
	}
	var waiting []net.Conn
	ask := func(request string) {
		c, err := net.Dial("unix", sc.socket)
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, c)
		if _, err := c.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
	}
	fetches := func() int64 { return sc.server.state.Load().gate.fetches.Load() }
	for range 4 {
		ask("GET /v1/resolve?ref=cred://g/x HTTP/1.1\r\nHost: x\r\n\r\n")
		ask("GET /v1/resolve?ref=cred://g/y HTTP/1.1\r\nHost: x\r\nX-Not-Plain: 1\r\n\r\n") // net/http's
	}
	eventually(t, "eight wait for the store", func() bool { return fetches() == 8 })
	for range 3 {
		if got := sc.do("GET", "/v1/resolve?ref=cred://m/plain", ""); got.status != http.StatusOK {
			t.Fatalf("what is there: status %d", got.status)
		}
	}
	if got := sc.do("GET", "/v1/resolve?ref=cred://g/z", ""); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
		t.Errorf("one more that would wait: status %d, Retry-After %q", got.status, got.header.Get("Retry-After"))
	}
	_ = waiting[0].(*net.UnixConn).CloseWrite() // it still waits for its answer
	for _, c := range waiting[1:] {
		_ = c.Close()
	}
	eventually(t, "those who went away wait no longer", func() bool { return fetches() == 1 })
	close(g.open)
	_ = waiting[0].SetReadDeadline(time.Now().Add(10 * time.Second))
	var head [12]byte
	if _, err := waiting[0].Read(head[:]); err != nil || string(head[:]) != "HTTP/1.1 200" {
		t.Errorf("who only ended what it sends got %q: %v", head, err)
	}
	_ = waiting[0].Close()
	eventually(t, "nobody waits", func() bool { return fetches() == 0 })
}

// A client that does not read its answer has no place meanwhile.
func TestSlowReaderTakesNoPlace(t *testing.T) {
	t.Parallel()
	sc := start(t, "  limits: {requests: 1}\n")
	sc.write("conf.json", `{"a": "`+strings.Repeat("c4nary", 400)+`"}`) // the answer is more than the kernel keeps for who does not read
	const ref = `{"provider":"conf","id":"/a"}`
	body := `{"refs":[` + ref
	for range 999 {
		body += "," + ref
	}
	body += "]}"
	head := "POST /v1/resolve HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
	for range 4 {
		c, err := net.Dial("unix", sc.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte(head + strconv.Itoa(len(body)) + "\r\n\r\n" + body)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 12)); err != nil { // it is being answered
			t.Fatal(err)
		}
	}
	if got := sc.do("GET", "/v1/resolve?ref=cred://m/plain", ""); got.status != http.StatusOK {
		t.Errorf("another: status %d", got.status)
	}
}
