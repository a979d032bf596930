// Package document finds CredentialRefs in configuration files and puts values in their place. It reads YAML, JSON
// (with or without comments), JSON5, TOML and .env files.
//
// Nothing is ever written anew from a parsed form. Parse remembers at which bytes each ref stands, Render splices those
// bytes and copies all others: comments, order, indentation, line ends and every unusual spelling survive, and a
// document without refs comes back byte for byte.
//
// # What is a ref
//
//   - A string that starts with cred:// is a ref in short form; a malformed one is an error. cred:// further inside a
//     text means nothing.
//   - A map with the strings provider and id, and no key beyond version, field, optional, default and fallback. A map
//     with any other key is somebody else's, and stays.
//
// Options.Foreign adds refs of another kind, whose maps and texts it knows: they are found and replaced in the same way.
//
// Keys of maps are never refs. Options.Refs limits refs to the short form, Options.Ignore leaves parts of a document alone.
//
// # Errors
//
// Errors are *backend.Error, those of a document of code usage, one for each thing that is wrong, joined by errors.Join;
// each is one line, file:line:column: path: reason, and holds no value of the document, since any may be a secret.
package document
