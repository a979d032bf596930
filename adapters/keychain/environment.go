package keychain

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/credresolve/credresolve/backend"
)

// env gives environment variables, an unset one as the empty text.
type env func(name string) string

func environment(host backend.Host) env {
	lookup := host.LookupEnv
	if lookup == nil {
		lookup = os.LookupEnv
	}
	return func(name string) string {
		value, _ := lookup(name)
		return value
	}
}

// path makes a path of the settings absolute: "~/" is the home directory, another relative path belongs to dir.
func (e env) path(dir, path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok || path == "~" {
		return filepath.Join(e.home(), rest)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	return filepath.Clean(path)
}

func (e env) home() string {
	if home := e("HOME"); home != "" {
		return home
	}
	return e("USERPROFILE")
}
