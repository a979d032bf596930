package secretref

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/credresolve/credresolve/backend"
)

// Owner is the part of a program that uses a credential: a model provider, an account, a capability, a route, the
// gateway. A failure that another try may cure costs its owner alone. The zero Owner is nobody that is known: what it
// holds is strict.
type Owner struct {
	Kind string // one of the Owner… kinds; empty or OwnerUnknown when the owner is not known
	ID   string // unique within the kind
}

// The kinds of owner that OpenClaw knows.
const (
	OwnerProvider   = "provider"   // a model provider
	OwnerAccount    = "account"    // an account of a channel, or an auth profile
	OwnerCapability = "capability" // speech, memory, a skill, scheduled webhooks, …
	OwnerRoute      = "route"      // a route that a plugin declares
	OwnerGateway    = "gateway"    // the gateway's own front door, always strict
	OwnerUnknown    = "unknown"    // nobody that is known, always strict
)

// unmapped is how an owner that is not known is named.
var unmapped = Owner{Kind: OwnerUnknown, ID: "unmapped"}

// Mapped reports whether the owner is known, so that a failure can be kept to it.
func (o Owner) Mapped() bool { return o.Kind != "" && o.Kind != OwnerUnknown }

// String is "kind:id".
func (o Owner) String() string {
	if !o.Mapped() {
		o = unmapped
	}
	return o.Kind + ":" + o.ID
}

func compareOwners(a, b Owner) int {
	if c := strings.Compare(a.Kind, b.Kind); c != 0 {
		return c
	}
	return strings.Compare(a.ID, b.ID)
}

// OwnerState says what an owner has after an activation.
type OwnerState string

// The states.
const (
	OwnerReady OwnerState = "ready" // all its refs resolved in this activation
	OwnerStale OwnerState = "stale" // what the activation before gave it, since its refs failed now
	OwnerCold  OwnerState = "cold"  // nothing: its refs failed, and there is no earlier value that it may keep
)

// Target is one place of a configuration that holds a ref. A place that several owners use, as a setting that accounts
// inherit, is one Target for each, of the same Path.
type Target struct {
	Path     string   // where the ref stands, as a person writes it: models.providers.openai.apiKey
	Ref      Ref      //
	Owner    Owner    // who uses it; the zero Owner makes it strict
	Expected Expected // what the value must be; empty is String
	// Strict makes a failure fail the whole activation, whoever the owner is.
	Strict bool
	// Inactive says that nothing uses this place as the configuration stands: the ref is not resolved.
	Inactive bool
	// Reason says why the place is active or not; it may be empty, and holds no secret.
	Reason string
	// Digest stands for everything that decides how the owner uses the credential, and that is no secret. An owner
	// without a digest never keeps an earlier value.
	Digest string
	// Profile says that the ref stands in a store of auth profiles rather than in the configuration.
	Profile bool
	// Overrides says that a literal stands beside the ref, and is ignored.
	Overrides bool
}

func (t Target) expected() Expected {
	if t.Expected == "" {
		return String
	}
	return t.Expected
}

// isolated reports whether a failure may be kept to the owner.
func (t Target) isolated() bool {
	return !t.Strict && t.Owner.Mapped() && t.Owner.Kind != OwnerGateway
}

// OwnerFailure says what an owner lacks after an activation, and why. It holds no value and no id of a ref.
type OwnerFailure struct {
	Owner  Owner
	State  OwnerState // OwnerStale or OwnerCold
	Paths  []string   // the places of the owner, sorted
	Reason string     // one of the reasons of [Error.LogReason]

	providers []providerName // whole providers that failed under the owner
	refReason string         // why a single ref failed; empty when whole providers did alone
	cause     error
}

type providerName struct {
	source   Source
	provider string
}

func (p providerName) String() string { return string(p.source) + ":" + p.provider }

// UnavailableError is what a reader gets for a credential whose owner is cold. There is no lower precedence to fall
// back to: the configuration names this credential, and it is not there. It is a backend.ErrUnavailable, and unwraps
// to what failed.
type UnavailableError struct {
	Owner  Owner
	Paths  []string
	Reason string
	cause  error
}

// Code is SurfaceUnavailable.
func (e *UnavailableError) Code() Code { return SurfaceUnavailable }

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("%s: the credential of %s is configured but unavailable (%s); restore it and reload",
		SurfaceUnavailable, e.Owner, e.Reason)
}

// Unwrap is what failed when the owner was resolved.
func (e *UnavailableError) Unwrap() error { return e.cause }

// Is makes errors.Is find backend.ErrUnavailable.
func (e *UnavailableError) Is(target error) bool { return target == backend.ErrUnavailable }

// ErrInactive is what a reader gets for a place that the configuration leaves unused: its ref was not resolved.
var ErrInactive = errors.New("the ref stands on an inactive surface and was not resolved")

// ownerGroup is all the targets of one owner, which succeed or fail together.
type ownerGroup struct {
	owner    Owner
	profile  bool
	isolated bool
	targets  []int // indexes of the active targets
	keys     []string
	digest   string
}

// groupKey tells owners apart; an auth profile and an account of a channel may share a name.
type groupKey struct {
	owner   Owner
	profile bool
}

// groupOwners gathers the active targets by owner, in the order in which owners first appear. Targets whose owner is
// not known are groups of their own. One strict target makes its whole owner strict: half an owner cannot be kept.
func groupOwners(targets []Target) []*ownerGroup {
	byKey := make(map[groupKey]*ownerGroup)
	digests := make(map[*ownerGroup][]string)
	var groups []*ownerGroup
	for i, t := range targets {
		if t.Inactive {
			continue
		}
		k := groupKey{t.Owner, t.Profile}
		g := byKey[k]
		if g == nil || !t.Owner.Mapped() {
			g = &ownerGroup{owner: t.Owner, profile: t.Profile, isolated: true}
			groups = append(groups, g)
			byKey[k] = g
		}
		g.targets = append(g.targets, i)
		g.keys = append(g.keys, t.Ref.Key())
		g.isolated = g.isolated && t.isolated()
		digests[g] = append(digests[g], t.Digest)
	}
	for _, g := range groups {
		slices.Sort(g.keys)
		g.digest = combineDigests(digests[g])
	}
	return groups
}

// combineDigests is one digest for those of an owner's targets; empty when one of them has none, since what is not
// known cannot be said to be unchanged.
func combineDigests(all []string) string {
	if slices.Contains(all, "") {
		return ""
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}
