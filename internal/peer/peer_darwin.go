package peer

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// of tells user, group and process. There is no pidfd, and so no executable: its path would be read by a number that may be
// another process's.
func of(c *net.UnixConn) (*Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, errUnknown("no descriptor", err)
	}
	var cred *unix.Xucred
	var pid int
	var noCred, noPID error
	if err := raw.Control(func(fd uintptr) {
		cred, noCred = unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
		pid, noPID = unix.GetsockoptInt(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERPID)
	}); err != nil {
		return nil, errUnknown("no descriptor", err)
	}
	switch {
	case noCred != nil:
		return nil, errUnknown("LOCAL_PEERCRED", noCred)
	case cred.Ngroups < 1:
		return nil, errUnknown("LOCAL_PEERCRED", errors.New("the process has no group"))
	}
	p := &Peer{UID: int(cred.Uid), GID: int(cred.Groups[0])}
	if noPID == nil {
		p.PID = pid
	}
	if !p.Alive() {
		return nil, errEnded()
	}
	return p, nil
}

func (p *Peer) alive() bool { return p.PID == 0 || !errors.Is(unix.Kill(p.PID, 0), unix.ESRCH) }
