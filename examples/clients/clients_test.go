// Package clients_test runs the examples against a real sidecar.
package clients_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// build builds a program of this module.
func build(t *testing.T, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", out, pkg)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", pkg, err, msg)
	}
	return out
}

// sidecar is a running credresolve serve.
type sidecar struct {
	t      *testing.T
	dir    string
	socket string
}

func start(t *testing.T, program string) *sidecar {
	t.Helper()
	dir := t.TempDir()
	s := &sidecar{t: t, dir: dir, socket: filepath.Join(dir, "run", "sock")}
	s.store("first-c4nary")
	settings := "version: 1\nproviders:\n  conf: {kind: file, path: secrets.json}\n"
	if err := os.WriteFile(filepath.Join(dir, "credresolve.yaml"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--config", "credresolve.yaml", "serve")
	cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "CREDRESOLVE_SOCKET=" + s.socket, "PATH=" + os.Getenv("PATH")}
	var messages bytes.Buffer
	cmd.Stderr = &messages
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the sidecar: %v: %s", err, messages.String())
		}
	})
	for range 400 {
		if res, err := s.http().Get("http://localhost/readyz"); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return s
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the sidecar is not ready")
	return nil
}

func (s *sidecar) store(password string) {
	s.t.Helper()
	text := `{"db": {"user": "app", "password": "` + password + `"}}`
	if err := os.WriteFile(filepath.Join(s.dir, "secrets.json"), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sidecar) http() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.socket)
	}}}
}

// invalidate makes the sidecar read the store again.
func (s *sidecar) invalidate() {
	s.t.Helper()
	res, err := s.http().Post("http://localhost/v1/invalidate", "application/json", strings.NewReader(`{"provider": "conf"}`))
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
		s.t.Errorf("invalidate: status %d, %v", res.StatusCode, err)
	}
}

func TestClients(t *testing.T) {
	t.Parallel()
	program := build(t, "github.com/credresolve/credresolve/cmd/credresolve")
	for name, c := range map[string]struct {
		argv   []string
		needs  []string
		status int // of a secret that does not exist
	}{
		"go":     {argv: []string{build(t, "./go")}, status: 3},
		"python": {argv: []string{"python3", "python/client.py"}, needs: []string{"python3"}, status: 1},
		"node":   {argv: []string{"node", "node/client.js"}, needs: []string{"node"}, status: 1},
		"curl":   {argv: []string{"sh", "curl/client.sh"}, needs: []string{"curl", "jq"}, status: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, need := range c.needs {
				if _, err := exec.LookPath(need); err != nil {
					t.Skip("needs " + need + ": apt-get install " + need)
				}
			}
			s := start(t, program)
			run := func(refs ...string) *exec.Cmd {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				t.Cleanup(cancel)
				cmd := exec.CommandContext(ctx, c.argv[0], append(c.argv[1:], refs...)...)
				cmd.Env = []string{"CREDRESOLVE_SOCKET=" + s.socket, "PATH=" + os.Getenv("PATH"), "HOME=" + s.dir}
				cmd.WaitDelay = 10 * time.Second
				return cmd
			}
			missing := run("cred://conf//db/nope")
			var messages bytes.Buffer
			missing.Stderr = &messages
			if err := missing.Run(); missing.ProcessState.ExitCode() != c.status || !strings.Contains(messages.String(), "no ") {
				t.Errorf("of what is not there it says %q and ends with %v", messages.String(), err)
			}

			cmd := run("cred://conf//db/password", "cred://conf//db/user", "cred://conf//db/nope")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			messages.Reset()
			cmd.Stderr = &messages
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			want := []string{"first-c4nary", "unchanged", "2 of 3 are there"}
			lines := bufio.NewScanner(out)
			for _, w := range want {
				if !lines.Scan() || lines.Text() != w {
					t.Fatalf("it prints %q, want %q: %s", lines.Text(), w, messages.String())
				}
			}
			s.store("second-c4nary")
			changed := make(chan bool, 1)
			go func() { changed <- lines.Scan() && lines.Text() == "it changed" }()
			patience := time.After(time.Minute)
			for told := false; !told; {
				s.invalidate() // the watch may not be in place yet
				select {
				case ok := <-changed:
					if told = true; !ok {
						t.Errorf("it prints %q of a change", lines.Text())
					}
				case <-time.After(500 * time.Millisecond):
				case <-patience:
					t.Fatalf("it never tells of a change: %s", messages.String())
				}
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("it ends with %v: %s", err, messages.String())
			}
		})
	}
}
