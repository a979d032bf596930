package policy

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func number(n int) *int { return &n }

const ownUID = 1000

var providers = []string{"app", "aws", "app-test"}

func newPolicy(t testing.TB, s config.Serve) *Policy {
	t.Helper()
	p, err := New(s, providers, ownUID)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// with gives a consumer that has rules.
func with(t testing.TB, rules ...config.AllowRule) *Consumer {
	t.Helper()
	return newPolicy(t, config.Serve{Consumers: []config.Consumer{{Name: "web", Allow: rules}}}).Named("web")
}

func parse(t testing.TB, s string) credref.Ref {
	t.Helper()
	ref, err := credref.Parse(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return ref
}

func TestIdentify(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, config.Serve{
		Tokens: map[string]string{"ci": "/t", "both": "/b"},
		Consumers: []config.Consumer{
			{Name: "tool", UID: number(ownUID), Executable: "/usr/bin/tool"},
			{Name: "ci", Token: "ci"},
			{Name: "both", Token: "both", UID: number(7)},
			{Name: "web", UID: number(33), GID: number(44)},
			{Name: "group", GID: number(44)},
			{Name: "sessions"},
		},
	})
	for _, tt := range []struct {
		name string
		in   Caller
		want string // empty: nobody
		why  string
	}{
		{"the owner", Caller{Peer: &Facts{UID: number(ownUID), Executable: "/bin/sh"}}, "owner", "owner: uid 1000 is the user of the sidecar"},
		{"a program of the owner's with less", Caller{Peer: &Facts{UID: number(ownUID), Executable: "/usr/bin/tool"}}, "tool", "consumers[0] tool: by uid 1000, executable /usr/bin/tool"},
		{"that program by another user", Caller{Peer: &Facts{UID: number(5), Executable: "/usr/bin/tool"}}, "", "nobody: no consumer matches uid 5, executable /usr/bin/tool"},
		{"the owner's process that may be that program", Caller{Peer: &Facts{UID: number(ownUID)}}, "", "nobody: the executable cannot be told, and consumers[0] tool asks for one"},
		{"the same with the owner's token", Caller{Peer: &Facts{UID: number(ownUID)}, Token: "owner"}, "owner", "owner: by the owner's token"},
		{"the owner's token over TCP", Caller{Token: "owner", Listener: "tcp"}, "owner", "owner: by the owner's token"},
		{"no token over TCP", Caller{Listener: "tcp"}, "", "nobody: no consumer matches listener tcp"},
		{"a token over TCP", Caller{Token: "ci"}, "ci", "consumers[1] ci: by token ci"},
		{"a token by the owner", Caller{Peer: &Facts{UID: number(ownUID), Executable: "/bin/sh"}, Token: "ci"}, "ci", "consumers[1] ci: by token ci"},
		{"a token and the right user", Caller{Peer: &Facts{UID: number(7)}, Token: "both"}, "both", "consumers[2] both: by uid 7, token both"},
		{"a token and the wrong user", Caller{Peer: &Facts{UID: number(8)}, Token: "both"}, "", "nobody: no consumer matches uid 8, token both"},
		{"the owner with a token of a consumer that he is not", Caller{Peer: &Facts{UID: number(ownUID), Executable: "/bin/sh"}, Token: "both"}, "", "nobody: no consumer matches uid 1000, executable /bin/sh, token both"},
		{"a token and no process", Caller{Token: "both"}, "", "nobody: no consumer matches token both"},
		{"the first of two", Caller{Peer: &Facts{UID: number(33), GID: number(44), PID: number(9)}}, "web", "consumers[3] web: by uid 33, gid 44"},
		{"the second", Caller{Peer: &Facts{UID: number(34), GID: number(44)}}, "group", "consumers[4] group: by gid 44"},
		{"half of the criteria", Caller{Peer: &Facts{UID: number(33), GID: number(1)}}, "", "nobody: no consumer matches uid 33, gid 1"},
		{"a process of which nothing is known", Caller{Peer: &Facts{}}, "", "nobody: no consumer matches a caller of whom nothing is known"},
		{"the zero caller", Caller{}, "", "nobody: no consumer matches a caller of whom nothing is known"},
	} {
		c := p.Identify(tt.in)
		if c.Name() != tt.want || c.IsNobody() != (tt.want == "") || c.IsOwner() != (tt.want == "owner") {
			t.Errorf("%s: %q, want %q", tt.name, c.Name(), tt.want)
		}
		if why := p.Explain(tt.in); why != tt.why {
			t.Errorf("%s: %s\nwant %s", tt.name, why, tt.why)
		}
	}
	if c := p.Named("sessions"); c == nil || p.Named("none") != nil || p.Named("") != nil || p.Named("owner") != p.Owner() {
		t.Error("Named does not find what there is")
	}
	if got := strings.Join(p.Names(), " "); got != "tool ci both web group sessions" {
		t.Error(got)
	}
	noUsers, err := New(config.Serve{}, nil, -1)
	if err != nil {
		t.Fatal(err)
	}
	if !noUsers.Identify(Caller{Peer: &Facts{UID: number(-1)}}).IsNobody() {
		t.Error("where users have no ids, somebody is the owner by his")
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	web := with(t,
		config.AllowRule{Provider: "app", ID: "kv/app/*"},
		config.AllowRule{Provider: "app*", ID: "kv/shared/**", Fields: []string{"user", "/tls/key", "/a~1b"}},
		config.AllowRule{Provider: "aws", ID: "prod/?", Fields: []string{"password"}, Whole: true},
		config.AllowRule{Provider: "aws", ID: `odd\..//%41/..`},
		config.AllowRule{Provider: "aws", ID: "/pointer/*"},
		config.AllowRule{Provider: "aws", ID: "ende/"},
		config.AllowRule{Provider: "aws", ID: "*/end"},
	)
	for _, tt := range []struct {
		ref  string
		rule int // -1: denied
		why  string
	}{
		{"cred://app/kv/app/db", 0, ""},
		{"cred://app/kv/app/db#password", 0, ""},
		{"cred://app/kv/app/db?version=3#/a/b", 0, ""},
		{"cred://app/kv/app/schlüssel", 0, ""},
		{"cred://app/kv/app/db/x", -1, reasonNone},
		{"cred://app/kv/app", -1, reasonNone},
		{"cred://app/kv/app/", -1, reasonNone}, // a store may read kv/app
		{"cred://app/kv/application", -1, reasonNone},
		{"cred://app/KV/app/db", -1, reasonNone},
		{"cred://aws/kv/app/db", -1, reasonNone},
		{"cred://unknown/kv/app/db", -1, reasonNone},
		{"cred://app/kv/app/..", -1, reasonAmbiguous},
		{"cred://app/kv/app/.", -1, reasonAmbiguous},
		{"cred://app/kv/app/...", 0, ""},
		{"cred://app/kv/app/%252e%252e", -1, reasonAmbiguous},
		{"cred://app/kv/app/100%25", 0, ""},
		{`cred://app/kv/app/..%5Cx`, -1, reasonAmbiguous},
		{"cred://app/kv/shared/a/b#user", 1, ""},
		{"cred://app-test/kv/shared/a/b?version=7#user", 1, ""},
		{"cred://app/kv/shared/a#/user", 1, ""},
		{"cred://app/kv/shared/a#/user/name", 1, ""},
		{"cred://app/kv/shared/a#/tls/key", 1, ""},
		{"cred://app/kv/shared/a#/tls/key/0", 1, ""},
		{"cred://app/kv/shared/a#/tls/keys", -1, reasonFields},
		{"cred://app/kv/shared/a#/tls", -1, reasonFields},
		{"cred://app/kv/shared/a#tls", -1, reasonFields},
		{"cred://app/kv/shared/a#tls/key", -1, reasonFields}, // a key with a slash
		{"cred://app/kv/shared/a#a/b", 1, ""},                // the same key
		{"cred://app/kv/shared/a#/a/b", -1, reasonFields},
		{"cred://app/kv/shared/a#/a~1b/c", 1, ""},
		{"cred://app/kv/shared/a#users", -1, reasonFields},
		{"cred://app/kv/shared/a#/", -1, reasonFields},
		{"cred://app/kv/shared/a", -1, reasonWhole},
		{"cred://app/kv/shared//a#user", -1, reasonAmbiguous},
		{"cred://app/kv/shared/../app/db#user", -1, reasonAmbiguous},
		{"cred://app/kv/shared/#user", -1, reasonNone},
		{"cred://aws/prod/x", 2, ""},
		{"cred://aws/prod/ü#password", 2, ""},
		{"cred://aws/prod/x#user", -1, reasonFields},
		{"cred://aws/prod/xy", -1, reasonNone},
		{"cred://aws/prod/", -1, reasonNone},
		{`cred://aws/odd%5C..//%2541/..`, 3, ""},
		{`cred://aws/odd%5C..//%2541/../x`, -1, reasonAmbiguous},
		{"cred://aws//pointer/x", 4, ""},
		{"cred://aws/pointer/x", -1, reasonNone},
		{"cred://aws//pointer/", -1, reasonNone},
		{"cred://aws/ende/", 5, ""},
		{"cred://aws/ende", -1, reasonNone},
		{"cred://aws/x/end", 6, ""},
		{"cred://aws//end", -1, reasonNone}, // a store may read end
	} {
		for range 2 { // decided, and remembered
			got := web.Resolve(parse(t, tt.ref))
			want := Decision{Rule: ByDefault, Reason: tt.why}
			if tt.rule >= 0 {
				want = Decision{Allowed: true, Rule: fmt.Sprintf("consumers[0] web allow[%d]", tt.rule)}
			}
			if got != want {
				t.Errorf("%s: %+v, want %+v", tt.ref, got, want)
			}
		}
	}
	for _, malformed := range []credref.Ref{
		{}, {Provider: "app"}, {Provider: "app", ID: "kv/app/\xff"}, {Provider: "app", ID: "kv/app/a\nb"},
		{Provider: "app", ID: "kv/app/" + strings.Repeat("x", credref.MaxID)}, {Provider: "app", ID: "kv/app/x", Field: "/~"},
	} {
		if d := web.Resolve(malformed); d.Allowed || d.Reason == "" {
			t.Errorf("%+v: %+v", malformed, d)
		}
	}
	if all := with(t, config.AllowRule{Provider: "*", ID: "**"}); !all.Resolve(parse(t, "cred://aws//x/y/")).Allowed ||
		all.Resolve(parse(t, "cred://aws/x/../y")).Allowed || all.Resolve(parse(t, "cred://none/x")).Allowed {
		t.Error("a rule for all ids of all providers")
	}
}

func TestOwnerAndNobody(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, config.Serve{Consumers: []config.Consumer{{Name: "web", May: []string{"revoke", "status"}}}})
	web, owner, nobody := p.Named("web"), p.Owner(), p.Identify(Caller{})
	ref := parse(t, "cred://app/a//../b")
	if d := owner.Resolve(ref); !d.Allowed || d.Rule != "owner" {
		t.Errorf("%+v", d)
	}
	for _, c := range []*Consumer{web, nobody} {
		if d := c.Resolve(parse(t, "cred://app/a")); d.Allowed || d.Rule != ByDefault || d.Reason != reasonNone {
			t.Errorf("%q: %+v", c.Name(), d)
		}
	}
	for _, may := range []Permission{Invalidate, Revoke, Metrics, Status, Sessions, Reload, "nonsense"} {
		if !owner.May(may).Allowed || nobody.May(may).Allowed {
			t.Errorf("%s: the owner may %v, nobody may %v", may, owner.May(may), nobody.May(may))
		}
		if got, want := web.May(may).Allowed, may == Revoke || may == Status; got != want {
			t.Errorf("%s: %+v", may, web.May(may))
		}
	}
	if d := web.May(Revoke); d.Rule != "consumers[0] web may" {
		t.Error(d)
	}
	if d := web.May(Reload); d.Reason != "reload is the owner's alone" {
		t.Error(d)
	}
	if d := web.May(Metrics); d.Reason != "the permission metrics is not given" {
		t.Error(d)
	}
}

func TestRestrict(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, config.Serve{Consumers: []config.Consumer{{
		Name: "web", May: []string{"status"}, Subject: config.ConsumerSubject{Tenant: "t"},
		Allow: []config.AllowRule{{Provider: "app", ID: "kv/**", Fields: []string{"password", "user"}}},
	}}})
	refs := []string{
		"cred://app/kv/db#password", "cred://app/kv/star*", "cred://app/kv/old?version=3#user", "cred://aws/x", "cred://aws/a/../b",
	}
	rule := config.AllowRule{Provider: "a*", ID: "kv/more/*"}
	web, err := p.Restrict(p.Named("web"), "web", refs, Also{}, rule)
	if err != nil {
		t.Fatal(err)
	}
	all, err := p.Restrict(p.Owner(), "job", refs, Also{}, rule)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		ref      string
		web, all string // the rule; empty: denied
	}{
		{"cred://app/kv/db#password", "session allow[0] of consumers[0] web allow[0]", "session allow[0] of owner"},
		{"cred://app/kv/db#/password/x", "session allow[0] of consumers[0] web allow[0]", "session allow[0] of owner"},
		{"cred://app/kv/db?version=9#password", "session allow[0] of consumers[0] web allow[0]", "session allow[0] of owner"},
		{"cred://app/kv/db#user", "", ""},
		{"cred://app/kv/db", "", ""},
		{"cred://app/kv/star*#user", "session allow[1] of consumers[0] web allow[0]", "session allow[1] of owner"},
		{"cred://app/kv/star*", "", "session allow[1] of owner"},
		{"cred://app/kv/stars#user", "", ""},
		{"cred://app/kv/old?version=3#user", "session allow[2] of consumers[0] web allow[0]", "session allow[2] of owner"},
		{"cred://app/kv/old?version=4#user", "", ""},
		{"cred://app/kv/old#user", "", ""},
		{"cred://aws/x", "", "session allow[3] of owner"},
		{"cred://aws/x#any", "", "session allow[3] of owner"},
		{"cred://aws/a/../b", "", "session allow[4] of owner"},
		{"cred://aws/b", "", ""},
		{"cred://app/kv/more/x#user", "session allow[5] of consumers[0] web allow[0]", "session allow[5] of owner"},
		{"cred://app/kv/more/x", "", "session allow[5] of owner"},
		{"cred://aws/kv/more/x", "", "session allow[5] of owner"},
		{"cred://aws/kv/more/..", "", ""},
	} {
		for range 2 {
			for c, want := range map[*Consumer]string{web: tt.web, all: tt.all} {
				d := c.Resolve(parse(t, tt.ref))
				if d.Allowed != (want != "") || d.Allowed && d.Rule != want || !d.Allowed && (d.Rule != ByDefault || d.Reason == "") {
					t.Errorf("%s by %s: %+v, want %q", tt.ref, c.base.label, d, want)
				}
			}
		}
	}
	if d := web.Resolve(parse(t, "cred://aws/x")); d.Reason != "the session's list allows it, but to consumers[0] web it is denied: no rule allows it" {
		t.Error(d.Reason)
	}
	for _, may := range []Permission{Invalidate, Revoke, Metrics, Status, Sessions, Reload} {
		if web.May(may).Allowed || all.May(may).Allowed {
			t.Errorf("a session may %s", may)
		}
	}
	if web.Name() != "web" || web.Subject().Tenant != "t" || all.IsOwner() || all.Name() != "job" {
		t.Errorf("%q %+v %q", web.Name(), web.Subject(), all.Name())
	}
	if none, err := p.Restrict(p.Owner(), "job", nil, Also{}); err != nil || none.Resolve(parse(t, "cred://app/kv/db#password")).Allowed {
		t.Errorf("an empty list: %v", err)
	}
	if nobody, err := p.Restrict(p.Identify(Caller{}), "job", refs, Also{}, rule); err != nil || nobody.Resolve(parse(t, "cred://app/kv/db#password")).Allowed {
		t.Errorf("a session of nobody: %v", err)
	}
	for want, bad := range map[string]struct {
		refs []string
		rule config.AllowRule
	}{
		"allow[0]: there is no such provider": {refs: []string{"cred://none/x"}},
		"allow[1]: malformed":                 {refs: []string{"cred://app/x", "c4nary"}},
		"allow[1]: the pattern of the prov":   {[]string{"cred://app/x"}, config.AllowRule{Provider: "[c4nary", ID: "x"}},
		"allow[0]: id: the pattern is empty":  {nil, config.AllowRule{Provider: "app"}},
	} {
		_, err := p.Restrict(p.Owner(), "job", bad.refs, Also{}, bad.rule)
		if !errors.Is(err, backend.ErrUsage) || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "c4nary") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	rule := func(r config.AllowRule) config.Serve {
		return config.Serve{Consumers: []config.Consumer{{Name: "web", Allow: []config.AllowRule{r}}}}
	}
	const canary = "c4nary"
	for want, s := range map[string]config.Serve{
		"serve.tokens: the name \"owner\"":                      {Tokens: map[string]string{"owner": "/t"}},
		"serve.consumers[0]: the name":                          {Consumers: []config.Consumer{{Name: "owner"}}},
		"serve.consumers[1]: the name":                          {Consumers: []config.Consumer{{Name: "a"}, {Name: "a"}}},
		"serve.consumers[0].executable":                         {Consumers: []config.Consumer{{Name: "a", Executable: "/usr/../bin/" + canary}}},
		"serve.consumers[0].may: unknown":                       {Consumers: []config.Consumer{{Name: "a", May: []string{canary}}}},
		"serve.consumers[0].subject: malformed":                 {Consumers: []config.Consumer{{Name: "a", Subject: config.ConsumerSubject{Plugin: canary + "\x00"}}}},
		"serve.consumers[0].allow[0]: id: the pattern is empty": rule(config.AllowRule{Provider: "*"}),
		"serve.consumers[0].allow[0]: id: the pattern is long":  rule(config.AllowRule{Provider: "*", ID: strings.Repeat("*"+canary, 500)}),
		"serve.consumers[0].allow[0]: id: the pattern is not":   rule(config.AllowRule{Provider: "*", ID: canary + "\xff"}),
		"serve.consumers[0].allow[0]: a field is empty":         rule(config.AllowRule{Provider: "*", ID: "*", Fields: []string{""}}),
		"serve.consumers[0].allow[0]: a field is neither":       rule(config.AllowRule{Provider: "*", ID: "*", Fields: []string{"/" + canary + "~2"}}),
		"serve.consumers[0].allow[0]: the pattern of the":       rule(config.AllowRule{Provider: "[" + canary, ID: "*"}),
	} {
		_, err := New(s, providers, 0)
		if !errors.Is(err, backend.ErrInvalidConfig) || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), canary) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestRates(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, config.Serve{
		Limits:    config.ServeLimits{Rate: config.RateSettings{Calls: 5}},
		Consumers: []config.Consumer{{Name: "a"}, {Name: "b", Rate: config.RateSettings{Calls: 7, Per: 9}}},
	})
	for c, want := range map[*Consumer]config.RateSettings{
		p.Named("a"): {Calls: 5, Per: defaultPer}, p.Named("b"): {Calls: 7, Per: 9}, p.Owner(): {Calls: 5, Per: defaultPer},
	} {
		if c.Rate() != want {
			t.Errorf("%s: %+v", c.Name(), c.Rate())
		}
	}
}

// Whoever asks for ever new refs takes no more memory than the bound, and spoils nobody's answers.
func TestDecisionsAreBounded(t *testing.T) {
	t.Parallel()
	web := with(t, config.AllowRule{Provider: "app", ID: "kv/*"})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 3 * knownEntries {
				id := fmt.Sprintf("kv/%d-%d", g, i)
				if i%2 == 1 {
					id = "no" + id
				}
				if d := web.Resolve(credref.Ref{Provider: "app", ID: id}); d.Allowed != (i%2 == 0) {
					t.Errorf("%s: %+v", id, d)
				}
			}
		})
	}
	wg.Wait()
	if size := web.known.Size(); size.Entries > knownEntries || size.Bytes > knownBytes || size.Entries == 0 {
		t.Errorf("%+v", size)
	}
}

func TestRememberedDecisionAllocatesNothing(t *testing.T) {
	web := with(t, config.AllowRule{Provider: "app", ID: "kv/**", Fields: []string{"password"}})
	for _, s := range []string{"cred://app/kv/app/db#password", "cred://app/kv/app/db"} {
		ref := parse(t, s)
		web.Resolve(ref)
		if n := testing.AllocsPerRun(100, func() { web.Resolve(ref) }); n != 0 {
			t.Errorf("%s: %v allocations", s, n)
		}
	}
	caller := Caller{Peer: &Facts{UID: number(ownUID)}}
	p := newPolicy(t, config.Serve{Consumers: []config.Consumer{{Name: "web", UID: number(3)}}})
	if n := testing.AllocsPerRun(100, func() { p.Identify(caller) }); n != 0 {
		t.Errorf("Identify: %v allocations", n)
	}
}

func BenchmarkResolve(b *testing.B) {
	web := with(b, config.AllowRule{Provider: "aws", ID: "**"}, config.AllowRule{Provider: "app", ID: "kv/*/d?", Fields: []string{"user", "password"}})
	ref := parse(b, "cred://app/kv/app/db#password")
	b.Run("remembered", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			web.Resolve(ref)
		}
	})
	b.Run("remembered, all processors", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				web.Resolve(ref)
			}
		})
	})
	b.Run("decided", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			decide(web.rules, &ref)
		}
	})
}
