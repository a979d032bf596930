package policy

import (
	"testing"

	"github.com/credresolve/credresolve/config"
)

// Logging in is a right of its own, for what a rule with it matches; a session has it as far as it and its consumer do.
func TestLogin(t *testing.T) {
	t.Parallel()
	p, err := New(config.Serve{Consumers: []config.Consumer{{Name: "web", Allow: []config.AllowRule{
		{Provider: "hub", ID: "bots/*", Login: true}, {Provider: "hub", ID: "**"}, {Provider: "desk", ID: "me", Fields: []string{"access_token"}, Login: true},
	}}}}, []string{"hub", "desk"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	web := p.Named("web")
	refs := []string{"cred://hub/bots/one", "cred://hub/me"}
	session := func(base *Consumer, also Also) *Consumer {
		c, err := p.Restrict(base, "job", refs, also)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for name, tt := range map[string]struct {
		who  *Consumer
		want map[string]bool
	}{
		"the owner":              {p.Owner(), map[string]bool{"cred://hub/me": true, "cred://none/x": true}},
		"nobody":                 {p.Identify(Caller{}), map[string]bool{"cred://hub/bots/one": false}},
		"a consumer":             {web, map[string]bool{"cred://hub/bots/one": true, "cred://hub/me": false, "cred://hub/bots/../me": false, "cred://hub/bots/": false, "cred://desk/me": true, "cred://desk/you": false}},
		"its session without it": {session(web, Also{}), map[string]bool{"cred://hub/bots/one": false}},
		"its session with it":    {session(web, Also{Login: true}), map[string]bool{"cred://hub/bots/one": true, "cred://hub/me": false, "cred://hub/bots/two": false}},
		"the owner's session":    {session(p.Owner(), Also{Login: true}), map[string]bool{"cred://hub/me": true, "cred://desk/me": false}},
	} {
		for ref, want := range tt.want {
			if d := tt.who.Login(parse(t, ref)); d.Allowed != want || d.Rule == "" || d.Allowed == (d.Reason != "") {
				t.Errorf("%s, %s: %+v, want %t", name, ref, d, want)
			}
		}
	}
}

func TestSecretsOfPlugins(t *testing.T) {
	t.Parallel()
	p, err := New(config.Serve{Consumers: []config.Consumer{{Name: "reads", Secrets: []string{"read"}}, {Name: "none"}}}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		base        *Consumer
		also        []string
		read, write bool
	}{
		"a consumer that reads":      {base: p.Named("reads"), read: true},
		"one without":                {base: p.Named("none")},
		"a session of who reads":     {p.Named("reads"), []string{"read", "write"}, true, false},
		"a session that only writes": {p.Named("reads"), []string{"write"}, false, false},
		"the owner's session":        {p.Owner(), []string{"write"}, false, true},
	} {
		who := tt.base
		if tt.also != nil {
			if who, err = p.Restrict(tt.base, "job", nil, Also{Secrets: tt.also}); err != nil {
				t.Fatal(err)
			}
		}
		if r, w := who.May(SecretsRead).Allowed, who.May(SecretsWrite).Allowed; r != tt.read || w != tt.write {
			t.Errorf("%s: reads %t, writes %t", name, r, w)
		}
		if who.May(Plugins).Allowed {
			t.Errorf("%s may end plugins", name)
		}
	}
	if _, err := p.Restrict(p.Owner(), "job", nil, Also{Secrets: []string{"all"}}); err == nil {
		t.Error("an unknown permission is taken")
	}
}
