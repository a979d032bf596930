package resolver

import (
	"time"

	"github.com/credresolve/credresolve/backend"
)

// State is where a credential is in its life.
type State string

// The states of a credential.
const (
	StateConfigured   State = "configured"    // nothing is known of it, or it could not be fetched: the next who asks has it fetched
	StateResolving    State = "resolving"     // it is being fetched
	StateActive       State = "active"        // it is served
	StateExpiring     State = "expiring"      // it is served, and the time has come for a successor, which nobody has asked for yet
	StateRefreshing   State = "refreshing"    // it is served, and its successor is being fetched, or its lease renewed
	StateStale        State = "stale"         // it is served past its time, since its store is unavailable
	StateAuthRequired State = "auth_required" // its store wants a login; an Event that has a Revision tells that it is served until its end
	StateRevoked      State = "revoked"       // it was ended before its time
)

// transition is one step that a credential may take: an event of that kind leads from one state to another.
type transition struct {
	from State
	kind EventKind
	to   State
}

// transitions are all steps of a credential's life.
var transitions = [...]transition{
	{StateConfigured, EventResolving, StateResolving},
	{StateRevoked, EventResolving, StateResolving},
	{StateAuthRequired, EventResolving, StateResolving}, // of one that is not served any more

	{StateResolving, EventResolved, StateActive},
	{StateResolving, EventResolved, StateConfigured}, // given to who waited, and kept nowhere
	{StateResolving, EventStale, StateStale},         // of what another process remembered
	{StateResolving, EventFailed, StateConfigured},
	{StateResolving, EventAuthRequired, StateAuthRequired},
	{StateResolving, EventRevoked, StateRevoked},
	{StateResolving, EventLapsed, StateConfigured}, // given to who waited, and kept nowhere

	{StateActive, EventExpiring, StateExpiring},
	{StateActive, EventStale, StateStale}, // a refresh had failed

	{StateExpiring, EventRefreshing, StateRefreshing},
	{StateActive, EventRefreshing, StateRefreshing}, // before its time: it was refused, or asked for anew
	{StateStale, EventRefreshing, StateRefreshing},
	{StateAuthRequired, EventRefreshing, StateRefreshing},

	{StateRefreshing, EventRefreshed, StateActive},
	{StateRefreshing, EventRotated, StateActive},
	{StateRefreshing, EventRefreshed, StateConfigured}, // kept nowhere
	{StateRefreshing, EventRotated, StateConfigured},
	{StateRefreshing, EventStale, StateRefreshing}, // its time is over, and the successor is not there yet
	{StateRefreshing, EventStale, StateStale},
	{StateRefreshing, EventFailed, StateActive},
	{StateRefreshing, EventFailed, StateConfigured}, // denied, gone, or over
	{StateRefreshing, EventAuthRequired, StateAuthRequired},
	{StateAuthRequired, EventAuthRequired, StateAuthRequired}, // its end has come, and it is served no more

	{StateActive, EventRevoked, StateRevoked},
	{StateExpiring, EventRevoked, StateRevoked},
	{StateRefreshing, EventRevoked, StateRevoked},
	{StateStale, EventRevoked, StateRevoked},
	{StateAuthRequired, EventRevoked, StateRevoked},

	{StateRevoked, EventRevokeFailed, StateRevoked}, // said of what was, whatever is served since
	{StateConfigured, EventRevokeFailed, StateRevoked},
	{StateAuthRequired, EventRevokeFailed, StateRevoked}, // nothing is served
	{StateResolving, EventRevokeFailed, StateResolving},
	{StateActive, EventRevokeFailed, StateActive},
	{StateExpiring, EventRevokeFailed, StateExpiring},
	{StateRefreshing, EventRevokeFailed, StateRefreshing},
	{StateStale, EventRevokeFailed, StateStale},
	{StateAuthRequired, EventRevokeFailed, StateAuthRequired},
	{StateRevoked, EventRevoked, StateRevoked}, // at its store too
	{StateConfigured, EventRevoked, StateRevoked},

	{StateActive, EventLapsed, StateConfigured},
	{StateExpiring, EventLapsed, StateConfigured},
	{StateRefreshing, EventLapsed, StateConfigured},
	{StateStale, EventLapsed, StateConfigured},
	{StateAuthRequired, EventLapsed, StateConfigured},

	{StateActive, EventFailed, StateConfigured}, // its provider was replaced
	{StateExpiring, EventFailed, StateConfigured},
	{StateStale, EventFailed, StateConfigured},
	{StateAuthRequired, EventFailed, StateConfigured},
}

// state gives the state of k, as far as it can be seen now: of what is not known it is configured or resolving. Called with r.mu
// held.
func (r *Resolver) state(k key) State {
	e, flying := r.cache.Peek(k), r.flights[k] != nil
	switch {
	case e == nil || e.Payload.cred == nil:
		if flying {
			return StateResolving
		}
		return StateConfigured
	case flying:
		return StateRefreshing
	case e.Payload.halted:
		return StateAuthRequired
	case e.Payload.stale:
		return StateStale
	case e.Payload.due:
		return StateExpiring
	}
	return StateActive
}

// endState is the state of what is not served, after an event of that kind.
func endState(kind EventKind) State {
	switch kind {
	case EventResolving:
		return StateResolving
	case EventAuthRequired:
		return StateAuthRequired
	case EventRevoked:
		return StateRevoked
	}
	return StateConfigured
}

// failed is the kind of the event that a fetch failed with err.
func failed(err error) EventKind {
	if backend.CodeOf(err) == backend.CodeAuthRequired {
		return EventAuthRequired
	}
	return EventFailed
}

// begins tells that a fetch of k begins. Called with r.mu held, before it is among the flights.
func (r *Resolver) begins(k key) {
	if r.hub.watching.Load() == 0 || r.flights[k] != nil { // one takes another's place
		return
	}
	e := r.cache.Peek(k)
	if e != nil && e.Payload.cred != nil && r.clock.exact() >= e.Payload.end() { // nobody has looked at it since
		r.cache.Remove(k)
		r.lapsed(k)
		e = nil
	}
	if e == nil || e.Payload.cred == nil {
		r.publishEnd(k, EventResolving, nil)
		return
	}
	rec := &e.Payload
	if r.clock.exact() >= rec.refresh {
		r.expiring(rec)
	}
	ev := r.event(rec, k.ref(), EventRefreshing, nil)
	ev.State = StateRefreshing
	r.hub.publish(r, r.scope(k), k, ev)
}

// expiring tells that the time for a successor of rec has come, if that is news. Called with r.mu held.
func (r *Resolver) expiring(rec *record) {
	if rec.due || rec.stale || rec.halted {
		return
	}
	rec.due = true
	r.publish(rec, EventExpiring, nil)
}

// lapsed tells that what was known, or fetched, of those keys is known no more. Called with r.mu held.
func (r *Resolver) lapsed(keys ...key) {
	for _, k := range keys {
		r.publishEnd(k, EventLapsed, nil)
	}
}

// crowdedOut tells of what left the cache to make room. Called with r.mu held.
func (r *Resolver) crowdedOut() {
	r.lapsed(r.crowded...)
	r.crowded = nil
}

// halt has rec, whose store wants a login, served until its end where that is known, else as long as it is fresh. Called with
// r.mu held.
func (r *Resolver) halt(rec *record, now int64) {
	rec.halted, rec.last = true, rec.fresh
	if end := rec.known.expires; !end.IsZero() {
		skew := min(maxSkew, end.Sub(rec.known.fetched)/10)
		rec.last = max(rec.fresh, now+int64(min(time.Until(end)-skew-tick, maxTTL)))
	}
}

// halted tells that the store of e wants a login: until then it is served as stale, if it has an end. Called with r.mu held.
func (r *Resolver) halted(e *entry, now int64, err error) {
	if rec := e.Payload; !rec.stale && (!rec.known.expires.IsZero() || now >= rec.fresh) {
		rec.stale, rec.place = true, 0
		e = r.install(rec, now)
	} else {
		r.schedule(e, now)
	}
	r.publish(&e.Payload, EventAuthRequired, err)
}
