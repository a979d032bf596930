// Package credref is the grammar of CredentialRefs: the pointers to credentials that a configuration holds in
// place of the secrets themselves, and the Subject for whom a credential is resolved.
//
// A Ref is written as a map {provider, id, version, field} or, in short form, as one URI:
//
//	cred://app/kv/app/db?version=3#password
//
// Package document finds refs in configuration files, package resolver turns them into credentials.
package credref
