package server

import (
	"context"

	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/internal/notify"
)

// subscribe has those told of events that c names, and nobody else. Called with s.reload held.
func (s *Server) subscribe(c config.Events) (err error) {
	if s.subscribers != nil {
		return s.subscribers.Change(c)
	}
	s.subscribers, err = notify.Start(c, notify.Options{
		Resolver: s.resolver, LookupEnv: s.lookupEnv(), Version: s.options.Version, Log: s.log, Count: s.metrics.Delivery,
	})
	return err
}

// unsubscribe has what waits delivered until ctx ends.
func (s *Server) unsubscribe(ctx context.Context) {
	s.reload.Lock()
	defer s.reload.Unlock()
	if s.subscribers != nil {
		s.subscribers.Close(ctx)
	}
}
