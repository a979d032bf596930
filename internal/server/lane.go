package server

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/credresolve/credresolve/internal/listen"
)

// lane serves the connections of the Unix socket. The one request that programs repeat all day, GET /v1/resolve without a
// body, it reads and answers itself where it came whole, in one piece and in its plainest form; everything else, from the first
// byte that is not of that form on, is net/http's, which gets the connection with what was read of it. So the hard cases of
// HTTP are all decided in one place, and the easy one does not pay for them: net/http takes three times as long for it.
//
// The handler is the same for both.
type lane struct {
	s       *Server
	door    *door
	handler http.Handler
	rest    *handoff        // for net/http
	ctx     context.Context // of every request; ends when they may take no longer
	cancel  context.CancelFunc

	mu       sync.Mutex
	idle     map[*laneConn]bool // false: it answers a request
	draining bool
	done     sync.WaitGroup
}

// The bounds of a lane's connections.
const (
	laneHead  = 2 << 10 // bytes of a request's head; a longer one is net/http's
	laneFresh = time.Second
)

type laneConn struct {
	net.Conn
	lane *lane
	c    *conn
	ctx  context.Context

	in       []byte // what was read and not answered
	head     []byte // of the last request, of which the fields of request are
	request  *http.Request
	reply    laneReply
	deadline time.Time // when the deadlines were last moved
}

func newLane(s *Server, d *door, l net.Listener, h http.Handler) *lane {
	a := &lane{s: s, door: d, handler: h, rest: newHandoff(l.Addr()), idle: map[*laneConn]bool{}}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

// serve accepts connections until l is closed.
func (a *lane) serve(l net.Listener) error {
	defer a.rest.Close()
	for pause := time.Duration(0); ; {
		nc, err := l.Accept()
		if err == nil {
			pause = 0
			a.open(nc)
			continue
		}
		var passing interface{ Temporary() bool }
		if errors.Is(err, net.ErrClosed) || !errors.As(err, &passing) || !passing.Temporary() {
			return err
		}
		// As with too many open files: those that are open will be closed.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		time.Sleep(pause)
	}
}

func (a *lane) open(nc net.Conn) {
	ctx := a.s.meet(a.ctx, nc, a.door)
	lc := &laneConn{Conn: nc, lane: a, c: connOf(ctx), ctx: ctx}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.draining {
		lc.part()
		return
	}
	a.idle[lc] = true
	a.done.Go(lc.run)
}

// part closes the connection.
func (lc *laneConn) part() {
	_ = lc.Close()
	lc.lane.s.part(lc.Conn)
}

// mark says whether lc waits for a request; it reports false when it must not.
func (a *lane) mark(lc *laneConn, idle bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.draining && idle {
		return false
	}
	a.idle[lc] = idle
	return true
}

func (a *lane) leave(lc *laneConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.idle, lc)
}

// drain ends connections that wait for a request, and the others once they are answered, or when ctx ends.
func (a *lane) drain(ctx context.Context) {
	defer a.cancel()
	a.mu.Lock()
	a.draining = true
	for lc, idle := range a.idle {
		if idle {
			_ = lc.SetReadDeadline(time.Unix(1, 0))
		}
	}
	a.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		a.done.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		a.cancel()
		a.mu.Lock()
		for lc := range a.idle {
			_ = lc.Close()
		}
		a.mu.Unlock()
		<-ended
	}
}

// run answers requests until one is net/http's.
func (lc *laneConn) run() {
	a := lc.lane
	defer a.leave(lc)
	lc.in = make([]byte, 0, laneHead)
	for {
		if len(lc.in) == 0 && !lc.read() {
			lc.part()
			return
		}
		end := bytes.Index(lc.in, []byte("\r\n\r\n"))
		if end < 0 || !lc.parse(lc.in[:end+4]) {
			break
		}
		if !a.mark(lc, false) || !lc.answer() {
			lc.part()
			return
		}
		lc.in = append(lc.in[:0], lc.in[end+4:]...)
		if !a.mark(lc, true) {
			lc.part()
			return
		}
	}
	if !a.rest.give(&givenConn{Conn: lc.Conn, c: lc.c, prefix: bytes.Clone(lc.in)}) {
		lc.part()
	}
}

// read waits for bytes.
func (lc *laneConn) read() bool {
	if now := time.Now(); now.Sub(lc.deadline) > laneFresh {
		// Moving them costs as much as parsing: once a second is often enough.
		lc.deadline = now
		if lc.SetReadDeadline(now.Add(idleTimeout)) != nil || lc.SetWriteDeadline(now.Add(writeTimeout)) != nil {
			return false
		}
		if !lc.lane.mark(lc, true) { // drain may have set its own before
			return false
		}
	}
	n, err := lc.Read(lc.in[:cap(lc.in)])
	lc.in = lc.in[:n]
	return err == nil && n > 0
}

// answer lets the handler answer lc.request, and writes that in one piece.
func (lc *laneConn) answer() bool {
	w := &lc.reply
	w.status, w.body = 0, w.body[:0]
	if w.header == nil {
		w.header = http.Header{}
	}
	lc.lane.handler.ServeHTTP(w, lc.request)
	_, last := w.header["Connection"]
	w.out = w.appendHead(w.out[:0])
	w.out = append(w.out, w.body...)
	if time.Since(lc.deadline) > laneFresh { // the answer took long
		lc.deadline = time.Now()
		_ = lc.SetReadDeadline(lc.deadline.Add(idleTimeout))
		_ = lc.SetWriteDeadline(lc.deadline.Add(writeTimeout))
	}
	_, err := lc.Write(w.out)
	clear(w.body)
	clear(w.out)
	clear(w.header)
	if cap(w.out) > maxKept {
		w.out, w.body = nil, nil
	}
	return err == nil && !last
}

// attendEvery is how often a lane looks whether the client of a request that waits for a store is still there.
const attendEvery = 500 * time.Millisecond

// attend calls left once the client of a lane has gone away, as net/http does for its own. The function that it gives ends that.
func (c *conn) attend(w http.ResponseWriter, left func()) (stop func()) {
	socket, ok := listen.Underlying(c.socket).(*net.UnixConn)
	if _, own := w.(*laneReply); !own || !ok {
		return func() {}
	}
	ended := make(chan struct{})
	var look func()
	look = func() {
		select {
		case <-ended:
			return
		default:
		}
		if gone(socket) {
			left()
			return
		}
		time.AfterFunc(attendEvery, look)
	}
	first := time.AfterFunc(attendEvery, look)
	return func() {
		first.Stop()
		close(ended)
	}
}

// laneReply is the http.ResponseWriter of a lane.
type laneReply struct {
	header http.Header
	status int
	body   []byte
	out    []byte
}

func (w *laneReply) Header() http.Header { return w.header }

func (w *laneReply) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *laneReply) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, b...)
	return len(b), nil
}

// date is the value of the header Date, made once a second.
var date atomic.Pointer[dateText]

type dateText struct {
	second int64
	text   string
}

func dateNow() string {
	now := time.Now()
	d := date.Load()
	if d == nil || d.second != now.Unix() {
		d = &dateText{now.Unix(), now.UTC().Format(http.TimeFormat)}
		date.Store(d)
	}
	return d.text
}

func (w *laneReply) appendHead(out []byte) []byte {
	w.WriteHeader(http.StatusOK)
	if w.status == http.StatusOK {
		out = append(out, "HTTP/1.1 200 OK\r\n"...)
	} else {
		out = strconv.AppendInt(append(out, "HTTP/1.1 "...), int64(w.status), 10)
		out = append(append(append(out, ' '), http.StatusText(w.status)...), "\r\n"...)
	}
	for name, values := range w.header {
		if name == "Content-Length" {
			continue
		}
		for _, v := range values { // the handler's own: it writes no line end into one
			out = append(append(append(append(out, name...), ": "...), v...), "\r\n"...)
		}
	}
	if w.status != http.StatusNotModified && w.status != http.StatusNoContent {
		out = strconv.AppendInt(append(out, "Content-Length: "...), int64(len(w.body)), 10)
		out = append(out, "\r\n"...)
	}
	return append(append(append(out, "Date: "...), dateNow()...), "\r\n\r\n"...)
}

const laneTarget = "GET /v1/resolve?"

// parse reads head, which ends with an empty line, into lc.request. It reports false for everything that is not of the
// plainest form: another method or path, a header that it does not know or that stands twice, any byte that is not
// printable ASCII. It never changes what a request means: what it takes, net/http would take as the same.
func (lc *laneConn) parse(head []byte) bool {
	if bytes.Equal(head, lc.head) {
		return true // programs repeat themselves
	}
	lc.head = lc.head[:0]
	line, rest, ok := bytes.Cut(head, []byte("\r\n"))
	target, ok2 := bytes.CutSuffix(line, []byte(" HTTP/1.1"))
	query, ok3 := bytes.CutPrefix(target, []byte(laneTarget))
	if !ok || !ok2 || !ok3 || len(query) == 0 {
		return false
	}
	for _, b := range query {
		if b <= ' ' || b >= 0x7f || b == '#' {
			return false
		}
	}
	r := &http.Request{
		Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody,
		URL: &url.URL{Path: "/v1/resolve", RawQuery: string(query)}, RequestURI: string(target[len("GET "):]),
	}
	for len(rest) > 2 {
		if line, rest, ok = bytes.Cut(rest, []byte("\r\n")); !ok {
			return false
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return false
		}
		value = bytes.Trim(value, " ")
		for _, b := range value {
			if b < ' ' || b >= 0x7f {
				return false
			}
		}
		switch canonical := laneHeader(name); canonical {
		case "":
			return false
		case "Host":
			if r.Host != "" || !laneHost(value) {
				return false
			}
			r.Host = string(value)
		case "Connection":
			if !strings.EqualFold(string(value), "keep-alive") || r.Header["Connection"] != nil {
				return false
			}
			r.Header["Connection"] = []string{string(value)}
		default:
			if r.Header[canonical] != nil {
				return false
			}
			r.Header[canonical] = []string{string(value)}
		}
	}
	if r.Host == "" {
		return false
	}
	lc.request = r.WithContext(lc.ctx)
	lc.head = append(lc.head, head...)
	return true
}

// laneHeader gives the canonical name of a header that a lane knows.
func laneHeader(name []byte) string {
	for _, known := range [...]string{
		"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection", "If-None-Match", "Authorization", "X-Credresolve-Request", "Traceparent", "Tracestate",
	} {
		if len(name) == len(known) && bytes.EqualFold(name, []byte(known)) {
			return known
		}
	}
	return ""
}

// laneHost reports whether b is a plain name or address, with or without a port.
func laneHost(b []byte) bool {
	for _, c := range b {
		plain := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == ':'
		if !plain {
			return false
		}
	}
	return len(b) > 0
}

// givenConn is a connection that a lane gave away, with what was read of it.
type givenConn struct {
	net.Conn
	c      *conn
	prefix []byte
}

func (g *givenConn) Read(b []byte) (int, error) {
	if len(g.prefix) > 0 {
		n := copy(b, g.prefix)
		if g.prefix = g.prefix[n:]; len(g.prefix) == 0 {
			g.prefix = nil
		}
		return n, nil
	}
	return g.Conn.Read(b)
}

// handoff is the listener by which net/http gets connections from a lane.
type handoff struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	addr   net.Addr
}

func newHandoff(addr net.Addr) *handoff {
	return &handoff{conns: make(chan net.Conn), closed: make(chan struct{}), addr: addr}
}

// give gives c away; it reports false when nobody takes connections any more.
func (h *handoff) give(c net.Conn) bool {
	_ = c.SetDeadline(time.Time{})
	select {
	case h.conns <- c:
		return true
	case <-h.closed:
		return false
	}
}

// Accept implements net.Listener.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handoff) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *handoff) Addr() net.Addr { return h.addr }
