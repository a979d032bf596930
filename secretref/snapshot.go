package secretref

import (
	"fmt"
	"slices"

	"github.com/credresolve/credresolve/backend"
)

// Snapshot is what one activation gave: every value, and what every owner lacks. It never changes, so that a reader
// that holds one sees a single activation; all methods are safe for concurrent use. Its values are zeroed when the
// last holder of the snapshot, or of a value of it, is gone.
type Snapshot struct {
	generation uint64
	config     Config
	places     map[string][]*place
	refs       map[Ref]*place
	owners     map[groupKey]*ownerRecord
	inactive   map[string]bool
	failures   []OwnerFailure
}

// place is a target and what it got.
type place struct {
	target Target
	value  backend.Secret
	state  OwnerState
	err    error // for OwnerCold
}

// ownerRecord is what a later activation needs to know to let an owner keep its values.
type ownerRecord struct {
	state  OwnerState
	refs   []Ref
	keys   []string // of refs, sorted
	digest string
	values map[string]backend.Secret // by key of the ref
}

// Generation counts the activations of a Runtime that were published, from one.
func (s *Snapshot) Generation() uint64 { return s.generation }

// Value is the credential for the place at path, as Target.Path wrote it. It fails with an [UnavailableError] when
// every owner of the place is cold, with [ErrInactive] when nothing uses the place, and with backend.ErrNotFound when
// there was no ref.
func (s *Snapshot) Value(path string) (backend.Secret, error) {
	return pick(s.places[path], func() error {
		if s.inactive[path] {
			return fmt.Errorf("%s: %w", path, ErrInactive)
		}
		return backend.Errorf(backend.CodeNotFound, "%s held no ref when the secrets were activated", path)
	})
}

// ValueFor is Value for one owner of a place that several owners share.
func (s *Snapshot) ValueFor(path string, owner Owner) (backend.Secret, error) {
	var mine []*place
	for _, p := range s.places[path] {
		if p.target.Owner == owner {
			mine = append(mine, p)
		}
	}
	return pick(mine, func() error {
		return backend.Errorf(backend.CodeNotFound, "%s held no ref of %s when the secrets were activated", path, owner)
	})
}

// pick prefers what is fresh to what is kept.
func pick(places []*place, none func() error) (backend.Secret, error) {
	var best *place
	for _, p := range places {
		if best == nil || rank(p.state) < rank(best.state) {
			best = p
		}
	}
	switch {
	case best == nil:
		return backend.Secret{}, none()
	case best.state == OwnerCold:
		return backend.Secret{}, best.err
	}
	return best.value, nil
}

func rank(s OwnerState) int { return slices.Index([]OwnerState{OwnerReady, OwnerStale, OwnerCold}, s) }

// ByRef is the credential of a ref wherever it stands, by the ref as its target wrote it. Errors are those of Value.
func (s *Snapshot) ByRef(ref Ref) (backend.Secret, error) {
	var all []*place
	if p := s.refs[ref]; p != nil {
		all = append(all, p)
	}
	return pick(all, func() error {
		return backend.Errorf(backend.CodeNotFound, "no active place held %s when the secrets were activated", ref.Key())
	})
}

// Available is nil when the owner has its credentials, fresh or kept, or holds no ref at all; and the
// [UnavailableError] otherwise.
func (s *Snapshot) Available(owner Owner) error {
	for i := range s.failures {
		if f := &s.failures[i]; f.Owner == owner && f.State == OwnerCold {
			return f.unavailable()
		}
	}
	return nil
}

// State is the state of an owner; false when it holds no active ref.
func (s *Snapshot) State(owner Owner) (OwnerState, bool) {
	state, found := OwnerReady, false
	for _, profile := range []bool{false, true} {
		if r := s.owners[groupKey{owner, profile}]; r != nil {
			found = true
			if rank(r.state) > rank(state) {
				state = r.state
			}
		}
	}
	return state, found
}

// Failures are the owners that are stale or cold, in the order of the targets. The caller owns the slice.
func (s *Snapshot) Failures() []OwnerFailure { return slices.Clone(s.failures) }

// Paths are the places that hold a value or lack one, sorted.
func (s *Snapshot) Paths() []string {
	out := make([]string, 0, len(s.places))
	for p := range s.places {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// ownersBut are the owners that are not among those given, sorted.
func (s *Snapshot) ownersBut(given map[groupKey]bool) []groupKey {
	if s == nil {
		return nil
	}
	var out []groupKey
	for key := range s.owners {
		if !given[key] {
			out = append(out, key)
		}
	}
	slices.SortFunc(out, func(a, b groupKey) int { return compareOwners(a.owner, b.owner) })
	return out
}

func (f *OwnerFailure) unavailable() *UnavailableError {
	return &UnavailableError{Owner: f.Owner, Paths: slices.Clone(f.Paths), Reason: f.Reason, cause: f.cause}
}

// add files what a target got.
func (s *Snapshot) add(p *place) {
	s.places[p.target.Path] = append(s.places[p.target.Path], p)
	if old := s.refs[p.target.Ref]; old == nil || rank(p.state) < rank(old.state) {
		s.refs[p.target.Ref] = p
	}
}
