package client

import (
	"net"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/peer"
)

// servedBy fails unless the other end of c belongs to the user uid. Where the system does not tell, the modes of the socket and
// its directory must do.
func servedBy(c net.Conn, uid int) error {
	unix, ok := c.(*net.UnixConn)
	if !ok {
		return nil
	}
	p, err := peer.Of(unix)
	if backend.CodeOf(err) == backend.CodeUnsupported {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Close()
	if p.UID != uid {
		return backend.Errorf(backend.CodeDenied, "the sidecar belongs to uid %d, not to uid %d", p.UID, uid)
	}
	return nil
}
