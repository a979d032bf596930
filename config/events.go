package config

import (
	"fmt"
	"net"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// Events is the section events of a configuration: who is told of the steps in the life of credentials, while a sidecar runs. No
// value is told.
type Events struct {
	// Hooks are programs, run once for each event.
	Hooks []Hook `yaml:"hooks"`
	// Webhooks are addresses that each event is sent to, signed as Standard Webhooks are.
	Webhooks []Webhook `yaml:"webhooks"`
}

// Hook is a program that gets an event as JSON on its standard input.
type Hook struct {
	// Command is the absolute path of the program.
	Command string `yaml:"command"`
	// Args are its arguments.
	Args []string `yaml:"args"`
	// On are the kinds of events. Empty: rotated, stale, failed, auth_required, revoked, revoke_failed.
	On []string `yaml:"on" jsonschema:"enum=resolving,enum=resolved,enum=expiring,enum=refreshing,enum=refreshed,enum=rotated,enum=stale,enum=failed,enum=auth_required,enum=revoked,enum=revoke_failed,enum=lapsed"`
	// Refs are patterns PROVIDER/ID of what it is told of, with * for any characters but /, and ** for any. Empty: everything.
	Refs []string `yaml:"refs"`
	// Timeout bounds a run; then the program and all that it started is killed. Zero: 10s.
	Timeout time.Duration `yaml:"timeout"`
	// PassEnv are the environment variables that it gets. Empty: none.
	PassEnv []string `yaml:"pass_env"`
}

// Webhook is an address that events are sent to.
type Webhook struct {
	// URL is where to: https, or http on loopback.
	URL string `yaml:"url"`
	// Secret is the ref of the key that signs: whsec_ and Base64, or the key itself, of 24 bytes or more.
	Secret credref.Ref `yaml:"secret"`
	// On are the kinds of events. Empty: rotated, stale, failed, auth_required, revoked, revoke_failed.
	On []string `yaml:"on" jsonschema:"enum=resolving,enum=resolved,enum=expiring,enum=refreshing,enum=refreshed,enum=rotated,enum=stale,enum=failed,enum=auth_required,enum=revoked,enum=revoke_failed,enum=lapsed"`
	// Refs are patterns PROVIDER/ID of what it is told of, with * for any characters but /, and ** for any. Empty: everything.
	Refs []string `yaml:"refs"`
	// Timeout bounds one attempt. Zero: 10s.
	Timeout time.Duration `yaml:"timeout"`
}

// Events gives the section events.
func (f *File) Events() Events { return f.settings.Events }

// checkEvents checks the section events.
func (f *File) checkEvents(p *problems) {
	section := f.root.get("events")
	if section == nil {
		return
	}
	place := func(list string, i int, key string) (*node, string) {
		name := fmt.Sprintf("events.%s[%d]", list, i)
		at := section.get(list).items[i]
		if n := at.get(key); n != nil {
			at = n
		}
		return at, name + "." + key
	}
	common := func(list string, i int, on, refs []string) {
		for _, kind := range on {
			if !slices.Contains(resolver.EventKinds(), resolver.EventKind(kind)) {
				at, name := place(list, i, "on")
				p.add(at, name, "no such kind of event; known: %s", strings.Join(kindNames(), ", "))
			}
		}
		for j, pattern := range refs {
			at, name := place(list, i, "refs")
			at, name = at.items[j], fmt.Sprintf("%s[%d]", name, j)
			provider, id, _ := strings.Cut(pattern, "/")
			if _, err := path.Match(provider, ""); err != nil || provider == "" || id == "" || len(id) > credref.MaxID {
				p.add(at, name, "expected a pattern PROVIDER/ID, such as app/** or */ci/*, of at most %d bytes in ID", credref.MaxID)
			} else if !slices.ContainsFunc(f.providers, func(one *Provider) bool { is, _ := path.Match(provider, one.Name); return is }) {
				p.add(at, name, "no provider matches %q", provider)
			}
		}
	}
	for i, h := range f.settings.Events.Hooks {
		common("hooks", i, h.On, h.Refs)
		if !filepath.IsAbs(h.Command) || strings.ContainsRune(strings.Join(append(slices.Clone(h.Args), h.Command), ""), 0) {
			at, name := place("hooks", i, "command")
			p.add(at, name, "expected the absolute path of a program; neither PATH nor ~ is looked at")
		}
		for _, env := range h.PassEnv {
			if env == "" || strings.ContainsAny(env, "=\x00") {
				at, name := place("hooks", i, "pass_env")
				p.add(at, name, "expected names of environment variables")
			}
		}
	}
	for i, w := range f.settings.Events.Webhooks {
		common("webhooks", i, w.On, w.Refs)
		if u, err := url.Parse(w.URL); err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
			at, name := place("webhooks", i, "url")
			p.add(at, name, "expected an https URL, or an http one on loopback, without user, password and fragment")
		}
		if w.Secret == (credref.Ref{}) {
			at, name := place("webhooks", i, "secret")
			p.add(at, name, "a webhook needs a ref to the key that signs: {provider, id}")
		} else if f.Provider(w.Secret.Provider) == nil {
			at, name := place("webhooks", i, "secret")
			p.add(at, name, "it names a provider that is not configured")
		}
	}
}

func kindNames() []string {
	var out []string
	for _, kind := range resolver.EventKinds() {
		out = append(out, string(kind))
	}
	return out
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// eventsNeedTrust tells what the section events reaches.
func (f *File) eventsNeedTrust() (lines []string) {
	for _, h := range f.settings.Events.Hooks {
		what := h.Command
		for _, arg := range h.Args {
			what += fmt.Sprintf(" %q", arg)
		}
		lines = append(lines, "events: executable "+what)
		for _, env := range h.PassEnv {
			lines = append(lines, "events: environment variable "+env)
		}
	}
	for _, w := range f.settings.Events.Webhooks {
		host := "a malformed address"
		if u, err := url.Parse(w.URL); err == nil {
			host = u.Scheme + "://" + u.Host
		}
		lines = append(lines, "events: address "+host, fmt.Sprintf("events: a secret of its own from %s", w.Secret))
	}
	return lines
}
