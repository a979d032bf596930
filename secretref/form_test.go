package secretref

import (
	"regexp"
	"testing"

	"pgregory.net/rapid"
)

// The forms take what their regular expressions take.
func TestForms(t *testing.T) {
	t.Parallel()
	for _, f := range []form{aliasForm, nameForm, execForm, oldExecForm} {
		want := regexp.MustCompile(f.pattern)
		rapid.Check(t, func(t *rapid.T) {
			s := rapid.OneOf(
				rapid.StringMatching(`[A-Za-z0-9._:/#\-]{0,8}`), rapid.String(), rapid.StringMatching(`[aA]{60,66}|[A]{126,130}|[a0]{254,258}`), rapid.StringMatching(f.pattern),
			).Draw(t, "text")
			if got := f.matches(s); got != want.MatchString(s) {
				t.Fatalf("%s: %q: %v", f, s, got)
			}
		})
	}
}
