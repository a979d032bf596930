// Package keychain keeps secrets where the operating system does: the Secret Service (GNOME Keyring, KeePassXC, KWallet),
// KWallet, the macOS Keychain, the Windows Credential Manager, pass, the Linux kernel's keyrings, or encrypted files.
//
// # IDs
//
// The account of an item within the provider's service; for pass the entry's path below the prefix. With the Secret
// Service an id of the form "?attribute=value&attribute=value", its parts percent-encoded, is a query over the attributes
// of all items, whatever their service, and must match exactly one.
//
// # Configuration
//
// See Config.
//
// # Errors
//
// See the tables in errors.go.
//
// # Capabilities
//
// Probe, write (strength host where the program has a state directory, else none), list. There are no versions to pin: a
// ref with one is refused. The version of a credential is a keyed digest of its value, which only serves for comparison.
package keychain
