package env

import (
	"context"
	"iter"
	"os"
	"slices"
	"strings"

	"github.com/credresolve/credresolve/backend"
)

var (
	_ backend.Prober    = (*Backend)(nil)
	_ backend.Lister    = (*Backend)(nil)
	_ backend.Describer = (*Backend)(nil)
)

// Backend reads environment variables. It is safe for concurrent use.
type Backend struct {
	names      map[string]bool // allowed by their full name
	starts     []string        // allowed by how they start
	allowBlank bool
	lookup     func(string) (string, bool)
}

// New gives a Backend that reads the variables that c allows, by host.LookupEnv.
func New(c Config, host backend.Host) (*Backend, error) {
	if len(c.Allow) == 0 {
		return nil, errNoList
	}
	b := &Backend{names: make(map[string]bool), allowBlank: c.AllowBlank, lookup: host.LookupEnv}
	if b.lookup == nil {
		b.lookup = os.LookupEnv
	}
	for i, pattern := range c.Allow {
		switch start, wildcard := strings.CutSuffix(pattern, "*"); {
		case wildcard && (start == "" || validName(start)):
			b.starts = append(b.starts, start)
		case validName(pattern):
			b.names[pattern] = true
		default:
			return nil, errPattern(i)
		}
	}
	return b, nil
}

// Describe implements backend.Describer.
func (b *Backend) Describe() backend.Description {
	return backend.Description{Detail: "environment variables of this process", Fields: true, CallerBound: true}
}

// Get implements backend.Backend.
func (b *Backend) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch {
	case req.Version != "":
		return nil, errVersion
	case !validName(req.ID):
		return nil, errInvalidName
	case !b.allowed(req.ID):
		return nil, errNotAllowed
	}
	text, set := b.lookup(req.ID)
	switch {
	case !set:
		return nil, errNotSet
	case b.missing(text):
		return nil, errBlank
	}
	c := &backend.Credential{Secret: backend.NewSecretString(text)}
	_ = c.Secret.Use(func(text []byte) error {
		c.Fields, _ = backend.FieldsFromJSON(text)
		return nil
	})
	return c, nil
}

// Probe implements backend.Prober: the environment is always there.
func (b *Backend) Probe(ctx context.Context) error { return ctx.Err() }

// List implements backend.Lister. It yields the allowed variables that Get would find.
func (b *Backend) List(ctx context.Context, prefix string) iter.Seq2[backend.Entry, error] {
	return func(yield func(backend.Entry, error) bool) {
		for _, name := range b.candidates() {
			if !strings.HasPrefix(name, prefix) {
				continue
			}
			if err := ctx.Err(); err != nil {
				yield(backend.Entry{}, err)
				return
			}
			if text, set := b.lookup(name); !set || b.missing(text) {
				continue
			}
			if !yield(backend.Entry{ID: name}, nil) {
				return
			}
		}
	}
}

// candidates gives the allowed names in order, each once. Those allowed by their start come from the process's environment,
// since a lookup function cannot name what it knows.
func (b *Backend) candidates() []string {
	var names []string
	for name := range b.names {
		names = append(names, name)
	}
	if len(b.starts) > 0 {
		for _, variable := range os.Environ() {
			if name, _, _ := strings.Cut(variable, "="); validName(name) && b.allowed(name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (b *Backend) allowed(name string) bool {
	return b.names[name] || slices.ContainsFunc(b.starts, func(start string) bool { return strings.HasPrefix(name, start) })
}

func (b *Backend) missing(text string) bool { return !b.allowBlank && strings.TrimSpace(text) == "" }

// validName takes what Kubernetes takes as a variable's name, which is more than the letters, digits and _ of POSIX.
func validName(name string) bool {
	if name == "" || '0' <= name[0] && name[0] <= '9' {
		return false
	}
	return !strings.ContainsFunc(name, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '.')
	})
}
