package secretref

import (
	"maps"
	"reflect"
	"time"

	"github.com/credresolve/credresolve/backend"
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

// Equal reports whether p and q are the same definition, so that what one gave may stand for what the other would.
func (p Provider) Equal(q Provider) bool {
	if p.Source != q.Source || !reflect.DeepEqual(p.Env, q.Env) || !reflect.DeepEqual(p.File, q.File) || (p.Exec == nil) != (q.Exec == nil) {
		return false
	}
	if p.Exec == nil {
		return true
	}
	// A Secret's bytes are behind a closure, and no two of those are equal.
	x, y := *p.Exec, *q.Exec
	same := maps.EqualFunc(x.Env, y.Env, backend.Secret.Equal) && (x.Env == nil) == (y.Env == nil)
	x.Env, y.Env = nil, nil
	return same && reflect.DeepEqual(x, y)
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
