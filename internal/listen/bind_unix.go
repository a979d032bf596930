//go:build unix && !linux

package listen

import "net"

// bind makes the socket at path with mode 0600.
func bind(path string) (*net.UnixListener, error) { return bindAside(path) }
