package openclaw

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/credresolve/credresolve/internal/lazyregexp"
	"github.com/credresolve/credresolve/secretref"
)

// Targets finds the refs of a decoded openclaw.json, with their owners, in the order of their paths. A place that
// several owners use is a target for each. A three-key object at a place that is no surface is a target of nobody, and
// so strict; shorthands count at surfaces alone, since they are substitutions elsewhere. root is nil or a
// map[string]any; g should have the defaults of the document.
//
// What is active is decided by what the document says of itself: enabled: false of a channel, an account, a provider, a
// skill, a plugin and what is below a channel; tokenFile and webhookUrl of Telegram; the modes of the gateway's
// authentication; which provider of search, fetch or talk is chosen; the backend of a sandbox; what Discord, Matrix, Slack
// and Telegram say of their own. Left out is what depends on more than the document: the order in which search
// providers are tried when none is chosen (all count as active), what other channels say of their own, variables of
// channels, plugins that are not installed, capabilities of media models that the document does not name, and the
// manifests of plugins that come in packages of their own, whose refs are therefore strict.
func Targets(root any, g secretref.Grammar) ([]secretref.Target, error) {
	return TargetsIn(root, g, func(string) (string, bool) { return "", false })
}

// TargetsIn is Targets in an environment, which decides what of the gateway's credentials is active.
func TargetsIn(root any, g secretref.Grammar, lookupEnv func(string) (string, bool)) ([]secretref.Target, error) {
	if root == nil {
		return nil, nil
	}
	object, ok := root.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("the configuration is no object; write it as { … }")
	}
	w := &targetWalk{root: object, grammar: g, env: lookupEnv}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		if key != "secrets" { // it says how refs are resolved, and holds none
			w.walk(object[key], []string{key}, AppendKey("", key))
		}
	}
	return w.found, nil
}

// ProfileTargets finds the refs of a decoded store of auth profiles. store is nil or a map[string]any, name is how the
// store is called in paths, and root the configuration beside it. It fails when a profile that holds oauth has a ref,
// which openclaw refuses as a whole. Eligible is what type, mode and expiry allow; that a profile and the configuration may
// name different providers is left out, since plugins decide which names are one.
func ProfileTargets(store any, name string, root any, g secretref.Grammar, now time.Time) ([]secretref.Target, error) {
	profiles := member(store, "profiles")
	configured := member(member(root, "auth"), "profiles")
	var found []secretref.Target
	for _, id := range slices.Sorted(maps.Keys(profiles)) {
		profile := object(profiles[id])
		kind := text(profile["type"])
		mode := text(member(configured, id)["mode"])
		if kind == "oauth" {
			for _, field := range []string{"access", "refresh", "token", "tokenRef", "key", "keyRef"} {
				if _, ok := g.FromValue(profile[field]); ok {
					return nil, fmt.Errorf("%s: profile %q holds oauth, which takes no ref in %s; openclaw changes it while it is used", name, id, field)
				}
			}
			continue
		}
		field := map[string]string{"api_key": "key", "token": "token"}[kind]
		if field == "" {
			continue
		}
		ref, explicit := g.FromValue(profile[field+"Ref"])
		ok := explicit
		if !ok {
			ref, ok = g.FromValue(profile[field])
		}
		if !ok {
			continue
		}
		if mode == "oauth" {
			return nil, fmt.Errorf("%s: profile %q has a ref, and auth.profiles says that its mode is oauth, which takes none", name, id)
		}
		provider := strings.ToLower(strings.TrimSpace(text(profile["provider"])))
		var model any
		for key, m := range member(member(root, "models"), "providers") {
			if strings.ToLower(strings.TrimSpace(key)) == provider {
				model = m
			}
		}
		owner, _ := json.Marshal([]string{name, id})
		why := ineligible(profile, kind, mode, now)
		found = append(found, secretref.Target{
			Path: name + ".auth-profiles." + id + "." + field, Ref: ref, Owner: secretref.Owner{Kind: secretref.OwnerAccount, ID: string(owner)},
			Expected: secretref.String, Inactive: why != "", Reason: why, Profile: true,
			Overrides: explicit && strings.TrimSpace(text(profile[field])) != "",
			Digest:    digest(g, profile, provider, model),
		})
	}
	return found, nil
}

// ineligible says why openclaw would not use a profile; empty when it would.
func ineligible(profile map[string]any, kind, mode string, now time.Time) string {
	if mode != "" && mode != kind {
		return "the profile is not eligible: mode_mismatch"
	}
	expires, given := profile["expires"]
	if kind != "token" || !given || expires == nil {
		return ""
	}
	ms, ok := number(expires)
	switch {
	case !ok || ms <= 0 || ms > 8640000000000000:
		return "the profile is not eligible: invalid_expires"
	case float64(now.UnixMilli()) >= ms:
		return "the profile is not eligible: expired"
	}
	return ""
}

// AppendKey adds a key to a path as openclaw writes it: with a dot, or quoted in brackets when it is no plain name.
func AppendKey(path, key string) string {
	switch {
	case !plainKey().MatchString(key):
		quoted, _ := json.Marshal(key)
		return path + "[" + string(quoted) + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

// AppendIndex adds an index of a list to a path.
func AppendIndex(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

var plainKey = lazyregexp.New(`^[A-Za-z_$][A-Za-z0-9_$:-]*$`)

// targetWalk goes through a configuration and gathers targets.
type targetWalk struct {
	root    map[string]any
	grammar secretref.Grammar
	env     func(string) (string, bool)
	found   []secretref.Target
}

func (w *targetWalk) walk(v any, path []string, shown string) {
	if ref, surface, ok := w.refAt(v, path); ok {
		f := &finding{walk: w, path: path, shown: shown, ref: ref}
		if surface == nil {
			reason := "no owner of this place is known"
			if u, ok := UnsupportedAt(path); ok {
				reason = "this place takes no ref: " + u.Reason
			}
			w.found = append(w.found, secretref.Target{Path: shown, Ref: ref, Expected: secretref.String, Strict: true, Reason: reason})
			return
		}
		f.surface = *surface
		surface.find(f)
		return
	}
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			w.walk(v[key], append(slices.Clip(path), key), AppendKey(shown, key))
		}
	case []any:
		for i, item := range v {
			w.walk(item, append(slices.Clip(path), strconv.Itoa(i)), AppendIndex(shown, i))
		}
	}
}

// refAt is the ref that v is at path, and the surface there; nil when it is none.
func (w *targetWalk) refAt(v any, path []string) (secretref.Ref, *Surface, bool) {
	switch v.(type) {
	case string, map[string]any:
	default:
		return secretref.Ref{}, nil, false
	}
	if s, ok := SurfaceAt(path); ok {
		ref, is := w.grammar.FromValue(v)
		return ref, &s, is
	}
	everywhere := w.grammar
	everywhere.Shorthands = false
	ref, is := everywhere.FromValue(v)
	return ref, nil, is
}

// finding is a ref at a surface, for which a finder adds the targets.
type finding struct {
	walk    *targetWalk
	surface Surface
	path    []string
	shown   string
	ref     secretref.Ref
}

// finder adds the targets of a ref at a surface of one family.
type finder func(*finding)

// add files a target; off says why it is inactive, and is empty when it is active. contract is everything that decides
// how the owner uses the credential.
func (f *finding) add(id, off string, contract ...any) *secretref.Target {
	t := secretref.Target{Path: f.shown, Ref: f.ref, Owner: secretref.Owner{Kind: f.surface.Kind, ID: id},
		Expected: f.surface.Expected, Strict: f.surface.Strict, Inactive: off != "", Reason: off}
	if f.surface.Kind == "" {
		t.Owner = secretref.Owner{}
	} else {
		t.Digest = digest(f.walk.grammar, contract...)
	}
	f.walk.found = append(f.walk.found, t)
	return &f.walk.found[len(f.walk.found)-1]
}

// at is the object at the first n segments of the path.
func (f *finding) at(n int) map[string]any {
	var v any = f.walk.root
	for _, key := range f.path[:n] {
		if list, ok := v.([]any); ok {
			i, _ := strconv.Atoi(key)
			v = list[i]
			continue
		}
		v = object(v)[key]
	}
	return object(v)
}

// section is the object at keys of the configuration; nil when there is none.
func (f *finding) section(keys ...string) map[string]any {
	m := f.walk.root
	for _, key := range keys {
		m = member(m, key)
	}
	return m
}

func (f *finding) model() {
	provider := f.at(3)
	f.add(cmp.Or(strings.ToLower(strings.TrimSpace(f.path[2])), f.path[2]), unless(enabled(provider), "the provider is disabled"), provider)
}

func (f *finding) skill() {
	entry := f.at(3)
	f.add("skill:"+f.path[2], unless(enabled(entry), "the skill is disabled"), entry)
}

func (f *finding) cron() { f.add("cron-webhook", "", f.at(1)) }

func (f *finding) controlUI() { f.add("control-ui-github", "", f.at(3)) }

// speech is for agents too: they share the owner, and bring what is theirs into its digest.
func (f *finding) speech() {
	depth := slices.Index(f.path, "tts") + 1
	f.add("tts", "", f.at(depth))
	if depth == 1 && f.path[1] == "providers" {
		f.talkInherits()
	}
}

// talk takes the provider that is chosen, or the only one.
func (f *finding) talk() {
	name, depth := "talk:speech", 1
	if f.path[1] == "realtime" {
		name, depth = "talk:realtime", 2
	}
	section := f.at(depth)
	chosen := chosenTalk(section)
	id := f.path[depth+1]
	if chosen == "" || !strings.EqualFold(chosen, id) {
		f.add(name, "this provider of talk is not chosen")
		return
	}
	f.add(name, "", chosen, section, f.section("tts")["timeoutMs"], f.section("tts")["maxTextLength"])
}

// talkInherits adds what speech of talk takes from tts: the key of the chosen provider, when talk configures that and
// has no key of its own.
func (f *finding) talkInherits() {
	talk := f.section("talk")
	chosen := chosenTalk(talk)
	configured, ok := member(talk, "providers")[chosen].(map[string]any)
	if _, own := configured["apiKey"]; !ok || own || !strings.EqualFold(chosen, strings.TrimSpace(f.path[2])) {
		return
	}
	f.add("talk:speech", "", chosen, talk, f.at(3), f.section("tts")["timeoutMs"], f.section("tts")["maxTextLength"])
}

// chosenTalk is the key of the provider that a section of talk names, or of its only one; empty when there is none.
func chosenTalk(section map[string]any) string {
	providers := member(section, "providers")
	want := strings.TrimSpace(text(section["provider"]))
	for id := range providers {
		if strings.EqualFold(strings.TrimSpace(id), want) || want == "" && len(providers) == 1 {
			return id
		}
	}
	return ""
}

// agent is one agent of the configuration.
type agent struct {
	id    string
	entry map[string]any
}

// agents are those of the configuration, in either form; the implicit one when it names none.
func (f *finding) agents() []agent {
	section := f.section("agents")
	var out []agent
	if entries, ok := section["entries"]; ok {
		for _, id := range slices.Sorted(maps.Keys(object(entries))) {
			if e, ok := object(entries)[id].(map[string]any); ok {
				out = append(out, agent{normalID(id, "main"), e})
			}
		}
		return out
	}
	if items, ok := section["list"]; ok {
		list, _ := items.([]any)
		for _, item := range list {
			if e, ok := item.(map[string]any); ok {
				out = append(out, agent{normalID(text(e["id"]), "main"), e})
			}
		}
		return out
	}
	return []agent{{"main", nil}}
}

// agentAt is the agent that the path is in, and the depth of its entry.
func (f *finding) agentAt() (agent, int) {
	entry := f.at(3)
	if f.path[1] == "list" {
		return agent{normalID(text(entry["id"]), "main"), entry}, 3
	}
	return agent{normalID(f.path[2], "main"), entry}, 3
}

func (f *finding) memory() {
	a, _ := f.agentAt()
	f.addMemory(a)
}

// memoryDefault goes to every agent that inherits it.
func (f *finding) memoryDefault() {
	key := f.path[3] // apiKey or headers
	used := false
	for _, a := range f.agents() {
		remote := member(member(member(a.entry, "memory"), "search"), "remote")
		own, overrides := remote[key]
		if key == "headers" {
			_, overrides = own.(map[string]any)
		}
		if !overrides {
			f.addMemory(a)
			used = used || f.memoryOn(a)
		}
	}
	if !used {
		f.add("", "no agent that is enabled inherits it")
	}
}

func (f *finding) memoryOn(a agent) bool {
	on, given := member(member(a.entry, "memory"), "search")["enabled"]
	if !given || on == nil {
		on = f.section("memory", "search")["enabled"]
	}
	return enabled(a.entry) && on != false
}

func (f *finding) addMemory(a agent) {
	defaults, own := f.section("memory", "search"), member(member(a.entry, "memory"), "search")
	provider := cmp.Or(strings.TrimSpace(text(own["provider"])), strings.TrimSpace(text(defaults["provider"])))
	if provider == "" || provider == "auto" {
		provider = "openai"
	}
	f.add("memory-provider:"+a.id, unless(f.memoryOn(a), "the agent or its memory search is disabled"),
		defaults, own, a.entry["enabled"], provider, f.section("models", "providers")) // which of them it takes is up to plugins
}

func (f *finding) sandbox() {
	a, _ := f.agentAt()
	ssh, scope := f.sandboxOf(a)
	switch {
	case scope == "shared":
		f.addSandbox(a, "a sandbox that is shared ignores what an agent sets")
	default:
		f.addSandbox(a, unless(ssh, "the sandbox of the agent is not ssh"))
	}
}

func (f *finding) sandboxDefault() {
	key := f.path[len(f.path)-1]
	used := false
	for _, a := range f.agents() {
		if a.entry == nil {
			continue
		}
		ssh, scope := f.sandboxOf(a)
		_, own := member(member(a.entry, "sandbox"), "ssh")[key]
		if ssh && (!own || scope == "shared") {
			f.addSandbox(a, "")
			used = true
		}
	}
	if !used {
		first := agent{id: "main"}
		if all := f.agents(); len(all) == 1 {
			first.id = all[0].id
		}
		backend := strings.ToLower(strings.TrimSpace(text(f.section("agents", "defaults", "sandbox")["backend"])))
		f.addSandbox(first, unless(backend == "ssh", "no agent that is enabled has an ssh sandbox"))
	}
}

// sandboxOf says whether an agent's sandbox is ssh, and what it is shared with.
func (f *finding) sandboxOf(a agent) (ssh bool, scope string) {
	own, defaults := member(a.entry, "sandbox"), f.section("agents", "defaults", "sandbox")
	backend := cmp.Or(strings.ToLower(strings.TrimSpace(text(own["backend"]))), strings.ToLower(strings.TrimSpace(text(defaults["backend"]))), "docker")
	scope = cmp.Or(text(own["scope"]), text(defaults["scope"]))
	if scope == "" {
		for _, s := range []map[string]any{own, defaults} {
			if per, ok := s["perSession"].(bool); ok {
				if !per {
					scope = "shared"
				}
				break
			}
		}
	}
	return backend == "ssh", scope
}

func (f *finding) addSandbox(a agent, off string) {
	f.add("agent-sandbox:"+a.id, off, f.section("agents", "defaults", "sandbox"), a.entry["sandbox"], a.entry["enabled"])
}

func (f *finding) mediaModel() {
	entry := f.at(4)
	var on, known bool
	list, _ := entry["capabilities"].([]any)
	for _, c := range list {
		if slices.Contains(mediaCapabilities, text(c)) {
			known = true
			on = on || enabled(f.section("tools", "media", text(c)))
		}
	}
	f.add("media-model:shared:"+f.path[3], unless(on || !known, "every capability of this model is disabled"), entry)
}

func (f *finding) media() {
	section := f.at(3)
	f.add("media-model:"+f.path[2]+":request", unless(enabled(section), "understanding of "+f.path[2]+" is disabled"), section)
}

// plugin goes to the search or fetch that uses the key, to a route, or to nobody known.
func (f *finding) plugin() {
	id := f.path[2]
	config := f.at(4)
	off := f.pluginOff(id, f.surface.Kind != secretref.OwnerCapability && slices.Contains(bundledPlugins, id))
	switch kind := f.path[4]; {
	case f.surface.Kind == secretref.OwnerRoute:
		f.add(f.shown, off, config)
	case f.surface.Kind == secretref.OwnerCapability:
		tool := map[string]string{"webSearch": "search", "webFetch": "fetch"}[kind]
		section := f.section("tools", "web", tool)
		provider := cmp.Or(webProviders[id], id)
		chosen := strings.ToLower(strings.TrimSpace(text(section["provider"])))
		off = cmp.Or(off, unless(enabled(section), "web "+tool+" is disabled"),
			unless(chosen == "" || chosen == provider, "another provider of web "+tool+" is chosen"))
		f.add("web-"+tool+":"+provider, off, section, config)
	default:
		f.add("", off)
	}
}

// pluginOff says why a plugin is off as far as the configuration tells. One that is bundled takes refs only once it is
// enabled by name.
func (f *finding) pluginOff(id string, bundled bool) string {
	all := f.section("plugins")
	entry := f.section("plugins", "entries", id)
	allow, _ := all["allow"].([]any)
	deny, _ := all["deny"].([]any)
	names := func(list []any) bool {
		return slices.ContainsFunc(list, func(v any) bool { return strings.TrimSpace(text(v)) == id })
	}
	switch {
	case !enabled(all):
		return "plugins are disabled"
	case names(deny):
		return "the plugin is on the list of those denied"
	case !enabled(entry):
		return "the plugin is disabled"
	case len(allow) > 0 && !names(allow):
		return "the plugin is not on the list of those allowed"
	case bundled && entry["enabled"] != true:
		return "the plugin is not enabled"
	}
	return ""
}

// bundledPlugins are those whose refs, beside keys for the web, come with the client itself.
var bundledPlugins = []string{"google", "imap", "webhooks"}

// gateway decides by the rules of the gateway's authentication.
func (f *finding) gateway() {
	section := f.at(1)
	auth, remote := member(section, "auth"), member(section, "remote")
	env := func(name string) bool {
		v, ok := f.walk.env(name)
		return ok && strings.TrimSpace(v) != ""
	}
	mode := text(auth["mode"])
	envToken, envPassword := env("OPENCLAW_GATEWAY_TOKEN"), env("OPENCLAW_GATEWAY_PASSWORD")
	localToken, localPassword := f.configured(auth["token"]), f.configured(auth["password"])
	noToken := mode == "password" || mode == "none" || mode == "trusted-proxy"
	anyToken := envToken || localToken || f.configured(remote["token"])
	passwordCanWin := mode == "password" || mode == "trusted-proxy" || mode != "token" && mode != "none" && !anyToken
	tailscale := text(member(section, "tailscale")["mode"])
	far := text(section["mode"]) == "remote" || strings.TrimSpace(text(remote["url"])) != "" || tailscale == "serve" || tailscale == "funnel"
	shownMode := cmp.Or(mode, "unset")

	var on bool
	var reason string
	switch f.shown {
	case "gateway.auth.token":
		on = mode == "token" || mode == "" && !envPassword && !localPassword
		reason = "the mode of authentication is " + shownMode
		if mode == "" && !on {
			reason = "the mode of authentication is unset, and there is a password"
		}
	case "gateway.auth.password":
		on = passwordCanWin
		reason = "the mode of authentication is " + shownMode
		if mode == "" && !on {
			reason = "the mode of authentication is unset, and there is a token"
		}
	case "gateway.remote.token":
		on = far || !noToken && !envToken && !localToken
		reason = remoteReason(far, on, "token", shownMode)
	case "gateway.remote.password":
		on = far || mode != "trusted-proxy" && !envPassword && !localPassword && passwordCanWin
		reason = remoteReason(far, on, "password", shownMode)
	}
	t := f.add("ingress-auth", "", auth)
	t.Inactive, t.Reason = !on, reason
}

func remoteReason(far, on bool, what, mode string) string {
	switch {
	case far:
		return "a remote gateway is configured"
	case on:
		return "this " + what + " is what is left, with the mode of authentication " + mode
	}
	return "no remote gateway is configured, and another credential comes before this " + what
}

// configured reports whether a value is a secret or a ref.
func (f *finding) configured(v any) bool {
	if _, ok := f.walk.grammar.FromValue(v); ok {
		return true
	}
	return strings.TrimSpace(text(v)) != ""
}

// digest stands for contract, in which refs count as what they name, however they are written. It is keyed anew in
// every process: what stands in a configuration may be a secret, and a digest of a short one could be tried out.
func digest(g secretref.Grammar, contract ...any) string {
	mac := hmac.New(sha256.New, digestKey())
	if err := json.NewEncoder(mac).Encode(canonical(g, contract)); err != nil {
		return "" // such an owner keeps nothing
	}
	return hex.EncodeToString(mac.Sum(nil))
}

var digestKey = sync.OnceValue(func() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return key
})

func canonical(g secretref.Grammar, v any) any {
	if ref, ok := g.FromValue(v); ok {
		return map[string]any{"secretRef": ref.Key()}
	}
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, m := range v {
			out[key] = canonical(g, m)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = canonical(g, item)
		}
		return out
	}
	return v
}

// normalID is how openclaw files the name of an agent or an account.
func normalID(name, none string) string {
	id := strings.ToLower(strings.TrimSpace(name))
	if !normalName().MatchString(id) {
		id = strings.Trim(otherRunes().ReplaceAllString(id, "-"), "-")
		id = id[:min(len(id), 64)]
	}
	switch id {
	case "", "__proto__", "prototype", "constructor":
		return none
	}
	return id
}

var (
	normalName = lazyregexp.New(`^[a-z0-9][a-z0-9_-]{0,63}$`)
	otherRunes = lazyregexp.New(`[^a-z0-9_-]+`)
)

func unless(ok bool, why string) string {
	if ok {
		return ""
	}
	return why
}

// enabled reports whether an object does not say enabled: false.
func enabled(m map[string]any) bool { return m["enabled"] != false }

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func member(v any, key string) map[string]any { return object(object(v)[key]) }

func text(v any) string {
	s, _ := v.(string)
	return s
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case json.Number:
		f, err := v.Float64()
		return f, err == nil
	}
	return 0, false
}
