package awssm

import (
	"context"
	"errors"

	"github.com/credresolve/credresolve/backend"
)

var _ backend.RotationReader = (*Backend)(nil)

// GetRotation implements backend.RotationReader: AWSPENDING, which the service may have taken already, and AWSPREVIOUS, which it
// may still have (https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_managed.html).
func (b *Backend) GetRotation(ctx context.Context, req backend.Request, current *backend.Credential) ([]*backend.Credential, error) {
	if req.Version != "" {
		return nil, nil
	}
	var beside []*backend.Credential
	for _, stage := range []string{"stage:AWSPENDING", "stage:AWSPREVIOUS"} {
		c, err := b.Get(ctx, backend.Request{ID: req.ID, Version: stage})
		switch {
		case errors.Is(err, backend.ErrNotFound):
		case err != nil:
			return beside, err
		case c.Version != current.Version:
			beside = append(beside, c)
		}
	}
	return beside, nil
}
