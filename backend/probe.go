package backend

import "context"

// Prober is a Backend that can tell whether Get would work, without reading a secret.
type Prober interface {
	Backend
	// Probe reaches the store and logs in. It reads no secret, and fails as Get would for every secret: a store that refuses
	// single secrets is no failure of Probe.
	Probe(ctx context.Context) error
}

// Probe reaches the store of b and logs in; errors.ErrUnsupported when b cannot do so without reading a secret.
func Probe(ctx context.Context, b Backend) error {
	if p, ok := b.(Prober); ok {
		return p.Probe(ctx)
	}
	return unsupported("be probed without reading a secret")
}
