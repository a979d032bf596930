// Package packaging holds the units to what the code needs of them.
package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unit gives the settings of a unit file: all values of each name.
func unit(t *testing.T, path string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	set := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' || line[0] == '[' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || strings.TrimSpace(line) != line {
			t.Errorf("%s: %q", path, line)
		}
		set[name] = append(set[name], value)
	}
	return set
}

func TestUnits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path string
		must map[string]string
		not  []string
	}{
		{"systemd/system/credresolve.service", map[string]string{
			"Type": "notify", "ExecStart": "credresolve serve", "ExecReload": "kill -HUP $MAINPID", "User": "credresolve",
			"LimitCORE": "0", "LimitMEMLOCK": "infinity", "RuntimeDirectory": "credresolve", "RuntimeDirectoryMode": "0710",
			"RuntimeDirectoryPreserve": "yes", "StateDirectoryMode": "0700", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "",
		}, []string{"PrivateUsers", "MemoryDenyWriteExecute", "ProtectProc", "ProcSubset", "DynamicUser"}},
		{"systemd/user/credresolve.service", map[string]string{
			"Type": "notify", "ExecStart": "credresolve serve", "ExecReload": "kill -HUP $MAINPID", "LimitCORE": "0",
			"RuntimeDirectory": "credresolve", "RuntimeDirectoryMode": "0700", "RuntimeDirectoryPreserve": "yes",
		}, []string{"User", "PrivateUsers", "MemoryDenyWriteExecute", "ProtectProc", "ProcSubset", "ProtectSystem", "PrivateTmp"}},
		{"systemd/system/credresolve.socket", map[string]string{
			"ListenStream": "/run/credresolve/sock", "SocketMode": "0660", "SocketUser": "credresolve", "SocketGroup": "credresolve",
		}, []string{"Accept"}},
		{"systemd/user/credresolve.socket", map[string]string{
			"ListenStream": "%t/credresolve/sock", "SocketMode": "0600",
		}, []string{"Accept"}},
	} {
		set := unit(t, c.path)
		for name, want := range c.must {
			if got := set[name]; !slices.Equal(got, []string{want}) {
				t.Errorf("%s: %s is %q, want %q", c.path, name, got, want)
			}
		}
		for _, name := range c.not {
			if got, there := set[name]; there {
				t.Errorf("%s: %s is %q; the sidecar does not work with it", c.path, name, got)
			}
		}
	}
}

func TestSystemdTakesTheUnits(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze")
	}
	for _, kind := range []string{"system", "user"} {
		dir := t.TempDir()
		args := []string{"verify", "--man=no", "--" + kind}
		for _, name := range []string{"credresolve.service", "credresolve.socket"} {
			text, err := os.ReadFile(filepath.Join("systemd", kind, name))
			if err != nil {
				t.Fatal(err)
			}
			// It looks for the program, which is not installed here.
			text = []byte(strings.Replace(string(text), "ExecStart=credresolve ", "ExecStart=/bin/true ", 1))
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, text, 0o644); err != nil {
				t.Fatal(err)
			}
			args = append(args, path)
		}
		cmd := exec.Command(tool, args...)
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", kind, err, out)
		}
	}
}
