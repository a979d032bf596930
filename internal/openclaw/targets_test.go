package openclaw

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/secretref"
)

func decode(t testing.TB, s string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("%v in %s", err, s)
	}
	return v
}

// show writes a target as the tests name it.
func show(t secretref.Target) string {
	s := t.Path + " " + t.Ref.Key() + " "
	if t.Owner.Mapped() {
		s += t.Owner.String()
	} else {
		s += "nobody"
	}
	if t.Strict {
		s += " strict"
	}
	if t.Inactive {
		s += " off"
	}
	if t.Overrides {
		s += " overrides"
	}
	return s
}

const ref = `{"source":"exec","provider":"v","id":"k"}`

// targetCases are documents of the families of surfaces. In a document @R is a ref.
var targetCases = []struct {
	name, rule string
	document   string
	env        []string // names that are set
	want       []string // path, owner and what holds of it
}{
	{"nothing", "no ref, no target", `{"a": 1, "b": "x", "c": [null]}`, nil, nil},
	{"models", "the owner is the provider, in lower case; disabled ones are off",
		`{"models": {"providers": {
				"OpenAI": {"apiKey": @R, "headers": {"X-A": @R, "n": "literal"}, "request": {"auth": {"token": @R}, "proxy": {"tls": {"key": @R}}}},
				"my.host": {"apiKey": @R}, "off": {"enabled": false, "apiKey": @R}}}}`, nil, []string{
			"models.providers.OpenAI.apiKey provider:openai", "models.providers.OpenAI.headers.X-A provider:openai",
			"models.providers.OpenAI.request.auth.token provider:openai", "models.providers.OpenAI.request.proxy.tls.key provider:openai",
			"models.providers[\"my.host\"].apiKey provider:my.host", "models.providers.off.apiKey provider:off off"}},
	{"shorthands", "count at surfaces alone", `{"models": {"providers": {"a": {"apiKey": "${A_KEY}"}, "b": {"apiKey": "$B_KEY"}, "c": {"apiKey": "${x}"},
				"d": {"apiKey": {"source": "env", "id": "D"}}, "e": {"baseUrl": "${HOST}"}}}, "env": {"vars": {"X": "${Y}"}}}`, nil, []string{
		"models.providers.a.apiKey env:default:A_KEY provider:a", "models.providers.b.apiKey env:default:B_KEY provider:b",
		"models.providers.d.apiKey env:default:D provider:d"}},
	{"nobody", "a three-key object at no surface is strict, and belongs to nobody; secrets holds none",
		`{"mcp": {"servers": {"s": {"env": {"T": @R}}}}, "odd": [@R], "legacy": {"source": "env", "id": "X"}, "secrets": {"x": @R}}`, nil, []string{
			"mcp.servers.s.env.T nobody strict", "odd[0] nobody strict"}},
	{"skills", "the owner is the capability skill:NAME", `{"skills": {"entries": {"a-b": {"apiKey": @R}, "c": {"enabled": false, "apiKey": @R}}}}`, nil, []string{
		"skills.entries.a-b.apiKey capability:skill:a-b", "skills.entries.c.apiKey capability:skill:c off"}},
	{"cron", "", `{"cron": {"webhookToken": @R}}`, nil, []string{"cron.webhookToken capability:cron-webhook"}},
	{"speech", "one owner for all of speech", `{"tts": {"providers": {"p": {"apiKey": @R}}, "personas": {"x": {"providers": {"p": {"apiKey": @R}}}}},
			"agents": {"entries": {"A": {"tts": {"providers": {"p": {"apiKey": @R}}}}}}}`, nil, []string{
		"agents.entries.A.tts.providers.p.apiKey capability:tts", "tts.personas.x.providers.p.apiKey capability:tts", "tts.providers.p.apiKey capability:tts"}},
	{"talk", "the chosen provider, or the only one, is on", `{"talk": {"provider": "a", "providers": {"A": {"apiKey": @R}, "b": {"apiKey": @R}},
			"realtime": {"providers": {"r": {"apiKey": @R}}}}}`, nil, []string{
		"talk.providers.A.apiKey capability:talk:speech", "talk.providers.b.apiKey capability:talk:speech off", "talk.realtime.providers.r.apiKey capability:talk:realtime"}},
	{"talk takes a key of tts", "speech of talk inherits the key that it lacks", `{"talk": {"provider": "a", "providers": {"a": {}}}, "tts": {"providers": {"a": {"apiKey": @R}}}}`, nil, []string{
		"tts.providers.a.apiKey capability:tts", "tts.providers.a.apiKey capability:talk:speech"}},
	{"memory", "every agent that inherits it is an owner", `{"memory": {"search": {"remote": {"apiKey": @R, "headers": {"h": @R}}}},
			"agents": {"entries": {"A": {}, "b": {"memory": {"search": {"remote": {"apiKey": @R}}}}, "c": {"enabled": false}}}}`, nil, []string{
		"agents.entries.b.memory.search.remote.apiKey capability:memory-provider:b", "memory.search.remote.apiKey capability:memory-provider:a",
		"memory.search.remote.apiKey capability:memory-provider:c off", "memory.search.remote.headers.h capability:memory-provider:a",
		"memory.search.remote.headers.h capability:memory-provider:b", "memory.search.remote.headers.h capability:memory-provider:c off"}},
	{"memory of the implicit agent", "", `{"memory": {"search": {"remote": {"apiKey": @R}}}}`, nil, []string{"memory.search.remote.apiKey capability:memory-provider:main"}},
	{"memory of nobody", "", `{"memory": {"search": {"enabled": false, "remote": {"apiKey": @R}}}}`, nil, []string{
		"memory.search.remote.apiKey capability:memory-provider:main off", "memory.search.remote.apiKey capability: off"}},
	{"agents in a list", "the older form of the roster", `{"agents": {"list": [{"id": "My Agent", "memory": {"search": {"remote": {"apiKey": @R}}}}]}}`, nil, []string{
		"agents.list[0].memory.search.remote.apiKey capability:memory-provider:my-agent"}},
	{"sandboxes", "only ssh, and a shared one ignores an agent's own", `{"agents": {"defaults": {"sandbox": {"backend": "ssh", "ssh": {"identityData": @R}}}, "entries": {
			"a": {}, "b": {"sandbox": {"backend": "docker", "ssh": {"identityData": @R}}}, "c": {"sandbox": {"scope": "shared", "ssh": {"identityData": @R}}}}}}`, nil, []string{
		"agents.defaults.sandbox.ssh.identityData capability:agent-sandbox:a", "agents.defaults.sandbox.ssh.identityData capability:agent-sandbox:c",
		"agents.entries.b.sandbox.ssh.identityData capability:agent-sandbox:b off", "agents.entries.c.sandbox.ssh.identityData capability:agent-sandbox:c off"}},
	{"media", "", `{"tools": {"media": {"models": [{"capabilities": ["audio"], "request": {"auth": {"token": @R}}}], "audio": {"enabled": false, "request": {"headers": {"h": @R}}}, "image": {"request": {"tls": {"ca": @R}}}}}}`, nil, []string{
		"tools.media.audio.request.headers.h capability:media-model:audio:request off", "tools.media.image.request.tls.ca capability:media-model:image:request",
		"tools.media.models[0].request.auth.token capability:media-model:shared:0 off"}},
	{"a channel without accounts", "its default account owns it", `{"channels": {"slack": {"mode": "relay", "botToken": @R, "relay": {"authToken": @R}}, "irc": {"enabled": false, "password": @R}}}`, nil, []string{
		"channels.irc.password account:irc:default off", "channels.slack.botToken account:slack:default", "channels.slack.relay.authToken account:slack:default"}},
	{"accounts", "an account owns its own; what none has of its own goes to each that inherits it", `{"channels": {"discord": {"token": @R, "pluralkit": {"enabled": false, "token": @R}, "accounts": {
			"My Bot": {"token": @R}, "b": {}, "c": {"enabled": false}, "d": {}}}}}`, nil, []string{
		`channels.discord.accounts["My Bot"].token account:discord:my-bot`, "channels.discord.pluralkit.token account:discord:default off",
		"channels.discord.token account:discord:b", "channels.discord.token account:discord:d", "channels.discord.token account:discord:default"}},
	{"an account without heirs", "", `{"channels": {"irc": {"password": @R, "accounts": {"a": {"password": "x"}}}}}`, nil, []string{"channels.irc.password account:irc:default off"}},
	{"slack", "each mode has its credential", `{"channels": {"slack": {"appToken": @R, "signingSecret": @R, "relay": {"authToken": @R}, "accounts": {"a": {}, "b": {"mode": "http", "relay": {}}, "c": {"mode": "relay"}}}}}`, nil, []string{
		"channels.slack.appToken account:slack:a", "channels.slack.relay.authToken account:slack:c", "channels.slack.signingSecret account:slack:b"}},
	{"discord's voice", "speech is one owner, realtime voice is an account's", `{"channels": {"discord": {"voice": {"tts": {"providers": {"p": {"apiKey": @R}}}, "realtime": {"providers": {"p": {"apiKey": @R}}}}, "accounts": {
			"a": {}, "b": {"voice": {"mode": "stt-tts", "realtime": {"providers": {"p": {"apiKey": @R}}}}}}}}}`, nil, []string{
		"channels.discord.accounts.b.voice.realtime.providers.p.apiKey capability:discord:voice:realtime:b:p off",
		"channels.discord.voice.realtime.providers.p.apiKey capability:discord:voice:realtime:a:p", "channels.discord.voice.tts.providers.p.apiKey capability:tts"}},
	{"matrix", "a token comes before a password, and the channel's are of the default account alone", `{"channels": {"matrix": {"accessToken": @R, "password": @R, "accounts": {"a": {"password": @R}, "b": {"accessToken": "x", "password": @R}}}}}`, nil, []string{
		"channels.matrix.accessToken account:matrix:default", "channels.matrix.accounts.a.password account:matrix:a", "channels.matrix.accounts.b.password account:matrix:b off",
		"channels.matrix.password account:matrix:default off"}},
	{"telegram", "a file takes the token's place, and the webhook's secret needs a webhook", `{"channels": {"telegram": {"tokenFile": "/x", "botToken": @R, "webhookSecret": @R, "accounts": {"a": {"botToken": @R, "webhookUrl": "https://x"}}}}}`, nil, []string{
		"channels.telegram.accounts.a.botToken account:telegram:a", "channels.telegram.botToken account:telegram:default off", "channels.telegram.webhookSecret account:telegram:a"}},
	{"an unknown channel", "belongs to nobody known", `{"channels": {"carrier-pigeon": {"token": @R}}}`, nil, []string{`channels.carrier-pigeon.token nobody strict`}},
	{"plugins", "search has an owner, a route is its own, the rest is strict; what is denied or disabled is off", `{"plugins": {"deny": ["exa"], "entries": {
			"brave": {"config": {"webSearch": {"apiKey": @R}}}, "google": {"config": {"webSearch": {"apiKey": @R, "headers": {"h": @R}}}}, "exa": {"config": {"webSearch": {"apiKey": @R}}},
			"webhooks": {"enabled": true, "config": {"routes": {"in": {"secret": @R}}}}, "imap": {"config": {"accounts": {"a": {"password": @R}}}},
			"codex": {"enabled": false, "config": {"appServer": {"authToken": @R}}}, "comfy": {"config": {"headers": {"h": @R}}}}},
			"tools": {"web": {"search": {"provider": "gemini"}}}}`, nil, []string{
		"plugins.entries.brave.config.webSearch.apiKey capability:web-search:brave off", "plugins.entries.codex.config.appServer.authToken nobody strict off",
		"plugins.entries.comfy.config.headers.h nobody strict", "plugins.entries.exa.config.webSearch.apiKey capability:web-search:exa off",
		"plugins.entries.google.config.webSearch.apiKey capability:web-search:gemini", "plugins.entries.google.config.webSearch.headers.h nobody strict off",
		"plugins.entries.imap.config.accounts.a.password route:plugins.entries.imap.config.accounts.a.password off",
		"plugins.entries.webhooks.config.routes.in.secret route:plugins.entries.webhooks.config.routes.in.secret"}},
	{"plugins that are allowed", "a list of those allowed leaves the others off", `{"plugins": {"allow": ["exa"], "entries": {"brave": {"config": {"webSearch": {"apiKey": @R}}}, "exa": {"config": {"webSearch": {"apiKey": @R}}}}}}`, nil, []string{
		"plugins.entries.brave.config.webSearch.apiKey capability:web-search:brave off", "plugins.entries.exa.config.webSearch.apiKey capability:web-search:exa"}},
	{"a gateway by token", "its own credentials are strict", `{"gateway": {"auth": {"mode": "token", "token": @R, "password": @R}}}`, nil, []string{
		"gateway.auth.password gateway:ingress-auth strict off", "gateway.auth.token gateway:ingress-auth strict"}},
	{"a gateway without mode", "a password beside the token makes the token inactive, and a token the password", `{"gateway": {"auth": {"token": @R, "password": @R}}}`, nil, []string{
		"gateway.auth.password gateway:ingress-auth strict off", "gateway.auth.token gateway:ingress-auth strict off"}},
	{"a gateway's token and a password in the environment", "", `{"gateway": {"auth": {"token": @R}}}`, []string{"OPENCLAW_GATEWAY_PASSWORD"}, []string{"gateway.auth.token gateway:ingress-auth strict off"}},
	{"a gateway by password", "", `{"gateway": {"auth": {"mode": "password", "password": @R}}}`, nil, []string{"gateway.auth.password gateway:ingress-auth strict"}},
	{"a remote gateway", "belongs to nobody in particular", `{"gateway": {"mode": "remote", "remote": {"token": @R, "password": @R}}}`, nil, []string{"gateway.remote.password nobody strict", "gateway.remote.token nobody strict"}},
	{"a remote token at home", "counts when no other token does", `{"gateway": {"auth": {"token": "x"}, "remote": {"token": @R}}}`, nil, []string{"gateway.remote.token nobody strict off"}},
	{"a remote token that is left", "", `{"gateway": {"remote": {"token": @R, "password": @R}}}`, nil, []string{"gateway.remote.password nobody strict off", "gateway.remote.token nobody strict"}},
	{"github in the control page", "", `{"gateway": {"controlUi": {"github": {"token": @R}}}}`, nil, []string{"gateway.controlUi.github.token capability:control-ui-github"}},
}

// TestTargets goes through the families of surfaces.
func TestTargets(t *testing.T) {
	t.Parallel()
	for _, tt := range targetCases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := decode(t, strings.ReplaceAll(tt.document, "@R", ref))
			found, err := TargetsIn(root, secretref.Grammar{Shorthands: true}, func(name string) (string, bool) { return "x", slices.Contains(tt.env, name) })
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, target := range found {
				got = append(got, strings.ReplaceAll(show(target), "exec:v:k ", ""))
				if target.Inactive && target.Reason == "" {
					t.Errorf("%s is off for no reason", target.Path)
				}
				if target.Owner.Mapped() && target.Digest == "" && !strings.HasPrefix(target.Path, "channels.matrix.") {
					t.Errorf("%s has no digest", target.Path)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%s: got\n\t%s\nwant\n\t%s", tt.rule, strings.Join(got, "\n\t"), strings.Join(tt.want, "\n\t"))
			}
		})
	}
}

// TestDigests shows what changes an owner's digest, and what does not.
func TestDigests(t *testing.T) {
	t.Parallel()
	one := func(document string) string {
		found, err := Targets(decode(t, document), secretref.Grammar{Shorthands: true})
		if err != nil || len(found) == 0 {
			t.Fatalf("%v, %v", found, err)
		}
		return found[0].Digest
	}
	base := one(`{"models": {"providers": {"a": {"apiKey": "${K}", "baseUrl": "https://x"}}}}`)
	for _, tt := range []struct {
		rule, document string
		same           bool
	}{
		{"the same ref in another form", `{"models": {"providers": {"a": {"baseUrl": "https://x", "apiKey": {"source": "env", "provider": "default", "id": "K"}}}}}`, true},
		{"what is not the owner's", `{"models": {"providers": {"a": {"apiKey": "${K}", "baseUrl": "https://x"}, "b": {}}}, "x": 1}`, true},
		{"another address", `{"models": {"providers": {"a": {"apiKey": "${K}", "baseUrl": "https://y"}}}}`, false},
		{"another ref", `{"models": {"providers": {"a": {"apiKey": "${L}", "baseUrl": "https://x"}}}}`, false},
		{"one setting more", `{"models": {"providers": {"a": {"apiKey": "${K}", "baseUrl": "https://x", "authHeader": true}}}}`, false},
	} {
		if got := one(tt.document) == base; got != tt.same {
			t.Errorf("%s: the digest is the same: %v, want %v", tt.rule, got, tt.same)
		}
	}
}

// TestProfileTargets goes through a store of auth profiles.
func TestProfileTargets(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_800_000_000_000)
	for _, tt := range []struct {
		name, profiles, root string
		want                 []string
		fails                string
	}{
		{"a key by ref", `{"openai:a": {"type": "api_key", "provider": "openai", "keyRef": @R}}`, `{}`, []string{"S.auth-profiles.openai:a.key"}, ""},
		{"a key by ref and in the clear", `{"a": {"type": "api_key", "provider": "openai", "keyRef": @R, "key": "sk"}}`, `{}`, []string{"S.auth-profiles.a.key overrides"}, ""},
		{"a ref in the place of the key", `{"a": {"type": "api_key", "provider": "openai", "key": @R}, "b": {"type": "api_key", "key": "sk"}}`, `{}`, []string{"S.auth-profiles.a.key"}, ""},
		{"a token", `{"a": {"type": "token", "tokenRef": @R, "expires": 1900000000000}}`, `{}`, []string{"S.auth-profiles.a.token"}, ""},
		{"an expired token", `{"a": {"type": "token", "tokenRef": @R, "expires": 1700000000000}}`, `{}`, []string{"S.auth-profiles.a.token off"}, ""},
		{"a token that expires never", `{"a": {"type": "token", "tokenRef": @R, "expires": 0}}`, `{}`, []string{"S.auth-profiles.a.token off"}, ""},
		{"a key's ref in a token", `{"a": {"type": "token", "keyRef": @R}}`, `{}`, nil, ""},
		{"oauth", `{"a": {"type": "oauth", "access": @R}}`, `{}`, nil, "oauth, which takes no ref in access"},
		{"the mode of oauth", `{"a": {"type": "api_key", "keyRef": @R}}`, `{"auth": {"profiles": {"a": {"mode": "oauth"}}}}`, nil, "its mode is oauth"},
		{"another mode", `{"a": {"type": "api_key", "keyRef": @R}}`, `{"auth": {"profiles": {"a": {"mode": "token"}}}}`, []string{"S.auth-profiles.a.key off"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			store := decode(t, `{"version": 1, "profiles": `+strings.ReplaceAll(tt.profiles, "@R", ref)+`}`)
			found, err := ProfileTargets(store, "S", decode(t, tt.root), secretref.Grammar{Shorthands: true}, now)
			if (err == nil) != (tt.fails == "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
				t.Fatalf("error %v, want %q", err, tt.fails)
			}
			var got []string
			for _, target := range found {
				s, _, _ := strings.Cut(show(target), " exec")
				if target.Inactive {
					s += " off"
				}
				if target.Overrides {
					s += " overrides"
				}
				got = append(got, s)
				if target.Owner != (secretref.Owner{Kind: secretref.OwnerAccount, ID: `["S","` + strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(target.Path, "S.auth-profiles."), ".key"), ".token") + `"]`}) || !target.Profile {
					t.Errorf("owner %v, profile %v", target.Owner, target.Profile)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAppendKey(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ path, key, want string }{
		{"", "a", "a"}, {"a", "b", "a.b"}, {"a", "openai:x", "a.openai:x"}, {"a", "X-Y", "a.X-Y"}, {"a", "b.c", `a["b.c"]`}, {"a", "0", `a["0"]`}, {"a", "", `a[""]`},
	} {
		if got := AppendKey(tt.path, tt.key); got != tt.want {
			t.Errorf("%q and %q is %s, want %s", tt.path, tt.key, got, tt.want)
		}
	}
	if got := AppendIndex("a", 3); got != "a[3]" {
		t.Errorf("got %s", got)
	}
}

// FuzzTargets shows that no document, however odd, stops the walk.
func FuzzTargets(f *testing.F) {
	for _, s := range []string{`{}`, `{"models":{"providers":{"a":{"apiKey":` + ref + `}}}}`, `{"channels":{"telegram":{"accounts":[],"botToken":` + ref + `}}}`,
		`{"agents":{"list":[` + ref + `]},"memory":{"search":{"remote":{"headers":{"h":"$A"}}}}}`, `{"gateway":{"auth":{"token":"$A"},"remote":[]}}`,
		`{"tools":{"media":{"models":[{"request":{"headers":{"a":"$A"}}}]}}}`, `{"plugins":{"entries":{"imap":{"config":{"accounts":{"a":{"password":"$A"}}}}}}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v any
		if json.Unmarshal(b, &v) != nil {
			return
		}
		found, err := Targets(v, secretref.Grammar{Shorthands: true})
		if err != nil {
			return
		}
		for _, target := range found {
			if target.Path == "" || !target.Owner.Mapped() && !target.Strict && !target.Inactive {
				t.Errorf("%+v", target)
			}
		}
		_, _ = ProfileTargets(v, "s", v, secretref.Grammar{Shorthands: true}, time.UnixMilli(0))
	})
}
