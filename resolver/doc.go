// Package resolver turns CredentialRefs into credentials: on demand, through one cache, and fresh for as long as somebody
// uses them. It is the only place with caching, single flight, batching, retry, breaker, refresh and events; adapters have
// none of it.
//
//	r, err := resolver.New(resolver.Config{Providers: map[string]resolver.Provider{"app": {Backend: b}}})
//	v, err := r.Resolve(ctx, credref.Ref{Provider: "app", ID: "kv/app/db", Field: "password"})
//	err = v.Secret().Use(func(password []byte) error { … })
//
// # Outages
//
// A value is fresh for its provider's ttl, never past the end of its life. When a store is unavailable, values that were
// fetched before go on being served up to the provider's max_stale, and Value.Stale says so; a store that answers, and
// denies or does not know the secret, ends them at once. What another process remembered (Snapshot, Restore) is given in the
// same way, where this one has nothing yet. A Demand of a caller bounds how old an answer may be. Failed calls are repeated a few times, then the store is left alone
// for at most a minute at a time.
//
// # Misses
//
// There is one fetch of a secret under way at a time, for all who wait for it. It is detached from its callers: one that
// leaves does not end it for the others. What misses together goes out in the store's batch call; so does what queues while
// all calls that may be under way are. Nothing waits for a batch to fill.
//
// # Life
//
// At two thirds of its life a value that somebody uses, since it was read in its time or has an open Handle, is fetched
// again in the background, or its lease renewed; the successor of a lease that cannot be renewed any more is fetched
// before its end. What nobody uses lapses and its memory is zeroed. What is forgotten while a Handle holds it is fetched again
// at once, and Watch tells of it. A lease that could not be revoked at its store is kept, to be tried again.
package resolver
