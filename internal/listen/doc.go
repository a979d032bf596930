// Package listen opens what a sidecar listens on, and the tokens that callers must bring where the kernel does not say who
// they are.
//
// A Unix socket is where nobody but its owner and root can put another in its place, has its mode before anybody can connect
// to it, and is served by one process: a lock beside it decides who, and a socket that nobody serves any more is taken away
// under that lock alone. A TCP listener is on loopback. What systemd hands over is held to the same. A start that fails leaves
// nothing behind: no socket, no lock, no directory, no descriptor.
//
// Errors are *backend.Error with a remedy. They name paths and addresses, never a token.
package listen
