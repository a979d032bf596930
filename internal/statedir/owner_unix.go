//go:build unix

package statedir

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

func ownedByUs(dir string, st fs.FileInfo) error {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("the state directory %s belongs to uid %d, not to uid %d", dir, sys.Uid, os.Geteuid())
	}
	return nil
}
