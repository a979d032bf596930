//go:build cgo

package keychain

import (
	macos "github.com/99designs/go-keychain"

	"github.com/credresolve/credresolve/backend"
)

// platformErrors are the errors of the macOS Keychain (Security framework, Result Codes).
func platformErrors() []osErr {
	return []osErr{
		{macos.ErrorItemNotFound, backend.CodeNotFound, "the item does not exist"},
		{macos.ErrorNoSuchKeychain, backend.CodeUnavailable, "there is no such keychain"},
		{macos.ErrorInteractionNotAllowed, backend.CodeLocked, "the keychain is locked, or wants to ask the user; run security unlock-keychain, or use --interactive"},
		{macos.ErrorAuthFailed, backend.CodeLocked, "the user did not unlock the keychain"},
		{macos.Error(-128), backend.CodeLocked, "the user dismissed the prompt"}, // errSecUserCanceled
		{macos.ErrorNoAccessForItem, backend.CodeDenied, "this program has no access to the item"},
		{macos.ErrorNotAvailable, backend.CodeUnavailable, "there is no keychain"},
		{macos.ErrorParam, backend.CodeUnsupported, "the keychain does not take this"},
	}
}
