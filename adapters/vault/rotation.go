package vault

import (
	"context"
	"errors"
	"strconv"

	"github.com/credresolve/credresolve/backend"
)

var _ backend.RotationReader = (*Backend)(nil)

// GetRotation implements backend.RotationReader: the version before current, of a KV mount of version 2, unless it was deleted.
func (b *Backend) GetRotation(ctx context.Context, req backend.Request, current *backend.Credential) ([]*backend.Credential, error) {
	n, err := strconv.Atoi(current.Version)
	if req.Version != "" || err != nil || n < 2 {
		return nil, nil
	}
	c, err := b.Get(ctx, backend.Request{ID: req.ID, Version: strconv.Itoa(n - 1)})
	switch {
	case errors.Is(err, backend.ErrNotFound), errors.Is(err, errors.ErrUnsupported):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return []*backend.Credential{c}, nil
}
