package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
)

func TestFind(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	file := func(parts ...string) string {
		path := filepath.Join(append([]string{root}, parts...)...)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	project := file("project", config.FileName)
	user := file("home", ".xdg", "credresolve", config.FileName)
	named := file("named.yaml")
	env := map[string]string{"XDG_CONFIG_HOME": filepath.Join(root, "home", ".xdg")}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }

	check := func(flag, dir string, want config.Location) {
		t.Helper()
		if got, err := config.Find(flag, lookup, filepath.Join(root, dir)); err != nil || got != want {
			t.Errorf("Find(%q) in %s = %+v, %v; want %+v", flag, dir, got, err, want)
		}
	}
	check("", "home", config.Location{Path: user})
	check("", "project", config.Location{Path: project, Project: true})
	check(config.FileName, "project", config.Location{Path: project})
	looping := filepath.Join(root, "looping", config.FileName)
	if err := os.Mkdir(filepath.Dir(looping), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(config.FileName, looping); err != nil {
		t.Fatal(err)
	}
	check("", "looping", config.Location{Path: looping, Project: true})
	env["CREDRESOLVE_CONFIG"] = named
	check("", "project", config.Location{Path: named})
	check(project, "home", config.Location{Path: project})

	env["CREDRESOLVE_CONFIG"] = filepath.Join(root, "missing.yaml")
	if _, err := config.Find("", lookup, root); !errors.Is(err, backend.ErrInvalidConfig) || !strings.Contains(err.Error(), "missing.yaml") {
		t.Errorf("a named file that is missing: %v", err)
	}
	clear(env)
	_, err := config.Find("", lookup, root)
	if !errors.Is(err, backend.ErrInvalidConfig) || !strings.Contains(err.Error(), "looked for "+filepath.Join(root, config.FileName)) {
		t.Errorf("nothing to find: %v", err)
	}
}
