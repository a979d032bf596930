package openclaw

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/credresolve/credresolve/secretref"
)

// account is one account of a channel.
type account struct {
	id    string
	entry map[string]any // nil for the account that the channel itself is
	on    bool           // with its channel
}

// accounts are those of a channel by name, and whether the document names any: a channel without is an account.
func (f *finding) accounts(name string, channel map[string]any) (all []account, named bool) {
	entries := member(channel, "accounts")
	if len(entries) == 0 {
		return []account{{"default", nil, enabled(channel)}}, false
	}
	for _, id := range slices.Sorted(maps.Keys(entries)) {
		if entry, ok := entries[id].(map[string]any); ok {
			all = append(all, account{id, entry, enabled(channel) && enabled(entry)})
		}
	}
	// What the channel of these has is an account beside those that are named.
	_, taken := entries["default"]
	if !taken && (name == "matrix" || name == "discord" && f.configured(channel["token"])) {
		all = append(all, account{"default", map[string]any{}, enabled(channel)})
	}
	return all, true
}

// channel goes to the account it is in, or to every account that inherits it from the channel.
func (f *finding) channel() {
	name := f.path[1]
	channel := f.section("channels", name)
	own := slices.Equal(f.surface.steps[2:min(4, len(f.surface.steps))], []string{"accounts", "*"})
	depth := 2 // of the object that the credential is an account's or the channel's by
	if own {
		depth = 4
	}
	field := f.path[depth:]
	if name == "discord" && field[0] == "voice" {
		f.discordVoice(channel, own, depth)
		return
	}
	defaults := maps.Clone(channel)
	delete(defaults, "accounts")
	all, named := f.accounts(name, channel)

	if own {
		a := account{f.path[3], f.at(4), enabled(channel) && enabled(f.at(4))}
		off := unless(a.on, "the account or its channel is disabled")
		f.addAccount(name, a.id, cmp.Or(off, f.disabledBelow(depth), f.channelOff(name, field, channel, a)), defaults, a.entry)
		return
	}
	var heirs []account
	var contract []any
	for _, a := range all {
		if a.on && !f.overrides(name, field, a.entry) && f.disabledBelow(depth) == "" && f.channelOff(name, field, channel, a) == "" {
			heirs = append(heirs, a)
			contract = append(contract, a.id, a.entry)
		}
	}
	for _, a := range heirs {
		f.addAccount(name, a.id, "", defaults, contract)
	}
	if len(heirs) > 0 {
		return
	}
	off := "no account that is enabled inherits it"
	if !named {
		off = cmp.Or(unless(enabled(channel), "the channel is disabled"), f.disabledBelow(depth), f.channelOff(name, field, channel, all[0]), off)
	}
	f.addAccount(name, "default", off, defaults)
}

// addAccount adds a target of an account. Two channels do not tell openclaw what else their accounts use, so that
// these keep nothing.
func (f *finding) addAccount(channel, id, off string, contract ...any) {
	t := f.add(accountID(channel, id), off, contract...)
	if channel == "googlechat" || channel == "matrix" {
		t.Digest = ""
	}
}

func accountID(channel, account string) string { return channel + ":" + normalID(account, "default") }

// overrides reports whether an account has a field of its own instead. An empty one is its own too, but for two
// channels.
func (f *finding) overrides(channel string, field []string, entry map[string]any) bool {
	v, own := entry[field[0]]
	switch {
	case channel == "slack" && field[0] == "relay":
		_, own = object(v)["authToken"]
	case channel == "matrix", channel == "telegram" && field[0] == "botToken":
		own = f.configured(v)
	}
	return own
}

// disabledBelow says that an object between depth n and the credential is disabled.
func (f *finding) disabledBelow(n int) string {
	for i := n + 1; i < len(f.path); i++ {
		if !enabled(f.at(i)) {
			return f.path[i-1] + " is disabled"
		}
	}
	return ""
}

// channelOff says why a channel does not use a credential of an account, by what the channel says of its own; empty
// when it does.
func (f *finding) channelOff(name string, field []string, channel map[string]any, a account) string {
	switch name {
	case "slack":
		return slackOff(field[0], channel, a)
	case "telegram":
		return telegramOff(field[0], channel, a, f.path[2] == "accounts")
	case "matrix":
		return f.matrixOff(field[0], channel, a)
	}
	return ""
}

// slackOff: each mode has a credential of its own.
func slackOff(field string, channel map[string]any, a account) string {
	mode := "socket"
	for _, m := range []any{channel["mode"], a.entry["mode"]} {
		if s := text(m); s == "http" || s == "socket" || s == "relay" {
			mode = s
		}
	}
	want := map[string]string{"appToken": "socket", "signingSecret": "http", "relay": "relay"}[field]
	return unless(want == "" || want == mode, "the mode of slack is "+mode)
}

// telegramOff: a token from a file takes the place of a ref, the channel's that of a ref of the channel alone, and the
// webhook's secret needs a webhook.
func telegramOff(field string, channel map[string]any, a account, own bool) string {
	set := func(m map[string]any, key string) bool { return strings.TrimSpace(text(m[key])) != "" }
	switch field {
	case "botToken":
		return unless(!set(a.entry, "tokenFile") && (own || !set(channel, "tokenFile")), "tokenFile takes its place")
	case "webhookSecret":
		from := channel
		if _, own := a.entry["webhookUrl"]; own {
			from = a.entry
		}
		return unless(set(from, "webhookUrl"), "no webhook is configured")
	}
	return ""
}

// matrixOff: what the channel has belongs to its default account alone, and a token comes before a password.
func (f *finding) matrixOff(field string, channel map[string]any, a account) string {
	first := a.entry
	inDefault := normalID(a.id, "default") == "default"
	if f.path[2] != "accounts" && !inDefault {
		return "it is of the default account alone"
	}
	if field == "password" && (f.configured(first["accessToken"]) || inDefault && f.configured(channel["accessToken"])) {
		return "an access token comes before it"
	}
	return ""
}

// discordVoice: keys of speech belong to speech as a whole, and those of realtime voice to an account's voice.
func (f *finding) discordVoice(channel map[string]any, own bool, depth int) {
	kind := f.path[depth+1]
	block := f.at(depth + 2)
	voice := f.at(depth + 1)
	on := enabled(voice) && (kind != "realtime" || voice["mode"] != "stt-tts")
	add := func(id, off string) {
		name := "tts"
		if kind == "realtime" {
			name = "discord:voice:realtime:" + normalID(id, "default") + ":" + f.path[depth+3]
		}
		t := f.add(name, off, block)
		t.Owner.Kind = secretref.OwnerCapability
	}
	if own {
		add(f.path[3], unless(on && enabled(channel) && enabled(f.at(4)), "the account or its voice is disabled"))
		return
	}
	all, _ := f.accounts("discord", channel)
	used := false
	for _, a := range all {
		if _, has := a.entry["voice"]; on && a.on && !has && (kind == "realtime" || !used) {
			add(a.id, "")
			used = true
		}
	}
	if !used {
		add("default", "no account that is enabled inherits this voice")
	}
}
