package cache

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/credresolve/credresolve/credref"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type testCache = Cache[string, string, string]

func at(name string) credref.Ref { return credref.Ref{Provider: "p", ID: name} }

func get(c *testCache, name string, now int64) *string {
	r := at(name)
	return c.Get(&r, now)
}

func put(t testing.TB, c *testCache, key string, until, cost int64) *Entry[string, string] {
	t.Helper()
	e := NewEntry[string, string](key, until)
	if !c.Put(key, e, cost) {
		t.Fatalf("%s was not taken", key)
	}
	c.Show(e, c.Slot(at(key)), &key, 0)
	return e
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	c := New[string, string, string](Limits{}, nil)
	e := put(t, c, "a", 100, 1)
	if get(c, "a", 99) == nil || get(c, "a", 100) != nil {
		t.Error("the deadline is not 100")
	}
	e.SetUntil(200)
	if get(c, "a", 199) == nil || !e.Live(199) || e.Live(200) {
		t.Error("the deadline did not move")
	}
	c.Remove("a")
	e.SetUntil(300)
	if get(c, "a", 0) != nil || e.Live(0) {
		t.Error("an entry that left came back")
	}
	if c.Show(e, c.Slot(at("a")), new("x"), 0) || get(c, "a", 0) != nil {
		t.Error("an entry that left is shown")
	}
}

func TestEndingEndsEverySlot(t *testing.T) {
	t.Parallel()
	var left []string
	c := New[string, string, string](Limits{Entries: 10}, func(k string, _ *Entry[string, string], _ bool) { left = append(left, k) })
	e := put(t, c, "k", 100, 1)
	var loose Slot[string]
	c.Show(e, &loose, new("x"), 5)
	c.Show(e, c.Slot(at("k/f")), new("y"), 5)
	if size := c.Size(); size.Bytes != 11 || size.Entries != 1 {
		t.Errorf("%+v", size)
	}
	successor := NewEntry[string, string]("k2", 100)
	c.Put("k", successor, 1)
	for name, got := range map[string]*string{"k": get(c, "k", 0), "k/f": get(c, "k/f", 0), "loose": loose.Get(0)} {
		if got != nil {
			t.Errorf("%s shows %q of the predecessor", name, *got)
		}
	}
	c.Show(successor, &loose, new("new"), 0)
	if got := loose.Get(0); got == nil || *got != "new" {
		t.Error("a slot does not show the successor")
	}
	c.RemoveIf(func(k string, _ *Entry[string, string]) bool { return k == "k" })
	if loose.Get(0) != nil || len(left) != 2 || c.Size().Bytes != 0 {
		t.Errorf("left: %v, %+v", left, c.Size())
	}
}

func TestRemoveIfKeepsTheOrder(t *testing.T) {
	t.Parallel()
	c := New[string, string, string](Limits{Entries: 4}, nil)
	for _, k := range []string{"a", "b", "c", "d"} {
		put(t, c, k, 100, 1)
	}
	c.RemoveIf(func(k string, _ *Entry[string, string]) bool { return k == "b" })
	if got := c.lru.Keys(); !slices.Equal(got, []string{"a", "c", "d"}) {
		t.Errorf("from the oldest: %v", got)
	}
}

func TestEviction(t *testing.T) {
	t.Parallel()
	c := New[string, string, string](Limits{Entries: 3, Bytes: 100}, nil)
	for _, k := range []string{"a", "b", "c"} {
		put(t, c, k, 100, 1)
	}
	get(c, "a", 0) // a hit does not move it, but is remembered
	put(t, c, "d", 100, 1)
	if get(c, "a", 0) == nil || get(c, "b", 0) != nil {
		t.Error("what was not asked for for longest did not go first")
	}
	put(t, c, "big", 100, 99)
	if size := c.Size(); size.Bytes > 100 || get(c, "big", 0) == nil {
		t.Errorf("%+v", size)
	}
	if c.Put("huge", NewEntry[string, string]("huge", 100), 101) {
		t.Error("more than the limit was taken")
	}
	if get(c, "big", 0) == nil {
		t.Error("what is too big drove others out")
	}
	c.Resize(Limits{Entries: 1})
	if size := c.Size(); size.Entries != 1 {
		t.Errorf("%+v", size)
	}
}

// Refs that were asked for once must not fill the front for good.
func TestFrontForgetsDeadSlots(t *testing.T) {
	t.Parallel()
	c := New[string, string, string](Limits{Entries: 10}, nil)
	for i := range 100_000 {
		put(t, c, fmt.Sprint(i), 100, 1)
	}
	if n := len(c.front.Load().cells); n > 2*minCells {
		t.Errorf("%d cells for 10 entries", n)
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	c := New[string, string, string](Limits{Entries: 50}, nil)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 3000 {
				k := fmt.Sprint((i*7 + g) % 100)
				switch got := get(c, k, int64(i)); {
				case got == nil:
					e := NewEntry[string, string](k, int64(i+500))
					c.Put(k, e, 1)
					c.Show(e, c.Slot(at(k)), &k, 1)
				case *got != k:
					t.Errorf("%s shows %s", k, *got)
				case i%50 == 0:
					c.Remove(k)
				}
			}
		})
	}
	wg.Wait()
	if size := c.Size(); size.Entries > 50 {
		t.Errorf("%+v", size)
	}
}

// TestModel compares a cache with a plain map of what it must at most and, without eviction, exactly hold.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{Entries: rapid.IntRange(1, 20).Draw(t, "entries"), Bytes: rapid.Int64Range(0, 200).Draw(t, "bytes")}
		left := map[*Entry[string, string]]bool{}
		c := New[string, string, string](limits, func(_ string, e *Entry[string, string], _ bool) { left[e] = true })
		type held struct {
			e     *Entry[string, string]
			until int64
			text  string
		}
		model := map[string]held{}
		now := int64(0)
		key := func(t *rapid.T) string { return fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "key")) }
		n := 0
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k, cost := key(t), rapid.Int64Range(0, 60).Draw(t, "cost")
				n++
				h := held{text: fmt.Sprint(n), until: now + rapid.Int64Range(-5, 50).Draw(t, "life")}
				h.e = NewEntry[string, string](h.text, h.until)
				delete(model, k)
				if c.Put(k, h.e, cost) {
					model[k] = h
				}
			},
			"show": func(t *rapid.T) {
				k := key(t)
				if h, ok := model[k]; ok {
					c.Show(h.e, c.Slot(at(k)), &h.text, 3)
				}
			},
			"get": func(t *rapid.T) {
				k := key(t)
				got, h := get(c, k, now), model[k]
				if got != nil && (h.e == nil || *got != h.text || now >= h.until || left[h.e]) {
					t.Fatalf("%s: got %q, want %+v", k, *got, h)
				}
			},
			"remove": func(t *rapid.T) { k := key(t); c.Remove(k); delete(model, k) },
			"wait":   func(t *rapid.T) { now += rapid.Int64Range(0, 20).Draw(t, "for") },
			"": func(t *rapid.T) {
				size := c.Size()
				if size.Entries > limits.Entries || limits.Bytes > 0 && size.Bytes > limits.Bytes {
					t.Fatalf("%+v is above %+v", size, limits)
				}
				here := 0
				for k, h := range model {
					if left[h.e] {
						delete(model, k)
						continue
					}
					here++
					if c.Peek(k) != h.e {
						t.Fatalf("%s is lost", k)
					}
				}
				if here != size.Entries {
					t.Fatalf("%d entries, want %d", size.Entries, here)
				}
			},
		})
	})
}

func TestShowKeepsItsEntry(t *testing.T) {
	c := New[string, int, string](Limits{Entries: 10, Bytes: 100}, nil)
	a, b, d := NewEntry[int, string](1, 10), NewEntry[int, string](2, 10), NewEntry[int, string](3, 10)
	c.Put("a", a, 30)
	c.Put("b", b, 30)
	c.Put("d", d, 30)
	a.MarkUsed()
	b.MarkUsed()
	d.MarkUsed()
	v := "x"
	if !c.Show(b, c.Slot(credref.Ref{Provider: "p", ID: "b"}), &v, 70) {
		t.Error("the entry that was asked for left, and not the others")
	}
	if s := c.Size(); s.Entries != 1 || s.Bytes != 100 {
		t.Errorf("%+v", s)
	}
}

// One id in each of many providers whose names are alike must not make a lookup a search.
func TestProvidersAreToldApart(t *testing.T) {
	f := newFront[string](nil, 1000)
	for i := range 1000 {
		f.add(&Slot[string]{ref: credref.Ref{Provider: fmt.Sprintf("team-%04d-prod", i), ID: "db"}})
	}
	run, longest := 0, 0
	for i := range f.cells {
		if run++; f.cells[i].Load() == nil {
			run = 0
		}
		longest = max(longest, run)
	}
	if longest > 40 {
		t.Errorf("%d cells in a row", longest)
	}
}
