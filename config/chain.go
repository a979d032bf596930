package config

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// chained is a secret setting of a provider: a ref to another provider, or a literal.
type chained struct {
	at   *node
	path string
	ref  *credref.Ref // nil for a literal
	fine bool         // a literal that by its name is no secret
	to   atomic.Pointer[backend.Source]
}

// source gives the setting as the adapter sees it; a ref works once bind was called.
func (c *chained) source() backend.Source {
	if c.ref == nil {
		return backend.Literal(backend.NewSecretString(c.at.text))
	}
	return backend.NewSource(
		func(ctx context.Context) (backend.Secret, string, error) {
			if to := c.to.Load(); to != nil {
				return to.Get(ctx)
			}
			return backend.Secret{}, "", backend.Errorf(backend.CodeInternal, "%s was asked for before the configuration was open", c.path)
		},
		func(revision string) {
			if to := c.to.Load(); to != nil {
				to.Reject(revision)
			}
		}).Of(credref.Ref{Provider: c.ref.Provider, ID: c.ref.ID, Version: c.ref.Version}.String())
}

func (c *chained) bind(to backend.Source) { c.to.Store(&to) }

// checkChain finds refs to providers that do not exist, and cycles.
func (f *File) checkChain(p *problems) {
	names := make([]string, 0, len(f.providers))
	for _, def := range f.providers {
		names = append(names, def.Name)
	}
	for _, def := range f.providers {
		for _, s := range def.sources {
			if s.ref == nil || slices.Contains(names, s.ref.Provider) {
				continue
			}
			hint := "known providers: " + strings.Join(names, ", ")
			if near := backend.Nearest(s.ref.Provider, names); near != "" {
				hint = "did you mean \"" + near + "\"?"
			}
			p.add(s.at, s.path, "unknown provider %q; %s", s.ref.Provider, hint)
		}
	}
	done := make(map[string]bool)
	var visit func(def *Provider, way []string) bool
	visit = func(def *Provider, way []string) bool {
		if done[def.Name] {
			return false
		}
		if i := slices.Index(way, def.Name); i >= 0 {
			p.add(def.sources[0].at, "providers."+def.Name, "its settings need itself: %s", strings.Join(append(way[i:], def.Name), " → "))
			return true
		}
		for _, ref := range def.Chain {
			if next := f.Provider(ref.Provider); next != nil && visit(next, append(slices.Clip(way), def.Name)) {
				return true
			}
		}
		done[def.Name] = true
		return false
	}
	for _, def := range f.providers {
		if visit(def, nil) {
			return
		}
	}
}
