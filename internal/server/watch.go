package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/audit"
	"github.com/credresolve/credresolve/resolver"
)

const (
	maxWatched   = 256 // refs of one stream
	heartbeat    = 15 * time.Second
	writeTimeout = 10 * time.Second // for one event
	standing     = 4                // bytes that say how a ref stands
)

// watch streams the events of refs. An event's id says how every ref of the stream stands after it, in a few bytes each, so
// that a client which comes back, to this process or its successor, is told what changed meanwhile and nothing else.
func (s *Server) watch(req *request) {
	query, err := url.ParseQuery(req.r.URL.RawQuery)
	if err != nil || len(query) != len(query["ref"][:min(1, len(query["ref"]))]) {
		req.fail(bad(http.StatusBadRequest, "the query must be ref=… alone, percent-encoded", ""))
		return
	}
	if n := len(query["ref"]); n == 0 || n > maxWatched {
		req.fail(bad(http.StatusBadRequest, "a stream watches 1 to 256 refs", "open several"))
		return
	}
	refs := make([]credref.Ref, 0, len(query["ref"]))
	place := map[credref.Ref]int{}
	for _, text := range query["ref"] {
		ref, err := credref.Parse(text)
		if err != nil {
			req.fail(bad(http.StatusBadRequest, err.Error(), ""))
			return
		}
		if _, twice := place[ref]; !twice {
			place[ref] = len(refs)
			refs = append(refs, ref)
		}
	}
	limits := req.state.serve.Limits
	if s.watchers.Add(1) > int64(cmp.Or(limits.Watchers, min(defaultWatchers, cmp.Or(limits.Connections, defaultConnections)))) {
		s.watchers.Add(-1)
		req.fail(&backend.Error{Code: backend.CodeThrottled, Reason: "there are as many watchers as there may be", RetryAfter: 5 * time.Second})
		return
	}
	defer s.watchers.Add(-1)
	var allowed []credref.Ref
	var denied []resolver.Event
	for _, ref := range refs {
		d := req.caller.consumer.Resolve(ref)
		if d.Allowed {
			allowed = append(allowed, ref)
			continue
		}
		err := denial(req.caller.consumer.Name(), d.Reason)
		denied = append(denied, resolver.Event{Ref: ref, Kind: resolver.EventFailed, State: resolver.StateConfigured, Time: time.Now(), Err: err})
		s.metrics.Denied(req.caller.consumer.Name())
		if failed := s.auditOne(req, audit.EventDenial, &ref, d.Rule, err); failed != nil {
			req.fail(failed)
			return
		}
	}
	for _, ref := range allowed {
		if failed := s.auditOne(req, "watch", &ref, "", nil); failed != nil {
			req.fail(failed)
			return
		}
	}
	s.stream(req, refs, place, allowed, denied)
}

func (s *Server) stream(req *request, refs []credref.Ref, place map[credref.Ref]int, allowed []credref.Ref, denied []resolver.Event) {
	ctx, cancel := context.WithCancel(req.r.Context())
	defer cancel()
	defer context.AfterFunc(s.streams.Load().ctx, cancel)()
	if one := req.caller.session; one != nil {
		defer context.AfterFunc(one.ctx, cancel)()
	}
	known, resumed := make([]byte, standing*len(refs)), make([]bool, len(refs))
	if last, err := base64.RawURLEncoding.DecodeString(req.r.Header.Get("Last-Event-Id")); err == nil && len(last) == len(known) {
		copy(known, last)
		for i := range resumed {
			resumed[i] = true
		}
	}
	out := http.NewResponseController(req.w)
	h := req.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h["Cache-Control"] = headerNoStore
	req.status = http.StatusOK
	req.w.WriteHeader(req.status)
	send := func(text []byte) bool {
		if out.SetWriteDeadline(time.Now().Add(writeTimeout)) != nil {
			return false
		}
		_, err := req.w.Write(text)
		return err == nil && out.Flush() == nil
	}
	tell := func(ev resolver.Event) bool {
		i := place[ev.Ref]
		switch ev.Kind {
		case resolver.EventResolving, resolver.EventExpiring, resolver.EventRefreshing, resolver.EventLapsed, resolver.EventRevokeFailed: // how it stands is not new
			return resumed[i] || send(appendEvent(nil, ev, known))
		}
		at := known[standing*i : standing*(i+1)]
		now := stands(ev)
		same := [standing]byte(at) == now
		copy(at, now[:])
		if first := resumed[i]; first {
			resumed[i] = false
			if same {
				return true
			}
		}
		return send(appendEvent(nil, ev, known))
	}
	if !send([]byte(": credresolve\n\n")) {
		return
	}
	for _, ev := range denied {
		if !tell(ev) {
			return
		}
	}
	var events <-chan resolver.Event
	if len(allowed) > 0 {
		events = req.caller.view.Watch(ctx, allowed...)
		defer s.hold(ctx, req.caller.view, allowed)()
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case ev, open := <-events:
			if open {
				s.noteLogin(req, ev.Ref, ev.Err)
			}
			if !open || !tell(ev) {
				return
			}
		case <-beat.C:
			if !send([]byte(":\n\n")) {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// hold fetches refs in the background, and keeps them fresh until release is called.
func (s *Server) hold(ctx context.Context, view *resolver.View, refs []credref.Ref) (release func()) {
	handles := make([]*resolver.Handle, len(refs))
	for i, ref := range refs {
		handles[i] = view.Handle(ref)
	}
	missing := false
	for i := range refs {
		missing = missing || view.Cached(&refs[i]) == nil
	}
	done := make(chan struct{})
	pin := func() {
		defer close(done)
		if len(refs) > 1 && missing {
			view.ResolveAll(ctx, refs) // together; how it went is an event
		}
		for _, h := range handles {
			_, _ = h.Get(ctx)
		}
	}
	if missing {
		go pin()
	} else {
		pin()
	}
	return func() {
		<-done
		for _, h := range handles {
			_ = h.Close()
		}
	}
}

// stands says how a ref stands after ev.
func stands(ev resolver.Event) [standing]byte {
	how := "served"
	switch ev.Kind {
	case resolver.EventStale, resolver.EventFailed, resolver.EventAuthRequired, resolver.EventRevoked:
		how = string(ev.Kind)
	}
	sum := sha256.Sum256([]byte(how + " " + ev.Revision + " " + string(backend.CodeOf(ev.Err))))
	return [standing]byte(sum[:standing])
}

func appendEvent(out []byte, ev resolver.Event, known []byte) []byte {
	data, err := json.Marshal(client.NewWatchEvent(ev))
	if err != nil {
		return out
	}
	out = append(append(out, "event: "...), ev.Kind...)
	out = base64.RawURLEncoding.AppendEncode(append(out, "\nid: "...), known)
	return append(append(append(out, "\ndata: "...), data...), "\n\n"...)
}
