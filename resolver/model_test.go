package resolver

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// TestModel plays random histories against a model that knows of each secret what its store held when. A resolver may
// answer with what the store holds, or with what it held less than ttl ago, or less than ttl and max_stale ago if the
// store is unavailable or the answer is marked stale; never with what was forgotten, denied or written over through us.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var failed any // rapid ends a history by a panic, and shrinks it outside of the bubble
		synctest.Test(t, func(*testing.T) {
			defer func() { failed = recover() }()
			playModel(rt)
		})
		if failed != nil {
			panic(failed)
		}
	})
}

func playModel(t *rapid.T) {
	const (
		ttl      = time.Minute
		maxStale = 5 * time.Minute
		negative = 5 * time.Second
		latency  = 20 * time.Millisecond
	)
	type version struct {
		text  string
		since time.Time // when the store began to hold it
		until time.Time // when it ceased; zero: it has not
	}
	held := map[string]version{}   // what the store holds; an empty text: nothing
	past := map[string][]version{} // what it held
	floor := map[string]time.Time{}
	var fail backend.Code
	failed := map[backend.Code]time.Time{} // when it last ceased to fail so
	writes := 0
	ids := []string{"a", "b", "c"}
	store := &flaky{get: func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
		code, v := fail, held[req.ID]
		if err := pause(ctx, latency); err != nil {
			return nil, err
		}
		switch {
		case code != "":
			return nil, backend.Errorf(code, "as told")
		case v.text == "":
			return nil, backend.Errorf(backend.CodeNotFound, "no such secret")
		}
		return plain(v.text), nil
	}}
	entries := rapid.SampledFrom([]int{1, 2, 100}).Draw(t, "entries")
	r, err := New(Config{
		Providers: map[string]Provider{"p": {
			Backend: store, TTL: ttl, MaxStale: maxStale, NegativeTTL: negative, Retries: -1, Breaker: Breaker{Failures: -1},
		}},
		Cache: CacheLimits{Entries: entries},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	handles := map[string]*Handle{}

	check := func(id string, v *Value, err error) {
		now := time.Now()
		cur := held[id]
		if err != nil {
			switch code := backend.CodeOf(err); {
			case code == backend.CodeNotFound:
				if cur.text == "" {
					return
				}
				if now.Sub(cur.since) <= negative+latency && !floor[id].After(cur.since.Add(-1)) {
					return // remembered from before it was there
				}
			case code == fail, fail != "" && code == backend.CodeAuthRequired:
				return
			case now.Sub(failed[code]) <= 2*latency:
				return // of a fetch that was under way: what a handle holds is fetched again once it is forgotten
			case code == backend.CodeAuthRequired, code == backend.CodeUnavailable && backend.RetryAfter(err) > 0:
				return // the pause after a refused login
			}
			t.Fatalf("%s: the store holds %+v (failing: %q), got %v", id, cur, fail, err)
		}
		got := string(v.Secret().Reveal())
		if got == cur.text {
			return
		}
		for _, old := range past[id] {
			if old.text != got {
				continue
			}
			age := now.Sub(old.until)
			if old.until.Before(floor[id]) || old.until.Equal(floor[id]) {
				t.Fatalf("%s: got %q, which was forgotten %v ago", id, got, now.Sub(floor[id]))
			}
			if most := ttl + latency; age > most && (!v.Stale() || age > most+maxStale) {
				t.Fatalf("%s: got %q (stale: %v), which the store ceased to hold %v ago", id, got, v.Stale(), age)
			}
			return
		}
		t.Fatalf("%s: got %q, which the store never held", id, got)
	}
	write := func(id, text string) {
		if cur := held[id]; cur.text != "" {
			cur.until = time.Now()
			past[id] = append(past[id], cur)
		}
		held[id] = version{text: text, since: time.Now()}
	}
	drawID := func(t *rapid.T) string { return rapid.SampledFrom(ids).Draw(t, "id") }

	t.Repeat(map[string]func(*rapid.T){
		"resolve": func(t *rapid.T) {
			id := drawID(t)
			v, err := r.Resolve(context.Background(), ref(id))
			check(id, v, err)
		},
		"resolve again": func(t *rapid.T) {
			id := drawID(t)
			for range 2 {
				v, err := r.Resolve(context.Background(), ref(id))
				check(id, v, err)
			}
		},
		"resolve all": func(*rapid.T) {
			for _, out := range r.ResolveAll(context.Background(), []credref.Ref{ref("a"), ref("c"), ref("a"), ref("b")}) {
				check(out.Ref.ID, out.Value, out.Err)
			}
		},
		"demand none that is cached": func(t *rapid.T) {
			id := drawID(t)
			out := r.ResolveWith(context.Background(), []credref.Ref{ref(id)}, Demand{NoCache: true})[0]
			check(id, out.Value, out.Err)
			if out.Err != nil {
				return
			}
			got := string(out.Value.Secret().Reveal())
			for _, old := range past[id] {
				if age := time.Since(old.until); old.text == got && age > demandEvery+2*latency {
					t.Fatalf("%s: got %q, which the store ceased to hold %v ago", id, got, age)
				}
			}
		},
		"demand none that is stale": func(t *rapid.T) {
			id := drawID(t)
			most := time.Duration(rapid.Int64Range(0, int64(maxStale)).Draw(t, "max stale"))
			out := r.ResolveWith(context.Background(), []credref.Ref{ref(id)}, Demand{MaxStale: &most})[0]
			check(id, out.Value, out.Err)
			if out.Err == nil && time.Since(out.Value.Fetched()) > ttl+most {
				t.Fatalf("%s: got what was fetched %v ago, want at most %v past its time", id, time.Since(out.Value.Fetched()), most)
			}
		},
		"invalidate": func(t *rapid.T) {
			id := drawID(t)
			r.Invalidate("p", id)
			floor[id] = time.Now()
			time.Sleep(time.Millisecond) // as below
		},
		"handle": func(t *rapid.T) {
			id := drawID(t)
			if handles[id] == nil {
				handles[id] = r.Handle(ref(id))
			}
			v, err := handles[id].Get(context.Background())
			check(id, v, err)
		},
		"close handle": func(t *rapid.T) {
			id := drawID(t)
			if h := handles[id]; h != nil {
				h.Close()
				delete(handles, id)
			}
		},
		"rotate at the store": func(t *rapid.T) {
			writes++
			write(drawID(t), fmt.Sprint("v", writes))
		},
		"delete at the store": func(t *rapid.T) { write(drawID(t), "") },
		"write through us": func(t *rapid.T) {
			id := drawID(t)
			writes++
			write(id, fmt.Sprint("v", writes))
			r.Wrote(ref(id))
			floor[id] = time.Now()
			time.Sleep(time.Millisecond) // what a handle holds is read again in this very moment; the next write comes after it
		},
		"forget": func(t *rapid.T) {
			id := drawID(t)
			r.Forget(ref(id))
			floor[id] = time.Now()
			time.Sleep(time.Millisecond) // as above
		},
		"report": func(t *rapid.T) {
			id := drawID(t)
			v, err := r.Resolve(context.Background(), ref(id))
			check(id, v, err)
			if err == nil {
				v, err = r.Report(context.Background(), ref(id), v.Revision())
				check(id, v, err)
			}
		},
		"fail": func(t *rapid.T) {
			failed[fail] = time.Now()
			fail = rapid.SampledFrom([]backend.Code{backend.CodeUnavailable, backend.CodeDenied, backend.CodeAuthRequired}).Draw(t, "code")
		},
		"heal": func(*rapid.T) {
			failed[fail] = time.Now()
			fail = ""
		},
		"wait": func(t *rapid.T) {
			time.Sleep(time.Duration(rapid.Int64Range(0, int64(2*time.Minute)).Draw(t, "for")))
		},
		"wait a little": func(t *rapid.T) {
			time.Sleep(time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "for")))
		},
		"": func(t *rapid.T) {
			synctest.Wait()
			s := r.Stats()
			if s.Entries > entries {
				t.Fatalf("%d entries, more than %d", s.Entries, entries)
			}
			if s.OpenHandles != len(handles) {
				t.Fatalf("%d handles open, want %d", s.OpenHandles, len(handles))
			}
		},
	})
	for _, h := range handles {
		h.Close()
	}
}
