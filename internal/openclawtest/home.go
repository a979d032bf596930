// Package openclawtest gives tests a real OpenClaw: homes of their own, its command, its gateway, and a model that it calls.
// "make test" installs it and tells its path in CREDRESOLVE_OPENCLAW; without it, tests that need it skip. Everything is on
// the loopback interface, and nothing outside of a test's directory is read or written.
package openclawtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Program is the path of the openclaw command. It skips the test on a machine without.
func Program(t testing.TB) string {
	t.Helper()
	program := os.Getenv("CREDRESOLVE_OPENCLAW")
	if program == "" {
		t.Skip("needs OpenClaw: scripts/openclaw-setup.sh DIR installs it and prints what CREDRESOLVE_OPENCLAW has to name")
	}
	return program
}

// Home is a home of OpenClaw.
type Home struct {
	Dir    string // the user's home, which everything is below
	State  string
	Config string // openclaw.json; not there yet
	Env    []string

	t       testing.TB
	program string
}

// New gives a home that ends with the test. It skips the test on a machine without OpenClaw.
func New(t testing.TB) *Home {
	t.Helper()
	program := Program(t)
	dir := t.TempDir()
	h := &Home{Dir: dir, State: filepath.Join(dir, "state"), t: t, program: program}
	h.Config = filepath.Join(h.State, "openclaw.json")
	temporary := filepath.Join(dir, "tmp")
	for _, d := range []string{h.State, temporary} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	h.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + temporary, "LC_ALL=C",
		"OPENCLAW_STATE_DIR=" + h.State, "OPENCLAW_CONFIG_PATH=" + h.Config,
		"OPENCLAW_SKIP_CHANNELS=1", "OPENCLAW_DISABLE_BONJOUR=1", "OPENCLAW_HIDE_BANNER=1",
	}
	t.Cleanup(h.endAll)
	return h
}

// Write writes the configuration.
func (h *Home) Write(config string) {
	h.t.Helper()
	if err := os.WriteFile(h.Config, []byte(config), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// Printed is what a command printed, and its exit status.
type Printed struct {
	Stdout, Stderr string
	Status         int
}

// Run runs the openclaw command, with variables beside those of the home.
func (h *Home) Run(env []string, args ...string) Printed {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.program, args...)
	cmd.Dir, cmd.Env = h.Dir, append(h.Env[:len(h.Env):len(h.Env)], env...)
	cmd.WaitDelay = 10 * time.Second
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatalf("openclaw %s: %v\n%s", strings.Join(args, " "), err, msg.String())
	}
	return Printed{out.String(), msg.String(), cmd.ProcessState.ExitCode()}
}

// Gateway is a running gateway.
type Gateway struct {
	// URL is its address for HTTP.
	URL  string
	Port int

	h     *Home
	cmd   *exec.Cmd
	ended chan struct{}
	mu    sync.Mutex
	log   bytes.Buffer
}

// Port gives a port of 127.0.0.1 that nobody listens at.
func Port(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Start starts the gateway, and waits until it is ready or has ended, of which ready tells.
func (h *Home) Start(port int) (g *Gateway, ready bool) {
	h.t.Helper()
	for range 5 {
		// The gateway gives parts of its own five seconds, which a busy machine may not have.
		if g, ready = h.start(port); ready || !strings.Contains(g.Log(), "state lease heartbeat did not become ready") {
			break
		}
		g.Kill()
	}
	return g, ready
}

func (h *Home) start(port int) (g *Gateway, ready bool) {
	h.t.Helper()
	g = &Gateway{h: h, Port: port, URL: "http://127.0.0.1:" + strconv.Itoa(port), ended: make(chan struct{})}
	g.cmd = exec.Command(h.program, "gateway", "run", "--port", strconv.Itoa(port))
	g.cmd.Dir, g.cmd.Env, g.cmd.Stdout, g.cmd.Stderr = h.Dir, h.Env, g, g
	g.cmd.WaitDelay = 5 * time.Second // what it started may keep its pipes open
	if err := g.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() { _ = g.cmd.Wait(); close(g.ended) }()
	h.t.Cleanup(g.Kill)
	if g.Logs("[gateway] ready", 6*time.Minute) {
		return g, true
	}
	select {
	case <-g.ended:
		return g, false
	default:
		h.t.Fatalf("the gateway is not ready:\n%s", g.Log())
		return nil, false
	}
}

// Write takes what the gateway prints.
func (g *Gateway) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.Write(b)
}

// Log is what the gateway has printed so far.
func (g *Gateway) Log() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.String()
}

// Logs waits until the gateway has printed text; it gives up after a time, and when the gateway has ended.
func (g *Gateway) Logs(text string, most time.Duration) bool {
	end := time.After(most)
	for !strings.Contains(g.Log(), text) {
		select {
		case <-g.ended:
			return strings.Contains(g.Log(), text)
		case <-end:
			return false
		case <-time.After(100 * time.Millisecond):
		}
	}
	return true
}

// Status is the exit status of a gateway that has ended by itself.
func (g *Gateway) Status() int {
	<-g.ended
	return g.cmd.ProcessState.ExitCode()
}

// Kill ends the gateway and whatever it started.
func (g *Gateway) Kill() {
	_ = g.cmd.Process.Kill() // its own end takes minutes, for the sake of work that is running
	<-g.ended
	g.h.endAll()
}

// endAll ends every process of the home: some are in sessions of their own.
func (h *Home) endAll() {
	mark := []byte("OPENCLAW_STATE_DIR=" + h.State + "\x00")
	for range 50 {
		var found bool
		environments, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, path := range environments {
			content, err := os.ReadFile(path)
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil || pid == os.Getpid() || !bytes.Contains(content, mark) {
				continue
			}
			if p, err := os.FindProcess(pid); err == nil && p.Kill() == nil {
				found = true
			}
		}
		if !found {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Models asks the gateway for its list of models, with a token, and gives the HTTP status.
func (g *Gateway) Models(token string) int {
	g.h.t.Helper()
	status, _ := g.request(http.MethodGet, "/v1/models", token, "")
	return status
}

// Chat has the gateway's agent answer once, through its model.
func (g *Gateway) Chat(token string) (status int, answer string) {
	g.h.t.Helper()
	return g.request(http.MethodPost, "/v1/chat/completions", token, `{"model": "openclaw", "messages": [{"role": "user", "content": "ping"}]}`)
}

func (g *Gateway) request(method, path, token, body string) (int, string) {
	g.h.t.Helper()
	ctx, cancel := context.WithTimeout(g.h.t.Context(), 5*time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, g.URL+path, strings.NewReader(body))
	if err != nil {
		g.h.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		g.h.t.Fatalf("%s: %v\n%s", path, err, g.Log())
	}
	defer response.Body.Close()
	content, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(content)
}
