package sdnotify_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/sdnotify"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func lookup(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

// manager listens as a service manager does, and gives the next message.
func manager(t *testing.T, address string) (next func() string) {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return func() string {
		t.Helper()
		buf := make([]byte, 4096)
		if err := l.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := l.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestMessages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, address := range []string{filepath.Join(dir, "notify"), "@" + filepath.Base(dir) + strconv.Itoa(os.Getpid())} {
		t.Run(address[:1], func(t *testing.T) {
			next := manager(t, address)
			n := sdnotify.New(lookup(map[string]string{"NOTIFY_SOCKET": address}))
			for _, c := range []struct {
				name string
				say  func() error
				want string
			}{
				{"ready", n.Ready, "READY=1"},
				{"stopping", n.Stopping, "STOPPING=1"},
				{"alive", n.Alive, "WATCHDOG=1"},
				{"status", func() error { return n.Status("3 providers, 1 held") }, "STATUS=3 providers, 1 held"},
				{"status of several lines", func() error { return n.Status("a\nREADY=1\r\n\x00b") }, "STATUS=a READY=1   b"},
				{"status that is no text", func() error { return n.Status("a\xffb") }, "STATUS=a?b"},
				{"long status", func() error { return n.Status(strings.Repeat("é", 300) + "x") }, "STATUS=" + strings.Repeat("é", 256)},
				{"long status, cut within a character", func() error { return n.Status("x" + strings.Repeat("é", 300)) }, "STATUS=x" + strings.Repeat("é", 255)},
			} {
				if err := c.say(); err != nil {
					t.Errorf("%s: %v", c.name, err)
				} else if got := next(); got != c.want {
					t.Errorf("%s: %q, want %q", c.name, got, c.want)
				}
			}
			var before, after unix.Timespec
			if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &before); err != nil {
				t.Fatal(err)
			}
			if err := n.Reloading(); err != nil {
				t.Fatal(err)
			}
			if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &after); err != nil {
				t.Fatal(err)
			}
			state, when, _ := strings.Cut(next(), "\nMONOTONIC_USEC=")
			us, err := strconv.ParseInt(when, 10, 64)
			if state != "RELOADING=1" || err != nil || us < before.Nano()/1000 || us > after.Nano()/1000 {
				t.Errorf("reloading: %q at %q, between %d and %d", state, when, before.Nano()/1000, after.Nano()/1000)
			}
		})
	}
}

func TestNobodyAsks(t *testing.T) {
	t.Parallel()
	for _, env := range []map[string]string{{}, {"NOTIFY_SOCKET": ""}, {"WATCHDOG_USEC": "1000"}} {
		n := sdnotify.New(lookup(env))
		if err := errors.Join(n.Ready(), n.Reloading(), n.Stopping(), n.Status("x"), n.Alive()); err != nil {
			t.Error(err)
		}
		n.Watchdog(t.Context())
		if n.Interval() != 0 {
			t.Errorf("watched every %v", n.Interval())
		}
	}
}

func TestInterval(t *testing.T) {
	t.Parallel()
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		name, usec, pid string
		want            time.Duration
	}{
		{"of this process", "30000000", own, 15 * time.Second},
		{"of no named process", "30000000", "", 15 * time.Second},
		{"of another process", "30000000", "1", 0},
		{"off", "", own, 0},
		{"zero", "0", own, 0},
		{"negative", "-5", own, 0},
		{"no number", "soon", own, 0},
		{"more than a time can be", "9223372036854775807", own, 0},
	} {
		env := map[string]string{"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": c.usec}
		if c.pid != "" {
			env["WATCHDOG_PID"] = c.pid
		}
		if got := sdnotify.New(lookup(env)).Interval(); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestWatchdog(t *testing.T) {
	t.Parallel()
	address := filepath.Join(t.TempDir(), "notify")
	next := manager(t, address)
	n := sdnotify.New(lookup(map[string]string{"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"}))
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { n.Watchdog(ctx) })
	for range 5 {
		if got := next(); got != "WATCHDOG=1" {
			t.Errorf("%q", got)
		}
	}
	cancel()
	watching.Wait()
}

func TestManagerThatCannotBeTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, c := range []struct {
		name, address string
		code          backend.Code
	}{
		{"gone", filepath.Join(dir, "gone"), backend.CodeUnavailable},
		{"another kind of address", "vsock:2:1234", backend.CodeUnsupported},
		{"a relative path", "notify", backend.CodeUnsupported},
		{"no name", "@", backend.CodeUnsupported},
		{"too long", "/" + strings.Repeat("x", 200), backend.CodeUnavailable},
	} {
		if err := sdnotify.New(lookup(map[string]string{"NOTIFY_SOCKET": c.address})).Ready(); backend.CodeOf(err) != c.code {
			t.Errorf("%s: %s, %v; want %s", c.name, backend.CodeOf(err), err, c.code)
		}
	}
}

// TestAsSystemdNotifyDoes compares with what systemd's own program sends.
func TestAsSystemdNotifyDoes(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("systemd-notify")
	if err != nil {
		t.Skip("needs systemd-notify")
	}
	address := filepath.Join(t.TempDir(), "notify")
	next := manager(t, address)
	n := sdnotify.New(lookup(map[string]string{"NOTIFY_SOCKET": address}))
	for state, say := range map[string]func() error{
		"READY=1": n.Ready, "STOPPING=1": n.Stopping, "STATUS=a b": func() error { return n.Status("a b") }, "WATCHDOG=1": n.Alive,
	} {
		cmd := exec.Command(tool, "--no-block", state)
		cmd.Env = []string{"NOTIFY_SOCKET=" + address}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		theirs := next()
		if err := say(); err != nil {
			t.Fatal(err)
		}
		if ours := next(); ours != theirs {
			t.Errorf("%q, and systemd-notify sends %q", ours, theirs)
		}
	}
}
