package backend

import (
	"context"
	"iter"
	"time"
)

// Lister is a Backend that can name its secrets.
type Lister interface {
	Backend
	// List yields the secrets whose ids start with prefix, each once, page by page as the caller asks for them, in no
	// particular order. Ids are such that Get takes them. It ends after the first error.
	List(ctx context.Context, prefix string) iter.Seq2[Entry, error]
}

// Entry tells of one secret; it holds no secret.
type Entry struct {
	ID       string
	Version  string    // empty where the store lists none
	Modified time.Time // zero where the store lists none
	Metadata map[string]string
}

// List yields what b can name under prefix; a single errors.ErrUnsupported when b cannot.
func List(ctx context.Context, b Backend, prefix string) iter.Seq2[Entry, error] {
	if l, ok := b.(Lister); ok {
		return l.List(ctx, prefix)
	}
	return func(yield func(Entry, error) bool) { yield(Entry{}, unsupported("list its secrets")) }
}
