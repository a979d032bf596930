//go:build unix

package openclaw

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/internal/openclawtest"
	"github.com/credresolve/credresolve/secretref"
)

// TestRuntimeIsThatOfOpenClaw lets OpenClaw itself and the runtime go through the same random activations: both publish or
// refuse, say the same of the same owners, and give the same values at the same places.
func TestRuntimeIsThatOfOpenClaw(t *testing.T) {
	t.Parallel()
	theirs := openclawtest.StartScript(t, "testdata/activate.mjs")
	published, refused, stale, cold := 0, 0, 0, 0
	for i := range uint64(150) {
		s := newSequence(t, i)
	steps:
		for step := range 4 {
			s.next(t)
			var them struct {
				OK       bool
				Error    string
				Warnings int
				Events   []string
				Config   any
			}
			theirs.Ask(t, map[string]any{"config": s.config, "env": s.env, "fresh": step == 0}, &them)
			report, err := s.activate(t)
			if them.OK != (err == nil) {
				t.Fatalf("%d.%d: OpenClaw says %t, %s; we %v\n%s", i, step, them.OK, them.Error, err, s)
			}
			if them.OK && them.Warnings != report.WarningCount() {
				t.Errorf("%d.%d: OpenClaw counts %d warnings, we %d: %v", i, step, them.Warnings, report.WarningCount(), report.Warnings)
			}
			if several(err) { // which of them OpenClaw names, and takes for the end of what was well, is chance
				break
			}
			var said []string
			for _, line := range them.Events {
				if e := theirEvent(line); e != "" {
					said = append(said, e)
				}
			}
			var told []string
			for _, e := range s.events {
				told = append(told, ourEvent(e))
			}
			slices.Sort(said) // OpenClaw goes through its sections in an order of its own
			slices.Sort(told)
			if !slices.Equal(said, told) {
				t.Errorf("%d.%d: OpenClaw says\n\t%s\nwe\n\t%s\n%s: %v\n%s", i, step, strings.Join(said, "\n\t"), strings.Join(told, "\n\t"), them.Error, err, s)
			}
			if s.runtime.Snapshot() != nil {
				for _, target := range s.active {
					v, err := s.runtime.Snapshot().Value(target.Path)
					ours := "cold"
					if err == nil {
						ours = string(v.Reveal())
					}
					want := theirValue(them.Config, target.Path)
					if ours != want && s.shared[target.Ref] && ours != "cold" && want != "cold" {
						// OpenClaw files what may be kept by ref alone: an owner can get back what another one kept.
						break steps
					}
					if ours != want {
						t.Errorf("%d.%d: %s is %q with OpenClaw, %q with us\n%s", i, step, target.Path, want, ours, s)
					}
				}
			}
			if err != nil {
				refused++
			} else {
				published++
			}
			for _, f := range report.Failures {
				if f.State == secretref.OwnerStale {
					stale++
				} else {
					cold++
				}
			}
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	t.Logf("%d activations published, %d refused; owners %d times stale, %d times cold", published, refused, stale, cold)
	if published == 0 || refused == 0 || stale == 0 || cold == 0 {
		t.Error("not everything was seen")
	}
}

// several reports whether an activation failed for more than one reason.
func several(err error) bool {
	var e *secretref.ActivationError
	return errors.As(err, &e) && slices.ContainsFunc(e.Failures, func(f secretref.TargetFailure) bool { return f.Err.Error() != e.Failures[0].Err.Error() })
}

// sequence is one life of a runtime.
type sequence struct {
	documents
	dir     string
	config  fields
	env     map[string]string
	files   string
	runtime *secretref.Runtime
	events  []secretref.Event
	active  []secretref.Target     // of the last activation that was published
	shared  map[secretref.Ref]bool // refs that several owners have had
}

func newSequence(t *testing.T, seed uint64) *sequence {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &sequence{documents: documents{rand.New(rand.NewPCG(seed, 2))}, dir: dir, shared: make(map[secretref.Ref]bool)}
	s.runtime = secretref.NewRuntime(secretref.RuntimeConfig{
		Host: secretref.Host{Dir: dir, LookupEnv: func(name string) (string, bool) { v, ok := s.env[name]; return v, ok }},
		Emit: func(e secretref.Event) { s.events = append(s.events, e) },
	})
	return s
}

func (s *sequence) String() string {
	config, _ := json.Marshal(s.config)
	return fmt.Sprintf("%s\nenv %v\nfile %s", config, s.env, s.files)
}

// next makes the next configuration out of the last, and changes what the providers have.
func (s *sequence) next(t *testing.T) {
	t.Helper()
	s.env = make(map[string]string)
	for _, name := range []string{"A", "B", "C", "T"} {
		switch {
		case s.maybe(4):
			s.env[name] = "[redacted]"
		case s.maybe(75):
			s.env[name] = fmt.Sprintf("%s-%d-0123456789abcdef", name, s.IntN(1000))
		}
	}
	file := filepath.Join(s.dir, "vault.json")
	_ = os.Remove(file)
	s.files = "none"
	if s.maybe(80) {
		m := fields{}
		for _, name := range []string{"a", "b", "t"} {
			switch {
			case s.maybe(3):
				m[name] = 5
			case s.maybe(85):
				m[name] = fmt.Sprintf("%s-%d-0123456789abcdef", name, s.IntN(1000))
			}
		}
		text, _ := json.Marshal(m)
		s.files = string(text)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if s.config == nil || s.maybe(50) {
		s.config = s.configuration(file)
	}
}

func (s *sequence) ref() any {
	choices := []string{
		`{"source":"env","provider":"default","id":"A"}`, `{"source":"env","provider":"default","id":"B"}`, `{"source":"env","provider":"default","id":"C"}`,
		`{"source":"file","provider":"vault","id":"/a"}`, `{"source":"file","provider":"vault","id":"/b"}`,
	}
	if s.maybe(3) {
		choices = []string{`{"source":"env","provider":"few","id":"A"}`, `{"source":"exec","provider":"nowhere","id":"a"}`}
	}
	return decoded(choices[s.IntN(len(choices))])
}

func (s *sequence) configuration(file string) fields {
	providers := fields{"vault": fields{"source": "file", "path": file}, "few": fields{"source": "env", "allowlist": []any{"NONE"}}}
	if s.maybe(20) {
		providers["default"] = fields{"source": "env"}
	}
	if s.maybe(15) {
		providers["vault"].(fields)["timeoutMs"] = 4000
	}
	model := func(string) any {
		m := fields{"baseUrl": s.one("https://x", "https://x", "https://x", "https://y")(""), "models": []any{}, "apiKey": s.ref()}
		s.some(m, 30, func(string) any { return fields{"h": s.ref()} }, "headers")
		if s.maybe(10) {
			m["enabled"] = false
		}
		return m
	}
	root := fields{"secrets": fields{"providers": providers}, "models": fields{"providers": s.some(fields{}, 70, model, "openai", "groq")}}
	s.some(root, 40, func(string) any { return fields{"webhookToken": s.ref()} }, "cron")
	s.some(root, 30, func(string) any {
		return fields{"entries": s.some(fields{}, 60, func(string) any { return fields{"apiKey": s.ref()} }, "one", "two")}
	}, "skills")
	s.some(root, 30, func(string) any {
		return fields{"providers": s.some(fields{}, 70, func(string) any { return fields{"apiKey": s.ref()} }, "p", "q")}
	}, "tts")
	s.some(root, 40, func(string) any {
		token := `{"source":"env","provider":"default","id":"T"}`
		if s.maybe(40) {
			token = `{"source":"file","provider":"vault","id":"/t"}`
		}
		return fields{"auth": fields{"mode": s.one("token", "token", "none")(""), "token": decoded(token)}}
	}, "gateway")
	return root
}

func (s *sequence) activate(t *testing.T) (secretref.Report, error) {
	t.Helper()
	c, err := secretref.DecodeConfig(s.config["secrets"], secretref.Newest)
	if err != nil {
		t.Fatal(err)
	}
	targets, err := TargetsIn(s.config, secretref.Grammar{Shorthands: true, Defaults: c.Defaults}, func(name string) (string, bool) { v, ok := s.env[name]; return v, ok })
	if err != nil {
		t.Fatal(err)
	}
	s.events = nil
	report, err := s.runtime.Activate(t.Context(), c, targets)
	if err == nil {
		s.active = slices.DeleteFunc(targets, func(target secretref.Target) bool { return target.Inactive })
		owners := make(map[secretref.Ref]secretref.Owner)
		for _, target := range s.active {
			if owner, ok := owners[target.Ref]; ok && owner != target.Owner {
				s.shared[target.Ref] = true
			}
			owners[target.Ref] = target.Owner
		}
	}
	return report, err
}

// theirValue is the text at a path of a configuration; a ref that is left is a cold owner's.
func theirValue(v any, path string) string {
	for key := range strings.SplitSeq(path, ".") {
		v = object(v)[key]
	}
	switch v := v.(type) {
	case string:
		return v
	case map[string]any:
		return "cold"
	}
	return fmt.Sprint(v)
}

var theirEvents = []struct {
	pattern *regexp.Regexp
	as      string
}{
	{regexp.MustCompile(`^\[SECRETS_GATEWAY_AUTH_SURFACE\] (\S+) is (\w+)\.`), "surface $1 $2"},
	{regexp.MustCompile(`^\[SECRETS_REF_IGNORED_INACTIVE_SURFACE\] (\S+): `), "inactive $1"},
	{regexp.MustCompile(`^\[SECRETS_OWNER_UNAVAILABLE\] Secret owner (\S+) is using last-known-good; paths: (.*); reason: (.*)\.$`), "owner stale $1 at $2: $3"},
	{regexp.MustCompile(`^\[SECRETS_OWNER_UNAVAILABLE\] Secret owner (\S+) is configured-unavailable; paths: (.*); reason: (.*)\.$`), "owner cold $1 at $2: $3"},
	{regexp.MustCompile(`^\[SECRETS_DEGRADED\] (\w+) (\S+): (.*)\. Retry: (.*)\.$`), "degraded $1 $2: $3; $4"},
	{regexp.MustCompile(`^\[SECRETS_PROVIDER_DEGRADED\] (\S+): (.*)\. Affected owners: (.*)\. Retry: (.*)\.$`), "provider $1: $2; $3; $4"},
	{regexp.MustCompile(`^event (SECRETS_RELOADER_\w+)$`), "$1"},
	{regexp.MustCompile(`^\[SECRETS_RELOADER_RECOVERED\]`), ""},
}

func theirEvent(line string) string {
	for _, e := range theirEvents {
		if m := e.pattern.FindStringSubmatchIndex(line); m != nil {
			return string(e.pattern.ExpandString(nil, e.as, line, m))
		}
	}
	return "unknown: " + line
}

func ourEvent(e secretref.Event) string {
	switch e.Code {
	case secretref.GatewayAuthSurface:
		return "surface " + e.Path + " " + e.State
	case secretref.RefIgnoredInactive:
		return "inactive " + e.Path
	case secretref.OwnerUnavailable:
		return fmt.Sprintf("owner %s %s at %s: %s", e.State, e.Owner, strings.Join(e.Paths, ", "), e.Reason)
	case secretref.Degraded:
		return fmt.Sprintf("degraded %s %s: %s; %s", e.State, e.Owner, e.Reason, e.RetryHint)
	case secretref.ProviderDegraded:
		var hit []string
		for _, a := range e.Affected {
			hit = append(hit, a.String())
		}
		return fmt.Sprintf("provider %s:%s: %s; %s; %s", e.Source, e.Provider, e.Reason, strings.Join(hit, ", "), e.RetryHint)
	}
	return string(e.Code)
}
