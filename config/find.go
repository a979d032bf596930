package config

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/credresolve/credresolve/backend"
)

// FileName is the name of a configuration file where none is given.
const FileName = "credresolve.yaml"

// Location is where a configuration was found.
type Location struct {
	Path string // absolute
	// Project: it lies in the working directory and nobody named it, so that it came perhaps with somebody else's
	// project. Its providers need trust, see TrustStore.
	Project bool
}

// Find looks for the configuration: the path flag, if not empty; then $CREDRESOLVE_CONFIG; then credresolve.yaml in
// workDir; then the same in the user's configuration directory, $XDG_CONFIG_HOME/credresolve or what the system has in its
// place. The first found wins. workDir must be absolute.
func Find(flag string, lookupEnv func(string) (string, bool), workDir string) (Location, error) {
	absolute := func(path string) string {
		if filepath.IsAbs(path) {
			return filepath.Clean(path)
		}
		return filepath.Join(workDir, path)
	}
	env, _ := lookupEnv("CREDRESOLVE_CONFIG")
	for _, named := range []string{flag, env} {
		if named == "" {
			continue
		}
		path := absolute(named)
		if _, err := os.Stat(path); err != nil {
			return Location{}, backend.Errorf(backend.CodeInvalidConfig, "the configuration %s cannot be read: %s", path, pathReason(err))
		}
		return Location{Path: path}, nil
	}
	project := filepath.Join(workDir, FileName)
	// What is there but cannot be looked at is opened, and so told of: another configuration must not take its place.
	if isThere(project) {
		return Location{Path: project, Project: true}, nil
	}
	looked := []string{project}
	if dir := userConfigDir(lookupEnv); dir != "" {
		user := filepath.Join(dir, "credresolve", FileName)
		if isThere(user) {
			return Location{Path: user}, nil
		}
		looked = append(looked, user)
	}
	e := backend.Errorf(backend.CodeInvalidConfig, "no configuration found: looked for %s", strings.Join(looked, " and "))
	e.Remedy = "write one, or name it with --config or $CREDRESOLVE_CONFIG"
	return Location{}, e
}

// NewPath is where a configuration is made when Find finds none: the path flag, if not empty; then $CREDRESOLVE_CONFIG; then in the
// user's configuration directory, whose part it then is (named is false). It is empty where something stands there, or nothing
// tells where that directory is.
func NewPath(flag string, lookupEnv func(string) (string, bool), workDir string) (path string, named bool) {
	env, _ := lookupEnv("CREDRESOLVE_CONFIG")
	path, named = cmp.Or(flag, env), true
	if path == "" {
		dir := userConfigDir(lookupEnv)
		if dir == "" {
			return "", false
		}
		path, named = filepath.Join(dir, "credresolve", FileName), false
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(workDir, path)
	}
	if isThere(path) {
		return "", named
	}
	return filepath.Clean(path), named
}

// isThere reports whether there is something at path, be it unreadable.
func isThere(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR)
}

func userConfigDir(lookupEnv func(string) (string, bool)) string {
	if dir, ok := lookupEnv("XDG_CONFIG_HOME"); ok && filepath.IsAbs(dir) {
		return dir
	}
	if runtime.GOOS == "windows" {
		dir, _ := lookupEnv("AppData")
		return dir
	}
	home, ok := lookupEnv("HOME")
	if !ok || !filepath.IsAbs(home) {
		return ""
	}
	if runtime.GOOS == "darwin" {
		return filepath.Join(home, "Library", "Application Support")
	}
	return filepath.Join(home, ".config")
}
