package policy

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
)

// Policy says who callers are and what they may do. It never changes.
type Policy struct {
	providers []string
	consumers []*Consumer
	owner     *Consumer
	nobody    *Consumer
	ownerUID  int
}

// Facts are what the operating system tells of the process at the other end of a Unix socket.
type Facts struct {
	UID, GID, PID *int   // nil: not known
	Executable    string // absolute, links resolved; empty: not known
}

// Caller is who a request comes from.
type Caller struct {
	// Peer is the process that connected to the Unix socket. Nil: it came another way.
	Peer *Facts
	// Token is the name of the token that was presented and is right: one of serve.tokens, config.OwnerName for the owner's
	// own. Empty: none. A wrong token is no caller: the request is to be refused.
	Token string
	// Listener is where it came in, for people to read: "unix", "tcp".
	Listener string
}

// New reads the consumers of s. providers are the names of those of which a rule may allow something; ownerUID is the user id of this process,
// negative where users have none. The error has the code invalid_config.
func New(s config.Serve, providers []string, ownerUID int) (*Policy, error) {
	p := &Policy{
		providers: slices.Clone(providers),
		owner:     &Consumer{name: config.OwnerName, label: config.OwnerName, owner: true, rate: rate(s.Limits.Rate)},
		nobody:    &Consumer{},
		ownerUID:  ownerUID,
	}
	if _, taken := s.Tokens[config.OwnerName]; taken {
		return nil, invalid("serve.tokens: the name %q is the owner's own token", config.OwnerName)
	}
	for i, settings := range s.Consumers {
		at := fmt.Sprintf("consumers[%d]", i)
		if settings.Name == "" || settings.Name == config.OwnerName || p.Named(settings.Name) != nil {
			return nil, invalid("serve.%s: the name is missing, stands twice, or is %q", at, config.OwnerName)
		}
		c := &Consumer{
			name:    settings.Name,
			label:   at + " " + settings.Name,
			match:   match{uid: settings.UID, gid: settings.GID, executable: settings.Executable, token: settings.Token},
			subject: credref.Subject{Tenant: settings.Subject.Tenant, EndUser: settings.Subject.EndUser, Plugin: settings.Subject.Plugin},
			rate:    rate(settings.Rate),
		}
		if settings.Executable != "" && settings.Executable != filepath.Clean(settings.Executable) {
			return nil, invalid("serve.%s.executable: expected a path without . and .. and doubled separators", at)
		}
		if c.rate.Calls == 0 {
			c.rate = p.owner.rate
		}
		if err := c.subject.Validate(); err != nil {
			return nil, invalid("serve.%s.subject: %v", at, err)
		}
		for j, allow := range settings.Allow {
			r, err := newRule(fmt.Sprintf("%s allow[%d]", c.label, j), allow, providers)
			if err != nil {
				return nil, invalid("serve.%s.allow[%d]: %v", at, j, err)
			}
			c.rules = append(c.rules, r)
		}
		for _, may := range settings.May {
			if !slices.Contains(grantable, Permission(may)) {
				return nil, invalid("serve.%s.may: unknown permission; known: %s", at, listPermissions())
			}
			c.may = append(c.may, Permission(may))
		}
		secrets, known := secretPermissions(settings.Secrets)
		if !known {
			return nil, invalid("serve.%s.secrets: expected read or write", at)
		}
		c.may = append(c.may, secrets...)
		c.remember(knownEntries, knownBytes)
		p.consumers = append(p.consumers, c)
	}
	return p, nil
}

// defaultPer is the time of a rate that names none.
const defaultPer = time.Second

// rate gives r with its time set.
func rate(r config.RateSettings) config.RateSettings {
	if r.Per <= 0 {
		r.Per = defaultPer
	}
	return r
}

// Named gives the configured consumer of that name, the owner for config.OwnerName, and nil when there is none.
func (p *Policy) Named(name string) *Consumer {
	if name == config.OwnerName {
		return p.owner
	}
	for _, c := range p.consumers {
		if c.name == name {
			return c
		}
	}
	return nil
}

// Names are the names of the configured consumers, in their order.
func (p *Policy) Names() []string {
	names := make([]string, len(p.consumers))
	for i, c := range p.consumers {
		names[i] = c.name
	}
	return names
}

// Owner is the owner of the process.
func (p *Policy) Owner() *Consumer { return p.owner }

// Identify gives the consumer that the caller is; never nil: who is nobody gets a consumer that may do nothing.
//
// A configured consumer wins over being the owner, so that one program of the owner's can be given less. For the same
// reason a process of the owner's whose executable cannot be told is nobody where it might be such a program.
func (p *Policy) Identify(caller Caller) *Consumer {
	unsure := false
	for _, c := range p.consumers {
		switch c.match.holds(caller) {
		case yes:
			return c
		case unknown:
			unsure = true
		case no:
		}
	}
	if caller.Token == config.OwnerName || caller.Token == "" && p.isOwnUser(caller) && !unsure {
		return p.owner
	}
	return p.nobody
}

func (p *Policy) isOwnUser(c Caller) bool {
	return c.Peer != nil && c.Peer.UID != nil && p.ownerUID >= 0 && *c.Peer.UID == p.ownerUID
}

// Explain says in one line which consumer Identify gives, and why.
func (p *Policy) Explain(caller Caller) string {
	c := p.Identify(caller)
	switch {
	case c.owner && caller.Token == config.OwnerName:
		return "owner: by the owner's token"
	case c.owner:
		return fmt.Sprintf("owner: uid %d is the user of the sidecar", p.ownerUID)
	case !c.IsNobody():
		return c.label + ": by " + c.match.String()
	}
	for _, c := range p.consumers {
		if c.match.holds(caller) == unknown && p.isOwnUser(caller) {
			return "nobody: the executable cannot be told, and " + c.label + " asks for one"
		}
	}
	return "nobody: no consumer matches " + caller.String()
}

// String tells of the caller what is known.
func (c Caller) String() string {
	var known []string
	if f := c.Peer; f != nil {
		for _, id := range []struct {
			name  string
			value *int
		}{{"uid", f.UID}, {"gid", f.GID}, {"pid", f.PID}} {
			if id.value != nil {
				known = append(known, fmt.Sprintf("%s %d", id.name, *id.value))
			}
		}
		if f.Executable != "" {
			known = append(known, "executable "+f.Executable)
		}
	}
	if c.Token != "" {
		known = append(known, "token "+c.Token)
	}
	if c.Listener != "" {
		known = append(known, "listener "+c.Listener)
	}
	if known == nil {
		return "a caller of whom nothing is known"
	}
	return strings.Join(known, ", ")
}

// match are the criteria of a consumer; what is not set is not asked for.
type match struct {
	uid, gid   *int
	executable string
	token      string
}

// held says whether criteria hold.
type held int

const (
	no held = iota
	yes
	unknown // all others hold, and the executable of the caller cannot be told
)

func (m *match) holds(c Caller) held {
	if m.uid == nil && m.gid == nil && m.executable == "" && m.token == "" {
		return no // for sessions alone
	}
	if m.token != "" && m.token != c.Token {
		return no
	}
	if m.uid == nil && m.gid == nil && m.executable == "" {
		return yes
	}
	f := c.Peer
	switch {
	case f == nil,
		m.uid != nil && (f.UID == nil || *f.UID != *m.uid),
		m.gid != nil && (f.GID == nil || *f.GID != *m.gid):
		return no
	case m.executable == "" || m.executable == f.Executable:
		return yes
	case f.Executable == "":
		return unknown
	}
	return no
}

func (m *match) String() string {
	c := Caller{Peer: &Facts{UID: m.uid, GID: m.gid, Executable: m.executable}, Token: m.token}
	return c.String()
}

func invalid(format string, args ...any) error {
	return backend.Errorf(backend.CodeInvalidConfig, format, args...)
}

func usage(format string, args ...any) error {
	return backend.Errorf(backend.CodeUsage, format, args...)
}
