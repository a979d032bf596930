// Package json5 reads JSON5, and JSON with comments, with the places of everything in the bytes; and changes values in a
// document without touching the rest of its text: comments, order, quotes and layout stay as their author wrote them.
//
// Read gives events, Parse gives a tree. Both are for one goroutine per call; a File is immutable and safe for concurrent use.
package json5
