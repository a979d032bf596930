// Package file reads secrets from a file: the whole of it, or a key of a JSON, YAML or dotenv document; and from the files of
// a directory that a container's runtime mounted.
//
// # IDs
//
// "value" is the whole file. In a document of mode json or yaml an id that starts with "/" is an RFC 6901 JSON Pointer, in
// which a key named value is "/value"; any other id is a key at the top, taken literally. In mode dotenv it is a variable's name.
// Where path is a directory, which needs a layout for containers, an id is the name of a file in it.
//
// A text is given as it is, every other value as its compact JSON text, numbers in their own digits. An object's members,
// also those of a text that holds an object, are fields.
//
// # Configuration
//
// See Config. A file is refused that others could read or have written, as ssh refuses such keys: by its owner, its mode, its
// links, and the directories above it.
//
// # Errors
//
// See the table in errors.go. A missing file is a missing secret. A file that cannot be parsed is unavailable, since it may be
// that somebody is just writing it. An error names places in the file, never its content.
//
// # Capabilities
//
// Batch (one reading for all ids), probe, check (by the file's identity, size and times), list, watch (by events of the
// directory; a directory above it that is replaced is noticed by the time of a value alone).
package file
