//go:build unix && !linux

package safefile

import "golang.org/x/sys/unix"

// searchOnly opens a directory on the way. Without O_PATH that needs the right to read it too.
const searchOnly = unix.O_RDONLY
