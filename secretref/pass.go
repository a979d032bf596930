package secretref

import (
	"context"
	"sync"

	"github.com/credresolve/credresolve/backend"
)

// Host is what a pass sees of the machine.
type Host struct {
	// LookupEnv reads an environment variable. Nil: there are none.
	LookupEnv func(string) (string, bool)
	// Home is what "~" at the start of a path stands for. Empty: such a path is refused.
	Home string
	// Dir is where relative paths start. Empty: the working directory.
	Dir string
	// Owners are the users who may own files and programs. Empty: the effective user for files, the real one for programs.
	Owners []int
}

func (h Host) lookup(name string) (string, bool) {
	if h.LookupEnv == nil {
		return "", false
	}
	return h.LookupEnv(name)
}

// Outcome is what became of one ref: a value or an error.
type Outcome struct {
	Ref Ref
	// Value is the text of a string. IsJSON tells the JSON text of another value: a number, true, an object, null.
	Value backend.Secret
	// Err is an *Error, what Grammar.Check says of the ref (a *RefError or ErrForeign), or the context's error.
	Err error
}

// Resolve is one pass over refs. It gives one Outcome for each, in their order: a ref that fails takes no other with it,
// except where a provider as a whole fails. Refs that are the same are resolved once. Providers are asked four at a time,
// each once; a file is read once, and a provider of source exec is one process. Nothing is kept for a later pass.
//
// Resolve returns soon after ctx is done; what had no value by then has ctx's error. It is safe for concurrent use.
func Resolve(ctx context.Context, c Config, h Host, refs []Ref) []Outcome {
	outcomes := make([]Outcome, len(refs))
	groups, inOrder := groupRefs(c, refs, outcomes)
	slots := make(chan struct{}, c.Limits.concurrency())
	var wait sync.WaitGroup
	for _, g := range inOrder {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			g.resolve(ctx, c, h)
		})
	}
	wait.Wait()

	for i, r := range refs {
		if outcomes[i].Err != nil {
			continue
		}
		a := groups[providerKey{r.Source, r.Provider}].answers[trim(r.ID)]
		outcomes[i].Value, outcomes[i].Err = a.value, a.err
	}
	return outcomes
}

type providerKey struct {
	source   Source
	provider string
}

// answer is what a provider has for one id.
type answer struct {
	value backend.Secret
	err   error
}

// asking is a group on its way.
type asking struct {
	group
	refs    int // OpenClaw counts refs that differ in the white space around their id twice
	answers map[string]answer
}

// groupRefs sorts refs by provider, each id once, in the order of refs. What is not well formed gets its Outcome at once.
func groupRefs(c Config, refs []Ref, outcomes []Outcome) (groups map[providerKey]*asking, inOrder []*asking) {
	grammar := Grammar{Compat: c.Compat}
	groups = make(map[providerKey]*asking)
	seen := make(map[Ref]bool, len(refs))
	for i, r := range refs {
		outcomes[i].Ref = r
		if err := grammar.Check(r); err != nil {
			outcomes[i].Err = err
			continue
		}
		if seen[r] {
			continue
		}
		seen[r] = true
		key := providerKey{r.Source, r.Provider}
		g := groups[key]
		if g == nil {
			g = &asking{group: group{source: r.Source, provider: r.Provider}, answers: make(map[string]answer)}
			groups[key], inOrder = g, append(inOrder, g)
		}
		g.refs++
		id := trim(r.ID)
		if _, known := g.answers[id]; !known {
			g.answers[id] = answer{}
			g.ids = append(g.ids, id)
		}
	}
	return groups, inOrder
}

// resolve asks the provider and fills the answers.
func (g *asking) resolve(ctx context.Context, c Config, h Host) {
	answers, err := g.ask(ctx, c, h)
	if ctx.Err() != nil && err != nil {
		err = ctx.Err()
	}
	for i, id := range g.ids {
		a := answer{err: err}
		if err == nil {
			a = answers[i]
		}
		switch {
		case a.err != nil:
		case a.value.IsZero():
			a.err = g.refuse(RefProviderContract, id, "Secret provider %q did not return id %q.", g.provider, visible(id))
		case isPlaceholder(a.value, c.Compat):
			a = answer{err: g.refuse(RefRedactedValue, id, `Secret reference "%s" resolves to a redaction placeholder; store the real credential.`,
				visible(Ref{g.source, g.provider, id}.Key()))}
		}
		g.answers[id] = a
	}
}

// ask gives one answer for each id, or the error of the whole provider.
func (g *asking) ask(ctx context.Context, c Config, h Host) ([]answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if limit := c.Limits.refsPerProvider(); g.refs > limit {
		return nil, g.failf(ProviderInvalid, "Secret provider %q exceeded maxRefsPerProvider (%d).", g.provider, limit)
	}
	p, err := c.provider(&g.group)
	if err != nil {
		return nil, err
	}
	switch {
	case p.Env != nil:
		return p.Env.resolve(&g.group, h), nil
	case p.File != nil:
		return p.File.resolve(ctx, &g.group, c, h)
	case p.Exec != nil:
		return p.Exec.resolve(ctx, &g.group, c, h)
	}
	return nil, g.failf(ProviderInvalid, "Secret provider %q has no settings.", g.provider)
}

// provider gives the provider of a group. Source env has one without any entry: the default one, which reads everything.
func (c Config) provider(g *group) (Provider, error) {
	p, configured := c.Providers[g.provider]
	builtIn := g.source == Env && g.provider == c.Defaults.Of(Env)
	switch {
	case configured && p.Source == g.source:
		return p, nil
	case builtIn && (!configured || c.Compat == Newest):
		return Provider{Source: Env, Env: &EnvProvider{}}, nil
	case !configured:
		return Provider{}, g.failf(ProviderNotConfigured, "Secret provider %q is not configured (ref: %s).", g.provider, visible(Ref{g.source, g.provider, g.ids[0]}.Key()))
	}
	return Provider{}, g.failf(ProviderInvalid, "Secret provider %q has source %q but ref requests %q.", g.provider, p.Source, g.source)
}

// longestPlaceholder is the size up to which a value is compared with the placeholders, white space around them included.
const longestPlaceholder = 256

func isPlaceholder(v backend.Secret, c Compat) bool {
	if v.IsJSON() || v.Len() > longestPlaceholder {
		return false
	}
	found := false
	_ = v.Use(func(b []byte) error {
		b = trimBytes(b)
		found = placeholders[string(b)] && (c == Newest || string(b) == reserved) // no copy is made of either
		return nil
	})
	return found
}

// Expected is the type of value that a consumer takes.
type Expected string

// The types.
const (
	String         Expected = "string"           // a text that is not blank
	StringOrObject Expected = "string-or-object" // or a JSON object
)

// CheckValue reports whether v is what the consumer at path takes; its error is a *ValueError. The zero Expected is String.
func CheckValue(path string, v backend.Secret, e Expected) error {
	if isPlaceholder(v, Newest) {
		return &ValueError{Path: path, Expected: e, Placeholder: true}
	}
	fits := false
	_ = v.Use(func(b []byte) error {
		if v.IsJSON() {
			fits = e == StringOrObject && len(b) > 0 && b[0] == '{'
		} else {
			fits = len(trimBytes(b)) > 0
		}
		return nil
	})
	if !fits {
		return &ValueError{Path: path, Expected: e}
	}
	return nil
}
