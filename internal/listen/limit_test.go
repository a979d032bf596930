package listen

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// dialer dials l, and gives both ends; the second is nil where the connection was closed at once.
func dialer(t *testing.T, l net.Listener) func() (client, server net.Conn) {
	t.Helper()
	accepted := make(chan net.Conn)
	var serving sync.WaitGroup
	serving.Go(func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := c.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			accepted <- c
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return func() (net.Conn, net.Conn) {
		client, err := net.Dial(l.Addr().Network(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		if err := client.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("a connection too many: %v, want its end", err)
			}
			return client, nil
		}
		server := <-accepted
		t.Cleanup(func() { _ = server.Close() })
		return client, server
	}
}

func (l *limited) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken + l.reserved
}

func limitOf(t *testing.T, max, reserve int) (l *limited, dial func() (client, server net.Conn)) {
	t.Helper()
	raw, err := TCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l = Limit(raw, max, reserve).(*limited)
	return l, dialer(t, l)
}

func TestLimit(t *testing.T) {
	t.Parallel()
	l, dial := limitOf(t, 2, 1)
	_, first := dial()
	_, second := dial()
	_, third := dial()
	if first == nil || second == nil || third == nil {
		t.Fatal("a connection within the limit was refused")
	}
	if IsReserve(first) || IsReserve(second) || !IsReserve(third) {
		t.Errorf("in the reserve: %v, %v, %v; want the third alone", IsReserve(first), IsReserve(second), IsReserve(third))
	}
	for range 3 {
		if _, c := dial(); c != nil {
			t.Fatal("a connection beyond the limit was let in")
		}
	}
	_ = first.Close()
	_ = first.Close() // gives up one place alone
	if IsReserve(third) {
		t.Error("a place became free, and the third is still in the reserve")
	}
	_, fourth := dial()
	if fourth == nil || !IsReserve(fourth) {
		t.Error("the fourth is not in the reserve that the third left")
	}
	if _, c := dial(); c != nil {
		t.Fatal("a connection beyond the limit was let in")
	}
	for _, c := range []net.Conn{second, third, fourth} {
		_ = c.Close()
	}
	if n := l.open(); n != 0 {
		t.Errorf("%d places are taken by nobody", n)
	}
	if _, c := dial(); c == nil || IsReserve(c) {
		t.Error("the first connection after all is not an ordinary one")
	}
}

func TestConnectionsOfALimit(t *testing.T) {
	t.Parallel()
	_, dial := limitOf(t, 1, 0)
	client, server := dial()
	if _, ok := Underlying(server).(*net.TCPConn); !ok {
		t.Errorf("underlying is a %T", Underlying(server))
	}
	if Underlying(client) != client || IsReserve(client) {
		t.Error("a connection of no Limit is not as it is")
	}
	if err := server.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after CloseWrite the client reads %v", err)
	}
	if _, err := client.Write([]byte("y")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
		t.Errorf("after CloseWrite the server reads %v", err)
	}
}

func TestLimitUnderAServer(t *testing.T) {
	t.Parallel()
	raw, err := TCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Limit(raw, 8, 2).(*limited)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			transport := &http.Transport{DisableKeepAlives: true}
			defer transport.CloseIdleConnections()
			for range 10 {
				r, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Get("http://" + raw.Addr().String())
				if err == nil {
					_ = r.Body.Close()
				} else if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
					t.Error("a client waited")
				}
			}
		})
	}
	all.Wait()
	_ = server.Close()
	serving.Wait()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		left := l.open()
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d places are taken by nobody", left)
		}
	}
}
