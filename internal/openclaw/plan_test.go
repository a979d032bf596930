package openclaw

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/secretref"
)

func TestParsePath(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][]string{
		"a":                                     {"a"},
		" a.b ":                                 {"a", "b"},
		"models.providers.openai.apiKey":        {"models", "providers", "openai", "apiKey"},
		"profiles.openai:default.key":           {"profiles", "openai:default", "key"},
		`models.providers["a.b"].apiKey`:        {"models", "providers", "a.b", "apiKey"},
		`models.providers['a"b'].apiKey`:        {"models", "providers", `a"b`, "apiKey"},
		`models.providers[ "q\"é]" ].headers.x`: {"models", "providers", `q"é]`, "headers", "x"},
		`["a"]["b"]`:                            {"a", "b"},
		"list[0].x":                             {"list", "0", "x"},
		"list[0][12]":                           {"list", "0", "12"},
		`a\.b.c`:                                {"a.b", "c"},
		"":                                      nil,
		".":                                     nil,
		"a.":                                    nil,
		".a":                                    nil,
		"a..b":                                  nil,
		"a. .b":                                 nil,
		"a[":                                    nil,
		"a[]":                                   nil,
		`a["x`:                                  nil,
		`a["x"`:                                 nil,
		`a[""]`:                                 nil,
		`a["x"]y`:                               nil,
		`a.["x"]`:                               nil,
		`a\`:                                    nil,
	} {
		got, err := ParsePath(path)
		if !reflect.DeepEqual(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q is %q, %v, want %q", path, got, err, want)
		}
		if want == nil {
			continue
		}
		if again, err := ParsePath(shownPath(want)); err != nil || !reflect.DeepEqual(again, want) {
			t.Errorf("%q, shown as %q, is %q, %v", want, shownPath(want), again, err)
		}
	}
}

const planTarget = `{"type":"gateway.auth.token","path":"gateway.auth.token","ref":{"source":"env","provider":"default","id":"TOKEN"}}`

func TestDecodePlan(t *testing.T) {
	t.Parallel()
	head := `{"version":1,"protocolVersion":1,`
	target := func(members string) string {
		return head + `"targets":[{"ref":{"source":"env","provider":"default","id":"TOKEN"},` + members + `}]}`
	}
	ref := func(ref string) string {
		return head + `"targets":[{"type":"gateway.auth.token","path":"gateway.auth.token","ref":` + ref + `}]}`
	}
	for name, c := range map[string]struct{ plan, want string }{
		"empty":                {head + `"targets":[]}`, ""},
		"one":                  {head + `"targets":[` + planTarget + `],"unknown":1}`, ""},
		"same twice":           {head + `"targets":[` + planTarget + `,` + planTarget + `]}`, ""},
		"pattern as type":      {target(`"type":"models.providers.*.apiKey","path":"models.providers.x.apiKey","providerId":"x"`), ""},
		"account":              {target(`"type":"channels.googlechat.serviceAccount","path":"channels.googlechat.accounts.a.serviceAccount","accountId":"a"`), ""},
		"dots in segments":     {target(`"type":"models.providers.apiKey","path":"models.providers.a.b.apiKey","pathSegments":["models","providers","a.b","apiKey"]`), ""},
		"profile":              {target(`"type":"auth-profiles.token.token","path":"profiles.a:b.token","agentId":"main"`), ""},
		"upsert":               {head + `"targets":[],"providerUpserts":{"a":{"source":"exec","command":"/bin/x","timeoutMs":7000}},"providerDeletes":["b"]}`, ""},
		"no JSON":              {`{"version":1,`, "the plan is no JSON"},
		"a list":               {`[]`, "the plan is no JSON object"},
		"null":                 {`null`, "the plan is no JSON object"},
		"two values":           {head + `"targets":[]} {}`, "more behind its object"},
		"version":              {`{"version":2,"protocolVersion":1,"targets":[]}`, "version: it must be 1"},
		"version as text":      {`{"version":"1","protocolVersion":1,"targets":[]}`, "version: it must be 1"},
		"other case":           {`{"Version":1,"protocolVersion":1,"targets":[]}`, "version: it must be 1"},
		"protocol":             {`{"version":1,"targets":[]}`, "protocolVersion: it must be 1"},
		"no targets":           {head[:len(head)-1] + `}`, "targets: it must be a list"},
		"no object":            {head + `"targets":[7]}`, "targets[0]: it must be an object"},
		"unknown type":         {target(`"type":"c4nary","path":"gateway.auth.token"`), "targets[0].type: there is no such type"},
		"no type":              {target(`"path":"gateway.auth.token"`), "targets[0].type: it is needed"},
		"type of the runtime":  {target(`"type":"gateway.controlUi.github.token","path":"gateway.controlUi.github.token"`), "there is no such type"},
		"another path":         {target(`"type":"models.providers.apiKey","path":"models.providers.openai.baseUrl"`), "Invalid plan target path for models.providers.apiKey: models.providers.openai.baseUrl"},
		"forbidden":            {target(`"type":"models.providers.apiKey","path":"models.providers.__proto__.apiKey"`), "__proto__"},
		"forbidden in quotes":  {target(`"type":"models.providers.apiKey","path":"models.providers[\"constructor\"].apiKey"`), "constructor"},
		"no path":              {target(`"type":"models.providers.apiKey"`), "targets[0].path: a path is needed"},
		"other segments":       {target(`"type":"gateway.auth.token","path":"gateway.auth.token","pathSegments":["gateway","auth","password"]`), "pathSegments: it is not the path"},
		"segments of numbers":  {target(`"type":"gateway.auth.token","path":"gateway.auth.token","pathSegments":[1]`), "pathSegments: it must be a list of texts"},
		"another provider":     {target(`"type":"models.providers.apiKey","path":"models.providers.x.apiKey","providerId":"y"`), "providerId: it is not the one in the path"},
		"no such account":      {target(`"type":"gateway.auth.token","path":"gateway.auth.token","accountId":"y"`), "accountId: it is not the one in the path"},
		"no agent":             {target(`"type":"auth-profiles.token.token","path":"profiles.a:b.token"`), "agentId: it is needed"},
		"no ref":               {ref(`null`), "targets[0].ref"},
		"bad id":               {ref(`{"source":"env","provider":"default","id":"c4nary-x"}`), "targets[0].ref"},
		"bad provider":         {ref(`{"source":"env","provider":"X","id":"A"}`), "targets[0].ref"},
		"store":                {ref(`{"source":"store","provider":"default","id":"A"}`), "OpenClaw's own store"},
		"two refs":             {head + `"targets":[` + planTarget + `,` + strings.Replace(planTarget, "TOKEN", "OTHER", 1) + `]}`, "targets[1]: another target gives the same place another ref"},
		"name of an upsert":    {head + `"targets":[],"providerUpserts":{"A":{"source":"env"}}}`, "providerUpserts: a name"},
		"key of an upsert":     {head + `"targets":[],"providerUpserts":{"a":{"source":"env","allow":[]}}}`, "providerUpserts.a"},
		"upsert of a plugin":   {head + `"targets":[],"providerUpserts":{"a":{"source":"exec","pluginIntegration":{"pluginId":"x","integrationId":"y"}}}}`, "openclaw secrets apply"},
		"deletes":              {head + `"targets":[],"providerDeletes":[7]}`, "providerDeletes[0]"},
		"options":              {head + `"targets":[],"options":[]}`, "options: it must be an object"},
		"option":               {head + `"targets":[],"options":{"scrubEnv":"no"}}`, "options.scrubEnv: it must be true or false"},
		"number in place of a": {target(`"type":7,"path":"gateway.auth.token"`), "targets[0].type: it must be a text"},
	} {
		p, err := DecodePlan([]byte(c.plan), secretref.Newest)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			roundTrip(t, p)
			continue
		}
		var wrong *PlanError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), c.want) || name == "unknown type" && strings.Contains(err.Error(), "c4nary") {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func roundTrip(t *testing.T, p *Plan) {
	t.Helper()
	text, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := DecodePlan(text, secretref.Newest)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	other, err := again.Encode()
	if err != nil || !bytes.Equal(text, other) {
		t.Errorf("a plan is\n%s\nand read again\n%s", text, other)
	}
}

func TestPlanOptions(t *testing.T) {
	t.Parallel()
	const plan = `{"version":1,"protocolVersion":1,"targets":[]}`
	p, err := DecodePlan([]byte(plan), secretref.Newest)
	if err != nil || p.Options != (PlanOptions{ScrubEnv: true, ScrubAuthProfiles: true}) {
		t.Errorf("got %+v, %v", p, err)
	}
	p, err = DecodePlan([]byte(plan), secretref.V2026_3_2)
	if err != nil || p.Options != (PlanOptions{true, true, true}) {
		t.Errorf("by the rules of 2026.3.2: %+v, %v", p, err)
	}
}

func TestReadPlan(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"plan.json": `{"version":1,"protocolVersion":1,"targets":[]}`, "dir/": ""})
	big, err := os.Create(filepath.Join(dir, "big.json"))
	if err != nil || errors.Join(big.Truncate(MaxPlan+1), big.Close()) != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"plan.json": "", "dir": "it is no regular file", "big.json": "a plan has at most 16777216 bytes", "none": "no such file"} {
		_, err := ReadPlan(t.Context(), filepath.Join(dir, name), secretref.Newest)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
}

func TestParseProvider(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a=env":                           `{"source":"env"}`,
		"a=env,allowlist=X,allowlist=Y_1": `{"source":"env","allowlist":["X","Y_1"]}`,
		"v=file,path=~/s.json,mode=json,timeoutMs=70":                                 `{"source":"file","path":"~/s.json","mode":"json","timeoutMs":70}`,
		"x=exec,command=/bin/x,args=-a,args=b=c,passEnv=HOME,env.T=1=2,jsonOnly=true": `{"source":"exec","command":"/bin/x","args":["-a","b=c"],"passEnv":["HOME"],"env":{"T":"1=2"},"jsonOnly":true}`,
		"A=env":                                "",
		"env":                                  "",
		"a=":                                   "",
		"a=vault":                              "",
		"a=file":                               "",
		"a=file,path":                          "",
		"a=file,path=/x,path=/y":               "",
		"a=file,path=/x,timeoutMs=-1":          "",
		"x=exec,command=/bin/x,jsonOnly=maybe": "",
		"x=exec,command=relative":              "",
		"x=exec,command=/bin/x,unknown=1":      "",
	} {
		_, got, err := ParseProvider(text, secretref.Newest)
		if want == "" {
			if err == nil {
				t.Errorf("%q is taken", text)
			}
			continue
		}
		is, _ := json.Marshal(got)
		var one, other any
		if err != nil || json.Unmarshal(is, &one) != nil || json.Unmarshal([]byte(want), &other) != nil || !reflect.DeepEqual(one, other) {
			t.Errorf("%q is %s, %v, want %s", text, is, err, want)
		}
		name, same, err := ParseProviderJSON(text[:1]+"="+want, secretref.Newest)
		if is2, _ := json.Marshal(same); err != nil || name != text[:1] || !bytes.Equal(is, is2) {
			t.Errorf("%s by JSON is %s, %v", want, is2, err)
		}
	}
}

func FuzzDecodePlan(f *testing.F) {
	seeds := 0
	for _, seed := range []string{plainPlan, `{"version":1,"protocolVersion":1,"targets":[` + planTarget + `]}`,
		`{"version":1,"protocolVersion":1,"targets":[],"providerUpserts":{"a":{"source":"file","path":"/x"}},"providerDeletes":["b"],"options":{}}`,
		`{"version":1,"protocolVersion":1,"targets":[{"type":"models.providers.apiKey","path":"models.providers[\"a.b\"].apiKey","ref":{"source":"env","provider":"d","id":"A"}}]}`} {
		if _, err := DecodePlan([]byte(seed), secretref.Newest); err == nil {
			seeds++
		}
		f.Add([]byte(seed))
	}
	if seeds != 4 {
		f.Fatalf("%d seeds are plans", seeds)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		p, err := DecodePlan(content, secretref.Newest)
		if err != nil {
			var wrong *PlanError
			if !errors.As(err, &wrong) {
				t.Errorf("the error is %T", err)
			}
			return
		}
		for _, target := range p.Targets {
			for _, step := range target.Path {
				if step == "__proto__" || step == "prototype" || step == "constructor" {
					t.Errorf("a target has the path %q", target.Path)
				}
			}
		}
		roundTrip(t, p)
	})
}
