package server

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/listen"
	"github.com/credresolve/credresolve/internal/peer"
	"github.com/credresolve/credresolve/internal/policy"
	"github.com/credresolve/credresolve/resolver"
)

// door is a listener as it matters to who comes in by it.
type door struct {
	name     string                     // socket, tcp, or a drop-in's
	token    []byte                     // that each request must bring; nil: the peer of the connection tells who it is
	consumer func(*config.Serve) string // whose rules hold for the holder of token; nil, or gives an empty name: the owner
}

// conn is one connection.
type conn struct {
	door   *door
	peer   *peer.Peer // nil: unknown, and on TCP
	socket net.Conn
	port   string // of the listener, on TCP

	as     atomic.Pointer[judged] // by its peer
	holder atomic.Pointer[judged] // by the named token that it brought last
}

type connKey struct{}

func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// caller is who asks, under one policy.
type caller struct {
	consumer *policy.Consumer
	view     *resolver.View
	subject  credref.Subject // the view's
	limiter  *rate.Limiter   // nil: none
	session  *session        // nil: none
}

func (s *Server) newCaller(st *state, c *policy.Consumer, subject credref.Subject) *caller {
	return &caller{consumer: c, view: s.resolver.For(subject), subject: subject, limiter: st.rates.limiter(c)}
}

// meet makes the conn of a new connection.
func (s *Server) meet(ctx context.Context, nc net.Conn, d *door) context.Context {
	c := &conn{door: d, socket: nc}
	s.conns.Store(nc, c)
	s.metrics.Connection(1)
	switch raw := listen.Underlying(nc).(type) {
	case *net.UnixConn:
		p, err := peer.Of(raw)
		if err != nil {
			s.log.Warn("the peer of a connection is unknown", "reason", err.Error())
		}
		c.peer = p
	case *net.TCPConn:
		_, c.port, _ = net.SplitHostPort(raw.LocalAddr().String())
	}
	return context.WithValue(ctx, connKey{}, c)
}

// part lets go of what is known of a connection that has ended.
func (s *Server) part(nc net.Conn) {
	if given, ok := nc.(*givenConn); ok {
		nc = given.Conn
	}
	if c, ok := s.conns.LoadAndDelete(nc); ok {
		s.metrics.Connection(-1)
		_ = c.(*conn).peer.Close()
	}
}

var (
	errNoToken = &backend.Error{
		Code: backend.CodeAuthRequired, Reason: "the request has no valid token",
		Remedy: "send Authorization: Bearer with the token of the listener or of a session",
	}
	errBrowser = &backend.Error{Code: backend.CodeDenied, Reason: "requests of browsers and of proxies are refused"}
	errHost    = &backend.Error{Code: backend.CodeDenied, Reason: "the Host of the request is not this listener"}
	errGone    = &backend.Error{Code: backend.CodeDenied, Reason: "the process that opened the connection has ended"}
)

// forwarding are headers that only proxies and browsers set. Who comes through one is not who the connection says.
var forwarding = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Real-Ip", "Via", "Origin", "Referer"}

// admit checks what must hold of each request before anybody asks who is calling.
func admit(c *conn, r *http.Request) error {
	for _, name := range forwarding {
		if _, set := r.Header[name]; set {
			return errBrowser
		}
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "Sec-Fetch-") || strings.HasPrefix(name, "X-Forwarded-") {
			return errBrowser
		}
	}
	if c.port == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil || port != c.port || !isLoopback(host) {
		return errHost
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// identify tells who is calling.
func (s *Server) identify(req *request) (*caller, error) {
	st, c, r := req.state, req.conn, req.r
	if req.protocol != nil {
		token, err := req.protocol.token(r)
		if err != nil {
			return nil, err
		}
		return s.holder(st, c, token)
	}
	if c.door.token != nil && r.Header.Get(client.RequestHeader) == "" {
		return nil, &backend.Error{Code: backend.CodeDenied, Reason: "the request lacks the header " + client.RequestHeader, Remedy: "send it with any value"}
	}
	header, given := r.Header["Authorization"]
	if !given && c.door.token == nil {
		return s.peerCaller(st, c)
	}
	var token string
	if len(header) == 1 {
		if scheme, rest, ok := strings.Cut(header[0], " "); ok && strings.EqualFold(scheme, "Bearer") {
			token = strings.TrimSpace(rest)
		}
	}
	return s.holder(st, c, token)
}

// peerCaller is who is at the other end of a Unix connection.
func (s *Server) peerCaller(st *state, c *conn) (*caller, error) {
	if j := c.as.Load(); j != nil && j.policy == st.policy {
		if j.caller != nil && j.caller.consumer.ByExecutable() && !c.peer.Alive() {
			return nil, errGone
		}
		return j.caller, j.err
	}
	j := &judged{policy: st.policy}
	if c.peer == nil {
		j.err = backend.Errorf(backend.CodeDenied, "the caller's process is unknown")
	} else {
		consumer := st.policy.Identify(policy.Caller{Peer: facts(c.peer), Listener: c.door.name})
		j.caller = s.newCaller(st, consumer, consumer.Subject())
		if !consumer.ByExecutable() {
			_ = c.peer.Close() // its pidfd is one more descriptor for each connection
		}
	}
	c.as.Store(j)
	return j.caller, j.err
}

func facts(p *peer.Peer) *policy.Facts {
	if p == nil {
		return nil
	}
	out := &policy.Facts{UID: &p.UID, GID: &p.GID, Executable: p.Executable}
	if p.PID != 0 {
		out.PID = &p.PID
	}
	return out
}

// holder is who holds token: a session's, a named one, or that of the listener.
func (s *Server) holder(st *state, c *conn, token string) (*caller, error) {
	if strings.HasPrefix(token, tokenPrefix) {
		if one := s.sessions.find(token); one != nil {
			j := s.judge(one, st)
			return j.caller, j.err
		}
	}
	name := ""
	if token != "" {
		name = st.tokens.name([]byte(token), c.door)
	}
	if name == "" {
		if !s.badAuth.next() {
			return nil, &backend.Error{Code: backend.CodeThrottled, Reason: "too many requests without a valid token", RetryAfter: badTokenPause}
		}
		return nil, errNoToken
	}
	if j := c.holder.Load(); j != nil && j.policy == st.policy && j.name == name {
		return j.caller, j.err
	}
	j := &judged{policy: st.policy, name: name}
	consumer := st.policy.Identify(policy.Caller{Peer: facts(c.peer), Token: name, Listener: c.door.name})
	if name == config.OwnerName && c.door.consumer != nil {
		if own := c.door.consumer(&st.serve); own != "" {
			consumer = st.policy.Named(own)
		}
	}
	if consumer == nil {
		j.err = backend.Errorf(backend.CodeDenied, "the listener's consumer is not configured")
	} else {
		j.caller = s.newCaller(st, consumer, consumer.Subject())
	}
	c.holder.Store(j)
	return j.caller, j.err
}
