// Package config opens a configuration file, credresolve.yaml: it reads the providers that the file declares and makes a
// resolver of them.
//
//	r, err := config.Open("credresolve.yaml", vault.Kind(), keychain.Kind())
//	if err != nil { … }
//	defer r.Close()
//	password, err := r.Resolve(ctx, credref.Ref{Provider: "app", ID: "kv/app/db", Field: "password"})
//
// A provider's secret settings may be refs to other providers; the graph of such refs has no cycle, which is checked when
// the file is loaded. Loading and opening do no I/O beyond the file itself: a provider is reached when it is first asked.
package config
