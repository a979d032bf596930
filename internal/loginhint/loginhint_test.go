package loginhint_test

import (
	"os/exec"
	"testing"

	"github.com/credresolve/credresolve/internal/loginhint"
)

func TestCommand(t *testing.T) {
	for id, want := range map[string]string{
		"default":      "credresolve login github",
		"work":         "credresolve login github work",
		"a b":          "credresolve login github 'a b'",
		"it's $(id)":   `credresolve login github 'it'\''s $(id)'`,
		"-x":           "credresolve login github -- -x",
		"\x1b[2J":      `credresolve login github $'\x1b[2J'`,
		"":             "credresolve login github ''",
		"a\u202eb\xff": `credresolve login github $'a\xe2\x80\xaeb\xff'`,
	} {
		if got := loginhint.Command("login", "github", id); got != want {
			t.Errorf("Command(%q) = %s, want %s", id, got, want)
		}
	}
}

// bash reads what was written as the very id, and runs none of it.
func TestCommandInAShell(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash")
	}
	for _, id := range []string{"a\n$(echo ran)", "`echo ran`\t'\\", "'; echo ran; '", "é\x01\"$HOME\"", "x\xffy", "*", "~", "!!"} {
		script := "credresolve() { printf '%s' \"${!#}\"; }; " + loginhint.Command("login", "github", id)
		got, err := exec.CommandContext(t.Context(), bash, "-c", script).Output()
		if err != nil || string(got) != id {
			t.Errorf("of %q bash read %q, %v", id, got, err)
		}
	}
}
