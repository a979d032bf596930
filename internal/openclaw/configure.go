package openclaw

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/credresolve/credresolve/secretref"
)

// Candidate is a place that holds a secret in plain text where a ref could be.
type Candidate struct {
	Path  []string
	Agent string // whose auth profile it is; empty for openclaw.json
	File  string
	Line  int // 0: not known
}

// String is the place, as a plan and --set have it.
func (c Candidate) String() string { return shownPath(c.Path) }

// Candidates are the secrets in plain text that a plan can move: of the configuration in the order of the surfaces, and of an
// agent's auth profiles.
func (d *Document) Candidates(ctx context.Context, agent string) []Candidate {
	var out []Candidate
	for _, p := range d.places() {
		value := text(p.value)
		_, ref := d.Grammar.FromValue(p.value)
		switch {
		case ref || !filled(p.value, p.surface.Expected) || NoSecretMarker(value):
		case p.surface.Pattern == "models.providers.*.headers.*" && !SensitiveHeader(p.steps[len(p.steps)-1]):
		default:
			out = append(out, Candidate{Path: p.steps, File: d.Config, Line: d.line(p.steps)})
		}
	}
	var stores []ProfileStore
	for _, a := range d.Agents {
		if a.ID == agent {
			stores = append(stores, d.fileStore(a))
		}
	}
	for _, s := range append(stores, d.ProfileStores(ctx)...) {
		if s.Agent != agent || agent == "" {
			continue
		}
		for _, c := range credentials(s.Root) {
			path := []string{"profiles", c.id, c.field}
			if _, ref := d.Grammar.FromValue(c.value); ref || c.field == "" || !filled(c.value, secretref.String) ||
				slices.ContainsFunc(out, func(o Candidate) bool { return o.Agent == agent && slices.Equal(o.Path, path) }) {
				continue
			}
			out = append(out, Candidate{Path: path, Agent: agent, File: s.Path})
		}
	}
	return out
}

// Profile is what an agent has under the id of an auth profile: its type and provider, empty where there is none.
func (d *Document) Profile(ctx context.Context, agent, id string) (kind, provider string) {
	for _, a := range d.Agents {
		if a.ID != agent {
			continue
		}
		stores := d.ProfileStores(ctx)
		for _, s := range append([]ProfileStore{d.fileStore(a)}, stores...) {
			if p := member(member(s.Root, "profiles"), id); p != nil && s.Agent == agent {
				kind, provider = text(p["type"]), text(p["provider"])
			}
		}
	}
	return kind, provider
}

// ImplicitAgent is the agent that every home has.
func ImplicitAgent() string { return implicitAgent }

// ParseRef reads SOURCE:PROVIDER:ID, which is how OpenClaw writes a ref in messages.
func ParseRef(s string, c secretref.Compat) (secretref.Ref, error) {
	parts := strings.SplitN(s, ":", 3)
	if len(parts) != 3 {
		return secretref.Ref{}, errors.New("a reference is SOURCE:PROVIDER:ID, such as env:default:OPENAI_API_KEY")
	}
	r := secretref.Ref{Source: secretref.Source(parts[0]), Provider: parts[1], ID: parts[2]}
	switch r.Source {
	case secretref.Env, secretref.File, secretref.Exec, secretref.Store:
	default:
		return secretref.Ref{}, errors.New("the source of a reference is env, file or exec")
	}
	return r, secretref.Grammar{Compat: c}.Check(r)
}

// ParseProvider reads NAME=SOURCE[,key=value…]: a key that takes a list may be repeated, env.NAME=value adds to the environment
// of a program.
func ParseProvider(s string, c secretref.Compat) (name string, definition map[string]any, err error) {
	name, rest, ok := strings.Cut(s, "=")
	if !ok || !secretref.ValidAlias(name) {
		return "", nil, errors.New("a provider is NAME=SOURCE[,key=value…], with a name that matches ^[a-z][a-z0-9_-]{0,63}$")
	}
	fields := strings.Split(rest, ",")
	definition = map[string]any{"source": fields[0]}
	for _, field := range fields[1:] {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return "", nil, fmt.Errorf("provider %s: behind each comma comes key=value; what holds commas is for --provider-json", name)
		}
		switch {
		case key == "args" || key == "passEnv" || key == "trustedDirs" || key == "allowlist":
			list, _ := definition[key].([]any)
			definition[key] = append(list, value)
			continue
		case strings.HasPrefix(key, "env."):
			vars, _ := definition["env"].(map[string]any)
			if vars == nil {
				vars = map[string]any{}
			}
			vars[strings.TrimPrefix(key, "env.")] = value
			definition["env"] = vars
			continue
		}
		if _, twice := definition[key]; twice {
			return "", nil, fmt.Errorf("provider %s: a key is there twice that takes no list", name)
		}
		switch key {
		case "timeoutMs", "noOutputTimeoutMs", "maxBytes", "maxOutputBytes":
			if _, err := strconv.ParseUint(value, 10, 32); err != nil {
				return "", nil, fmt.Errorf("provider %s: %s takes a number", name, key)
			}
			definition[key] = json.Number(value)
		case "jsonOnly", "allowSymlinkCommand", "allowInsecurePath":
			b, err := strconv.ParseBool(value)
			if err != nil {
				return "", nil, fmt.Errorf("provider %s: %s takes true or false", name, key)
			}
			definition[key] = b
		default:
			definition[key] = value
		}
	}
	return name, definition, checkProvider(name, definition, c)
}

// ParseProviderJSON reads NAME={…}, with a definition as secrets.providers has it.
func ParseProviderJSON(s string, c secretref.Compat) (name string, definition map[string]any, err error) {
	name, rest, ok := strings.Cut(s, "=")
	if !ok || !secretref.ValidAlias(name) {
		return "", nil, errors.New("a provider is NAME={…}, with a name that matches ^[a-z][a-z0-9_-]{0,63}$")
	}
	dec := json.NewDecoder(strings.NewReader(rest))
	dec.UseNumber()
	if err := dec.Decode(&definition); err != nil || definition == nil || dec.More() {
		return "", nil, fmt.Errorf("provider %s: behind the sign = comes a JSON object", name)
	}
	return name, definition, checkProvider(name, definition, c)
}

func checkProvider(name string, definition map[string]any, c secretref.Compat) error {
	_, err := secretref.DecodeConfig(map[string]any{"providers": map[string]any{name: definition}}, c)
	return err
}
