//go:build unix

package audit

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// duplicate gives another descriptor for f. The Go runtime ends a program that writes to a standard output whose reader is
// gone; of any other descriptor it makes an error.
func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// awaitWritable waits until f takes what is written, without waiting then.
func awaitWritable(f *os.File, patience time.Duration) error {
	until := time.Now().Add(patience)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLOUT}}, max(0, int(time.Until(until).Milliseconds())))
		switch {
		case err == unix.EINTR && time.Now().Before(until):
		case err != nil:
			return err
		case n == 0:
			return os.ErrDeadlineExceeded
		default:
			return nil
		}
	}
}
