// Package authprofiles reads the auth profiles of an OpenClaw agent, and writes profiles of its own beside them.
//
// # IDs
//
// The id of a profile, as `openclaw models auth list` shows it: "openai:default". The agent's own profiles come first, then
// those of the base that it inherits from.
//
// The secret is the key of a profile of type api_key, the token of type token, the access token of type oauth. The end of a
// token or of an access token is the credential's expiry. A key or token that holds a JSON object has its members as fields.
// An oauth profile has the field access, and those of expires, email, accountId, projectId, clientId, enterpriseUrl,
// tokenEndpoint and issuer that it holds; refresh and idToken alone with the setting refresh_tokens.
//
// # Configuration
//
// See Config. The files are held to the rules of kind file: nobody else may read them or have written them. A database is
// read without a lock and without any file of its own, also while a gateway writes it.
//
// # Errors
//
// See the table in errors.go; package authstore has those of the files. A profile whose secret is a SecretRef is unsupported,
// and the error names the ref: what it leads to is OpenClaw's to resolve, or a ref of one's own. One that leads back to
// credresolve would be a loop.
//
// # Capabilities
//
// Batch (one reading for all ids), probe, check (by the file's identity, size and times, or the row's time), list, write where
// profiles are in a file (strength host: compared under the lock that OpenClaw takes, and again before the file is exchanged).
// A profile that is written is marked in its metadata; one without the mark is never replaced or deleted.
package authprofiles
