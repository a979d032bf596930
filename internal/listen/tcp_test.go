package listen

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/backend"
)

func TestTCP(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1:0", "127.3.2.1:0", "localhost:0", "[::1]:0", "[::ffff:127.0.0.1]:0"} {
		t.Run(address, func(t *testing.T) {
			l, err := TCP(address)
			if err != nil && strings.Contains(address, "::1") {
				t.Skipf("needs IPv6 on loopback: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if a := l.Addr().(*net.TCPAddr); !a.IP.IsLoopback() || a.Port == 0 {
				t.Errorf("listens on %v", a)
			}
			again, err := TCP(l.Addr().String())
			if backend.CodeOf(err) != backend.CodeUnavailable || !strings.Contains(err.Error(), "another process listens") {
				t.Errorf("the same address again: %v, %v", again, err)
			}
		})
	}
}

func TestTCPRefuses(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"", ":0", ":8270", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:http", "0.0.0.0:0", "[::]:0", "10.1.2.3:0",
		"192.0.2.1:0", "[fe80::1]:0", "[2001:db8::1]:0", "[::ffff:192.0.2.1]:0", "no-such-host.invalid:0", "127.1:0:0",
	} {
		t.Run(address, func(t *testing.T) {
			l, err := TCP(address)
			if err == nil {
				_ = l.Close()
				t.Fatalf("listens on %v", l.Addr())
			}
			if e, ok := errors.AsType[*backend.Error](err); !ok || e.Code != backend.CodeInvalidConfig || e.Remedy == "" {
				t.Errorf("%s: %v; want invalid_config and a remedy", backend.CodeOf(err), err)
			}
		})
	}
}
