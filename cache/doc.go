// Package cache is a bounded cache whose hits take no lock: golang-lru decides what stays, and a read-mostly front
// answers.
//
// There are two names for what it holds. A key K names one secret, of which an Entry knows everything; a ref is one way to
// ask for a secret or for a part of it, and the answer to it is a V. Ten refs to ten fields of one secret are ten Slots
// that show parts of one Entry. A Slot answers until the deadline of its Entry, and ending the Entry, by one atomic write,
// ends every Slot at once.
//
// The cache reads no clock: callers pass the time and set deadlines on the same scale, whatever that is. It never calls
// back but to tell that an entry has left.
package cache
