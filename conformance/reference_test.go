package conformance_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
)

// reference is a backend of a store that keeps every rule. Its methods are fields, so that a mutant can break one of them.
type reference struct {
	get      func(context.Context, backend.Request) (*backend.Credential, error)
	batch    func(context.Context, []backend.Request) ([]backend.Result, error)
	probe    func(context.Context) error
	check    func(context.Context, backend.Request) (string, error)
	put      func(context.Context, backend.Request, backend.Value, backend.Condition) (string, error)
	del      func(context.Context, backend.Request, backend.Condition) error
	list     func(context.Context, string) iter.Seq2[backend.Entry, error]
	watch    func(context.Context, []backend.Request, func(backend.Request)) error
	renew    func(context.Context, backend.Lease, time.Duration) (backend.Lease, error)
	revoke   func(context.Context, backend.Request, *backend.Credential) error
	describe func() backend.Description
	strength func() backend.Strength
	close    func() error
	call     func(context.Context, ask) ([]answer, error) // one request over the network

	url    string
	client *http.Client
	tls    *tls.Config // of client; nil without TLS
	plain  bool        // without versions and conditions
	ctx    context.Context
	cancel context.CancelFunc

	Kept string // what a mutant keeps, in plain sight
}

var (
	_ backend.BatchGetter = (*reference)(nil)
	_ backend.Prober      = (*reference)(nil)
	_ backend.Checker     = (*reference)(nil)
	_ backend.Writer      = (*reference)(nil)
	_ backend.Lister      = (*reference)(nil)
	_ backend.Watcher     = (*reference)(nil)
	_ backend.Renewer     = (*reference)(nil)
	_ backend.Revoker     = (*reference)(nil)
	_ backend.Describer   = (*reference)(nil)
)

func newReference(d *conformance.Dialer, address string, overTLS bool, limits conformance.Limits, plain bool) *reference {
	transport := &http.Transport{DialContext: d.DialContext, DisableCompression: true}
	r := &reference{url: "http://" + address, client: &http.Client{Transport: transport}, plain: plain}
	if overTLS {
		r.url = "https://" + address
		r.tls = &tls.Config{RootCAs: d.Roots()}
		transport.TLSClientConfig = r.tls
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.get, r.batch, r.probe, r.check, r.put, r.del = r.doGet, r.doBatch, r.doProbe, r.doCheck, r.doPut, r.doDelete
	r.list, r.watch, r.renew, r.revoke, r.call = r.doList, r.doWatch, r.doRenew, r.doRevoke, r.doCall
	r.describe = func() backend.Description {
		return backend.Description{Detail: "the reference", Versions: !plain, Fields: true, MaxValue: limits.MaxValue, MaxBatch: storeBatch}
	}
	r.strength = func() backend.Strength {
		if plain {
			return backend.StrengthNone
		}
		return backend.StrengthStore
	}
	r.close = func() error {
		r.cancel()
		transport.CloseIdleConnections()
		return nil
	}
	return r
}

func (r *reference) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	return r.get(ctx, req)
}

func (r *reference) GetBatch(ctx context.Context, reqs []backend.Request) ([]backend.Result, error) {
	return r.batch(ctx, reqs)
}
func (r *reference) Probe(ctx context.Context) error { return r.probe(ctx) }
func (r *reference) CurrentVersion(ctx context.Context, req backend.Request) (string, error) {
	return r.check(ctx, req)
}

func (r *reference) Put(ctx context.Context, req backend.Request, v backend.Value, cond backend.Condition) (string, error) {
	return r.put(ctx, req, v, cond)
}

func (r *reference) Delete(ctx context.Context, req backend.Request, cond backend.Condition) error {
	return r.del(ctx, req, cond)
}
func (r *reference) Strength() backend.Strength { return r.strength() }
func (r *reference) List(ctx context.Context, prefix string) iter.Seq2[backend.Entry, error] {
	return r.list(ctx, prefix)
}

func (r *reference) Watch(ctx context.Context, reqs []backend.Request, changed func(backend.Request)) error {
	return r.watch(ctx, reqs, changed)
}

func (r *reference) Renew(ctx context.Context, l backend.Lease, d time.Duration) (backend.Lease, error) {
	return r.renew(ctx, l, d)
}

func (r *reference) Revoke(ctx context.Context, req backend.Request, c *backend.Credential) error {
	return r.revoke(ctx, req, c)
}
func (r *reference) Describe() backend.Description { return r.describe() }
func (r *reference) Close() error                  { return r.close() }

func (r *reference) doCall(ctx context.Context, a ask) ([]answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := r.ended(); err != nil {
		return nil, err
	}
	call, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	body, err := json.Marshal(a)
	if err != nil {
		return nil, backend.Errorf(backend.CodeInvalidID, "the request has no form that the store understands")
	}
	req, err := http.NewRequestWithContext(call, http.MethodPost, r.url, bytes.NewReader(body))
	if err != nil {
		return nil, backend.Errorf(backend.CodeInternal, "the address is none")
	}
	req.Header["Idempotency-Key"] = nil // lets the transport repeat it after a connection died while it was idle
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, r.failed(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	wait, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	refused := &backend.Error{Code: backend.CodeUnavailable, Reason: "the store answered with status " + strconv.Itoa(resp.StatusCode), RetryAfter: time.Duration(wait) * time.Second}
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		refused.Code = backend.CodeThrottled
		return nil, refused
	case resp.StatusCode != http.StatusOK || resp.Header.Get("X-Store") == "":
		return nil, refused
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, r.failed(ctx, errShort)
	}
	var answers []answer
	if err := json.Unmarshal(text, &answers); err != nil {
		return nil, r.failed(ctx, err)
	}
	return answers, nil
}

// ended is the error of a call after Close.
func (r *reference) ended() error {
	if r.ctx.Err() != nil {
		return errClosed
	}
	return nil
}

// failed is the error of a call that the network, ctx or Close ended.
func (r *reference) failed(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case r.ctx.Err() != nil:
		return errClosed
	case errors.Is(err, syscall.ECONNREFUSED):
		return errRefused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF):
		return errReset
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return errUntrusted
	case errors.Is(err, errShort):
		return errShort
	}
	return errNoise
}

var (
	errRefused   = backend.Errorf(backend.CodeUnavailable, "the store refuses connections")
	errReset     = backend.Errorf(backend.CodeUnavailable, "the connection was reset")
	errShort     = backend.Errorf(backend.CodeUnavailable, "the answer was cut short")
	errUntrusted = backend.Errorf(backend.CodeUnavailable, "the store is not trusted")
	errNoise     = backend.Errorf(backend.CodeUnavailable, "the store cannot be understood")
)

// one makes a call about one request.
func (r *reference) one(ctx context.Context, a ask) (answer, error) {
	answers, err := r.call(ctx, a)
	if err != nil {
		return answer{}, err
	}
	return answers[0], answers[0].err()
}

func (a answer) err() error {
	if a.Code == "" {
		return nil
	}
	return &backend.Error{Code: a.Code, Reason: "the store says " + strings.ReplaceAll(string(a.Code), "_", " "), RetryAfter: a.Wait}
}

func (a answer) credential() *backend.Credential {
	c := &backend.Credential{Version: a.Version, Lease: a.Lease}
	if a.IsPlain {
		c.Secret = backend.NewSecret(a.Plain)
		c.Fields, _ = backend.FieldsFromJSON(a.Plain)
	} else {
		c.Fields = make(map[string]backend.Secret)
		for name, f := range a.Fields {
			c.Fields[name] = fromWire(f)
		}
	}
	if a.Lease != nil {
		c.Expires = time.Now().Add(a.Lease.Duration)
	}
	return c
}

// valid refuses what the store has no notion of.
func (r *reference) valid(req backend.Request) error {
	switch {
	case strings.HasPrefix(req.ID, "invalid:"):
		return backend.Errorf(backend.CodeInvalidID, "an id does not begin so")
	case r.plain && req.Version != "":
		return backend.Errorf(backend.CodeUnsupported, "this store has no versions")
	}
	return nil
}

func (r *reference) doGet(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	if err := r.valid(req); err != nil {
		return nil, err
	}
	a, err := r.one(ctx, ask{Op: "get", Requests: []backend.Request{req}})
	if err != nil {
		return nil, err
	}
	return a.credential(), nil
}

func (r *reference) doBatch(ctx context.Context, reqs []backend.Request) ([]backend.Result, error) {
	results := make([]backend.Result, len(reqs))
	var good []int
	for i, req := range reqs {
		if err := r.valid(req); err != nil {
			results[i].Err = err
		} else {
			good = append(good, i)
		}
	}
	for part := range slices.Chunk(good, storeBatch) {
		var asked []backend.Request
		for _, i := range part {
			asked = append(asked, reqs[i])
		}
		answers, err := r.call(ctx, ask{Op: "get", Requests: asked})
		if err != nil {
			return nil, err
		}
		for k, i := range part {
			if err := answers[k].err(); err != nil {
				results[i].Err = err
			} else {
				results[i].Credential = answers[k].credential()
			}
		}
	}
	return results, nil
}

func (r *reference) doProbe(ctx context.Context) error {
	_, err := r.one(ctx, ask{Op: "probe"})
	return err
}

func (r *reference) doCheck(ctx context.Context, req backend.Request) (string, error) {
	if err := r.valid(req); err != nil {
		return "", err
	}
	a, err := r.one(ctx, ask{Op: "check", Requests: []backend.Request{req}})
	return a.Version, err
}

func (r *reference) writable(req backend.Request, cond backend.Condition) error {
	switch {
	case req.Version != "":
		return backend.Errorf(backend.CodeUnsupported, "a version cannot be written")
	case r.plain && cond != (backend.Condition{}):
		return backend.Errorf(backend.CodeUnsupported, "this store compares nothing")
	}
	return r.valid(req)
}

func (r *reference) doPut(ctx context.Context, req backend.Request, v backend.Value, cond backend.Condition) (string, error) {
	if err := r.writable(req, cond); err != nil {
		return "", err
	}
	a := ask{Op: "put", Requests: []backend.Request{req}, Cond: cond, IsPlain: v.Fields == nil, Plain: v.Secret.Reveal(), Fields: make(map[string]wireSecret)}
	for name, f := range v.Fields {
		a.Fields[name] = toWire(f)
	}
	got, err := r.one(ctx, a)
	return got.Version, err
}

func (r *reference) doDelete(ctx context.Context, req backend.Request, cond backend.Condition) error {
	if err := r.writable(req, cond); err != nil {
		return err
	}
	_, err := r.one(ctx, ask{Op: "delete", Requests: []backend.Request{req}, Cond: cond})
	return err
}

func (r *reference) doList(ctx context.Context, prefix string) iter.Seq2[backend.Entry, error] {
	return func(yield func(backend.Entry, error) bool) {
		for after := ""; ; {
			a, err := r.one(ctx, ask{Op: "list", Requests: []backend.Request{{ID: prefix}}, After: after})
			if err != nil {
				yield(backend.Entry{}, err)
				return
			}
			for _, id := range a.IDs {
				if !yield(backend.Entry{ID: id}, nil) {
					return
				}
				after = id
			}
			if len(a.IDs) == 0 {
				return
			}
		}
	}
}

func (r *reference) doWatch(ctx context.Context, reqs []backend.Request, changed func(backend.Request)) error {
	a, err := r.one(ctx, ask{Op: "state", Requests: reqs})
	if err != nil {
		return err
	}
	seen := a.States
	for _, req := range reqs {
		changed(req)
	}
	for {
		a, err := r.one(ctx, ask{Op: "wait", Requests: reqs, Since: seen})
		if err != nil {
			return err
		}
		for i, req := range reqs {
			if a.States[i] != seen[i] {
				changed(req)
			}
		}
		seen = a.States
	}
}

func (r *reference) doRenew(ctx context.Context, l backend.Lease, d time.Duration) (backend.Lease, error) {
	a, err := r.one(ctx, ask{Op: "renew", Lease: l.ID, Duration: d})
	if err != nil {
		return backend.Lease{}, err
	}
	return *a.Lease, nil
}

func (r *reference) doRevoke(ctx context.Context, req backend.Request, c *backend.Credential) error {
	if c.Lease == nil {
		return backend.Errorf(backend.CodeUnsupported, "a credential without a lease cannot be revoked")
	}
	_, err := r.one(ctx, ask{Op: "revoke", Requests: []backend.Request{req}, Lease: c.Lease.ID})
	if errors.Is(err, backend.ErrExpired) {
		return nil
	}
	return err
}
