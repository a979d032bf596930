package server

import (
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/audit"
	"github.com/credresolve/credresolve/resolver"
)

// ask is a ref that is asked for, and the revision that the caller has of it.
type ask struct {
	ref         credref.Ref
	ifRevision  string
	exact       bool   // what is shared with others is no answer
	ifNoneMatch string // the same as HTTP has it: entity tags (RFC 9110, 13.1.2)
}

// has reports whether the caller has that revision.
func (a *ask) has(revision string) bool {
	if a.ifNoneMatch == "" {
		return a.ifRevision == revision && revision != ""
	}
	for tag := range strings.SplitSeq(a.ifNoneMatch, ",") {
		tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
		if tag == "*" || len(tag) > 1 && tag[0] == '"' && tag[1:len(tag)-1] == revision {
			return true
		}
	}
	return false
}

// answer is what became of an ask.
type answer struct {
	ref       credref.Ref
	value     *resolver.Value
	unchanged bool
	exact     bool
	err       error
	known     bool // what problem gives
	trouble   *client.Error
	rule      string // that decided
	denied    bool
}

// resolve answers asks for req's caller. An error is that of all: then nothing may be revealed.
func (s *Server) resolve(req *request, asks []ask, d resolver.Demand) ([]answer, error) {
	if err := allow(req.caller.limiter, len(asks)); err != nil {
		s.metrics.Limited(req.caller.consumer.Name())
		return nil, err
	}
	if req.traced != nil {
		s.tracing.Refs(req.traced, len(asks))
	}
	answers := req.answers[:0]
	if cap(answers) < len(asks) {
		answers = make([]answer, 0, len(asks))
	}
	plain := d.MinFreshness == 0 && d.MaxStale == nil && !d.NoCache
	d.Whole = true
	missing, exact := 0, false
	for i := range asks {
		exact = exact || asks[i].exact
		a := answer{ref: asks[i].ref, exact: asks[i].exact}
		if err := a.ref.Validate(); err != nil {
			a.err = backend.Errorf(backend.CodeUsage, "%v", err)
		} else if decision := req.caller.consumer.Resolve(a.ref); !decision.Allowed {
			a.rule, a.denied = decision.Rule, true
			a.err = denial(req.caller.consumer.Name(), decision.Reason)
		} else {
			a.rule = decision.Rule
			if plain {
				a.value = req.caller.view.Cached(&a.ref)
			}
			if a.value == nil {
				missing++
			} else {
				s.metrics.Hit(a.ref.Provider)
			}
		}
		answers = append(answers, a)
	}
	if missing > 0 {
		s.fetch(req, answers, missing, d)
	}
	if exact {
		d.Exact = true
		s.fetch(req, answers, missing, d)
	}
	for i := range answers {
		a := &answers[i]
		a.unchanged = a.value != nil && asks[i].has(a.value.Revision())
		switch {
		case a.unchanged:
			s.metrics.Unchanged(a.ref.Provider)
		case a.denied:
			s.metrics.Denied(req.caller.consumer.Name())
		case a.value != nil:
			s.metrics.Served(a.value)
		}
	}
	req.answers = answers
	return answers, s.auditAnswers(req, answers)
}

// problem is the wire form of a's error, or of why its value's successor could not be fetched; nil if there is none. It stays as
// it was at first, while that of the value may change.
func (a *answer) problem() *client.Error {
	if !a.known {
		err := a.err
		if err == nil && a.value != nil {
			err = a.value.RefreshError()
		}
		a.known, a.trouble = true, client.NewError(err)
	}
	return a.trouble
}

func denial(consumer, reason string) error {
	if consumer == "" {
		return &backend.Error{Code: backend.CodeDenied, Reason: "the caller is no consumer of the configuration: " + reason}
	}
	return &backend.Error{
		Code:   backend.CodeDenied,
		Reason: "the policy does not allow this to " + consumer + ": " + reason,
		Remedy: "see credresolve policy test --consumer " + consumer,
	}
}

// fetch answers what the cache alone did not.
func (s *Server) fetch(req *request, answers []answer, missing int, d resolver.Demand) {
	refs, at := make([]credref.Ref, 0, missing), make([]int, 0, missing)
	for i := range answers {
		if answers[i].value == nil && answers[i].err == nil && answers[i].exact == d.Exact {
			refs, at = append(refs, answers[i].ref), append(at, i)
		}
	}
	if len(refs) == 0 {
		return
	}
	ctx, end, err := req.wait()
	if err != nil {
		for _, i := range at {
			answers[i].err = err
		}
		return
	}
	defer end()
	for k, o := range req.caller.view.ResolveWith(ctx, refs, d) {
		a := &answers[at[k]]
		a.value, a.err = o.Value, o.Err
		s.metrics.Answered(a.ref.Provider, o)
		if e, ok := a.err.(*resolver.RefError); ok {
			a.err = e.Err
		}
		s.noteLogin(req, a.ref, a.err)
		if backend.CodeOf(a.err) == backend.CodeTimeout {
			a.err = &backend.Error{Code: backend.CodeTimeout, Reason: "the secret was not there in time"}
		}
	}
}

// auditAnswers writes a line for each of answers. With an error nothing may be revealed.
func (s *Server) auditAnswers(req *request, answers []answer) error {
	if s.audit.Off() {
		return nil
	}
	now := time.Now()
	records := req.records[:0]
	for i := range answers {
		a := &answers[i]
		rec := req.record(now)
		rec.Event, rec.Outcome, rec.Reason = audit.EventReveal, backend.CodeOf(a.err), a.rule
		switch {
		case a.denied:
			rec.Event = audit.EventDenial
		case a.err != nil:
			rec.Event = audit.EventFailure
		case a.unchanged:
			rec.Event = audit.EventUnchanged
		}
		if !malformed(a) { // what is no ref may be anything, a secret too
			rec.Ref = &a.ref
		}
		if a.value != nil {
			rec.Revision, rec.Stale = a.value.Revision(), a.value.Stale()
		}
		records = append(records, rec)
	}
	req.records = records
	return s.audit.Write(records)
}

func malformed(a *answer) bool {
	return a.err != nil && a.rule == "" && a.ref.Validate() != nil
}

// auditOne writes the line of what is no reveal. With an error it must not be done, or not be told.
func (s *Server) auditOne(req *request, event string, ref *credref.Ref, reason string, err error) error {
	rec := req.record(time.Now())
	rec.Event, rec.Ref, rec.Reason, rec.Outcome = event, ref, reason, backend.CodeOf(err)
	return s.audit.Write([]audit.Record{rec})
}

// auditSession writes the line of a session's beginning or end.
func (s *Server) auditSession(one *session, event, reason string) {
	rec := audit.Record{Time: time.Now(), Event: event, Consumer: one.Consumer, Session: one.ID, Outcome: backend.CodeOK, Reason: reason}
	if err := s.audit.Write([]audit.Record{rec}); err != nil {
		s.log.Error("a line of the audit log is lost", "event", event, "session", one.ID, "reason", err.Error())
	}
}
