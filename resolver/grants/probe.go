package grants

import (
	"context"

	"github.com/credresolve/credresolve/backend"
)

// ProbeStore reaches the token store, reading no secret, and tells in a line what it is and how far its comparisons can be
// relied on. ErrUnsupported when it cannot be probed without reading one.
func (b *Backend) ProbeStore(ctx context.Context) (about string, strength backend.Strength, err error) {
	w, err := b.s.open()
	if err != nil {
		return "", "", err
	}
	err = backend.Probe(ctx, w) // which decides on what it is, where that is not configured
	return backend.Describe(w).Detail, w.Strength(), err
}
