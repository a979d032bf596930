package resolver

import (
	"path"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/cache"
)

// Config is what a Resolver resolves from. New and Apply copy it.
type Config struct {
	// Providers are the stores by the name that refs use.
	Providers map[string]Provider
	// Cache bounds what is remembered of all providers together.
	Cache CacheLimits
	// RefreshWorkers is the most calls at once, to all stores together, that fetch what nobody waits for: successors, in the
	// background. A provider gives them half of its Concurrency at most. Zero: 32. Apply keeps the first.
	RefreshWorkers int
	// RevisionKey is the key of the HMAC that makes revisions; nil: a random one, so that revisions mean something to this
	// Resolver alone. Apply keeps the first.
	RevisionKey []byte
	// Failures remembers across processes which stores were failing; nil: nothing is remembered on disk. Apply keeps the
	// first.
	Failures *FailureMemory
	// IgnoreFailures begins afresh, whatever Failures remembers of failing stores and used budgets; what happens is
	// remembered as ever.
	IgnoreFailures bool
	// Observe is told of each call to a store when it has ended; nil: nobody is. It must not block, nor call the Resolver. Apply
	// keeps the first.
	Observe func(Call)
	// OnChange is told that what Snapshot gives has changed; nil: nobody is. It must not block, nor call the Resolver. Apply keeps
	// the first.
	OnChange func(Change)
}

// CacheLimits bound the cache.
type CacheLimits struct {
	Entries int   // the most secrets; zero: 10,000
	Bytes   int64 // the greatest sum of their sizes, bookkeeping included; zero: 64 MiB
}

// Provider is one configured store.
type Provider struct {
	// Backend reads the store. The Resolver owns it: it is closed, if it is an io.Closer, when Apply replaces it and by
	// Close.
	Backend backend.Backend
	// Digest names the provider's definition, with those of the providers that it depends on. An Apply with an equal digest
	// keeps login, cache, leases and breaker. Empty: every Apply replaces the provider, and no failure is remembered on disk.
	Digest string

	// TTL is how long a value is fresh. Zero: 5 minutes; negative: nothing is cached. A leased credential is fresh as long
	// as its lease, whatever TTL says.
	TTL time.Duration
	// MaxStale is how long past TTL a value may be served while the store is unavailable, and while its successor is being
	// fetched. Zero or negative: not at all.
	MaxStale time.Duration
	// NegativeTTL is how long "not found" is remembered. Zero: 5 seconds; negative: not at all.
	NegativeTTL time.Duration
	// Idle is how long after its last use a value is still refreshed in the background, to about the time between two fetches.
	// Zero or negative: a value is refreshed if it was used since it was fetched. What an open Handle holds always is.
	Idle time.Duration

	// Check is how often a value that is used, as Idle says, is looked at for a new version, where the backend is a
	// backend.Checker and gives versions: a new one is fetched at once, and nothing else is read. Zero or negative: never. Where
	// the backend is a backend.Watcher what is used is watched, whatever Check says.
	Check time.Duration

	// Scope says which parts of a subject get credentials of their own. Empty: none, everybody shares.
	Scope []Scope
	// IDTemplate makes the store's id from the ref's and the subject: "users/{end_user}/{id}". The parts of the subject are
	// escaped, so that none can reach out of its place. A subject that lacks a part which the template names has no
	// credential. Empty: the ref's id, and the backend is given the subject.
	IDTemplate string

	// Concurrency is the most calls to the store at once. Zero: 32.
	Concurrency int
	// Timeout is the greatest time of one call to the store. Zero: 30 seconds.
	Timeout time.Duration
	// Retries is how many further tries an unavailable or throttling store gets before a caller hears of it. Zero: 2;
	// negative: none.
	Retries int
	// Budget bounds how many calls the store gets. Zero: no limit.
	Budget Budget
	// Breaker says when a failing store is left alone for a while.
	Breaker Breaker

	// Types give a type to secrets whose store does not say. The first match wins; no match: user_value.
	Types []TypeRule
}

// Budget bounds calls to a store.
type Budget struct {
	Calls int           // that many calls; zero: no limit
	Per   time.Duration // in that time; zero: one minute
}

// Breaker says when a failing store is left alone.
type Breaker struct {
	// Failures in a row open it. Zero: 5; negative: never.
	Failures int
	// Open is how long it stays open, at most 60 seconds; then one call tries. Zero: 10 seconds.
	Open time.Duration
}

// TypeRule gives a type to ids.
type TypeRule struct {
	Pattern string // as path.Match takes it, against the ref's id
	Type    backend.Type
}

// Scope is a part of a subject.
type Scope string

// The parts of a subject that a provider can be scoped by.
const (
	ScopeSession Scope = "session"
	ScopeEndUser Scope = "end_user"
	ScopeTenant  Scope = "tenant"
	ScopePlugin  Scope = "plugin"
)

// The defaults, and the bounds that no configuration moves.
const (
	defaultEntries     = 10_000
	defaultBytes       = 64 << 20
	defaultTTL         = 5 * time.Minute
	leastCheck         = time.Second
	defaultNegativeTTL = 5 * time.Second
	defaultConcurrency = 32
	defaultWorkers     = 32
	defaultTimeout     = 30 * time.Second
	defaultRetries     = 2
	defaultFailures    = 5
	defaultOpen        = 10 * time.Second
	maxOpen            = time.Minute
	maxTTL             = 10 * 365 * 24 * time.Hour // keeps sums of deadlines far from overflow
)

func (l CacheLimits) orDefault() cache.Limits {
	out := cache.Limits{Entries: l.Entries, Bytes: l.Bytes}
	if out.Entries <= 0 {
		out.Entries = defaultEntries
	}
	if out.Bytes <= 0 {
		out.Bytes = defaultBytes
	}
	return out
}

// withDefaults gives p with every zero replaced, and every "none" as zero.
func (p Provider) withDefaults() Provider {
	p.TTL = min(orDefault(p.TTL, defaultTTL), maxTTL)
	p.MaxStale = min(max(p.MaxStale, 0), maxTTL)
	p.Idle = min(max(p.Idle, 0), maxTTL)
	if p.Check > 0 {
		p.Check = min(max(p.Check, leastCheck), maxTTL)
	}
	p.Check = max(p.Check, 0)
	p.NegativeTTL = min(orDefault(p.NegativeTTL, defaultNegativeTTL), maxTTL)
	p.Concurrency = max(orDefault(p.Concurrency, defaultConcurrency), 1)
	if p.Timeout <= 0 {
		p.Timeout = defaultTimeout
	}
	p.Retries = orDefault(p.Retries, defaultRetries)
	p.Breaker.Failures = orDefault(p.Breaker.Failures, defaultFailures)
	p.Breaker.Open = min(orDefault(p.Breaker.Open, defaultOpen), maxOpen)
	if p.Budget.Per <= 0 {
		p.Budget.Per = time.Minute
	}
	return p
}

// orDefault gives def for zero, and zero for what is negative.
func orDefault[T int | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return max(v, 0)
}

func (c Config) validate() error {
	for name, p := range c.Providers {
		if p.Backend == nil {
			return backend.Errorf(backend.CodeInvalidConfig, "provider %s has no backend", name)
		}
		for _, t := range p.Types {
			if _, err := path.Match(t.Pattern, ""); err != nil {
				return backend.Errorf(backend.CodeInvalidConfig, "provider %s: the type pattern %q is malformed", name, t.Pattern)
			}
		}
		if p.Budget.Calls < 0 {
			return backend.Errorf(backend.CodeInvalidConfig, "provider %s: the budget's calls are negative", name)
		}
		if err := validateScope(name, p); err != nil {
			return err
		}
	}
	return nil
}
