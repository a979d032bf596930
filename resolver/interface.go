package resolver

import (
	"context"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// Interface is what a program resolves by, whoever answers: a Resolver of its own, or a sidecar's client. The answers are the
// same.
type Interface interface {
	// Resolve gives what ref points to. Errors are a *RefError.
	Resolve(ctx context.Context, ref credref.Ref) (*Value, error)
	// ResolveAll gives one Outcome for each of refs, in their order.
	ResolveAll(ctx context.Context, refs []credref.Ref) []Outcome
	// Watch gives the events of refs until ctx ends; then the channel is closed.
	Watch(ctx context.Context, refs ...credref.Ref) <-chan Event
	// Report tells that the value of that revision was refused, and gives a newer one if there is.
	Report(ctx context.Context, ref credref.Ref, revision string) (*Value, error)
	// Revoke ends the credential of ref, here and at its store.
	Revoke(ctx context.Context, ref credref.Ref) error
	// Close lets go of what is held; nothing is answered after it.
	Close() error
}

var _ Interface = (*Resolver)(nil)

// FieldRequired is the error of a ref that names none of several fields, of which none is called "value".
func FieldRequired(fields map[string]backend.Secret) error {
	return &backend.Error{
		Code:   backend.CodeFieldRequired,
		Reason: "the secret has several fields: " + listNames(fields),
		Remedy: "name one with #field",
	}
}
