// Package jsonstore reads secrets from one JSON object in a file: the smallest complete adapter in a module of its own.
//
// # IDs
//
// The keys of the object.
//
// # Configuration
//
// See Config.
//
// # Errors
//
// See the table in errors.go.
//
// # Capabilities
//
// Probe.
package jsonstore
