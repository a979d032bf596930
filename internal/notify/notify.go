// Package notify tells programs and addresses of the steps in the life of credentials: the section events of a configuration. It
// tells refs, states and revisions, and no value.
//
// Each subscriber has a watch of the resolver's gateway-wide credentials, a queue in which the last event of a ref stands for
// those before it, and a few deliveries under way. Those of one ref go out one after the other. What waits is bounded: the oldest
// is dropped, and counted. Nothing waits for a subscriber.
package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/policy"
	"github.com/credresolve/credresolve/resolver"
)

const (
	parallel       = 4    // deliveries of one subscriber under way
	maxWaiting     = 1000 // refs with an event that waits, of one subscriber
	defaultTimeout = 10 * time.Second
	settleTime     = 50 * time.Millisecond // for word of what has happened already
)

// The outcomes that Options.Count is told.
const (
	Delivered = "delivered"
	Failed    = "failed"
	Dropped   = "dropped" // for want of room, or since the process ended
)

var errEnded = errors.New("the program ended before")

// Options are what subscribers need to know of the program.
type Options struct {
	Resolver *resolver.Resolver
	// LookupEnv finds environment variables.
	LookupEnv func(string) (string, bool)
	// Version of the program.
	Version string
	// Log takes what an operator wants to know; no value and no address reaches it.
	Log *slog.Logger
	// Count is told of each event, by hook or webhook, and what became of it.
	Count func(by, outcome string)
}

// Subscribers are those of the section events, at work. Their methods are called one at a time.
type Subscribers struct {
	o      Options
	ctx    context.Context // of every delivery
	cancel context.CancelFunc
	now    []*subscriber
	done   sync.WaitGroup // of those that were replaced too
}

// subscriber is one hook or webhook.
type subscriber struct {
	name, by string
	settings any // a config.Hook or config.Webhook
	on       []resolver.EventKind
	wants    func(credref.Ref) bool
	deliver  func(context.Context, message) error
	close    func()
	drain    chan struct{} // closed when what waits is to be delivered, and nothing more
	o        Options

	pending map[credref.Ref]resolver.Event
	order   []credref.Ref
	busy    map[credref.Ref]bool
}

// message is an event as it is delivered: once, or again with the same id.
type message struct {
	id   string
	body []byte
}

// notice is the body of a message, in the form that Standard Webhooks recommends.
type notice struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      data      `json:"data"`
}

type data struct {
	Ref      credref.Ref        `json:"ref"`
	Kind     resolver.EventKind `json:"kind"`
	State    resolver.State     `json:"state"`
	Revision string             `json:"revision,omitempty"`
	Version  string             `json:"version,omitempty"`
	Expires  *time.Time         `json:"expires_at,omitempty"`
	Error    *failure           `json:"error,omitempty"`
}

// failure is why. How to log in is left out: who reads it could log in as somebody else.
type failure struct {
	Code    backend.Code `json:"code"`
	Message string       `json:"message,omitempty"`
}

func newMessage(ev resolver.Event) (message, error) {
	n := notice{Type: "credential." + string(ev.Kind), Timestamp: ev.Time.UTC(), Data: data{
		Ref: ev.Ref, Kind: ev.Kind, State: ev.State, Revision: ev.Revision, Version: ev.Version,
	}}
	if !ev.Expires.IsZero() {
		end := ev.Expires.UTC()
		n.Data.Expires = &end
	}
	if ev.Err != nil {
		n.Data.Error = &failure{Code: backend.CodeOf(ev.Err)}
		if known := (*backend.Error)(nil); errors.As(ev.Err, &known) {
			n.Data.Error.Message = known.Reason
		}
	}
	body, err := json.Marshal(n)
	return message{newID(), append(body, '\n')}, err
}

// Start starts the subscribers of c.
func Start(c config.Events, o Options) (*Subscribers, error) {
	s := &Subscribers{o: o}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.Change(c); err != nil {
		s.cancel()
		return nil, err
	}
	return s, nil
}

// Change has those told that c names, and nobody else. Who is as before stays. What waits for another is delivered without
// anybody's waiting for it. After Close it does nothing.
func (s *Subscribers) Change(c config.Events) error {
	if s.ctx.Err() != nil {
		return nil
	}
	next, err := subscribersOf(c, s.o)
	if err != nil {
		return err
	}
	before := s.now
	for i, n := range next {
		same := func(b *subscriber) bool { return b.name == n.name && reflect.DeepEqual(b.settings, n.settings) }
		if at := slices.IndexFunc(before, same); at >= 0 {
			next[i] = before[at]
			continue
		}
		watching, stop := context.WithCancel(s.ctx)
		events := s.o.Resolver.For(credref.Subject{}).Watch(watching)
		s.done.Go(func() {
			defer n.close()
			defer stop()
			n.run(s.ctx, events, stop)
		})
	}
	s.now = next // they watch: between the old and the new nothing is missed
	for _, b := range before {
		if !slices.Contains(next, b) {
			close(b.drain)
		}
	}
	return nil
}

// Close has what waits delivered until ctx ends, and ends what is under way then.
func (s *Subscribers) Close(ctx context.Context) {
	for _, one := range s.now {
		close(one.drain)
	}
	s.now = nil
	defer s.done.Wait()
	defer s.cancel()
	idle := make(chan struct{})
	go func() {
		s.done.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// subscribersOf gives those of c, who do nothing yet.
func subscribersOf(c config.Events, o Options) (all []*subscriber, err error) {
	add := func(s *subscriber, i int, on, refs []string) error {
		s.name, s.o, s.drain = fmt.Sprintf("events.%ss[%d]", s.by, i), o, make(chan struct{})
		s.pending, s.busy = map[credref.Ref]resolver.Event{}, map[credref.Ref]bool{}
		s.on = []resolver.EventKind{
			resolver.EventRotated, resolver.EventStale, resolver.EventFailed, resolver.EventAuthRequired, resolver.EventRevoked,
			resolver.EventRevokeFailed,
		}
		if len(on) > 0 {
			s.on = nil
			for _, kind := range on {
				s.on = append(s.on, resolver.EventKind(kind))
			}
		}
		var err error
		if s.wants, err = policy.Refs(refs); err != nil {
			return backend.Errorf(backend.CodeInvalidConfig, "%s.refs: %v", s.name, err)
		}
		all = append(all, s)
		return nil
	}
	for i, h := range c.Hooks {
		s := &subscriber{by: "hook", settings: h, deliver: newHook(h, o.LookupEnv).deliver, close: func() {}}
		if err := add(s, i, h.On, h.Refs); err != nil {
			return nil, err
		}
	}
	for i, h := range c.Webhooks {
		w := newWebhook(h, o)
		s := &subscriber{by: "webhook", settings: h, deliver: w.deliver, close: w.client.CloseIdleConnections}
		if err := add(s, i, h.On, h.Refs); err != nil {
			return nil, err
		}
		// Its own key is fetched to tell of an event: to tell of that would not end.
		wants, own := s.wants, h.Secret
		s.wants = func(ref credref.Ref) bool {
			return (ref.Provider != own.Provider || ref.ID != own.ID) && wants(ref)
		}
	}
	return all, nil
}

// run takes events until s.drain is closed, has what it took delivered, and returns. Once ctx ends it drops what waits. It calls
// stop when it wants no more events.
func (s *subscriber) run(ctx context.Context, events <-chan resolver.Event, stop func()) {
	landed := make(chan credref.Ref)
	drain := s.drain
	var settled <-chan time.Time
	running, last := 0, false
	for {
		for running < parallel && ctx.Err() == nil {
			ev, ok := s.next()
			if !ok {
				break
			}
			running++
			s.busy[ev.Ref] = true
			go func() {
				s.tell(ctx, ev)
				landed <- ev.Ref
			}()
		}
		if last && running == 0 && len(s.order) == 0 {
			return
		}
		ended := ctx.Done()
		if running > 0 && ctx.Err() != nil {
			ended = nil // they end soon
		}
		select {
		case ev, open := <-events:
			if !open {
				events = nil // the resolver is closed
				continue
			}
			s.put(ev)
		case ref := <-landed:
			running--
			delete(s.busy, ref)
		case <-drain:
			drain, settled = nil, time.After(settleTime)
		case <-settled:
			select {
			case ev, open := <-events:
				if open {
					s.put(ev)
					settled = time.After(settleTime)
					continue
				}
			default:
			}
			stop()
			events, last = nil, true
		case <-ended:
			if running == 0 {
				if n := len(s.order); n > 0 {
					s.o.Log.Warn("events were not delivered", "to", s.name, "count", n, "reason", errEnded.Error())
				}
				for range s.order {
					s.o.Count(s.by, Dropped)
				}
				return
			}
		}
	}
}

// put has ev wait, in the place of what waits of its ref.
func (s *subscriber) put(ev resolver.Event) {
	if !slices.Contains(s.on, ev.Kind) || !s.wants(ev.Ref) {
		return
	}
	if old, waits := s.pending[ev.Ref]; waits {
		s.pending[ev.Ref] = ev.After(old)
		return
	}
	if len(s.order) >= maxWaiting {
		delete(s.pending, s.order[0])
		s.order = s.order[1:]
		s.o.Count(s.by, Dropped)
	}
	s.order = append(s.order, ev.Ref)
	s.pending[ev.Ref] = ev
}

// next takes the first event that waits, and of whose ref none is under way.
func (s *subscriber) next() (resolver.Event, bool) {
	for i, ref := range s.order {
		if !s.busy[ref] {
			ev := s.pending[ref]
			delete(s.pending, ref)
			s.order = slices.Delete(s.order, i, i+1)
			return ev, true
		}
	}
	return resolver.Event{}, false
}

func (s *subscriber) tell(ctx context.Context, ev resolver.Event) {
	m, err := newMessage(ev)
	if err == nil {
		err = s.deliver(ctx, m)
	}
	if err == nil {
		s.o.Count(s.by, Delivered)
		return
	}
	if ctx.Err() != nil {
		err = errEnded
	}
	s.o.Count(s.by, Failed)
	s.o.Log.Warn("an event was not delivered", "to", s.name, "kind", string(ev.Kind), "ref", ev.Ref.String(), "code", string(backend.CodeOf(err)), "reason", err.Error())
}
