package keychain

import "golang.org/x/sys/unix"

// joinSession makes sure that the calling thread has a session keyring: where a login gave it none, that of the user's
// sessions. Each thread has a pointer of its own, and adding a key would otherwise give this thread a keyring that nobody
// else sees and that ends with it (keyctl(2), KEY_SPEC_SESSION_KEYRING; session-keyring(7)).
func joinSession() {
	const create = false
	_, _ = unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, create) // a kernel without keyrings tells at the next call
}
