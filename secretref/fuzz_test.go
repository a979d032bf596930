package secretref_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/credresolve/credresolve/secretref"
)

func FuzzFromString(f *testing.F) {
	g := secretref.Grammar{Shorthands: true, Defaults: secretref.Defaults{Env: "main"}}
	for _, seed := range []string{"${OPENAI_API_KEY}", "$A", " ${A_1}\n"} {
		if _, ok := g.FromString(seed); !ok {
			f.Fatalf("seed %q is no ref", seed)
		}
		f.Add(seed)
	}
	f.Add("$${A}")
	f.Fuzz(func(t *testing.T, s string) {
		r, ok := g.FromString(s)
		if !ok {
			return
		}
		if err := g.Check(r); err != nil || r.Source != secretref.Env || r.Provider != "main" || !strings.Contains(s, r.ID) {
			t.Errorf("%q gives %v, %v", s, r, err)
		}
		if _, elsewhere := (secretref.Grammar{}).FromString(s); elsewhere {
			t.Errorf("%q is a ref in a document that is not OpenClaw's", s)
		}
		if _, old := (secretref.Grammar{Shorthands: true, Compat: secretref.V2026_3_2}).FromString(s); old != strings.Contains(s, "{") {
			t.Errorf("%q: a ref in 2026.3.2: %t", s, old)
		}
		if secretref.Retired(s) || secretref.Placeholder(s) {
			t.Errorf("%q is both a ref and a marker", s)
		}
	})
}

func FuzzFromObject(f *testing.F) {
	g := secretref.Grammar{Shorthands: true}
	for _, seed := range []string{`{"source":"exec","provider":"p","id":"a/b#c"}`, `{"source":"file","id":"/a~1b"}`, `"${A}"`} {
		var v any
		if err := json.Unmarshal([]byte(seed), &v); err != nil {
			f.Fatalf("seed %s: %v", seed, err)
		}
		r, ok := g.FromValue(v)
		if !ok || g.Check(r) != nil {
			f.Fatalf("seed %s is no good ref", seed)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var v any
		if json.Unmarshal([]byte(text), &v) != nil {
			return
		}
		r, ok := g.FromValue(v)
		if !ok {
			return
		}
		for _, compat := range []secretref.Compat{secretref.Newest, secretref.V2026_3_2} {
			if err := (secretref.Grammar{Compat: compat}).Check(r); err != nil && strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("the error of %q holds a control character", text)
			}
		}
		out, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var again any
		if err := json.Unmarshal(out, &again); err != nil {
			t.Fatal(err)
		}
		if back, ok := (secretref.Grammar{}).FromValue(again); !ok || back != r {
			t.Errorf("%v is written as %s, which is read as %v, %t", r, out, back, ok)
		}
	})
}

func FuzzCheck(f *testing.F) {
	for _, r := range []secretref.Ref{{secretref.Env, "default", "A"}, {secretref.File, "conf", "/a/~0"}, {secretref.Exec, "p", "a/b#c"}} {
		if err := (secretref.Grammar{}).Check(r); err != nil {
			f.Fatalf("seed %v: %v", r, err)
		}
		f.Add(string(r.Source), r.Provider, r.ID)
	}
	f.Fuzz(func(t *testing.T, source, provider, id string) {
		r := secretref.Ref{Source: secretref.Source(source), Provider: provider, ID: id}
		newest, old := secretref.Grammar{}.Check(r), secretref.Grammar{Compat: secretref.V2026_3_2}.Check(r)
		if newest == nil && old != nil && !strings.Contains(id, "#") {
			t.Errorf("%v is good by the newest rules alone", r)
		}
		if newest == nil && r.Source == secretref.Exec && (strings.Contains("/"+id+"/", "/../") || strings.ContainsAny(id, " @+=\n")) {
			t.Errorf("%v is good", r)
		}
	})
}

func FuzzDecodeConfig(f *testing.F) {
	for _, seed := range []string{
		`{"providers":{"p":{"source":"exec","command":"/opt/x","args":["a"],"env":{"A":"b"},"passEnv":["C"],"timeoutMs":1000,"jsonOnly":false,"trustedDirs":["/opt"]}}}`,
		`{"providers":{"f":{"source":"file","path":"~/x","mode":"singleValue","maxBytes":5}},"defaults":{"env":"a"}}`,
		`{"providers":{"e":{"source":"env","allowlist":["A"]},"s":{"source":"store"}},"egressProxy":{}}`,
	} {
		var v any
		if err := json.Unmarshal([]byte(seed), &v); err != nil {
			f.Fatalf("seed %s: %v", seed, err)
		}
		if _, err := secretref.DecodeConfig(v, secretref.Newest); err != nil {
			f.Fatalf("seed %s: %v", seed, err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var v any
		if json.Unmarshal([]byte(text), &v) != nil {
			return
		}
		for _, compat := range []secretref.Compat{secretref.Newest, secretref.V2026_3_2} {
			c, err := secretref.DecodeConfig(v, compat)
			if err != nil {
				if strings.ContainsAny(err.Error(), "\n\x1b") {
					t.Errorf("the error %q holds a control character", err)
				}
				continue
			}
			if c.Compat != compat {
				t.Errorf("Compat is %q, want %q", c.Compat, compat)
			}
			for name, p := range c.Providers {
				set := 0
				for _, member := range []bool{p.Env != nil, p.File != nil, p.Exec != nil} {
					if member {
						set++
					}
				}
				if want := 1; set != want && (p.Source != secretref.Store || set != 0) {
					t.Errorf("provider %q of source %q has %d members set", name, p.Source, set)
				}
			}
		}
	})
}

func FuzzPointer(f *testing.F) {
	for _, seed := range [][2]string{{`{"a":{"b":["x",{"c":1}]}}`, "/a/b/1/c"}, {`{"a/b":"v"}`, "/a~1b"}, {`{"":"v"}`, "/"}} {
		if _, err := secretref.FindInJSON([]byte(seed[0]), seed[1], secretref.Newest); err != nil {
			f.Fatalf("seed %v: %v", seed, err)
		}
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, text, pointer string) {
		if !json.Valid([]byte(text)) || !utf8.ValidString(text) {
			return
		}
		for _, compat := range []secretref.Compat{secretref.Newest, secretref.V2026_3_2} {
			got, err := secretref.FindInJSON([]byte(text), pointer, compat)
			want, ok := slowFind(text, pointer)
			if compat == secretref.V2026_3_2 && !ok {
				continue // it reads more texts as an index
			}
			if (err == nil) != ok {
				t.Fatalf("%s in %s: %v, want found %t", pointer, text, err, ok)
			}
			if err == nil && !sameJSON(got, want) {
				t.Errorf("%s in %s is %s, want %v", pointer, text, got, want)
			}
		}
	})
}

// slowFind follows a pointer through what encoding/json makes of the text.
func slowFind(text, pointer string) (any, bool) {
	var v any
	if json.Unmarshal([]byte(text), &v) != nil || !strings.HasPrefix(pointer, "/") {
		return nil, false
	}
	for _, segment := range strings.Split(pointer[1:], "/") {
		segment = strings.ReplaceAll(strings.ReplaceAll(segment, "~1", "/"), "~0", "~")
		switch at := v.(type) {
		case map[string]any:
			next, ok := at[segment]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			var index json.Number
			if json.Unmarshal([]byte(segment), &index) != nil || strings.ContainsAny(segment, "\"-.eE \t\r\n") {
				return nil, false
			}
			i, err := index.Int64()
			if err != nil || i >= int64(len(at)) {
				return nil, false
			}
			v = at[i]
		default:
			return nil, false
		}
	}
	return v, true
}

func sameJSON(text []byte, want any) bool {
	var got any
	if json.Unmarshal(text, &got) != nil {
		return false
	}
	a, errA := json.Marshal(got)
	b, errB := json.Marshal(want)
	return errA == nil && errB == nil && string(a) == string(b)
}

func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"protocolVersion":1,"values":{"a":"s3cret"},"errors":{"b":{"code":"NOT_FOUND","message":"x"}}}`,
		`{"protocolVersion":1,"values":{"a":{"k":[1]},"b":null},"errors":null}`,
	} {
		if _, err := secretref.ReadAnswer([]byte(seed), []string{"a", "b"}, false); err != nil {
			f.Fatalf("seed %s: %v", seed, err)
		}
		f.Add([]byte(seed), false)
	}
	f.Add([]byte("s3cret\n"), true)
	f.Fuzz(func(t *testing.T, printed []byte, text bool) {
		ids := []string{"a", "b"}
		if text {
			ids = ids[:1]
		}
		outcomes, err := secretref.ReadAnswer(printed, ids, text)
		if err == nil && len(outcomes) != len(ids) {
			t.Fatalf("%d outcomes of %d ids", len(outcomes), len(ids))
		}
		for _, o := range outcomes {
			if (o.Err == nil) == o.Value.IsZero() {
				t.Errorf("an outcome has error %v and value %t", o.Err, !o.Value.IsZero())
			}
			if value := o.Value.Reveal(); o.Value.IsJSON() && !json.Valid(value) || !utf8.Valid(value) {
				t.Errorf("%q is no good value", value)
			}
		}
	})
}
