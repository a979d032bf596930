package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/audit"
	"github.com/credresolve/credresolve/internal/policy"
)

const (
	tokenPrefix    = "crs_" // so that scanners for leaked secrets can find one
	defaultTTL     = time.Hour
	maxTTL         = 24 * time.Hour
	maxSessionRefs = 1000
	maxReason      = 256
)

// session is a bearer token with its own allow-list and subject.
type session struct {
	client.Session // without its token
	subject        credref.Subject
	configured     bool // the consumer is one of the configuration, whose rules hold too
	ctx            context.Context
	cancel         context.CancelFunc
	timer          *time.Timer

	as atomic.Pointer[judged]
}

// judged is what a session is under one policy.
type judged struct {
	policy *policy.Policy
	name   string // of the token, if there was one
	caller *caller
	err    error
}

// sessions are those that have not ended, by the SHA-256 of their tokens: looking one up takes no time that depends on it.
type sessions struct {
	mu      sync.RWMutex
	byToken map[[sha256.Size]byte]*session
	byID    map[string]*session
}

// find gives the session of token, nil when there is none.
func (s *sessions) find(token string) *session {
	sum := sha256.Sum256([]byte(token))
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byToken[sum]
}

func (s *sessions) list() []client.Session {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]client.Session, 0, len(s.byID))
	for _, one := range s.byID {
		out = append(out, one.Session)
	}
	slices.SortFunc(out, func(a, b client.Session) int {
		return cmp.Or(a.ExpiresAt.Compare(b.ExpiresAt), strings.Compare(a.ID, b.ID))
	})
	return out
}

// of gives those whose subject is one that which says.
func (s *sessions) of(which func(credref.Subject) bool) (out []*session) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, one := range s.byID {
		if which(one.subject) {
			out = append(out, one)
		}
	}
	return out
}

func (s *sessions) len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.byID)
}

// startSession makes a session of req, and the token by which it is used.
func (s *Server) startSession(st *state, req client.SessionRequest) (*session, string, error) {
	fail := func(format string, args ...any) (*session, string, error) {
		return nil, "", backend.Errorf(backend.CodeUsage, format, args...)
	}
	switch {
	case credref.ValidateProvider(req.Consumer) != nil:
		return fail("consumer must be a name that matches ^[a-z][a-z0-9_-]{0,63}$")
	case len(req.Allow) == 0 && len(req.Secrets) == 0:
		return fail("allow is empty: a session must name the refs that it may resolve")
	case len(req.Secrets) > 0 && (req.Subject == nil || req.Subject.Plugin == ""):
		return fail("secrets without a plugin in subject: whose they are is missing")
	case len(req.Allow) > maxSessionRefs:
		return fail("allow has more than %d refs", maxSessionRefs)
	case len(req.Reason) > maxReason:
		return fail("the reason is longer than %d bytes", maxReason)
	case time.Duration(req.TTL) > maxTTL:
		return fail("a session lasts at most %s", maxTTL)
	}
	random := make([]byte, 8+32)
	_, _ = rand.Read(random) // it never fails
	token := tokenPrefix + base64.RawURLEncoding.EncodeToString(random[8:])
	ttl := cmp.Or(time.Duration(req.TTL), defaultTTL)
	out := &session{Session: client.Session{
		ID: hex.EncodeToString(random[:8]), Consumer: req.Consumer, Allow: append([]string{}, req.Allow...), Reason: req.Reason,
		Secrets: slices.Clone(req.Secrets), Login: req.Login, ExpiresAt: time.Now().Add(ttl).UTC(),
	}}
	if req.Subject != nil {
		out.subject = credref.Subject{Tenant: req.Subject.Tenant, EndUser: req.Subject.EndUser, Session: req.Subject.Session, Plugin: req.Subject.Plugin}
	}
	out.subject.Session = cmp.Or(out.subject.Session, out.ID)
	if err := out.subject.Validate(); err != nil {
		return fail("the subject is malformed")
	}
	out.Subject = &client.Subject{Tenant: out.subject.Tenant, EndUser: out.subject.EndUser, Session: out.subject.Session, Plugin: out.subject.Plugin}
	out.configured = st.policy.Named(req.Consumer) != nil
	out.ctx, out.cancel = context.WithCancel(context.Background())
	if j := s.judge(out, st); j.err != nil {
		return nil, "", j.err
	}
	s.sessions.mu.Lock()
	defer s.sessions.mu.Unlock()
	if len(s.sessions.byID) >= cmp.Or(st.serve.Limits.Sessions, defaultSessions) {
		return nil, "", &backend.Error{Code: backend.CodeThrottled, Reason: "there are too many sessions", Remedy: "end some", RetryAfter: time.Minute}
	}
	if s.sessions.byID == nil {
		s.sessions.byID, s.sessions.byToken = map[string]*session{}, map[[sha256.Size]byte]*session{}
	}
	s.sessions.byID[out.ID] = out
	s.sessions.byToken[sha256.Sum256([]byte(token))] = out
	out.timer = time.AfterFunc(ttl, func() { s.expire(out) })
	return out, token, nil
}

// judge gives what a session is under the policy of st.
func (s *Server) judge(one *session, st *state) *judged {
	if j := one.as.Load(); j != nil && j.policy == st.policy {
		return j
	}
	j := &judged{policy: st.policy}
	base := st.policy.Owner()
	if one.configured {
		base = st.policy.Named(one.Consumer)
	}
	if base == nil {
		j.err = backend.Errorf(backend.CodeDenied, "the session's consumer %s is no longer configured", one.Consumer)
	} else if restricted, err := st.policy.Restrict(base, one.Consumer, one.Allow, policy.Also{Secrets: one.Secrets, Login: one.Login}); err != nil {
		j.err = err
	} else {
		j.caller = s.newCaller(st, restricted, one.subject)
		j.caller.session = one
	}
	one.as.Store(j)
	return j
}

// endSession ends the session of that id, its streams, its logins, what is kept for its subject, and leases of it at their stores. It
// reports false when there is none.
func (s *Server) endSession(ctx context.Context, id string) (*session, error) {
	s.sessions.mu.Lock()
	one := s.sessions.byID[id]
	if one == nil {
		s.sessions.mu.Unlock()
		return nil, backend.Errorf(backend.CodeNotFound, "there is no such session")
	}
	delete(s.sessions.byID, id)
	shared := false // by another session of the same subject
	for sum, other := range s.sessions.byToken {
		if other == one {
			delete(s.sessions.byToken, sum)
		} else if other.subject.Session == one.subject.Session {
			shared = true
		}
	}
	s.sessions.mu.Unlock()
	one.timer.Stop()
	one.cancel()
	within := func(sub credref.Subject) bool { return !shared && sub.Session == one.subject.Session }
	err := s.endLogins(ctx, within, one.ID)
	if shared {
		return one, err
	}
	return one, cmp.Or(s.resolver.EndSession(ctx, one.subject.Session), err)
}

// expire ends a session whose time is over.
func (s *Server) expire(one *session) {
	ctx, cancel := context.WithTimeout(context.Background(), defaultTimeout)
	defer cancel()
	if _, err := s.endSession(ctx, one.ID); err != nil && backend.CodeOf(err) != backend.CodeNotFound {
		s.log.Warn("what an ended session had was not revoked everywhere", "session", one.ID, "code", string(backend.CodeOf(err)))
	}
	s.auditSession(one, audit.EventSessionEnd, "expired")
}
