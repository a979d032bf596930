package openclaw

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/authstore"
	"github.com/credresolve/credresolve/secretref"
)

const profilesPath = "agents/main/agent/auth-profiles.json"

// A key that a program writes which knows more members than this one survives, and so does the order.
const profilesText = `{
  "version": 1,
  "profiles": {
    "p:key": {
      "type": "api_key",
      "provider": "p",
      "key": "old-c4nary",
      "later": [
        1
      ]
    },
    "p:token": {
      "type": "token",
      "provider": "p",
      "token": "old-c4nary",
      "expires": 4102444800000
    },
    "p:login": {
      "type": "oauth",
      "provider": "p",
      "access": "a",
      "refresh": "r"
    }
  }
}
`

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestDelegation(t *testing.T) {
	t.Parallel()
	ref := secretref.Ref{Source: secretref.Exec, Provider: "credresolve", ID: "app/key"}
	pointer := `Ref": {
        "source": "exec",
        "provider": "credresolve",
        "id": "app/key"
      }`
	for _, tt := range []struct {
		profile, kind string
		code          backend.Code
		wants, lacks  []string
	}{
		{"p:key", "", "", []string{`"key` + pointer, `"later": [`}, []string{`"key": "old`}},
		{"p:token", "", "", []string{`"token` + pointer, `"expires": 4102444800000`}, []string{`"token": "old`}},
		{"q:new", "", "", []string{`"q:new": {`, `"provider": "q"`, `"key` + pointer}, nil},
		{"Q:new", "token", "", []string{`"Q:new": {`, `"provider": "q"`, `"token` + pointer}, nil},
		{"p:login", "", backend.CodeUnsupported, nil, nil},
		{"p:key", "token", backend.CodeConflict, nil, nil},
		{"p", "", backend.CodeInvalidID, nil, nil},
	} {
		t.Run(tt.profile+tt.kind, func(t *testing.T) {
			t.Parallel()
			state := tree(t, map[string]string{profilesPath: profilesText})
			d := Delegation{Home: authstore.Home{StateDir: state}, Profile: tt.profile, Type: tt.kind, Ref: ref}
			_, err := d.Check(t.Context(), nil)
			if err == nil {
				err = d.Write(t.Context())
			}
			got := readText(t, filepath.Join(state, profilesPath))
			if tt.code != "" {
				if backend.CodeOf(err) != tt.code || got != profilesText {
					t.Errorf("%v, want %s, and the file as it was", err, tt.code)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.wants {
				if !strings.Contains(got, want) {
					t.Errorf("no %s in\n%s", want, got)
				}
			}
			for _, lack := range tt.lacks {
				if strings.Contains(got, lack) {
					t.Errorf("%s is left", lack)
				}
			}
		})
	}
	d := Delegation{Home: authstore.Home{StateDir: tree(t, nil)}, Profile: "p:x", Ref: secretref.Ref{Source: secretref.Exec, Provider: "credresolve", ID: "a@b"}}
	if _, err := d.Check(t.Context(), nil); !errors.Is(err, backend.ErrInvalidID) {
		t.Errorf("an id that OpenClaw does not take: %v", err)
	}
}

func TestDelegationPlan(t *testing.T) {
	t.Parallel()
	state := tree(t, map[string]string{profilesPath: profilesText})
	d := Delegation{
		Home: authstore.Home{StateDir: state, Agent: "coder"}, Profile: "p:token",
		Ref: secretref.Ref{Source: secretref.Exec, Provider: "credresolve", ID: "app/key"},
	}
	if _, err := d.Check(t.Context(), nil); err != nil || !d.Shared {
		t.Fatalf("a profile of the base: %v, shared %v", err, d.Shared)
	}
	text, err := d.Plan(time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	var plan struct {
		Version, ProtocolVersion int
		Targets                  []map[string]any
	}
	if err := json.Unmarshal(text, &plan); err != nil {
		t.Fatal(err)
	}
	one := plan.Targets[0]
	if plan.Version != 1 || plan.ProtocolVersion != 1 || one["type"] != "auth-profiles.token.token" || one["path"] != "profiles.p:token.token" ||
		one["agentId"] != "coder" || one["authProfileProvider"] != "p" || strings.Contains(string(text), "c4nary") {
		t.Errorf("the plan is %s", text)
	}
}

func TestCopies(t *testing.T) {
	t.Parallel()
	state := tree(t, map[string]string{profilesPath: profilesText})
	path := filepath.Join(state, profilesPath)
	copies := Copies{Dir: filepath.Join(state, "ours")}
	write := func(profile string, ref credref.Ref) error {
		e := authstore.Entry{Type: authstore.TypeAPIKey, Provider: "p", Secret: backend.NewSecretString("new-c4nary")}
		return copies.Write(t.Context(), authstore.Home{StateDir: state}, profile, e, ref, "r1")
	}
	app, other := credref.Ref{Provider: "app", ID: "kv/x", Field: "a"}, credref.Ref{Provider: "app", ID: "kv/y"}
	if err := write("p:key", app); !errors.Is(err, backend.ErrDenied) {
		t.Errorf("over a profile of somebody else: %v", err)
	}
	if all, err := copies.List(); err != nil || len(all) != 0 {
		t.Errorf("what was not written is remembered: %v, %v", all, err)
	}
	for profile, ref := range map[string]credref.Ref{"p:one": app, "p:two": app, "p:mine": app, "p:other": other} {
		if err := write(profile, ref); err != nil {
			t.Fatal(err)
		}
	}
	if err := write("p:one", app); err != nil {
		t.Errorf("written again: %v", err)
	}
	if err := write("p:two", other); err != nil { // of another secret now
		t.Error(err)
	}
	// Somebody makes one of them a profile of their own.
	mine := strings.Replace(readText(t, path), `"managedBy": "credresolve"`, `"managedBy": "me"`, 1)
	first := "p:" + strings.SplitN(strings.SplitAfterN(strings.Split(mine, `"managedBy": "me"`)[0], `"p:login"`, 2)[1], `"p:`, 2)[1]
	first = strings.SplitN(first, `"`, 2)[0]
	if err := os.WriteFile(path, []byte(mine), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := copies.End(t.Context(), credref.Ref{Provider: "app", ID: "kv/x"}); err != nil {
		t.Fatal(err)
	}
	got := readText(t, path)
	for profile, stays := range map[string]bool{"p:one": false, "p:mine": false, "p:two": true, "p:other": true, "p:key": true, "p:login": true} {
		if stays = stays || profile == first; strings.Contains(got, `"`+profile+`"`) != stays {
			t.Errorf("%s is there: %v, want %v", profile, !stays, stays)
		}
	}
	all, err := copies.List()
	if err != nil || len(all) != 2 {
		t.Errorf("remembered: %v, %v", all, err)
	}
	if info, err := os.Stat(filepath.Join(copies.Dir, copiesName)); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("%v, %v", info, err)
	}
	if strings.Contains(readText(t, filepath.Join(copies.Dir, copiesName)), "c4nary") {
		t.Error("a secret is remembered")
	}
	// A home that is gone has no copies.
	if err := os.RemoveAll(filepath.Join(state, "agents")); err != nil {
		t.Fatal(err)
	}
	if err := copies.End(t.Context(), credref.Ref{Provider: "app", ID: "kv/y"}); err != nil {
		t.Error(err)
	}
	if all, err := copies.List(); err != nil || len(all) != 0 {
		t.Errorf("remembered: %v, %v", all, err)
	}
}

// Two packages know what is blank and what a redaction leaves, since neither can ask the other.
func TestProfilesHoldNoSecretThatARefMayNotHave(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", " ", "\t\v\f\r\n", "\u00a0", "\u2028\ufeff", "\u0085", "a", "__OPENCLAW_REDACTED__", "REDACTED", "xoxb-REDACTED", "xapp-REDACTED", "***",
		"[redacted]", "[REDACTED]", "<redacted>", "[REDACTED_PRIVATE_KEY]", "[REDACTED CREDENTIAL]", "\u00a0***\ufeff", "\v[redacted] ", "\u0085***", "redacted", "****",
	} {
		value := backend.NewSecretString(text)
		ref, profile := secretref.CheckValue("p", value, secretref.String), authstore.CheckSecret(value)
		if (ref == nil) != (profile == nil) {
			t.Errorf("%q: of a ref %v, of a profile %v", text, ref, profile)
		}
	}
}
