// Package mototest runs moto, an emulator of AWS, for tests: one server for a test binary, and in front of it one proxy
// for each test, which has an account of its own, counts calls and makes faults.
package mototest

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

//go:embed serve.py
var launcher string

// server is the one that runs. It holds the command and its input, whose finalizer would end the server.
type server struct {
	url   string
	cmd   *exec.Cmd
	stdin io.Closer
}

// run starts the server once for a test binary. It ends with it, by the end of its standard input.
var run = sync.OnceValues(func() (server, error) {
	dir := os.Getenv("CREDRESOLVE_MOTO")
	cmd := exec.Command("/usr/bin/python3", "-c", launcher)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(dir, "usr/lib/python3/dist-packages"), "PYTHONDONTWRITEBYTECODE=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return server{}, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return server{}, err
	}
	if err := cmd.Start(); err != nil {
		return server{}, err
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		return server{}, fmt.Errorf("moto did not start: %w", err)
	}
	var ready struct{ Port int }
	if err := json.Unmarshal(line, &ready); err != nil {
		return server{}, fmt.Errorf("moto did not tell its port: %w", err)
	}
	return server{fmt.Sprintf("http://127.0.0.1:%d", ready.Port), cmd, stdin}, nil
})

// Start gives the URL of the server. It skips the test on a machine without moto.
func Start(t testing.TB) string {
	t.Helper()
	if os.Getenv("CREDRESOLVE_MOTO") == "" {
		t.Skip("needs the moto AWS emulator: run make test")
	}
	s, err := run()
	if err != nil {
		t.Fatal(err)
	}
	return s.url
}
