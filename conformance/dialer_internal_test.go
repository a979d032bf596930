package conformance

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// echo answers every connection with hello, and reads until its end.
func echo(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Skipf("needs a %s socket: allow this process to listen", network)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = c.Write([]byte("hello"))
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}()
	return l
}

func testDialer(t *testing.T) *Dialer {
	d := newDialer(&recorder{name: t.Name(), ctx: t.Context(), canaries: new(canaries)}, nil)
	t.Cleanup(d.close)
	return d
}

// talk says something, and gives the answer until its end or 100 ms.
func talk(t *testing.T, c net.Conn, err error) (string, error) {
	t.Helper()
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
	_, _ = c.Write([]byte("anyone?"))
	closeWrite(c)
	text, err := io.ReadAll(c)
	return string(text), err
}

func TestDialerPassesOn(t *testing.T) {
	t.Parallel()
	tcp := echo(t, "tcp", "127.0.0.1:0").Addr().String()
	unix := echo(t, "unix", filepath.Join(t.TempDir(), "sock")).Addr().String()
	d := testDialer(t)
	var direct net.Dialer
	c, err := direct.DialContext(t.Context(), "tcp", d.Through(tcp))
	if got, err := talk(t, c, err); got != "hello" || err != nil {
		t.Errorf("through an address: %q, %v", got, err)
	}
	for network, address := range map[string]string{"tcp": tcp, "unix": unix} {
		c, err := d.DialContext(t.Context(), network, address)
		if got, err := talk(t, c, err); got != "hello" || err != nil {
			t.Errorf("over %s: %q, %v", network, got, err)
		}
	}
	if n := d.accepted.Load(); n != 3 {
		t.Errorf("%d connections were counted, want 3", n)
	}
}

func TestDialerBreaks(t *testing.T) {
	t.Parallel()
	address := echo(t, "tcp", "127.0.0.1:0").Addr().String()
	d := testDialer(t)
	for name, c := range map[string]struct {
		kind lineKind
		ok   func(got string, err error) bool
	}{
		"refuse":    {lineRefuse, func(got string, err error) bool { return got == "" && err != nil }},
		"reset":     {lineReset, func(got string, err error) bool { return got == "" && err != nil }},
		"half-open": {lineHalfOpen, func(got string, err error) bool { return got == "" }},
		"truncate":  {lineTruncate, func(got string, err error) bool { return got == "he" }},
		"garbage":   {lineGarbage, func(got string, err error) bool { return len(got) == noiseSize }},
		"slow":      {lineSlow, func(got string, err error) bool { return got == "hello" && err == nil }},
		"pass":      {linePass, func(got string, err error) bool { return got == "hello" && err == nil }},
	} {
		left := new(atomic.Int64)
		left.Store(2)
		d.set(line{kind: c.kind, left: left})
		conn, err := d.DialContext(t.Context(), "tcp", address)
		if got, err := talk(t, conn, err); !c.ok(got, err) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

func TestDialerEndsConnectionsWhenTheLineBreaks(t *testing.T) {
	t.Parallel()
	d := testDialer(t)
	c, err := d.DialContext(context.Background(), "tcp", echo(t, "tcp", "127.0.0.1:0").Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	var hello [5]byte
	if _, err := io.ReadFull(c, hello[:]); err != nil {
		t.Fatal(err)
	}
	d.set(line{kind: lineHalfOpen})
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	if _, err := c.Read(hello[:]); err == nil || isTimeout(err) {
		t.Errorf("a connection that was there goes on: %v", err)
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}
