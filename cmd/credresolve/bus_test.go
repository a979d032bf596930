//go:build linux

package main

import (
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// A library behind the kind keychain connects to the session bus while the program initialises. A bus that accepts and
// never answers must not keep the command from starting, and nothing but a keychain may pay for a connection.
func TestASilentBusKeepsNoCommandFromStarting(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var connections atomic.Int64
	go func() {
		for {
			if _, err := l.Accept(); err != nil {
				return
			}
			connections.Add(1)
		}
	}()
	program := filepath.Join(t.TempDir(), "credresolve")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // without the time that building takes
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "version")
	cmd.Env = []string{"HOME=" + t.TempDir(), "DBUS_SESSION_BUS_ADDRESS=unix:path=" + socket}
	out, err := cmd.Output()
	if err != nil || len(out) == 0 {
		t.Fatalf("credresolve version: %v, %q", err, out)
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("the command connected to the bus %d times", n)
	}
	l.Close()
}
