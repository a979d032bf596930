package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// The pauses between two tries to reach a sidecar that went away.
const (
	firstPause = 100 * time.Millisecond
	maxPause   = 10 * time.Second
	// silence is how long a stream may be without a line; the sidecar sends one each 15 seconds.
	silence = 45 * time.Second
)

// Watch gives the events of refs until ctx ends; then the channel is closed. It is level-triggered, as Resolver.Watch is,
// and goes on where it was when the sidecar was away: what did not change meanwhile is not told again. What the sidecar
// refuses for good is told as a failed event of each ref, and ends it.
func (c *Client) Watch(ctx context.Context, refs ...credref.Ref) <-chan resolver.Event {
	out := make(chan resolver.Event)
	go func() {
		defer close(out)
		last, pause := "", firstPause
		for ctx.Err() == nil {
			began := time.Now()
			err := c.stream(ctx, refs, &last, out)
			if ctx.Err() != nil {
				return
			}
			if err != nil && !transient(err) {
				for _, ref := range refs {
					ev := resolver.Event{Ref: ref, Kind: resolver.EventFailed, Time: time.Now(), Err: &resolver.RefError{Ref: ref, Err: err}}
					select {
					case out <- ev:
					case <-ctx.Done():
						return
					}
				}
				return
			}
			if time.Since(began) > maxPause {
				pause = firstPause
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, maxPause)
		}
	}()
	return out
}

func transient(err error) bool {
	return errors.Is(err, errEnded) || errors.Is(err, backend.ErrUnavailable)
}

var errEnded = errors.New("the stream ended")

// stream passes on the events of one connection.
func (c *Client) stream(ctx context.Context, refs []credref.Ref, last *string, out chan<- resolver.Event) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	query := url.Values{}
	for _, ref := range refs {
		query.Add("ref", ref.String())
	}
	header := http.Header{"Accept": {"text/event-stream"}}
	if *last != "" {
		header.Set("Last-Event-ID", *last)
	}
	res, err := c.send(ctx, http.MethodGet, "/v1/watch?"+query.Encode(), nil, header)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		var failed ErrorAnswer
		if json.NewDecoder(http.MaxBytesReader(nil, res.Body, 64<<10)).Decode(&failed) != nil || failed.Error.Code == "" {
			return c.odd("it answered with status %d", res.StatusCode)
		}
		return failed.Error.Err()
	}
	alive := time.AfterFunc(silence, cancel)
	defer alive.Stop()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 0, 4096), 1<<20)
	var id string
	var data []byte
	for lines.Scan() {
		alive.Reset(silence)
		line := lines.Bytes()
		if len(line) == 0 {
			if len(data) == 0 {
				continue
			}
			var ev WatchEvent
			if err := json.Unmarshal(data, &ev); err != nil {
				return c.odd("an event is not of the expected form")
			}
			select {
			case out <- ev.event():
			case <-ctx.Done():
				return ctx.Err()
			}
			*last, data = id, nil
			continue
		}
		name, value, _ := strings.Cut(string(line), ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "id":
			id = value
		case "data":
			data = append(data, value...)
		}
	}
	return errEnded
}

func (ev *WatchEvent) event() resolver.Event {
	out := resolver.Event{Ref: ev.Ref, Kind: ev.Kind, Time: ev.Time, Revision: ev.Revision, Version: ev.Version}
	if ev.ExpiresAt != nil {
		out.Expires = *ev.ExpiresAt
	}
	if ev.Error != nil {
		out.Err = &resolver.RefError{Ref: ev.Ref, Err: ev.Error.Err()}
	}
	return out
}

// NewWatchEvent gives the wire form of ev.
func NewWatchEvent(ev resolver.Event) WatchEvent {
	return WatchEvent{
		Ref: ev.Ref, Kind: ev.Kind, Time: ev.Time.UTC(), Revision: ev.Revision, Version: ev.Version,
		ExpiresAt: pointTo(ev.Expires), Error: NewError(ev.Err),
	}
}
