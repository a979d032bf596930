package static_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/static"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
	"github.com/credresolve/credresolve/internal/conformancetest"
)

const canary = "c4nary"

var account = backend.Request{ID: "work"}

func open(t *testing.T, c static.Config) *static.Backend {
	t.Helper()
	b, err := static.New(c, backend.Host{Provider: "openai"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func entered(pairs ...string) map[string]backend.Secret {
	input := map[string]backend.Secret{}
	for i := 0; i < len(pairs); i += 2 {
		input[pairs[i]] = backend.NewSecretString(pairs[i+1])
	}
	return input
}

// login submits input to a login of its own.
func login(t *testing.T, b *static.Backend, input map[string]backend.Secret) (backend.LoginState, error) {
	t.Helper()
	s, err := b.StartLogin(t.Context(), account, backend.LoginOptions{})
	if err != nil || s.Status != backend.LoginPending {
		t.Fatalf("%+v, %v", s, err)
	}
	return b.SubmitLogin(t.Context(), s.State, input)
}

func fails(t *testing.T, err error, code backend.Code, tells string) {
	t.Helper()
	if backend.CodeOf(err) != code || !strings.Contains(fmt.Sprint(err), tells) {
		t.Errorf("%v (%s), want %s that tells %q", err, backend.CodeOf(err), code, tells)
	}
	if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), canary) {
		t.Errorf("the error shows too much: %v", err)
	}
}

func TestLoginByForm(t *testing.T) {
	t.Parallel()
	no := false
	b := open(t, static.Config{Type: "user_value", Fields: []static.Field{
		{Name: "user", Label: "User", Secret: &no}, {Name: "pin", Help: "on the card", URL: "https://bank.example/pin"}, {Name: "note", Optional: true},
	}})
	_, err := b.Get(t.Context(), account)
	fails(t, err, backend.CodeAuthRequired, "credresolve login openai work")
	s, err := b.StartLogin(t.Context(), account, backend.LoginOptions{})
	want := []backend.LoginField{
		{Name: "user", Label: "User"}, {Name: "pin", Help: "on the card", URL: "https://bank.example/pin", Secret: true}, {Name: "note", Secret: true, Optional: true},
	}
	if err != nil || fmt.Sprint(s.Fields) != fmt.Sprint(want) {
		t.Fatalf("%+v, %v", s, err)
	}
	_, err = b.SubmitLogin(t.Context(), s.State, entered("user", " ", "pin", "[__HIDDEN__]", "note", "******"))
	fails(t, err, backend.CodeUsage, "user is blank; pin is the mark that stands in the place of a hidden value; note is the mark")
	s, err = b.SubmitLogin(t.Context(), s.State, entered("user", "alice", "pin", " 12 34 \r\n"))
	if err != nil || s.Status != backend.LoginSuccess {
		t.Fatalf("%+v, %v", s, err)
	}
	c := s.Grant.Credential
	if c.Type != backend.TypeUserValue || len(c.Fields) != 2 || string(c.Fields["user"].Reveal()) != "alice" || string(c.Fields["pin"].Reveal()) != " 12 34 " {
		t.Errorf("%+v", c)
	}
	if err := b.ProbeCredential(t.Context(), account, c); backend.CodeOf(err) != backend.CodeUnsupported {
		t.Errorf("without a check: %v", err)
	}
}

func TestOneField(t *testing.T) {
	t.Parallel()
	s, err := login(t, open(t, static.Config{}), entered("value", "sk-1"))
	if err != nil || s.Grant == nil {
		t.Fatalf("%+v, %v", s, err)
	}
	if c := s.Grant.Credential; c.Type != backend.TypeAPIKey || string(c.Secret.Reveal()) != "sk-1" || c.Fields != nil || !c.Expires.IsZero() {
		t.Errorf("%+v", c)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	var status, calls atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer other.Close()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		if r.Header.Get("Authorization") != "Bearer sk-"+canary || r.URL.RawQuery != "" {
			t.Errorf("asked with %v", r.Header)
		}
		w.Header().Set("Location", other.URL)
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(int(status.Load()))
		fmt.Fprint(w, canary)
	}))
	defer service.Close()
	config := static.Config{Check: static.Check{URL: service.URL, Headers: map[string]string{"Authorization": "Bearer {value}"}}}
	for _, tt := range []struct {
		status int
		code   backend.Code
		tells  string
		ends   bool // the login
	}{
		{200, backend.CodeOK, "", true}, {204, backend.CodeOK, "", true},
		{401, backend.CodeDenied, "refuses what was entered", true}, {403, backend.CodeDenied, "refuses", true},
		{404, backend.CodeDenied, "status 404", true}, {302, backend.CodeInvalidConfig, "redirects", true},
		{429, backend.CodeThrottled, "too many", false}, {500, backend.CodeUnavailable, "status 500", false},
	} {
		status.Store(int64(tt.status))
		b := open(t, config)
		s, err := login(t, b, entered("value", "sk-"+canary))
		switch {
		case tt.code == backend.CodeOK:
			if err != nil || s.Status != backend.LoginSuccess || s.Grant == nil {
				t.Errorf("%d: %+v, %v", tt.status, s, err)
			}
		case tt.ends:
			if err != nil || s.Status != backend.LoginError || !strings.Contains(s.Message, tt.tells) || strings.Contains(s.Message, canary) || s.Grant != nil {
				t.Errorf("%d: %+v, %v", tt.status, s, err)
			}
		default:
			fails(t, err, tt.code, tt.tells)
		}
		err = b.ProbeCredential(t.Context(), account, &backend.Credential{Secret: backend.NewSecretString("sk-" + canary)})
		if tt.code == backend.CodeOK && err != nil || tt.code != backend.CodeOK && backend.CodeOf(err) != tt.code {
			t.Errorf("%d: probed %v", tt.status, err)
		}
		if tt.status == 429 && backend.RetryAfter(err) != 7*time.Second {
			t.Errorf("wait %v", backend.RetryAfter(err))
		}
	}
	before := calls.Load()
	_, err := login(t, open(t, config), entered("value", "sk-\n"+canary))
	fails(t, err, backend.CodeUsage, "control character")
	if calls.Load() != before {
		t.Error("a value that breaks the header was sent")
	}
	service.Close()
	_, err = login(t, open(t, config), entered("value", "sk-"+canary))
	fails(t, err, backend.CodeUnavailable, "the check at")
}

// A check that is never answered ends, and leaves the login as it was: what was entered may be good.
func TestCheckWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	service := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer service.Close()
	b := open(t, static.Config{Check: static.Check{URL: service.URL, Headers: map[string]string{"X-Key": "{value}"}, Timeout: 50 * time.Millisecond}})
	s, err := b.StartLogin(t.Context(), account, backend.LoginOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.SubmitLogin(t.Context(), s.State, entered("value", "sk-"+canary))
	fails(t, err, backend.CodeUnavailable, "no answer in time")
	if now, err := b.PollLogin(t.Context(), s.State); err != nil || now.Status != backend.LoginPending || now.Grant != nil {
		t.Errorf("%+v, %v", now, err)
	}
}

// A header of an optional field that was left empty is not sent.
func TestCheckWithoutAnOptionalField(t *testing.T) {
	t.Parallel()
	var got http.Header
	service := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header }))
	defer service.Close()
	b := open(t, static.Config{
		Fields: []static.Field{{Name: "key"}, {Name: "org", Optional: true}},
		Check:  static.Check{URL: service.URL, Headers: map[string]string{"X-Key": "{key}", "X-Org": "org {org}"}},
	})
	if s, err := login(t, b, entered("key", "k")); err != nil || s.Status != backend.LoginSuccess {
		t.Fatalf("%+v, %v", s, err)
	}
	if _, sent := got["X-Org"]; sent || got.Get("X-Key") != "k" {
		t.Errorf("asked with %v", got)
	}
	if _, err := login(t, b, entered("key", "k", "org", "o")); err != nil || got.Get("X-Org") != "org o" {
		t.Errorf("asked with %v, %v", got, err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	headers := map[string]string{"X-Key": "{value}"}
	for tells, c := range map[string]static.Config{
		"type is":            {Type: "oauth2"},
		"name of a field":    {Fields: []static.Field{{Name: "a b"}}},
		"two fields":         {Fields: []static.Field{{Name: "a"}, {Name: "a"}}},
		"every field is":     {Fields: []static.Field{{Name: "a", Optional: true}}},
		"the url of a":       {Fields: []static.Field{{Name: "a", URL: "javascript:alert(1)"}}},
		"over 64":            {Fields: make([]static.Field, 65)},
		"check.url is missi": {Check: static.Check{Method: "GET"}},
		"not an https":       {Check: static.Check{URL: "http://service.example", Headers: headers}},
		"holds a brace":      {Check: static.Check{URL: "https://service.example/{value}", Headers: headers}},
		"check.method":       {Check: static.Check{URL: "https://service.example", Method: "PUT", Headers: headers}},
		"check.headers is":   {Check: static.Check{URL: "https://service.example"}},
		"is no header":       {Check: static.Check{URL: "https://service.example", Headers: map[string]string{"a b": "{value}"}}},
		"is not one":         {Check: static.Check{URL: "https://service.example", Headers: map[string]string{"X": "{key}"}}},
		"check.status":       {Check: static.Check{URL: "https://service.example", Headers: headers, Status: []int{401}}},
		"check.timeout":      {Check: static.Check{URL: "https://service.example", Headers: headers, Timeout: time.Hour}},
	} {
		_, err := static.New(c, backend.Host{})
		fails(t, err, backend.CodeInvalidConfig, tells)
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	b := open(t, static.Config{})
	for _, id := range []string{"", "a\x00", "a\tb", "\xff", strings.Repeat("a", 257)} {
		_, err := b.StartLogin(t.Context(), backend.Request{ID: id}, backend.LoginOptions{})
		fails(t, err, backend.CodeInvalidID, "")
	}
	_, err := b.Get(t.Context(), backend.Request{ID: "a", Version: "1"})
	fails(t, err, backend.CodeUnsupported, "versions")
}

// A person makes the values: nothing is put, so that the cases about what was put do not apply.
func TestConformance(t *testing.T) {
	conformancetest.Run(t, "static", conformance.Harness{
		Open: func(t conformance.T, _ *conformance.Dialer) backend.Backend {
			b, err := static.New(static.Config{}, backend.Host{})
			if err != nil {
				t.Fatalf("opening: %v", err)
			}
			return b
		},
		InvalidIDs: []string{"", "a\x00", strings.Repeat("a", 257)},
	})
}
