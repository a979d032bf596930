// Package openclawexec answers OpenClaw's requests for secrets, as the program of an exec provider: it reads ids as refs, has
// them resolved before the client's patience ends, and says of each id what came of it.
//
// # Ids
//
// An id is read as the first of these that it is:
//
//   - an alias of the configuration;
//   - the encoded form of a ref, which begins with "x:" (see Encode);
//   - <path>/<field> of one provider, where the client's provider is configured to have the ids of OpenClaw's own resolver for Vault;
//   - <provider>/<id>, or <provider>/<id>#<field>.
//
// What the client's grammar cannot carry needs an alias or the encoded form.
package openclawexec
