// Package sealed keeps the last known good values of a sidecar on disk, encrypted, so that an outage of a store that begins
// before a restart is bridged as one that begins after it.
//
// # What is kept
//
// What resolver.Resolver.Snapshot gives: no session's credentials, no leases, nothing that was revoked, denied or is not found
// any more; of that nothing that is past its own end or older than MaxAge. What ends while the sidecar runs leaves the file at
// once: Flush returns after it has. Where a file without it cannot be written, since the disk is full or the key is not to be
// had, the file is removed.
//
// # The file
//
// It is an age file (age-encryption.org/v1) with one recipient, a passphrase that is derived from the key. So it is
// authenticated: who cannot read it cannot make one that is believed either, which would not hold for age's public keys. The
// derivation binds the purpose and the version of the format, so that no other file of that key is taken for one. The work
// factor is small, as the key is to be random: a greater one would cost each write and protect only keys that can be guessed.
//
// A file is replaced as a whole, by a rename after fsync, has mode 0600 and lies in a directory of mode 0700; plain text is
// never written. Its directory is locked against a second keeper of the same file, who would bring back what the first removed.
//
// # What it cannot do
//
// Who can write the file as its owner can put back an older one, with what was revoked since, up to MaxAge; nothing on the same
// disk could tell. The library that encrypts keeps copies in memory of up to 64 KiB that cannot be zeroed.
package sealed

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// Snapshotter is what a Resolver gives and takes.
type Snapshotter interface {
	Snapshot() []resolver.Remembered
	Restore(rem []resolver.Remembered, maxAge time.Duration) int
}

// Options are what a Keeper needs.
type Options struct {
	// Path of the file, absolute. Its directory is made with mode 0700 if it does not exist.
	Path string
	// MaxAge is how old a value may be to be kept and restored. Zero: 24 hours.
	MaxAge time.Duration
	// Key gives the secret that the file is encrypted with, at least 32 bytes and random. It is asked at each read and write,
	// so that it can be changed, and nothing of it is kept.
	Key func(context.Context) (backend.Secret, error)
	// KeyRef is where Key comes from, if from Source itself: it is not kept with the rest.
	KeyRef credref.Ref
	// Source is the resolver whose values are kept.
	Source Snapshotter
	// Warn is told why the file could not be written, or had to be removed; nil: nobody. It may be called by several goroutines.
	Warn func(error)
}

const (
	defaultMaxAge = 24 * time.Hour
	keptDelay     = 3 * time.Second  // in which further values join a write
	retryDelay    = 30 * time.Second // after a write that failed
	writeTimeout  = 10 * time.Second // for the key of a write that nobody waits for
	closeMargin   = 5 * time.Second
)

// Keeper keeps one file. It is safe for concurrent use. Close it before its Source.
type Keeper struct {
	o     Options
	limit int64 // bytes of a file
	now   func() time.Time

	kept, ended chan struct{} // each wakes the worker
	stop        context.CancelCauseFunc
	life        context.Context
	worker      sync.WaitGroup

	asked  atomic.Uint64 // writes that were asked for
	turn   chan struct{} // holds one token while the file is read or written; guards what follows
	done   uint64        // of asked, what the file on disk heeds
	loaded bool
	ours   bool // what is in the file is known: Load took it, or we wrote it
	gone   bool // Flush came before Load
	closed bool
	place  place
}

// Open gives a Keeper of o's file, without reading it: Load does, and must be called before the resolver answers anybody. Open
// removes what a writer that was killed left behind. What is wrong with path or directory is told by Load, Flush and Warn.
func Open(o Options) *Keeper {
	if o.MaxAge <= 0 {
		o.MaxAge = defaultMaxAge
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	k := &Keeper{o: o, limit: maxFile, now: time.Now, kept: make(chan struct{}, 1), ended: make(chan struct{}, 1), turn: make(chan struct{}, 1)}
	k.place = place{path: o.Path}
	_ = k.place.prepare(patient) // tried again before each use
	k.life, k.stop = context.WithCancelCause(context.Background())
	k.worker.Go(k.work)
	return k
}

// Load restores what the file holds, and gives how many secrets that were. A file that is not to be trusted or not to be read
// is left out, and warning says why; none at all is no reason to warn. It is called once.
func (k *Keeper) Load(ctx context.Context) (n int, warning error) {
	if err := k.enter(ctx); err != nil {
		return 0, err
	}
	defer k.leave()
	defer func() {
		k.loaded = true
		wake(k.kept) // for what was kept meanwhile, and what is not to stay on disk
	}()
	if k.gone {
		return 0, backend.Errorf(backend.CodeConflict, "the sealed copy %s is not used: a credential ended before it was read", k.o.Path)
	}
	rem, err := k.read(ctx)
	if err != nil {
		return 0, err
	}
	k.ours = true
	if len(rem) == 0 {
		return 0, nil
	}
	good := k.fit(rem)
	if len(good) == 0 {
		return 0, backend.Errorf(backend.CodeExpired, "the sealed copy %s is not used: all in it is older than %s, past its end, or from the future", k.o.Path, k.o.MaxAge)
	}
	return k.o.Source.Restore(good, k.o.MaxAge), nil
}

// Changed tells that something was kept or ended; it is resolver.Config.OnChange. It never waits.
func (k *Keeper) Changed(c resolver.Change) {
	if c == resolver.ChangeEnded {
		wake(k.ended)
	} else {
		wake(k.kept)
	}
}

// Flush brings the file up to date. After it has returned nil, nothing that ended before the call can be restored from it.
// Concurrent calls share a write.
func (k *Keeper) Flush(ctx context.Context) error {
	return k.save(ctx, k.asked.Add(1), flushed)
}

// Close writes a last time and ends the work behind. Where that takes longer than ctx and five seconds, the file stays as it was
// written last. A second Close does nothing.
func (k *Keeper) Close(ctx context.Context) error {
	k.stop(errStopping)
	k.worker.Wait()
	ctx, cancel := context.WithTimeout(ctx, closeMargin)
	defer cancel()
	why := kept
	if len(k.ended) > 0 {
		why = ended
	}
	err := k.save(ctx, k.asked.Add(1), why)
	if entered := k.enter(context.Background()); entered == nil {
		k.closed = true
		k.place.release()
		k.leave()
	}
	return err
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is awake
	}
}

var (
	errStopping       = errors.New("the keeper is about to be closed")
	errClosed   error = &backend.Error{Code: backend.CodeUnavailable, Reason: "the keeper of the sealed copy is closed"}
)

func (k *Keeper) enter(ctx context.Context) error {
	select {
	case k.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if k.closed {
		<-k.turn
		return errClosed
	}
	return nil
}

func (k *Keeper) leave() { <-k.turn }

// work writes what changed: at once when something ended, else after a while, so that many values take one write.
func (k *Keeper) work() {
	var due <-chan time.Time
	owed := kept // ended: something that ended is still in the file
	for {
		select {
		case <-k.life.Done():
			if owed == ended {
				wake(k.ended) // Close sees to it
			}
			return
		case <-k.kept:
			if due == nil {
				due = time.After(keptDelay)
			}
			continue
		case <-k.ended:
			owed = ended
		case <-due:
		}
		due = nil
		ctx, cancel := context.WithTimeout(k.life, writeTimeout)
		err := k.save(ctx, k.asked.Add(1), owed)
		cancel()
		switch {
		case err == nil:
			owed = kept
		case k.life.Err() == nil:
			k.o.Warn(err)
			due = time.After(retryDelay)
		}
	}
}

// Reasons for a write.
type reason int

const (
	kept    reason = iota // the file on disk may stay as it is
	ended                 // it must not
	flushed               // it must not, and somebody waits for that
)

// save writes what Source has now, unless a write that began after the one numbered mine was asked for has done so.
func (k *Keeper) save(ctx context.Context, mine uint64, why reason) error {
	if err := k.enter(ctx); err != nil {
		if errors.Is(err, errClosed) {
			return nil
		}
		return err
	}
	defer k.leave()
	if k.done >= mine {
		return nil
	}
	covers := k.asked.Load()
	if !k.loaded {
		if why != flushed {
			return nil // Load sees to it
		}
		k.gone = true // what was restored after this would not know what ended
		return k.remove()
	}
	rem := k.fit(k.o.Source.Snapshot())
	var err error
	switch {
	case len(rem) > 0:
		err = k.write(ctx, rem)
	case why != kept || k.ours:
		err = k.remove()
	default: // what Load could not use may be of use to the next process
		k.done = covers
		return nil
	}
	// Where Close cut the write off, its own is to follow.
	if err != nil && why != kept && context.Cause(ctx) != errStopping {
		if removed := k.remove(); removed != nil {
			return removed
		}
		k.o.Warn(err)
		err = nil
	}
	if err == nil {
		k.done, k.ours = covers, true
	}
	return err
}

// clockSlack is how far clocks may be set back without anything becoming a value of the future.
const clockSlack = 5 * time.Second

// fit gives what of rem may be kept or restored.
func (k *Keeper) fit(rem []resolver.Remembered) []resolver.Remembered {
	now := k.now().Round(0) // by the wall clock alone, which is what the next process will have
	out := make([]resolver.Remembered, 0, len(rem))
	key := k.o.KeyRef
	key.Field = ""
	for _, r := range rem {
		c := r.Credential
		switch {
		case c == nil, c.Lease != nil, r.Subject.Session != "", r.Digest == "":
		case r.Ref == key:
		case r.Fetched.Round(0).After(now.Add(clockSlack)), now.Sub(r.Fetched.Round(0)) >= k.o.MaxAge:
		case past(r.Expires, now), past(c.Expires, now):
		default:
			out = append(out, r)
		}
	}
	return out
}

func past(end, now time.Time) bool { return !end.IsZero() && !now.Before(end) }
