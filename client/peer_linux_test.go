package client

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/credresolve/credresolve/backend"
)

// nobody is a user who is not root.
const nobody = 65534

// Nothing is sent to a socket that somebody else serves: who got hold of the path would learn the token.
func TestSocketOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root to start a process of another user: run the tests as root")
	}
	dir, err := os.MkdirTemp("", "credresolve")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "sock")
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), serveAs+"="+socket)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	lines := bufio.NewReader(out)
	line := func() string {
		text, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(text)
	}
	if got := line(); got != "listens" {
		t.Fatal(got)
	}
	root := 0
	c := dial(t, Config{Socket: socket, ServerUID: &root, Token: backend.Literal(backend.NewSecretString("t-c4nary"))})
	_, err = c.Resolve(t.Context(), refA)
	failed(t, err, backend.CodeDenied)
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "uid 65534") {
		t.Errorf("%v: it does not say whose it is", err)
	}
	if got := line(); got != "0" {
		t.Errorf("%s bytes were sent to somebody else", got)
	}
	for ev := range c.Watch(t.Context(), refA) {
		failed(t, ev.Err, backend.CodeDenied)
	}
	if got := line(); got != "0" {
		t.Errorf("%s bytes of a watch were sent to somebody else", got)
	}
}

func TestSocketOfThisUser(t *testing.T) {
	t.Parallel()
	uid := os.Getuid()
	socket := serve(t, answer(200, `{"results":[{"ref":{"provider":"app","id":"a"},"value":"v-c4nary"}]}`)).config.Socket
	c := dial(t, Config{Socket: socket, ServerUID: &uid})
	if _, err := c.Resolve(t.Context(), refA); err != nil {
		t.Error(err)
	}
	another := uid + 1
	c = dial(t, Config{Socket: socket, ServerUID: &another})
	_, err := c.Resolve(t.Context(), refA)
	failed(t, err, backend.CodeDenied)
}

func TestSocketThatMayNotBeReached(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 {
		t.Skip("needs a user who is not root: run the tests as one")
	}
	socket := serve(t, answer(200, "")).config.Socket
	if err := os.Chmod(socket, 0); err != nil {
		t.Fatal(err)
	}
	_, err := dial(t, Config{Socket: socket}).Resolve(t.Context(), refA)
	failed(t, err, backend.CodeUnavailable)
	if strings.Contains(err.Error(), "start one") || !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
}
