package config

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/statedir"
	"github.com/credresolve/credresolve/resolver"
	"github.com/credresolve/credresolve/resolver/grants"
)

// Options are what Open of a File needs to know of the program. The zero Options are good for a program that keeps no
// state on disk.
type Options struct {
	// StateDir is a directory of this user for keys, locks and the memory of failures. Empty: none is kept; revisions
	// and digests then differ from one process to the next.
	StateDir string
	// Interactive allows providers to let the operating system ask the user.
	Interactive bool
	// LookupEnv finds environment variables. Nil: os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// IgnoreFailures makes the first calls in spite of remembered failures.
	IgnoreFailures bool
	// Untrusted refuses every provider that touches more than files below the directory of the configuration.
	Untrusted bool
	// LoginOnDemand lets a resolve without a login begin one, and tell of it in backend.Error.Login. It is for processes that
	// stay, and drive the login that somebody has to make.
	LoginOnDemand bool
	// Observe and OnChange are those of resolver.Config.
	Observe  func(resolver.Call)
	OnChange func(resolver.Change)
}

// Open loads the configuration at path, whose providers are of kinds, and opens it with the zero Options.
func Open(path string, kinds ...backend.Kind) (*resolver.Resolver, error) {
	f, err := Load(path, backend.NewRegistry(kinds...))
	if err != nil {
		return nil, err
	}
	return f.Open(Options{})
}

// Open makes a resolver of the file's providers. It reaches none of them. The caller closes the resolver.
func (f *File) Open(o Options) (*resolver.Resolver, error) {
	c, bind, err := f.build(o)
	if err != nil {
		return nil, err
	}
	r, err := resolver.New(c)
	if err != nil {
		closeAll(c)
		return nil, err
	}
	bind(r)
	return r, nil
}

// Apply replaces the providers of r by those of f. Providers whose definition is the same keep login, cache and leases.
// When it fails, r is as it was.
func (f *File) Apply(r *resolver.Resolver, o Options) error {
	c, bind, err := f.build(o)
	if err != nil {
		return err
	}
	bind(r)
	if err := r.Apply(c); err != nil {
		closeAll(c)
		return err
	}
	return nil
}

func closeAll(c resolver.Config) {
	for _, p := range c.Providers {
		if closer, ok := p.Backend.(io.Closer); ok {
			_ = closer.Close()
		}
	}
}

// build opens the backends; bind then points their sources at the resolver.
func (f *File) build(o Options) (c resolver.Config, bind func(*resolver.Resolver), err error) {
	c = resolver.Config{
		Providers:      make(map[string]resolver.Provider, len(f.providers)),
		Cache:          resolver.CacheLimits{Entries: f.settings.Cache.Entries, Bytes: f.settings.Cache.Bytes},
		IgnoreFailures: o.IgnoreFailures, Observe: o.Observe, OnChange: o.OnChange,
	}
	if o.StateDir == "" {
		c.RevisionKey = make([]byte, statedir.KeySize)
		_, _ = rand.Read(c.RevisionKey)
	} else {
		if c.RevisionKey, err = statedir.Key(o.StateDir, "revision"); err != nil {
			return c, nil, backend.Errorf(backend.CodeInvalidConfig, "%v", err)
		}
		if c.Failures, err = resolver.OpenFailureMemory(filepath.Join(o.StateDir, "failures.json")); err != nil {
			return c, nil, backend.Errorf(backend.CodeInvalidConfig, "%v", err)
		}
	}
	p := &problems{file: f.shown}
	var sources []*chained
	digests, harmless := f.digests(c.RevisionKey), make(map[*Provider]bool)
	kept := &logins{f: f, o: o}
	byLine := func(a, b *Provider) int { return cmp.Compare(a.Line, b.Line) }
	for _, def := range slices.SortedFunc(slices.Values(f.providers), byLine) {
		provider, own, err := f.buildProvider(def, o, digests[def], f.harmless(def, harmless))
		if err != nil {
			p.add(def.node, "providers."+def.Name, "%v", err)
			continue
		}
		if err := kept.keep(def, &provider); err != nil {
			p.add(def.node, "providers."+def.Name, "%v", err)
		} else if _, is := grants.As(provider.Backend); is {
			provider.Digest = kept.digest(c.RevisionKey, digests, provider.Digest)
		}
		c.Providers[def.Name] = provider
		sources = append(sources, own...)
	}
	sources = append(sources, kept.sources...)
	if err := p.err(); err != nil {
		closeAll(c)
		return c, nil, err
	}
	return c, func(r *resolver.Resolver) {
		kept.bound = r
		for _, s := range sources {
			if s.ref != nil {
				s.bind(r.Source(*s.ref))
			}
		}
	}, nil
}

func (f *File) buildProvider(def *Provider, o Options, digest string, harmless bool) (resolver.Provider, []*chained, error) {
	limits := def.common.Limits.or(f.settings.Limits)
	out := resolver.Provider{
		Digest: digest,
		TTL:    orNone(def.common.Cache.TTL), MaxStale: orNone(def.common.Cache.MaxStale), NegativeTTL: orNone(def.common.Cache.NegativeTTL),
		Idle: orNone(def.common.Cache.Idle), Check: orNone(def.common.Cache.Check),
		IDTemplate:  def.common.IDTemplate,
		Concurrency: limits.Concurrency, Timeout: limits.Timeout, Retries: orNone(limits.Retries),
		Budget:  resolver.Budget{Calls: limits.Budget.Calls, Per: limits.Budget.Per},
		Breaker: resolver.Breaker{Failures: orNone(limits.Breaker.Failures), Open: limits.Breaker.Open},
	}
	for _, s := range def.common.Scope {
		out.Scope = append(out.Scope, resolver.Scope(s))
	}
	for _, t := range def.types {
		out.Types = append(out.Types, resolver.TypeRule{Pattern: t.pattern, Type: t.is})
	}
	if o.Untrusted && !harmless {
		out.Backend = untrusted{path: f.path}
		out.Digest = "" // when it is trusted it is another
		return out, nil, nil
	}
	config, sources := def.settings()
	var err error
	out.Backend, err = def.kind.Open(config, f.host(def.Name, o))
	return out, sources, err
}

// settings gives the settings of def's kind, with sources of their own, which belong to the resolver of one build.
func (def *Provider) settings() (config any, sources []*chained) {
	again := *def
	config = def.kind.NewConfig()
	var common providerSettings
	again.decodeInto(&problems{}, "providers."+def.Name, &common, config)
	return config, again.sources
}

// host is what the provider of that name may know.
func (f *File) host(name string, o Options) backend.Host {
	return backend.Host{Provider: name, Dir: f.Dir(), StateDir: o.StateDir, Interactive: o.Interactive, LookupEnv: o.LookupEnv}
}

// orNone maps a setting of the file to the resolver's: there, zero is the default and a negative number is none.
func orNone[T int | time.Duration](setting *T) T {
	switch {
	case setting == nil:
		return 0
	case *setting == 0:
		return -1
	}
	return *setting
}

// digests names the definition of each provider: its settings and those that hold for all, those of the providers in its
// chain, and the directory where a relative path depends on it. They are keyed, since settings may hold a literal secret.
func (f *File) digests(key []byte) map[*Provider]string {
	known := make(map[*Provider]string, len(f.providers))
	var digest func(def *Provider) string
	digest = func(def *Provider) string {
		if known[def] != "" {
			return known[def]
		}
		h := hmac.New(sha256.New, key)
		def.node.digest(h)
		if limits := f.root.get("limits"); limits != nil {
			fmt.Fprintln(h, "limits")
			limits.digest(h)
		}
		if !def.Known || slices.ContainsFunc(def.Reach, relative) {
			fmt.Fprintf(h, "dir %q\n", f.Dir())
		}
		for _, ref := range def.Chain {
			fmt.Fprintf(h, "chain %q\n", ref)
			if next := f.Provider(ref.Provider); next != nil {
				fmt.Fprintf(h, "is %s\n", digest(next))
			}
		}
		known[def] = hex.EncodeToString(h.Sum(nil)[:16])
		return known[def]
	}
	for _, def := range f.providers {
		digest(def)
	}
	return known
}

// relative reports whether r is another thing in another directory. The bare name of a program is looked for in $PATH, and
// ~ is the user's home.
func relative(r backend.Reach) bool {
	switch r.What {
	case backend.ReachFile:
		return !filepath.IsAbs(r.Value) && !strings.HasPrefix(r.Value, "~")
	case backend.ReachExecutable:
		return !filepath.IsAbs(r.Value) && strings.ContainsRune(filepath.ToSlash(r.Value), '/')
	}
	return false
}

// digest writes n in a form in which equal settings are equal: keys of a map in order of their names, but for types, whose
// order matters.
func (n *node) digest(w io.Writer) {
	switch n.kind {
	case kindMapping:
		pairs := slices.Clone(n.pairs)
		slices.SortFunc(pairs, func(a, b pair) int { return compareText(a.key, b.key) })
		fmt.Fprintf(w, "map %d\n", len(pairs))
		for _, p := range pairs {
			fmt.Fprintf(w, "%q\n", p.key.text)
			if p.key.text == "types" {
				for _, t := range p.value.pairs {
					fmt.Fprintf(w, "in order %q\n", t.key.text)
				}
			}
			p.value.digest(w)
		}
	case kindSequence:
		fmt.Fprintf(w, "list %d\n", len(n.items))
		for _, item := range n.items {
			item.digest(w)
		}
	default:
		fmt.Fprintf(w, "%d %q\n", n.kind, n.text)
	}
}

// IsUntrusted reports whether b stands in the place of a provider that needs trust first, see Options.
func IsUntrusted(b backend.Backend) bool {
	_, is := b.(untrusted)
	return is
}

type untrusted struct{ path string }

func (u untrusted) Get(context.Context, backend.Request) (*backend.Credential, error) {
	return nil, u.refuse()
}

// Probe implements backend.Prober.
func (u untrusted) Probe(context.Context) error { return u.refuse() }

// Describe implements backend.Describer.
func (u untrusted) Describe() backend.Description {
	return backend.Description{Detail: "not trusted yet", Versions: true, CallerBound: true}
}

func (u untrusted) refuse() error {
	e := backend.Errorf(backend.CodeDenied, "the project file %s is not trusted", u.path)
	e.Remedy = "read it, then run: credresolve trust " + u.path
	return e
}
