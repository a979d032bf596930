package keychain

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"iter"
	"runtime"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/sessionbus"
	"github.com/credresolve/credresolve/internal/statedir"
)

var (
	_ backend.Backend   = (*Backend)(nil)
	_ backend.Prober    = (*Backend)(nil)
	_ backend.Writer    = (*Backend)(nil)
	_ backend.Lister    = (*Backend)(nil)
	_ backend.Describer = (*Backend)(nil)
)

// This initialisation comes after that of the keyring library, which this package imports, and before main.
var _ = func() struct{} { sessionbus.Restore(); return struct{}{} }()

// Backend is a keychain. It is safe for concurrent use.
type Backend struct {
	config     Config
	stateDir   string
	candidates []store // what the configuration allows here, in the order in which they are tried

	choosing chan struct{} // capacity 1: held while the store is chosen
	mu       sync.Mutex    // guards what follows
	chosen   store
	why      string
	// passedOver says of each store that comes before the chosen one why it does not work.
	passedOver []string
	key        []byte // of the digests that are the versions; nil until it is needed
	closed     bool
}

// store is one of the ways to keep secrets. Its methods return soon after ctx is done, with ctx's error or one of package
// backend, and are safe for concurrent use.
type store interface {
	name() string
	// works tells whether this machine has such a store, locked or not, in words that follow the name. It asks nobody.
	works(ctx context.Context) (why string, err error)
	// get gives the bytes under id, which the caller owns and zeroes.
	get(ctx context.Context, id string) ([]byte, error)
	// put stores value, which it may keep only while it runs, or refuses it; it alters nothing of it.
	put(ctx context.Context, id string, value []byte) error
	// remove gives errNoItem when there is nothing under id.
	remove(ctx context.Context, id string) error
	list(ctx context.Context, prefix string) ([]backend.Entry, error)
	// probe fails as get would, and reads no secret.
	probe(ctx context.Context) error
	describe() backend.Description
	close()
}

// New gives a keychain. It touches no store: which one is used is decided at first use where c leaves it open.
func New(c Config, host backend.Host) (*Backend, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	b := &Backend{config: c, stateDir: host.StateDir, choosing: make(chan struct{}, 1)}
	tried := []string{c.Backend}
	if c.Backend == auto {
		tried = order(runtime.GOOS)
	}
	for _, name := range tried {
		b.candidates = append(b.candidates, newStore(name, c, host))
	}
	return b, nil
}

func newStore(name string, c Config, host backend.Host) store {
	environment := environment(host)
	switch name {
	case secretServiceName:
		return newSecretService(c, environment, host.Interactive)
	case kwalletName:
		return newKWallet(c, environment, host.Interactive)
	case passName:
		return newPass(c, host.Dir, environment, host.Interactive)
	case fileName:
		return newFiles(c, host.Dir, environment)
	}
	return newSystem(name, c, host.Interactive)
}

// Describe implements backend.Describer.
func (b *Backend) Describe() backend.Description {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.chosen
	switch {
	case s == nil && b.config.Backend == auto:
		names := make([]string, len(b.candidates))
		for i, s := range b.candidates {
			names[i] = s.name()
			if system, ok := s.(*system); ok {
				if err := system.missing(); err != nil { // a build without cgo on macOS
					names[i] += " (" + reason(err) + ")"
				}
			}
		}
		return backend.Description{Detail: "auto: chosen at first use, the first that works of " + strings.Join(names, ", "), Fields: true}
	case s == nil:
		s = b.candidates[0]
	}
	d := s.describe()
	d.Fields = true
	why := "as configured"
	if b.config.Backend == auto {
		why = "chosen as " + b.why
	}
	d.Detail = s.name() + ", " + why + ": " + d.Detail
	if len(b.passedOver) > 0 {
		d.Detail += "; passed over: " + strings.Join(b.passedOver, "; ")
	}
	return d
}

// store gives the store that is used, and chooses it at the first call.
func (b *Backend) store(ctx context.Context) (store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s, err := b.current(); s != nil || err != nil {
		return s, err
	}
	select {
	case b.choosing <- struct{}{}:
		defer func() { <-b.choosing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s, err := b.current(); s != nil || err != nil {
		return s, err
	}
	s, why, failed, err := b.choose(ctx)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosed
	}
	b.chosen, b.why, b.passedOver = s, why, failed
	return s, nil
}

func (b *Backend) current() (store, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosed
	}
	return b.chosen, nil
}

// choose gives the store, why it is the one, and why those that come before it are not.
func (b *Backend) choose(ctx context.Context) (chosen store, why string, failed []string, err error) {
	if b.config.Backend != auto {
		return b.candidates[0], "", nil, nil
	}
	for _, s := range b.candidates {
		why, err := s.works(ctx)
		switch {
		case err == nil:
			return s, why, failed, nil
		case ctx.Err() != nil:
			// A store that does not answer is not passed over: what is written would go where nobody looks for it later.
			return nil, "", nil, ctx.Err()
		}
		failed = append(failed, s.name()+": "+reason(err))
	}
	return nil, "", nil, &backend.Error{
		Code: backend.CodeUnavailable, Reason: "no keychain works here: " + strings.Join(failed, "; "),
		Remedy: "start one of them, or set backend: file with path and password",
	}
}

// Get implements backend.Backend.
func (b *Backend) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	if req.Version != "" {
		return nil, errVersions
	}
	if err := checkID(req.ID); err != nil {
		return nil, err
	}
	s, err := b.store(ctx)
	if err != nil {
		return nil, err
	}
	value, err := s.get(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	defer clear(value)
	c := &backend.Credential{Secret: backend.NewSecret(value), Version: b.version(req.ID, value)}
	c.Fields, _ = backend.FieldsFromJSON(value)
	return c, nil
}

// Probe implements backend.Prober.
func (b *Backend) Probe(ctx context.Context) error {
	s, err := b.store(ctx)
	if err != nil {
		return err
	}
	return s.probe(ctx)
}

// Strength implements backend.Writer.
func (b *Backend) Strength() backend.Strength {
	if b.stateDir == "" {
		return backend.StrengthNone
	}
	return backend.StrengthHost
}

// Put implements backend.Writer.
func (b *Backend) Put(ctx context.Context, req backend.Request, v backend.Value, cond backend.Condition) (string, error) {
	value := v.Secret.Reveal()
	if v.Fields != nil {
		clear(value)
		var err error
		if value, err = backend.FieldsToJSON(v.Fields); err != nil {
			return "", errFields
		}
	}
	defer clear(value)
	if value == nil {
		return "", errNoValue
	}
	if len(value) > maxValue {
		return "", errTooLarge(auto, maxValue)
	}
	err := b.write(ctx, req, cond, func(s store) error { return s.put(ctx, req.ID, value) })
	if err != nil {
		return "", err
	}
	return b.version(req.ID, value), nil
}

// Delete implements backend.Writer.
func (b *Backend) Delete(ctx context.Context, req backend.Request, cond backend.Condition) error {
	return b.write(ctx, req, cond, func(s store) error { return s.remove(ctx, req.ID) })
}

// write calls change if cond holds, under the lock of this host that all our writers of keychains take.
func (b *Backend) write(ctx context.Context, req backend.Request, cond backend.Condition, change func(store) error) error {
	if req.Version != "" {
		return errVersions
	}
	if err := checkID(req.ID); err != nil {
		return err
	}
	s, err := b.store(ctx)
	if err != nil {
		return err
	}
	if b.stateDir == "" {
		if cond != (backend.Condition{}) {
			return errNoConditions
		}
		return change(s)
	}
	unlock, err := statedir.Lock(ctx, b.stateDir, "keychain")
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return backend.Errorf(backend.CodeUnavailable, "lock the keychain against other writers: %s", reason(err))
	}
	defer unlock()
	if err := b.holds(ctx, s, req.ID, cond); err != nil {
		return err
	}
	return change(s)
}

func (b *Backend) holds(ctx context.Context, s store, id string, cond backend.Condition) error {
	if cond == (backend.Condition{}) {
		return nil
	}
	value, err := s.get(ctx, id)
	defer clear(value)
	switch {
	case errors.Is(err, backend.ErrNotFound):
		if cond.Version != "" {
			return errGone
		}
		return nil
	case err != nil:
		return err
	case cond.Absent:
		return errExists
	case cond.Version != b.version(id, value):
		return errChanged
	}
	return nil
}

// List implements backend.Lister.
func (b *Backend) List(ctx context.Context, prefix string) iter.Seq2[backend.Entry, error] {
	return func(yield func(backend.Entry, error) bool) {
		s, err := b.store(ctx)
		if err != nil {
			yield(backend.Entry{}, err)
			return
		}
		entries, err := s.list(ctx, prefix)
		if err != nil {
			yield(backend.Entry{}, err)
			return
		}
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				yield(backend.Entry{}, err)
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Close ends the connection to the store. What comes after it fails; a second Close does nothing.
func (b *Backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		clear(b.key)
		for _, s := range b.candidates {
			s.close()
		}
	}
	return nil
}

// version is a digest of value under a key of this user, so that a version that was logged tells nothing of a value that
// could be guessed. It is empty without a state directory.
func (b *Backend) version(id string, value []byte) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.key == nil && b.stateDir != "" {
		b.key, _ = statedir.Key(b.stateDir, "keychain") // without it reading still works, and writing fails at the lock
	}
	if b.key == nil || b.closed {
		return ""
	}
	mac := hmac.New(sha256.New, b.key)
	mac.Write([]byte(id))
	mac.Write([]byte{0}) // no id holds it
	mac.Write(value)
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// maxID is the greatest length of an id in bytes, that of a ref.
const maxID = 2048

// maxValue bounds values where the store itself does not, so that a mistake does not fill a keychain.
const maxValue = 16 << 20

func checkID(id string) error {
	if id == "" || len(id) > maxID || !utf8.ValidString(id) || strings.ContainsFunc(id, isControl) {
		return errID
	}
	return nil
}
