//go:build cgo

package keychain

/*
#cgo CFLAGS: -Wno-deprecated-declarations
#cgo LDFLAGS: -framework Security
#include <Security/Security.h>
*/
import "C"

// allowInteraction lets the macOS Keychain ask the user, or not, from now on and in the whole process.
func allowInteraction(allowed bool) {
	var state C.Boolean
	if allowed {
		state = 1
	}
	C.SecKeychainSetUserInteractionAllowed(state)
}
