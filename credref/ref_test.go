package credref_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/credref"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want credref.Ref
	}{
		{"cred://app/kv/app/db", credref.Ref{Provider: "app", ID: "kv/app/db"}},
		{"cred://app/kv/app/db#password", credref.Ref{Provider: "app", ID: "kv/app/db", Field: "password"}},
		{"cred://app/kv/app/db?version=3#/a/b~1c", credref.Ref{Provider: "app", ID: "kv/app/db", Version: "3", Field: "/a/b~1c"}},
		{"cred://aws/a%20b%3Fc%23d%25", credref.Ref{Provider: "aws", ID: "a b?c#d%"}},
		{"cred://conf//db/password", credref.Ref{Provider: "conf", ID: "/db/password"}},
		{"cred://desk/%3Fserver=x&user=y", credref.Ref{Provider: "desk", ID: "?server=x&user=y"}},
		{"cred://aws/arn:aws:secretsmanager:eu-west-1:1:secret:x?version=stage:AWSPREVIOUS", credref.Ref{Provider: "aws", ID: "arn:aws:secretsmanager:eu-west-1:1:secret:x", Version: "stage:AWSPREVIOUS"}},
		{"cred://aws/x?version=a%26b=c", credref.Ref{Provider: "aws", ID: "x", Version: "a&b=c"}},
		{"cred://p/schlüssel", credref.Ref{Provider: "p", ID: "schlüssel"}},
	} {
		got, err := credref.Parse(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
			continue
		}
		again, err := credref.Parse(got.String())
		if err != nil || again != got {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", got.String(), again, err, got)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const canary = "c4nary"
	for _, in := range []string{
		"", canary, "cred:", "cred://", "cred:///id", "cred://app", "cred://app/", "CRED://app/x", "cred://App/x", "cred://1app/x",
		"cred://app/%zz" + canary, "cred://app/%", "cred://app/x?" + canary, "cred://app/x?version=", "cred://app/x?version=1&version=2",
		"cred://app/x?field=a", "cred://app/x#", "cred://app/x#/a~2" + canary, "cred://app/x#/a~", "cred://app/a%00" + canary, "cred://app/a\n",
		"cred://app/%ff", "cred://app/%C2%85", "cred://" + strings.Repeat("a", 65) + "/x", "cred://app/" + strings.Repeat("x", 2049),
	} {
		_, err := credref.Parse(in)
		if !errors.Is(err, credref.ErrMalformed) {
			t.Errorf("Parse(%q) gave %v, want ErrMalformed", in, err)
		} else if strings.Contains(err.Error(), canary) {
			t.Errorf("Parse(%q): the error repeats the input: %v", in, err)
		}
	}
}

func TestLimitsAreInclusive(t *testing.T) {
	r := credref.Ref{Provider: strings.Repeat("a", 64), ID: strings.Repeat("x", 2048)}
	if err := r.Validate(); err != nil {
		t.Error(err)
	}
}

// A MarshalText method would turn the JSON object into a string.
func TestRefIsAJSONObject(t *testing.T) {
	b, err := json.Marshal(credref.Ref{Provider: "p", ID: "x"})
	if err != nil || b[0] != '{' {
		t.Errorf("json.Marshal = %s, %v; want an object", b, err)
	}
}

func TestSubjectTravelsInContext(t *testing.T) {
	want := credref.Subject{Tenant: "t", Session: "s"}
	if got := credref.SubjectFrom(credref.WithSubject(context.Background(), want)); got != want {
		t.Errorf("SubjectFrom = %+v, want %+v", got, want)
	}
	if got := credref.SubjectFrom(context.Background()); !got.IsZero() {
		t.Errorf("SubjectFrom = %+v, want the zero Subject", got)
	}
	if err := (credref.Subject{EndUser: "a\x00"}).Validate(); !errors.Is(err, credref.ErrMalformed) {
		t.Errorf("Validate = %v, want ErrMalformed", err)
	}
}

func FuzzParse(f *testing.F) {
	seeds := []string{"cred://app/kv/app/db?version=3#password", "cred://a/%3Fx=y&z=%20", "cred://a//p#/a~1b", "cred://p/ü"}
	for _, s := range seeds {
		if _, err := credref.Parse(s); err != nil {
			f.Fatalf("seed %q: %v", s, err)
		}
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := credref.Parse(s)
		if err != nil {
			return
		}
		if again, err := credref.Parse(r.String()); err != nil || again != r {
			t.Fatalf("%q: Parse(%q) = %+v, %v; want %+v", s, r.String(), again, err, r)
		}
	})
}

func FuzzString(f *testing.F) {
	f.Add("app", "kv/db", "3", "/a~1b")
	f.Fuzz(func(t *testing.T, provider, id, version, field string) {
		r := credref.Ref{Provider: provider, ID: id, Version: version, Field: field}
		if r.Validate() != nil {
			return
		}
		if again, err := credref.Parse(r.String()); err != nil || again != r {
			t.Fatalf("Parse(%q) = %+v, %v; want %+v", r.String(), again, err, r)
		}
	})
}
