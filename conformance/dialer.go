package conformance

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Dialer is the way from a backend to its store. The suite breaks it in the cases about the network. An adapter that takes a
// dial function is given DialContext; one that takes an address is given what Through makes of the store's. Both lead
// through a proxy on loopback. It is safe for concurrent use.
type Dialer struct {
	t        *recorder
	issuer   *issuer      // nil: no TLS
	accepted atomic.Int64 // connections so far

	mu      sync.Mutex
	closed  bool
	line    line
	routes  map[string]*route
	conns   map[net.Conn]bool
	asked   map[[sha256.Size]byte]int // how often the proxy itself answered the same request
	strange bool                      // a connection did not begin with an HTTP request where the proxy was to answer one
	serving sync.WaitGroup
}

// route is the proxy in front of one address.
type route struct {
	network, target string
	address         string // of the proxy
	listener        net.Listener
}

// line is how the proxy treats connections. The zero line passes everything on.
type line struct {
	kind   lineKind
	answer []byte        // for lineAnswer: a whole HTTP response
	left   *atomic.Int64 // for lineTruncate: how many bytes of responses still pass
	cert   certKind
}

type lineKind int

const (
	linePass lineKind = iota
	lineRefuse
	lineReset    // accepted, and reset at the first byte
	lineSlow     // responses arrive in small pieces, with pauses
	lineHalfOpen // accepted, and never answered
	lineTruncate // responses end early
	lineGarbage  // answered with noise
	lineAnswer   // answered with one HTTP response, whatever was asked
)

const (
	slowPiece = 512
	slowPause = 5 * time.Millisecond
	noiseSize = 4096
)

func newDialer(t *recorder, is *issuer) *Dialer {
	return &Dialer{t: t, issuer: is, routes: make(map[string]*route), conns: make(map[net.Conn]bool), asked: make(map[[sha256.Size]byte]int)}
}

// Through gives the address, host and port, at which the proxy takes connections for address.
func (d *Dialer) Through(address string) string { return d.route("tcp", address).address }

// DialContext connects to address through the proxy. The network may be tcp or unix.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var direct net.Dialer
	return direct.DialContext(ctx, "tcp", d.route(network, address).address)
}

// Roots are the authorities that a backend of Harness.OpenTLS trusts.
func (d *Dialer) Roots() *x509.CertPool {
	if d.issuer == nil {
		return x509.NewCertPool()
	}
	return d.issuer.roots
}

// RootsPEM is Roots for a backend that takes certificates as PEM.
func (d *Dialer) RootsPEM() []byte {
	if d.issuer == nil {
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.issuer.good.cert.Raw})
}

func (d *Dialer) route(network, target string) *route {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := network + " " + target
	if r, ok := d.routes[key]; ok {
		return r
	}
	r := &route{network: network, target: target, address: "127.0.0.1:0"}
	d.routes[key] = r
	d.listen(r)
	if d.line.kind == lineRefuse || d.closed {
		_ = r.listener.Close()
	}
	return r
}

// listen begins to take connections for r. The caller holds mu.
func (d *Dialer) listen(r *route) {
	l, err := net.Listen("tcp", r.address)
	if err != nil {
		d.t.Fatalf("the proxy cannot listen on loopback: %v", err)
	}
	r.listener, r.address = l, l.Addr().String()
	d.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if !d.keep(c) {
				continue
			}
			d.accepted.Add(1)
			d.serving.Go(func() { d.serve(c, r) })
		}
	})
}

// keep remembers c, so that it ends with its line; it closes c where all is over already.
func (d *Dialer) keep(c net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		_ = c.Close()
		return false
	}
	d.conns[c] = true
	return true
}

func (d *Dialer) drop(c net.Conn) {
	_ = c.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, c)
}

// set changes how connections are treated, and ends those that are there.
func (d *Dialer) set(l line) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.line.kind
	d.line = l
	for c := range d.conns {
		_ = c.Close()
	}
	for _, r := range d.routes {
		switch {
		case l.kind == lineRefuse:
			_ = r.listener.Close()
		case before == lineRefuse:
			d.listen(r)
		}
	}
}

func (d *Dialer) current() line {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.line
}

// close ends everything, and returns when nothing of it is left.
func (d *Dialer) close() {
	d.mu.Lock()
	d.closed = true
	for c := range d.conns {
		_ = c.Close()
	}
	for _, r := range d.routes {
		_ = r.listener.Close()
	}
	d.mu.Unlock()
	d.serving.Wait()
}

func (d *Dialer) serve(raw net.Conn, r *route) {
	defer d.drop(raw)
	l := d.current()
	client := raw
	if d.issuer != nil {
		client = tls.Server(raw, d.issuer.config(l.cert, r.target))
	}
	switch l.kind {
	case lineReset:
		var one [1]byte
		_, _ = raw.Read(one[:])
		if c, ok := raw.(*net.TCPConn); ok {
			_ = c.SetLinger(0)
		}
	case lineHalfOpen:
		_, _ = io.Copy(io.Discard, client)
		if d.issuer != nil { // the handshake may have failed; the line is silent all the same
			_, _ = io.Copy(io.Discard, raw)
		}
	case lineGarbage:
		var some [512]byte
		if _, err := client.Read(some[:]); err == nil {
			_, _ = io.CopyN(client, rand.Reader, noiseSize)
		}
	case lineAnswer:
		d.answer(client, l.answer)
	default:
		d.pass(client, r, l)
	}
}

// answer gives every request on the connection the same HTTP response.
func (d *Dialer) answer(client net.Conn, response []byte) {
	in := bufio.NewReader(client)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				d.mu.Lock()
				d.strange = true
				d.mu.Unlock()
			}
			return
		}
		hash := sha256.New()
		_, _ = fmt.Fprintf(hash, "%s %s\n", req.Method, req.RequestURI)
		if _, err := io.Copy(hash, req.Body); err != nil {
			return
		}
		d.mu.Lock()
		d.asked[[sha256.Size]byte(hash.Sum(nil))]++
		d.mu.Unlock()
		if _, err := client.Write(response); err != nil {
			return
		}
	}
}

// repeated is how often the proxy was asked the same, at most; and whether it was asked in HTTP at all.
func (d *Dialer) repeated() (times int, inHTTP bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.asked {
		times = max(times, n)
	}
	return times, len(d.asked) > 0 && !d.strange
}

// pass connects client with the store.
func (d *Dialer) pass(client net.Conn, r *route, l line) {
	store, err := net.Dial(r.network, r.target)
	if err != nil || !d.keep(store) {
		return
	}
	defer d.drop(store)
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(store, client)
		closeWrite(store)
	})
	switch l.kind {
	case lineSlow:
		slowly(client, store)
	case lineTruncate:
		_, _ = io.Copy(client, &truncated{from: store, left: l.left})
		_ = client.Close()
	default:
		_, _ = io.Copy(client, store)
	}
	closeWrite(client)
	up.Wait()
}

func closeWrite(c net.Conn) {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
	}
}

func slowly(to io.Writer, from io.Reader) {
	var piece [slowPiece]byte
	for {
		n, err := from.Read(piece[:])
		pause(slowPause)
		if _, werr := to.Write(piece[:n]); err != nil || werr != nil {
			return
		}
	}
}

// truncated gives no more than what is left, over all connections of a line.
type truncated struct {
	from io.Reader
	left *atomic.Int64
}

func (r *truncated) Read(p []byte) (int, error) {
	left := r.left.Load()
	if left <= 0 {
		return 0, io.EOF
	}
	n, err := r.from.Read(p[:min(int64(len(p)), left)])
	r.left.Add(int64(-n))
	return n, err
}
