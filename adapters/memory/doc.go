// Package memory is a store in the memory of the process: for tests, for trying things out, and as the adapter to copy.
//
// # IDs
//
// Any id that a ref may have. A value may have fields, and every write of a value makes a new version: "1", "2", and so
// on, all of which stay readable until the value is deleted.
//
// # Configuration
//
// See Config. The values stand in the configuration in plain text, which is why this kind is not for secrets that matter.
//
// # Errors
//
// See the table in errors.go.
//
// # Capabilities
//
// Batch, probe, check, write (strength store: the comparison happens under one lock), list, watch.
package memory
