package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/secretref"
)

// secretRefSettings are spelled as OpenClaw spells them, unlike all else in the file, so that a section can be copied from one
// configuration to the other.
type secretRefSettings struct {
	// Compat is the release of OpenClaw whose rules hold for SecretRefs. Empty: the newest that is known.
	Compat string `yaml:"compat" jsonschema:"enum=newest,enum=2026.3.2"`
	// Defaults are the providers of SecretRefs that name none, by source. Empty: default.
	Defaults secretRefDefaults `yaml:"defaults"`
	// Providers are what SecretRefs in documents other than OpenClaw's own name, spelled as in OpenClaw's secrets.providers.
	Providers map[string]secretRefProvider `yaml:"providers"`
}

type secretRefDefaults struct {
	// Env is that of source env.
	Env string `yaml:"env"`
	// File is that of source file.
	File string `yaml:"file"`
	// Exec is that of source exec.
	Exec string `yaml:"exec"`
}

type secretRefProvider struct {
	// Source is where the values come from.
	Source string `yaml:"source" jsonschema:"enum=env,enum=file,enum=exec"`
	// Allowlist are the environment variables that may be read. Not set: all. Source env.
	Allowlist []string `yaml:"allowlist"`
	// Path is the file, from the directory of this configuration when relative. Source file.
	Path string `yaml:"path"`
	// Mode says what the file holds. Empty: json. Source file.
	Mode string `yaml:"mode" jsonschema:"enum=json,enum=singleValue"`
	// MaxBytes bounds the file. Not set: 1048576. Source file.
	MaxBytes int64 `yaml:"maxBytes" jsonschema:"minimum=1,maximum=20971520"`
	// Command is the absolute path of the program. Source exec.
	Command string `yaml:"command"`
	// Args are its arguments. Source exec.
	Args []string `yaml:"args"`
	// Env are its environment variables. Source exec.
	Env map[string]string `yaml:"env"`
	// PassEnv are the environment variables that it gets from here. Source exec.
	PassEnv []string `yaml:"passEnv"`
	// TimeoutMs is how many milliseconds the provider has. Not set: 5000. Sources file and exec.
	TimeoutMs int64 `yaml:"timeoutMs" jsonschema:"minimum=1,maximum=120000"`
	// NoOutputTimeoutMs is how many milliseconds the program may write nothing. Not set: timeoutMs. Source exec.
	NoOutputTimeoutMs int64 `yaml:"noOutputTimeoutMs" jsonschema:"minimum=1,maximum=120000"`
	// MaxOutputBytes bounds what the program writes. Not set: 1048576. Source exec.
	MaxOutputBytes int64 `yaml:"maxOutputBytes" jsonschema:"minimum=1,maximum=20971520"`
	// JSONOnly is false where an answer that is no JSON is the value. Not set: true. Source exec.
	JSONOnly bool `yaml:"jsonOnly"`
	// TrustedDirs are the directories of which the program must lie in one. Source exec.
	TrustedDirs []string `yaml:"trustedDirs"`
	// AllowInsecurePath accepts every owner and mode. With compat 2026.3.2 alone.
	AllowInsecurePath bool `yaml:"allowInsecurePath"`
	// AllowSymlinkCommand accepts a link to the program. Source exec, with compat 2026.3.2 alone.
	AllowSymlinkCommand bool `yaml:"allowSymlinkCommand"`
}

// SecretRefs is the setting secretref: the providers of SecretRefs in documents other than OpenClaw's own. The caller must not
// change it. Relative paths in it belong to Dir.
func (f *File) SecretRefs() secretref.Config { return f.secretRefs }

// UntrustedSecretRefs gives, for a configuration that is not trusted, the error of a provider of SecretRefs which touches more
// than environment variables and files below the directory of the configuration; nil for any other.
func (f *File) UntrustedSecretRefs(provider string) error {
	if p, ok := f.secretRefs.Providers[provider]; ok && !HarmlessSecretRefs(p, f.Dir()) {
		return untrusted{path: f.path}.refuse()
	}
	return nil
}

// HarmlessSecretRefs reports whether p touches nothing but environment variables and files below dir, links resolved. A variable
// does no harm here, since a SecretRef's value goes nowhere but into the document.
func HarmlessSecretRefs(p secretref.Provider, dir string) bool {
	switch {
	case p.Exec != nil:
		return false
	case p.File != nil:
		return below(dir, p.File.Path)
	}
	return true
}

// checkSecretRefs reads the section secretref.
func (f *File) checkSecretRefs(p *problems) {
	section := f.root.get("secretref")
	if section == nil || section.kind != kindMapping || p.err() != nil {
		return
	}
	compat, err := secretref.ParseCompat(f.settings.SecretRef.Compat)
	if err != nil {
		p.add(section.get("compat"), "secretref.compat", "%v", err)
		return
	}
	plain, _ := plain(section, reflect.TypeFor[secretRefSettings]()).(map[string]any)
	delete(plain, "compat")
	f.secretRefs, err = secretref.DecodeConfig(plain, compat)
	var wrong *secretref.ConfigError
	if errors.As(err, &wrong) {
		steps := strings.Split(wrong.Path, ".")
		at := section
		for _, step := range steps[1:] {
			key, _, _ := strings.Cut(step, "[")
			if next := at.get(key); next != nil {
				at = next
			}
		}
		p.add(at, "secretref"+strings.TrimPrefix(wrong.Path, "secrets"), "%s", wrong.Reason)
		return
	}
	providers := section.get("providers")
	if providers == nil {
		return
	}
	for _, pr := range providers.pairs {
		path := join("secretref.providers", pr.key.text)
		if !secretref.ValidAlias(pr.key.text) {
			p.add(pr.key, path, "the name of a provider must match ^[a-z][a-z0-9_-]{0,63}$")
		}
		env := pr.value.get("env")
		if env == nil {
			continue
		}
		for _, variable := range env.pairs {
			if secretName().MatchString(variable.key.text) {
				f.warnings = append(f.warnings, fmt.Sprintf("%s:%d:%d: %s is a secret in plain text; hand it to the program with passEnv",
					p.file, variable.value.line, variable.value.column, join(path+".env", variable.key.text)))
			}
		}
	}
}

// plain gives a node that was decoded into a value of type t without a problem as encoding/json would give it.
func plain(n *node, t reflect.Type) any {
	switch t.Kind() {
	case reflect.Struct:
		fields := settings(reflect.New(t).Elem())
		out := make(map[string]any, len(n.pairs))
		for _, p := range n.pairs {
			if p.value.kind != kindNull {
				out[p.key.text] = plain(p.value, fields[p.key.text].Type())
			}
		}
		return out
	case reflect.Map:
		out := make(map[string]any, len(n.pairs))
		for _, p := range n.pairs {
			out[p.key.text] = plain(p.value, t.Elem())
		}
		return out
	case reflect.Slice:
		out := make([]any, len(n.items))
		for i, item := range n.items {
			out[i] = plain(item, t.Elem())
		}
		return out
	case reflect.Bool:
		return n.text == "true"
	case reflect.Int64:
		v, _ := strconv.ParseInt(n.text, 10, 64)
		return v
	}
	return n.text
}

// secretRefsNeedTrust is NeedsTrust of the section secretref.
func (f *File) secretRefsNeedTrust() []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(f.secretRefs.Providers)) {
		p := f.secretRefs.Providers[name]
		if HarmlessSecretRefs(p, f.Dir()) {
			continue
		}
		who := fmt.Sprintf("%s (SecretRefs of source %s)", name, p.Source)
		if p.File != nil {
			lines = append(lines, fmt.Sprintf("%s: %s %s", who, backend.ReachFile, p.File.Path))
			continue
		}
		lines = append(lines, fmt.Sprintf("%s: %s %s", who, backend.ReachExecutable, strings.Join(append([]string{p.Exec.Command}, p.Exec.Args...), " ")))
		for _, variable := range append(slices.Sorted(maps.Keys(p.Exec.Env)), p.Exec.PassEnv...) {
			lines = append(lines, fmt.Sprintf("%s: %s %s", who, backend.ReachEnvironment, variable))
		}
	}
	return lines
}
