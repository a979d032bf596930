package grants

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/statedir"
)

// Entry is what is known of a login. Nothing in it is secret.
type Entry struct {
	Provider string
	ID       string
	Subject  backend.Subject
	Status   Status
	// Account tells of the grant what the adapter wants to find again, such as issuer and subject.
	Account map[string]string
	// Expires is when the credential ends, RefreshAfter when its successor is due; zero: never, or unknown.
	Expires, RefreshAfter time.Time
	// LoggedIn is when somebody logged in, Refreshed when the credential was got, by that login or by a refresh.
	LoggedIn, Refreshed time.Time
	// Refreshable: a successor is made without anybody logging in.
	Refreshable bool
	// Reason says more about Status, for a person; empty when there is nothing to say.
	Reason string
}

// Status is how a login stands.
type Status string

// The statuses of a login.
const (
	StatusActive       Status = "active"
	StatusRefreshing   Status = "refreshing"
	StatusExpired      Status = "expired"       // the credential has ended, and a successor takes a login
	StatusAuthRequired Status = "auth_required" // the server refused a refresh: somebody has to log in
	StatusInterrupted  Status = "interrupted"   // a refresh began, and its outcome is unknown
	StatusUnknown      Status = "unknown"       // what is kept cannot be read
)

// entry gives what may be known of r, while nobody is known to be at work on it or not.
func (r *record) entry() Entry {
	e := Entry{
		Provider: r.provider, ID: r.req.ID, Subject: r.req.Subject, Account: maps.Clone(r.About), Reason: r.Reason,
		Expires: r.Expires, RefreshAfter: r.due(), LoggedIn: r.LoggedIn, Refreshed: r.Obtained, Refreshable: !r.refresh.IsZero(),
	}
	switch r.State {
	case stateAuthRequired:
		e.Status = StatusAuthRequired
		if !r.Interrupted.IsZero() {
			e.Status = StatusInterrupted
		}
	case stateRefreshing:
		e.Status = StatusRefreshing
	default:
		e.Status = StatusActive
	}
	if !e.Refreshable {
		e.RefreshAfter = time.Time{}
	}
	return e
}

// judged gives e with what time has made of it.
func (e Entry) judged(now time.Time) Entry {
	if e.Status == StatusActive && !e.Refreshable && !e.Expires.IsZero() && !now.Before(e.Expires) {
		e.Status = StatusExpired
	}
	return e
}

// indexed is an Entry as the index has it, in a file of its own.
type indexed struct {
	Format       int               `json:"version"`
	Provider     string            `json:"provider"`
	ID           string            `json:"id"`
	Subject      backend.Subject   `json:"subject,omitzero"`
	Status       Status            `json:"status"`
	Account      map[string]string `json:"account,omitempty"`
	Expires      time.Time         `json:"expires,omitzero"`
	RefreshAfter time.Time         `json:"refresh_after,omitzero"`
	LoggedIn     time.Time         `json:"logged_in,omitzero"`
	Refreshed    time.Time         `json:"refreshed,omitzero"`
	Refreshable  bool              `json:"refreshable,omitempty"`
	Reason       string            `json:"reason,omitempty"`
}

const (
	indexDir     = "logins" // in the state directory
	indexVersion = 1
	indexSuffix  = ".json"
	maxIndexed   = 64 << 10 // bytes of one file
)

// Logins gives the logins of this user on this host, ordered by provider, id and subject. It does not look into the token
// store, and so works while that is locked.
func (s *Store) Logins() ([]Entry, error) {
	if s.c.StateDir == "" {
		return nil, backend.Errorf(backend.CodeUnsupported, "there is no state directory, and so no list of logins")
	}
	dir := filepath.Join(s.c.StateDir, indexDir)
	files, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, &backend.Error{Code: backend.CodeInvalidConfig, Reason: "the list of logins in " + dir + " cannot be read: it is no directory, or not this user's",
			Remedy: "remove it, and each login is listed again when it is used"}
	}
	now := time.Now()
	var out []Entry
	for _, f := range files {
		lock, ok := strings.CutSuffix(f.Name(), indexSuffix)
		if !ok || strings.HasPrefix(f.Name(), ".") {
			continue
		}
		e, err := readIndexed(filepath.Join(dir, f.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed since
			continue
		case err != nil: // it hides none of the others
			e = Entry{Status: StatusUnknown, Reason: filepath.Join(dir, f.Name()) + " is damaged or of another version; remove it, and the login is listed again when it is used"}
		case e.Status == StatusRefreshing && s.free(lock):
			e.Status, e.Reason = StatusInterrupted, interruptedReason
		}
		out = append(out, e.judged(now))
	}
	slices.SortFunc(out, func(a, b Entry) int {
		for _, c := range [][2]string{
			{a.Provider, b.Provider}, {a.ID, b.ID}, {a.Subject.Tenant, b.Subject.Tenant}, {a.Subject.EndUser, b.Subject.EndUser},
			{a.Subject.Session, b.Subject.Session}, {a.Subject.Plugin, b.Subject.Plugin},
		} {
			if d := strings.Compare(c[0], c[1]); d != 0 {
				return d
			}
		}
		return 0
	})
	return out, nil
}

const interruptedReason = "a process ended while it refreshed the token; whether the server made a new one is not known, and the next use asks once more"

// free reports whether nobody holds the lock of that name.
func (s *Store) free(name string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	unlock, err := statedir.Lock(ctx, s.c.StateDir, name)
	if err != nil {
		return false
	}
	unlock()
	return true
}

func readIndexed(path string) (Entry, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return Entry{}, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxIndexed {
		return Entry{}, errors.New("it is no file of the index")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Entry{}, err
	}
	var i indexed
	if err := json.Unmarshal(text, &i); err != nil || i.Format != indexVersion {
		return Entry{}, errors.New("it is no file of the index")
	}
	return Entry{
		Provider: i.Provider, ID: i.ID, Subject: i.Subject, Status: i.Status, Account: i.Account, Expires: i.Expires, RefreshAfter: i.RefreshAfter,
		LoggedIn: i.LoggedIn, Refreshed: i.Refreshed, Refreshable: i.Refreshable, Reason: i.Reason,
	}, nil
}

func (s *Store) indexed(id string) string {
	return filepath.Join(s.c.StateDir, indexDir, lockName(id)+indexSuffix)
}

// noted gives a func that reports whether the index has another word on the grant under id than when it was last asked.
func (s *Store) noted(id string) func() bool {
	path := s.indexed(id)
	last, _ := os.Stat(path)
	return func() bool {
		now, err := os.Stat(path)
		if err != nil || last != nil && os.SameFile(now, last) && now.ModTime().Equal(last.ModTime()) {
			return false
		}
		last = now
		return true
	}
}

// note puts r into the index. An index that cannot be written does not keep a grant from being used.
func (s *Store) note(r *record) {
	if s.c.StateDir == "" {
		return
	}
	e := r.entry()
	text, err := json.Marshal(indexed{
		Format: indexVersion, Provider: e.Provider, ID: e.ID, Subject: e.Subject, Status: e.Status, Account: e.Account, Expires: e.Expires,
		RefreshAfter: e.RefreshAfter, LoggedIn: e.LoggedIn, Refreshed: e.Refreshed, Refreshable: e.Refreshable, Reason: e.Reason,
	})
	path := s.indexed(r.key.id(s.c.Prefix))
	if err != nil || statedir.Ensure(s.c.StateDir) != nil || statedir.Ensure(filepath.Dir(path)) != nil {
		return
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".login-*") // mode 0600
	if err != nil {
		return
	}
	_, err = tmp.Write(text)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path) // who reads finds the old or the new one, whole
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
}

// list puts r into the index where it is missing: the entry was removed, or somebody logged in on another host.
func (s *Store) list(ctx context.Context, r *record) {
	if s.c.StateDir == "" {
		return
	}
	if _, err := os.Lstat(s.indexed(r.key.id(s.c.Prefix))); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	s.note(r)
	if _, err := s.load(ctx, r.key); errors.Is(err, backend.ErrNotFound) { // a logout came in between
		s.forget(r.key)
	}
}

func (s *Store) forget(k key) {
	if s.c.StateDir != "" {
		_ = os.Remove(s.indexed(k.id(s.c.Prefix)))
	}
}
