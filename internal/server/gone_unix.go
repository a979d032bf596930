//go:build unix

package server

import (
	"net"

	"golang.org/x/sys/unix"
)

// gone reports whether the client has closed its end of c. One that has only ended what it sends still waits for the answer.
func gone(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	hungUp := false
	err = raw.Control(func(fd uintptr) {
		ready := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(ready, 0)
		hungUp = err == nil && n > 0 && ready[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
	return hungUp || err != nil
}
