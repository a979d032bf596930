package authprofiles

import (
	"path/filepath"
	"strings"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/authstore"
	"github.com/credresolve/credresolve/internal/lazyregexp"
)

// Config are the settings of a provider of kind authprofiles.
type Config struct {
	// StateDir is OpenClaw's state directory. Relative: below the directory of the configuration. A ~ is not expanded. Empty:
	// $OPENCLAW_STATE_DIR, else .openclaw in $OPENCLAW_HOME or the home directory, of the environment of each call.
	StateDir string `yaml:"state_dir"`
	// Agent is the id of the agent whose profiles they are. Empty: main.
	Agent string `yaml:"agent"`
	// Path is one store instead, without a base: an auth-profiles.json, or a database, whose name ends in .sqlite. Relative:
	// below the directory of the configuration. It excludes StateDir and Agent.
	Path string `yaml:"path"`
	// RefreshTokens gives the fields refresh and idToken of OAuth profiles too. Zero: they stay where they are.
	RefreshTokens bool `yaml:"refresh_tokens"`
	// WriteAs is the type of the profiles that are written: api_key or token. Empty: api_key.
	WriteAs string `yaml:"write_as" jsonschema:"enum=api_key,enum=token"`
	// MaxBytes is the greatest size of all profiles of a store in JSON, at most 64 MiB. Zero: 4 MiB.
	MaxBytes int64 `yaml:"max_bytes"`
}

const mostMaxBytes = 64 << 20

var agentID = lazyregexp.New(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

func (c *Config) check() error {
	switch {
	case c.Path != "" && (c.StateDir != "" || c.Agent != ""):
		return errPathAlone
	case strings.HasPrefix(c.Path, "~"), strings.HasPrefix(c.StateDir, "~"):
		return errHome
	case strings.ContainsRune(c.Path+c.StateDir, 0):
		return errPathNUL
	case c.Agent != "" && !agentID().MatchString(c.Agent):
		return errAgent
	case c.MaxBytes < 0, c.MaxBytes > mostMaxBytes:
		return errMaxBytes
	}
	if c.WriteAs == "" {
		c.WriteAs = authstore.TypeAPIKey
	}
	if c.WriteAs != authstore.TypeAPIKey && c.WriteAs != authstore.TypeToken {
		return errWriteAs
	}
	return nil
}

// home is where c's profiles are; its StateDir is empty when that depends on the environment.
func (c *Config) home(host backend.Host) authstore.Home {
	h := authstore.Home{StateDir: c.StateDir, Agent: c.Agent, Path: c.Path, MaxBytes: c.MaxBytes}
	for _, p := range []*string{&h.StateDir, &h.Path} {
		if *p != "" && !filepath.IsAbs(*p) && host.Dir != "" {
			*p = filepath.Join(host.Dir, *p)
		}
	}
	return h
}

// Reach tells which files the provider reads.
func (c Config) Reach() []backend.Reach {
	where := c.Path
	if where == "" {
		if where = c.StateDir; where == "" {
			return []backend.Reach{
				{What: backend.ReachEnvironment, Value: "OPENCLAW_STATE_DIR"},
				{What: backend.ReachEnvironment, Value: "OPENCLAW_HOME"},
				{What: backend.ReachFile, Value: "~/.openclaw"},
			}
		}
	}
	return []backend.Reach{{What: backend.ReachFile, Value: where}}
}

// Kind is the kind "authprofiles" for a registry.
func Kind() backend.Kind {
	return backend.NewKind("authprofiles", "the auth profiles of an OpenClaw agent, in auth-profiles.json or its SQLite database",
		func(c Config, host backend.Host) (backend.Backend, error) { return New(c, host) })
}
