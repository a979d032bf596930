package backend

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Kind is an adapter as the configuration sees it.
type Kind struct {
	// Name stands behind "kind:" in a configuration.
	Name string
	// Summary says in half a line what the kind is.
	Summary string
	// NewConfig gives a pointer to a new Config struct of the adapter, its fields tagged `yaml:"snake_case"`, into which
	// a provider's settings are decoded.
	NewConfig func() any
	// Open makes a Backend of what NewConfig gave; it does no I/O. Its errors are ErrInvalidConfig.
	Open func(config any, host Host) (Backend, error)
}

// NewKind gives the Kind of an adapter whose settings are a C. C may have the method Reach() []Reach.
func NewKind[C any](name, summary string, open func(C, Host) (Backend, error)) Kind {
	return Kind{
		Name: name, Summary: summary,
		NewConfig: func() any { return new(C) },
		Open: func(config any, host Host) (Backend, error) {
			c, ok := config.(*C)
			if !ok {
				return nil, Errorf(CodeInternal, "kind %s was given a %T", name, config)
			}
			return open(*c, host)
		},
	}
}

// Host is what an adapter may know of the program that it is part of.
type Host struct {
	// Provider is the name of the instance that is opened.
	Provider string
	// Dir is the absolute directory to which relative paths of the settings belong; empty: the working directory.
	Dir string
	// StateDir is a directory of this user, mode 0700, for locks and keys; empty: the adapter does without.
	StateDir string
	// Interactive allows the backend to let the operating system ask the user.
	Interactive bool
	// LookupEnv finds environment variables; nil: os.LookupEnv.
	LookupEnv func(name string) (string, bool)
}

// Reacher is a Config that tells what a provider touches outside of its own process. A Config that is no Reacher is held
// to touch everything.
type Reacher interface{ Reach() []Reach }

// Reach is one thing outside that a provider touches.
type Reach struct {
	What  ReachType
	Value string // a path, relative to Host.Dir if not absolute; an address; a name
}

// ReachType says what sort of thing a Reach is.
type ReachType string

// The sorts of things that a provider touches.
const (
	ReachFile        ReachType = "file"
	ReachExecutable  ReachType = "executable"
	ReachArgument    ReachType = "argument" // of the executable before it
	ReachAddress     ReachType = "address"
	ReachEnvironment ReachType = "environment variable"
	ReachKeychain    ReachType = "keychain"
)

// Registry is the list of kinds that a program links. It is immutable.
type Registry struct{ kinds map[string]Kind }

// NewRegistry gives a Registry of kinds; it panics when a name is empty or stands twice.
func NewRegistry(kinds ...Kind) *Registry {
	r := &Registry{kinds: make(map[string]Kind, len(kinds))}
	for _, k := range kinds {
		if _, twice := r.kinds[k.Name]; twice || k.Name == "" {
			panic(fmt.Sprintf("backend: kind %q is registered twice or has no name", k.Name))
		}
		r.kinds[k.Name] = k
	}
	return r
}

// Names lists the kinds in order.
func (r *Registry) Names() []string { return slices.Sorted(maps.Keys(r.kinds)) }

// Lookup gives the kind of that name. Its error is ErrInvalidConfig and names the known kinds and the nearest one.
func (r *Registry) Lookup(name string) (Kind, error) {
	if k, ok := r.kinds[name]; ok {
		return k, nil
	}
	names := r.Names()
	e := Errorf(CodeInvalidConfig, "unknown kind %q; known kinds: %s", name, strings.Join(names, ", "))
	if near := Nearest(name, names); near != "" {
		e.Remedy = fmt.Sprintf("did you mean %q?", near)
	}
	return Kind{}, e
}

// Nearest gives the one of names that is spelled most like name, empty when none is near: more than a third of its
// letters would have to change.
func Nearest(name string, names []string) string {
	best, bestDistance := "", len(name)/3+2
	for _, n := range names {
		if d := len(name) - len(n); max(d, -d) >= bestDistance {
			continue // also keeps a very long name from costing time
		}
		if d := editDistance(name, n); d < bestDistance && d < len(n) {
			best, bestDistance = n, d
		}
	}
	return best
}

// editDistance is the Levenshtein distance in bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
