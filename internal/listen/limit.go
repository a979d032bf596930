package listen

import (
	"net"
	"sync"
	"sync/atomic"
)

// Limit gives a listener that has at most max+reserve connections of l open at once. While max are taken, up to reserve others
// are let in as IsReserve tells, so that a server can answer health checks on them and nothing else. One beyond both is
// accepted and closed: its client hears at once, instead of waiting in the system's queue for as long as others please.
func Limit(l net.Listener, max, reserve int) net.Listener {
	return &limited{Listener: l, max: max, reserve: reserve}
}

// IsReserve reports whether c came to a Limit when all its places but the reserve were taken, and none has become free since:
// then c moves there, for good. Of another connection it is false. It is safe for concurrent use and costs one atomic read
// where it is false.
func IsReserve(c net.Conn) bool {
	p, ok := c.(*placed)
	return ok && p.reserve.Load() && !p.from.promote(p)
}

// Underlying gives the connection that a Limit took from its listener; another one as it is.
func Underlying(c net.Conn) net.Conn {
	if p, ok := c.(*placed); ok {
		return p.Conn
	}
	return c
}

type limited struct {
	net.Listener
	max, reserve int

	mu              sync.Mutex
	taken, reserved int // of max, of reserve
}

// placed is a connection that has a place.
type placed struct {
	net.Conn
	from    *limited
	reserve atomic.Bool // changes under from.mu
	closed  atomic.Bool
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		p := &placed{Conn: c, from: l}
		if l.admit(p) {
			return p, nil
		}
		_ = c.Close()
	}
}

func (l *limited) admit(p *placed) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.taken < l.max:
		l.taken++
	case l.reserved < l.reserve:
		l.reserved++
		p.reserve.Store(true)
	default:
		return false
	}
	return true
}

// promote gives p one of the places beside the reserve, if it has none and one is free.
func (l *limited) promote(p *placed) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.reserve.Load() && l.taken < l.max && !p.closed.Load() {
		l.taken++
		l.reserved--
		p.reserve.Store(false)
	}
	return !p.reserve.Load()
}

// Close closes the connection, and gives its place up once.
func (p *placed) Close() error {
	err := p.Conn.Close()
	if p.closed.CompareAndSwap(false, true) {
		p.from.mu.Lock()
		if p.reserve.Load() {
			p.from.reserved--
		} else {
			p.from.taken--
		}
		p.from.mu.Unlock()
	}
	return err
}

// CloseWrite ends what is sent, as servers do before they close a connection whose client still sends.
func (p *placed) CloseWrite() error {
	if c, ok := p.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return p.Conn.Close()
}
