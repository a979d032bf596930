package policy

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
)

// reference is the same language by Go's regular expressions.
func reference(pattern string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for _, part := range regexp.MustCompile(`\*+|\?|[^*?]+`).FindAllString(pattern, -1) {
		switch {
		case part == "*":
			b.WriteString(`[^/]*`)
		case part[0] == '*':
			b.WriteString(`.*`)
		case part == "?":
			b.WriteString(`[^/]`)
		default:
			b.WriteString(regexp.QuoteMeta(part))
		}
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}

func TestGlob(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern string
		yes, no []string
	}{
		{"*", []string{"a", "ab", "ü", "a*"}, []string{"/", "a/b", "/a"}},
		{"**", []string{"a", "a/b", "/", "/a/b/"}, nil},
		{"***", []string{"a/b"}, nil},
		{"?", []string{"a", "ü", "?"}, []string{"/", "ab", "é́"}},
		{"a*b*c", []string{"abc", "axbxbc", "abbc", "abcbc"}, []string{"ab", "a/bc", "abcx"}},
		{"a**b*c", []string{"a/x/bc", "abc", "a/b/b/bc"}, []string{"a/b/c", "ac"}},
		{"*/**", []string{"a/", "/", "a/b/c"}, []string{"a"}},
		{"**/x/*", []string{"/x/", "a/b/x/y", "a/x/x/y"}, []string{"x/y", "a/x/y/z"}},
		{"*?", []string{"a", "ab"}, []string{"/", "a/"}},
		{"ü*ß", []string{"üß", "ü€ß"}, []string{"ü", "\xc3\xbc"}},
		{"a.b+c(*", []string{"a.b+c(x"}, []string{"axb+c(x", "a.bbc(x"}},
		{"[ab]*", []string{"[ab]x"}, []string{"a", "bx"}},
		{`\*`, []string{`\x`}, []string{"*", "x"}},
	} {
		p, err := compile(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range tt.yes {
			if !p.glob(id) || !reference(tt.pattern).MatchString(id) {
				t.Errorf("%q does not match %q", tt.pattern, id)
			}
		}
		for _, id := range tt.no {
			if p.glob(id) || reference(tt.pattern).MatchString(id) {
				t.Errorf("%q matches %q", tt.pattern, id)
			}
		}
	}
}

// What takes a matcher that tries one way after the other longer than anybody waits.
func TestGlobIsQuickOnHostileInput(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	for _, tt := range [][2]string{
		{strings.Repeat("*a", 1000) + "b", strings.Repeat("a", 2048)},
		{strings.Repeat("**a", 680) + "b", strings.Repeat("a", 2048)},
		{strings.Repeat("*?", 1000) + "/", strings.Repeat("a", 2048)},
		{strings.Repeat("**/*", 500) + "b", strings.Repeat("a/", 1024)},
	} {
		p, err := compile(tt[0])
		if err != nil {
			t.Fatal(err)
		}
		if p.glob(tt[1]) {
			t.Errorf("%.20s… matches", tt[0])
		}
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestIsAmbiguous(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{
		"a": false, "a/b": false, "/a": false, "a/": false, "/": false, "a.b": false, ".a": false, "a..": false, "a/.b/..c": false, "...": false,
		".": true, "..": true, "a/.": true, "./a": true, "a/../b": true, "/..": true, "../": true, "a//b": true, "//a": true, "a//": true, "//": true,
		`a\b`: true, `..\a`: true, "%2e": true, "a%2Fb": true, "%": false, "%2": false, "100%": false, "%zz": false, "%%41": true, "%2%2f": true,
		"a%g0%0": false,
	} {
		if isAmbiguous(id) != want {
			t.Errorf("%q: %v", id, !want)
		}
	}
}

var (
	patternText = rapid.StringOfN(rapid.SampledFrom([]rune("ab/*?*.%\\ü4")), 1, 12, -1)
	idText      = rapid.StringOfN(rapid.SampledFrom([]rune("ab/a.%\\ü4")), 1, 12, -1)
)

func TestGlobIsTheReference(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text, id := patternText.Draw(t, "pattern"), idText.Draw(t, "id")
		p, err := compile(text)
		if err != nil {
			t.Fatal(err)
		}
		if p.literal {
			if strings.ContainsAny(text, "*?") {
				t.Fatalf("%q is literal", text)
			}
			return
		}
		if got, want := p.glob(id), reference(text).MatchString(id); got != want {
			t.Fatalf("%q on %q: %v", text, id, got)
		}
	})
}

// Nothing outside of the rules is ever allowed, and what is allowed stays inside after all that a store might do to an id.
func TestNothingElseIsAllowed(t *testing.T) {
	t.Parallel()
	field := rapid.SampledFrom([]string{"a", "b", "/a", "/a/b", "/b/c", "/a~1b", "a/b"})
	rapid.Check(t, func(t *rapid.T) {
		var rules []config.AllowRule
		for range rapid.IntRange(0, 3).Draw(t, "rules") {
			r := config.AllowRule{Provider: rapid.SampledFrom([]string{"app", "a*", "aws"}).Draw(t, "provider"), ID: patternText.Draw(t, "pattern")}
			r.Fields = rapid.SliceOfN(field, 0, 2).Draw(t, "fields")
			r.Whole = len(r.Fields) > 0 && rapid.Bool().Draw(t, "whole")
			rules = append(rules, r)
		}
		p, err := New(config.Serve{Consumers: []config.Consumer{{Name: "web", Allow: rules}}}, providers, 0)
		if err != nil {
			t.Fatal(err)
		}
		ref := credref.Ref{Provider: rapid.SampledFrom(providers).Draw(t, "of"), ID: idText.Draw(t, "id")}
		if rapid.Bool().Draw(t, "a field") {
			ref.Field = field.Draw(t, "field")
		}
		got := p.Named("web").Resolve(ref)
		want := false
		for _, r := range rules {
			want = want || allowedByReference(r, ref)
		}
		if got.Allowed != want {
			t.Fatalf("%+v, want %v", got, want)
		}
		if again := p.Named("web").Resolve(ref); again != got {
			t.Fatalf("%+v, remembered as %+v", got, again)
		}
	})
}

func allowedByReference(r config.AllowRule, ref credref.Ref) bool {
	if r.Provider != ref.Provider && !(strings.HasSuffix(r.Provider, "*") && strings.HasPrefix(ref.Provider, strings.TrimSuffix(r.Provider, "*"))) {
		return false
	}
	if r.ID != ref.ID {
		if !strings.ContainsAny(r.ID, "*?") || regexp.MustCompile(`(^|/)\.\.?(/|$)|//|\\|%[0-9a-fA-F]{2}`).MatchString(ref.ID) {
			return false
		}
		// Each way in which a store may read it.
		ids := []string{ref.ID}
		if !strings.HasPrefix(r.ID, "/") {
			ids = append(ids, strings.TrimPrefix(ref.ID, "/"))
		}
		if !strings.HasSuffix(r.ID, "/") {
			ids = append(ids, strings.TrimSuffix(ids[len(ids)-1], "/"))
		}
		for _, id := range []string{ids[0], ids[len(ids)-1]} {
			if !reference(r.ID).MatchString(id) {
				return false
			}
		}
	} else if strings.ContainsAny(r.ID, "*?") {
		panic("ids of this test have no wildcards")
	}
	if len(r.Fields) == 0 {
		return true
	}
	if ref.Field == "" {
		return r.Whole
	}
	pointer := func(f string) string {
		if strings.HasPrefix(f, "/") {
			return f + "/"
		}
		return "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(f) + "/"
	}
	for _, f := range r.Fields {
		if strings.HasPrefix(pointer(ref.Field), pointer(f)) {
			return true
		}
	}
	return false
}

func FuzzGlob(f *testing.F) {
	seeds := [][2]string{{"kv/app/*", "kv/app/db"}, {"**/x?*", "a/b/xü"}, {"*a*b**c", "aabb/c"}, {"?", "/"}}
	for _, s := range seeds {
		if _, err := compile(s[0]); err != nil {
			f.Fatalf("seed %q: %v", s, err)
		}
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, text, id string) {
		if (credref.Ref{Provider: "p", ID: id}).Validate() != nil {
			return
		}
		p, err := compile(text)
		if err != nil || p.literal {
			return
		}
		if len(text) > 200 || len(id) > 500 { // the reference is slow
			p.glob(id)
			return
		}
		if got, want := p.glob(id), reference(text).MatchString(id); got != want {
			t.Errorf("%q on %q: %v", text, id, got)
		}
	})
}
