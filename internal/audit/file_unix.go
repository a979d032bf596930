//go:build unix

package audit

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/credresolve/credresolve/backend"
)

// openFlags follow no link, and do not wait for a FIFO.
const openFlags = unix.O_NOFOLLOW | unix.O_NONBLOCK

// check refuses a file that others can read, write or replace.
func check(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	refuse := func(reason, remedy string) error {
		return &backend.Error{Code: backend.CodeInvalidConfig, Reason: reason, Remedy: remedy}
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular() || !ok:
		return refuse("it is not a regular file", "")
	case int(stat.Uid) != os.Geteuid():
		return refuse("it belongs to another user", "move it away")
	case mode.Perm()&0o027 != 0:
		return refuse("others can read or write it, or its group write", "run: chmod 600 on it")
	case stat.Nlink != 1:
		return refuse("it has more than one name", "move it away")
	}
	return nil
}

// removed reports whether the file has no name any more.
func removed(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Nlink == 0
}

func isLink(err error) bool { return errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EMLINK) }

func tryLock(f *os.File) (busy bool, err error) {
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EWOULDBLOCK):
			return true, nil
		case !errors.Is(err, unix.EINTR):
			return false, err
		}
	}
}

func unlock(f *os.File) { _ = unix.Flock(int(f.Fd()), unix.LOCK_UN) }
