// Package exec gets secrets from a program of the user's choice.
//
// # IDs
//
// Whatever the program understands.
//
// # Configuration
//
// See Config. The program is run without a shell, in its own directory, with no environment but what the configuration gives
// it, and without a terminal. It speaks the OpenClaw exec protocol, version 1: it reads one JSON request with all ids of a batch
// and writes one JSON response. With output: plain it is run once for each id, and what it prints is the secret.
//
// A program is refused that others could have replaced: it belongs to this user or root, and so does every link and directory on
// the way to it, none of which others can write to. allow_dirs and sha256 narrow that further.
//
// # Errors
//
// See the table in errors.go. The program says by id what failed; when the program itself fails, every id of the batch is
// unavailable. Nothing that a program prints is ever part of an error, a "message" neither.
//
// # Capabilities
//
// Batch (not with output: plain), probe (it looks at the program and does not run it, so it can say no but not yes). What it gives
// depends on the process that asks if pass_env is set.
package exec
