package server

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/resolver"
)

// An answer is what encoding/json makes of it, and fits into the room that was reserved: a buffer that grows leaves copies behind.
func TestAnswersFitIntoTheirRoom(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("\"\u2028é", 400)
	login := &backend.LoginState{URL: "https://login.example/?" + strings.Repeat("<&>", 300), UserCode: "AB-CD", State: strings.Repeat("s", 128), Expires: time.Now()}
	failed := &backend.Error{Code: backend.CodeAuthRequired, Reason: long, RetryAfter: time.Minute, Login: login}
	ref := refOf("cred://p/x")
	value := func(f resolver.ValueFacts) *resolver.Value {
		f.Secret, f.Type, f.Revision = backend.NewSecretString(long), backend.TypeToken, "0123456789abcdef0123456789abcdef"
		return resolver.NewValue(f)
	}
	for name, a := range map[string]answer{
		"a value":           {ref: ref, value: value(resolver.ValueFacts{})},
		"one with metadata": {ref: ref, value: value(resolver.ValueFacts{Metadata: map[string]string{long: long}, Stale: true})},
		"one not refreshed": {ref: ref, value: value(resolver.ValueFacts{RefreshError: failed})},
		"a failure":         {ref: ref, err: failed},
	} {
		reserved := room(&a)
		got := appendResult(nil, &a)
		if len(got) > reserved {
			t.Errorf("%s: %d bytes, of which %d were reserved", name, len(got), reserved)
		}
		var ours, theirs any
		want, err := json.Marshal(client.NewResult(resolver.Outcome{Ref: a.ref, Value: a.value, Err: a.err}))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(got, &ours); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := json.Unmarshal(want, &theirs); err != nil {
			t.Fatal(err)
		}
		if a, b := mustJSON(t, ours), mustJSON(t, theirs); a != b {
			t.Errorf("%s:\n%s\nand encoding/json has\n%s", name, a, b)
		}
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
