package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
)

func closeCases() []Case {
	return []Case{
		{
			Name: "close/twice", Capability: "close", Rule: "Close may be called again, and at once with itself, without an error", Needs: []string{"get/value"},
			run: func(t *trial) {
				b, c := t.closer()
				id, v := t.stored()
				t.check(b, id, v)
				t.at("in Close")
				t.all(3, func(int) { t.wantClosed(c) })
				t.wantClosed(c)
			},
		},
		{
			Name: "close/unused", Capability: "close", Rule: "a backend that was never used can be closed",
			run: func(t *trial) {
				_, c := t.closer()
				t.wantClosed(c)
			},
		},
		{
			Name: "close/used-after", Capability: "close", Rule: "after Close a Get is unavailable, at once and without a panic", Needs: []string{"get/value", "close/unused"},
			run: func(t *trial) {
				b, c := t.closer()
				id, v := t.stored()
				t.check(b, id, v)
				t.wantClosed(c)
				t.at("in Get after Close")
				var got *backend.Credential
				var err error
				if !t.within(someTime, func() { got, err = b.Get(t.ctx, request(id)) }) {
					t.Fatalf("Get after Close: expected unavailable within %v, saw no answer", someTime)
				}
				if !is(err, backend.CodeUnavailable) {
					t.Errorf("Get after Close: expected unavailable, saw %s", t.saw(got, err))
				}
			},
		},
		{
			Name: "close/watch", Capability: "close", Rule: "Close ends a Watch", Needs: []string{"watch/ends", "close/unused"},
			run: func(t *trial) {
				b := t.watcher()
				c, ok := b.(io.Closer)
				t.need(ok, "the capability close", "implement io.Closer")
				id, _ := t.stored()
				w := t.watch(b, nil, id)
				w.called(id, 1)
				t.wantClosed(c)
				w.ended(someTime, backend.CodeUnavailable, backend.CodeCanceled)
			},
		},
		{
			Name: "close/methods-after", Capability: "close", Rule: "after Close every other method is unavailable too, at once and without a panic",
			Needs: []string{"close/used-after", "close/watch"},
			run: func(t *trial) {
				b, c := t.closer()
				id, v := t.stored()
				t.check(b, id, v)
				t.wantClosed(c)
				t.wantAllClosed(b, id)
			},
		},
		{
			Name: "close/hanging", Capability: "close", Rule: "Close does not wait for a store that hangs", Needs: []string{"context/cancel", "close/unused"},
			run: func(t *trial) {
				b, id := t.hanging()
				c, ok := b.(io.Closer)
				t.need(ok, "the capability close", "implement io.Closer")
				ctx, cancel := context.WithCancel(t.ctx)
				defer cancel()
				t.spawn(func() { _, _ = b.Get(ctx, request(id)) })
				pause(10 * time.Millisecond)
				t.wantClosed(c)
			},
		},
		{
			Name: "leak/goroutines", Rule: "when a backend is closed, none of its goroutines is left", Needs: []string{"get/value", "close/unused"},
			run: func(t *trial) {
				t.wantNoGrowth("goroutines", 4, t.goroutines, func() { t.life(false) })
			},
		},
		{
			Name: "leak/canceled", Rule: "a call that was canceled leaves no goroutine behind", Needs: []string{"leak/goroutines", "context/cancel"},
			run: func(t *trial) {
				_, ok := t.tryFault(Fault{Kind: FaultHang, ID: t.id("probing")})
				t.need(ok, "a store that can hang", "let Harness.Fault cause that fault")
				t.wantNoGrowth("goroutines", 4, t.goroutines, func() { t.life(true) })
			},
		},
		{
			Name: "leak/descriptors", Rule: "when a backend is closed, none of its files, pipes and sockets is left open", Needs: []string{"get/value", "close/unused"},
			run: func(t *trial) {
				_, err := os.ReadDir(descriptorDir)
				t.need(err == nil, "a list of the open files", "run on a system with "+descriptorDir)
				// Other goroutines of the process open and close files too, so there are many lives, and few tries.
				t.wantNoGrowth("descriptors", 16, descriptors, func() { t.life(false) })
			},
		},
	}
}

const descriptorDir = "/dev/fd"

func descriptors() int {
	entries, _ := os.ReadDir(descriptorDir)
	return len(entries)
}

func (t *trial) closer() (backend.Backend, io.Closer) {
	b := t.open()
	c, ok := b.(io.Closer)
	t.need(ok, "the capability close", "a backend that holds nothing needs no Close")
	return b, c
}

func (t *trial) wantClosed(c io.Closer) {
	t.at("in Close")
	done := make(chan error, 1)
	t.spawn(func() { done <- c.Close() })
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Close: expected no error, saw %s", t.sawErr(err))
		}
	case <-time.After(someTime):
		t.Fatalf("Close: expected its return within %v, saw it hang", someTime)
	}
}

// wantAllClosed fails the case unless every method of b beside Get is unavailable, or not supported.
func (t *trial) wantAllClosed(b backend.Backend, id string) {
	try := func(name string, f func() error) {
		t.at("in " + name + " after Close")
		var err error
		if !t.within(someTime, func() { err = f() }) {
			t.Errorf("%s after Close: expected unavailable within %v, saw no answer", name, someTime)
		} else if !errors.Is(err, errors.ErrUnsupported) {
			t.wantErr(name+" after Close", err, backend.CodeUnavailable)
		}
	}
	lease := backend.Lease{ID: id, Duration: leaseTime, Renewable: true}
	if b, ok := b.(backend.BatchGetter); ok {
		try("GetBatch", func() error {
			results, err := b.GetBatch(t.ctx, requests(id))
			if err == nil && len(results) == 1 {
				err = results[0].Err
			}
			return err
		})
	}
	if b, ok := b.(backend.Prober); ok {
		try("Probe", func() error { return b.Probe(t.ctx) })
	}
	if b, ok := b.(backend.Checker); ok {
		try("CurrentVersion", func() error {
			_, err := b.CurrentVersion(t.ctx, request(id))
			return err
		})
	}
	if b, ok := b.(backend.Writer); ok {
		try("Put", func() error {
			_, err := b.Put(t.ctx, request(id), plainValue([]byte("a value")), backend.Condition{})
			return err
		})
		try("Delete", func() error { return b.Delete(t.ctx, request(id), backend.Condition{}) })
	}
	if b, ok := b.(backend.Lister); ok {
		try("List", func() error { return t.drain(t.ctx, b, id) })
	}
	if b, ok := b.(backend.Watcher); ok {
		try("Watch", func() error { return b.Watch(t.ctx, requests(id), func(backend.Request) {}) })
	}
	if b, ok := b.(backend.Renewer); ok {
		try("Renew", func() error {
			_, err := b.Renew(t.ctx, lease, 0)
			return err
		})
	}
	if b, ok := b.(backend.Revoker); ok {
		try("Revoke", func() error { return b.Revoke(t.ctx, request(id), &backend.Credential{Lease: &lease}) })
	}
}

// life is all that a backend goes through: it is opened, used and closed.
func (t *trial) life(hang bool) {
	at := &recorder{name: t.name, ctx: t.ctx, canaries: t.canaries}
	defer func() { // also when the harness ends the case
		for _, text := range append(at.failed, at.skipped...) {
			t.Errorf("the harness in one of several lives: %s", text)
		}
	}()
	d := newDialer(t.recorder, nil)
	t.at("opening a backend")
	b := t.h.Open(at, d)
	id := t.tag + "-life"
	if t.h.ID != nil {
		id = t.h.ID(id)
	}
	t.aside(func() { t.putValue(id, plainValue([]byte("a value"))) })
	_, _ = t.get(b, request(id))
	if batch, ok := b.(backend.BatchGetter); ok {
		t.at("in GetBatch")
		_, _ = batch.GetBatch(t.ctx, requests(id, id))
	}
	if p, ok := b.(backend.Prober); ok {
		t.at("in Probe")
		_ = p.Probe(t.ctx)
	}
	if l, ok := b.(backend.Lister); ok {
		t.at("in List")
		_ = t.drain(t.ctx, l, id)
	}
	if w, ok := b.(backend.Watcher); ok {
		t.at("in Watch")
		ctx, cancel := context.WithTimeout(t.ctx, maxPause)
		_ = w.Watch(ctx, requests(id), func(backend.Request) { cancel() })
		cancel()
	}
	if hang {
		var undo func()
		t.aside(func() { undo, _ = t.tryFault(Fault{Kind: FaultHang}) })
		ctx, cancel := context.WithTimeout(t.ctx, 5*time.Millisecond)
		_, _ = t.getIn(ctx, b, request(id))
		cancel()
		if undo != nil {
			t.aside(undo)
		}
	}
	if c, ok := b.(io.Closer); ok {
		t.at("in Close")
		_ = c.Close()
	}
	cleanups := at.seal()
	for i := len(cleanups) - 1; i >= 0; i-- {
		cleanups[i]()
	}
	d.close()
	if t.h.Delete != nil {
		t.aside(func() { t.h.Delete(t, id) })
	}
}

// wantNoGrowth fails the case when lives leave something behind that count counts: at least every second one, since others
// of the process count too. What the first leaves is not judged: a pool that all share is no leak.
func (t *trial) wantNoGrowth(what string, lives int, count func() int, life func()) {
	life()
	grown := 0
	for try, quiet := 0, 0; try < 5; try++ {
		before := settled(count)
		for range lives {
			life()
		}
		t.at("counting " + what)
		if !eventually(someTime/4, func() bool {
			grown = count() - before
			return grown < lives/2
		}) {
			continue
		}
		if quiet++; quiet == 2 { // once may be by chance: others of the process closed something meanwhile
			return
		}
	}
	t.Errorf("%s after %d times open, use and close: expected no more than before, saw %d more", what, lives, grown)
}

// settled gives the count when what is about to end has ended.
func settled(count func() int) int {
	least := count()
	for quiet := 0; quiet < 5; quiet++ {
		pause(4 * time.Millisecond)
		if n := count(); n < least {
			least, quiet = n, 0
		}
	}
	return least
}

var goroutineCount = regexp.MustCompile(`^(\d+) @`)

// goroutines counts those of the case, and those that they started.
func (t *trial) goroutines() int {
	var profile bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&profile, 1)
	mark := fmt.Sprintf("%q:%q", label, t.tag)
	total, n := 0, 0
	for line := range strings.Lines(profile.String()) {
		if m := goroutineCount.FindStringSubmatch(line); m != nil {
			n, _ = strconv.Atoi(m[1])
		} else if strings.HasPrefix(line, "# labels:") && strings.Contains(line, mark) {
			total += n
		}
	}
	return total
}
