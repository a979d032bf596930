package conformance

import (
	"slices"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// Harness is what the suite must know of a backend and its store. Open is required. Every other field is optional: the
// cases that need a field that is not set are skipped, and say so. The functions are called by one case at a time, but
// may be called from a goroutine of that case; they may end it through their T.
type Harness struct {
	// Open opens a backend onto the store, which may be called several times in one case. A store that is reached over
	// the network is reached through dial, or the cases about the network are skipped. The suite closes what it opened.
	Open func(t T, dial *Dialer) backend.Backend
	// OpenTLS opens a backend as Open does, but one that speaks TLS to the Dialer and trusts the authority dial.Roots,
	// and nothing else. The Dialer ends TLS and passes on to the store what it deciphered. Nil: no TLS.
	OpenTLS func(t T, dial *Dialer) backend.Backend
	// Put stores v out of band, which means not through a backend under test; a second Put for an id replaces the first.
	// A plain value may be kept as the only field or as the field "value".
	Put func(t T, id string, v backend.Value)
	// Delete removes the secret out of band; one that does not exist is no error.
	Delete func(t T, id string)
	// Advance makes next the newest version of an existing secret, out of band, and names its versions.
	Advance func(t T, id string, next backend.Value) Versions
	// Lease makes an id whose credential is given for ttl, and can be renewed until longest after it was given.
	Lease func(t T, ttl, longest time.Duration) (id string)
	// Fault breaks the store, and gives what mends it. Nil instead of undo: the store has no such fault.
	Fault func(t T, f Fault) (undo func())
	// Reads is how many secrets the store has given out so far.
	Reads func(t T) int

	// ID makes an id of the store's own form from a name of [a-z0-9-]. It keeps prefixes: where one name starts with
	// another, the id starts with the other's id. Nil: the name itself.
	ID func(name string) string
	// InvalidIDs can never exist in this store.
	InvalidIDs []string
	// Secrets are bytes that must appear nowhere beside the values that the suite stores: tokens, passwords.
	Secrets [][]byte
	// Limits is what the store cannot hold.
	Limits Limits
	// Private: each Open gives a store of its own, to which Put and the others then belong, as with a store in memory.
	Private bool
	// Only chooses the cases to run; nil: all of them. Those that are not chosen are not in the report.
	Only func(Case) bool
	// CaseTime is how long one case may take; zero: 10 s.
	CaseTime time.Duration
}

// Limits is what the store cannot hold; the zero Limits holds everything. A value within the limits comes back byte for
// byte; beyond them a Writer must refuse it.
type Limits struct {
	MaxValue     int64 // the greatest size of a value in bytes; zero: no limit
	Text         bool  // nothing that is not UTF-8
	NoNUL        bool  // no NUL byte
	NoEmpty      bool  // no empty value
	Floats       bool  // no JSON number that 64-bit floating point would alter
	NoRetryAfter bool  // the store never says how long to wait
	Page         int   // how many entries one page of the store's listing has; zero: 10
}

// Versions names the versions of a secret after Advance, as Request.Version does.
type Versions struct {
	Previous string // names for good the version before; empty: the store forgot it
	Current  string // names for good the newest version
	Missing  string // well formed, and of no version of this secret

	// Stages move on with each version; empty: the store has no such names.
	PreviousStage, CurrentStage string
}

// Fault is a way to break a store.
type Fault struct {
	Kind FaultKind
	// ID limits the fault to requests for one secret; empty: all of them.
	ID string
	// RetryAfter is what a throttled store asks to wait, in whole seconds.
	RetryAfter time.Duration
}

// FaultKind says what is broken.
type FaultKind string

// The kinds of faults.
const (
	FaultDeny      FaultKind = "deny"      // the store refuses this caller
	FaultLock      FaultKind = "lock"      // a person must unlock the store
	FaultThrottle  FaultKind = "throttle"  // too many calls
	FaultHang      FaultKind = "hang"      // requests get no answer
	FaultDisappear FaultKind = "disappear" // the store is gone, or sealed
	FaultLogout    FaultKind = "logout"    // the login is no longer accepted, nor is a new one
	FaultExpire    FaultKind = "expire"    // every lease given so far is over; undo does nothing
	FaultSkew      FaultKind = "skew"      // the store's clock is an hour off
)

func (h Harness) caseTime() time.Duration {
	if h.CaseTime > 0 {
		return h.CaseTime
	}
	return 10 * time.Second
}

func (h Harness) cases() []Case {
	cases := Cases()
	if h.Only == nil {
		return cases
	}
	return slices.DeleteFunc(cases, func(c Case) bool { return !h.Only(c) })
}

func (l Limits) page() int {
	if l.Page > 0 {
		return l.Page
	}
	return 10
}
