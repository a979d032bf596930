// Package static keeps what a person enters once: API keys, and other values that no program can get.
//
// # IDs
//
// The account that a value is for, a name of the user's choice: work, alice@example.com. There are no versions.
//
// # Configuration
//
// See Config: the fields of the form, and how what was entered is checked before it is kept.
//
// # Errors
//
// ErrAuthRequired where nobody has logged in. A check fails with ErrDenied when the service refuses what was entered,
// ErrUnavailable or ErrThrottled when it does not say. No error holds what was entered, or text of the service.
//
// # Capabilities
//
// Login, by a form; probe of a credential, by the check. What a login gave is kept by the resolver, never by this package.
package static
