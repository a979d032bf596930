//go:build unix

package authstore

import (
	"errors"

	"golang.org/x/sys/unix"
)

// gone reports whether no process has that id.
func gone(pid int) bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) }
