package listen

import (
	"context"
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// bind makes the socket at path with mode 0600. Linux gives the file the mode of the descriptor, so that it never has another.
func bind(path string) (*net.UnixListener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }), err)
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, failed(err, "cannot make the socket %s", path)
	}
	listener := l.(*net.UnixListener)
	listener.SetUnlinkOnClose(false) // by path, whoever's it is
	return listener, nil
}
