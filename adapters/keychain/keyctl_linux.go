package keychain

import (
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/credresolve/credresolve/backend"
)

// enterKeyrings is to be called by a goroutine before it uses a keyring of the kernel and then ends. It takes a thread that
// ends with the goroutine: which session keyring is seen is a matter of the thread, and adding a key where a login made no
// session gives the thread one of its own, in silence (lookup_user_key in security/keys/process_keys.c). For the same
// reason the scope session needs a session that a login made.
func enterKeyrings(scope string) error {
	runtime.LockOSThread()
	if scope != "session" {
		return nil
	}
	const create = false
	session, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, create)
	if err != nil {
		return err
	}
	if shared, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_SESSION_KEYRING, create); err != nil || session == shared {
		return &backend.Error{
			Code: backend.CodeUnavailable, Reason: "this process has no session keyring: no login made one",
			Remedy: "run it under keyctl session, or set keyctl_scope: user",
		}
	}
	return nil
}
