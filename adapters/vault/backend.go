package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/singleflight"

	"github.com/credresolve/credresolve/backend"
)

var (
	_ backend.Prober    = (*Backend)(nil)
	_ backend.Checker   = (*Backend)(nil)
	_ backend.Renewer   = (*Backend)(nil)
	_ backend.Revoker   = (*Backend)(nil)
	_ backend.Writer    = (*Backend)(nil)
	_ backend.Lister    = (*Backend)(nil)
	_ backend.Describer = (*Backend)(nil)
	_ io.Closer         = (*Backend)(nil)
)

// Backend reads from one Vault or OpenBao server or cluster with one login. It is safe for concurrent use.
type Backend struct {
	settings *settings
	target   string // what errors call the server: host and port, or the socket

	current   atomic.Pointer[session]
	flights   singleflight.Group
	unwrapped unwrapped // used by the login flight alone
	mounts    mounts
	leases    leases

	life    context.Context // ends with Close
	endLife context.CancelFunc
	running sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	transport *transport
}

// New gives a backend of the server that c and the VAULT_* variables of h name. It does no I/O. Its errors are
// ErrInvalidConfig.
func New(c Config, h backend.Host) (*Backend, error) {
	s, err := c.settle(h)
	if err != nil {
		return nil, err
	}
	b := &Backend{settings: s, target: s.address.Host}
	if s.socket != "" {
		b.target = "unix:" + s.socket
	}
	b.life, b.endLife = context.WithCancel(context.Background())
	return b, nil
}

// Describe implements backend.Describer.
func (b *Backend) Describe() backend.Description {
	s := b.settings
	var detail strings.Builder
	detail.WriteString(strings.TrimSuffix(s.Address, "/"))
	if s.Namespace != "" {
		detail.WriteString(", namespace " + s.Namespace)
	}
	if s.Mount != "" {
		detail.WriteString(", mount " + s.Mount)
	}
	detail.WriteString(", login by " + s.Auth.method())
	switch {
	case s.address.Scheme == "http" && s.socket == "":
		detail.WriteString("; WARNING: without TLS")
	case s.skipVerify:
		detail.WriteString("; WARNING: VAULT_SKIP_VERIFY is set, any server is trusted")
	}
	return backend.Description{Detail: detail.String(), Versions: s.KVVersion != 1, Fields: true, CallerBound: s.fromEnv}
}

// Format writes what Describe says, under every verb: the token and the certificates are further in.
func (b *Backend) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "vault: "+b.Describe().Detail)
}

// Get implements backend.Backend.
func (b *Backend) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	p, err := b.locate(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	c, err := b.get(ctx, p, req.Version)
	if errors.Is(err, backend.ErrNotFound) || err == errBlindV2 {
		if p, moved := b.relocate(ctx, p, err == errBlindV2); moved {
			return b.get(ctx, p, req.Version)
		}
	}
	return c, err
}

func (b *Backend) get(ctx context.Context, p place, version string) (*backend.Credential, error) {
	switch {
	case p.version == 2:
		return b.getV2(ctx, p, version)
	case version != "":
		return nil, errNoVersions
	}
	return b.getPlain(ctx, p)
}

// Probe implements backend.Prober.
func (b *Backend) Probe(ctx context.Context) error {
	s, err := b.session(ctx)
	if err != nil {
		return err
	}
	a, _, err := b.doWith(ctx, s, call{method: http.MethodGet, path: "auth/token/lookup-self"})
	if err != nil {
		return err
	}
	a.wipe()
	if a.status == http.StatusForbidden {
		return nil // the token lives, but lacks the default policy
	}
	return b.failure(a, "auth/token/lookup-self")
}

// Close ends the renewal of the login. The token is not revoked: credentials with a lease, which somebody may still use,
// would end with it. A second Close does nothing.
func (b *Backend) Close() error {
	b.mu.Lock()
	b.closed = true
	t := b.transport
	b.mu.Unlock()
	b.endLife()
	b.running.Wait()
	if t != nil {
		t.CloseIdleConnections()
	}
	return nil
}

// begin counts a goroutine that Close waits for; false after Close.
func (b *Backend) begin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.running.Add(1)
	return true
}

// work runs f in a goroutine of its own, unless the backend is closed.
func (b *Backend) work(f func()) {
	if b.begin() {
		go func() {
			defer b.running.Done()
			f()
		}()
	}
}

// fly runs f once for all who ask for key at a time. f goes on when the one who started it leaves, until it ends by
// itself, its time is up, or the backend is closed.
func (b *Backend) fly(ctx context.Context, key string, f func(context.Context) (any, error)) (any, error) {
	if b.life.Err() != nil {
		return nil, errClosed
	}
	done := b.flights.DoChan(key, func() (any, error) {
		if !b.begin() {
			return nil, errClosed
		}
		defer b.running.Done()
		// A login may take some requests, and the resolution of a secret setting through another provider.
		run, cancel := context.WithTimeout(context.WithoutCancel(ctx), 4*b.settings.Timeout)
		defer cancel()
		defer context.AfterFunc(b.life, cancel)()
		v, err := f(run)
		if err != nil && run.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
			// The end of the flight is not the end of those who wait for it.
			if b.life.Err() != nil {
				return nil, errClosed
			}
			return nil, backend.Errorf(backend.CodeUnavailable, "%s: no login in time", b.target)
		}
		return v, err
	})
	select {
	case r := <-done:
		return r.Val, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fill puts what an error is about into its text.
func fill(reason, about string) string { return strings.Replace(reason, "%s", about, 1) }
