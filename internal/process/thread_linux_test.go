package process_test

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/credresolve/credresolve/internal/process"
)

// TestTheProgramOutlivesAnyThread ends threads of this process, as a goroutine does that ends while it is locked to one, while
// programs run: the kernel ends a program with the thread that started it.
func TestTheProgramOutlivesAnyThread(t *testing.T) {
	t.Parallel()
	var running sync.WaitGroup
	for range 16 {
		running.Go(func() {
			if _, err := process.Run(t.Context(), process.Command{Path: "/bin/sleep", Args: []string{"sleep", "0.5"}}); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	for range 20 {
		var locked sync.WaitGroup
		for range 8 {
			locked.Go(func() {
				runtime.LockOSThread()
				time.Sleep(5 * time.Millisecond)
			})
		}
		locked.Wait()
	}
	running.Wait()
}
