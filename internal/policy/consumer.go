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

// The permissions. A consumer may have the first four, and a plugin the next two; the last three are the owner's alone.
const (
	Invalidate   Permission = "invalidate"
	Revoke       Permission = "revoke"
	Metrics      Permission = "metrics"
	Status       Permission = "status"
	SecretsRead  Permission = "secrets:read"  // of the secrets that the plugin of its subject keeps
	SecretsWrite Permission = "secrets:write" // of them
	Sessions     Permission = "sessions"
	Plugins      Permission = "plugins"
	Reload       Permission = "reload"
)

var grantable = []Permission{Invalidate, Revoke, Metrics, Status}

var ofPlugins = []Permission{SecretsRead, SecretsWrite}

// secretPermissions gives the permissions that "read" and "write" stand for.
func secretPermissions(names []string) (out []Permission, ok bool) {
	for _, name := range names {
		p := Permission("secrets:" + name)
		if !slices.Contains(ofPlugins, p) {
			return nil, false
		}
		out = append(out, p)
	}
	return out, true
}

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

// Name is the consumer's in the configuration, "owner", what Restrict was told, and empty for nobody.
func (c *Consumer) Name() string { return c.name }

// IsOwner reports whether c is the owner of the process.
func (c *Consumer) IsOwner() bool { return c.owner }

// IsNobody reports whether c is who no consumer matches.
func (c *Consumer) IsNobody() bool { return c.name == "" }

// Subject is for whom scoped providers resolve.
func (c *Consumer) Subject() credref.Subject { return c.subject }

// ByExecutable reports whether c is who it is by the program that it runs, so that a connection counts only for as long as the
// process that made it lives.
func (c *Consumer) ByExecutable() bool { return c.match.executable != "" }

// Sees reports whether c may know of a provider: whether a rule may allow something of it.
func (c *Consumer) Sees(provider string) bool {
	if c.base != nil && !c.base.Sees(provider) {
		return false
	}
	return c.owner || slices.ContainsFunc(c.rules, func(r rule) bool { return slices.Contains(r.providers, provider) })
}

// Rate bounds the refs of c in a time: its own, else that of limits. Zero calls: no limit.
func (c *Consumer) Rate() config.RateSettings { return c.rate }

// Resolve decides whether c may have what ref names. A decision that was made before costs no lock and no allocation. A
// ref that breaks the grammar is denied to all but the owner.
func (c *Consumer) Resolve(ref credref.Ref) Decision {
	switch {
	case c.owner:
		return Decision{Allowed: true, Rule: config.OwnerName}
	case len(c.rules) == 0:
		return Decision{Rule: ByDefault, Reason: reasonNone}
	}
	if d := c.known.Get(&ref, 0); d != nil {
		return *d
	}
	if err := ref.Validate(); err != nil {
		return Decision{Rule: ByDefault, Reason: err.Error()}
	}
	d := decide(c.rules, &ref)
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
	case !slices.Contains(grantable, p) && !slices.Contains(ofPlugins, p):
		return Decision{Rule: ByDefault, Reason: fmt.Sprintf("%s is the owner's alone", p)}
	case !slices.Contains(c.may, p):
		return Decision{Rule: ByDefault, Reason: fmt.Sprintf("the permission %s is not given", p)}
	}
	rule := c.label + " may"
	if c.base != nil {
		of := c.base.May(p)
		if !of.Allowed {
			return of
		}
		rule += " of " + of.Rule
	}
	return Decision{Allowed: true, Rule: rule}
}

// Login decides whether c may log in and out for what ref names, and refresh what a login gave.
func (c *Consumer) Login(ref credref.Ref) Decision {
	if c.owner {
		return Decision{Allowed: true, Rule: config.OwnerName}
	}
	if err := ref.Validate(); err != nil {
		return Decision{Rule: ByDefault, Reason: err.Error()}
	}
	ref.Version, ref.Field = "", ""
	ambiguous := isAmbiguous(ref.ID)
	denied := Decision{Rule: ByDefault, Reason: reasonNone}
	for i := range c.rules {
		r := &c.rules[i]
		switch {
		case !slices.Contains(r.providers, ref.Provider) || !r.id.matches(ref.ID, ambiguous):
		case !r.login:
			denied.Reason = reasonLogin
		case c.base == nil:
			return Decision{Allowed: true, Rule: r.label}
		default:
			of := c.base.Login(ref)
			of.Rule = r.label + " of " + of.Rule
			return of
		}
	}
	return denied
}

// Also is what a session may do beside resolving.
type Also struct {
	Secrets []string // read, write: of the secrets that the plugin of its subject keeps
	Login   bool     // log in and out for what its list names, and refresh
}

// Restrict gives the consumer of a session: it may do what base may and what the session's own list allows. refs are short
// forms: one without a field allows all fields and the whole, one with a field no more, one with a version that version
// alone; their ids are no patterns. rules are as those of consumers. With neither, nothing is allowed. A session has the
// permissions of also alone, as far as base has them. name is what Name gives.
//
// It must be called again, with the base of that name, after another Policy took p's place. The error has the code usage and
// does not repeat what is wrong.
func (p *Policy) Restrict(base *Consumer, name string, refs []string, also Also, rules ...config.AllowRule) (*Consumer, error) {
	c := &Consumer{name: name, label: "session", subject: base.subject, rate: base.rate, base: base}
	var known bool
	if c.may, known = secretPermissions(also.Secrets); !known {
		return nil, usage("secrets: expected read or write")
	}
	for i, text := range refs {
		ref, err := credref.Parse(text)
		if err != nil {
			return nil, usage("allow[%d]: %v", i, err)
		}
		if !slices.Contains(p.providers, ref.Provider) {
			return nil, usage("allow[%d]: there is no such provider, or what it keeps is for nobody but the owner", i)
		}
		one := exactly(fmt.Sprintf("session allow[%d]", i), ref)
		one.login = also.Login
		c.rules = append(c.rules, one)
	}
	for i, allow := range rules {
		i += len(refs)
		r, err := newRule(fmt.Sprintf("session allow[%d]", i), allow, p.providers)
		if err != nil {
			return nil, usage("allow[%d]: %v", i, err)
		}
		c.rules = append(c.rules, r)
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
