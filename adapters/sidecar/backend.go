package sidecar

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

var (
	_ backend.BatchGetter = (*Backend)(nil)
	_ backend.Prober      = (*Backend)(nil)
	_ backend.Revoker     = (*Backend)(nil)
	_ backend.Watcher     = (*Backend)(nil)
	_ backend.Describer   = (*Backend)(nil)
)

// Backend asks one sidecar. It is safe for concurrent use.
type Backend struct {
	client *client.Client
	lost   error // there is no place where a sidecar could be; nil: there is
	detail string
	bound  bool            // to the caller's environment
	ctx    context.Context // until Close
	close  context.CancelFunc
	once   sync.Once
}

// New gives a Backend that asks the sidecar of c. It does no I/O.
func New(c Config, host backend.Host) (*Backend, error) {
	if c.Socket != "" && !filepath.IsAbs(c.Socket) {
		c.Socket = filepath.Join(host.Dir, c.Socket)
	}
	b := &Backend{detail: c.Socket + c.Address, bound: c.Socket == "" && c.Address == ""}
	if b.bound {
		path, err := client.SocketPath(host.LookupEnv)
		if err != nil {
			b.lost = backend.Errorf(backend.CodeUnavailable, "%v", err)
			path = "/" // nothing is asked there
		}
		b.detail, c.Socket = path, path
	}
	var err error
	b.client, err = client.New(client.Config{Socket: c.Socket, Address: c.Address, Token: c.Token, LookupEnv: host.LookupEnv})
	if err != nil {
		return nil, err
	}
	b.ctx, b.close = context.WithCancel(context.Background())
	return b, nil
}

// Describe implements backend.Describer.
func (b *Backend) Describe() backend.Description {
	return backend.Description{Detail: b.detail, Versions: true, Fields: true, MaxBatch: 500, CallerBound: b.bound}
}

// Get implements backend.Backend.
func (b *Backend) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	results, err := b.GetBatch(ctx, []backend.Request{req})
	if err != nil {
		return nil, err
	}
	return results[0].Credential, results[0].Err
}

// GetBatch implements backend.BatchGetter.
func (b *Backend) GetBatch(ctx context.Context, reqs []backend.Request) ([]backend.Result, error) {
	ctx, done, err := b.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	results := make([]backend.Result, len(reqs))
	var refs []credref.Ref
	var at []int
	for i, req := range reqs {
		ref, err := refOf(req)
		if err != nil {
			results[i].Err = err
			continue
		}
		refs, at = append(refs, ref), append(at, i)
	}
	if len(refs) == 0 {
		return results, nil
	}
	failed := 0
	for k, o := range b.client.ResolveWith(ctx, refs, resolver.Demand{Whole: true}) {
		if o.Err == nil {
			results[at[k]].Credential = credential(o.Value)
			continue
		}
		results[at[k]].Err = b.reason(o.Err)
		if errors.Is(o.Err, client.ErrRequest) {
			failed++
		}
	}
	if failed == len(reqs) { // it is the sidecar that failed
		return nil, results[0].Err
	}
	return results, nil
}

// enter gives a context for one call, which ends with Close too.
func (b *Backend) enter(ctx context.Context) (context.Context, func(), error) {
	switch {
	case b.ctx.Err() != nil:
		return nil, nil, errClosed
	case ctx.Err() != nil:
		return nil, nil, ctx.Err()
	case b.lost != nil:
		return nil, nil, b.lost
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(b.ctx, cancel)
	return ctx, func() { stop(); cancel() }, nil
}

// reason is err without the name of its ref, which who asked knows.
func (b *Backend) reason(err error) error {
	if e, ok := err.(*resolver.RefError); ok {
		err = e.Err
	}
	if b.ctx.Err() != nil {
		return errClosed
	}
	return err
}

// refOf gives the ref that the sidecar is asked for.
func refOf(req backend.Request) (credref.Ref, error) {
	provider, id, ok := strings.Cut(req.ID, "/")
	if !ok || id == "" || credref.ValidateProvider(provider) != nil {
		return credref.Ref{}, errNoProvider
	}
	ref := credref.Ref{Provider: provider, ID: id, Version: req.Version}
	if ref.Validate() != nil {
		return credref.Ref{}, errMalformed
	}
	return ref, nil
}

// staleFor is how soon a value is asked for again that the sidecar gave past its time.
const staleFor = 10 * time.Second

func credential(v *resolver.Value) *backend.Credential {
	c := &backend.Credential{
		Type: v.Type(), Fields: v.Fields(), Version: v.Version(), Expires: v.Expires(), RefreshAfter: v.RefreshAfter(), Metadata: v.Metadata(),
	}
	if !onlyField(v) {
		c.Secret = v.Secret()
	}
	if v.Stale() {
		c.RefreshAfter = time.Now().Add(staleFor)
	}
	return c
}

// onlyField reports whether v's secret is one of its fields and no whole of its own.
func onlyField(v *resolver.Value) bool {
	fields := v.Fields()
	s, ok := fields["value"]
	if len(fields) == 1 {
		for _, s = range fields {
			ok = true
		}
	}
	return ok && s.Equal(v.Secret())
}

// Probe implements backend.Prober.
func (b *Backend) Probe(ctx context.Context) error {
	ctx, done, err := b.enter(ctx)
	if err != nil {
		return err
	}
	defer done()
	if _, err := b.client.Providers(ctx); err != nil {
		return b.reason(err)
	}
	return nil
}

// Revoke implements backend.Revoker: it ends what the sidecar has of req, for everybody who asks it, and at its store.
func (b *Backend) Revoke(ctx context.Context, req backend.Request, _ *backend.Credential) error {
	ctx, done, err := b.enter(ctx)
	if err != nil {
		return err
	}
	defer done()
	ref, err := refOf(req)
	if err != nil {
		return err
	}
	if err = b.client.Revoke(ctx, ref); err == nil || errors.Is(err, backend.ErrNotFound) { // it has ended already
		return nil
	}
	return b.reason(err)
}

// Watch implements backend.Watcher.
func (b *Backend) Watch(ctx context.Context, reqs []backend.Request, changed func(backend.Request)) error {
	caller := ctx
	ctx, done, err := b.enter(ctx)
	if err != nil {
		return err
	}
	defer done()
	refs := make([]credref.Ref, len(reqs))
	of := map[credref.Ref][]backend.Request{}
	for i, req := range reqs {
		if refs[i], err = refOf(req); err != nil {
			return err
		}
		of[refs[i]] = append(of[refs[i]], req)
	}
	var last error // why the sidecar ended it, if it did
	for ev := range b.client.Watch(ctx, refs...) {
		last = ev.Err
		switch ev.Kind {
		case resolver.EventResolving, resolver.EventExpiring, resolver.EventRefreshing, resolver.EventRefreshed, resolver.EventLapsed,
			resolver.EventRevokeFailed:
			// The content is the same, as far as is known.
		default:
			for _, req := range of[ev.Ref] {
				changed(req)
			}
		}
	}
	if caller.Err() != nil {
		return caller.Err()
	}
	switch {
	case b.ctx.Err() != nil:
		return errClosed
	case last != nil:
		return b.reason(last)
	}
	return backend.Errorf(backend.CodeUnavailable, "the sidecar ended the watch")
}

// Close ends all calls. What comes after it fails; a second Close does nothing.
func (b *Backend) Close() error {
	b.once.Do(func() {
		b.close()
		_ = b.client.Close()
	})
	return nil
}
