package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/credref/document"
	"github.com/credresolve/credresolve/resolver"
)

// settled is what became of a place in a document.
type settled struct {
	how    how
	used   credref.Ref     // the ref that was found, for howRef and howFallback
	value  *resolver.Value // for howRef and howFallback
	static backend.Secret  // that of a SecretRef, instead of used and value
	err    error           // for howFailed
}

// how says where the value of a place comes from.
type how string

const (
	howRef      how = "ok"
	howFallback how = "fallback"
	howDefault  how = "default"
	howRemoved  how = "removed"
	howFailed   how = "error"
)

// settle resolves the refs of sites: all first choices together, then the fallbacks of those not found together, and so
// on. Only what is not found gives way to the next choice, to the default, and at last to removal. Meanwhile SecretRefs, which
// know no choices, resolve in their own way.
func (s *session) settle(ctx context.Context, sites []*document.Site) []settled {
	out := make([]settled, len(sites))
	var open, static []int // sites without an answer
	for i, site := range sites {
		if site.Foreign != nil {
			static = append(static, i)
		} else {
			open = append(open, i)
		}
	}
	var others sync.WaitGroup
	others.Go(func() { s.settleStatic(ctx, sites, static, out) })
	defer others.Wait()
	for round := 0; len(open) > 0; round++ {
		refs := make([]credref.Ref, len(open))
		for k, i := range open {
			refs[k] = sites[i].Ref
			if round > 0 {
				refs[k] = sites[i].Fallback[round-1]
			}
		}
		var missing []int
		for k, o := range s.resolve(ctx, refs) {
			i := open[k]
			site := sites[i]
			switch {
			case o.Err == nil && round == 0:
				out[i] = settled{how: howRef, used: o.Ref, value: o.Value}
			case o.Err == nil:
				out[i] = settled{how: howFallback, used: o.Ref, value: o.Value}
			case !errors.Is(o.Err, backend.ErrNotFound):
				out[i] = settled{how: howFailed, err: o.Err}
			default:
				if round == 0 {
					out[i].err = o.Err // the first choice is what a person meant
				}
				switch {
				case round < len(site.Fallback):
					missing = append(missing, i)
				case !site.Default.IsZero():
					out[i] = settled{how: howDefault}
				case site.Optional:
					out[i] = settled{how: howRemoved}
				default:
					out[i].how = howFailed
				}
			}
		}
		open = missing
	}
	return out
}

// secret is the value that a place gets; removed is true when it gets none.
func (o settled) secret(site *document.Site) (s backend.Secret, removed bool) {
	switch o.how {
	case howDefault:
		return site.Default, false
	case howRemoved:
		return s, true
	}
	if site.Foreign != nil {
		return o.static, false
	}
	return o.value.Secret(), false
}

// at is an error with its place in a document.
type at struct {
	site *document.Site
	err  error
}

func (e *at) Error() string {
	if e.site.Line == 0 { // a flag
		return fmt.Sprintf("%s %s: %v", e.site.File, e.site.Path, e.err)
	}
	return fmt.Sprintf("%s:%d:%d: %s: %v", e.site.File, e.site.Line, e.site.Column, e.site.Path, e.err)
}

func (e *at) Unwrap() error { return e.err }

// failures gives the errors of sites, each with its place; what a signal did is one error without a place.
func failures(sites []*document.Site, outcomes []settled) []error {
	errs := make([]error, len(sites))
	for i, o := range outcomes {
		if o.err == nil || o.how != howFailed {
			continue
		}
		errs[i] = o.err
		if by := (interrupted{}); !errors.As(o.err, &by) {
			errs[i] = &at{sites[i], o.err}
		}
	}
	return errs
}

// warnOfDefaults warns of defaults that look like secrets: a document is no place for those.
func (a *app) warnOfDefaults(sites []*document.Site) {
	for _, site := range sites {
		if site.Default.IsZero() || site.Default.IsJSON() {
			continue
		}
		_ = site.Default.Use(func(b []byte) error {
			if looksSecret(site.Path, string(b)) {
				a.warn("%s:%d:%d: %s: the default looks like a secret; put it into a store and write a fallback", site.File, site.Line, site.Column, site.Path)
			}
			return nil
		})
	}
}

// looksSecret guesses by the name of the place and by the text: the prefixes that services give to their keys so that
// scanners find them, or long, without spaces and as mixed as a random text is.
func looksSecret(path, text string) bool {
	if text == "" {
		return false
	}
	name := strings.ToLower(path[strings.LastIndexAny(path, "./")+1:])
	for _, word := range []string{"passw", "passphrase", "secret", "token", "api_key", "apikey", "private_key", "credential"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	for _, prefix := range []string{"AKIA", "ASIA", "ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "sk-", "sk_live_", "xox", "hvs.", "hvb.", "AIza", "ya29.", "-----BEGIN "} {
		if strings.HasPrefix(text, prefix) {
			return true
		}
	}
	return len(text) >= 20 && !strings.ContainsAny(text, " /:.") && strings.ContainsAny(text, "0123456789") && entropy(text) > 3.7
}

// entropy is Shannon's, in bits for each byte.
func entropy(s string) float64 {
	var counts [256]int
	for i := range len(s) {
		counts[s[i]]++
	}
	h := 0.0
	for _, n := range counts {
		if n > 0 {
			p := float64(n) / float64(len(s))
			h -= p * math.Log2(p)
		}
	}
	return h
}
