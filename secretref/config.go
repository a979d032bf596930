package secretref

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Config is what the "secrets" section of an OpenClaw document says. The zero Config has the built-in provider of source env
// alone. It must not be changed while it is used.
type Config struct {
	Providers map[string]Provider
	Defaults  Defaults
	Compat    Compat
	Limits    Limits
}

// Limits bound a pass. A zero field is the default. OpenClaw's own configuration sets them up to 2026.7 alone.
type Limits struct {
	Concurrency     int // providers asked at once; 4
	RefsPerProvider int // 512
	BatchBytes      int // bytes of the request to a program; 262144
}

func (l Limits) concurrency() int     { return orDefault(l.Concurrency, 4) }
func (l Limits) refsPerProvider() int { return orDefault(l.RefsPerProvider, 512) }
func (l Limits) batchBytes() int      { return orDefault(l.BatchBytes, 256<<10) }

func orDefault[T int | int64 | time.Duration](value, otherwise T) T {
	if value <= 0 {
		return otherwise
	}
	return value
}

// Provider is one entry of "providers". The one member that its Source names is set; of Store none.
type Provider struct {
	Source Source
	Env    *EnvProvider
	File   *FileProvider
	Exec   *ExecProvider
}

// Variables are environment variables with their values, which may be secrets: they print as their names.
type Variables map[string]string

// Format writes the names.
func (v Variables) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, strings.Join(slices.Sorted(maps.Keys(v)), ","))
}

// PluginIntegration names the preset of a plugin of OpenClaw.
type PluginIntegration struct{ PluginID, IntegrationID string }

const (
	defaultTimeout  = 5 * time.Second
	defaultMaxBytes = 1 << 20
	// greatestTimeout and greatestBytes bound what a configuration may set.
	greatestTimeout = 120000 // ms
	greatestBytes   = 20 << 20
)
