package staged

import (
	"crypto/rand"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// unnamed opens a file in dir that has no name, so that nothing of it stays when this process is killed; nil where the file
// system has none.
func unnamed(dir string) *os.File {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), dir)
	if _, err := os.Stat(descriptor(f)); err != nil {
		_ = f.Close() // no /proc: it could get no name
		return nil
	}
	return f
}

// giveName gives f a name that begins with prefix, for the moment until it is renamed.
func giveName(f *os.File, prefix string) (string, error) {
	name := prefix + rand.Text()
	return name, unix.Linkat(unix.AT_FDCWD, descriptor(f), unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW)
}

func descriptor(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
