package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

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
	// maxEvent is the size of the largest event that is read, in bytes.
	maxEvent = 1 << 20
)

// Watch gives the events of refs until ctx ends or the Client is closed; then the channel is closed, without refs at once. It
// is level-triggered, as Resolver.Watch is, and goes on where it was when the sidecar was away: what did not change meanwhile
// is not told again. What the sidecar refuses for good is told as a failed event of each ref. When all are refused it ends.
func (c *Client) Watch(ctx context.Context, refs ...credref.Ref) <-chan resolver.Event {
	out := make(chan resolver.Event)
	var streams sync.WaitGroup
	for len(refs) > 0 {
		n := portion(refs, maxWatched, maxQuery, func(ref credref.Ref) int {
			return len("&ref=") + len(url.QueryEscape(ref.String()))
		})
		part := slices.Clone(refs[:n])
		streams.Go(func() { c.watch(ctx, part, out) })
		refs = refs[n:]
	}
	go func() {
		streams.Wait()
		close(out)
	}()
	return out
}

const (
	// maxWatched and maxQuery are how many refs, and how many bytes of them, one stream watches: a sidecar takes 256, and 16 KiB
	// of headers.
	maxWatched = 256
	maxQuery   = 12 << 10
	// maxEventID is the size of the largest id of an event that is sent back, in bytes.
	maxEventID = 2 << 10
)

// watch sends the events of refs to out until ctx ends, or the sidecar refuses.
func (c *Client) watch(ctx context.Context, refs []credref.Ref, out chan<- resolver.Event) {
	ctx, end := c.begin(ctx)
	defer end()
	last, pause := "", firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := c.stream(ctx, refs, &last, out)
		if ctx.Err() != nil {
			return
		}
		if !mends(err) {
			for _, ref := range refs {
				ev := resolver.Event{Ref: ref, Kind: resolver.EventFailed, State: resolver.StateConfigured, Time: time.Now(), Err: &resolver.RefError{Ref: ref, Err: err}}
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
		wait := pause/2 + rand.N(pause/2) // apart from others that lost the same sidecar
		select {
		case <-time.After(max(wait, backend.RetryAfter(err))):
		case <-ctx.Done():
		}
		pause = min(2*pause, maxPause)
	}
}

var errEnded = errors.New("the stream ended")

// mends reports whether another try may help after err: the stream ended, the sidecar is away or busy, or something is wrong
// inside it, such as a full disk under its audit log.
func mends(err error) bool {
	var r *refusal
	return errors.Is(err, errEnded) || backend.CodeOf(err).Retryable() || errors.As(err, &r) && !r.odd && r.status >= http.StatusInternalServerError
}

// stream passes on the events of one connection.
func (c *Client) stream(caller context.Context, refs []credref.Ref, last *string, out chan<- resolver.Event) error {
	ctx, cancel := context.WithCancelCause(caller)
	defer cancel(nil)
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
	alive := time.AfterFunc(silence, func() { cancel(errSlow) })
	defer alive.Stop()
	if res.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
		if err != nil {
			return c.unreachable(ctx, err)
		}
		return c.refused(res.StatusCode, text)
	}
	if kind, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";"); kind != "text/event-stream" {
		return c.odd("it gave no stream of events")
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 0, 4096), maxEvent)
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
			if !slices.Contains(refs, ev.Ref) {
				return c.odd("it told of another ref")
			}
			alive.Stop() // however long the reader takes
			select {
			case out <- ev.event():
			case <-caller.Done():
				return caller.Err()
			}
			alive.Reset(silence)
			*last, data = id, nil
			continue
		}
		name, value, _ := strings.Cut(string(line), ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "id":
			if len(value) <= maxEventID && !strings.ContainsFunc(value, unicode.IsControl) { // it becomes a header
				id = value
			}
		case "data":
			if data = append(data, value...); len(data) > maxEvent {
				return c.odd("an event is too large")
			}
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return c.odd("an event is too large")
	}
	return errEnded
}

func (ev *WatchEvent) event() resolver.Event {
	out := resolver.Event{Ref: ev.Ref, Kind: ev.Kind, State: ev.State, Time: ev.Time, Revision: ev.Revision, Version: ev.Version}
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
		Ref: ev.Ref, Kind: ev.Kind, State: ev.State, Time: ev.Time.UTC(), Revision: ev.Revision, Version: ev.Version,
		ExpiresAt: pointTo(ev.Expires), Error: NewError(ev.Err),
	}
}
