package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// trial is one case at work: its T, its ids and values, and what the cases have in common.
type trial struct {
	*recorder
	h   Harness
	tag string

	mu  sync.Mutex
	ids int
}

const (
	// promptly is how soon after the end of its context, or after Close, a method must have returned.
	promptly = 100 * time.Millisecond
	// someTime is how long the suite waits for what should happen soon, before it says that it did not.
	someTime = time.Second
	// maxPause bounds every pause of the suite.
	maxPause = 50 * time.Millisecond
)

// pause waits for d, at most maxPause.
func pause(d time.Duration) { time.Sleep(min(d, maxPause)) }

// eventually reports whether ok came true within limit.
func eventually(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); ; pause(2 * time.Millisecond) {
		if ok() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// dialer gives a new way to the store, which ends with the case.
func (t *trial) dialer() *Dialer {
	d := newDialer(t.recorder, nil)
	t.Cleanup(d.close)
	return d
}

// open opens a backend that ends with the case.
func (t *trial) open() backend.Backend { return t.openThrough(t.dialer()) }

func (t *trial) openThrough(d *Dialer) backend.Backend {
	t.at("opening a backend")
	return t.closing(t.h.Open(t, d))
}

func (t *trial) closing(b backend.Backend) backend.Backend {
	if b == nil {
		t.Fatalf("expected a backend of Harness.Open, saw nil")
	}
	if c, ok := b.(io.Closer); ok {
		t.Cleanup(func() { _ = c.Close() })
	}
	return b
}

// id gives a new id, which is deleted from the store when the case is over.
func (t *trial) id(name string) string {
	t.mu.Lock()
	t.ids++
	n := t.ids
	t.mu.Unlock()
	return t.named(strconv.Itoa(n) + "-" + name)
}

// named gives the id of the case that has that name, which is deleted from the store when the case is over.
func (t *trial) named(name string) string {
	id := t.storeID(t.tag + "-" + name)
	if t.h.Delete != nil {
		t.Cleanup(func() { t.h.Delete(t, id) })
	}
	return id
}

func (t *trial) storeID(name string) string {
	if t.h.ID == nil {
		return name
	}
	return t.h.ID(name)
}

func (t *trial) need(have bool, what, how string) {
	if !have {
		t.Skipf("needs %s: %s", what, how)
	}
}

// canary gives a new value that must not be seen anywhere.
func (t *trial) canary() []byte {
	v := []byte(newCanary())
	t.canaries.add(v)
	return v
}

func plainValue(b []byte) backend.Value { return backend.Value{Secret: backend.NewSecret(b)} }

// put stores a plain value out of band.
func (t *trial) put(id string, v []byte) {
	t.canaries.add(v)
	t.putValue(id, plainValue(v))
}

func (t *trial) putValue(id string, v backend.Value) {
	t.need(t.h.Put != nil, "a way to store a secret", "set Harness.Put")
	t.at("storing a secret through the harness")
	t.h.Put(t, id, v)
}

// stored puts a canary under a new id.
func (t *trial) stored() (id string, value []byte) {
	id, value = t.id("secret"), t.canary()
	t.put(id, value)
	return id, value
}

func (t *trial) remove(id string) {
	t.need(t.h.Delete != nil, "a way to remove a secret", "set Harness.Delete")
	t.at("removing a secret through the harness")
	t.h.Delete(t, id)
}

// fault breaks the store, until undo is called or the case is over.
func (t *trial) fault(f Fault) (undo func()) {
	undo, ok := t.tryFault(f)
	t.need(ok, fmt.Sprintf("a store that can %s", f.Kind), "let Harness.Fault cause that fault")
	return undo
}

func (t *trial) tryFault(f Fault) (undo func(), ok bool) {
	if t.h.Fault == nil {
		return nil, false
	}
	t.at(fmt.Sprintf("causing the fault %s", f.Kind))
	undo = t.h.Fault(t, f)
	if undo == nil {
		return nil, false
	}
	undo = sync.OnceFunc(undo)
	t.Cleanup(undo)
	return undo, true
}

// capability gives b as a C, or skips the case.
func capability[C backend.Backend](t *trial, b backend.Backend, name string) C {
	c, ok := b.(C)
	if !ok {
		t.Skipf("needs the capability %s: implement %s", name, strings.TrimPrefix(fmt.Sprintf("%T", (*C)(nil)), "*"))
	}
	return c
}

// supported skips the case when err says that the configuration turns the capability off.
func (t *trial) supported(err error, name string) {
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("needs the capability %s: this configuration turns it off", name)
	}
}

func request(id string) backend.Request { return backend.Request{ID: id} }

func requests(ids ...string) []backend.Request {
	reqs := make([]backend.Request, len(ids))
	for i, id := range ids {
		reqs[i].ID = id
	}
	return reqs
}

func (t *trial) get(b backend.Backend, req backend.Request) (*backend.Credential, error) {
	return t.getIn(t.ctx, b, req)
}

func (t *trial) getIn(ctx context.Context, b backend.Backend, req backend.Request) (*backend.Credential, error) {
	t.at("in Get")
	return b.Get(ctx, req)
}

// mustGet gives a credential, or ends the case.
func (t *trial) mustGet(b backend.Backend, req backend.Request) *backend.Credential {
	c, err := t.get(b, req)
	if err != nil || c == nil {
		t.Fatalf("Get of a secret that exists: expected a credential, saw %s", t.saw(c, err))
	}
	return c
}

// check fails the case unless a Get of id gives want.
func (t *trial) check(b backend.Backend, id string, want []byte) {
	t.wantPlain("Get", t.mustGet(b, request(id)), want)
}

// plainOf gives what a request without field yields of a plain secret: the secret, else the only field, else the field "value".
func plainOf(c *backend.Credential) (backend.Secret, bool) {
	if !c.Secret.IsZero() {
		return c.Secret, true
	}
	if len(c.Fields) == 1 {
		for _, f := range c.Fields {
			return f, true
		}
	}
	f, ok := c.Fields["value"]
	return f, ok
}

func (t *trial) wantPlain(what string, c *backend.Credential, want []byte) {
	s, ok := plainOf(c)
	if !ok {
		t.Errorf("%s: expected a value of %d bytes, saw a credential without a plain value and with %d fields", what, len(want), len(c.Fields))
		return
	}
	t.wantSecret(what, s, want)
}

func (t *trial) wantSecret(what string, s backend.Secret, want []byte) {
	_ = s.Use(func(got []byte) error {
		if s.IsZero() || !bytes.Equal(got, want) {
			t.Errorf("%s: expected the %d bytes that were stored, saw %d bytes, equal in the first %d", what, len(want), len(got), common(got, want))
		}
		return nil
	})
}

func common(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// sentinels are what errors.Is may find in an error of a backend.
var sentinels = []struct {
	code backend.Code
	err  error
}{
	{backend.CodeNotFound, backend.ErrNotFound}, {backend.CodeDenied, backend.ErrDenied}, {backend.CodeInvalidID, backend.ErrInvalidID},
	{backend.CodeFieldRequired, backend.ErrFieldRequired}, {backend.CodeUnsupported, errors.ErrUnsupported},
	{backend.CodeThrottled, backend.ErrThrottled}, {backend.CodeUnavailable, backend.ErrUnavailable}, {backend.CodeLocked, backend.ErrLocked},
	{backend.CodeAuthRequired, backend.ErrAuthRequired}, {backend.CodeExpired, backend.ErrExpired}, {backend.CodeConflict, backend.ErrConflict},
	{backend.CodeInvalidConfig, backend.ErrInvalidConfig}, {backend.CodeUsage, backend.ErrUsage},
	{backend.CodeTimeout, context.DeadlineExceeded}, {backend.CodeCanceled, context.Canceled},
}

// kinds names the sentinels that errors.Is finds in err. A throttled error is an unavailable one too, which is not told.
func kinds(err error) []backend.Code {
	var found []backend.Code
	for _, s := range sentinels {
		if errors.Is(err, s.err) && (s.code != backend.CodeUnavailable || !errors.Is(err, backend.ErrThrottled)) {
			found = append(found, s.code)
		}
	}
	return found
}

// is reports whether err is of one of the codes, and of none beside it.
func is(err error, codes ...backend.Code) bool {
	found := kinds(err)
	return len(found) == 1 && slices.Contains(codes, found[0])
}

// wantErr fails the case unless err is of one of the codes, and of none beside it.
func (t *trial) wantErr(what string, err error, codes ...backend.Code) bool {
	if is(err, codes...) {
		return true
	}
	t.Errorf("%s: expected %s, saw %s", what, names(codes), t.sawErr(err))
	return false
}

func names(codes []backend.Code) string {
	texts := make([]string, len(codes))
	for i, c := range codes {
		texts[i] = string(c)
	}
	return strings.Join(texts, " or ")
}

func (t *trial) sawErr(err error) string {
	if err == nil {
		return "no error"
	}
	found := names(kinds(err))
	if found == "" {
		found = "an error of no known kind"
	}
	return fmt.Sprintf("%s (%T): %s", strings.ReplaceAll(found, " or ", " and "), err, t.canaries.hide(err.Error()))
}

func (t *trial) saw(c *backend.Credential, err error) string {
	switch {
	case err != nil:
		return t.sawErr(err)
	case c == nil:
		return "neither a credential nor an error"
	}
	return "a credential"
}

// within calls f in a goroutine of its own, and reports whether it returned within limit. One that did not is left behind.
func (t *trial) within(limit time.Duration, f func()) bool {
	done := make(chan struct{})
	t.spawn(func() {
		defer close(done)
		f()
	})
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

// spawn starts a goroutine whose panic is the case's, not the process's.
func (t *trial) spawn(f func()) {
	go func() {
		defer func() {
			if v := recover(); v != nil {
				t.panicked(v)
			}
		}()
		f()
	}()
}

// all calls f n times at once, and waits for them for as long as the case may take.
func (t *trial) all(n int, f func(i int)) {
	var wg sync.WaitGroup
	wg.Add(n)
	for i := range n {
		t.spawn(func() {
			defer wg.Done()
			f(i)
		})
	}
	wg.Wait()
}

// aside runs f in a goroutine that does not count as the backend's, nor do those that f starts.
func (t *trial) aside(f func()) {
	done := make(chan struct{})
	t.spawn(func() {
		defer close(done)
		pprof.SetGoroutineLabels(context.Background())
		f()
	})
	<-done
}

// hides fails the case when s shows a canary.
func (t *trial) hides(what, s string) {
	if name := t.canaries.find(s); name != "" {
		t.Errorf("%s: expected no secret in it, saw one, %s", what, name)
	}
}

// hidesErr fails the case when err, or one that it wraps, shows a canary under any verb.
func (t *trial) hidesErr(what string, err error) {
	if err == nil {
		return
	}
	t.hides(what, err.Error())
	for _, verb := range []string{"%v", "%+v", "%#v", "%q", "%x"} {
		t.hides(what+" printed with "+verb, fmt.Sprintf(verb, err))
	}
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		t.hidesErr(what+", unwrapped", u.Unwrap())
	case interface{ Unwrap() []error }:
		for _, e := range u.Unwrap() {
			t.hidesErr(what+", unwrapped", e)
		}
	}
}
