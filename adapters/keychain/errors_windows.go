package keychain

import (
	"syscall"

	"github.com/credresolve/credresolve/backend"
)

// platformErrors are the errors of the Credential Manager (CredReadW and CredWriteW, Return value).
func platformErrors() []osErr {
	return []osErr{
		{syscall.Errno(1168), backend.CodeNotFound, "the item does not exist"},                    // ERROR_NOT_FOUND
		{syscall.Errno(1312), backend.CodeLocked, "this logon session has no Credential Manager"}, // ERROR_NO_SUCH_LOGON_SESSION
		{syscall.Errno(2202), backend.CodeInvalidID, "the name is not one for a credential"},      // ERROR_BAD_USERNAME
		{syscall.Errno(1783), backend.CodeUnsupported, "the value is too large"},                  // RPC_X_BAD_STUB_DATA
		{syscall.Errno(87), backend.CodeInvalidID, "the name is not one for a credential"},        // ERROR_INVALID_PARAMETER
		{syscall.Errno(123), backend.CodeInvalidID, "the name is not one for a file"},             // ERROR_INVALID_NAME
	}
}
