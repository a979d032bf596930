// Package safefile opens files that nobody but their owner, or root, can have tampered with, and tells what is wrong with
// the others.
//
// A secret's file must not be readable by others, a program's file not writable by others, and neither may be reached
// through a directory or a link in which others could have put something else. What is too open, and who is trusted, is a
// Policy: the value holds for one kind of use, so that callers with different rules share the code.
//
// On Unix the path is walked one component at a time with openat(2), never following a link in the kernel. Every check
// looks at an open descriptor, so that nothing can be exchanged between check and use; what is read is compared with the
// file's identity and times before and after. On Windows owner and mode are not looked at: its access lists say who may
// read a file, and the default ones of a user's profile let in nobody else. Links, sorts of file and sizes are checked there
// too, by path.
//
// The errors are *Error, or the context's. They name paths, never contents.
package safefile
