package openclaw

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/credresolve/credresolve/secretref"
)

// Surface is a kind of place in a home that may hold a ref instead of a secret. Source: the matrix of credentials, the
// registry and the collectors of OpenClaw 2026.9.6.
type Surface struct {
	// Pattern is the path of the place: "models.providers.*.apiKey". A star stands for any key, "[]" after a key for an
	// index of its list.
	Pattern string
	// Profile says that the place is in a store of auth profiles, whose root Pattern starts at; it is in openclaw.json
	// otherwise.
	Profile bool
	// ProfileType is the type of the profile that may have it: api_key or token; empty unless Profile.
	ProfileType string
	// Literal is the pattern of the place where a plain secret stands when that is another one: "profiles.*.key" for
	// "profiles.*.keyRef". A plan names this one. Empty when the ref stands where the secret would.
	Literal string
	// Expected is what the value must be.
	Expected secretref.Expected
	// Kind is the kind of owner; empty when nobody known owns the place.
	Kind string
	// Strict says that a failure fails the whole activation.
	Strict bool
	// RuntimeOnly says that the gateway resolves refs here although its list of credentials does not have the place:
	// no plan may name it.
	RuntimeOnly bool
	// Type is what a plan calls the target; it may call it by Pattern too.
	Type string
	// ProviderAt is the index of the segment that is a provider's id; zero when there is none.
	ProviderAt int
	// AccountAt is the index of the segment that a plan names as account; zero when it names none.
	AccountAt int

	steps []string // of Pattern
	find  finder
}

// ID is the name of the surface in a list of credentials.
func (s Surface) ID() string {
	if s.Profile {
		return s.Type
	}
	return s.Pattern
}

// Segments are the steps of the pattern: keys, "*" and "[]".
func (s Surface) Segments() []string { return slices.Clone(s.steps) }

// Match reports whether the surface has the place at path, whose segments are keys and decimal indexes.
func (s Surface) Match(path []string) bool { return matchSteps(s.steps, path) }

// MatchLiteral is Match for the place of a plain secret.
func (s Surface) MatchLiteral(path []string) bool {
	if s.Literal == "" {
		return s.Match(path)
	}
	return matchSteps(steps(s.Literal), path)
}

// Surfaces are all the surfaces, in the order of a person's list: openclaw.json first. The caller owns the slice.
func Surfaces() []Surface { return slices.Clone(surfaces()) }

// SurfaceAt is the surface of openclaw.json that has the place at path; false when there is none.
func SurfaceAt(path []string) (Surface, bool) {
	for _, s := range surfaces() {
		if !s.Profile && s.Match(path) {
			return s, true
		}
	}
	return Surface{}, false
}

// ProfileSurfaceAt is the surface of a store of auth profiles that has the place at path, be it of the ref or of the
// literal; false when there is none.
func ProfileSurfaceAt(path []string) (Surface, bool) {
	for _, s := range surfaces() {
		if s.Profile && (s.Match(path) || s.MatchLiteral(path)) {
			return s, true
		}
	}
	return Surface{}, false
}

// Unsupported is a kind of place that holds a secret, and that takes no ref.
type Unsupported struct {
	Pattern string // as that of a Surface
	Profile bool   // in a store of auth profiles
	Reason  string // why it takes none
}

// Unsupporteds are all the known places that take no ref. The caller owns the slice.
func Unsupporteds() []Unsupported { return slices.Clone(unsupported) }

// UnsupportedAt says whether the place at path of openclaw.json is known to take no ref.
func UnsupportedAt(path []string) (Unsupported, bool) {
	for _, u := range unsupported {
		if !u.Profile && matchSteps(steps(u.Pattern), path) {
			return u, true
		}
	}
	return Unsupported{}, false
}

// Why a place takes no ref.
const (
	minted  = "openclaw makes or rotates it itself"
	session = "it belongs to a session"
	oauth   = "oauth material changes while it is used"
	plain   = "openclaw reads it as plain text; it may hold ${NAME}, which openclaw replaces from the environment"
)

var unsupported = []Unsupported{
	{Pattern: "hooks.token", Reason: minted},
	{Pattern: "hooks.gmail.pushToken", Reason: minted},
	{Pattern: "hooks.mappings[].sessionKey", Reason: session},
	{Pattern: "channels.discord.threadBindings.webhookToken", Reason: minted},
	{Pattern: "channels.discord.accounts.*.threadBindings.webhookToken", Reason: minted},
	{Pattern: "channels.whatsapp.creds.json", Reason: session},
	{Pattern: "channels.whatsapp.accounts.*.creds.json", Reason: session},
	{Pattern: "mcp.servers.*.env.*", Reason: plain},
	{Pattern: "env.vars.*", Reason: plain},
	{Pattern: "skills.entries.*.env.*", Reason: plain},
	{Pattern: "agents.defaults.sandbox.docker.env.*", Reason: plain},
	{Pattern: "agents.entries.*.sandbox.docker.env.*", Reason: plain},
	{Pattern: "agents.list[].sandbox.docker.env.*", Reason: plain},
	{Pattern: "profiles.*.access", Profile: true, Reason: oauth},
	{Pattern: "profiles.*.refresh", Profile: true, Reason: oauth},
	{Pattern: "profiles.*.idToken", Profile: true, Reason: oauth},
}

// surfaces is the one table of them, made when it is first used.
var surfaces = sync.OnceValue(table)

func table() []Surface {
	var all []Surface
	add := func(kind string, find finder, patterns ...string) {
		for _, p := range patterns {
			all = append(all, Surface{Pattern: p, Expected: secretref.String, Kind: kind, Strict: kind == "" || kind == secretref.OwnerGateway,
				Type: p, steps: steps(p), find: find})
		}
	}
	under := func(prefix string, suffixes ...string) []string {
		out := make([]string, len(suffixes))
		for i, s := range suffixes {
			out[i] = prefix + "." + s
		}
		return out
	}
	runtimeOnly := func(from int) {
		for i := range all[from:] {
			all[from+i].RuntimeOnly = true
		}
	}
	request := []string{"headers.*", "auth.token", "auth.value",
		"proxy.tls.ca", "proxy.tls.cert", "proxy.tls.key", "proxy.tls.passphrase",
		"tls.ca", "tls.cert", "tls.key", "tls.passphrase"}

	// Models. Plans call these by their path without the stars.
	add(secretref.OwnerProvider, (*finding).model, "models.providers.*.apiKey", "models.providers.*.headers.*")
	add(secretref.OwnerProvider, (*finding).model, under("models.providers.*.request", request...)...)
	for i := range all {
		all[i].Type = strings.ReplaceAll(all[i].Pattern, ".*", "")
		all[i].ProviderAt = 2
	}
	add(secretref.OwnerCapability, (*finding).skill, "skills.entries.*.apiKey")
	all[len(all)-1].Type = "skills.entries.apiKey"

	// Agents and what they share.
	add(secretref.OwnerCapability, (*finding).memoryDefault, "memory.search.remote.apiKey")
	add(secretref.OwnerCapability, (*finding).memory, "agents.entries.*.memory.search.remote.apiKey")
	speech := len(all)
	add(secretref.OwnerCapability, (*finding).speech, "tts.providers.*.apiKey", "tts.personas.*.providers.*.apiKey",
		"agents.entries.*.tts.providers.*.apiKey", "agents.entries.*.tts.personas.*.providers.*.apiKey")
	add(secretref.OwnerCapability, (*finding).talk, "talk.providers.*.apiKey", "talk.realtime.providers.*.apiKey")
	for i := range all[speech:] {
		all[speech+i].ProviderAt = len(all[speech+i].steps) - 2
	}
	add(secretref.OwnerCapability, (*finding).cron, "cron.webhookToken")

	// The gateway. What it presents to another gateway belongs to nobody in particular, so it is strict too.
	add(secretref.OwnerGateway, (*finding).gateway, "gateway.auth.token", "gateway.auth.password")
	add("", (*finding).gateway, "gateway.remote.token", "gateway.remote.password")

	// Channels.
	for _, c := range channels {
		add(secretref.OwnerAccount, (*finding).channel, under("channels."+c.id, c.fields...)...)
		if !c.single {
			add(secretref.OwnerAccount, (*finding).channel, under("channels."+c.id+".accounts.*", c.fields...)...)
		}
	}
	for i := range all {
		switch all[i].Pattern {
		case "channels.googlechat.accounts.*.serviceAccount":
			all[i].Type = "channels.googlechat.serviceAccount"
			all[i].AccountAt = 3
			fallthrough
		case "channels.googlechat.serviceAccount":
			all[i].Expected = secretref.StringOrObject
		}
		if strings.HasPrefix(all[i].Pattern, "channels.") && strings.Contains(all[i].Pattern, ".providers.*.") {
			all[i].ProviderAt = len(all[i].steps) - 2
		}
	}

	// Plugins.
	for _, p := range plugins {
		add(p.kind, (*finding).plugin, under("plugins.entries."+p.id+".config", p.fields...)...)
	}

	// What the gateway resolves beyond its list.
	from := len(all)
	add(secretref.OwnerCapability, (*finding).memoryDefault, "memory.search.remote.headers.*")
	add(secretref.OwnerCapability, (*finding).memory, "agents.entries.*.memory.search.remote.headers.*",
		"agents.list[].memory.search.remote.apiKey", "agents.list[].memory.search.remote.headers.*")
	add(secretref.OwnerCapability, (*finding).speech, "agents.list[].tts.providers.*.apiKey", "agents.list[].tts.personas.*.providers.*.apiKey")
	for _, prefix := range []string{"agents.entries.*", "agents.list[]"} {
		add(secretref.OwnerCapability, (*finding).sandbox, under(prefix+".sandbox.ssh", sandboxKeys...)...)
	}
	add(secretref.OwnerCapability, (*finding).sandboxDefault, under("agents.defaults.sandbox.ssh", sandboxKeys...)...)
	add(secretref.OwnerCapability, (*finding).controlUI, "gateway.controlUi.github.token")
	add(secretref.OwnerCapability, (*finding).mediaModel, under("tools.media.models[].request", request...)...)
	for _, c := range mediaCapabilities {
		add(secretref.OwnerCapability, (*finding).media, under("tools.media."+c+".request", request...)...)
	}
	runtimeOnly(from)

	for _, t := range []struct{ kind, field string }{{"api_key", "key"}, {"token", "token"}} {
		ref := "profiles.*." + t.field + "Ref"
		all = append(all, Surface{Pattern: ref, Profile: true, ProfileType: t.kind, Literal: "profiles.*." + t.field, Expected: secretref.String,
			Kind: secretref.OwnerAccount, Type: "auth-profiles." + t.kind + "." + t.field, steps: steps(ref)})
	}
	return all
}

// channels are the channels' credentials; single ones have no accounts.
var channels = []struct {
	id     string
	single bool
	fields []string
}{
	{"buzz", false, []string{"authTag", "privateKey"}},
	{"clickclack", false, []string{"token"}},
	{"discord", false, []string{"pluralkit.token", "token", "voice.realtime.providers.*.apiKey",
		"voice.tts.personas.*.providers.*.apiKey", "voice.tts.providers.*.apiKey"}},
	{"feishu", false, []string{"appSecret", "encryptKey", "verificationToken"}},
	{"googlechat", false, []string{"serviceAccount"}},
	{"irc", false, []string{"nickserv.password", "password"}},
	{"matrix", false, []string{"accessToken", "password"}},
	{"mattermost", false, []string{"botToken"}},
	{"msteams", true, []string{"appPassword"}},
	{"nextcloud-talk", false, []string{"apiPassword", "botSecret"}},
	{"nostr", true, []string{"privateKey"}},
	{"qqbot", false, []string{"clientSecret"}},
	{"slack", false, []string{"appToken", "botToken", "relay.authToken", "signingSecret", "userToken"}},
	{"sms", false, []string{"authToken"}},
	{"telegram", false, []string{"botToken", "webhookSecret"}},
	{"zalo", false, []string{"botToken", "webhookSecret"}},
}

// plugins are the plugins' credentials, below their config, with the kind of owner as far as the package that is
// published tells it.
var plugins = []struct {
	id, kind string
	fields   []string
}{
	{"acpx", "", []string{"mcpServers.*.env.*"}},
	{"brave", secretref.OwnerCapability, []string{"webSearch.apiKey"}},
	{"codex", "", []string{"appServer.authToken", "appServer.headers.*"}},
	{"comfy", "", []string{"headers.*"}},
	{"exa", secretref.OwnerCapability, []string{"webSearch.apiKey"}},
	{"facetime", "", []string{"realtime.providers.*.apiKey"}},
	{"firecrawl", secretref.OwnerCapability, []string{"webFetch.apiKey", "webSearch.apiKey"}},
	{"google", secretref.OwnerCapability, []string{"webSearch.apiKey"}},
	{"google", "", []string{"webSearch.headers.*"}},
	{"google-meet", "", []string{"realtime.providers.*.apiKey"}},
	{"imap", secretref.OwnerRoute, []string{"accounts.*.password"}},
	{"minimax", secretref.OwnerCapability, []string{"webSearch.apiKey"}},
	{"moonshot", secretref.OwnerCapability, []string{"webSearch.apiKey"}},
	{"parallel", secretref.OwnerCapability, []string{"webSearch.apiKey"}},
	{"perplexity", secretref.OwnerCapability, []string{"webSearch.apiKey"}},
	{"tavily", secretref.OwnerCapability, []string{"webSearch.apiKey"}},
	{"team-reports", "", []string{"discord.token", "github.token"}},
	{"typesafe", "", []string{"apiKey"}},
	{"voice-call", "", []string{"realtime.providers.*.apiKey", "streaming.providers.*.apiKey", "tts.providers.*.apiKey", "twilio.authToken"}},
	{"webhooks", secretref.OwnerRoute, []string{"routes.*.secret"}},
	{"xai", secretref.OwnerCapability, []string{"webSearch.apiKey"}},
}

// webProviders is what the plugins that search or fetch are called as providers, where that is not the plugin's name.
var webProviders = map[string]string{"google": "gemini", "moonshot": "kimi", "xai": "grok"}

var (
	sandboxKeys       = []string{"identityData", "certificateData", "knownHostsData"}
	mediaCapabilities = []string{"audio", "image", "video"}
)

// steps splits a pattern: "a[].b.*" is a, [], b, *.
func steps(pattern string) []string {
	var out []string
	for s := range strings.SplitSeq(pattern, ".") {
		key, list := strings.CutSuffix(s, "[]")
		out = append(out, key)
		if list {
			out = append(out, "[]")
		}
	}
	return out
}

func matchSteps(steps, path []string) bool {
	if len(steps) != len(path) {
		return false
	}
	for i, s := range steps {
		switch {
		case s == "*":
			if path[i] == "" {
				return false
			}
		case s == "[]":
			if n, err := strconv.Atoi(path[i]); err != nil || n < 0 || strconv.Itoa(n) != path[i] {
				return false
			}
		case s != path[i]:
			return false
		}
	}
	return true
}
