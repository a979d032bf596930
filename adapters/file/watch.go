package file

import (
	"context"
	"errors"
	"hash/maphash"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/safefile"
)

var _ backend.Watcher = (*Backend)(nil)

// settling is how long more events are awaited after a first one: a file is seldom written by one.
const settling = 100 * time.Millisecond

// Watch implements backend.Watcher by the events of the directory that holds the file, so that a file which is replaced, by a
// rename or by the kubelet, is followed. It ends with ErrUnavailable where the directory is missing or goes, and where the system
// has no watch left to give.
func (b *Backend) Watch(ctx context.Context, reqs []backend.Request, changed func(backend.Request)) error {
	path, dir, err := b.locate(ctx)
	if err != nil {
		return err
	}
	at := path
	if !dir {
		at = filepath.Dir(path)
	}
	w, err := safefile.Await(ctx, func() (*fsnotify.Watcher, error) { return watchDirectory(at) }, func(w *fsnotify.Watcher) { _ = w.Close() })
	if err != nil {
		return err
	}
	defer w.Close()

	seed := maphash.MakeSeed()
	seen := make([]uint64, len(reqs))
	look := func(first bool) error {
		results, all := b.GetBatch(ctx, reqs)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for i, req := range reqs {
			r := backend.Result{Err: all}
			if all == nil {
				r = results[i]
			}
			if sum := digest(seed, r); first || sum != seen[i] {
				seen[i] = sum
				changed(req)
			}
		}
		return nil
	}
	if err := look(true); err != nil {
		return err
	}
	var due <-chan time.Time
	gone := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev, open := <-w.Events:
			if !open {
				return errNoWatch
			}
			itself := ev.Name == at
			gone = gone || itself && (ev.Has(fsnotify.Remove) || ev.Has(fsnotify.Rename))
			if due == nil && (dir || itself || b.concerns(path, ev.Name)) {
				due = time.After(settling)
			}
		case err := <-w.Errors: // events may be lost
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				gone = true
			}
			if due == nil {
				due = time.After(settling)
			}
		case <-due:
			due = nil
			if err := look(false); err != nil {
				return err
			}
			if _, now, err := b.locate(ctx); gone || err != nil || now != dir {
				return errNoWatch
			}
		}
	}
}

func watchDirectory(path string) (*fsnotify.Watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, errNoWatch
	}
	if w.Add(path) != nil {
		_ = w.Close()
		return nil, errNoWatch
	}
	return w, nil
}

// concerns reports whether an event of name may tell of a change of the file at path: a busy directory has many others.
func (b *Backend) concerns(path, name string) bool {
	base := filepath.Base(name)
	return base == filepath.Base(path) || b.config.Layout == layoutKubernetes && base == "..data"
}

// digest tells results apart, for one watch alone.
func digest(seed maphash.Seed, r backend.Result) (sum uint64) {
	if r.Err != nil {
		return maphash.String(seed, string(backend.CodeOf(r.Err)))
	}
	_ = r.Credential.Secret.Use(func(text []byte) error {
		sum = maphash.Bytes(seed, text)
		return nil
	})
	if r.Credential.Secret.IsJSON() {
		sum = ^sum
	}
	return sum
}
