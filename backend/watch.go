package backend

import (
	"context"
	"errors"
	"time"
)

// Watcher is a Backend that notices changes by itself.
type Watcher interface {
	Backend
	// Watch calls changed after the secret of a request changed, came or went, until ctx ends, and then returns ctx's
	// error. It is level-triggered: several changes may be told as one, but after the last change comes a call. It
	// calls changed once for each request when the watch is in place, so that who fetches then misses nothing.
	// changed is not called concurrently and must not block.
	//
	// The resolver watches all that is in use by one Watch for each provider, which begins anew when that becomes more. One that
	// ends with an error is begun again after a pause, but for ErrUnsupported.
	Watch(ctx context.Context, reqs []Request, changed func(Request)) error
}

// defaultInterval is the interval of a Watch that names none.
const defaultInterval = 30 * time.Second

// Watch watches reqs until ctx ends, by b's own means or else by a look each interval; zero or less: each 30 seconds.
func Watch(ctx context.Context, b Backend, reqs []Request, interval time.Duration, changed func(Request)) error {
	if w, ok := b.(Watcher); ok {
		if err := w.Watch(ctx, reqs, changed); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	if interval <= 0 {
		interval = defaultInterval
	}
	seen := make([]*Credential, len(reqs))
	look := func(first bool) {
		for i, req := range reqs {
			if seen[i] != nil {
				if differs, _, err := Changed(ctx, b, req, seen[i]); err == nil && !differs || err != nil && !errors.Is(err, ErrNotFound) {
					continue
				}
			}
			had := seen[i]
			c, err := b.Get(ctx, req)
			if err == nil || errors.Is(err, ErrNotFound) {
				seen[i] = c
			}
			if first || (had == nil) != (seen[i] == nil) || had != nil && !sameValue(had, seen[i]) {
				changed(req)
			}
		}
	}
	look(true)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			look(false)
		}
	}
}
