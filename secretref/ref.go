package secretref

import (
	"errors"
	"fmt"
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

// Ref is a SecretRef: a pointer to a secret, never the secret itself. It is comparable and can key a map. The zero Ref is not
// valid.
type Ref struct {
	Source   Source `json:"source"`
	Provider string `json:"provider"`
	ID       string `json:"id"`
}

// Key is the text under which OpenClaw files a Ref: "source:provider:id". It is no secret.
func (r Ref) Key() string { return string(r.Source) + ":" + r.Provider + ":" + r.ID }

// trimmed is r as providers see it: OpenClaw takes the white space off an id before it uses it, and not before it files it.
func (r Ref) trimmed() Ref {
	r.ID = trim(r.ID)
	return r
}

// Compat is the release of OpenClaw whose rules hold where releases differ. The zero Compat is Newest.
type Compat string

// The known releases.
const (
	Newest    Compat = ""         // 2026.9.6
	V2026_3_2 Compat = "2026.3.2" // where SecretRef was introduced
)

// ParseCompat reads the name of a release: "" or "newest", or "2026.3.2".
func ParseCompat(s string) (Compat, error) {
	switch s {
	case "", "newest":
		return Newest, nil
	case string(V2026_3_2):
		return V2026_3_2, nil
	}
	return Newest, errors.New(`unknown release; write "newest" or "2026.3.2"`)
}

// DefaultAlias is the provider of a ref that names none, where the configuration names no other.
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
	if alias = trim(alias); alias == "" {
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

// singleValueID is the one id of a file that is one value.
const singleValueID = "value"

// ValidAlias reports whether name can name a provider.
func ValidAlias(name string) bool { return aliasForm.matches(name) }

// FromObject gives the ref that an object is, by its shape alone: Check says whether it is well formed. keys are its members
// that are strings; others says that it has members beside these.
func (g Grammar) FromObject(keys map[string]string, others bool) (Ref, bool) {
	if others {
		return Ref{}, false
	}
	source, id := Source(keys["source"]), keys["id"]
	if trim(id) == "" || !g.knows(source) {
		return Ref{}, false
	}
	provider, given := keys["provider"]
	switch {
	case len(keys) == 3 && given && trim(provider) != "":
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

// FromString gives the ref that a shorthand is: a text that is "${NAME}" or "$NAME" as a whole, but for white space around it.
// Without Shorthands no text is one.
func (g Grammar) FromString(s string) (Ref, bool) {
	if !g.Shorthands {
		return Ref{}, false
	}
	name, dollar := strings.CutPrefix(trim(s), "$")
	braced := strings.HasPrefix(name, "{") && strings.HasSuffix(name, "}")
	if braced {
		name = name[1 : len(name)-1]
	}
	if !dollar || !braced && g.Compat != Newest || !nameForm.matches(name) {
		return Ref{}, false
	}
	return Ref{Env, g.Defaults.Of(Env), name}, true
}

// FromValue gives the ref that a decoded JSON value is: a string or a map[string]any.
func (g Grammar) FromValue(v any) (Ref, bool) {
	switch v := v.(type) {
	case string:
		return g.FromString(v)
	case map[string]any:
		if len(v) > 3 {
			return Ref{}, false
		}
		keys := make(map[string]string, 3)
		for key, member := range v {
			text, ok := member.(string)
			if !ok {
				return Ref{}, false
			}
			keys[key] = text
		}
		return g.FromObject(keys, false)
	}
	return Ref{}, false
}

// ErrForeign is in the error of a ref into OpenClaw's own database.
var ErrForeign = errors.New("the ref leads into OpenClaw's own store, which only OpenClaw reads; point it at an env, file or exec provider")

// RefError says that a ref is not well formed.
type RefError struct {
	Ref    Ref    // without white space around its id
	Reason string // OpenClaw's sentence
}

func (e *RefError) Error() string { return e.Reason }

// Check reports what is wrong with the provider or the id of r, which is a *RefError, or ErrForeign when r leads into
// OpenClaw's store. White space around an id is no fault.
func (g Grammar) Check(r Ref) error {
	r = r.trimmed()
	wrong := func(rule string) error { return &RefError{r, rule + " (ref: " + visible(r.Key()) + ")."} }
	switch {
	case r.ID == "":
		return &RefError{r, "Secret reference id is empty."}
	case !ValidAlias(r.Provider):
		return wrong("Secret reference provider must match /" + aliasForm.String() + "/")
	}
	switch r.Source {
	case Env:
		if !nameForm.matches(r.ID) {
			return wrong("Env secret reference id must match /" + nameForm.String() + "/")
		}
	case File:
		if !validFileID(r.ID) {
			return wrong(`File secret reference id must be an absolute JSON pointer or "value"`)
		}
	case Exec:
		if rule := g.execRule(r.ID); rule != "" {
			return wrong(rule)
		}
	case Store:
		if !nameForm.matches(r.ID) {
			return wrong("Store secret reference id must match /" + nameForm.String() + "/")
		}
		return fmt.Errorf("%w (ref: %s)", ErrForeign, r.Key())
	default:
		return wrong("Secret reference source must be env, file, exec or store")
	}
	return nil
}

// execRule gives the rule that an id for a program breaks, empty when it breaks none.
func (g Grammar) execRule(id string) string {
	if g.Compat == V2026_3_2 {
		if oldExecForm.matches(id) {
			return ""
		}
		return "Exec secret reference id must match /" + oldExecForm.String() + `/ (example: "vault/openai/api-key").`
	}
	valid := execForm.matches(id)
	for segment := range strings.SplitSeq(id, "/") {
		valid = valid && segment != "." && segment != ".."
	}
	if valid {
		return ""
	}
	return "Exec secret reference id must match /" + execForm.String() +
		`/ and must not include "." or ".." path segments (example: "vault/openai/api-key" or "aws/secret#json_key").`
}

// validFileID reports whether id is "value" or a JSON pointer whose every ~ starts ~0 or ~1.
func validFileID(id string) bool {
	if id == singleValueID {
		return true
	}
	if !strings.HasPrefix(id, "/") {
		return false
	}
	for _, rest := range strings.Split(id, "~")[1:] {
		if rest == "" || rest[0] != '0' && rest[0] != '1' {
			return false
		}
	}
	return true
}

// Retired reports whether s is a marker that older releases of OpenClaw wrote in the place of a secret. It is never a ref.
func Retired(s string) bool {
	s = trim(s)
	return strings.HasPrefix(s, "secretref-env:") || strings.HasPrefix(s, "__env__:")
}

// reserved is the one text that already release 2026.3.2 kept for what it had redacted.
const reserved = "__OPENCLAW_REDACTED__"

var placeholders = map[string]bool{
	reserved: true, "REDACTED": true, "xoxb-REDACTED": true, "xapp-REDACTED": true, "***": true,
	"[redacted]": true, "[REDACTED]": true, "<redacted>": true, "[REDACTED_PRIVATE_KEY]": true, "[REDACTED CREDENTIAL]": true,
}

// Placeholder reports whether s is what a redacted output has in the place of a secret.
func Placeholder(s string) bool { return placeholders[trim(s)] }
