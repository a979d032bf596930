//go:build unix

package staged

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// keepOwner gives f the owner and group of info.
func keepOwner(f *os.File, info fs.FileInfo) error {
	own, err := f.Stat()
	if err != nil {
		return err
	}
	want, ok := info.Sys().(*syscall.Stat_t)
	has, too := own.Sys().(*syscall.Stat_t)
	if !ok || !too || want.Uid == has.Uid && want.Gid == has.Gid {
		return nil
	}
	return f.Chown(int(want.Uid), int(want.Gid))
}

// lockTemp marks f as in use.
func lockTemp(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS) {
		return nil // a file system without locks
	}
	return err
}

// removeUnused removes the file at path unless somebody has it locked.
func removeUnused(path string) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
		_ = unix.Unlink(path)
	}
}
