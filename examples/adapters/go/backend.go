package jsonstore

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/credresolve/credresolve/backend"
)

var (
	_ backend.Prober    = (*Backend)(nil)
	_ backend.Describer = (*Backend)(nil)
)

// Backend is a file of secrets. It is safe for concurrent use, and keeps nothing between calls.
type Backend struct{ path string }

// New gives the store of c. It does not look at the file.
func New(c Config) (*Backend, error) {
	if c.Path == "" {
		return nil, errNoPath
	}
	return &Backend{path: c.Path}, nil
}

// Describe implements backend.Describer.
func (b *Backend) Describe() backend.Description {
	return backend.Description{Detail: b.path, Fields: true}
}

// Get implements backend.Backend.
func (b *Backend) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if req.Version != "" {
		return nil, errNoVersion
	}
	text, err := os.ReadFile(b.path)
	defer clear(text)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, errDenied
	case err != nil: // the text of err is not shown: it is for who knows the file system
		return nil, errUnread
	}
	secrets, ok := backend.FieldsFromJSON(text)
	if !ok {
		return nil, errNoJSON
	}
	s, ok := secrets[req.ID]
	if !ok {
		return nil, errNoSecret
	}
	c := &backend.Credential{Secret: s}
	_ = s.Use(func(value []byte) error { // a secret that is an object itself has fields
		c.Fields, _ = backend.FieldsFromJSON(value)
		return nil
	})
	return c, nil
}

// Probe implements backend.Prober: the file is there. It is not opened, since all of it is secret.
func (b *Backend) Probe(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if info, err := os.Stat(b.path); err != nil || !info.Mode().IsRegular() {
		return errUnread
	}
	return nil
}
