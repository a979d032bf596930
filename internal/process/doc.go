// Package process runs one program to its end, without a shell, within limits, and leaves nothing behind.
//
// The program gets exactly the arguments, environment, directory and input that it is given. It runs in a process group of
// its own, on Unix also in a session of its own, so that it has no terminal to prompt on. When it ends, or a limit or the
// context ends it, the whole group is killed: first asked to (SIGTERM), after a grace period made to (SIGKILL). A descendant
// that left the group and holds the output open is not waited for, and not killed either: no system call finds it.
//
// On Windows the program and its descendants are in a job object that is terminated at the end. A descendant that it starts
// in the few microseconds before it is in the job escapes.
//
// Standard error is read, counted against the limit, and thrown away. Buffers are zeroed when they are not handed to the
// caller. Errors are *Error, or the context's; no error holds output, arguments or environment.
package process
