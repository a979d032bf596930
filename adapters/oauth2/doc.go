// Package oauth2 gets tokens of an OAuth 2.0 authorization server or OpenID provider: for a program by its own credentials,
// and for a person who logs in once.
//
// # IDs
//
// The account that a login is for, a name of the user's choice: work, alice@example.com. With the grants client_credentials
// and token_exchange, where nobody logs in, the only id is "default".
//
// # Configuration
//
// See Config. Endpoints are discovered from the issuer (OpenID Connect Discovery 1.0, else RFC 8414) unless they are set.
//
// # Errors
//
// See the table in errors.go. No error holds a token, a code, a verifier, an assertion, or text of the server beyond the
// error codes that the standards name.
//
// # Capabilities
//
// Login (authorization code with PKCE, RFC 7636 and RFC 8252; device code, RFC 8628), refresh (with rotation), revoke
// (RFC 7009), probe (discovery). What a login gave is kept by the resolver, never by this package: Get answers
// ErrAuthRequired where a person has to log in, and Refresh makes a successor of what is kept.
package oauth2
