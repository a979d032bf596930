package secretref

import (
	"fmt"
	"regexp"
	"strings"
)

// Source is where a Ref's value comes from.
type Source string

// The sources. Store is OpenClaw's own database, which this package recognises and cannot read.
const (
	Env   Source = "env"
	File  Source = "file"
	Exec  Source = "exec"
	Store Source = "store"
)

// Ref is a SecretRef: a pointer to a secret, never the secret itself. It is comparable and can key a map.
type Ref struct {
	Source   Source `json:"source"`
	Provider string `json:"provider"`
	ID       string `json:"id"`
}

// Key is the text under which OpenClaw files a Ref: "source:provider:id". It may be shown.
func (r Ref) Key() string { return string(r.Source) + ":" + r.Provider + ":" + r.ID }

// Compat is the release of OpenClaw whose rules hold where releases differ. The zero Compat is Newest.
type Compat string

// The known releases.
const (
	Newest    Compat = ""         // 2026.9.6
	V2026_3_2 Compat = "2026.3.2" // where SecretRef was introduced
)

// DefaultAlias is the provider that a Ref without one has, where the configuration names no other.
const DefaultAlias = "default"

// Defaults are the providers of refs that name none, by source. An empty one is DefaultAlias.
type Defaults struct{ Env, File, Exec, Store string }

// Of gives the default provider of source s.
func (d Defaults) Of(s Source) string {
	alias := ""
	switch s {
	case Env:
		alias = d.Env
	case File:
		alias = d.File
	case Exec:
		alias = d.Exec
	case Store:
		alias = d.Store
	}
	if alias == "" {
		return DefaultAlias
	}
	return alias
}

// Grammar says what is a ref, and whether it is well formed. The zero Grammar takes three-key objects alone, by the newest
// rules.
type Grammar struct {
	Compat   Compat
	Defaults Defaults
	// Shorthands takes "${NAME}", "$NAME" and objects without a provider too, which only OpenClaw's own files have.
	Shorthands bool
}

var (
	bracedShorthand = regexp.MustCompile(`^\$\{([A-Z][A-Z0-9_]{0,127})\}$`)
	plainShorthand  = regexp.MustCompile(`^\$([A-Z][A-Z0-9_]{0,127})$`)
	aliasPattern    = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}$`)
	namePattern     = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,127}$`)
	execPattern     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/#-]{0,255}$`)
	oldExecPattern  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/-]{0,255}$`)
)

// FromObject gives the ref that an object is, if it is one by its shape. keys are its string members; others says that it
// has members beside these.
func (g Grammar) FromObject(keys map[string]string, others bool) (Ref, bool) {
	if others {
		return Ref{}, false
	}
	source, id := Source(keys["source"]), keys["id"]
	if strings.TrimSpace(id) == "" || !g.knows(source) {
		return Ref{}, false
	}
	provider, given := keys["provider"]
	switch {
	case len(keys) == 3 && given && strings.TrimSpace(provider) != "":
		return Ref{source, provider, id}, true
	case len(keys) == 2 && !given && g.Shorthands:
		return Ref{source, g.Defaults.Of(source), id}, true
	}
	return Ref{}, false
}

func (g Grammar) knows(s Source) bool {
	switch s {
	case Env, File, Exec:
		return true
	case Store:
		return g.Compat == Newest
	}
	return false
}

// FromString gives the ref that a shorthand is. Without Shorthands no text is one.
func (g Grammar) FromString(s string) (Ref, bool) {
	if !g.Shorthands {
		return Ref{}, false
	}
	s = strings.TrimSpace(s)
	m := bracedShorthand.FindStringSubmatch(s)
	if m == nil && g.Compat == Newest {
		m = plainShorthand.FindStringSubmatch(s)
	}
	if m == nil {
		return Ref{}, false
	}
	return Ref{Env, g.Defaults.Of(Env), m[1]}, true
}

// FromValue gives the ref that a decoded JSON value is: a string or a map[string]any.
func (g Grammar) FromValue(v any) (Ref, bool) {
	switch v := v.(type) {
	case string:
		return g.FromString(v)
	case map[string]any:
		keys := make(map[string]string, 3)
		for key, member := range v {
			text, ok := member.(string)
			if !ok || len(keys) == 3 {
				return Ref{}, false
			}
			keys[key] = text
		}
		return g.FromObject(keys, false)
	}
	return Ref{}, false
}

// Check reports what is wrong with the provider or the id of r.
func (g Grammar) Check(r Ref) error {
	if !aliasPattern.MatchString(r.Provider) {
		return fmt.Errorf("Secret reference provider must match /%s/ (ref: %s).", aliasPattern, r.Key()) //nolint:staticcheck // OpenClaw's text
	}
	return nil
}

// Retired reports whether s is a marker that older releases of OpenClaw wrote in the place of a secret. It is never a ref.
func Retired(s string) bool {
	s = strings.TrimSpace(s)
	return strings.HasPrefix(s, "secretref-env:") || strings.HasPrefix(s, "__env__:")
}

// Placeholder reports whether s is what a redacted output has in the place of a secret.
func Placeholder(s string) bool { return placeholders[strings.TrimSpace(s)] }

var placeholders = map[string]bool{
	"__OPENCLAW_REDACTED__": true, "REDACTED": true, "xoxb-REDACTED": true, "xapp-REDACTED": true, "***": true,
	"[redacted]": true, "[REDACTED]": true, "<redacted>": true, "[REDACTED_PRIVATE_KEY]": true, "[REDACTED CREDENTIAL]": true,
}
