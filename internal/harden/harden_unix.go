//go:build unix && !linux

package harden

import (
	"runtime"

	"github.com/credresolve/credresolve/backend"
	"golang.org/x/sys/unix"
)

func hide() (Report, error) {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return Report{}, backend.Errorf(backend.CodeUnavailable, "core dumps cannot be turned off: RLIMIT_CORE: %v", err)
	}
	return Report{NoCores: true}, nil
}

// lock does nothing: what is mapped later could not be locked without a limit that ends a Go program.
func lock() (why, remedy string) { return "not supported on " + runtime.GOOS, setAuto }
