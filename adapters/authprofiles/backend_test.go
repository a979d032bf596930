//go:build unix

package authprofiles_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/authprofiles"
	"github.com/credresolve/credresolve/backend"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	return dir
}

const canary = "hunter2-c4nary"

func open(t *testing.T, c authprofiles.Config) backend.Backend {
	t.Helper()
	b, err := authprofiles.New(c, backend.Host{})
	must(t, err)
	return b
}

// profiles writes an agent's auth-profiles.json below a state directory.
func profiles(t *testing.T, state, agent, text string) string {
	t.Helper()
	path := filepath.Join(state, "agents", agent, "agent", "auth-profiles.json")
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func show(c *backend.Credential) string {
	s := string(c.Type) + " " + string(c.Secret.Reveal())
	for _, name := range slices.Sorted(maps.Keys(c.Fields)) {
		s += " " + name + "=" + string(c.Fields[name].Reveal())
	}
	return s
}

func TestProfiles(t *testing.T) {
	t.Parallel()
	const future, past = "4102444800000", "1000"
	for _, tt := range []struct {
		name, profile, want string
		err                 error
		text                string
	}{
		{"api key", `{"type":"api_key","provider":"openai","key":"k","email":"e@x"}`, "api_key k", nil, ""},
		{"white space is kept", `{"type":"api_key","provider":"openai","key":" k\n"}`, "api_key  k\n", nil, ""},
		{"an older spelling", `{"mode":"api_key","provider":"openai","apiKey":"k"}`, "api_key k", nil, ""},
		{"another older spelling", `{"type":"apiKey","provider":"OpenAI ","key":"k"}`, "api_key k", nil, ""},
		{"a key of JSON", `{"type":"api_key","provider":"g","key":"{\"a\":\"b\"}"}`, `api_key {"a":"b"} a=b`, nil, ""},
		{"no key", `{"type":"api_key","provider":"openai"}`, "", backend.ErrNotFound, "missing_credential"},
		{"a blank key", `{"type":"api_key","provider":"openai","key":" \n"}`, "", backend.ErrNotFound, "missing_credential"},
		{"a key of another type", `{"type":"api_key","provider":"openai","key":7}`, "", backend.ErrNotFound, "missing_credential"},
		{"a mask", `{"type":"api_key","provider":"openai","key":"__OPENCLAW_REDACTED__"}`, "", backend.ErrNotFound, "redaction"},
		{"a ref", `{"type":"api_key","provider":"openai","key":"` + canary + `","keyRef":{"source":"exec","provider":"vault","id":"a/b"}}`, "", errors.ErrUnsupported, "exec:vault:a/b"},
		{"a ref back here", `{"type":"token","provider":"openai","tokenRef":{"source":"exec","provider":"credresolve","id":"claw/x"}}`, "", errors.ErrUnsupported, "loop"},
		{"a ref in the place of the key", `{"type":"api_key","provider":"openai","key":{"source":"env","provider":"default","id":"KEY"}}`, "", errors.ErrUnsupported, "env:default:KEY"},
		{"a legacy ref", `{"type":"api_key","provider":"openai","keyRef":{"source":"env","id":"KEY"}}`, "", errors.ErrUnsupported, "env::KEY"},
		{"a shorthand", `{"type":"api_key","provider":"openai","key":"${OPENAI_API_KEY}"}`, "", errors.ErrUnsupported, "OPENAI_API_KEY"},
		{"the other shorthand", `{"type":"api_key","provider":"openai","key":"$OPENAI_API_KEY"}`, "", errors.ErrUnsupported, "OPENAI_API_KEY"},
		{"no shorthand", `{"type":"api_key","provider":"openai","key":"$lower"}`, "api_key $lower", nil, ""},
		{"no ref", `{"type":"api_key","provider":"openai","key":"k","keyRef":{"source":"env","provider":"default","id":"KEY","more":1}}`, "api_key k", nil, ""},
		{"a token", `{"type":"token","provider":"github","token":"t"}`, "token t", nil, ""},
		{"a token with an end", `{"type":"token","provider":"github","token":"t","expires":` + future + `}`, "token t", nil, ""},
		{"a token past its end", `{"type":"token","provider":"github","token":"` + canary + `","expires":` + past + `}`, "", backend.ErrExpired, "(expired)"},
		{"an end of another type", `{"type":"token","provider":"github","token":"` + canary + `","expires":"soon"}`, "", backend.ErrExpired, "invalid_expires"},
		{"an end too late", `{"type":"token","provider":"github","token":"` + canary + `","expires":8640000000000001}`, "", backend.ErrExpired, "invalid_expires"},
		{"an end of zero", `{"type":"token","provider":"github","token":"` + canary + `","expires":0}`, "", backend.ErrExpired, "invalid_expires"},
		{"a ref does not hide the end", `{"type":"token","provider":"github","tokenRef":{"source":"env","provider":"default","id":"KEY"},"expires":` + past + `}`, "", errors.ErrUnsupported, "env:default:KEY"},
		{"oauth", `{"type":"oauth","provider":"openai","access":"a","refresh":"` + canary + `","idToken":"` + canary + `","expires":` + future + `,"accountId":"acc","secretNew":"` + canary + `"}`,
			"oauth2 a access=a accountId=acc expires=" + future, nil, ""},
		{"oauth past its end", `{"type":"oauth","provider":"openai","access":"` + canary + `","refresh":"` + canary + `","expires":` + past + `}`, "", backend.ErrExpired, "OpenClaw refreshes"},
		{"oauth in refresh", `{"type":"oauth","provider":"openai","access":"openclaw-oauth-refresh-fence:v1:` + strings.Repeat("a", 32) + `:access:` + strings.Repeat("b", 64) + `","refresh":"x","expires":1}`, "", backend.ErrUnavailable, "refreshing"},
		{"oauth whose refresh failed", `{"type":"oauth","provider":"openai","access":"openclaw-oauth-refresh-fence:v1:` + strings.Repeat("a", 32) + `:failed:access:` + strings.Repeat("b", 64) + `","refresh":"x","expires":1}`, "", backend.ErrAuthRequired, "sign in"},
		{"an unknown type", `{"type":"aws-sdk","provider":"amazon"}`, "", backend.ErrNotFound, "no such"},
		{"no provider", `{"type":"api_key","key":"` + canary + `"}`, "", backend.ErrNotFound, "no such"},
		{"no object", `"` + canary + `"`, "", backend.ErrNotFound, "no such"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			state := tempDir(t)
			profiles(t, state, "main", `{"version":1,"profiles":{"p:x":`+tt.profile+`}}`)
			c, err := open(t, authprofiles.Config{StateDir: state}).Get(t.Context(), backend.Request{ID: "p:x"})
			if tt.err != nil {
				if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), canary) {
					t.Errorf("%v, want %v with %q", err, tt.err, tt.text)
				}
				return
			}
			must(t, err)
			if got := show(c); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if hasEnd := strings.Contains(tt.profile, future); hasEnd != (c.Expires.UnixMilli() == 4102444800000) {
				t.Errorf("expires %v", c.Expires)
			}
		})
	}
}

func TestRefreshTokensOnRequest(t *testing.T) {
	t.Parallel()
	state := tempDir(t)
	profiles(t, state, "main", `{"profiles":{"p:x":{"type":"oauth","provider":"p","access":"a","refresh":"r","idToken":"i"}}}`)
	c, err := open(t, authprofiles.Config{StateDir: state, RefreshTokens: true}).Get(t.Context(), backend.Request{ID: "p:x"})
	must(t, err)
	if got := show(c); got != "oauth2 a access=a idToken=i refresh=r" {
		t.Errorf("got %q", got)
	}
}

func get(t *testing.T, b backend.Backend, id string) string {
	t.Helper()
	c, err := b.Get(t.Context(), backend.Request{ID: id})
	if err != nil {
		return string(backend.CodeOf(err))
	}
	return string(c.Secret.Reveal())
}

func key(value string) string { return `{"type":"api_key","provider":"p","key":"` + value + `"}` }

func TestAnAgentInherits(t *testing.T) {
	t.Parallel()
	state := tempDir(t)
	profiles(t, state, "main", `{"profiles":{"p:a":`+key("main-a")+`,"p:b":`+key("main-b")+`}}`)
	coder := open(t, authprofiles.Config{StateDir: state, Agent: "coder"})
	if a, b := get(t, coder, "p:a"), get(t, coder, "p:b"); a != "main-a" || b != "main-b" {
		t.Errorf("without a store of its own: %q, %q", a, b)
	}
	profiles(t, state, "coder", `{"profiles":{"p:b":`+key("own-b")+`,"p:c":`+key("own-c")+`}}`)
	if a, b, c := get(t, coder, "p:a"), get(t, coder, "p:b"), get(t, coder, "p:c"); a != "main-a" || b != "own-b" || c != "own-c" {
		t.Errorf("with one: %q, %q, %q", a, b, c)
	}
	if c := get(t, open(t, authprofiles.Config{StateDir: state}), "p:c"); c != "not_found" {
		t.Errorf("main has %q of another agent", c)
	}
	var ids []string
	for e, err := range backend.List(t.Context(), coder, "p:") {
		must(t, err)
		ids = append(ids, e.ID)
	}
	if !slices.Equal(ids, []string{"p:a", "p:b", "p:c"}) {
		t.Errorf("listed %v", ids)
	}
}

// sqlite lets SQLite itself run statements on a database, and close it.
func sqlite(t *testing.T, path string, statements ...string) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3 with sqlite3, to make databases")
	}
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	cmd := exec.Command(python, append([]string{"-c", `
import os, sqlite3, sys
os.umask(0o077)
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for s in ["PRAGMA journal_mode=WAL"] + sys.argv[2:]: db.execute(s).fetchall()
`, path}, statements...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

const agentTable = "CREATE TABLE auth_profile_store (store_key TEXT NOT NULL PRIMARY KEY, store_json TEXT NOT NULL, updated_at INTEGER NOT NULL) STRICT"

func TestDatabases(t *testing.T) {
	t.Parallel()
	state := tempDir(t)
	profiles(t, state, "main", `{"profiles":{"p:old":`+key("old")+`,"p:a":`+key("old")+`}}`)
	main, coder := open(t, authprofiles.Config{StateDir: state}), open(t, authprofiles.Config{StateDir: state, Agent: "coder"})
	mainDB := filepath.Join(state, "agents/main/agent/openclaw-agent.sqlite")
	coderDB := filepath.Join(state, "agents/coder/agent/openclaw-agent.sqlite")
	row := func(text string) string {
		return "INSERT OR REPLACE INTO auth_profile_store VALUES ('primary', '" + text + "', 1)"
	}

	sqlite(t, mainDB, agentTable)
	if got := get(t, main, "p:a"); got != "old" {
		t.Errorf("an empty table hides the file: %q", got)
	}
	sqlite(t, mainDB, row(`{"version":1,"profiles":{"p:a":`+key("main")+`}}`))
	sqlite(t, coderDB, agentTable, row(`{"version":1,"profiles":{"p:b":`+key("own")+`}}`))
	if a, old := get(t, main, "p:a"), get(t, main, "p:old"); a != "main" || old != "not_found" {
		t.Errorf("main: %q, and of the file %q", a, old)
	}
	if a, b := get(t, coder, "p:a"), get(t, coder, "p:b"); a != "main" || b != "own" {
		t.Errorf("coder: %q, %q", a, b)
	}

	shared := filepath.Join(state, "state/openclaw.sqlite")
	sqlite(t, shared, "CREATE TABLE config_machine_state (state_key TEXT NOT NULL PRIMARY KEY, value_json TEXT NOT NULL, updated_at_ms INTEGER NOT NULL) STRICT",
		`INSERT INTO config_machine_state VALUES ('authProfiles.store', '{"version":1,"profiles":{"p:a":`+key("shared")+`,"p:s":`+key("shared")+`}}', 1)`)
	if s := get(t, coder, "p:s"); s != "not_found" {
		t.Errorf("the shared store counts before OpenClaw says so: %q", s)
	}
	sqlite(t, shared, `INSERT INTO config_machine_state VALUES ('auth.sharedStore', '{"location":"state-db"}', 1)`)
	for name, b := range map[string]backend.Backend{"main": main, "coder": coder} {
		want := map[string]string{"main": "main", "coder": "shared"}[name]
		if a, s := get(t, b, "p:a"), get(t, b, "p:s"); a != want || s != "shared" {
			t.Errorf("%s with a shared store: %q, want %q, and %q", name, a, want, s)
		}
	}

	w, err := backend.AsWriter(main)
	must(t, err)
	_, err = w.Put(t.Context(), backend.Request{ID: "p:new"}, backend.Value{Secret: backend.NewSecretString("x")}, backend.Condition{})
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "secretref install --profile") {
		t.Errorf("put into a database: %v", err)
	}
	for _, dir := range []string{mainDB, coderDB, shared} {
		left, err := filepath.Glob(dir + "-*")
		must(t, err)
		if len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func TestWrites(t *testing.T) {
	t.Parallel()
	state := tempDir(t)
	const before = `{
  "version": 1,
  "profiles": {
    "openai:default": {
      "type": "api_key",
      "provider": "openai",
      "key": "theirs"
    }
  },
  "order": {
    "openai": [
      "openai:shared",
      "openai:default"
    ]
  },
  "lastGood": {
    "openai": "openai:shared"
  },
  "usageStats": {
    "openai:shared": {
      "errorCount": 0
    }
  }
}
`
	path := profiles(t, state, "main", before)
	b := open(t, authprofiles.Config{StateDir: state, WriteAs: "token"})
	w, err := backend.AsWriter(b)
	must(t, err)
	secret := backend.Value{Secret: backend.NewSecretString("ours")}
	if _, err := w.Put(t.Context(), backend.Request{ID: "openai:default"}, secret, backend.Condition{}); !errors.Is(err, backend.ErrDenied) {
		t.Errorf("put over a profile of somebody else: %v", err)
	}
	if err := w.Delete(t.Context(), backend.Request{ID: "openai:default"}, backend.Condition{}); !errors.Is(err, backend.ErrDenied) {
		t.Errorf("delete of a profile of somebody else: %v", err)
	}
	_, err = w.Put(t.Context(), backend.Request{ID: "openai:shared"}, secret, backend.Condition{Absent: true})
	must(t, err)
	text, err := os.ReadFile(path)
	must(t, err)
	want := strings.Replace(before, `"key": "theirs"
    }`, `"key": "theirs"
    },
    "openai:shared": {
      "type": "token",
      "provider": "openai",
      "token": "ours",
      "metadata": {
        "managedBy": "credresolve"
      }
    }`, 1)
	if string(text) != want {
		t.Errorf("the file is\n%s", text)
	}
	c, err := b.Get(t.Context(), backend.Request{ID: "openai:shared"})
	must(t, err)
	if c.Metadata["managed_by"] != "credresolve" || c.Type != backend.TypeToken {
		t.Errorf("%s with %v", c.Type, c.Metadata)
	}
	must(t, w.Delete(t.Context(), backend.Request{ID: "openai:shared"}, backend.Condition{Version: c.Version}))
	if text, err = os.ReadFile(path); err != nil || strings.Contains(string(text), "shared") || strings.Contains(string(text), "ours") {
		t.Errorf("after the deletion: %v\n%s", err, text)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	if info, err := os.Stat(path); err != nil || len(entries) != 1 || info.Mode().Perm() != 0o600 {
		t.Errorf("left behind: %v, mode %v, %v", entries, info.Mode(), err)
	}
	for _, id := range []string{"openai", ":x", "openai:", "a\n:b"} {
		if _, err := w.Put(t.Context(), backend.Request{ID: id}, secret, backend.Condition{}); !errors.Is(err, backend.ErrInvalidID) {
			t.Errorf("put of %q: %v", id, err)
		}
	}
	for _, value := range []string{"", " \n", "[REDACTED]", "\xff"} {
		v := backend.Value{Secret: backend.NewSecretString(value)}
		if _, err := w.Put(t.Context(), backend.Request{ID: "p:x"}, v, backend.Condition{}); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("put of %q: %v", value, err)
		}
	}
}

// What a process that was killed while it wrote left behind holds secrets: the next one that writes removes it.
func TestWritesRemoveWhatAKilledProcessLeft(t *testing.T) {
	t.Parallel()
	state := tempDir(t)
	path := profiles(t, state, "main", `{"version":1,"profiles":{}}`)
	left := filepath.Join(filepath.Dir(path), ".auth-profiles.json.credresolve-LEFT")
	must(t, os.WriteFile(left, []byte("a secret"), 0o600))
	w, err := backend.AsWriter(open(t, authprofiles.Config{StateDir: state}))
	must(t, err)
	_, err = w.Put(t.Context(), backend.Request{ID: "openai:shared"}, backend.Value{Secret: backend.NewSecretString("ours")}, backend.Condition{})
	must(t, err)
	entries, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	if len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("there are %v", entries)
	}
}

func TestDoesNotStartAFileThatNobodyReads(t *testing.T) {
	t.Parallel()
	state := tempDir(t)
	w, err := backend.AsWriter(open(t, authprofiles.Config{StateDir: state}))
	must(t, err)
	_, err = w.Put(t.Context(), backend.Request{ID: "p:x"}, backend.Value{Secret: backend.NewSecretString("x")}, backend.Condition{})
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("put where OpenClaw has no store yet: %v", err)
	}
}

// The lock is OpenClaw's: while another program holds it nothing is written, and one that a program left is taken away.
func TestLock(t *testing.T) {
	t.Parallel()
	state := tempDir(t)
	path := profiles(t, state, "main", `{"version":1,"profiles":{}}`)
	w, err := backend.AsWriter(open(t, authprofiles.Config{StateDir: state}))
	must(t, err)
	put := func(ctx context.Context) error {
		_, err := w.Put(ctx, backend.Request{ID: "p:x"}, backend.Value{Secret: backend.NewSecretString("x")}, backend.Condition{})
		return err
	}
	hold := func(pid int, at time.Time) {
		text := fmt.Sprintf("{\n  \"pid\": %d,\n  \"createdAt\": %q\n}", pid, at.UTC().Format(time.RFC3339Nano))
		must(t, os.WriteFile(path+".lock", []byte(text), 0o600))
	}
	hold(os.Getpid(), time.Now())
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := put(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while somebody holds the lock: %v", err)
	}
	dead := exec.Command("true")
	must(t, dead.Run())
	hold(dead.Process.Pid, time.Now())
	must(t, put(t.Context()))
	hold(os.Getpid(), time.Now().Add(-time.Minute))
	must(t, put(t.Context()))
	if _, err := os.Stat(path + ".lock"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock is left: %v", err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []authprofiles.Config{
		{Path: "a", Agent: "main"}, {Path: "a", StateDir: "b"}, {StateDir: "~/x"}, {Agent: "../x"}, {WriteAs: "oauth"}, {MaxBytes: -1}, {Path: "a\x00"},
	} {
		if _, err := authprofiles.New(c, backend.Host{}); !errors.Is(err, backend.ErrInvalidConfig) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	state := tempDir(t)
	profiles(t, filepath.Join(state, ".openclaw"), "main", `{"profiles":{"p:a":`+key("home")+`}}`)
	profiles(t, filepath.Join(state, "other"), "main", `{"profiles":{"p:a":`+key("other")+`}}`)
	for _, tt := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"HOME": state}, "home"},
		{map[string]string{"HOME": "/nowhere", "OPENCLAW_HOME": state}, "home"},
		{map[string]string{"HOME": state, "OPENCLAW_STATE_DIR": "~/other"}, "other"},
		{map[string]string{}, "invalid_config"},
	} {
		b, err := authprofiles.New(authprofiles.Config{}, backend.Host{LookupEnv: func(name string) (string, bool) { v, ok := tt.env[name]; return v, ok }})
		must(t, err)
		if got := get(t, b, "p:a"); got != tt.want || !backend.Describe(b).CallerBound {
			t.Errorf("%v: %q, want %q", tt.env, got, tt.want)
		}
	}
}
