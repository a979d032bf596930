// Package backend is the contract between stores of secrets and the resolver. It imports the standard library
// alone, so that an adapter costs its author nothing but its own SDK.
//
// A Backend has one method, Get. Everything else that a store can do is a capability: a second interface that
// embeds Backend, in a file of its own, with a package function that uses it when present and does the work
// otherwise, or answers errors.ErrUnsupported. A backend may also answer errors.ErrUnsupported from a capability
// that its configuration turns off. A wrapper around a Backend loses its capabilities: do not wrap.
//
// # What an implementer owes
//
//   - Opening does no I/O. Background work starts at first use and ends with Close (io.Closer). Close may be called again,
//     and does not wait for the store; after it every method gives ErrUnavailable.
//   - Every method returns soon after its context is done, and is safe for concurrent use.
//   - No secret is cached, nothing is logged, nothing is retried: the resolver does all of that. One exception: a
//     backend holds and renews its own login, and repeats a request once after a new login. SDK retries are off.
//   - Errors are of this package (see Error): no secret, response body, command output, query string or rejected
//     input is in their text, nor reachable through Unwrap.
//   - A *Credential is not changed after it was returned, by either side.
//
// Package conformance holds a backend to all of this. adapters/memory is the smallest complete adapter and the one to copy.
package backend
