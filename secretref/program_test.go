//go:build unix

package secretref_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/credresolve/credresolve/backend"
)

// TestMain makes this test's program play a provider's when it is started as "… play SCRIPT".
func TestMain(m *testing.M) {
	if len(os.Args) >= 3 && os.Args[1] == "play" {
		syscall.Exit(play(os.Args[2])) // os.Exit waits a second under the race detector
	}
	goleak.VerifyTestMain(m)
}

// play does what the script says, and notes the start in the file "starts" beside it.
func play(script string) int {
	dir := filepath.Dir(script)
	text, err := os.ReadFile(script)
	if err != nil {
		return 99
	}
	var actions []action
	if err := json.Unmarshal(text, &actions); err != nil {
		return 98
	}
	if starts, err := os.OpenFile(filepath.Join(dir, "starts"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
		_, _ = fmt.Fprintln(starts, os.Getpid())
		_ = starts.Close()
	}
	var ids []string
	read := func() {
		request, _ := io.ReadAll(os.Stdin)
		_ = os.WriteFile(filepath.Join(dir, "request"), request, 0o600)
		var asked struct{ IDs []string }
		_ = json.Unmarshal(request, &asked)
		ids = asked.IDs
	}
	for _, a := range actions {
		for range max(a.Times, 1) {
			_, _ = os.Stdout.WriteString(a.Out)
			_, _ = os.Stderr.WriteString(a.Err)
		}
		_, _ = os.Stdout.Write(a.Bytes)
		switch {
		case a.Read:
			read()
		case a.Answer, a.Shape != "":
			read()
			values := make(map[string]string)
			for _, id := range ids {
				values[id] = "value of " + id
				switch a.Shape {
				case "env":
					env := os.Environ()
					sort.Strings(env)
					values[id] = strings.Join(env, " ")
				case "dir":
					values[id], _ = os.Getwd()
				case "args":
					values[id] = strings.Join(append([]string{os.Args[0]}, os.Args[3:]...), " ")
				}
			}
			_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"protocolVersion": 1, "values": values})
		case a.Deaf:
			signal.Ignore(syscall.SIGTERM)
		case a.Kill:
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		case a.Exit != 0:
			return a.Exit
		case a.Sleep != "":
			if d, err := time.ParseDuration(a.Sleep); err == nil {
				time.Sleep(d)
			}
		}
	}
	return 0
}

func secretFromJSON(text []byte) backend.Secret { return backend.SecretFromJSON(text) }
