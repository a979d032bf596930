package config

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/credresolve/credresolve/backend"
)

// digestConfig is of a kind that tells what it touches, silentConfig of one that does not.
type (
	silentConfig struct {
		File    string         `yaml:"file"`
		Program string         `yaml:"program"`
		Secret  backend.Source `yaml:"secret"`
	}
	digestConfig struct {
		silentConfig `yaml:",inline"`
	}
)

func (c digestConfig) Reach() []backend.Reach {
	var reach []backend.Reach
	if c.File != "" {
		reach = append(reach, backend.Reach{What: backend.ReachFile, Value: c.File})
	}
	if c.Program != "" {
		reach = append(reach, backend.Reach{What: backend.ReachExecutable, Value: c.Program})
	}
	return reach
}

// TestDigests compares each file with "version: 1\nproviders: {a: {kind: tell}}" or what base says, in the same directory or
// in another.
func TestDigests(t *testing.T) {
	t.Parallel()
	kinds := backend.NewRegistry(
		backend.NewKind("tell", "", func(digestConfig, backend.Host) (backend.Backend, error) { return nil, nil }),
		backend.NewKind("silent", "", func(silentConfig, backend.Host) (backend.Backend, error) { return nil, nil }))
	key := []byte("key")
	digestOf := func(t *testing.T, dir, content string) string {
		t.Helper()
		path := filepath.Join(dir, "c.yaml")
		if err := os.WriteFile(path, []byte("version: 1\n"+content), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := Load(path, kinds)
		if err != nil {
			t.Fatal(err)
		}
		digests := f.digests(key)
		if len(slices.Compact(slices.Sorted(maps.Values(digests)))) != len(digests) {
			t.Error("two providers have one digest")
		}
		return digests[f.Provider("a")]
	}
	const plain = "providers: {a: {kind: tell}}"
	for _, tt := range []struct {
		name, one, two string
		elsewhere      bool
		same           bool
	}{
		{"the same", plain, plain, false, true},
		{"elsewhere", plain, plain, true, true},
		{"other layout", plain, "providers:\n  a:\n    kind: tell # yes\n", false, true},
		{"another provider beside", plain, "providers: {a: {kind: tell}, b: {kind: tell, file: /x}}", false, true},
		{"order of keys", "providers: {a: {kind: tell, file: /x}}", "providers: {a: {file: /x, kind: tell}}", false, true},
		{"a setting", plain, "providers: {a: {kind: tell, file: /x}}", false, false},
		{"limits of all", plain, "limits: {timeout: 1s}\n" + plain, false, false},
		{"relative file", "providers: {a: {kind: tell, file: x}}", "providers: {a: {kind: tell, file: x}}", true, false},
		{"absolute file", "providers: {a: {kind: tell, file: /x}}", "providers: {a: {kind: tell, file: /x}}", true, true},
		{"file at home", "providers: {a: {kind: tell, file: ~/x}}", "providers: {a: {kind: tell, file: ~/x}}", true, true},
		{"relative program", "providers: {a: {kind: tell, program: ./x}}", "providers: {a: {kind: tell, program: ./x}}", true, false},
		{"program in PATH", "providers: {a: {kind: tell, program: x}}", "providers: {a: {kind: tell, program: x}}", true, true},
		{"a kind that does not tell", "providers: {a: {kind: silent}}", "providers: {a: {kind: silent}}", true, false},
		{"chain", "providers: {a: {kind: tell, secret: {provider: b, id: x}}, b: {kind: tell, file: /x}}",
			"providers: {a: {kind: tell, secret: {provider: b, id: x}}, b: {kind: tell, file: /y}}", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			one, two := t.TempDir(), t.TempDir()
			if !tt.elsewhere {
				two = one
			}
			if same := digestOf(t, one, tt.one) == digestOf(t, two, tt.two); same != tt.same {
				t.Errorf("equal: %v, want %v", same, tt.same)
			}
		})
	}
}
