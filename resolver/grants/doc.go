// Package grants keeps what logins gave: a credential, and the refresh token from which its successors are made.
//
// An adapter of a provider where a person logs in only exchanges. [Store.Keep] wraps it, so that a Resolver sees an ordinary
// Backend: its Get loads the grant that is kept, has it refreshed when that is due, and keeps the successor before it gives it.
// What is kept is one plain secret of a backend.Writer for each provider, id and subject: a JSON document, see record.
//
// A refresh token may be good for one exchange. Within a process one exchange of a grant is under way at a time, for all who
// wait. Between the processes of a host a lock in the state directory is held around read, exchange and write. Between hosts
// the record in the store is a lease, with its owner and end, written by compare-and-swap. Before an exchange the record says
// that one has begun: who finds that and is alone knows that a process ended in between, and that the token may be spent.
package grants
