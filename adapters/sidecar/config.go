package sidecar

import "github.com/credresolve/credresolve/backend"

// Config are the settings of a provider of kind sidecar.
type Config struct {
	// Socket is the path of the sidecar's Unix socket. Empty, without address: $CREDRESOLVE_SOCKET, else
	// $XDG_RUNTIME_DIR/credresolve/sock, else sock in the state directory.
	Socket string `yaml:"socket"`
	// Address is that of a TCP listener on this machine, as http://127.0.0.1:8270, in place of a socket.
	Address string `yaml:"address"`
	// Token is a session's, or that of a TCP listener. Not set: none, the connection tells who asks.
	Token backend.Source `yaml:"token"`
}

// Reach tells what the provider touches.
func (c Config) Reach() []backend.Reach {
	switch {
	case c.Address != "":
		return []backend.Reach{{What: backend.ReachAddress, Value: c.Address}}
	case c.Socket != "":
		return []backend.Reach{{What: backend.ReachFile, Value: c.Socket}}
	}
	return []backend.Reach{{What: backend.ReachEnvironment, Value: "CREDRESOLVE_SOCKET"}, {What: backend.ReachEnvironment, Value: "XDG_RUNTIME_DIR"}}
}

// Kind is the kind "sidecar" for a registry.
func Kind() backend.Kind {
	return backend.NewKind("sidecar", "a sidecar, credresolve serve",
		func(c Config, host backend.Host) (backend.Backend, error) { return New(c, host) })
}
