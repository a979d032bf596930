package keychain

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/credresolve/credresolve/backend"
)

// bus is the session bus: one connection, opened at first use, and opened anew after it was lost. Nothing it does waits
// longer than its context lives, whatever the other side does.
type bus struct {
	env env

	opening chan struct{} // capacity 1: held while the connection is opened
	mu      sync.Mutex    // guards what follows
	conn    *busConn
	closed  bool
}

func newBus(env env) *bus { return &bus{env: env, opening: make(chan struct{}, 1)} }

// busConn is a connection to the bus, made by us rather than by package dbus so that we can bound its waiting.
type busConn struct {
	raw net.Conn
	*dbus.Conn
}

// connect gives the connection, and opens it if there is none.
func (b *bus) connect(ctx context.Context) (*busConn, error) {
	select {
	case b.opening <- struct{}{}:
		defer func() { <-b.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	b.mu.Lock()
	conn, closed := b.conn, b.closed
	b.mu.Unlock()
	switch {
	case closed:
		return nil, errClosed
	case conn != nil && conn.Connected():
		return conn, nil
	}
	conn, err := dialBus(ctx, b.env)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		conn.close()
		return nil, errClosed
	}
	b.conn = conn
	return conn, nil
}

// drop closes conn, so that the next connect opens another.
func (b *bus) drop(conn *busConn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn == conn {
		b.conn = nil
	}
	conn.close()
}

func (b *bus) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.conn != nil {
		b.conn.close()
		b.conn = nil
	}
}

func dialBus(ctx context.Context, env env) (*busConn, error) {
	raw, err := dialAddresses(ctx, busAddress(env))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := dbus.NewConn(&bufferedConn{Conn: raw, r: bufio.NewReader(raw)})
	if err != nil {
		_ = raw.Close()
		return nil, errGarbage
	}
	c := &busConn{raw: raw, Conn: conn}
	if err = conn.Auth(nil); err == nil {
		err = conn.Hello()
	}
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		c.close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, backend.Errorf(backend.CodeUnavailable, "the session bus does not let us in")
	}
	return c, nil
}

// bufferedConn saves most of the system calls that package dbus makes when it reads a message piece by piece.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// close ends the connection, and with it every call. The socket goes first, as package dbus waits for a write under way.
func (c *busConn) close() {
	_ = c.raw.Close()
	_ = c.Conn.Close()
}

// grace is how long a call that has ended may still need to write its message.
const grace = 50 * time.Millisecond

// call calls a method and stores what it returns in results. Its error is ctx's, or one of package dbus.
func (c *busConn) call(ctx context.Context, dest string, path dbus.ObjectPath, method string, args []any, results ...any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan *dbus.Call, 1)
	sent := make(chan struct{})
	go func() { // writes the message, for which package dbus waits without limit
		defer close(sent)
		c.Object(dest, path).GoWithContext(ctx, method, 0, done, args...)
	}()
	select {
	case call := <-done:
		if call.Err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return call.Err
		}
		return dbus.Store(call.Body, results...)
	case <-ctx.Done():
		select {
		case <-sent:
		case <-time.After(grace):
			c.close() // nobody reads what we write
		}
		return ctx.Err()
	}
}

const (
	busName   = "org.freedesktop.DBus"
	busPath   = "/org/freedesktop/DBus"
	busGetter = "org.freedesktop.DBus.Properties.Get"
)

// property reads a property of an object into value.
func (c *busConn) property(ctx context.Context, dest string, path dbus.ObjectPath, iface, name string, value any) error {
	var v dbus.Variant
	if err := c.call(ctx, dest, path, busGetter, []any{iface, name}, &v); err != nil {
		return err
	}
	return dbus.Store([]any{v.Value()}, value)
}

// offers tells which of names has an owner on the bus, or else could be started by it; empty: none.
func (c *busConn) offers(ctx context.Context, names ...string) (name string, running bool, err error) {
	for _, method := range []string{"ListNames", "ListActivatableNames"} {
		var have []string
		if err := c.call(ctx, busName, busPath, busName+"."+method, nil, &have); err != nil {
			return "", false, err
		}
		for _, name := range names {
			if slices.Contains(have, name) {
				return name, method == "ListNames", nil
			}
		}
	}
	return "", false, nil
}

// busAddress finds the session bus: what the environment says, else the socket in the user's runtime directory. It starts
// none.
func busAddress(env env) string {
	if address := env("DBUS_SESSION_BUS_ADDRESS"); address != "" && address != "autolaunch:" {
		return address
	}
	dir := env("XDG_RUNTIME_DIR")
	if dir == "" {
		if dir = "/run/user/" + strconv.Itoa(os.Getuid()); os.Getuid() < 0 {
			return ""
		}
	}
	socket := filepath.Join(dir, "bus")
	if _, err := os.Stat(socket); err != nil {
		return ""
	}
	return "unix:path=" + url.PathEscape(socket)
}

// dialAddresses connects to the first of the addresses, in the form of the D-Bus specification, "Server Addresses", that
// can be reached.
func dialAddresses(ctx context.Context, addresses string) (net.Conn, error) {
	if addresses == "" {
		return nil, &backend.Error{
			Code: backend.CodeUnavailable, Reason: "there is no D-Bus session bus",
			Remedy: "set $DBUS_SESSION_BUS_ADDRESS, or run under dbus-run-session",
		}
	}
	failure := backend.Errorf(backend.CodeUnavailable, "the address of the session bus in $DBUS_SESSION_BUS_ADDRESS is of no known form")
	for address := range strings.SplitSeq(addresses, ";") {
		network, target, ok := parseAddress(address)
		if !ok {
			continue
		}
		conn, err := new(net.Dialer).DialContext(ctx, network, target)
		switch {
		case err == nil:
			return conn, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, fs.ErrNotExist):
			failure = backend.Errorf(backend.CodeUnavailable, "the socket of the session bus does not exist")
		case errors.Is(err, fs.ErrPermission):
			failure = backend.Errorf(backend.CodeDenied, "the socket of the session bus is not ours to use")
		default:
			failure = backend.Errorf(backend.CodeUnavailable, "the session bus does not accept connections")
		}
	}
	return nil, failure
}

// parseAddress reads one address of a bus: sockets by path or abstract name, and TCP.
func parseAddress(address string) (network, target string, ok bool) {
	transport, rest, ok := strings.Cut(address, ":")
	if !ok {
		return "", "", false
	}
	keys := make(map[string]string)
	for pair := range strings.SplitSeq(rest, ",") {
		key, value, _ := strings.Cut(pair, "=")
		value, err := url.PathUnescape(value)
		if err != nil {
			return "", "", false
		}
		keys[key] = value
	}
	switch {
	case transport == "unix" && keys["path"] != "":
		return "unix", keys["path"], true
	case transport == "unix" && keys["abstract"] != "":
		return "unix", "@" + keys["abstract"], true
	case transport == "tcp" && keys["host"] != "" && keys["port"] != "":
		return "tcp", net.JoinHostPort(keys["host"], keys["port"]), true
	}
	return "", "", false
}
