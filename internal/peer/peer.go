// Package peer tells who is at the other end of a Unix connection.
//
// What the kernel says of a connection is who made it: user, group and process of the connect(2), whoever holds the socket by
// now. A number of a process can be given to another one once it has ended, so on Linux the process is pinned by a pidfd, and
// what is read under its number counts only if the pinned process was alive afterwards.
//
// User and group are as good as the kernel. The executable is less: it keeps apart the programs of a user who does not work
// against it. Who may trace a process, or choose its environment (LD_PRELOAD), can speak in the name of its program, and a
// process can execute another program after it connected.
package peer

import (
	"net"
	"os"

	"github.com/credresolve/credresolve/backend"
)

// Peer is who made a connection. Its methods are safe for concurrent use. The owner closes it.
type Peer struct {
	// UID and GID are the effective ids that the process had when it connected. Ids that our user namespace does not know are
	// the kernel's overflow ids (65534).
	UID, GID int
	// PID is the process. Zero: it is not known, since the process is in a pid namespace that we do not see into, or the
	// system does not tell.
	PID int
	// Executable is the absolute path of the program that the process runs, links resolved. Empty: it may not be read (a
	// process of another user needs CAP_SYS_PTRACE), the file was removed or replaced since, or the process sees other files
	// under this path than we do.
	Executable string

	pidfd *os.File // nil: the system has none, or did not let us have it
}

// Of tells who made c. It fails with ErrDenied where that process has ended already, and with errors.ErrUnsupported where the
// system does not tell. c stays the caller's.
func Of(c *net.UnixConn) (*Peer, error) { return of(c) }

// Alive reports whether the process that made the connection still runs: what was found out about it is true of no other
// process. A process that cannot be pinned, for want of a pidfd, is looked for by its number; one without a number counts as
// alive. Of a closed Peer it is false where there was a pidfd.
func (p *Peer) Alive() bool { return p.alive() }

// Close gives up the hold on the process. A nil Peer has none.
func (p *Peer) Close() error {
	if p == nil || p.pidfd == nil {
		return nil
	}
	return p.pidfd.Close()
}

func errEnded() error {
	return &backend.Error{
		Code: backend.CodeDenied, Reason: "the process that made the connection has ended, so who uses it now is unknown",
		Remedy: "connect from the process that sends the request",
	}
}

func errUnknown(what string, err error) error {
	return backend.Errorf(backend.CodeInternal, "who made the connection cannot be told: %s: %v", what, err)
}
