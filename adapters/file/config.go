package file

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/safefile"
)

// Config are the settings of a provider of kind file.
type Config struct {
	// Path is the file, or with a layout for containers a directory of files. Relative: below the directory of the
	// configuration. A ~ is not expanded. It is needed.
	Path string `yaml:"path"`
	// Mode is how the file is read: json, yaml, dotenv or raw, which is for a file that as a whole is one secret. Empty: by
	// the ending of the path's name, .json, .yaml, .yml or .env, else raw.
	Mode string `yaml:"mode" jsonschema:"enum=json,enum=yaml,enum=dotenv,enum=raw"`
	// Layout says who put the file there. strict: a user; it belongs to this user or root, and nobody else may read it.
	// docker: a container's runtime; root's file may be read by others, and so may one that nobody can write. kubernetes: the
	// same, and the kubelet's links by way of ..data are followed inside the mounted directory. Empty: strict.
	Layout string `yaml:"layout" jsonschema:"enum=strict,enum=docker,enum=kubernetes"`
	// MaxBytes is the greatest size of a file, at most 256 MiB. Zero: 1 MiB.
	MaxBytes int64 `yaml:"max_bytes"`
	// TrimNewline takes one newline from the end of a file that as a whole is one secret. Zero: every byte counts.
	TrimNewline bool `yaml:"trim_newline"`
}

const (
	modeJSON   = "json"
	modeYAML   = "yaml"
	modeDotenv = "dotenv"
	modeRaw    = "raw"

	layoutStrict     = "strict"
	layoutDocker     = "docker"
	layoutKubernetes = "kubernetes"

	defaultMaxBytes = 1 << 20
	mostMaxBytes    = 256 << 20 // a file is read as a whole, and a configuration that came with a project may say how much
)

// check completes c.
func (c *Config) check() error {
	switch {
	case c.Path == "":
		return errNoPath
	case strings.HasPrefix(c.Path, "~"):
		return errHome
	case strings.ContainsRune(c.Path, 0):
		return errPathNUL
	case c.MaxBytes < 0, c.MaxBytes > mostMaxBytes:
		return errMaxBytes
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultMaxBytes
	}
	if c.Mode == "" {
		c.Mode = modeOf(c.Path)
	}
	if c.Layout == "" {
		c.Layout = layoutStrict
	}
	if modes := []string{modeJSON, modeYAML, modeDotenv, modeRaw}; !slices.Contains(modes, c.Mode) {
		return errUnknown("mode", c.Mode, modes)
	}
	if layouts := []string{layoutStrict, layoutDocker, layoutKubernetes}; !slices.Contains(layouts, c.Layout) {
		return errUnknown("layout", c.Layout, layouts)
	}
	return nil
}

func modeOf(path string) string {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".json":
		return modeJSON
	case ".yaml", ".yml":
		return modeYAML
	case ".env":
		return modeDotenv
	}
	return modeRaw
}

func (c *Config) policy() safefile.Policy {
	p := safefile.Policy{Owners: []int{os.Geteuid(), 0}, Deny: 0o077, MaxBytes: c.MaxBytes, Mounted: c.Layout != layoutStrict}
	if c.Layout == layoutKubernetes {
		p.Links = safefile.LinksMount
	}
	return p
}

// Reach tells which file the provider reads.
func (c Config) Reach() []backend.Reach {
	return []backend.Reach{{What: backend.ReachFile, Value: c.Path}}
}

// Kind is the kind "file" for a registry.
func Kind() backend.Kind {
	return backend.NewKind("file", "a file that only its owner can read: whole, or a key of JSON, YAML or dotenv",
		func(c Config, host backend.Host) (backend.Backend, error) { return New(c, host) })
}
