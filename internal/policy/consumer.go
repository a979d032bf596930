package policy

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/credresolve/credresolve/cache"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
)

// Decision is whether something is allowed, and why. Its texts hold names of the configuration, and nothing of the request.
type Decision struct {
	Allowed bool
	// Rule is what allows it: "consumers[1] web allow[0]", "owner"; or ByDefault.
	Rule string
	// Reason is why it is denied, in lower case, without a full stop.
	Reason string
}

// ByDefault is the rule of what no rule allows.
const ByDefault = "deny by default"

// Permission is something to be allowed beside resolving.
type Permission string

// The permissions. A consumer may have the first four; the last two are the owner's alone.
const (
	Invalidate Permission = "invalidate"
	Revoke     Permission = "revoke"
	Metrics    Permission = "metrics"
	Status     Permission = "status"
	Sessions   Permission = "sessions"
	Reload     Permission = "reload"
)

var grantable = []Permission{Invalidate, Revoke, Metrics, Status}

// Consumer is who asks, with what it may do. It is safe for concurrent use.
type Consumer struct {
	name    string
	label   string // "consumers[1] web"
	owner   bool
	match   match
	subject credref.Subject
	rate    config.RateSettings
	rules   []rule
	may     []Permission
	base    *Consumer // of a session: whose rights bound its own
	known   *cache.Cache[credref.Ref, struct{}, Decision]
}

// Bounds of what a consumer remembers of its decisions, which costs less than a few hundred bytes each.
const (
	knownEntries = 4096
	knownBytes   = 1 << 20
)

func (c *Consumer) remember(entries int, bytes int64) {
	c.known = cache.New[credref.Ref, struct{}, Decision](cache.Limits{Entries: entries, Bytes: bytes}, nil)
}

// Name is the consumer's in the configuration, "owner", of a session its base's, and empty for nobody.
func (c *Consumer) Name() string { return c.name }

// IsOwner reports whether c is the owner of the process.
func (c *Consumer) IsOwner() bool { return c.owner }

// IsNobody reports whether c is who no consumer matches.
func (c *Consumer) IsNobody() bool { return c.name == "" }

// Subject is for whom scoped providers resolve.
func (c *Consumer) Subject() credref.Subject { return c.subject }

// Rate bounds the refs of c in a time: its own, else that of limits. Zero calls: no limit.
func (c *Consumer) Rate() config.RateSettings { return c.rate }

// Resolve decides whether c may have what ref names. A decision that was made before costs no lock and no allocation. A
// ref that breaks the grammar is denied to all but the owner.
func (c *Consumer) Resolve(ref *credref.Ref) Decision {
	switch {
	case c.owner:
		return Decision{Allowed: true, Rule: config.OwnerName}
	case len(c.rules) == 0:
		return Decision{Rule: ByDefault, Reason: reasonNone}
	}
	if d := c.known.Get(ref, 0); d != nil {
		return *d
	}
	if err := ref.Validate(); err != nil {
		return Decision{Rule: ByDefault, Reason: err.Error()}
	}
	d := decide(c.rules, ref)
	if d.Allowed && c.base != nil {
		of := c.base.Resolve(ref)
		if of.Allowed {
			of.Rule = d.Rule + " of " + of.Rule
		} else {
			of.Reason = "the session's list allows it, but to " + c.base.label + " it is denied: " + of.Reason
		}
		d = of
	}
	// The texts of ref may be parts of a large request, which must not stay.
	key := credref.Ref{
		Provider: strings.Clone(ref.Provider), ID: strings.Clone(ref.ID), Version: strings.Clone(ref.Version), Field: strings.Clone(ref.Field),
	}
	e := cache.NewEntry[struct{}, Decision](struct{}{}, math.MaxInt64)
	cost := int64(256 + len(key.Provider) + len(key.ID) + len(key.Version) + len(key.Field))
	if c.known.Put(key, e, cost) {
		c.known.Show(e, c.known.Slot(key), &d, 0)
	}
	return d
}

// May decides whether c has a permission.
func (c *Consumer) May(p Permission) Decision {
	switch {
	case c.owner:
		return Decision{Allowed: true, Rule: config.OwnerName}
	case !slices.Contains(grantable, p):
		return Decision{Rule: ByDefault, Reason: fmt.Sprintf("%s is the owner's alone", p)}
	case !slices.Contains(c.may, p):
		return Decision{Rule: ByDefault, Reason: fmt.Sprintf("the permission %s is not given", p)}
	case c.base != nil:
		if d := c.base.May(p); !d.Allowed {
			return d
		}
	}
	return Decision{Allowed: true, Rule: c.label + " may"}
}

// Grant is what a session is allowed.
type Grant struct {
	// Refs are allowed as they are: one without a field with all fields, one with a version in that version alone.
	Refs []credref.Ref
	// Allow are rules as consumers have them. With no refs either: nothing is allowed.
	Allow []config.AllowRule
	// May are permissions.
	May []string
	// Subject is for whom scoped providers resolve. Nil: the base's.
	Subject *credref.Subject
}

// Restrict gives a consumer that may do what base may and what g allows. A permission that base lacks is no error, and is
// not there. It must be called again, with the consumer of that name, after another Policy took p's place. The error has
// the code usage.
func (p *Policy) Restrict(base *Consumer, g Grant) (*Consumer, error) {
	c := &Consumer{name: base.name, label: "session", subject: base.subject, rate: base.rate, base: base}
	for i, ref := range g.Refs {
		r, err := exactly(fmt.Sprintf("session refs[%d]", i), ref)
		if err != nil {
			return nil, usage("refs[%d]: %v", i, err)
		}
		if !slices.Contains(p.providers, ref.Provider) {
			return nil, usage("refs[%d]: there is no such provider", i)
		}
		c.rules = append(c.rules, r)
	}
	for i, allow := range g.Allow {
		r, err := newRule(fmt.Sprintf("session allow[%d]", i), allow, p.providers)
		if err != nil {
			return nil, usage("allow[%d]: %v", i, err)
		}
		c.rules = append(c.rules, r)
	}
	for i, may := range g.May {
		if !slices.Contains(grantable, Permission(may)) {
			return nil, usage("may[%d]: unknown permission; known: %s", i, listPermissions())
		}
		c.may = append(c.may, Permission(may))
	}
	if g.Subject != nil {
		if err := g.Subject.Validate(); err != nil {
			return nil, usage("subject: %v", err)
		}
		c.subject = *g.Subject
	}
	c.remember(min(knownEntries, 64+4*len(c.rules)), knownBytes/8)
	return c, nil
}

func listPermissions() string {
	names := make([]string, len(grantable))
	for i, p := range grantable {
		names[i] = string(p)
	}
	return strings.Join(names, ", ")
}
