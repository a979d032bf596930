package openclaw

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/credresolve/credresolve/secretref"
)

// MaxPlan is the greatest size of a plan, in bytes.
const MaxPlan = 16 << 20

// DocumentValue is the type of a plan's target in a document by itself that is not OpenClaw's: any place of it. OpenClaw does
// not know it.
const DocumentValue = "document.value"

// Plan is what `openclaw secrets apply` reads: changes of providers, and refs to put in the place of secrets. Source: the plan
// contract of OpenClaw 2026.9.6.
type Plan struct {
	GeneratedAt time.Time // zero: not said
	GeneratedBy string
	// Upserts are definitions of providers, decoded, as "secrets.providers" has them.
	Upserts map[string]any
	// Deletes are names of providers that go. They go before Upserts come.
	Deletes []string
	Targets []PlanTarget
	Options PlanOptions
}

// PlanTarget is one ref and its place.
type PlanTarget struct {
	Type string
	// Path leads to where the secret stands in plain text, or would.
	Path []string
	Ref  secretref.Ref
	// Agent is whose auth profiles are meant; empty for a place of openclaw.json.
	Agent string
	// AuthProvider is the provider of a new auth profile.
	AuthProvider string

	surface Surface
}

// PlanOptions say what else goes. The zero PlanOptions scrub nothing; DecodePlan gives the defaults.
type PlanOptions struct {
	// ScrubEnv takes secrets that moved out of .env files, generated models.json and OpenClaw's backups of its configuration.
	ScrubEnv bool
	// ScrubAuthProfiles takes the secrets of profiles out whose provider now has a ref in the configuration.
	ScrubAuthProfiles bool
	// ScrubLegacyAuth does the same to auth.json.
	ScrubLegacyAuth bool
}

// DefaultPlanOptions are those of a plan that says nothing, under the rules of a release.
func DefaultPlanOptions(c secretref.Compat) PlanOptions {
	return PlanOptions{ScrubEnv: true, ScrubAuthProfiles: true, ScrubLegacyAuth: c == secretref.V2026_3_2}
}

// PlanError says what is wrong with a plan. It holds no value of it but names of places and types.
type PlanError struct {
	At     string // "targets[2].ref"; empty for the plan as a whole
	Reason string
}

func (e *PlanError) Error() string {
	if e.At == "" {
		return "the plan " + e.Reason
	}
	return "the plan's " + e.At + ": " + e.Reason
}

func planError(at, format string, args ...any) error {
	return &PlanError{at, fmt.Sprintf(format, args...)}
}

// ReadPlan reads the plan in the file at path, which is regular.
func ReadPlan(ctx context.Context, path string, c secretref.Compat) (*Plan, error) {
	info, err := os.Stat(path) // before it is opened, which would wait for a FIFO's other end
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, plainly(err))
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: it is no regular file", path)
	case info.Size() > MaxPlan:
		return nil, fmt.Errorf("%s: a plan has at most %d bytes", path, MaxPlan)
	}
	content, err := readFile(path, MaxPlan)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer clear(content)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	plan, err := DecodePlan(content, c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return plan, nil
}

// DecodePlan reads a plan, by the rules of a release. Its error is a *PlanError.
func DecodePlan(content []byte, c secretref.Compat) (*Plan, error) {
	if len(content) > MaxPlan {
		return nil, planError("", "has more than %d bytes", MaxPlan)
	}
	dec := json.NewDecoder(bytes.NewReader(content))
	dec.UseNumber()
	var root map[string]any
	if err := dec.Decode(&root); err != nil || root == nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, planError("", "is no JSON, at byte %d", syntax.Offset)
		}
		return nil, planError("", "is no JSON object")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, planError("", "has more behind its object")
	}
	for _, key := range []string{"version", "protocolVersion"} {
		if n, ok := root[key].(json.Number); !ok || !isOne(n) {
			return nil, planError(key, "it must be 1")
		}
	}
	p := &Plan{GeneratedBy: text(root["generatedBy"])}
	if at, err := time.Parse(time.RFC3339, text(root["generatedAt"])); err == nil {
		p.GeneratedAt = at
	}
	var err error
	if p.Options, err = decodeOptions(root["options"], c); err != nil {
		return nil, err
	}
	if err := p.decodeProviders(root, c); err != nil {
		return nil, err
	}
	targets, ok := root["targets"].([]any)
	if !ok {
		return nil, planError("targets", "it must be a list; an empty one is []")
	}
	seen := map[string]secretref.Ref{}
	for i, t := range targets {
		at := fmt.Sprintf("targets[%d]", i)
		target, err := decodeTarget(at, t, c)
		if err != nil {
			return nil, err
		}
		key := target.Agent + "\x00" + strings.Join(target.Path, "\x00")
		if other, twice := seen[key]; twice && other != target.Ref {
			return nil, planError(at, "another target gives the same place another ref")
		} else if twice {
			continue
		}
		seen[key] = target.Ref
		p.Targets = append(p.Targets, target)
	}
	return p, nil
}

func isOne(n json.Number) bool {
	f, err := n.Float64()
	return err == nil && f == 1
}

func decodeOptions(v any, c secretref.Compat) (PlanOptions, error) {
	o := DefaultPlanOptions(c)
	if v == nil {
		return o, nil
	}
	options, ok := v.(map[string]any)
	if !ok {
		return o, planError("options", "it must be an object")
	}
	for _, f := range []struct {
		name string
		to   *bool
	}{{"scrubEnv", &o.ScrubEnv}, {"scrubAuthProfilesForProviderTargets", &o.ScrubAuthProfiles}, {"scrubLegacyAuthJson", &o.ScrubLegacyAuth}} {
		switch v := options[f.name].(type) {
		case nil:
		case bool:
			*f.to = v
		default:
			return o, planError("options."+f.name, "it must be true or false")
		}
	}
	return o, nil
}

func (p *Plan) decodeProviders(root map[string]any, c secretref.Compat) error {
	if v := root["providerUpserts"]; v != nil {
		upserts, ok := v.(map[string]any)
		if !ok {
			return planError("providerUpserts", "it must be an object, from names to definitions")
		}
		for _, name := range slices.Sorted(maps.Keys(upserts)) {
			if !secretref.ValidAlias(name) {
				return planError("providerUpserts", "a name of a provider must match ^[a-z][a-z0-9_-]{0,63}$")
			}
			at := "providerUpserts." + name
			if _, err := secretref.DecodeConfig(map[string]any{"providers": map[string]any{name: upserts[name]}}, c); err != nil {
				var wrong *secretref.ConfigError
				if errors.As(err, &wrong) {
					return planError(at+strings.TrimPrefix(wrong.Path, "secrets.providers."+name), "%s", wrong.Reason)
				}
				return planError(at, "%v", err)
			}
			if _, plugin := object(upserts[name])["pluginIntegration"]; plugin {
				return planError(at, "a provider that a plugin brings must be enabled with its plugin, which openclaw secrets apply does")
			}
		}
		p.Upserts = upserts
	}
	if v := root["providerDeletes"]; v != nil {
		deletes, ok := v.([]any)
		if !ok {
			return planError("providerDeletes", "it must be a list of names")
		}
		for i, v := range deletes {
			name, _ := v.(string)
			if !secretref.ValidAlias(name) {
				return planError(fmt.Sprintf("providerDeletes[%d]", i), "a name of a provider must match ^[a-z][a-z0-9_-]{0,63}$")
			}
			p.Deletes = append(p.Deletes, name)
		}
	}
	return nil
}

func decodeTarget(at string, v any, c secretref.Compat) (PlanTarget, error) {
	var none PlanTarget
	m, ok := v.(map[string]any)
	if !ok {
		return none, planError(at, "it must be an object")
	}
	for _, key := range []string{"type", "path", "agentId", "providerId", "accountId", "authProfileProvider"} {
		if _, ok := m[key].(string); m[key] != nil && !ok {
			return none, planError(at+"."+key, "it must be a text")
		}
	}
	path, err := ParsePath(text(m["path"]))
	if err != nil {
		return none, planError(at+".path", "%v", err)
	}
	if v := m["pathSegments"]; v != nil {
		list, ok := v.([]any)
		if !ok {
			return none, planError(at+".pathSegments", "it must be a list of texts")
		}
		segments := make([]string, len(list))
		for i := range list {
			if segments[i], ok = list[i].(string); !ok {
				return none, planError(at+".pathSegments", "it must be a list of texts")
			}
		}
		if len(segments) > 0 && !slices.Equal(segments, path) {
			if strings.Join(segments, ".") != strings.TrimSpace(text(m["path"])) {
				return none, planError(at+".pathSegments", "it is not the path that path says")
			}
			path = segments
		}
	}
	source, _ := m["ref"].(map[string]any)
	t := PlanTarget{Type: strings.TrimSpace(text(m["type"])), Path: path, Agent: strings.TrimSpace(text(m["agentId"])),
		AuthProvider: strings.TrimSpace(text(m["authProfileProvider"])),
		Ref:          secretref.Ref{Source: secretref.Source(text(source["source"])), Provider: text(source["provider"]), ID: text(source["id"])}}
	if err := t.complete(c); err != nil {
		var wrong *PlanError
		if errors.As(err, &wrong) {
			return none, planError(at+"."+wrong.At, "%s", wrong.Reason)
		}
		return none, err
	}
	for _, id := range []struct {
		key string
		at  int
	}{{"providerId", t.surface.ProviderAt}, {"accountId", t.surface.AccountAt}} {
		if v := strings.TrimSpace(text(m[id.key])); v != "" && (id.at == 0 || path[id.at] != v) {
			return none, planError(at+"."+id.key, "it is not the one in the path")
		}
	}
	return t, nil
}

// complete finds the target's surface and checks the target.
func (t *PlanTarget) complete(c secretref.Compat) error {
	for _, step := range t.Path {
		switch {
		case step == "__proto__" || step == "prototype" || step == "constructor":
			return planError("path", "it has the segment %s, which openclaw forbids", step)
		case !utf8.ValidString(step) || strings.TrimSpace(step) == "":
			return planError("path", "it has an empty segment, or one that is not UTF-8")
		}
	}
	switch {
	case t.Type == "":
		return planError("type", "it is needed")
	case t.Type == DocumentValue:
		t.surface = Surface{Type: DocumentValue, Expected: secretref.String}
	default:
		known := false
		for _, s := range surfaces() {
			if s.RuntimeOnly || s.Type != t.Type && s.Pattern != t.Type {
				continue
			}
			known = true
			if s.MatchLiteral(t.Path) {
				t.surface = s
				break
			}
		}
		switch {
		case !known:
			return planError("type", "there is no such type of target")
		case t.surface.Type == "":
			return planError("path", "Invalid plan target path for %s: %s", t.Type, shownPath(t.Path))
		}
	}
	if err := (secretref.Grammar{Compat: c}).Check(t.Ref); err != nil {
		return planError("ref", "%v", err)
	}
	switch {
	case !t.surface.Profile:
		t.Agent, t.AuthProvider = "", ""
	case t.Agent == "":
		return planError("agentId", "it is needed for a place in auth profiles")
	}
	return nil
}

// NewTarget gives the target of a ref at a place: of an agent's auth profiles where agent is not empty, else of openclaw.json.
// anywhere takes places that OpenClaw does not know.
func NewTarget(path []string, ref secretref.Ref, agent string, anywhere bool, c secretref.Compat) (PlanTarget, error) {
	t := PlanTarget{Path: path, Ref: ref}
	for _, s := range surfaces() {
		if s.RuntimeOnly || !(s.MatchLiteral(path) || s.Match(path)) {
			continue
		}
		t.Type = s.Type
		if s.Profile {
			t.Agent = agent
			t.Path = slices.Clone(path)
			t.Path[len(path)-1] = strings.TrimSuffix(path[len(path)-1], "Ref")
		}
		break
	}
	if t.Type == "" {
		if u, known := UnsupportedAt(path); known {
			return t, fmt.Errorf("%s takes no reference: %s", shownPath(path), u.Reason)
		}
		if !anywhere {
			return t, fmt.Errorf("%s is no place where openclaw takes a reference; credresolve secretref audit lists those that hold plain text", shownPath(path))
		}
		t.Type = DocumentValue
	}
	if err := t.complete(c); err != nil {
		var wrong *PlanError
		if errors.As(err, &wrong) {
			return t, fmt.Errorf("%s: %s", shownPath(path), wrong.Reason)
		}
		return t, err
	}
	return t, nil
}

// refPath is where the ref is to stand.
func (t PlanTarget) refPath() []string {
	if t.surface.Literal == "" {
		return t.Path
	}
	out := slices.Clone(t.Path)
	for i, s := range t.surface.steps {
		if s != "*" && s != "[]" {
			out[i] = s
		}
	}
	return out
}

// String is the target's place.
func (t PlanTarget) String() string {
	if t.Agent != "" {
		return shownPath(t.Path) + " of agent " + t.Agent
	}
	return shownPath(t.Path)
}

func shownPath(path []string) string {
	shown := ""
	for _, step := range path {
		shown = AppendKey(shown, step)
	}
	if len(shown) > 200 {
		shown = strings.ToValidUTF8(shown[:200], "") + "…"
	}
	return shown
}

// runsPrograms reports whether applying the plan needs a program's answer, or leaves one to be run.
func (p *Plan) runsPrograms() bool {
	for _, t := range p.Targets {
		if t.Ref.Source == secretref.Exec {
			return true
		}
	}
	for _, definition := range p.Upserts {
		if object(definition)["source"] == string(secretref.Exec) {
			return true
		}
	}
	return false
}

// planJSON is a Plan as it is written.
type planJSON struct {
	Version         int             `json:"version"`
	ProtocolVersion int             `json:"protocolVersion"`
	GeneratedAt     string          `json:"generatedAt"`
	GeneratedBy     string          `json:"generatedBy"`
	Targets         []targetJSON    `json:"targets"`
	Upserts         map[string]any  `json:"providerUpserts,omitempty"`
	Deletes         []string        `json:"providerDeletes,omitempty"`
	Options         map[string]bool `json:"options"`
}

type targetJSON struct {
	Type         string   `json:"type"`
	Path         string   `json:"path"`
	PathSegments []string `json:"pathSegments"`
	Ref          planRef  `json:"ref"`
	AgentID      string   `json:"agentId,omitempty"`
	ProviderID   string   `json:"providerId,omitempty"`
	AccountID    string   `json:"accountId,omitempty"`
	AuthProvider string   `json:"authProfileProvider,omitempty"`
}

// MarshalJSON writes the plan as OpenClaw reads it.
func (p *Plan) MarshalJSON() ([]byte, error) {
	out := planJSON{Version: 1, ProtocolVersion: 1, GeneratedAt: p.GeneratedAt.UTC().Format("2006-01-02T15:04:05.000Z"), GeneratedBy: p.GeneratedBy,
		Targets: []targetJSON{}, Upserts: p.Upserts, Deletes: p.Deletes, Options: map[string]bool{
			"scrubEnv": p.Options.ScrubEnv, "scrubAuthProfilesForProviderTargets": p.Options.ScrubAuthProfiles, "scrubLegacyAuthJson": p.Options.ScrubLegacyAuth,
		}}
	for _, t := range p.Targets {
		j := targetJSON{Type: t.Type, Path: strings.Join(t.Path, "."), PathSegments: t.Path, Ref: refJSON(t.Ref), AgentID: t.Agent, AuthProvider: t.AuthProvider}
		if t.surface.ProviderAt > 0 {
			j.ProviderID = t.Path[t.surface.ProviderAt]
		}
		if t.surface.AccountAt > 0 {
			j.AccountID = t.Path[t.surface.AccountAt]
		}
		out.Targets = append(out.Targets, j)
	}
	return json.Marshal(out)
}

// Encode gives the plan as the text of a file.
func (p *Plan) Encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(p); err != nil {
		return nil, fmt.Errorf("write the plan: %w", err)
	}
	if b.Len() > MaxPlan {
		return nil, planError("", "has more than %d bytes, and cannot be written", MaxPlan)
	}
	return b.Bytes(), nil
}

func refJSON(r secretref.Ref) planRef { return planRef{string(r.Source), r.Provider, r.ID} }

// ParsePath reads the path of a value as OpenClaw writes it: keys with dots between them, keys of any letters and indices in
// brackets, a backslash before a letter that means itself.
func ParsePath(raw string) ([]string, error) {
	raw = strings.TrimSpace(raw)
	if raw == "" {
		return nil, errors.New("a path is needed, such as models.providers.openai.apiKey")
	}
	var out []string
	var key strings.Builder
	bracketed := false // the segment came in brackets
	end := func() error {
		switch s := strings.TrimSpace(key.String()); {
		case s != "":
			out = append(out, s)
		case key.Len() > 0 || !bracketed:
			return errors.New("it has an empty segment")
		}
		key.Reset()
		bracketed = false
		return nil
	}
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; c {
		case '\\':
			if i++; i == len(raw) {
				return nil, errors.New("it ends with a backslash")
			}
			key.WriteByte(raw[i])
		case '.':
			if err := end(); err != nil {
				return nil, err
			}
			if i == len(raw)-1 {
				return nil, errors.New("it ends with a dot")
			}
		case '[':
			if key.Len() > 0 || !bracketed && len(out) > 0 && i > 0 && raw[i-1] == '.' {
				if err := end(); err != nil {
					return nil, err
				}
			}
			segment, next, err := bracket(raw, i)
			if err != nil {
				return nil, err
			}
			out = append(out, segment)
			bracketed = true
			i = next
			if i+1 < len(raw) && raw[i+1] != '.' && raw[i+1] != '[' {
				return nil, errors.New("behind a bracket comes a dot or a bracket")
			}
		default:
			key.WriteByte(c)
		}
	}
	if err := end(); err != nil {
		return nil, err
	}
	return out, nil
}

// bracket reads the segment in the brackets that open at i, and gives where they close.
func bracket(raw string, i int) (segment string, end int, err error) {
	wrong := errors.New("a key in brackets is an index, or a text in quotes")
	inside := raw[i+1:]
	skipped := len(inside) - len(strings.TrimLeft(inside, " \t"))
	at := i + 1 + skipped
	if at < len(raw) && (raw[at] == '"' || raw[at] == '\'') {
		quote := raw[at]
		var text strings.Builder
		text.WriteByte('"')
		for j := at + 1; j < len(raw); j++ {
			switch c := raw[j]; {
			case c == '\\' && j+1 < len(raw):
				j++
				if raw[j] == '\'' {
					text.WriteByte('\'')
				} else {
					text.WriteString(raw[j-1 : j+1])
				}
			case c == quote:
				text.WriteByte('"')
				closing := j + 1 + len(raw[j+1:]) - len(strings.TrimLeft(raw[j+1:], " \t"))
				if closing >= len(raw) || raw[closing] != ']' || json.Unmarshal([]byte(text.String()), &segment) != nil || strings.TrimSpace(segment) == "" {
					return "", 0, wrong
				}
				return segment, closing, nil
			case c == '"':
				text.WriteString(`\"`)
			default:
				text.WriteByte(c)
			}
		}
		return "", 0, wrong
	}
	closing := strings.IndexByte(inside, ']')
	if closing < 0 {
		return "", 0, errors.New("a bracket is not closed")
	}
	if segment = strings.TrimSpace(inside[:closing]); segment == "" {
		return "", 0, wrong
	}
	return segment, i + 1 + closing, nil
}
