//go:build unix

package cli

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/redact"
)

// What a command leaves behind may write for ever. A signal ends the wait for it.
func TestSignalAfterTheEnd(t *testing.T) {
	t.Parallel()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	masked, _ := redact.New([]backend.Secret{backend.NewSecretString("hunter22")})
	signals := make(chan os.Signal, 1)
	c := &child{
		// It ends with the pipe, or after ten seconds: by then the test has failed.
		argv:  []string{"/bin/sh", "-c", `(i=0; while [ $i -lt 100 ] && echo hunter22; do i=$((i+1)); sleep 0.1; done) & exit 3`},
		stdin: stdin, stdout: out, stderr: out, signals: signals, redact: masked,
	}
	time.AfterFunc(time.Second, func() { signals <- syscall.SIGTERM })
	start := time.Now()
	status, err := c.run(t.Context())
	if took := time.Since(start); status != 3 || err != nil || took < 900*time.Millisecond || took > 8*time.Second {
		t.Errorf("status %d, %v after %v", status, err, took)
	}
}
