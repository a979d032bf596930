package secretref

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/credresolve/credresolve/backend"
)

// ConfigError says what is wrong with a "secrets" section. It holds no value of it.
type ConfigError struct {
	Path   string // of the entry: "secrets.providers.vault.timeoutMs"
	Reason string
}

func (e *ConfigError) Error() string { return e.Path + ": " + e.Reason }

// DecodeConfig reads the value of an OpenClaw document's "secrets" key, decoded as encoding/json does, with numbers as float64
// or json.Number. Nil gives the zero Config. It is strict, as OpenClaw is: an unknown key, a wrong type and a value beyond its
// limits give a *ConfigError. What newer releases removed (resolution, allowInsecurePath, allowSymlinkCommand) is taken under
// V2026_3_2 alone, what they brought (source store, egressProxy, which is not looked at) under Newest alone.
func DecodeConfig(secrets any, c Compat) (Config, error) {
	if secrets == nil {
		return Config{Compat: c}, nil
	}
	d := &decoder{compat: c}
	config := d.section(d.object("secrets", secrets))
	if d.err != nil {
		return Config{}, d.err
	}
	return config, nil
}

// decoder reads a section. Once something was wrong it reads on without effect, and err is the first fault.
type decoder struct {
	compat Compat
	err    error
}

func (d *decoder) fault(path, format string, args ...any) {
	if d.err == nil {
		d.err = &ConfigError{visible(path), fmt.Sprintf(format, args...)}
	}
}

// object is an object of the section with its place.
type object struct {
	path    string
	members map[string]any
}

func (o object) at(key string) string { return o.path + "." + key }

func (d *decoder) object(path string, v any) object {
	members, ok := v.(map[string]any)
	if !ok {
		d.fault(path, "must be an object")
	}
	return object{path, members}
}

// only refuses keys of o that are not in known.
func (d *decoder) only(o object, known ...string) {
	for _, key := range slices.Sorted(maps.Keys(o.members)) {
		if slices.Contains(known, key) {
			continue
		}
		switch near := backend.Nearest(key, known); {
		case d.compat == Newest && slices.Contains(removed, key):
			d.fault(o.at(key), `OpenClaw 2026.8 removed this key; delete it, as "openclaw doctor --fix" does, or ask for the rules of release 2026.3.2`)
		case near != "":
			d.fault(o.at(key), "unknown key; did you mean %q?", near)
		default:
			d.fault(o.at(key), "unknown key; known are %s", strings.Join(known, ", "))
		}
	}
}

// removed are the keys that release 2026.3.2 has and the newest has not.
var removed = []string{"resolution", "allowInsecurePath", "allowSymlinkCommand"}

func (d *decoder) section(o object) Config {
	old := d.compat == V2026_3_2
	c := Config{Compat: d.compat}
	if old {
		d.only(o, "providers", "defaults", "resolution")
	} else {
		d.only(o, "providers", "defaults", "egressProxy")
	}
	if v, ok := o.members["providers"]; ok {
		providers := d.object(o.at("providers"), v)
		c.Providers = make(map[string]Provider, len(providers.members))
		for _, name := range slices.Sorted(maps.Keys(providers.members)) {
			c.Providers[name] = d.provider(d.object(providers.at(name), providers.members[name]))
		}
	}
	if v, ok := o.members["defaults"]; ok {
		defaults := d.object(o.at("defaults"), v)
		known := []string{"env", "file", "exec"}
		if !old {
			known = append(known, "store")
		}
		d.only(defaults, known...)
		c.Defaults = Defaults{d.alias(defaults, "env"), d.alias(defaults, "file"), d.alias(defaults, "exec"), d.alias(defaults, "store")}
	}
	if v, ok := o.members["resolution"]; ok {
		resolution := d.object(o.at("resolution"), v)
		d.only(resolution, "maxProviderConcurrency", "maxRefsPerProvider", "maxBatchBytes")
		c.Limits = Limits{
			Concurrency:     int(d.number(resolution, "maxProviderConcurrency", 16)),
			RefsPerProvider: int(d.number(resolution, "maxRefsPerProvider", 4096)),
			BatchBytes:      int(d.number(resolution, "maxBatchBytes", 5<<20)),
		}
	}
	if v, ok := o.members["egressProxy"]; ok {
		d.object(o.at("egressProxy"), v)
	}
	return c
}

func (d *decoder) provider(o object) Provider {
	source, _ := o.members["source"].(string)
	p := Provider{Source: Source(source)}
	switch p.Source {
	case Env:
		d.only(o, "source", "allowlist")
		p.Env = &EnvProvider{Allowlist: d.texts(o, "allowlist", 256, d.name)}
	case File:
		p.File = d.file(o)
	case Exec:
		p.Exec = d.exec(o)
	case Store:
		if d.compat == Newest {
			d.only(o, "source")
			break
		}
		fallthrough
	default:
		sources := "env, file, exec or store"
		if d.compat == V2026_3_2 {
			sources = "env, file or exec"
		}
		d.fault(o.at("source"), "must be %s", sources)
	}
	return p
}

func (d *decoder) file(o object) *FileProvider {
	known := []string{"source", "path", "mode", "timeoutMs", "maxBytes"}
	if d.compat == V2026_3_2 {
		// Releases between 2026.3.2 and 2026.8 have it for files too.
		known = append(known, "allowInsecurePath")
	}
	d.only(o, known...)
	p := &FileProvider{
		Path: d.required(o, "path"), Timeout: d.timeout(o, "timeoutMs"), MaxBytes: d.number(o, "maxBytes", greatestBytes),
		AllowInsecurePath: d.boolean(o, "allowInsecurePath"),
	}
	switch mode := FileMode(d.text(o, "mode")); mode {
	case "", ModeJSON, ModeSingleValue:
		p.Mode = mode
	default:
		d.fault(o.at("mode"), "must be json or singleValue")
	}
	if _, given := o.members["mode"]; given && p.Mode == "" {
		d.fault(o.at("mode"), "must be json or singleValue")
	}
	return p
}

func (d *decoder) exec(o object) *ExecProvider {
	if v, ok := o.members["pluginIntegration"]; ok {
		d.only(o, "source", "pluginIntegration")
		plugin := d.object(o.at("pluginIntegration"), v)
		d.only(plugin, "pluginId", "integrationId")
		for _, key := range []string{"pluginId", "integrationId"} {
			if length(d.required(plugin, key)) > 128 {
				d.fault(plugin.at(key), "must have at most 128 characters")
			}
		}
		return &ExecProvider{Plugin: &PluginIntegration{d.text(plugin, "pluginId"), d.text(plugin, "integrationId")}}
	}
	known := []string{"source", "command", "args", "env", "passEnv", "timeoutMs", "noOutputTimeoutMs", "maxOutputBytes", "jsonOnly", "trustedDirs"}
	if d.compat == V2026_3_2 {
		known = append(known, "allowInsecurePath", "allowSymlinkCommand")
	} else {
		known = append(known, "pluginIntegration")
	}
	d.only(o, known...)
	p := &ExecProvider{
		Command: d.required(o, "command"), Args: d.texts(o, "args", 128, d.argument), PassEnv: d.texts(o, "passEnv", 128, d.name),
		Timeout: d.timeout(o, "timeoutMs"), NoOutputTimeout: d.timeout(o, "noOutputTimeoutMs"),
		MaxOutputBytes: d.number(o, "maxOutputBytes", greatestBytes), TrustedDirs: d.texts(o, "trustedDirs", 64, d.directory),
		AllowInsecurePath: d.boolean(o, "allowInsecurePath"), AllowSymlinkCommand: d.boolean(o, "allowSymlinkCommand"),
	}
	if _, given := o.members["jsonOnly"]; given {
		p.AllowText = !d.boolean(o, "jsonOnly")
	}
	switch {
	case !safeExecutable(p.Command):
		d.fault(o.at("command"), "is unsafe: it holds a quote, a line break, or one of ;&|`$<>")
	case !absolute(p.Command):
		d.fault(o.at("command"), "must be an absolute path")
	}
	if v, ok := o.members["env"]; ok {
		env := d.object(o.at("env"), v)
		p.Env = make(map[string]backend.Secret, len(env.members))
		for name := range env.members {
			p.Env[name] = backend.NewSecretString(d.text(env, name))
		}
	}
	return p
}

// text gives a string, empty where there is none.
func (d *decoder) text(o object, key string) string {
	v, given := o.members[key]
	text, ok := v.(string)
	if given && !ok {
		d.fault(o.at(key), "must be a string")
	}
	return text
}

func (d *decoder) required(o object, key string) string {
	text := d.text(o, key)
	if text == "" {
		d.fault(o.at(key), "is required")
	}
	return text
}

func (d *decoder) alias(o object, key string) string {
	_, given := o.members[key]
	alias := d.text(o, key)
	if given && !ValidAlias(alias) {
		d.fault(o.at(key), "must be the name of a provider, which matches /%s/", aliasForm)
	}
	return alias
}

func (d *decoder) boolean(o object, key string) bool {
	v, given := o.members[key]
	value, ok := v.(bool)
	if given && !ok {
		d.fault(o.at(key), "must be true or false")
	}
	return value
}

// number gives a whole number from 1 to most, 0 where there is none.
func (d *decoder) number(o object, key string, most int64) int64 {
	v, given := o.members[key]
	if !given {
		return 0
	}
	var value float64
	ok := true
	switch v := v.(type) {
	case float64:
		value = v
	case int:
		value = float64(v)
	case int64:
		value = float64(v)
	case json.Number:
		var err error
		value, err = v.Float64()
		ok = err == nil
	default:
		ok = false
	}
	if !ok || value != math.Trunc(value) || value < 1 || value > float64(most) {
		d.fault(o.at(key), "must be a whole number from 1 to %d", most)
		return 0
	}
	return int64(value)
}

func (d *decoder) timeout(o object, key string) time.Duration {
	return time.Duration(d.number(o, key, greatestTimeout)) * time.Millisecond
}

// texts gives a list of at most most strings that check accepts, nil where there is none.
func (d *decoder) texts(o object, key string, most int, check func(path, text string)) []string {
	v, given := o.members[key]
	if !given {
		return nil
	}
	items, ok := v.([]any)
	if !ok {
		d.fault(o.at(key), "must be an array of strings")
		return nil
	}
	if len(items) > most {
		d.fault(o.at(key), "must have at most %d entries", most)
	}
	texts := make([]string, len(items))
	for i, item := range items {
		path := fmt.Sprintf("%s[%d]", o.at(key), i)
		text, ok := item.(string)
		if !ok {
			d.fault(path, "must be a string")
			continue
		}
		check(path, text)
		texts[i] = text
	}
	return texts
}

func (d *decoder) name(path, text string) {
	if !nameForm.matches(text) {
		d.fault(path, "must be the name of an environment variable, which matches /%s/", nameForm)
	}
}

func (d *decoder) argument(path, text string) {
	if length(text) > 1024 {
		d.fault(path, "must have at most 1024 characters")
	}
}

func (d *decoder) directory(path, text string) {
	if !absolute(text) {
		d.fault(path, "must be an absolute path")
	}
}

// length counts as JavaScript does, in units of UTF-16.
func length(s string) int { return len(utf16.Encode([]rune(s))) }

// absolute takes the paths of either system on both, since one configuration may serve both.
func absolute(path string) bool {
	return strings.HasPrefix(path, "/") || filepath.IsAbs(path) || windowsPath(path)
}

// windowsPath reports whether path starts with a drive and a slash, or with a server and a share.
func windowsPath(path string) bool {
	if rest, ok := strings.CutPrefix(path, `\\`); ok {
		server, share, _ := strings.Cut(rest, `\`)
		return server != "" && share != "" && share[0] != '\\'
	}
	return len(path) > 2 && class{upper: true, lower: true}.has(path[0]) && path[1] == ':' && (path[2] == '\\' || path[2] == '/')
}

// safeExecutable reports whether command can be nothing but a program's name, also to a shell.
func safeExecutable(command string) bool {
	command = trim(command)
	return command != "" && !strings.ContainsAny(command, "\x00\r\n;&|`$<>\"'")
}
