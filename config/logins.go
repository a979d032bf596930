package config

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
	"github.com/credresolve/credresolve/resolver/grants"
)

// loginSettings are the section logins: where what logins gave is kept.
type loginSettings struct {
	// Store is the provider in which logins are kept, refresh tokens among them. Empty: the operating system's keychain, a
	// provider of kind keychain with the service credresolve.
	Store string `yaml:"store"`
	// Prefix stands before the ids there, such as secret/credresolve for Vault, whose ids begin with the mount. Empty: credresolve.
	Prefix string `yaml:"prefix"`
	// ManyHosts is set where several hosts share the store, which must compare and swap by itself.
	ManyHosts bool `yaml:"many_hosts"`
}

// LoginStore is the name of the provider in which logins are kept; empty: the operating system's keychain.
func (f *File) LoginStore() string { return f.settings.Logins.Store }

const defaultLoginPrefix = "credresolve"

// checkLogins checks the section logins as far as no provider has to be opened for it.
func (f *File) checkLogins(p *problems) {
	section := f.root.get("logins")
	if section == nil || section.kind != kindMapping {
		return
	}
	l := f.settings.Logins
	if l.Store != "" && f.Provider(l.Store) == nil {
		names := make([]string, 0, len(f.providers))
		for _, def := range f.providers {
			names = append(names, def.Name)
		}
		slices.Sort(names)
		hint := "known providers: " + strings.Join(names, ", ")
		if near := backend.Nearest(l.Store, names); near != "" {
			hint = "did you mean " + near + "?"
		}
		p.add(section.get("store"), "logins.store", "it names a provider that is not configured; %s", hint)
	}
	if n := section.get("prefix"); n != nil && !isLoginPrefix(n.text) {
		p.add(n, "logins.prefix", `expected names of letters, digits, ".", "_" and "-", with "/" between them, and none of them "." or ".."`)
	}
	if l.ManyHosts && l.Store == "" {
		p.add(section.get("many_hosts"), "logins.many_hosts", "the keychain is that of one host; set logins.store to a provider that compares and swaps, such as one of kind vault")
	}
}

func isLoginPrefix(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsFunc(part, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
		}) {
			return false
		}
	}
	return len(s) <= 256
}

// logins keeps what logins give, for the providers of one build.
type logins struct {
	f       *File
	o       Options
	store   *grants.Store
	sources []*chained         // of the token store
	bound   *resolver.Resolver // set before anything is asked
}

// keep gives out with a backend that keeps what logins give, where a person logs in to def.
func (l *logins) keep(def *Provider, out *resolver.Provider) error {
	if !backend.Describe(out.Backend).Login {
		return nil
	}
	if l.o.Untrusted { // it would read what was kept for another file's provider of that name
		if closer, ok := out.Backend.(io.Closer); ok {
			_ = closer.Close()
		}
		out.Backend, out.Digest = untrusted{path: l.f.path}, ""
		return nil
	}
	if way := l.f.loginCycle(def); way != nil {
		return fmt.Errorf("its logins are kept in logins.store, whose settings need it: %s", strings.Join(way, " → "))
	}
	if l.store == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	kept := l.store.Keep(def.Name, out.Backend)
	kept.Bind(def.binding())
	out.Backend = kept
	return nil
}

// open makes the store. A provider of the file is opened anew for it, with sources of its own, so that it lives as long as the
// logins need it, and only when it is needed.
func (l *logins) open() error {
	s := l.f.settings.Logins
	c := grants.Config{
		Prefix: s.Prefix, StateDir: l.o.StateDir, ManyHosts: s.ManyHosts, OnDemand: l.o.LoginOnDemand,
		Changed: func(provider string, req backend.Request) {
			if l.bound != nil {
				l.bound.Wrote(credref.Ref{Provider: provider, ID: req.ID})
			}
		},
	}
	if c.Prefix == "" {
		c.Prefix = defaultLoginPrefix
	}
	if s.Store == "" {
		kind, err := l.f.kinds.Lookup("keychain")
		if err != nil {
			return backend.Errorf(backend.CodeInvalidConfig, "a person logs in to it, and there is no kind keychain to keep that; set logins.store")
		}
		c.Remedy = "set logins.store to a provider that works here, such as one of kind keychain with backend: file; see docs/token-store.md"
		c.Open = func() (backend.Backend, error) {
			return kind.Open(kind.NewConfig(), l.f.host("logins", l.o))
		}
		l.store = grants.NewStore(c)
		return nil
	}
	def := l.f.Provider(s.Store)
	settings, sources := def.settings()
	c.Open = func() (backend.Backend, error) { return def.kind.Open(settings, l.f.host(def.Name, l.o)) }
	tried, err := c.Open() // what it can do is known without a look at it
	if err != nil {
		return fmt.Errorf("logins.store: %w", err)
	}
	err = grants.Suits(tried, s.ManyHosts)
	if closer, ok := tried.(io.Closer); ok {
		_ = closer.Close()
	}
	if err != nil {
		return err
	}
	l.sources = sources
	l.store = grants.NewStore(c)
	return nil
}

// loginCycle gives the providers by which the token store needs def, nil when it does not.
func (f *File) loginCycle(def *Provider) []string {
	store := f.Provider(f.settings.Logins.Store)
	if store == nil {
		return nil
	}
	seen := map[*Provider]bool{}
	var visit func(at *Provider, way []string) []string
	visit = func(at *Provider, way []string) []string {
		way = append(slices.Clip(way), at.Name)
		if at == def {
			return way
		}
		if seen[at] {
			return nil
		}
		seen[at] = true
		for _, ref := range at.Chain {
			if next := f.Provider(ref.Provider); next != nil {
				if found := visit(next, way); found != nil {
					return found
				}
			}
		}
		return nil
	}
	return visit(store, []string{def.Name})
}

// binding says with what server def's logins are made: a refresh token of one is never sent to another, that a project's file
// may give the same name.
func (def *Provider) binding() string {
	parts := []string{def.Kind}
	for _, r := range def.Reach {
		if r.What == backend.ReachAddress {
			parts = append(parts, r.Value)
		}
	}
	slices.Sort(parts[1:])
	if id := def.Text("client_id"); id != "" {
		parts = append(parts, "client "+id)
	}
	return strings.Join(parts, " ")
}

// digest is that of a provider to which a person logs in: with what keeps the logins, it is another.
func (l *logins) digest(key []byte, digests map[*Provider]string, own string) string {
	h := hmac.New(sha256.New, key)
	fmt.Fprintf(h, "%s\n", own)
	if section := l.f.root.get("logins"); section != nil {
		section.digest(h)
	}
	if store := l.f.Provider(l.f.settings.Logins.Store); store != nil {
		fmt.Fprintf(h, "in %s\n", digests[store])
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
