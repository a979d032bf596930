package keychain

import (
	"syscall"

	"github.com/credresolve/credresolve/backend"
)

// platformErrors are the errors of keyctl(2).
func platformErrors() []osErr {
	return []osErr{
		{syscall.ENOKEY, backend.CodeNotFound, "the item does not exist"},
		{syscall.EKEYEXPIRED, backend.CodeExpired, "the key has expired"},
		{syscall.EKEYREVOKED, backend.CodeExpired, "the key was revoked"},
		{syscall.EKEYREJECTED, backend.CodeDenied, "the key was rejected"},
	}
}
