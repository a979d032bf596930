//go:build !linux && !darwin

package peer

import (
	"net"
	"runtime"

	"github.com/credresolve/credresolve/backend"
)

func of(*net.UnixConn) (*Peer, error) {
	return nil, &backend.Error{
		Code:   backend.CodeUnsupported,
		Reason: "who made a connection is not known on " + runtime.GOOS,
		Remedy: "use a listener with a token (serve.tcp)",
	}
}

func (p *Peer) alive() bool { return true }
