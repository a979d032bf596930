package backend

import "context"

// Rejecter is a Backend that can be told that what it gave was refused where it was used, so that its next Get gives a
// successor even if the credential's life is not over.
type Rejecter interface {
	Backend
	// Reject tells that have was refused. It does nothing when what Get would give is another already.
	Reject(ctx context.Context, req Request, have *Credential) error
}

// RotationReader is a Backend that can give the versions beside the current one that may be in force while a secret is
// being rotated.
type RotationReader interface {
	Backend
	// GetRotation gives those versions, the likeliest first: one that is pending, the previous one. current is what Get gave. None
	// is no error.
	GetRotation(ctx context.Context, req Request, current *Credential) ([]*Credential, error)
}
