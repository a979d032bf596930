package vectors_test

import (
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/conformance/vectors"
)

// roles are those that README.md explains.
var roles = []string{
	"present", "second", "missing", "object", "empty", "white-space", "unicode", "quotes", "large",
	"denied", "invalid", "locked", "unavailable", "throttled", "logged-out", "expired",
}

func TestLoad(t *testing.T) {
	t.Parallel()
	vs, err := vectors.Load()
	if err != nil || len(vs) == 0 {
		t.Fatalf("%d vectors, %v", len(vs), err)
	}
	before := make(map[string]bool)
	subjects := make(map[string]bool)
	used := make(map[string]bool)
	for _, v := range vs {
		subject, about, ok := strings.Cut(v.Name, "/")
		if !ok || about == "" || before[v.Name] || strings.HasSuffix(v.Rule, ".") {
			t.Errorf("%q is no name, stands twice, or its rule ends in a full stop", v.Name)
		}
		for _, need := range v.Needs {
			if !before[need] {
				t.Errorf("%s needs %q, which does not come before it", v.Name, need)
			}
		}
		for _, role := range v.Roles() {
			used[role] = true
			if !slices.Contains(roles, role) {
				t.Errorf("%s has the role %q", v.Name, role)
			}
		}
		for _, a := range v.Expect.Answers {
			if a.Value != "" && !slices.Contains(roles, a.Value) {
				t.Errorf("%s expects the value of %q", v.Name, a.Value)
			}
		}
		before[v.Name], subjects[subject] = true, true
	}
	for _, role := range roles {
		if !used[role] {
			t.Errorf("no vector has the role %q", role)
		}
	}
	files, err := fs.Glob(os.DirFS("."), "*.json")
	if err != nil || len(files) != len(subjects) {
		t.Errorf("%d files for %d subjects, %v: is one not read?", len(files), len(subjects), err)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"another format":   `{"format": 2, "vectors": []}`,
		"no format":        `{"vectors": []}`,
		"an unknown key":   `{"format": 1, "vectors": [{"name": "a/b", "rule": "r", "sends": {}}]}`,
		"two values":       `{"format": 1, "vectors": []} {}`,
		"no rule":          `{"format": 1, "vectors": [{"name": "a/b", "expect": {"exit": "any"}}]}`,
		"no exit":          `{"format": 1, "vectors": [{"name": "a/b", "rule": "r"}]}`,
		"too few answers":  `{"format": 1, "vectors": [{"name": "a/b", "rule": "r", "send": {"ids": [{"text": "x"}]}, "expect": {"exit": "any", "answers": []}}]}`,
		"an id of no form": `{"format": 1, "vectors": [{"name": "a/b", "rule": "r", "send": {"ids": [{}]}, "expect": {"exit": "any"}}]}`,
		"an empty answer":  `{"format": 1, "vectors": [{"name": "a/b", "rule": "r", "send": {"ids": [{"text": "x"}]}, "expect": {"exit": "any", "answers": [{}]}}]}`,
	} {
		if vs, err := vectors.Parse([]byte(text)); err == nil {
			t.Errorf("%s: %d vectors and no error", name, len(vs))
		}
	}
}
