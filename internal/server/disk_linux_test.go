package server

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/credresolve/credresolve/backend"
)

// What cannot be audited is not revealed; once there is room again, all is as it was, and no line is broken.
func TestAuditOnAFullDisk(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skip("needs root to mount a tmpfs: run it as root")
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	log := filepath.Join(disk, "audit.jsonl")
	sc := start(t, "  audit: {path: "+log+"}\n")
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 48<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	answered := 0
	for ; ; answered++ {
		got := sc.do("GET", "/v1/resolve?ref="+escape("cred://m/plain"), "")
		if got.status == http.StatusServiceUnavailable {
			if strings.Contains(got.body, canary) || got.code(t) != backend.CodeUnavailable || !strings.Contains(got.body, "no space left") {
				t.Errorf("the answer is %s", got.body)
			}
			break
		}
		if got.status != http.StatusOK || answered > 1000 {
			t.Fatalf("status %d after %d answers", got.status, answered)
		}
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if got := sc.do("GET", "/v1/resolve?ref="+escape("cred://m/plain"), ""); got.status != http.StatusOK {
		t.Errorf("with room again: status %d", got.status)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	reveals := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "{") || !strings.HasSuffix(line, "}\n") {
			t.Errorf("a broken line: %q", line)
		}
		if strings.Contains(line, `"event":"reveal"`) {
			reveals++
		}
	}
	if reveals != answered+1 {
		t.Errorf("%d reveals are in the log, %d were made", reveals, answered+1)
	}
}
