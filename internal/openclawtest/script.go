package openclawtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Install is the directory of OpenClaw and of the Node that it needs. It skips the test on a machine without.
func Install(t testing.TB) string {
	t.Helper()
	return filepath.Dir(Program(t))
}

// Script is a script over OpenClaw's own code, which answers each line of JSON by one.
type Script struct {
	in  io.Writer
	out *bufio.Reader
}

// StartScript starts the script at path, in a home of its own that ends with the test. Its argument is the directory of
// OpenClaw's modules. It skips the test on a machine without OpenClaw.
func StartScript(t testing.TB, path string) *Script {
	t.Helper()
	install := Install(t)
	script, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), filepath.Join(install, "node", "bin", "node"), script, filepath.Join(install, "node_modules", "openclaw", "dist"))
	cmd.Env = []string{"HOME=" + home, "OPENCLAW_STATE_DIR=" + filepath.Join(home, "state"), "PATH=" + os.Getenv("PATH")}
	cmd.Dir, cmd.Stderr = home, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return &Script{in, bufio.NewReader(out)}
}

// Line puts one question, and gives the line that answers it.
func (s *Script) Line(t testing.TB, question any) []byte {
	t.Helper()
	var line bytes.Buffer
	if err := json.NewEncoder(&line).Encode(question); err != nil {
		t.Fatal(err)
	}
	if _, err := s.in.Write(line.Bytes()); err != nil {
		t.Fatal(err)
	}
	said, err := s.out.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	return said
}

// Ask puts one question, and reads its answer into answer.
func (s *Script) Ask(t testing.TB, question, answer any) {
	t.Helper()
	said := s.Line(t, question)
	if err := json.Unmarshal(said, answer); err != nil {
		t.Fatalf("OpenClaw says %s: %v", said, err)
	}
}
