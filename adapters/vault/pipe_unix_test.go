//go:build unix

package vault_test

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/credresolve/credresolve/adapters/vault"
	"github.com/credresolve/credresolve/backend"
)

// A pipe in the place of a token file would block for good.
func TestTokenFileIsAPipe(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	b := openWith(t, vault.Config{Address: "http://127.0.0.1:1", Auth: vault.Auth{Method: "token_file", TokenFile: pipe}}, nil)
	getFails(t, b, "kv/x", "", backend.ErrAuthRequired, "not a regular file")
}
