// Package env reads secrets from environment variables of the process that asks.
//
// # IDs
//
// The name of a variable: letters, digits and "_", "-", ".", not starting with a digit. A variable whose text is a JSON object
// has its members as fields.
//
// # Configuration
//
// See Config. Only variables on the allow-list can be read: a document that somebody else wrote must not turn the whole
// environment, with whatever it holds, into configuration values.
//
// # Errors
//
// See the table in errors.go. Whether a variable is on the allow-list is looked at first, so that nothing can be learnt about
// the others.
//
// # Capabilities
//
// Probe, list. What it gives depends on the process that asks, so a sidecar does not answer in its place.
package env
