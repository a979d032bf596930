//go:build soak

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/vaulttest"
	"github.com/credresolve/credresolve/resolver"
)

var soak = flag.Duration("soak", 2*time.Minute, "how long the soak test runs")

// TestSoak loads a sidecar with everything at once, in front of a real Vault that comes and goes: single refs, batches, leases,
// watches, sessions, reloads, rotations. Its memory, goroutines and descriptors stay bounded, its store is spared, and
// nothing fails but what must while the store is away. It prints what docs/soak.md shows:
//
//	go test -tags soak -run TestSoak -v -timeout 30m ./cmd/credresolve -soak 10m
func TestSoak(t *testing.T) {
	p := newProcess(t, ", cache: {ttl: 2s, max_stale: 1h}, limits: {retries: 0, breaker: {open: 1s}}", "  limits: {connections: 3000}\n  audit: {max_bytes: 20000000, keep: 2}\n")
	p.start()
	ctx, cancel := context.WithTimeout(t.Context(), *soak)
	defer cancel()
	var answers, stale, changes, sessions, reloads, outages atomic.Int64
	var mu sync.Mutex
	failed := map[string]int{}
	note := func(err error) {
		if err == nil || ctx.Err() != nil {
			return
		}
		code := string(backend.CodeOf(err))
		if errors.Is(err, backend.ErrUnavailable) {
			code = "unavailable" // a lease cannot be made while the store is away
		}
		mu.Lock()
		failed[code]++
		mu.Unlock()
	}
	took := func(o resolver.Outcome) {
		if o.Err == nil {
			answers.Add(1)
			if o.Value.Stale() {
				stale.Add(1)
			}
		}
		note(o.Err)
	}
	var work sync.WaitGroup
	run := func(n int, pause time.Duration, f func(c *client.Client)) {
		for range n {
			work.Go(func() {
				c := p.client()
				for ctx.Err() == nil {
					f(c)
					time.Sleep(pause)
				}
			})
		}
	}
	refs := []credref.Ref{p.password(), {Provider: "app", ID: p.kv + "/db", Field: "user"}, {Provider: "m", ID: "x"}}
	run(8, 0, func(c *client.Client) {
		v, err := c.Resolve(ctx, refs[rand.N(len(refs))])
		took(resolver.Outcome{Value: v, Err: err})
	})
	run(4, time.Millisecond, func(c *client.Client) {
		for _, o := range c.ResolveAll(ctx, refs) {
			took(o)
		}
	})
	run(2, 20*time.Millisecond, func(c *client.Client) {
		v, err := c.Resolve(ctx, p.user1())
		took(resolver.Outcome{Value: v, Err: err})
	})
	run(20, 100*time.Millisecond, func(c *client.Client) {
		watching, stop := context.WithTimeout(ctx, time.Duration(rand.N(5000))*time.Millisecond)
		defer stop()
		for range c.Watch(watching, refs[0], refs[2]) {
			changes.Add(1)
		}
	})
	run(2, 50*time.Millisecond, func(c *client.Client) {
		s, err := c.StartSession(ctx, client.SessionRequest{Consumer: "soak", Allow: []string{"cred://m/x"}, TTL: client.Duration(time.Minute)})
		if note(err); err != nil {
			return
		}
		own, err := client.New(client.Config{Socket: filepath.Join(p.dir, "run", "sock"), Token: backend.Literal(backend.NewSecretString(s.Token))})
		if err != nil {
			t.Error(err)
			return
		}
		defer own.Close()
		v, err := own.Resolve(ctx, refs[2])
		took(resolver.Outcome{Value: v, Err: err})
		note(c.EndSession(ctx, s.ID))
		sessions.Add(1)
	})
	run(1, 3*time.Second, func(c *client.Client) {
		_, err := c.Reload(ctx)
		note(err)
		reloads.Add(1)
	})
	run(1, 700*time.Millisecond, func(*client.Client) { p.put(fmt.Sprintf("value-%d-c4nary", rand.Int())) })
	run(1, 8*time.Second, func(*client.Client) {
		faults := []vaulttest.Fault{
			vaulttest.Answer(http.StatusServiceUnavailable, `{"errors":["Vault is sealed"]}`),
			vaulttest.Answer(http.StatusOK, "<html>"),
			vaulttest.Answer(http.StatusTooManyRequests, `{"errors":[]}`, "Retry-After", "1"),
		}
		undo := p.proxy.Fail("/v1/", -1, faults[rand.N(len(faults))])
		outages.Add(1)
		time.Sleep(4 * time.Second)
		undo()
	})

	type sample struct{ rss, goroutines, files int }
	look := func() (s sample) {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
		for line := range strings.Lines(string(status)) {
			if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				s.rss, _ = strconv.Atoi(strings.Fields(v)[0])
			}
		}
		if entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid)); err == nil {
			s.files = len(entries)
		}
		return s
	}
	began := time.Now()
	time.Sleep(*soak / 5)
	early := look()
	most := early
	for ctx.Err() == nil {
		now := look()
		most.rss, most.files = max(most.rss, now.rss), max(most.files, now.files)
		time.Sleep(500 * time.Millisecond)
	}
	work.Wait()
	last := look()
	calls := len(p.proxy.Calls("/v1/" + p.kv + "/data/db"))
	fmt.Printf("%d answers in %s, %d of them stale; %d events, %d sessions, %d reloads, %d outages\n", answers.Load(), time.Since(began).Round(time.Second), stale.Load(), changes.Load(), sessions.Load(), reloads.Load(), outages.Load())
	fmt.Printf("store calls for the watched secret: %d, %.2f a second\n", calls, float64(calls)/time.Since(began).Seconds())
	fmt.Printf("resident: %.1f MiB after a fifth of the time, %.1f MiB at most, %.1f MiB at the end; descriptors: %d, %d, %d\n", float64(early.rss)/1024, float64(most.rss)/1024, float64(last.rss)/1024, early.files, most.files, last.files)
	fmt.Printf("failed: %v\n", failed)
	if last.rss > early.rss*3/2+8<<10 {
		t.Errorf("resident memory grew from %d to %d KiB", early.rss, last.rss)
	}
	if last.files > 120 {
		t.Errorf("%d descriptors are open", last.files)
	}
	for code, n := range failed {
		if code != "unavailable" {
			t.Errorf("%d answers were %s", n, code)
		}
	}
	if most := 2 * time.Since(began).Seconds(); float64(calls) > most {
		t.Errorf("%d calls to the store for one secret, more than %.0f", calls, most)
	}
	p.end(syscall.SIGTERM)
}
