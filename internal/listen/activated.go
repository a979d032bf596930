package listen

import "net"

// Inherited is a listener that this process was started with. Its address is a *net.UnixAddr or a *net.TCPAddr.
type Inherited struct {
	net.Listener
	// Name is the FileDescriptorName of the .socket unit; without one it is the unit's own name.
	Name string
}

// Activated gives the listeners that systemd hands over (LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES, which lookupEnv gives), in
// the order of the .socket unit; none where they are not set, or for another process. Each is one that Unix or TCP could have
// made: a socket file of ours or root's that is closed to others, or a loopback address; otherwise it fails with
// invalid_config, and closes all. Descriptors are not passed on to programs that this process starts.
//
// It takes the descriptors from where they are: call it once in a process.
func Activated(lookupEnv func(string) (string, bool)) ([]Inherited, error) {
	return activated(lookupEnv)
}
