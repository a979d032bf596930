//go:build unix

package cli

import (
	"io/fs"
	"syscall"
)

// ownerOf gives the user of a file; negative: not known.
func ownerOf(st fs.FileInfo) int {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(sys.Uid)
	}
	return -1
}
