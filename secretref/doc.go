// Package secretref resolves SecretRefs, the static references {source, provider, id} of OpenClaw, as OpenClaw does: eagerly,
// in one pass, each provider asked once. It knows nothing of CredentialRefs and of the Resolver behind them.
//
// # Refs
//
// A [Grammar] says what in a document is a ref and whether it is well formed. An object with exactly the keys source,
// provider and id is one everywhere; "${NAME}", "$NAME" and objects without a provider are so in OpenClaw's own files alone.
//
// # Providers
//
// [DecodeConfig] reads the providers from the "secrets" section of an OpenClaw document. Source env reads environment
// variables, file a JSON file or a file that is one value, exec asks a program by the exec protocol, version 1. Source store
// is OpenClaw's own database: such a ref is recognised, and fails with [ErrForeign].
//
// Files and programs must belong to the user, must not be links, and must not be open to others: a file to reading and
// writing, a program to writing. A file must also have no second name (hard link), and is the same, by device and inode,
// before and after it is read. Where these rules cannot be checked, which is on Windows, both are refused.
//
// # A pass
//
// [Resolve] asks each provider once, four at a time, and starts one process per provider of source exec. A value is whatever
// the provider has, also a number or an object; [CheckValue] says whether a consumer takes it.
//
// # Releases
//
// The rules are those of OpenClaw 2026.9.6. [V2026_3_2] has the older ones where they differ. In three places this package is
// stricter or quieter than that release: it never shows what a program says of its failure, since that may be the secret; it
// ends a program's descendants with it; and it reads no FIFO or device.
package secretref
