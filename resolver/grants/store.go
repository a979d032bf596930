package grants

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"maps"
	"sync"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/statedir"
)

// Config are the settings of a Store.
type Config struct {
	// Open opens the token store, a backend.Writer. It is called at first use, and again at the next where it failed. The Store
	// closes what it gave.
	Open func() (backend.Backend, error)
	// Prefix stands before the ids in the token store. Empty: credresolve.
	Prefix string
	// StateDir is a directory of this user for locks and for the index of logins, in which nothing is secret. Empty: there is no
	// index, and grants are refreshed only in a Writer of backend.StrengthStore, since nothing else keeps processes apart.
	StateDir string
	// ManyHosts is set where hosts share the token store, which must then be a Writer of backend.StrengthStore.
	ManyHosts bool
	// OnDemand makes a Get without a login begin one, by device code where the server has it, and tell of it in Error.Login. It is
	// for processes that stay.
	OnDemand bool
	// Changed is told that the grant that is kept has become another in this process, by other than a Get that gives it: a login,
	// a logout, Refresh, Revoke. It must not block. Nil: nobody is.
	Changed func(provider string, req backend.Request)
	// Remedy is what to do where the token store does not work. Empty: what the store itself says.
	Remedy string
}

// Store keeps grants in a Writer, one for each provider, id and subject. It is safe for concurrent use, with other processes
// too.
type Store struct {
	c     Config
	owner string // names this process in records

	opening sync.Mutex
	writer  backend.Writer // guarded by opening
	gone    bool           // it was closed; guarded by opening

	mu      sync.Mutex
	users   int // Backends that are not closed
	locks   map[string]*localLock
	flights map[string]*flight
	unsaved map[string]*unsaved
	refused map[string]string    // by id, the generation whose credential was refused where it was used
	leases  map[string]leaseSeen // of other hosts
}

// NewStore gives a Store. It does no I/O.
func NewStore(c Config) *Store {
	if c.Prefix == "" {
		c.Prefix = "credresolve"
	}
	return &Store{
		c: c, owner: rand.Text(), locks: map[string]*localLock{}, flights: map[string]*flight{}, unsaved: map[string]*unsaved{},
		refused: map[string]string{}, leases: map[string]leaseSeen{},
	}
}

// open gives the token store.
func (s *Store) open() (backend.Writer, error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.writer != nil {
		return s.writer, nil
	}
	if s.gone {
		return nil, errClosed
	}
	b, err := s.c.Open()
	if err != nil {
		return nil, s.fromStore("open", err)
	}
	if err := Suits(b, s.c.ManyHosts); err != nil {
		if c, ok := b.(io.Closer); ok {
			_ = c.Close()
		}
		return nil, err
	}
	s.writer, _ = b.(backend.Writer)
	return s.writer, nil
}

// Suits reports whether b can be a token store, of one host or of many. It does no I/O.
func Suits(b backend.Backend, manyHosts bool) error {
	w, err := backend.AsWriter(b)
	if err != nil {
		return &backend.Error{Code: backend.CodeInvalidConfig, Reason: "the token store can only be read, and logins have to be kept in it",
			Remedy: "set logins.store to a provider that can be written to, such as one of kind keychain or vault"}
	}
	if backend.Describe(b).Login {
		return &backend.Error{Code: backend.CodeInvalidConfig, Reason: "the token store itself needs a login",
			Remedy: "set logins.store to a provider where nobody has to log in"}
	}
	if manyHosts && w.Strength() != backend.StrengthStore {
		return &backend.Error{Code: backend.CodeInvalidConfig,
			Reason: "logins.many_hosts needs a token store that compares and swaps by itself; this one has the strength " + string(w.Strength()),
			Remedy: "set logins.store to a provider such as Vault's kv version 2, or leave many_hosts out"}
	}
	return nil
}

// load reads the record of k; ErrNotFound when nobody has logged in.
func (s *Store) load(ctx context.Context, k key) (*record, error) {
	text, version, err := s.read(ctx, k)
	if err != nil {
		return nil, err
	}
	var r *record
	_ = text.Use(func(b []byte) error { r, err = decode(k, b); return nil })
	if err != nil {
		return nil, err
	}
	r.version = version
	return r, nil
}

// read gives what stands in the place of k's record, and its version.
func (s *Store) read(ctx context.Context, k key) (text backend.Secret, version string, err error) {
	defer calm(&err)
	w, err := s.open()
	if err != nil {
		return backend.Secret{}, "", err
	}
	c, err := w.Get(ctx, backend.Request{ID: k.id(s.c.Prefix)})
	switch {
	case errors.Is(err, backend.ErrNotFound):
		return backend.Secret{}, "", err
	case err != nil:
		return backend.Secret{}, "", s.fromStore("read", err)
	}
	if text, version = c.Secret, c.Version; version == "" {
		version = unknownVersion
	}
	if v, ok := c.Fields["value"]; ok && text.IsZero() && len(c.Fields) == 1 { // a store of fields alone, such as Vault
		text = v
	}
	return text, version, nil
}

// save writes r in the place of what has the version that r was read with; of a new record, of nothing. ErrConflict when
// another is there.
func (s *Store) save(ctx context.Context, r *record) (err error) {
	defer calm(&err)
	w, err := s.open()
	if err != nil {
		return err
	}
	text, err := r.encode()
	if err != nil {
		return backend.Errorf(backend.CodeInternal, "the login of %s cannot be written down", r.key)
	}
	defer clear(text)
	var cond backend.Condition
	if w.Strength() != backend.StrengthNone {
		cond = backend.Condition{Version: r.version, Absent: r.version == ""}
		if r.version == unknownVersion {
			cond = backend.Condition{}
		}
	}
	version, err := w.Put(ctx, backend.Request{ID: r.key.id(s.c.Prefix)}, backend.Value{Secret: backend.NewSecret(text)}, cond)
	switch {
	case errors.Is(err, backend.ErrConflict):
		return err
	case err != nil:
		return s.fromStore("write to", tooLarge(len(text), err))
	}
	if r.version = version; version == "" {
		r.version = unknownVersion
	}
	s.note(r)
	return nil
}

// unknownVersion is that of a record that is there, in a store that names no versions.
const unknownVersion = "\x00"

// remove deletes the record of k, if it is at that version.
func (s *Store) remove(ctx context.Context, k key, version string) (err error) {
	defer calm(&err)
	w, err := s.open()
	if err != nil {
		return err
	}
	cond := backend.Condition{Version: version}
	if w.Strength() == backend.StrengthNone || version == unknownVersion {
		cond = backend.Condition{}
	}
	err = w.Delete(ctx, backend.Request{ID: k.id(s.c.Prefix)}, cond)
	switch {
	case errors.Is(err, backend.ErrNotFound), errors.Is(err, backend.ErrConflict):
		return err
	case err != nil:
		return s.fromStore("delete from", err)
	}
	s.forget(k)
	return nil
}

func (s *Store) changed(k key) {
	if s.c.Changed != nil {
		s.c.Changed(k.provider, k.req)
	}
}

// shared reports whether records are leases too: other processes are kept out by nothing else.
func (s *Store) shared() bool {
	if s.c.ManyHosts {
		return true
	}
	w, err := s.open()
	return err == nil && s.c.StateDir == "" && w.Strength() == backend.StrengthStore
}

// guarded fails where nothing keeps other processes from spending a refresh token that this one spends.
func (s *Store) guarded() error {
	if s.c.StateDir == "" && !s.shared() {
		return errNoLock
	}
	return nil
}

// localLock is held by one goroutine of this process. It does not poll, as the lock between processes does.
type localLock struct {
	held chan struct{}
	uses int
}

// lock takes the lock of the grant under id, among the goroutines and processes of this host.
func (s *Store) lock(ctx context.Context, id string) (unlock func(), err error) {
	return s.lockUnless(ctx, id, func() bool { return false })
}

// lockUnless is lock that gives up when done says so: unlock is then nil.
func (s *Store) lockUnless(ctx context.Context, id string, done func() bool) (unlock func(), err error) {
	s.mu.Lock()
	l := s.locks[id]
	if l == nil {
		l = &localLock{held: make(chan struct{}, 1)}
		s.locks[id] = l
	}
	l.uses++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.uses--; l.uses == 0 {
			delete(s.locks, id)
		}
	}
	select {
	case l.held <- struct{}{}:
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
	if s.c.StateDir == "" {
		return func() { <-l.held; leave() }, nil
	}
	release, err := statedir.LockUnless(ctx, s.c.StateDir, lockName(id), done)
	if err != nil || release == nil {
		<-l.held
		leave()
		if err == nil || ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, backend.Errorf(backend.CodeUnavailable, "lock the login against other processes: %v", err)
	}
	return func() { release(); <-l.held; leave() }, nil
}

// enter counts a Backend.
func (s *Store) enter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users++
}

// leave closes the token store when the last Backend is gone.
func (s *Store) leave() error {
	s.mu.Lock()
	s.users--
	last := s.users == 0
	pending := maps.Clone(s.unsaved)
	s.mu.Unlock()
	if !last {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	for id := range pending {
		_ = s.flush(ctx, id) // the last chance
		s.giveUp(id)
	}
	s.opening.Lock()
	defer s.opening.Unlock()
	c, ok := s.writer.(io.Closer)
	s.writer, s.gone = nil, true
	if !ok {
		return nil
	}
	return c.Close()
}
