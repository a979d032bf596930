package memory

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
)

var (
	_ backend.BatchGetter = (*Backend)(nil)
	_ backend.Prober      = (*Backend)(nil)
	_ backend.Checker     = (*Backend)(nil)
	_ backend.Writer      = (*Backend)(nil)
	_ backend.Lister      = (*Backend)(nil)
	_ backend.Watcher     = (*Backend)(nil)
	_ backend.Describer   = (*Backend)(nil)
)

// Backend is a store in memory. It is safe for concurrent use.
type Backend struct {
	mu      sync.Mutex
	secrets map[string][]version // by id, the oldest first
	deleted map[string]int       // by id, how many versions it had when it was deleted
	changed chan struct{}        // closed, and made anew, at each write
	closed  bool
}

type version struct {
	value    backend.Value
	modified time.Time
}

// New gives a store that holds the values of c.
func New(c Config) (*Backend, error) {
	b := &Backend{
		secrets: make(map[string][]version, len(c.Values)),
		deleted: make(map[string]int),
		changed: make(chan struct{}),
	}
	for id, text := range c.Values {
		b.secrets[id] = []version{{value: backend.Value{Secret: backend.NewSecretString(text)}, modified: time.Now()}}
	}
	return b, nil
}

// Describe implements backend.Describer.
func (b *Backend) Describe() backend.Description {
	return backend.Description{Detail: "in memory", Versions: true, Fields: true}
}

// Get implements backend.Backend.
func (b *Backend) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.get(req)
}

// GetBatch implements backend.BatchGetter.
func (b *Backend) GetBatch(ctx context.Context, reqs []backend.Request) ([]backend.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	results := make([]backend.Result, len(reqs))
	for i, req := range reqs {
		c, err := b.get(req)
		results[i] = backend.Result{Credential: c, Err: err}
	}
	return results, nil
}

func (b *Backend) get(req backend.Request) (*backend.Credential, error) {
	v, name, err := b.find(req)
	if err != nil {
		return nil, err
	}
	c := &backend.Credential{Secret: v.value.Secret, Fields: v.value.Fields, Version: name}
	if c.Fields == nil {
		_ = c.Secret.Use(func(text []byte) error {
			c.Fields, _ = backend.FieldsFromJSON(text)
			return nil
		})
	}
	return c, nil
}

func (b *Backend) find(req backend.Request) (version, string, error) {
	if b.closed {
		return version{}, "", errClosed
	}
	versions := b.secrets[req.ID]
	if len(versions) == 0 {
		return version{}, "", errNoSecret
	}
	first := b.deleted[req.ID] + 1
	n := first + len(versions) - 1
	if req.Version != "" {
		var err error
		if n, err = strconv.Atoi(req.Version); err != nil || n < first || n-first >= len(versions) {
			return version{}, "", errNoVersion
		}
	}
	return versions[n-first], strconv.Itoa(n), nil
}

// Probe implements backend.Prober.
func (b *Backend) Probe(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errClosed
	}
	return ctx.Err()
}

// CurrentVersion implements backend.Checker.
func (b *Backend) CurrentVersion(ctx context.Context, req backend.Request) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	_, name, err := b.find(req)
	return name, err
}

// Strength implements backend.Writer.
func (b *Backend) Strength() backend.Strength { return backend.StrengthStore }

// Put implements backend.Writer.
func (b *Backend) Put(ctx context.Context, req backend.Request, v backend.Value, cond backend.Condition) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.holds(req, cond); err != nil {
		return "", err
	}
	v.Fields = maps.Clone(v.Fields)
	b.secrets[req.ID] = append(b.secrets[req.ID], version{value: v, modified: time.Now()})
	b.tellWatchers()
	return strconv.Itoa(b.deleted[req.ID] + len(b.secrets[req.ID])), nil
}

// Delete implements backend.Writer.
func (b *Backend) Delete(ctx context.Context, req backend.Request, cond backend.Condition) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed && len(b.secrets[req.ID]) == 0 {
		return errNoSecret
	}
	if err := b.holds(req, cond); err != nil {
		return err
	}
	b.deleted[req.ID] += len(b.secrets[req.ID])
	delete(b.secrets, req.ID)
	b.tellWatchers()
	return nil
}

func (b *Backend) holds(req backend.Request, cond backend.Condition) error {
	_, current, err := b.find(backend.Request{ID: req.ID})
	switch {
	case b.closed:
		return errClosed
	case req.Version != "":
		return errPinned
	case cond.Absent && err == nil:
		return errExists
	case cond.Version != "" && cond.Version != current:
		return errChanged
	}
	return nil
}

// List implements backend.Lister.
func (b *Backend) List(ctx context.Context, prefix string) iter.Seq2[backend.Entry, error] {
	return func(yield func(backend.Entry, error) bool) {
		b.mu.Lock()
		ids, closed := slices.Sorted(maps.Keys(b.secrets)), b.closed
		b.mu.Unlock()
		if closed {
			yield(backend.Entry{}, errClosed)
			return
		}
		for _, id := range ids {
			if !strings.HasPrefix(id, prefix) {
				continue
			}
			if err := ctx.Err(); err != nil {
				yield(backend.Entry{}, err)
				return
			}
			b.mu.Lock()
			v, name, err := b.find(backend.Request{ID: id})
			b.mu.Unlock()
			switch {
			case err == errNoSecret: // deleted since
				continue
			case err != nil:
				yield(backend.Entry{}, err)
				return
			}
			if !yield(backend.Entry{ID: id, Version: name, Modified: v.modified}, nil) {
				return
			}
		}
	}
}

// Watch implements backend.Watcher.
func (b *Backend) Watch(ctx context.Context, reqs []backend.Request, changed func(backend.Request)) error {
	for _, req := range reqs {
		if req.Version != "" {
			return errPinned
		}
	}
	seen := make([]string, len(reqs))
	for first := true; ; first = false {
		b.mu.Lock()
		wait := b.changed
		current := make([]string, len(reqs))
		for i, req := range reqs {
			_, current[i], _ = b.find(req)
		}
		closed := b.closed
		b.mu.Unlock()
		if closed {
			return errClosed
		}
		for i, req := range reqs {
			if first || current[i] != seen[i] {
				changed(req)
			}
		}
		seen = current
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wait:
		}
	}
}

func (b *Backend) tellWatchers() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// Close forgets every secret. What comes after it fails; a second Close does nothing.
func (b *Backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		b.secrets = nil
		b.tellWatchers()
	}
	return nil
}
