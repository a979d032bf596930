// Package vault reads and writes secrets of HashiCorp Vault and of OpenBao, which speaks the same API.
//
// # IDs
//
// The path as "vault kv get" and "vault read" take it, mount first and without data/: kv/app/db, database/creds/app.
// Where the provider sets Mount, ids are relative to it: app/db. Segments are neither empty nor dots.
//
// A secret has the fields that the store has; a text is its text, another JSON value its compact JSON. Of kv version 2
// a version is a number from 1; other paths have no versions. Every path that answers to a read will do; those that want a
// write, such as pki/issue/web, will not.
//
// # Configuration
//
// See Config. What is not set comes from the variables that the vault command reads, through Host.LookupEnv: VAULT_ADDR,
// VAULT_AGENT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE, VAULT_CACERT, VAULT_CACERT_BYTES, VAULT_CAPATH, VAULT_CLIENT_CERT,
// VAULT_CLIENT_KEY, VAULT_TLS_SERVER_NAME, VAULT_SKIP_VERIFY, VAULT_CLIENT_TIMEOUT, VAULT_PROXY_ADDR, VAULT_HTTP_PROXY and
// VAULT_HEADERS; for each that is absent, OpenBao's BAO_ variable of the same name.
//
// # Errors
//
// See the tables in errors.go. Vault answers 403 to what a policy denies as well as to a token that it no longer knows:
// the token is then asked to look itself up. A dead one is replaced by one new login, and the request repeated once.
//
// # Capabilities
//
// Probe (logs in, and looks the token up), check (kv version 2, for a policy that may read metadata/), renew, revoke,
// write (strength store: kv version 2 has check-and-set), list (key-value engines).
//
// The token of a login is renewed after two thirds of its life, and replaced by a new login when it cannot be renewed any
// further; a token that was handed over is renewed as long as it can be. That begins with the first use and ends with Close.
package vault
