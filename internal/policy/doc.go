// Package policy says who a caller of the sidecar is, and what that consumer may do.
//
// A caller is the first configured consumer all of whose stated criteria hold (user id, group id, executable, token), else
// the owner of the process, else nobody. The owner may do everything, nobody nothing, a consumer what its rules allow: what
// no rule allows is denied.
//
// **Patterns.** A rule names providers by a pattern of path.Match, and ids by one of its own: * stands for any characters
// but /, ** for any, ? for one that is not /. There is no escape; a pattern without any of these is a literal text. An id
// that a store might read as another one (a segment . or .., an empty segment, a backslash, a percent-escape) is allowed by a
// literal text alone. An id with a slash at an end where the pattern has none must match without that slash too, since a
// store may drop it.
//
// **Fields.** A rule without fields allows every field and the whole secret. One with fields allows these and what lies
// below them, and the whole secret if it says so. #password and #/password are the same field.
//
// A Policy is built of one configuration and never changes; a reload builds another, and with it the caches of decisions are
// gone. Everything here is safe for concurrent use.
package policy
