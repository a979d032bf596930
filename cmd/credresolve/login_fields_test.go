//go:build unix

package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/internal/mototest"
)

const (
	formConfig   = "  form: {kind: static, fields: [{name: key}]}\n"
	apiKey       = "sk-key-c4nary-17"
	fieldsConfig = `  tool: {kind: static, fields: [{name: key, label: API key, help: begins with sk-, url: "https://tool.example/keys"}], check: {url: CHECK, headers: {Authorization: "Bearer {key}"}}}
  bank: {kind: static, type: user_value, fields: [{name: user, secret: false}, {name: pin}, {name: note, optional: true}]}
`
)

// checker takes apiKey alone.
func checker(t *testing.T) string {
	t.Helper()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+apiKey {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(service.Close)
	return service.URL
}

// What a provider asks for comes from standard input where there is no terminal, and never from the arguments.
func TestLoginWithFieldsFromInput(t *testing.T) {
	t.Parallel()
	url := checker(t)
	for name, c := range map[string]struct {
		args   []string
		stdin  string
		status int
		said   string
		get    map[string]string
	}{
		"all of it is one field":  {[]string{"tool"}, apiKey + "\n", 0, "logged in to tool, without an end; it is kept in provider tokens", map[string]string{"cred://tool/default": apiKey}},
		"under a name":            {[]string{"tool", "work"}, apiKey, 0, "logged in to tool work", map[string]string{"cred://tool/work": apiKey}},
		"a ref in the place":      {[]string{"cred://tool/work"}, apiKey, 0, "logged in to tool work", map[string]string{"cred://tool/work": apiKey}},
		"a line each":             {[]string{"bank"}, "alice\n12 34-c4nary\n\n", 0, "logged in to bank", map[string]string{"cred://bank/default#user": "alice", "cred://bank/default#pin": "12 34-c4nary"}},
		"a line each, and no end": {[]string{"bank"}, "alice\r\n1-c4nary", 0, "logged in to bank", map[string]string{"cred://bank/default#pin": "1-c4nary"}},
		"an object":               {[]string{"--json", "bank"}, `{"pin": "1\n2-c4nary", "user": "alice"}`, 0, "logged in to bank", map[string]string{"cred://bank/default#pin": "1\n2-c4nary"}},
		"nothing":                 {[]string{"tool"}, "", 2, "standard input has no value for API key; nothing was stored", nil},
		"too few lines":           {[]string{"bank"}, "alice\n", 2, "standard input has no value for pin", nil},
		"no object":               {[]string{"--json", "bank"}, `["c4nary"]`, 2, "not one JSON object", nil},
		"an object without it":    {[]string{"--json", "bank"}, `{"user": "x-c4nary"}`, 2, "no member pin", nil},
		"too many lines":          {[]string{"bank"}, "alice\n1-c4nary\nnote\n2-c4nary", 2, "more lines than fields", nil},
		"an object with more":     {[]string{"--json", "bank"}, `{"user": "x", "pin": "1-c4nary", "n0te-c4nary": "2"}`, 2, "not asked for", nil},
		"blank":                   {[]string{"bank"}, " \nc4nary\n", 2, "user is blank", nil},
		"refused":                 {[]string{"tool"}, "another-c4nary", 4, "tool: ", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t, strings.ReplaceAll(fieldsConfig, "CHECK", `"`+url+`"`))
			out, said := d.run(c.status, c.stdin, append([]string{"-v", "login"}, c.args...)...)
			if !strings.Contains(said, c.said) || out != "" || strings.Contains(said, canary) {
				t.Errorf("it prints %q and says %s", out, said)
			}
			for ref, want := range c.get {
				if got, _ := d.run(0, "", "get", ref); got != want {
					t.Errorf("%s gives %q", ref, got)
				}
			}
			if c.get == nil {
				if out, _ := d.run(0, "", "whoami", "--output", "json"); strings.TrimSpace(out) != "[]" {
					t.Errorf("something was stored: %s", out)
				}
			}
		})
	}
}

// What a server sends unasked may be anything, and is not shown.
func TestServerThatSendsWhatNobodyAskedFor(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "  app: {kind: memory, values: {k: v}}\n")
	if err := os.Mkdir(filepath.Join(d.dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(d.dir, "run", "sock")) // in the place of a sidecar
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := os.Chmod(filepath.Join(d.dir, "run", "sock"), 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, strings.Repeat("c4nary\n", 1000))
			_ = c.Close()
		}
	}()
	for range 30 {
		if got, said := d.run(0, "", "-v", "get", "cred://app/k"); got != "v" || strings.Contains(said, canary) {
			t.Fatalf("it prints %q and said %s", got, said)
		}
	}
}

// A sidecar that takes connections and never answers is told of, and the logins all the same.
func TestStatusOfASidecarThatHangs(t *testing.T) {
	t.Parallel()
	d := newDesk(t, formConfig)
	d.run(0, "k", "login", "form")
	if err := os.Mkdir(filepath.Join(d.dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(d.dir, "run", "sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := os.Chmod(filepath.Join(d.dir, "run", "sock"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, said := d.run(6, "", "status"); !strings.Contains(out, "form") || !strings.Contains(said, "the sidecar did not answer within 10s") {
		t.Errorf("it prints %s and said %s", out, said)
	}
}

// On a terminal each field is asked for, secrets without being shown.
func TestLoginWithFieldsOnATerminal(t *testing.T) {
	t.Parallel()
	d := newDesk(t, strings.ReplaceAll(fieldsConfig, "CHECK", `"`+checker(t)+`"`))
	s := startOnTerminal(t, d.dir, d.env, "credresolve", "login", "tool")
	s.expect(`API key: begins with sk-\r\n`)
	s.expect(`see https://tool.example/keys\r\n`)
	s.expect(`API key: `)
	s.enter("\r")
	s.expect(`API key is needed\r\n.*API key: `)
	s.enter(apiKey + "\r")
	s.expect("logged in to tool")
	s.wantStatus(0)
	if strings.Contains(s.text(), canary) || !echoes(t, s.tty) {
		t.Errorf("the terminal shows %q", s.text())
	}

	s = startOnTerminal(t, d.dir, d.env, "credresolve", "login", "bank")
	s.expect(`user: `)
	s.enter(" \r")
	s.expect(`pin: `)
	s.enter("1-c4nary\r")
	s.expect(`note \(may be left empty\): `)
	s.enter("\r")
	s.expect(`user is blank`) // it is asked for again
	s.expect(`user: `)
	s.enter("alice\r")
	s.expect(`pin: `)
	s.enter("2-c4nary\r")
	s.expect(`note \(may be left empty\): `)
	s.enter("\r")
	s.wantStatus(0)
	if strings.Contains(s.text(), canary) || !strings.Contains(s.text(), "alice") {
		t.Errorf("the terminal shows %q", s.text())
	}
	if got, _ := d.run(0, "", "get", "cred://bank/default#pin"); got != "2-c4nary" {
		t.Errorf("stored is %q", got)
	}

	for name, c := range map[string]struct {
		key    string
		status int
	}{"the end": {"\x04", 2}, "^C": {"\x03", 130}} {
		s = startOnTerminal(t, d.dir, d.env, "credresolve", "login", "tool", "other")
		s.expect(`API key: .*\r\n.*\r\n.*API key: |API key: $`)
		s.enter(c.key)
		s.wantStatus(c.status)
		if !echoes(t, s.tty) {
			t.Errorf("%s: the terminal does not show what is typed any more", name)
		}
		d.run(8, "", "whoami", "tool", "other")
	}

	// Nothing tells the service: it is said that the key stays in force.
	if out, said := d.run(0, "", "logout", "--all", "--output", "json"); strings.Count(out, `"revoked": false`) != 2 || strings.Count(said, "the store cannot be told") != 2 {
		t.Errorf("logout: %s %s", out, said)
	}
	if out, _ := d.run(0, "", "whoami", "--output", "json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("left are %s", out)
	}
}

// A one-time code of an MFA device, against AWS's API.
func TestLoginWithAOneTimeCode(t *testing.T) {
	t.Parallel()
	moto := mototest.New(t)
	d := newDesk(t, `  aws: {kind: sts, region: eu-west-1, endpoint: "`+moto.URL+`", access_key_id: AKIAIOSFODNN7EXAMPLE, secret_access_key: {provider: key, id: value}, mfa_serial: "arn:aws:iam::123456789012:mfa/me"}
  plain: {kind: sts, region: eu-west-1, endpoint: "`+moto.URL+`", access_key_id: AKIAIOSFODNN7EXAMPLE, secret_access_key: {provider: key, id: value}}
`)
	if _, said := d.run(8, "", "get", "cred://aws/session#access_key_id"); !strings.Contains(said, "credresolve login aws session") {
		t.Errorf("get says %s", said)
	}
	d.run(0, "123456\n", "login", "aws", "session")
	if out, _ := d.run(0, "", "get", "cred://aws/session#access_key_id"); len(out) != 20 {
		t.Errorf("get prints %q", out)
	}
	if out, _ := d.run(0, "", "whoami", "aws", "session"); !regexp.MustCompile(`(?m)^until +20`).MatchString(out) {
		t.Errorf("whoami prints %s", out)
	}
	role := "arn:aws:iam::123456789012:role/reader"
	out, said := d.run(0, "", "whoami", "plain", role)
	if !regexp.MustCompile(`(?m)^arn +arn:aws:sts::123456789012:assumed-role/reader/`).MatchString(out) || strings.Contains(out+said, "ASIA") {
		t.Errorf("whoami prints %s (%s)", out, said)
	}
}
