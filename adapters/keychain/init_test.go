package keychain

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/backend"
)

// childVariable makes this test program a program that links the adapter and does what its value says.
const childVariable = "CREDRESOLVE_KEYCHAIN_CHILD"

const busVariable = "DBUS_SESSION_BUS_ADDRESS"

// child tells the address of the bus as main and a child of it see it, after it has used a store that is no keychain.
func child() int {
	m, err := memory.New(memory.Config{Values: map[string]string{"a": "b"}})
	if err != nil {
		return 1
	}
	if _, err := m.Get(context.Background(), backend.Request{ID: "a"}); err != nil {
		return 1
	}
	address, set := os.LookupEnv(busVariable)
	fmt.Printf("main %v %s\n", set, address)
	out, err := exec.Command("/bin/sh", "-c", `echo "child ${`+busVariable+`-unset}"`).Output()
	if err != nil {
		return 1
	}
	fmt.Printf("%s", out)
	return 0
}

// silentBus accepts connections, counts them, and never says anything.
func silentBus(t testing.TB) (address string, connections *atomic.Int32) {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "bus")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	connections = new(atomic.Int32)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var open []net.Conn
		for {
			conn, err := listener.Accept()
			if err != nil {
				for _, conn := range open {
					_ = conn.Close()
				}
				return
			}
			connections.Add(1)
			open = append(open, conn)
		}
	}()
	t.Cleanup(func() { _ = listener.Close(); <-done })
	return "unix:path=" + socket, connections
}

// A program that links the adapter must start at once whatever the bus does, and leave the bus alone while nobody uses a
// keychain.
func TestStart(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux: the library dials the bus nowhere else")
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	address, connections := silentBus(t)
	for name, test := range map[string]struct {
		env  []string
		want string
	}{
		"a bus that never answers": {[]string{busVariable + "=" + address}, "main true " + address + "\nchild " + address + "\n"},
		"no bus":                   {nil, "main false \nchild unset\n"},
		"an empty address":         {[]string{busVariable + "="}, "main true \nchild \n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, program)
			cmd.Env = append([]string{childVariable + "=1", "GODEBUG=inittrace=1"}, test.env...)
			var trace strings.Builder
			cmd.Stderr = &trace
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("the program did not start: %v", err)
			}
			if string(out) != test.want {
				t.Errorf("the environment is %q, want %q", out, test.want)
			}
			hides := strings.Index(trace.String(), "init github.com/credresolve/credresolve/internal/sessionbus @")
			dials := strings.Index(trace.String(), "init github.com/99designs/keyring @")
			if hides < 0 || dials < 0 || hides > dials {
				t.Errorf("sessionbus is not initialised before the library: %d, %d", hides, dials)
			}
		})
	}
	t.Cleanup(func() {
		if n := connections.Load(); n != 0 {
			t.Errorf("%d connections to the bus", n)
		}
	})
}
