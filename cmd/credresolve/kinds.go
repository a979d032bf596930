package main

import (
	"github.com/credresolve/credresolve/adapters/authprofiles"
	"github.com/credresolve/credresolve/adapters/awssm"
	"github.com/credresolve/credresolve/adapters/env"
	"github.com/credresolve/credresolve/adapters/exec"
	"github.com/credresolve/credresolve/adapters/file"
	"github.com/credresolve/credresolve/adapters/keychain"
	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/adapters/sidecar"
	"github.com/credresolve/credresolve/adapters/static"
	"github.com/credresolve/credresolve/adapters/sts"
	"github.com/credresolve/credresolve/adapters/vault"
	"github.com/credresolve/credresolve/backend"
)

// kinds are the stores that this program links: a new one costs one line here.
func kinds() *backend.Registry {
	return backend.NewRegistry(
		authprofiles.Kind(),
		awssm.Kind(),
		env.Kind(),
		exec.Kind(),
		file.Kind(),
		keychain.Kind(),
		memory.Kind(),
		oauth2.Kind(),
		sidecar.Kind(),
		static.Kind(),
		sts.Kind(),
		vault.Kind(),
	)
}
