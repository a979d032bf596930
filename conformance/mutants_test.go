package conformance_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
)

// flavour is a store, and what the reference can do with it.
type flavour struct {
	plain  bool // no versions, no conditions
	limits conformance.Limits
}

var (
	full  = flavour{limits: conformance.Limits{Page: 3, MaxValue: 70_000}}
	roomy = flavour{limits: conformance.Limits{Page: 3}}
	plain = flavour{plain: true, limits: conformance.Limits{MaxValue: 5_000, Text: true, NoNUL: true, NoEmpty: true, Page: 3}}
)

func TestReference(t *testing.T) {
	shown := make(map[string]bool)
	for name, f := range map[string]flavour{"full": full, "roomy": roomy, "plain": plain} {
		r := conformance.Check(t.Context(), newStore(t, f.limits).harness(f.plain, nil))
		for _, x := range r.Results {
			switch x.Outcome {
			case conformance.Pass:
				shown[x.Name] = true
			case conformance.Skip:
			default:
				t.Errorf("%s: %s: %s: %v", name, x.Name, x.Outcome, x.Reasons)
			}
		}
	}
	for _, c := range conformance.Cases() {
		if !shown[c.Name] {
			t.Errorf("no reference shows %s", c.Name)
		}
	}
}

// alone is the mutant that other tests of the process must not disturb: they open files too.
const alone = "leak/descriptors"

// TestMutants shows that each case can fail: a reference that is broken in one way fails that case and no other. A case that
// needs it may be blocked.
func TestMutants(t *testing.T) {
	t.Parallel()
	known := make(map[string]bool)
	for _, c := range conformance.Cases() {
		known[c.Name] = true
		if mutants[c.Name].break_ == nil {
			t.Errorf("no mutant shows that %s can fail", c.Name)
		}
	}
	var runs sync.WaitGroup
	defer runs.Wait()
	// They wait more than they work. More at once would starve each other of the time that the cases allow.
	atOnce := make(chan struct{}, 8)
	for name := range mutants {
		if !known[name] {
			t.Errorf("there is a mutant for %s, and no such case", name)
		}
		if name == alone {
			continue
		}
		atOnce <- struct{}{}
		runs.Go(func() {
			defer func() { <-atOnce }()
			t.Run(name, func(t *testing.T) { failsAlone(t, name) })
		})
	}
}

func TestMutantThatLeaksDescriptors(t *testing.T) { failsAlone(t, alone) }

// failsAlone fails t unless the mutant fails the case of its name and no other.
func failsAlone(t *testing.T, name string) {
	needs := make(map[string][]string)
	for _, c := range conformance.Cases() {
		needs[c.Name] = c.Needs
	}
	var depends func(name, on string) bool
	depends = func(name, on string) bool {
		return slices.ContainsFunc(needs[name], func(n string) bool { return n == on || depends(n, on) })
	}
	m := mutants[name]
	h := newStore(t, m.limits).harness(m.plain, func(r *reference) { m.break_(t, r) })
	subject := func(name string) string { s, _, _ := strings.Cut(name, "/"); return s }
	// A third of the time of all cases goes to counting what is left, which no mutant of another subject leaves.
	h.Only = func(c conformance.Case) bool {
		return (subject(c.Name) != "leak" || subject(name) == "leak") && (c.Name != alone || name == alone)
	}
	if raceDetector || testing.Short() { // which take the cases of other subjects on trust, for the sake of time
		h.Only = func(c conformance.Case) bool {
			return (subject(c.Name) == subject(name) || depends(name, c.Name) || slices.Contains(needs[c.Name], name)) &&
				(c.Name != alone || name == alone)
		}
	}
	for _, x := range conformance.Check(t.Context(), h).Results {
		switch {
		case x.Name == name && x.Outcome != conformance.Fail:
			t.Errorf("%s did not fail but ended as %s %v", name, x.Outcome, x.Reasons)
		case x.Name != name && x.Outcome == conformance.Fail:
			t.Errorf("%s failed too: %v", x.Name, x.Reasons)
		case x.Outcome == conformance.Blocked && !depends(x.Name, name):
			t.Errorf("%s is blocked: %v", x.Name, x.Reasons)
		}
	}
}

// mutant breaks a reference in one way.
type mutant struct {
	flavour
	break_ func(t *testing.T, r *reference)
}

// got lets f change what Get gives.
func got(f func(c *backend.Credential, req backend.Request)) mutant {
	return mutant{full, func(_ *testing.T, r *reference) {
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			c, err := get(ctx, req)
			if err == nil {
				f(c, req)
			}
			return c, err
		}
	}}
}

// altered lets f change the bytes of a plain secret that Get gives.
func altered(f func(v []byte) []byte) mutant {
	return got(func(c *backend.Credential, _ backend.Request) {
		if !c.Secret.IsZero() {
			c.Secret = backend.NewSecret(f(c.Secret.Reveal()))
		}
	})
}

// failing lets f change the error of Get.
func failing(f func(err error, req backend.Request) error) mutant {
	return mutant{full, func(_ *testing.T, r *reference) {
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			c, err := get(ctx, req)
			if err != nil {
				err = f(err, req)
			}
			return c, err
		}
	}}
}

// mistaking lets Get take what the store says for something else.
func mistaking(said, for_ backend.Code) mutant {
	return failing(func(err error, req backend.Request) error {
		if isSaid(err, said) && req.Version == "" {
			return backend.Errorf(for_, "something else")
		}
		return err
	})
}

// isSaid reports whether the store itself, and not the network, gave the error.
func isSaid(err error, code backend.Code) bool {
	return backend.CodeOf(err) == code && strings.HasPrefix(err.Error(), "the store says")
}

// instead lets Get give an error of another code for one of the network.
func instead(seen *backend.Error, code backend.Code) mutant {
	return failing(func(err error, _ backend.Request) error {
		if err == error(seen) {
			return backend.Errorf(code, "something else")
		}
		return err
	})
}

func wrong(f func(t *testing.T, r *reference)) mutant { return mutant{full, f} }

func (m mutant) on(f flavour) mutant {
	m.flavour = f
	return m
}

// putting lets f change what Put stores.
func putting(f func(v []byte) []byte) mutant {
	return wrong(func(_ *testing.T, r *reference) {
		put := r.put
		r.put = func(ctx context.Context, req backend.Request, v backend.Value, cond backend.Condition) (string, error) {
			if v.Fields == nil {
				v.Secret = backend.NewSecret(f(v.Secret.Reveal()))
			}
			return put(ctx, req, v, cond)
		}
	})
}

// conditioned lets f change the request and condition of a Put.
func conditioned(f func(r *reference, req *backend.Request, cond *backend.Condition)) mutant {
	return wrong(func(_ *testing.T, r *reference) {
		put := r.put
		r.put = func(ctx context.Context, req backend.Request, v backend.Value, cond backend.Condition) (string, error) {
			f(r, &req, &cond)
			return put(ctx, req, v, cond)
		}
	})
}

// comparing lets the backend itself compare versions, under a lock that lock gives, and not the store.
func comparing(lock func() (unlock func())) func(*testing.T, *reference) {
	return func(_ *testing.T, r *reference) {
		put := r.put
		r.put = func(ctx context.Context, req backend.Request, v backend.Value, cond backend.Condition) (string, error) {
			if cond.Version != "" {
				defer lock()()
				current, err := r.check(ctx, req)
				if err != nil || current != cond.Version {
					return "", backend.Errorf(backend.CodeConflict, "the secret has changed")
				}
				time.Sleep(5 * time.Millisecond)
				cond = backend.Condition{}
			}
			return put(ctx, req, v, cond)
		}
	}
}

func listing(f func(ctx context.Context, r *reference, prefix string, yield func(backend.Entry, error) bool)) mutant {
	return wrong(func(_ *testing.T, r *reference) {
		r.list = func(ctx context.Context, prefix string) iter.Seq2[backend.Entry, error] {
			return func(yield func(backend.Entry, error) bool) { f(ctx, r, prefix, yield) }
		}
	})
}

// watching is a watch in which f decides which requests are told of a change from seen to now.
func watching(f func(reqs []backend.Request, seen, now []string) []backend.Request) mutant {
	return wrong(func(_ *testing.T, r *reference) {
		r.watch = func(ctx context.Context, reqs []backend.Request, changed func(backend.Request)) error {
			a, err := r.one(ctx, ask{Op: "state", Requests: reqs})
			if err != nil {
				return err
			}
			for _, req := range reqs {
				changed(req)
			}
			for seen := a.States; ; seen = a.States {
				if a, err = r.one(ctx, ask{Op: "wait", Requests: reqs, Since: seen}); err != nil {
					return err
				}
				for _, req := range f(reqs, seen, a.States) {
					changed(req)
				}
			}
		}
	})
}

// late lets a method return long after its context ended in the way of cause.
func late(ctx context.Context, cause error, f func(context.Context) error) error {
	err := f(ctx)
	if errors.Is(ctx.Err(), cause) {
		time.Sleep(300 * time.Millisecond)
	}
	return err
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// trusting verifies the certificate of a store by verify alone.
func trusting(verify func(leaf *x509.Certificate, roots *x509.CertPool) error) mutant {
	return wrong(func(_ *testing.T, r *reference) {
		if r.tls == nil {
			return
		}
		r.tls.InsecureSkipVerify = true
		r.tls.VerifyConnection = func(cs tls.ConnectionState) error {
			return verify(cs.PeerCertificates[0], r.tls.RootCAs)
		}
	})
}

func notFound(format string) error { return backend.Errorf(backend.CodeNotFound, "%s", format) }

// foreign is an error that is no *backend.Error.
type foreign struct{}

func (foreign) Error() string        { return "not there" }
func (foreign) Is(target error) bool { return target == backend.ErrNotFound }

// mutants are the ways to break a reference, by the case that each fails.
var mutants = map[string]mutant{
	"open/no-io": wrong(func(_ *testing.T, r *reference) {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_, _ = r.call(ctx, ask{Op: "probe"})
	}),
	"get/value": altered(func(v []byte) []byte { slices.Reverse(v); return v }),
	"get/identity": wrong(func(t *testing.T, r *reference) {
		var n atomic.Int64
		got(func(c *backend.Credential, _ backend.Request) {
			c.Metadata = map[string]string{"n": strconv.FormatInt(n.Add(1), 10)}
		}).break_(t, r)
	}),
	"get/fresh": wrong(func(_ *testing.T, r *reference) {
		var first sync.Map
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			c, err := get(ctx, req)
			if err != nil {
				return nil, err
			}
			kept, _ := first.LoadOrStore(req, c)
			return kept.(*backend.Credential), nil
		}
	}),
	"get/immutable": wrong(func(t *testing.T, r *reference) {
		var mu sync.Mutex
		given := make(map[backend.Request]*backend.Credential)
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			c, err := get(ctx, req)
			if err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			if kept := given[req]; kept == nil {
				given[req] = c
			} else if kept.Version != c.Version {
				*kept = *c
			}
			return given[req], nil
		}
	}),
	"get/missing": mistaking(backend.CodeNotFound, backend.CodeDenied),
	"get/removed": wrong(func(t *testing.T, r *reference) {
		var last sync.Map
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			c, err := get(ctx, req)
			if err == nil {
				last.Store(req, c)
			} else if kept, ok := last.Load(req); ok && isSaid(err, backend.CodeNotFound) {
				return kept.(*backend.Credential), nil
			}
			return c, err
		}
	}),
	"get/invalid-id": failing(func(err error, _ backend.Request) error {
		if errors.Is(err, backend.ErrInvalidID) {
			return notFound("there is no such secret")
		}
		return err
	}),
	"get/hostile-ids": wrong(func(_ *testing.T, r *reference) {
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			req.ID, _, _ = strings.Cut(req.ID, "?")
			return get(ctx, req)
		}
	}),
	"error/type": failing(func(err error, req backend.Request) error {
		if isSaid(err, backend.CodeNotFound) {
			return foreign{}
		}
		return err
	}),
	"error/text": failing(func(err error, _ backend.Request) error {
		if isSaid(err, backend.CodeNotFound) {
			return notFound("Error:\n  at get.go\n  at main.go\n  at exit")
		}
		return err
	}),

	"value/empty": altered(func(v []byte) []byte {
		if len(v) == 0 {
			return []byte("<nil>")
		}
		return v
	}),
	"value/one-byte": altered(func(v []byte) []byte {
		if len(v) == 1 {
			return nil
		}
		return v
	}),
	"value/64-kib": altered(func(v []byte) []byte { return v[:min(len(v), 1<<16-1)] }),
	"value/1-mib":  altered(func(v []byte) []byte { return v[:min(len(v), 1<<20-1)] }).on(roomy),
	"value/nul": altered(func(v []byte) []byte {
		before, _, _ := bytes.Cut(v, []byte{0})
		return before
	}),
	"value/newlines":    altered(func(v []byte) []byte { return bytes.ReplaceAll(v, []byte("\r\n"), []byte("\n")) }),
	"value/white-space": altered(func(v []byte) []byte { return bytes.Trim(v, " \t") }),
	"value/unicode":     altered(func(v []byte) []byte { return bytes.ReplaceAll(v, []byte("e\u0301"), []byte("\u00e9")) }),
	"value/not-utf-8":   altered(func(v []byte) []byte { return bytes.ToValidUTF8(v, []byte("\ufffd")) }),
	"value/looks-typed": altered(func(v []byte) []byte {
		if f, err := strconv.ParseFloat(string(v), 64); err == nil {
			return fmt.Append(nil, f)
		}
		return v
	}),

	"fault/denied":        mistaking(backend.CodeDenied, backend.CodeNotFound),
	"fault/locked":        mistaking(backend.CodeLocked, backend.CodeUnavailable),
	"fault/throttled":     mistaking(backend.CodeThrottled, backend.CodeUnavailable),
	"fault/unavailable":   mistaking(backend.CodeUnavailable, backend.CodeNotFound),
	"fault/auth-required": mistaking(backend.CodeAuthRequired, backend.CodeDenied),
	"fault/retry-after": failing(func(err error, _ backend.Request) error {
		if isSaid(err, backend.CodeThrottled) {
			return backend.Errorf(backend.CodeThrottled, "too many calls")
		}
		return err
	}),
	"fault/one-id":     sticking(func(err error) bool { return isSaid(err, backend.CodeDenied) }),
	"fault/recovers":   sticking(func(err error) bool { return isSaid(err, backend.CodeUnavailable) }),
	"network/recovers": sticking(func(err error) bool { return err == error(errRefused) || err == error(errReset) }),

	"fields/values": got(func(c *backend.Credential, _ backend.Request) {
		fields := make(map[string]backend.Secret)
		for name, f := range c.Fields {
			fields[strings.ToLower(name)] = f
		}
		if c.Fields != nil {
			c.Fields = fields
		}
	}),
	"fields/types": got(func(c *backend.Credential, _ backend.Request) {
		for name, f := range c.Fields {
			if n, err := strconv.ParseFloat(string(f.Reveal()), 64); err == nil && f.IsJSON() {
				c.Fields[name] = backend.NewJSONSecret(fmt.Append(nil, n))
			}
		}
	}),
	"fields/json-text": got(func(c *backend.Credential, _ backend.Request) {
		if !c.Secret.IsZero() {
			c.Fields = nil
		}
	}),

	"version/refused": wrong(func(_ *testing.T, r *reference) {
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			req.Version = ""
			return get(ctx, req)
		}
	}).on(plain),
	"version/current": wrong(func(_ *testing.T, r *reference) {
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			if current, err := r.check(ctx, backend.Request{ID: req.ID}); err == nil && req.Version == current {
				return nil, notFound("the newest version is no version")
			}
			return get(ctx, req)
		}
	}),
	"version/pinned": wrong(func(_ *testing.T, r *reference) {
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			asked, err := strconv.Atoi(req.Version)
			current, _ := r.check(ctx, backend.Request{ID: req.ID})
			if newest, _ := strconv.Atoi(current); err == nil && asked > 0 && asked < newest {
				req.Version = ""
			}
			return get(ctx, req)
		}
	}),
	"version/missing": wrong(func(_ *testing.T, r *reference) {
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			c, err := get(ctx, req)
			if req.Version != "" && errors.Is(err, backend.ErrNotFound) {
				return get(ctx, backend.Request{ID: req.ID})
			}
			return c, err
		}
	}),
	"version/stage": wrong(func(_ *testing.T, r *reference) {
		var stages sync.Map
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			stage := strings.HasPrefix(req.Version, "stage:")
			key := req
			if version, ok := stages.Load(key); ok {
				req.Version = version.(string)
			}
			c, err := get(ctx, req)
			if err == nil && stage {
				stages.Store(key, c.Version)
			}
			return c, err
		}
	}),

	"describe/no-io": wrong(func(_ *testing.T, r *reference) {
		var n atomic.Int64
		describe := r.describe
		r.describe = func() backend.Description {
			d := describe()
			d.Detail = fmt.Sprint("asked ", n.Add(1), " times")
			return d
		}
	}),
	"describe/limits": wrong(func(_ *testing.T, r *reference) {
		describe := r.describe
		r.describe = func() backend.Description {
			d := describe()
			d.MaxValue = 10
			return d
		}
	}),

	"batch/order": batching(func(results []backend.Result, _ []backend.Request) ([]backend.Result, error) {
		slices.Reverse(results)
		return results, nil
	}),
	"batch/empty": batching(func(results []backend.Result, reqs []backend.Request) ([]backend.Result, error) {
		if len(reqs) == 0 {
			return nil, backend.Errorf(backend.CodeUsage, "nothing was asked for")
		}
		return results, nil
	}),
	"batch/duplicates": batching(func(results []backend.Result, reqs []backend.Request) ([]backend.Result, error) {
		for i := range reqs {
			if slices.Contains(reqs[:i], reqs[i]) && results[i].Err == nil {
				results[i] = backend.Result{}
			}
		}
		return results, nil
	}),
	"batch/partial": batching(failWhole(backend.CodeNotFound)),
	"batch/denied":  batching(failWhole(backend.CodeDenied)),
	"batch/same-as-get": batching(func(results []backend.Result, _ []backend.Request) ([]backend.Result, error) {
		for _, r := range results {
			if r.Err == nil {
				r.Credential.Version = ""
			}
		}
		return results, nil
	}),
	"batch/large": batching(func(results []backend.Result, _ []backend.Request) ([]backend.Result, error) {
		for i := storeBatch; i < len(results); i++ {
			results[i] = backend.Result{Err: notFound("too many requests for one batch")}
		}
		return results, nil
	}),
	"batch/unavailable": batching(func(results []backend.Result, _ []backend.Request) ([]backend.Result, error) {
		for i := range results {
			if isSaid(results[i].Err, backend.CodeUnavailable) {
				results[i].Err = notFound("the store did not give it")
			}
		}
		return results, nil
	}),

	"lease/none": got(func(c *backend.Credential, _ backend.Request) {
		if c.Lease == nil {
			c.Expires = time.Now().Add(time.Hour)
		}
	}),
	"lease/expires": got(func(c *backend.Credential, _ backend.Request) { c.Expires = time.Time{} }),
	"lease/skew": wrong(func(_ *testing.T, r *reference) {
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			c, err := get(ctx, req)
			if err == nil && c.Lease != nil {
				if a, err := r.one(ctx, ask{Op: "get", Requests: []backend.Request{req}}); err == nil {
					c.Expires = a.Ends
				}
			}
			return c, err
		}
	}),
	"lease/renew": renewing(func(l backend.Lease, _ time.Duration, err error) (backend.Lease, error) {
		l.ID += "/renewed"
		return l, err
	}),
	"lease/longest": renewing(func(l backend.Lease, d time.Duration, err error) (backend.Lease, error) {
		l.Duration = d
		return l, err
	}),
	"lease/expired": renewing(func(l backend.Lease, _ time.Duration, err error) (backend.Lease, error) {
		if errors.Is(err, backend.ErrExpired) {
			err = notFound("there is no such lease")
		}
		return l, err
	}),
	"lease/revoke": wrong(func(_ *testing.T, r *reference) {
		r.revoke = func(context.Context, backend.Request, *backend.Credential) error { return r.ended() }
	}),
	"lease/revoke-twice": wrong(func(_ *testing.T, r *reference) {
		var gone sync.Map
		revoke := r.revoke
		r.revoke = func(ctx context.Context, req backend.Request, c *backend.Credential) error {
			if _, twice := gone.LoadOrStore(req.ID, true); twice {
				return backend.Errorf(backend.CodeExpired, "the lease is over")
			}
			return revoke(ctx, req, c)
		}
	}),

	"check/version": checking(func(version string, err error) (string, error) {
		if err == nil {
			version = "1"
		}
		return version, err
	}),
	"check/missing": checking(func(version string, err error) (string, error) {
		if errors.Is(err, backend.ErrNotFound) {
			return "", nil
		}
		return version, err
	}),
	"check/reads-nothing": wrong(func(_ *testing.T, r *reference) {
		check := r.check
		r.check = func(ctx context.Context, req backend.Request) (string, error) {
			if c, err := r.get(ctx, req); err == nil {
				return c.Version, nil
			}
			return check(ctx, req)
		}
	}),
	"probe/ok": probing(func(error) error { return backend.Errorf(backend.CodeUnavailable, "not now") }),
	"probe/fails": probing(func(err error) error {
		if err == error(errClosed) {
			return err
		}
		return nil
	}),
	"probe/reads-nothing": wrong(func(_ *testing.T, r *reference) {
		probe := r.probe
		r.probe = func(ctx context.Context) error {
			for e, err := range r.list(ctx, "") {
				if err == nil {
					_, _ = r.get(ctx, backend.Request{ID: e.ID})
				}
				break
			}
			return probe(ctx)
		}
	}),

	"write/strength": wrong(func(_ *testing.T, r *reference) { r.strength = func() backend.Strength { return "strong" } }),
	"write/put": wrong(func(_ *testing.T, r *reference) {
		put := r.put
		r.put = func(ctx context.Context, req backend.Request, v backend.Value, cond backend.Condition) (string, error) {
			_, err := put(ctx, req, v, cond)
			return "", err
		}
	}),
	"write/white-space": putting(bytes.TrimSpace),
	"write/empty": putting(func(v []byte) []byte {
		if len(v) == 0 {
			return []byte("null")
		}
		return v
	}),
	"write/fields": wrong(func(_ *testing.T, r *reference) {
		var kept sync.Map
		put, get := r.put, r.get
		r.put = func(ctx context.Context, req backend.Request, v backend.Value, cond backend.Condition) (string, error) {
			version, err := put(ctx, req, v, cond)
			if v.Fields != nil && err == nil {
				kept.Store(req, v.Fields)
			}
			return version, err
		}
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			c, err := get(ctx, req)
			if fields, ok := kept.Load(req); ok && err == nil {
				c.Fields = fields.(map[string]backend.Secret)
			}
			return c, err
		}
	}),
	"write/absent":  conditioned(func(_ *reference, _ *backend.Request, c *backend.Condition) { c.Absent = false }),
	"write/version": conditioned(func(_ *reference, _ *backend.Request, c *backend.Condition) { c.Version = "" }),
	"write/version-of-none": conditioned(func(r *reference, req *backend.Request, c *backend.Condition) {
		if c.Version == "" {
			return
		}
		if _, err := r.check(context.Background(), *req); errors.Is(err, backend.ErrNotFound) {
			c.Version = ""
		}
	}),
	"write/lost-update": wrong(comparing(func() func() { return func() {} })),
	"write/two-backends": wrong(func(t *testing.T, r *reference) {
		var mu sync.Mutex
		comparing(func() func() { mu.Lock(); return mu.Unlock })(t, r)
	}),
	"write/no-condition": conditioned(func(_ *reference, _ *backend.Request, c *backend.Condition) { *c = backend.Condition{} }).on(plain),
	"write/pinned":       conditioned(func(_ *reference, req *backend.Request, _ *backend.Condition) { req.Version = "" }),
	"write/delete": wrong(func(_ *testing.T, r *reference) {
		r.del = func(context.Context, backend.Request, backend.Condition) error { return r.ended() }
	}),
	"write/delete-twice": wrong(func(_ *testing.T, r *reference) {
		del := r.del
		r.del = func(ctx context.Context, req backend.Request, cond backend.Condition) error {
			if err := del(ctx, req, cond); !errors.Is(err, backend.ErrNotFound) {
				return err
			}
			return nil
		}
	}),
	"write/delete-version": wrong(func(_ *testing.T, r *reference) {
		del := r.del
		r.del = func(ctx context.Context, req backend.Request, _ backend.Condition) error {
			return del(ctx, req, backend.Condition{})
		}
	}),
	"write/too-large": putting(func(v []byte) []byte { return v[:min(len(v), int(plain.limits.MaxValue))] }).on(plain),
	"write/nul":       putting(func(v []byte) []byte { return bytes.ReplaceAll(v, []byte{0}, nil) }).on(plain),
	"write/not-utf-8": putting(func(v []byte) []byte {
		if !utf8.Valid(v) {
			return []byte(base64.StdEncoding.EncodeToString(v))
		}
		return v
	}).on(plain),
	"write/no-empty": putting(func(v []byte) []byte {
		if len(v) == 0 {
			return []byte(" ")
		}
		return v
	}).on(plain),

	"list/all": listing(func(ctx context.Context, r *reference, prefix string, yield func(backend.Entry, error) bool) {
		for e, err := range r.doList(ctx, prefix) {
			if !yield(e, err) || err == nil && !yield(e, nil) {
				return
			}
		}
	}),
	"list/prefix": listing(func(ctx context.Context, r *reference, prefix string, yield func(backend.Entry, error) bool) {
		r.doList(ctx, prefix[:max(0, len(prefix)-1)])(yield)
	}),
	"list/pages": listing(func(ctx context.Context, r *reference, prefix string, yield func(backend.Entry, error) bool) {
		n := 0
		for e, err := range r.doList(ctx, prefix) {
			if n++; n > full.limits.Page || !yield(e, err) {
				return
			}
		}
	}),
	"list/gettable": listing(func(ctx context.Context, r *reference, prefix string, yield func(backend.Entry, error) bool) {
		for e, err := range r.doList(ctx, prefix) {
			e.Version = "0"
			if !yield(e, err) {
				return
			}
		}
	}),
	"list/break": listing(func(ctx context.Context, r *reference, prefix string, yield func(backend.Entry, error) bool) {
		for e, err := range r.doList(ctx, prefix) {
			yield(e, err)
		}
	}),
	"list/stable": listing(func(ctx context.Context, r *reference, prefix string, yield func(backend.Entry, error) bool) {
		for offset := 0; ; offset += full.limits.Page {
			var page []backend.Entry
			skip := offset
			for e, err := range r.doList(ctx, prefix) {
				if err != nil {
					yield(backend.Entry{}, err)
					return
				}
				if skip--; skip < 0 && len(page) < full.limits.Page {
					page = append(page, e)
				}
			}
			for _, e := range page {
				if !yield(e, nil) {
					return
				}
			}
			if len(page) == 0 {
				return
			}
		}
	}),
	"list/error": listing(func(ctx context.Context, r *reference, prefix string, yield func(backend.Entry, error) bool) {
		for e, err := range r.doList(ctx, prefix) {
			if err != nil && isSaid(err, backend.CodeUnavailable) || !yield(e, err) {
				return
			}
		}
	}),

	"watch/first": wrong(func(_ *testing.T, r *reference) {
		watch := r.watch
		r.watch = func(ctx context.Context, reqs []backend.Request, changed func(backend.Request)) error {
			told := make(map[backend.Request]bool)
			return watch(ctx, reqs, func(req backend.Request) {
				if told[req] {
					changed(req)
				}
				told[req] = true
			})
		}
	}),
	"watch/ends": wrong(func(_ *testing.T, r *reference) {
		watch := r.watch
		r.watch = func(ctx context.Context, reqs []backend.Request, changed func(backend.Request)) error {
			if err := watch(ctx, reqs, changed); ctx.Err() == nil {
				return err
			}
			return nil
		}
	}),
	"watch/change": watching(func([]backend.Request, []string, []string) []backend.Request { return nil }),
	"watch/gap": wrong(func(_ *testing.T, r *reference) {
		watch := r.watch
		r.watch = func(ctx context.Context, reqs []backend.Request, changed func(backend.Request)) error {
			for _, req := range reqs {
				changed(req)
			}
			told := 0 // the first calls of the watch, which come after those above
			return watch(ctx, reqs, func(req backend.Request) {
				if told++; told > len(reqs) {
					changed(req)
				}
			})
		}
	}),
	"watch/burst": watching(func(reqs []backend.Request, seen, now []string) (tell []backend.Request) {
		for i, req := range reqs {
			if seen[i] != now[i] && len(now[i]) < 2 { // versions of two digits are not read
				tell = append(tell, req)
			}
		}
		return tell
	}),
	"watch/gone": watching(func(reqs []backend.Request, seen, now []string) (tell []backend.Request) {
		for i, req := range reqs {
			if seen[i] != now[i] && now[i] != "" {
				tell = append(tell, req)
			}
		}
		return tell
	}),
	"watch/each": watching(func(reqs []backend.Request, _, _ []string) []backend.Request { return reqs }),
	"watch/serial": wrong(func(_ *testing.T, r *reference) {
		watch := r.watch
		r.watch = func(ctx context.Context, reqs []backend.Request, changed func(backend.Request)) error {
			var calls sync.WaitGroup
			defer calls.Wait()
			return watch(ctx, reqs, func(req backend.Request) { calls.Go(func() { changed(req) }) })
		}
	}),

	"context/ended": wrong(func(_ *testing.T, r *reference) {
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			if ctx.Err() != nil {
				ctx = context.WithoutCancel(ctx)
			}
			return get(ctx, req)
		}
	}),
	"context/cancel":   delayed(context.Canceled),
	"context/deadline": delayed(context.DeadlineExceeded),
	"context/methods": wrong(func(_ *testing.T, r *reference) {
		probe := r.probe
		r.probe = func(ctx context.Context) error { return late(ctx, context.Canceled, probe) }
	}),

	"concurrent/get": wrong(func(_ *testing.T, r *reference) {
		var last atomic.Pointer[backend.Request]
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			last.Store(&req)
			time.Sleep(time.Millisecond)
			return get(ctx, *last.Load())
		}
	}),
	"concurrent/methods": wrong(func(_ *testing.T, r *reference) {
		var lists atomic.Int64
		get, list := r.get, r.list
		r.list = func(ctx context.Context, prefix string) iter.Seq2[backend.Entry, error] {
			return func(yield func(backend.Entry, error) bool) {
				lists.Add(1)
				defer lists.Add(-1)
				time.Sleep(30 * time.Millisecond)
				list(ctx, prefix)(yield)
			}
		}
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			if lists.Load() > 0 {
				return nil, backend.Errorf(backend.CodeUnavailable, "a listing is under way")
			}
			return get(ctx, req)
		}
	}),
	"concurrent/one-hangs": wrong(func(_ *testing.T, r *reference) {
		var one sync.Mutex
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			one.Lock()
			defer one.Unlock()
			return get(ctx, req)
		}
	}),

	"close/twice": wrong(func(_ *testing.T, r *reference) {
		var closed atomic.Bool
		end := r.close
		r.close = func() error {
			if closed.Swap(true) {
				return backend.Errorf(backend.CodeInternal, "closed already")
			}
			return end()
		}
	}),
	"close/unused": wrong(func(_ *testing.T, r *reference) {
		var used atomic.Bool
		end, call := r.close, r.call
		r.call = func(ctx context.Context, a ask) ([]answer, error) {
			used.Store(true)
			return call(ctx, a)
		}
		r.close = func() error {
			_ = end()
			if !used.Load() {
				return backend.Errorf(backend.CodeInternal, "never opened")
			}
			return nil
		}
	}),
	"close/used-after": failing(func(err error, _ backend.Request) error {
		if err == error(errClosed) {
			return notFound("closed")
		}
		return err
	}),
	"close/methods-after": probing(func(err error) error {
		if err == error(errClosed) {
			return nil
		}
		return err
	}),
	"close/watch": wrong(func(_ *testing.T, r *reference) {
		watch := r.watch
		r.watch = func(ctx context.Context, reqs []backend.Request, changed func(backend.Request)) error {
			err := watch(ctx, reqs, changed)
			if err == error(errClosed) {
				<-ctx.Done()
			}
			return err
		}
	}),
	"close/hanging": wrong(func(_ *testing.T, r *reference) {
		var calls sync.RWMutex
		end, get := r.close, r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			calls.RLock()
			defer calls.RUnlock()
			return get(ctx, req)
		}
		r.close = func() error {
			calls.Lock()
			defer calls.Unlock()
			return end()
		}
	}),
	"leak/goroutines": wrong(func(t *testing.T, r *reference) {
		var once sync.Once
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			once.Do(func() { go func() { <-t.Context().Done() }() })
			return get(ctx, req)
		}
	}),
	"leak/canceled": wrong(func(t *testing.T, r *reference) {
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			c, err := get(ctx, req)
			if ctx.Err() != nil {
				go func() { <-t.Context().Done() }()
			}
			return c, err
		}
	}),
	"leak/descriptors": wrong(func(t *testing.T, r *reference) {
		var once sync.Once
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			once.Do(func() {
				for range 3 { // more than what others of the process close meanwhile
					if f, err := os.Open(os.DevNull); err == nil {
						context.AfterFunc(t.Context(), func() { _ = f.Close() })
					}
				}
			})
			return get(ctx, req)
		}
	}),

	"secrecy/errors": remembering(func(err error, last []byte) error {
		if isSaid(err, backend.CodeDenied) {
			return backend.Errorf(backend.CodeDenied, "refused, header %s", base64.URLEncoding.EncodeToString(append([]byte("user:"), last...)))
		}
		return err
	}),
	"secrecy/write-errors": wrong(func(_ *testing.T, r *reference) {
		put := r.put
		r.put = func(ctx context.Context, req backend.Request, v backend.Value, cond backend.Condition) (string, error) {
			version, err := put(ctx, req, v, cond)
			if errors.Is(err, backend.ErrConflict) {
				err = backend.Errorf(backend.CodeConflict, "not stored: %s", hex.EncodeToString(v.Secret.Reveal()))
			}
			return version, err
		}
	}),
	"secrecy/credential": wrong(func(t *testing.T, r *reference) {
		hint := func(c *backend.Credential) {
			c.Metadata = map[string]string{"hint": "…" + string(c.Secret.Reveal()[max(0, c.Secret.Len()-20):])}
		}
		got(func(c *backend.Credential, _ backend.Request) { hint(c) }).break_(t, r)
		batching(func(results []backend.Result, _ []backend.Request) ([]backend.Result, error) {
			for _, r := range results {
				if r.Err == nil {
					hint(r.Credential)
				}
			}
			return results, nil
		}).break_(t, r)
	}),
	"secrecy/backend": wrong(func(t *testing.T, r *reference) {
		var mu sync.Mutex
		got(func(c *backend.Credential, _ backend.Request) {
			mu.Lock()
			defer mu.Unlock()
			r.Kept = string(c.Secret.Reveal())
		}).break_(t, r)
	}),
	"secrecy/list": listing(func(ctx context.Context, r *reference, prefix string, yield func(backend.Entry, error) bool) {
		for e, err := range r.doList(ctx, prefix) {
			if c, err := r.doGet(ctx, backend.Request{ID: e.ID}); err == nil {
				e.Metadata = map[string]string{"value": string(c.Secret.Reveal())}
			}
			if !yield(e, err) {
				return
			}
		}
	}),
	"secrecy/log": got(func(c *backend.Credential, _ backend.Request) {
		slog.Debug("got a secret", "query", url.QueryEscape(string(c.Secret.Reveal())))
	}),
	"hostile/arguments": wrong(func(_ *testing.T, r *reference) {
		renew := r.renew
		r.renew = func(ctx context.Context, l backend.Lease, d time.Duration) (backend.Lease, error) {
			_ = l.ID[0]
			return renew(ctx, l, d)
		}
	}),

	"network/refused": instead(errRefused, backend.CodeNotFound),
	"network/reset":   instead(errReset, backend.CodeNotFound),
	"network/garbage": instead(errNoise, backend.CodeInternal),
	"network/half-open": wrong(func(_ *testing.T, r *reference) {
		var used atomic.Bool
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			if !used.Swap(true) { // the first request logs in, and forgets the context
				ctx = context.WithoutCancel(ctx)
			}
			return get(ctx, req)
		}
	}),
	"network/truncated": wrong(func(_ *testing.T, r *reference) {
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			c, err := get(ctx, req)
			if err == error(errShort) {
				return &backend.Credential{Secret: backend.NewSecretString("the first half")}, nil
			}
			return c, err
		}
	}),
	"network/slow": wrong(func(_ *testing.T, r *reference) {
		base := r.client.Transport
		r.client.Transport = tripper(func(req *http.Request) (*http.Response, error) {
			resp, err := base.RoundTrip(req)
			if err == nil && resp.ContentLength > 2000 && resp.ContentLength < 4000 { // read at once, or not at all
				text := make([]byte, 4000)
				n, _ := resp.Body.Read(text)
				_ = resp.Body.Close()
				resp.Body = io.NopCloser(bytes.NewReader(text[:n]))
			}
			return resp, err
		})
	}),
	"http/throttled": failing(func(err error, _ backend.Request) error {
		if err.Error() == "the store answered with status 429" {
			return backend.Errorf(backend.CodeUnavailable, "%s", err.Error())
		}
		return err
	}),
	"http/unavailable": failing(func(err error, _ backend.Request) error {
		if err.Error() == "the store answered with status 503" {
			return backend.Errorf(backend.CodeUnavailable, "%s", err.Error())
		}
		return err
	}),
	"http/page": failing(func(err error, _ backend.Request) error {
		if err.Error() == "the store answered with status 200" {
			return notFound("there is no such secret")
		}
		return err
	}),
	"http/body": wrong(func(_ *testing.T, r *reference) {
		base, get := r.client.Transport, r.get
		var said atomic.Value
		r.client.Transport = tripper(func(req *http.Request) (*http.Response, error) {
			resp, err := base.RoundTrip(req)
			if err == nil && resp.StatusCode == http.StatusInternalServerError {
				text, _ := io.ReadAll(resp.Body)
				said.Store(string(text))
			}
			return resp, err
		})
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			c, err := get(ctx, req)
			if text, ok := said.Load().(string); ok && err != nil {
				err = backend.Errorf(backend.CodeUnavailable, "the store answered: %s", text)
			}
			return c, err
		}
	}),
	"http/no-retry": wrong(func(_ *testing.T, r *reference) {
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			c, err := get(ctx, req)
			if err != nil && err.Error() == "the store answered with status 503" {
				return get(ctx, req)
			}
			return c, err
		}
	}),

	"tls/trusted": wrong(func(_ *testing.T, r *reference) {
		if r.tls != nil {
			r.tls.RootCAs = x509.NewCertPool()
		}
	}),
	"tls/authority": trusting(func(leaf *x509.Certificate, _ *x509.CertPool) error {
		if time.Now().After(leaf.NotAfter) {
			return errors.New("expired")
		}
		return leaf.VerifyHostname("127.0.0.1")
	}),
	"tls/name": trusting(func(leaf *x509.Certificate, roots *x509.CertPool) error {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots})
		return err
	}),
	"tls/expired": trusting(func(leaf *x509.Certificate, roots *x509.CertPool) error {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "127.0.0.1", CurrentTime: leaf.NotBefore.Add(time.Second)})
		return err
	}),
}

// sticking goes on to fail once it has failed so.
func sticking(so func(error) bool) mutant {
	return wrong(func(_ *testing.T, r *reference) {
		var stuck atomic.Pointer[error]
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			if err := stuck.Load(); err != nil {
				return nil, *err
			}
			c, err := get(ctx, req)
			if err != nil && so(err) {
				stuck.Store(&err)
			}
			return c, err
		}
	})
}

// remembering lets f change an error of Get, and knows the secret that Get gave last.
func remembering(f func(err error, last []byte) error) mutant {
	return wrong(func(_ *testing.T, r *reference) {
		var last atomic.Pointer[[]byte]
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			c, err := get(ctx, req)
			if err == nil {
				v := c.Secret.Reveal()
				last.Store(&v)
			} else if v := last.Load(); v != nil {
				err = f(err, *v)
			}
			return c, err
		}
	})
}

// delayed lets Get return long after its context ended in the way of cause.
func delayed(cause error) mutant {
	return wrong(func(_ *testing.T, r *reference) {
		get := r.get
		r.get = func(ctx context.Context, req backend.Request) (c *backend.Credential, err error) {
			_ = late(ctx, cause, func(ctx context.Context) error {
				c, err = get(ctx, req)
				return err
			})
			return c, err
		}
	})
}

// batching lets f change the outcomes of a batch.
func batching(f func([]backend.Result, []backend.Request) ([]backend.Result, error)) mutant {
	return wrong(func(_ *testing.T, r *reference) {
		batch := r.batch
		r.batch = func(ctx context.Context, reqs []backend.Request) ([]backend.Result, error) {
			results, err := batch(ctx, reqs)
			if err != nil {
				return nil, err
			}
			return f(results, reqs)
		}
	})
}

// failWhole fails a batch in which one request fails with code.
func failWhole(code backend.Code) func([]backend.Result, []backend.Request) ([]backend.Result, error) {
	return func(results []backend.Result, _ []backend.Request) ([]backend.Result, error) {
		for _, r := range results {
			if backend.CodeOf(r.Err) == code {
				return nil, r.Err
			}
		}
		return results, nil
	}
}

func renewing(f func(l backend.Lease, d time.Duration, err error) (backend.Lease, error)) mutant {
	return wrong(func(_ *testing.T, r *reference) {
		renew := r.renew
		r.renew = func(ctx context.Context, l backend.Lease, d time.Duration) (backend.Lease, error) {
			got, err := renew(ctx, l, d)
			return f(got, d, err)
		}
	})
}

func checking(f func(version string, err error) (string, error)) mutant {
	return wrong(func(_ *testing.T, r *reference) {
		check := r.check
		r.check = func(ctx context.Context, req backend.Request) (string, error) { return f(check(ctx, req)) }
	})
}

func probing(f func(error) error) mutant {
	return wrong(func(_ *testing.T, r *reference) {
		probe := r.probe
		r.probe = func(ctx context.Context) error {
			err := probe(ctx)
			if ctx.Err() != nil {
				return err
			}
			return f(err)
		}
	})
}
