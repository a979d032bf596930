package authstore

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"time"
	"unicode"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/json5"
	"github.com/credresolve/credresolve/internal/lazyregexp"
)

// The types of profiles.
const (
	TypeAPIKey = "api_key"
	TypeToken  = "token"
	TypeOAuth  = "oauth"
)

// ManagedBy is the value of the key "managedBy" in the metadata of a profile that this project wrote.
const ManagedBy = "credresolve"

// Profile is one entry of a store. It is immutable.
type Profile struct {
	Type     string // one of the types
	Provider string // lower case
	// Secret is the key, the token, or the access token; zero where the profile has none, or a Ref.
	Secret backend.Secret
	// Ref is the SecretRef that OpenClaw takes the secret from, before any Secret; nil: none.
	Ref *Ref
	// Expires is the end of a token; zero: none is said.
	Expires time.Time
	// Invalid: the end is no time, which OpenClaw takes for a token that cannot be used.
	Invalid bool
	// Members are all members of the entry as they stand.
	Members map[string]backend.Secret
	// Metadata are the texts of the member metadata.
	Metadata map[string]string
}

// Ref is a SecretRef; of a shorthand the Provider is empty.
type Ref struct{ Source, Provider, ID string }

func (r Ref) String() string { return r.Source + ":" + r.Provider + ":" + r.ID }

// Managed reports whether this project wrote the profile.
func (p *Profile) Managed() bool { return p.Metadata["managedBy"] == ManagedBy }

// ProviderOf gives the provider in the id PROVIDER:NAME of a profile.
func ProviderOf(id string) (provider string, ok bool) {
	provider, name, ok := strings.Cut(id, ":")
	provider = strings.ToLower(strings.TrimSpace(provider))
	return provider, ok && provider != "" && name != ""
}

// Writable fails for a profile of the agent's own, the one in f, that somebody else made.
func (s *Stores) Writable(f *json5.File, id string) error {
	if f.Root().Get("profiles", id) == nil {
		return nil
	}
	if p := s.Own.Profiles[id]; p == nil || !p.Managed() {
		return &backend.Error{
			Code: backend.CodeDenied, Reason: "the auth profile was not written by credresolve, which changes its own alone",
			Remedy: "use another name, or remove it first: openclaw models auth logout",
		}
	}
	return nil
}

// parse reads the JSON of a store. What is no profile is left out, as OpenClaw does. Nothing of content stays in memory but
// in Secrets.
func parse(path string, content []byte) (map[string]*Profile, error) {
	broken := backend.Errorf(backend.CodeUnavailable, "%s is not valid JSON with an object of profiles", path)
	top, ok := backend.FieldsFromJSON(trimMark(content))
	if !ok {
		return nil, broken
	}
	var entries map[string]backend.Secret
	_ = top["profiles"].Use(func(b []byte) error {
		entries, ok = backend.FieldsFromJSON(b)
		return nil
	})
	if !ok || !top["profiles"].IsJSON() {
		return nil, broken
	}
	profiles := make(map[string]*Profile, len(entries))
	for id, entry := range entries {
		if p := profileOf(entry); p != nil {
			profiles[id] = p
		}
	}
	return profiles, nil
}

func trimMark(b []byte) []byte {
	if len(b) >= 3 && string(b[:3]) == "\ufeff" {
		return b[3:]
	}
	return b
}

// members gives the members of a JSON object, nil for anything else.
func members(s backend.Secret) (m map[string]backend.Secret) {
	if s.IsJSON() {
		_ = s.Use(func(b []byte) error {
			m, _ = backend.FieldsFromJSON(b)
			return nil
		})
	}
	return m
}

// text gives the text of a JSON string; empty for anything else. Not for secrets: a string cannot be zeroed.
func text(s backend.Secret) (t string) {
	if !s.IsZero() && !s.IsJSON() {
		_ = s.Use(func(b []byte) error {
			t = string(b)
			return nil
		})
	}
	return t
}

// profileOf reads one entry with the spellings that OpenClaw takes; nil for what it leaves out.
func profileOf(entry backend.Secret) *Profile {
	m := members(entry)
	if m == nil {
		return nil
	}
	p := &Profile{Type: text(m["type"]), Members: m}
	if _, has := m["type"]; !has {
		p.Type = text(m["mode"])
	}
	if p.Type == "apiKey" {
		p.Type = TypeAPIKey
	}
	if p.Provider = strings.ToLower(strings.TrimSpace(text(m["provider"]))); p.Provider == "" {
		return nil
	}
	var secret, ref backend.Secret
	switch p.Type {
	case TypeAPIKey:
		secret, ref = m["key"], m["keyRef"]
		if _, has := m["key"]; !has {
			secret = m["apiKey"]
		}
	case TypeToken:
		secret, ref = m["token"], m["tokenRef"]
	case TypeOAuth:
		secret = m["access"]
	default:
		return nil
	}
	if p.Ref = refOf(ref); p.Ref == nil && p.Type != TypeOAuth {
		p.Ref = refOf(secret)
	}
	if p.Ref == nil && !blank(secret) {
		p.Secret = secret
	}
	if at, has := m["expires"]; has && p.Type != TypeAPIKey {
		p.Expires, p.Invalid = expiry(at)
	}
	for name, v := range members(m["metadata"]) {
		if t := text(v); t != "" {
			if p.Metadata == nil {
				p.Metadata = make(map[string]string)
			}
			p.Metadata[name] = t
		}
	}
	return p
}

// blank reports whether s is no text, or one of white space.
func blank(s backend.Secret) bool {
	if s.IsZero() || s.IsJSON() {
		return true
	}
	is := true
	_ = s.Use(func(b []byte) error {
		is = len(trim(b)) == 0
		return nil
	})
	return is
}

// trim takes off what is white space to OpenClaw, a JavaScript program: U+FEFF is some, U+0085 is none.
func trim(b []byte) []byte {
	return bytes.TrimFunc(b, func(c rune) bool { return c == '\ufeff' || c != '\u0085' && unicode.IsSpace(c) })
}

var shorthand = lazyregexp.New(`^\s*\$(?:\{([A-Z][A-Z0-9_]{0,127})\}|([A-Z][A-Z0-9_]{0,127}))\s*$`)

// refOf reads a SecretRef: an object, or a shorthand for an environment variable.
func refOf(s backend.Secret) *Ref {
	if m := members(s); m != nil {
		r := Ref{text(m["source"]), text(m["provider"]), text(m["id"])}
		known := 2
		if _, has := m["provider"]; has {
			known++
		}
		if r.Source == "" || r.ID == "" || len(m) != known {
			return nil
		}
		return &r
	}
	if s.IsZero() || s.IsJSON() || s.Len() > 200 {
		return nil
	}
	var r *Ref
	_ = s.Use(func(b []byte) error {
		if m := shorthand().FindSubmatch(b); m != nil {
			r = &Ref{Source: "env", ID: string(m[1]) + string(m[2])}
		}
		return nil
	})
	return r
}

// lastExpiry is the latest time that JavaScript knows, in milliseconds.
const lastExpiry = 8_640_000_000_000_000

// expiry reads milliseconds since 1970.
func expiry(s backend.Secret) (at time.Time, invalid bool) {
	var ms float64
	err := s.Use(func(b []byte) error { return json.Unmarshal(b, &ms) })
	if err != nil || !s.IsJSON() || math.IsNaN(ms) || ms <= 0 || ms > lastExpiry {
		return time.Time{}, true
	}
	return time.UnixMilli(int64(ms)), false
}

var fence = lazyregexp.New(`^openclaw-oauth-refresh-fence:v1:[a-f0-9]{32}:(failed:)?access:`)

// masks are what redactions leave, as package secretref has them, which a leaf cannot ask.
var masks = map[string]bool{
	"__OPENCLAW_REDACTED__": true, "REDACTED": true, "xoxb-REDACTED": true, "xapp-REDACTED": true, "***": true,
	"[redacted]": true, "[REDACTED]": true, "<redacted>": true, "[REDACTED_PRIVATE_KEY]": true, "[REDACTED CREDENTIAL]": true,
}

// Fence says how far OpenClaw is with the refresh of an OAuth profile.
type Fence int

// The states of a refresh. While one runs, or after it failed, the profile holds a mark in place of the tokens.
const (
	NoFence Fence = iota
	RefreshRunning
	RefreshFailed
)

// Fence reports whether the profile holds OpenClaw's mark of a refresh in place of its tokens.
func (p *Profile) Fence() Fence {
	f := NoFence
	if p.Type == TypeOAuth {
		_ = p.Secret.Use(func(b []byte) error {
			if m := fence().FindSubmatch(b); m != nil && len(m[1]) == 0 {
				f = RefreshRunning
			} else if m != nil {
				f = RefreshFailed
			}
			return nil
		})
	}
	return f
}

// Masked reports whether the secret is what a redaction left of one.
func (p *Profile) Masked() (is bool) {
	_ = p.Secret.Use(func(b []byte) error {
		is = masks[string(trim(b))] // no copy is made of it
		return nil
	})
	return is
}
