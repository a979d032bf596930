// Package client talks to a sidecar, credresolve serve: it resolves refs as package resolver does, with the logins, the
// cache and the refresh of another process.
//
//	c, err := client.New(client.Config{})
//	v, err := c.Resolve(ctx, credref.Ref{Provider: "app", ID: "kv/app/db", Field: "password"})
//
// A Client implements resolver.Interface, as a *resolver.Resolver does: a program can be given either. The package also
// has the wire types of the sidecar's HTTP API, of which its OpenAPI document is made.
package client
