//go:build unix

package openclaw

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/internal/openclawtest"
	"github.com/credresolve/credresolve/secretref"
)

// collector is OpenClaw's own code, which collects what a document refers to.
type collector struct{ *openclawtest.Script }

type collected struct {
	Path, Key, Owner, Expected, Digest string
	Strict, Off                        bool
}

// ask gives what OpenClaw collects; false when it refuses the document.
func (c collector) ask(t *testing.T, document any, env map[string]string) ([]collected, bool) {
	t.Helper()
	said := c.Line(t, map[string]any{"config": document, "env": env})
	var list []collected
	if json.Unmarshal(said, &list) != nil {
		return nil, false
	}
	return list, true
}

// collects reports whether OpenClaw collects the place without packages of plugins.
func collects(path string) bool {
	segments := strings.Split(path, ".")
	switch {
	case segments[0] == "channels":
		return segments[1] == "telegram"
	case segments[0] == "plugins":
		return slices.Contains(bundledPlugins, segments[2]) && !strings.HasSuffix(path, ".apiKey")
	}
	return !strings.HasPrefix(path, "mcp.") && !strings.HasPrefix(path, "odd")
}

// compare holds our targets of a document against OpenClaw's, and gives the digests of both.
func (c collector) compare(t *testing.T, document any, env map[string]string) (ours, theirs map[string]string) {
	t.Helper()
	theirList, ok := c.ask(t, document, env)
	if !ok {
		return nil, nil
	}
	targets, err := TargetsIn(document, secretref.Grammar{Shorthands: true}, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	if err != nil {
		t.Fatal(err)
	}
	us, them := make(map[string]bool), make(map[string]bool)
	ours, theirs = make(map[string]string), make(map[string]string)
	for _, target := range targets {
		line := target.Path + " off"
		if !target.Inactive {
			owner := ""
			if target.Owner.Mapped() {
				owner = target.Owner.String()
			}
			line = fmt.Sprintf("%s %s %s %t %s", target.Path, target.Ref.Key(), owner, target.Strict, target.Expected)
			ours[target.Path+" "+owner] = target.Digest
		}
		if collects(target.Path) {
			us[line] = true
		}
	}
	for _, a := range theirList {
		if a.Off {
			them[a.Path+" off"] = true
			continue
		}
		them[fmt.Sprintf("%s %s %s %t %s", a.Path, a.Key, a.Owner, a.Strict, a.Expected)] = true
		theirs[a.Path+" "+a.Owner] = a.Digest
	}
	text, _ := json.Marshal(document)
	for line := range us {
		if !them[line] {
			t.Errorf("we alone find %s\nin %s", line, text)
		}
	}
	for line := range them {
		if !us[line] {
			t.Errorf("OpenClaw alone finds %s\nin %s", line, text)
		}
	}
	return ours, theirs
}

// TestTargetsAreThoseOfOpenClaw asks OpenClaw itself whose the refs of a document are: of the documents of TestTargets, and
// of random ones. Then it changes documents in one place at a time: a digest of ours must change wherever one of OpenClaw's
// does, so that nothing is kept that OpenClaw would not keep.
func TestTargetsAreThoseOfOpenClaw(t *testing.T) {
	t.Parallel()
	c := collector{openclawtest.StartScript(t, "testdata/collect.mjs")}
	for _, tt := range targetCases {
		env := make(map[string]string)
		for _, name := range tt.env {
			env[name] = "x"
		}
		c.compare(t, decode(t, strings.ReplaceAll(tt.document, "@R", ref)), env)
	}
	kept, lost := 0, 0
	for i := range uint64(300) {
		d := documents{rand.New(rand.NewPCG(i, 0))}
		document, env := d.document(), d.env()
		text, _ := json.Marshal(document)
		ours, theirs := c.compare(t, document, env)
		changed := d.change(decode(t, string(text)))
		ours2, theirs2 := c.compare(t, changed, env)
		for place, digest := range theirs {
			after, still := theirs2[place]
			if !still || digest == "" || after == "" {
				continue
			}
			switch same := ours[place] == ours2[place] && ours[place] != ""; {
			case same && digest != after:
				text2, _ := json.Marshal(changed)
				t.Errorf("%s: OpenClaw would not keep it, we would\n%s\n%s", place, text, text2)
			case same:
				kept++
			case digest == after:
				lost++
			}
		}
		if t.Failed() {
			t.Fatalf("document %d", i)
		}
	}
	t.Logf("after a change %d are kept alike, and %d that we do not keep", kept, lost)
	if kept == 0 {
		t.Error("nothing was compared")
	}
}

// documents makes random configurations out of what OpenClaw's collectors look at.
type documents struct{ *rand.Rand }

type fields = map[string]any

func (d documents) maybe(percent int) bool { return d.IntN(100) < percent }

func (d documents) value() any {
	return []any{decoded(ref), "$FOO", "${BAR}", "plain", "", decoded(`{"source":"env","id":"Q"}`), nil}[d.IntN(7)]
}

func decoded(s string) (v any) {
	_ = json.Unmarshal([]byte(s), &v)
	return v
}

// sw says of an object, now and then, whether it is enabled.
func (d documents) sw(m fields) fields {
	if d.maybe(25) {
		m["enabled"] = d.maybe(50)
	}
	return m
}

// some puts members into an object, each half of the time.
func (d documents) some(m fields, percent int, one func(string) any, names ...string) fields {
	for _, name := range names {
		if d.maybe(percent) {
			m[name] = one(name)
		}
	}
	return m
}

func (d documents) secret(string) any { return d.value() }

func (d documents) one(choices ...any) func(string) any {
	return func(string) any { return choices[d.IntN(len(choices))] }
}

func (d documents) providers(string) any {
	return d.some(fields{}, 50, func(string) any { return d.sw(fields{"apiKey": d.value(), "model": "m"}) }, "a", "B", "c.d")
}

func (d documents) speech(string) any {
	m := d.some(fields{}, 50, d.providers, "providers")
	return d.some(m, 30, func(string) any { return fields{"x": fields{"providers": d.providers("")}} }, "personas")
}

func (d documents) remote(string) any {
	return d.some(d.some(fields{}, 50, d.secret, "apiKey"), 30, func(string) any { return fields{"h": d.value()} }, "headers")
}

func (d documents) agent(string) any {
	a := d.sw(fields{})
	d.some(a, 50, func(string) any { return fields{"search": d.some(d.sw(fields{}), 60, d.remote, "remote")} }, "memory")
	d.some(a, 50, func(string) any {
		s := d.some(fields{}, 50, d.one("ssh", "docker"), "backend")
		d.some(s, 30, d.one("shared", "agent", "session"), "scope")
		d.some(s, 20, d.one(true, false), "perSession")
		return d.some(s, 50, func(string) any { return fields{"identityData": d.value()} }, "ssh")
	}, "sandbox")
	return d.some(a, 30, d.speech, "tts")
}

func (d documents) telegram(string) any {
	account := func(string) any {
		m := d.some(d.sw(fields{}), 50, d.secret, "botToken", "webhookSecret")
		d.some(m, 30, d.one("/x", ""), "tokenFile")
		return d.some(m, 40, d.one("https://x", ""), "webhookUrl")
	}
	channel := account("").(fields)
	return d.some(channel, 50, func(string) any { return d.some(fields{}, 40, account, "a", "My Bot", "default") }, "accounts")
}

func (d documents) document() any {
	root := fields{}
	d.some(root, 40, func(string) any {
		return fields{"providers": d.some(fields{}, 50, func(string) any {
			return d.sw(fields{"apiKey": d.value(), "baseUrl": "https://x", "headers": fields{"h": d.value()}, "request": fields{"auth": fields{"token": d.value()},
				"tls": fields{"ca": d.value()}, "proxy": fields{"tls": fields{"key": d.value()}}, "headers": fields{"q": d.value()}}})
		}, "OpenAI", "x.y")}
	}, "models")
	d.some(root, 50, func(string) any {
		g := d.some(fields{}, 80, func(string) any {
			return d.some(d.some(fields{}, 60, d.secret, "token", "password"), 60, d.one("token", "password", "none", "trusted-proxy"), "mode")
		}, "auth")
		d.some(g, 60, func(string) any {
			return d.some(d.some(fields{}, 60, d.secret, "token", "password"), 30, d.one("wss://x", ""), "url")
		}, "remote")
		d.some(g, 30, d.one("remote", "local"), "mode")
		d.some(g, 20, func(string) any { return fields{"mode": d.one("serve", "funnel", "off")("")} }, "tailscale")
		return d.some(g, 20, func(string) any { return fields{"github": fields{"token": d.value()}} }, "controlUi")
	}, "gateway")
	d.some(root, 40, func(string) any { return fields{"search": d.some(d.sw(fields{}), 60, d.remote, "remote")} }, "memory")
	d.some(root, 50, func(string) any {
		a := d.some(fields{}, 40, func(string) any {
			return fields{"sandbox": d.some(fields{"ssh": fields{"identityData": d.value(), "knownHostsData": d.value()}}, 50, d.one("ssh", "docker"), "backend")}
		}, "defaults")
		if d.maybe(50) {
			a["entries"] = d.some(fields{}, 60, d.agent, "main", "Two")
		} else if d.maybe(40) {
			entry := d.agent("").(fields)
			entry["id"] = "An Agent"
			a["list"] = []any{entry}
		}
		return a
	}, "agents")
	d.some(root, 30, d.speech, "tts")
	d.some(root, 30, func(string) any {
		return d.some(d.some(fields{"providers": d.providers("")}, 50, d.one("a", "b", "zz"), "provider"), 40, func(string) any { return fields{"providers": d.providers("")} }, "realtime")
	}, "talk")
	d.some(root, 30, func(string) any {
		m := d.some(fields{}, 30, func(string) any { return d.sw(fields{"request": fields{"headers": fields{"h": d.value()}}}) }, "audio", "image", "video")
		return fields{"media": d.some(m, 40, func(string) any {
			return []any{fields{"provider": "zzz", "capabilities": []any{d.one("audio", "image", "video")("")}, "request": fields{"auth": fields{"value": d.value()}}}}
		}, "models")}
	}, "tools")
	d.some(root, 30, func(string) any { return fields{"telegram": d.telegram("")} }, "channels")
	d.some(root, 20, func(string) any { return fields{"entries": fields{"s": d.sw(fields{"apiKey": d.value()})}} }, "skills")
	d.some(root, 20, func(string) any { return fields{"webhookToken": d.value(), "retention": 5} }, "cron")
	d.some(root, 20, func(string) any {
		return d.some(d.some(fields{"entries": fields{"webhooks": d.sw(fields{"config": fields{"routes": fields{"in": fields{"secret": d.value()}}}})}},
			20, d.one([]any{"webhooks"}, []any{"exa"}), "allow", "deny"), 10, d.one(true, false), "enabled")
	}, "plugins")
	return root
}

func (d documents) env() map[string]string {
	env := make(map[string]string)
	for _, name := range []string{"OPENCLAW_GATEWAY_TOKEN", "OPENCLAW_GATEWAY_PASSWORD"} {
		if d.maybe(20) {
			env[name] = "x"
		}
	}
	return env
}

// change adds a setting to one object of a document, at random.
func (d documents) change(document any) any {
	var all []fields
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if _, isRef := (secretref.Grammar{Shorthands: true}).FromValue(v); isRef {
				return
			}
			all = append(all, v)
			for _, key := range sortedKeys(v) {
				if key != "providers" && key != "entries" && key != "accounts" && key != "headers" && key != "routes" { // whose keys are names
					walk(v[key])
				} else {
					for _, name := range sortedKeys(object(v[key])) {
						walk(object(v[key])[name])
					}
				}
			}
		case []any:
			for _, item := range v {
				walk(item)
			}
		}
	}
	walk(document)
	all[d.IntN(len(all))]["added"] = "setting"
	return document
}

func sortedKeys(m map[string]any) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
