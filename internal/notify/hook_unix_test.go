//go:build unix

package notify

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/credresolve/credresolve/config"
)

// A hook that does not end is killed, with all that it started.
func TestHookTimeout(t *testing.T) {
	t.Parallel()
	path, dir := script(t, `trap '' TERM; sh -c 'trap "" TERM; echo $$ > pid.tmp; mv pid.tmp pid; while :; do sleep 1; done' & wait`)
	b := start(t, config.Events{Hooks: []config.Hook{{Command: path, Timeout: 3 * time.Second}}})
	b.rotate("a")
	eventually(t, "it failed", func() bool { return b.count("hook failed") == 1 })
	var pid int
	text, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its child is gone", func() bool { return syscall.Kill(pid, 0) != nil })
}
