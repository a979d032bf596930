package main

import (
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/vault"
)

// registry names the built-in plugins this binary carries. Since Vault 1.13 the core consults it on
// every mount, so it must not be nil.
type registry map[consts.PluginType]map[string]func() (any, error)

func (r registry) Contains(name string, t consts.PluginType) bool { _, ok := r[t][name]; return ok }
func (r registry) Get(name string, t consts.PluginType) (func() (any, error), bool) {
	f, ok := r[t][name]
	return f, ok
}
func (r registry) Keys(t consts.PluginType) (keys []string) {
	for k := range r[t] {
		keys = append(keys, k)
	}
	return keys
}
func (r registry) DeprecationStatus(name string, t consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r.Contains(name, t)
}

func extraRegistry() vault.BuiltinRegistry {
	none := func() (any, error) { return nil, nil }
	return registry{
		consts.PluginTypeSecrets: {
			"kv": none, "transit": none, "pki": none, "ssh": none, "totp": none, "database": none,
		},
		consts.PluginTypeDatabase:   {"memdb-database-plugin": newMemdb},
		consts.PluginTypeCredential: {"approle": none, "userpass": none, "cert": none},
	}
}
