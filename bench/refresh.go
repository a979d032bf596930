package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

const (
	living   = 100_000          // credentials that are kept fresh
	untilDue = 12 * time.Second // from the first fetch to the refresh
)

func refreshWorks() []work {
	return []work{
		{"100,000 credentials: memory of each", 2.5, measureLivingMemory},
		{"100,000 credentials come due: processor time", 2, measureRefresh},
	}
}

// tokens is a server whose first token of each id is to be refreshed at that time, and the next much later.
type tokens struct {
	due   time.Time
	calls atomic.Int64
}

func (s *tokens) Get(_ context.Context, req backend.Request) (*backend.Credential, error) {
	n := s.calls.Add(1)
	c := &backend.Credential{
		Type: backend.TypeOAuth2, Secret: backend.NewSecretString(fmt.Sprint("a-token-of-", req.ID, "-", n)),
		RefreshAfter: s.due, Expires: s.due.Add(time.Hour),
	}
	if n > living {
		c.RefreshAfter = s.due.Add(30 * time.Minute)
	}
	return c, nil
}

// keeper is the simplest that keeps credentials fresh: a map, and a timer for each.
type keeper struct {
	s    *tokens
	mu   sync.RWMutex
	have map[credref.Ref]*kept
}

type kept struct {
	c     *backend.Credential
	timer *time.Timer
}

func newKeeper(s *tokens, refs []credref.Ref) *keeper {
	k := &keeper{s: s, have: map[credref.Ref]*kept{}}
	for _, ref := range refs {
		k.fetch(ref)
	}
	return k
}

func (k *keeper) fetch(ref credref.Ref) {
	c, _ := k.s.Get(context.Background(), backend.Request{ID: ref.ID})
	one := &kept{c: c}
	one.timer = time.AfterFunc(time.Until(c.RefreshAfter), func() { k.fetch(ref) })
	k.mu.Lock()
	k.have[ref] = one
	k.mu.Unlock()
}

func (k *keeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, one := range k.have {
		one.timer.Stop()
	}
}

// livingResolver gives a Resolver that keeps refs, all of them used.
func livingResolver(s *tokens, refs []credref.Ref) (*resolver.Resolver, error) {
	r, err := resolver.New(resolver.Config{
		Providers: map[string]resolver.Provider{"app": {Backend: s, TTL: time.Hour}},
		Cache:     resolver.CacheLimits{Entries: 2 * living, Bytes: 1 << 30},
	})
	if err != nil {
		return nil, err
	}
	for range 2 { // the second use is what marks them
		for _, out := range r.ResolveAll(context.Background(), refs) {
			if out.Err != nil {
				return nil, out.Err
			}
		}
	}
	return r, nil
}

func heap() float64 {
	for range 2 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

func measureLivingMemory(*meter) (result, error) {
	refs := makeRefs(living)
	far := time.Now().Add(time.Hour)
	before := heap()
	k := newKeeper(&tokens{due: far}, refs)
	plain := (heap() - before) / living
	k.close()
	k = nil
	before = heap()
	r, err := livingResolver(&tokens{due: far}, refs)
	if err != nil {
		return result{}, err
	}
	ours := (heap() - before) / living
	runtime.KeepAlive(refs)
	err = r.Close()
	return result{ours: ours, baseline: plain, ratio: ours / plain, format: func(b float64) string { return fmt.Sprintf("%.0f B", b) },
		against: "a map, and a timer for each"}, err
}

// cpu is the processor time of this process.
func cpu() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano() + u.Stime.Nano())
}

// cycle gives the processor time from before s's credentials come due until all have successors.
func (s *tokens) cycle() (float64, error) {
	if time.Until(s.due) < time.Second {
		return 0, errors.New("they came due before all were there: the machine is too busy")
	}
	time.Sleep(time.Until(s.due) - time.Second)
	began := cpu()
	for deadline := time.Now().Add(time.Minute); s.calls.Load() < 2*living; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("%d were refreshed of %d", s.calls.Load()-living, living)
		}
	}
	return cpu() - began, nil
}

func measureRefresh(*meter) (result, error) {
	refs := makeRefs(living)
	s := &tokens{due: time.Now().Add(untilDue)}
	k := newKeeper(s, refs)
	plain, err := s.cycle()
	k.close()
	if err != nil {
		return result{}, err
	}
	s = &tokens{due: time.Now().Add(untilDue)}
	r, err := livingResolver(s, refs)
	if err != nil {
		return result{}, err
	}
	ours, err := s.cycle()
	if closing := r.Close(); err == nil {
		err = closing
	}
	return result{ours: ours, baseline: plain, ratio: ours / plain, format: duration, against: "a map, and a timer for each"}, err
}
