// Package sidecar asks a sidecar, credresolve serve: what a store gives comes from the logins and the cache of another process.
//
// # IDs
//
// PROVIDER/ID: a provider of the sidecar, a slash, and the id that it takes. A version is passed on.
//
// # Configuration
//
// See Config.
//
// # Errors
//
// Those of the sidecar's provider, by their code; beside them the table in errors.go, and those of package client where no
// sidecar answers.
//
// # Capabilities
//
// Batch, probe, revoke, watch.
package sidecar
