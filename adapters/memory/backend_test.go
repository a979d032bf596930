package memory_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/backend"
)

func open(t *testing.T, values map[string]string) *memory.Backend {
	t.Helper()
	b, err := memory.New(memory.Config{Values: values})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func text(t *testing.T, c *backend.Credential, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return string(c.Secret.Reveal())
}

func put(t *testing.T, b *memory.Backend, id, value string, cond backend.Condition) string {
	t.Helper()
	v, err := b.Put(t.Context(), backend.Request{ID: id}, backend.Value{Secret: backend.NewSecretString(value)}, cond)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVersions(t *testing.T) {
	t.Parallel()
	b := open(t, map[string]string{"a": "one"})
	if v := put(t, b, "a", "two", backend.Condition{Version: "1"}); v != "2" {
		t.Errorf("the second write made version %q", v)
	}
	for version, want := range map[string]string{"": "two", "1": "one", "2": "two"} {
		c, err := b.Get(t.Context(), backend.Request{ID: "a", Version: version})
		if got := text(t, c, err); got != want {
			t.Errorf("version %q is %q, want %q", version, got, want)
		}
	}
	for _, version := range []string{"0", "3", "x", "-1"} {
		if _, err := b.Get(t.Context(), backend.Request{ID: "a", Version: version}); !errors.Is(err, backend.ErrNotFound) {
			t.Errorf("version %q: %v, want ErrNotFound", version, err)
		}
	}
	if err := b.Delete(t.Context(), backend.Request{ID: "a"}, backend.Condition{}); err != nil {
		t.Fatal(err)
	}
	if v := put(t, b, "a", "three", backend.Condition{Absent: true}); v != "3" {
		t.Errorf("a version came back after the deletion: %q", v)
	}
}

func TestConditions(t *testing.T) {
	t.Parallel()
	b := open(t, map[string]string{"a": "one"})
	v := backend.Value{Secret: backend.NewSecretString("two")}
	for name, cond := range map[string]backend.Condition{"absent": {Absent: true}, "version": {Version: "7"}} {
		if _, err := b.Put(t.Context(), backend.Request{ID: "a"}, v, cond); !errors.Is(err, backend.ErrConflict) {
			t.Errorf("put if %s: %v, want ErrConflict", name, err)
		}
	}
	if err := b.Delete(t.Context(), backend.Request{ID: "a"}, backend.Condition{Version: "7"}); !errors.Is(err, backend.ErrConflict) {
		t.Errorf("delete if version: %v, want ErrConflict", err)
	}
	if err := b.Delete(t.Context(), backend.Request{ID: "b"}, backend.Condition{}); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("delete of what is not there: %v, want ErrNotFound", err)
	}
	c, err := b.Get(t.Context(), backend.Request{ID: "a"})
	if got := text(t, c, err); got != "one" {
		t.Errorf("a refused write changed the value to %q", got)
	}
}

func TestBatchKeepsOrderAndDuplicates(t *testing.T) {
	t.Parallel()
	b := open(t, map[string]string{"a": "1", "b": "2"})
	results, err := b.GetBatch(t.Context(), []backend.Request{{ID: "b"}, {ID: "nope"}, {ID: "a"}, {ID: "b"}})
	if err != nil || len(results) != 4 {
		t.Fatalf("%d results, %v", len(results), err)
	}
	for i, want := range []string{"2", "", "1", "2"} {
		if want == "" {
			if !errors.Is(results[i].Err, backend.ErrNotFound) {
				t.Errorf("result %d: %v, want ErrNotFound", i, results[i].Err)
			}
		} else if got := text(t, results[i].Credential, results[i].Err); got != want {
			t.Errorf("result %d is %q, want %q", i, got, want)
		}
	}
}

func TestFieldsOfAJSONObject(t *testing.T) {
	t.Parallel()
	b := open(t, map[string]string{"db": `{"user":"u","port":5432}`})
	c, err := b.Get(t.Context(), backend.Request{ID: "db"})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(c.Fields["user"].Reveal()); got != "u" || c.Fields["user"].IsJSON() {
		t.Errorf("user = %q", got)
	}
	if got := string(c.Fields["port"].Reveal()); got != "5432" || !c.Fields["port"].IsJSON() {
		t.Errorf("port = %q", got)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	b := open(t, map[string]string{"app/a": "1", "app/b": "2", "other": "3"})
	var ids []string
	for e, err := range b.List(t.Context(), "app/") {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
		put(t, b, "app/zz", "written while listing", backend.Condition{})
	}
	if !slices.Equal(ids, []string{"app/a", "app/b"}) {
		t.Errorf("listed %v", ids)
	}
}

func TestWatchTellsAfterTheLastChange(t *testing.T) {
	t.Parallel()
	b := open(t, map[string]string{"a": "0"})
	ctx, cancel := context.WithCancel(t.Context())
	calls := make(chan string, 100)
	done := make(chan error)
	go func() {
		done <- b.Watch(ctx, []backend.Request{{ID: "a"}}, func(r backend.Request) {
			c, err := b.Get(t.Context(), r)
			if err != nil {
				t.Error(err)
				return
			}
			calls <- string(c.Secret.Reveal())
		})
	}()
	if got := <-calls; got != "0" {
		t.Errorf("the first call saw %q", got)
	}
	for range 10 {
		put(t, b, "a", "more", backend.Condition{})
	}
	put(t, b, "a", "last", backend.Condition{})
	for got := range calls {
		if got == "last" {
			break
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch ended with %v", err)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	b := open(t, map[string]string{"a": "1"})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(t.Context(), backend.Request{ID: "a"}); !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("Get after Close: %v", err)
	}
	if err := b.Probe(t.Context()); !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("Probe after Close: %v", err)
	}
	if _, err := b.Put(t.Context(), backend.Request{ID: "a"}, backend.Value{}, backend.Condition{}); !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("Put after Close: %v", err)
	}
	if err := b.Delete(t.Context(), backend.Request{ID: "a"}, backend.Condition{}); !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("Delete after Close: %v", err)
	}
}
