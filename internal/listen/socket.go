package listen

import (
	"net"
	"os"
	"sync"
)

// Options say who may reach a Unix socket beside its owner.
type Options struct {
	// Group is the name or number of a group whose members may connect: the socket has mode 0660 and that group, and its
	// directory 0710. Empty: nobody, 0600 and 0700.
	Group string
}

// Socket is a listener on a Unix socket that this process alone serves. Its methods are safe for concurrent use.
type Socket struct {
	path     string
	listener *net.UnixListener
	inode    os.FileInfo // of the socket's file
	lock     *lock
	closing  sync.Once
	closed   error
}

var _ net.Listener = (*Socket)(nil)

// Unix listens on a Unix socket at path, which must be absolute. A directory that does not exist is made; one that exists is
// never changed. What a process left behind that was killed is taken away. It is an error with code
//   - invalid_config, where the path, the directory or what stands there is not fit for a socket that others must not reach;
//   - unavailable, where another process serves the socket, or the system does not let us;
//   - unsupported on Windows, which does not tell who connects.
func Unix(path string, o Options) (*Socket, error) { return openUnix(path, o) }

// Accept waits for the next connection, a *net.UnixConn.
func (s *Socket) Accept() (net.Conn, error) {
	c, err := s.listener.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Addr is the address of the socket, a *net.UnixAddr.
func (s *Socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Close ends Accept, and removes the socket's file unless that is another's by now. Connections go on. A second Close gives
// what the first did.
func (s *Socket) Close() error {
	s.closing.Do(func() {
		// Before the listener ends, and under the lock: the inode cannot be another's yet, and who comes now finds no socket
		// instead of a dead one.
		removeIf(s.path, s.inode)
		s.closed = s.listener.Close()
		s.lock.release()
	})
	return s.closed
}

// removeIf removes the file at path if it is that one.
func removeIf(path string, inode os.FileInfo) {
	if now, err := os.Lstat(path); err == nil && os.SameFile(now, inode) {
		_ = os.Remove(path)
	}
}
