package grants

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/statedir"
)

const (
	leaseTime  = 90 * time.Second             // of a record, while an exchange is under way
	leaseRest  = 15 * time.Second             // of that, left for the write of what the exchange gave
	flightTime = 2*leaseTime + 30*time.Second // the longest for locks, exchange and writes
	saveTime   = 30 * time.Second             // for a write that must not be lost
	hostSkew   = time.Minute                  // by which clocks of hosts may differ
	maxRaces   = 8                            // writes that lost against others, in a row
	saveTries  = 3
)

// flight is one refresh under way, for all who wait.
type flight struct {
	force bool
	done  chan struct{}
	// Set when done is closed.
	rec       *record
	exchanged bool // the server was asked
	err       error
}

// refresh gives the record of k with a credential that is not due; with force, one that was made now. On failure the record is
// the one that is kept, if it could be read. The exchange goes on when ctx ends.
func (b *Backend) refresh(ctx context.Context, k key, force bool) (*record, error) {
	s, id := b.s, k.id(b.s.c.Prefix)
	for {
		s.mu.Lock()
		if b.closed {
			s.mu.Unlock()
			return nil, errClosed
		}
		f := s.flights[id]
		if f == nil {
			f = &flight{force: force, done: make(chan struct{})}
			s.flights[id] = f
			b.work.Add(1)
			go b.fly(context.WithoutCancel(ctx), k, id, f)
		}
		s.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if !force || f.force || f.exchanged {
			return f.rec, f.err
		}
	}
}

func (b *Backend) fly(ctx context.Context, k key, id string, f *flight) {
	defer b.work.Done()
	ctx, cancel := context.WithTimeout(ctx, flightTime)
	defer cancel()
	defer context.AfterFunc(b.ending, cancel)()
	f.rec, f.exchanged, f.err = b.exchange(ctx, k, id, f.force)
	b.s.mu.Lock()
	delete(b.s.flights, id)
	b.s.mu.Unlock()
	close(f.done)
}

// exchange makes the successor of what is kept of k, if that is due when nobody else is at work on it.
func (b *Backend) exchange(ctx context.Context, k key, id string, force bool) (r *record, asked bool, err error) {
	s := b.s
	if err := s.flush(ctx, id); err != nil {
		return nil, false, err
	}
	waiting, stop := context.WithCancel(ctx) // nothing is at stake before an exchange: Close ends it
	defer stop()
	defer context.AfterFunc(b.life, stop)()
	noted := s.noted(id)
	unlock, err := s.lockUnless(waiting, id, func() bool {
		// Where many processes wait, most of them need not have the lock: another has made the successor.
		if force || !noted() {
			return false
		}
		now, err := s.load(waiting, k)
		if err != nil || !now.usable(time.Now()) || now.isDue(time.Now()) || s.isRefused(id, now) || !b.bound(now) || now.State != stateActive {
			return false
		}
		r = now
		return true
	})
	if err == nil && unlock == nil {
		return r, false, nil
	}
	if err != nil {
		if b.life.Err() != nil {
			return nil, false, errClosed
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = &backend.Error{Code: backend.CodeUnavailable, Reason: "another process has been at work on the login of " + k.String() + " for minutes",
				Remedy: "see whether one hangs, or waits for the token store"}
		}
		return nil, false, err
	}
	free := func() { unlock() }
	defer func() { free() }()
	var mine *attempt
	for races := 0; races < maxRaces; {
		if r, err = s.load(ctx, k); err != nil {
			return nil, false, err
		}
		now := time.Now()
		good := r.usable(now) && !s.isRefused(id, r)
		switch {
		case !b.bound(r):
			return r, false, b.otherServer(k)
		case r.State == stateAuthRequired:
			return r, false, k.loginNeeded(r.Reason)
		case !force && good && !r.isDue(now):
			return r, false, nil
		case !b.refreshes(r):
			return r, false, errNoOwner
		}
		if err := s.guarded(); err != nil {
			return r, false, err
		}
		marker := r.clone()
		again := false
		written := r.State == stateRefreshing && mine.is(r.Attempt) // by us, and the answer to that was lost
		if r.State == stateRefreshing && !written {
			if wait := s.leased(id, r, now); wait > 0 { // by another host
				select {
				case <-time.After(wait):
					continue
				case <-waiting.Done():
					return r, false, backend.Errorf(backend.CodeUnavailable, "another host has been refreshing the login of %s for minutes", k)
				}
			}
			again, marker.Interrupted = true, r.Attempt.Began
			if r.Attempt.Again {
				// The one more exchange was interrupted too. To go on would be to ask again and again.
				marker.State, marker.Attempt = stateAuthRequired, nil
				marker.Reason = "two refreshes of the login of " + k.String() + " were interrupted, the last began at " + at(r.Attempt.Began) + "; its refresh token may be spent"
				if err := s.save(ctx, marker); errors.Is(err, backend.ErrConflict) {
					races++
					continue
				} else if err != nil {
					return r, false, err
				}
				return marker, false, k.loginNeeded(marker.Reason)
			}
		}
		if !force && !again && !written && r.paused(now, good) {
			return r, false, r.failure(now, good)
		}
		// From here on who finds the record knows that the token may be spent.
		if !written {
			mine = &attempt{Owner: s.owner, Host: s.host(), PID: os.Getpid(), Began: now.Round(0), Until: now.Add(leaseTime).Round(0), Again: again}
			marker.State, marker.Attempt = stateRefreshing, mine
			if err := s.save(ctx, marker); errors.Is(err, backend.ErrConflict) {
				races++
				continue
			} else if err != nil {
				return r, false, err
			}
		}
		g, err := b.ask(ctx, k, r, marker.Attempt.Until.Add(-leaseRest))
		next, from := marker.clone(), r.Generation
		now = time.Now()
		var failed error
		switch code := backend.CodeOf(err); {
		case err == nil:
			next.take(g, now)
			next.Sequence++
		case code == backend.CodeAuthRequired, code == backend.CodeExpired:
			next.refuse(err)
			failed = k.loginNeeded(next.Reason)
		default:
			next.fail(err, now)
			failed = err
		}
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTime)
		kept, lost := s.keep(within, next, from)
		cancel()
		if lost != nil {
			hold := free
			free = func() {} // until it is written
			s.hold(id, &unsaved{rec: next, from: from, unlock: hold, drop: func(ctx context.Context) { b.drop(ctx, next) }})
			if failed == nil {
				failed = unkept(k, lost)
			}
			return r, true, failed
		}
		if kept == nil { // logged out, or revoked, meanwhile
			b.drop(ctx, next)
			return nil, true, k.loginNeeded("the login of " + k.String() + " was ended while it was refreshed")
		}
		if kept.Generation != from { // ours, or one that came first
			if force { // else who waits gets it
				s.changed(k)
			}
			return kept, true, nil
		}
		return kept, true, failed
	}
	return r, false, errBusy
}

// ask has the adapter make the successor of r, until then.
func (b *Backend) ask(ctx context.Context, k key, r *record, until time.Time) (g *backend.Grant, err error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	defer calm(&err)
	have := r.grant()
	g, err = b.inner.(backend.Refresher).Refresh(ctx, k.req, have)
	switch {
	case err != nil:
		return nil, err
	case g == nil || g.Credential == nil || g.Credential.Secret.IsZero() && len(g.Credential.Fields) == 0:
		return nil, backend.Errorf(backend.CodeUnavailable, "the refresh gave no credential")
	}
	// What an answer leaves out stays as it was (RFC 6749, 6).
	out := *g
	if out.Refresh.IsZero() {
		out.Refresh = have.Refresh
	}
	out.About = make(map[string]string, len(have.About)+len(g.About))
	for _, about := range []map[string]string{have.About, g.About} {
		for name, v := range about {
			if v != "" {
				out.About[name] = v
			}
		}
	}
	if c := *g.Credential; c.Type == "" {
		c.Type = r.Type
		out.Credential = &c
	}
	return &out, nil
}

// refuse notes that the server wants a new login.
func (r *record) refuse(err error) {
	r.State, r.Attempt = stateAuthRequired, nil
	r.Reason = reasonOf(err)
	switch {
	case !r.Interrupted.IsZero():
		r.Reason += "; the refresh that began at " + at(r.Interrupted) + " was interrupted before its outcome could be kept, and may have spent the refresh token"
	case !r.Unanswered.IsZero():
		r.Reason += "; the refresh at " + at(r.Unanswered) + " had no answer, and may have spent the refresh token"
	}
}

// keep writes r, the successor of the generation from, and gives what is kept then: another when one came first, nil when the
// login was ended. On an error nothing is known to be kept.
func (s *Store) keep(ctx context.Context, r *record, from string) (*record, error) {
	pause := 50 * time.Millisecond
	for races, tries := 0, 0; ; {
		err := s.saveOver(ctx, r, from)
		if err == nil {
			return r, nil
		}
		if errors.Is(err, backend.ErrConflict) {
			var now *record
			if now, err = s.load(ctx, r.key); errors.Is(err, backend.ErrNotFound) {
				return nil, nil
			}
			switch {
			case err != nil:
			case !now.Revoked.IsZero():
				return nil, nil
			case now.Generation == r.Generation && now.State == r.State: // a write of ours whose answer was lost
				return now, nil
			case now.Generation != from: // a login, or a refresh of another host; it is never overwritten
				return now, nil
			case r.Generation == from && now.State == stateRefreshing && now.Attempt.Owner != s.owner:
				return now, nil // another host took over what failed here
			default:
				r.version = now.version
				if races++; races < maxRaces {
					continue
				}
				err = errBusy
			}
		}
		if tries++; tries >= saveTries {
			return nil, err
		}
		select {
		case <-time.After(pause):
			pause *= 4
		case <-ctx.Done():
			return nil, err
		}
	}
}

// saveOver is save of the successor of the generation from. Where the store does not compare, it looks first.
func (s *Store) saveOver(ctx context.Context, r *record, from string) error {
	w, err := s.open()
	if err != nil {
		return err
	}
	if w.Strength() == backend.StrengthNone {
		now, err := s.load(ctx, r.key)
		if errors.Is(err, backend.ErrNotFound) || err == nil && (now.Generation != from || !now.Revoked.IsZero()) {
			return backend.ErrConflict
		}
		if err != nil {
			return err
		}
	}
	return s.save(ctx, r)
}

// unkept is the error of a refresh whose outcome could not be written.
func unkept(k key, why error) error {
	e := &backend.Error{Code: backend.CodeUnavailable}
	var known *backend.Error
	if errors.As(why, &known) {
		*e = *known
	}
	e.Reason = "the login of " + k.String() + " was refreshed, but the new token is in this process alone until it is kept: " + reasonOf(why)
	return e
}

// drop ends at the server what is not to be kept, as far as it can.
func (b *Backend) drop(ctx context.Context, r *record) {
	g, ok := b.inner.(backend.GrantRevoker)
	if !ok || r.State != stateActive {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_ = g.RevokeGrant(ctx, r.key.req, r.grant())
}

type leaseSeen struct {
	began time.Time // of the attempt
	owner string
	at    time.Time // when it was first seen, by our clock
}

const leasePoll = 250 * time.Millisecond

// leased is how long to wait before one looks again whether its owner has done with r; zero when that is over. The caller
// holds the lock of this host, so that an owner here is dead, unless its lock was lost, with the file of it, and the process
// lives. An owner elsewhere is waited for until its lease is over: by its clock and with what clocks may differ, or because the
// lease has stood for the whole of its length by ours.
func (s *Store) leased(id string, r *record, now time.Time) time.Duration {
	a := r.Attempt
	switch here := a.Host == s.host(); {
	case now.After(a.Until.Add(hostSkew)):
		return 0
	case here && (now.After(a.Until) || a.PID == os.Getpid() || !alive(a.PID)):
		return 0
	case !here && !s.shared():
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seen, ok := s.leases[id]
	if !ok || seen.owner != a.Owner || !seen.began.Equal(a.Began) {
		seen = leaseSeen{a.Began, a.Owner, now}
		s.leases[id] = seen
	}
	if now.Sub(seen.at) > leaseTime {
		delete(s.leases, id)
		return 0
	}
	return leasePoll + rand.N(leasePoll)
}

// alive reports whether there is a process with that id here.
func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	defer p.Release()
	if runtime.GOOS == "windows" { // it would not have been found
		return true
	}
	err = p.Signal(syscall.Signal(0))
	return err == nil || errors.Is(err, syscall.EPERM)
}

// host names this host and user, by a key in the state directory; without one, this process.
func (s *Store) host() string {
	if s.c.StateDir == "" {
		return s.owner
	}
	k, err := statedir.Key(s.c.StateDir, "host")
	if err != nil {
		return s.owner
	}
	name, _ := os.Hostname() // machines that were cloned have one key
	sum := sha256.Sum256(append(k, name...))
	return hex.EncodeToString(sum[:8])
}

func (s *Store) isRefused(id string, r *record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused[id] == r.Generation
}
