package exec

import (
	"encoding/hex"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/safefile"
)

// Config are the settings of a provider of kind exec.
type Config struct {
	// Command is the absolute path of the program. It is needed.
	Command string `yaml:"command"`
	// Args are its arguments. With output: plain every {id} in them is replaced by the id that is asked for. Empty: none.
	Args []string `yaml:"args"`
	// Env are environment variables that the program gets, by name; they win over pass_env. A value may be a ref. Empty: none.
	Env map[string]backend.Source `yaml:"env"`
	// PassEnv are the names of variables that the program gets from the environment of this process, where they are set.
	// Empty: none.
	PassEnv []string `yaml:"pass_env"`
	// Timeout is how long the program may run. Zero: 5 s.
	Timeout time.Duration `yaml:"timeout"`
	// NoOutputTimeout is how long the program may print nothing at all. Zero: as long as it may run.
	NoOutputTimeout time.Duration `yaml:"no_output_timeout"`
	// MaxOutput is how much the program may print, on standard output and standard error together, in bytes. Zero: 16 MiB.
	MaxOutput int64 `yaml:"max_output"`
	// Output is what the program prints. protocol: a response of the exec protocol. plain: one secret, from whose end one
	// newline is taken. Empty: protocol.
	Output string `yaml:"output" jsonschema:"enum=protocol,enum=plain"`
	// AllowDirs are absolute directories, in or below one of which the program must be, links followed. Empty: anywhere.
	AllowDirs []string `yaml:"allow_dirs"`
	// SHA256 is the checksum that the program must have, 64 hexadecimal digits. It says nothing of the interpreter of a
	// script. Empty: any.
	SHA256 string `yaml:"sha256"`
}

const (
	outputProtocol = "protocol"
	outputPlain    = "plain"

	defaultTimeout   = 5 * time.Second
	defaultMaxOutput = 16 << 20
	// maxRequest is the greatest request in bytes: room for thousands of the longest ids.
	maxRequest = 16 << 20

	// placeholder stands for the id in the arguments of a program with plain output.
	placeholder = "{id}"
)

// check completes c.
func (c *Config) check() error {
	switch {
	case c.Command == "":
		return errNoCommand
	case !filepath.IsAbs(c.Command):
		return errRelative
	case runtime.GOOS == "windows" && slices.Contains([]string{".bat", ".cmd"}, strings.ToLower(filepath.Ext(c.Command))):
		return errBatchFile
	case strings.ContainsRune(strings.Join(append(c.Args, c.Command), ""), 0):
		return errNUL
	case c.Timeout < 0, c.NoOutputTimeout < 0, c.MaxOutput < 0:
		return errNegative
	case c.Output != "" && c.Output != outputProtocol && c.Output != outputPlain:
		return errOutput
	}
	if sum, err := hex.DecodeString(c.SHA256); err != nil || len(sum) != 0 && len(sum) != 32 {
		return errSHA256
	}
	for i, dir := range c.AllowDirs {
		if !filepath.IsAbs(dir) {
			return errAllowDir(i)
		}
	}
	for name := range c.Env {
		if !validName(name) {
			return errEnvName
		}
	}
	for i, name := range c.PassEnv {
		if !validName(name) {
			return errPassEnv(i)
		}
	}
	c.SHA256 = strings.ToLower(c.SHA256)
	if c.Output == "" {
		c.Output = outputProtocol
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.MaxOutput == 0 {
		c.MaxOutput = defaultMaxOutput
	}
	return nil
}

// validName takes every name that the operating system can hold.
func validName(name string) bool { return name != "" && !strings.ContainsAny(name, "=\x00") }

func (c *Config) policy() safefile.Policy {
	return safefile.Policy{
		Owners: []int{os.Geteuid(), 0}, Deny: 0o022, Executable: true, Links: safefile.LinksTrusted,
		HardLinks: true, // as perl and git are installed
		Dirs:      c.AllowDirs,
	}
}

// Reach tells which program the provider runs, and what it hands to it: a program may do anything that its arguments and
// its environment say. The values of env, which may be secret, are left out.
func (c Config) Reach() []backend.Reach {
	reach := []backend.Reach{{What: backend.ReachExecutable, Value: c.Command}}
	for _, arg := range c.Args {
		reach = append(reach, backend.Reach{What: backend.ReachArgument, Value: strconv.Quote(arg)})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		reach = append(reach, backend.Reach{What: backend.ReachArgument, Value: name + "=… in its environment"})
	}
	for _, name := range c.PassEnv {
		reach = append(reach, backend.Reach{What: backend.ReachEnvironment, Value: name})
	}
	return reach
}

// Kind is the kind "exec" for a registry.
func Kind() backend.Kind {
	return backend.NewKind("exec", "any program that answers for secrets",
		func(c Config, host backend.Host) (backend.Backend, error) { return New(c, host) })
}
