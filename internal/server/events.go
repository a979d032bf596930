package server

import (
	"context"
	"reflect"

	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/internal/notify"
)

// subscribers are those of the section events. Guarded by Server.reload.
type subscribers struct {
	of  config.Events
	now *notify.Subscribers // nil: none
}

// subscribe has those told that the configuration of now names, and nobody else. What waits for those of before is delivered
// until ctx ends. A section that is the same changes nothing. Called with s.reload held.
func (s *Server) subscribe(ctx context.Context, c config.Events) error {
	if s.subscribers.now != nil && reflect.DeepEqual(s.subscribers.of, c) {
		return nil
	}
	var next *notify.Subscribers
	if len(c.Hooks)+len(c.Webhooks) > 0 {
		var err error
		next, err = notify.Start(c, notify.Options{
			Resolver: s.resolver, LookupEnv: s.lookupEnv(), Version: s.options.Version, Log: s.log, Count: s.metrics.Delivery,
		})
		if err != nil {
			return err
		}
	}
	if old := s.subscribers.now; old != nil {
		old.Close(ctx)
	}
	s.subscribers.of, s.subscribers.now = c, next
	return nil
}

// unsubscribe has what waits delivered until ctx ends.
func (s *Server) unsubscribe(ctx context.Context) {
	s.reload.Lock()
	defer s.reload.Unlock()
	if s.subscribers.now != nil {
		s.subscribers.now.Close(ctx)
		s.subscribers.now = nil
	}
}
