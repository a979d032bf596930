package peer

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

func of(c *net.UnixConn) (*Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, errUnknown("no descriptor", err)
	}
	var cred *unix.Ucred
	var noCred, noPin error
	pidfd := -1
	if err := raw.Control(func(fd uintptr) {
		if cred, noCred = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); noCred == nil {
			pidfd, noPin = pin(int(fd), int(cred.Pid))
		}
	}); err != nil {
		return nil, errUnknown("no descriptor", err)
	}
	switch {
	case noCred != nil:
		return nil, errUnknown("SO_PEERCRED", noCred)
	case noPin != nil:
		return nil, noPin
	case cred.Uid == ^uint32(0):
		return nil, errUnknown("SO_PEERCRED", errors.New("the socket is not connected"))
	}
	p := &Peer{UID: int(cred.Uid), GID: int(cred.Gid), PID: int(cred.Pid)}
	if pidfd >= 0 {
		p.pidfd = os.NewFile(uintptr(pidfd), "pidfd") // the kernel makes it close-on-exec
	}
	// Without a hold on the process, its number may be that of another one by now.
	if p.PID != 0 && p.pidfd != nil {
		p.Executable = executable(p.PID)
	}
	if !p.Alive() {
		_ = p.Close()
		return nil, errEnded()
	}
	return p, nil
}

// pin gives a pidfd of the process that made the connection fd, -1 where the kernel has none to give. Kernels before 6.5 have
// none for a connection: then it is opened by number, which is the right process unless that ended, and its number was given
// away, since it connected.
func pin(fd, pid int) (int, error) {
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	switch {
	case err == nil:
		return pidfd, nil
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL): // reaped
		return -1, errEnded()
	}
	return pinByNumber(pid)
}

func pinByNumber(pid int) (int, error) {
	if pid == 0 {
		return -1, nil
	}
	switch pidfd, err := unix.PidfdOpen(pid, 0); {
	case err == nil:
		return pidfd, nil
	case errors.Is(err, unix.ESRCH):
		return -1, errEnded()
	default: // ENOSYS before Linux 5.3, EPERM by a seccomp filter
		return -1, nil
	}
}

// executable gives the path of what the process runs, empty where that cannot be told.
func executable(pid int) string {
	link := "/proc/" + strconv.Itoa(pid) + "/exe"
	path, err := os.Readlink(link)
	if err != nil || !filepath.IsAbs(path) {
		return ""
	}
	// The text is the path in the mount namespace of the process, where a user can lay any file over it, and ends in
	// " (deleted)" when the file is gone. What counts is whether the same file is there for us.
	var running, here unix.Stat_t
	if unix.Stat(link, &running) != nil || unix.Stat(path, &here) != nil || running.Dev != here.Dev || running.Ino != here.Ino {
		return ""
	}
	return path
}

func (p *Peer) alive() bool {
	if p.pidfd == nil {
		return p.PID == 0 || !errors.Is(unix.Kill(p.PID, 0), unix.ESRCH)
	}
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return false
	}
	alive := false
	err = raw.Control(func(fd uintptr) {
		for {
			ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(ready, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			alive = err == nil && n == 0 // readable once it has ended, reaped or not
			return
		}
	})
	return err == nil && alive
}
