package main

import (
	"github.com/credresolve/credresolve/adapters/env"
	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/backend"
)

// kinds are the stores that this program links: a new one costs one line here.
func kinds() *backend.Registry {
	return backend.NewRegistry(
		env.Kind(),
		memory.Kind(),
	)
}
