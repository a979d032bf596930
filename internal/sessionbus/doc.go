// Package sessionbus keeps other packages from dialling the D-Bus session bus while the program initialises.
//
// The keyring library that adapters/keychain is built on connects to the session bus in its init, without a limit of
// time: a bus that accepts and never answers would keep every program that links it from reaching main, and every program
// would pay for a connection that most of them never use. Go initialises the packages whose imports are ready in the order
// of their import paths. This one imports nothing but os and sorts before github.com/godbus, which the library needs, so
// that its init comes first and takes the address of the bus out of the environment.
//
// Restore puts the address back. The adapter calls it from its own initialisation, which comes after the library's, so
// that main, and every child, sees the environment as it was.
package sessionbus
