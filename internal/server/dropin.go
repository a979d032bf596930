package server

import "github.com/credresolve/credresolve/config"

// dropIns are the listeners for clients of other servers, those that are not configured without an address.
func (s *Server) dropIns(config.Serve) []extra { return nil }
