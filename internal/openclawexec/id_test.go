package openclawexec_test

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/openclawexec"
	"github.com/credresolve/credresolve/secretref"
)

func TestIDs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		ref  credref.Ref
		want string
	}{
		{credref.Ref{Provider: "app", ID: "kv/app/db"}, "app/kv/app/db"},
		{credref.Ref{Provider: "app", ID: "kv/app/db", Field: "password"}, "app/kv/app/db#password"},
		{credref.Ref{Provider: "app", ID: "OPENAI_API_KEY"}, "app/OPENAI_API_KEY"},
		{credref.Ref{Provider: "conf", ID: "/db/password"}, "conf//db/password"},
		{credref.Ref{Provider: "aws", ID: "arn:aws:secretsmanager:eu-west-1:1:secret:x-AbCdEf"}, "aws/arn:aws:secretsmanager:eu-west-1:1:secret:x-AbCdEf"},
		{credref.Ref{Provider: "app", ID: "a", Field: "/x/y"}, "app/a#/x/y"},
		{credref.Ref{Provider: "app", ID: "a", Field: "b#c"}, "app/a#b#c"},
		{credref.Ref{Provider: "app", ID: "a#b"}, "x:app/a:23b"},
		{credref.Ref{Provider: "app", ID: "a#b", Field: "c"}, "x:app/a:23b#c"},
		{credref.Ref{Provider: "app", ID: "a", Version: "3"}, "x:app/a##3"},
		{credref.Ref{Provider: "app", ID: "a", Field: "f", Version: "id:é"}, "x:app/a#f#id:3a:c3:a9"},
		{credref.Ref{Provider: "app", ID: "team@corp=prod+x y"}, "x:app/team:40corp:3dprod:2bx:20y"},
		{credref.Ref{Provider: "app", ID: "a/../b/./c..d"}, "x:app/a/:2e:2e/b/:2e/c..d"},
		{credref.Ref{Provider: "desk", ID: "?server=x&user=y"}, "x:desk/:3fserver:3dx:26user:3dy"},
	} {
		got, err := openclawexec.ID(tt.ref)
		if err != nil || got != tt.want {
			t.Errorf("ID(%s) = %q, %v; want %q", tt.ref, got, err, tt.want)
			continue
		}
		if ref, err := (openclawexec.Names{}).Ref(got); err != nil || ref != tt.ref {
			t.Errorf("Ref(%q) = %+v, %v; want %+v", got, ref, err, tt.ref)
		}
	}
}

func TestRef(t *testing.T) {
	t.Parallel()
	alias := credref.Ref{Provider: "aws", ID: "x"}
	names := openclawexec.Names{Aliases: map[string]credref.Ref{"key": alias, "app/shadowed": alias}}
	vault := openclawexec.Names{Aliases: names.Aliases, Vault: "v"}
	mounted := openclawexec.Names{Vault: "v", VaultPath: "secret/team"}
	only := openclawexec.Names{Vault: "v", Only: "v"}
	for _, tt := range []struct {
		names openclawexec.Names
		id    string
		want  credref.Ref // zero: refused
	}{
		{names, "key", alias},
		{names, "app/shadowed", alias},
		{vault, "key", alias},
		{names, "app/a", credref.Ref{Provider: "app", ID: "a"}},
		{names, "x:app/a:2B", credref.Ref{Provider: "app", ID: "a+"}},
		{vault, "x:app/a", credref.Ref{Provider: "app", ID: "a"}},
		{vault, "providers/openai/apiKey", credref.Ref{Provider: "v", ID: "providers/openai", Field: "apiKey"}},
		{mounted, "openai/apiKey", credref.Ref{Provider: "v", ID: "secret/team/openai", Field: "apiKey"}},
		{only, "a/b", credref.Ref{Provider: "v", ID: "a", Field: "b"}},
		{only, "x:v/a:20b#c", credref.Ref{Provider: "v", ID: "a b", Field: "c"}},
		{only, "x:env/VAULT_SECRET_ID", credref.Ref{}},
		{names, "Key", credref.Ref{}}, {names, "app", credref.Ref{}}, {names, "app/", credref.Ref{}}, {names, "app/a#", credref.Ref{}},
		{names, "App/a", credref.Ref{}}, {names, "app/a b", credref.Ref{}}, {names, "app/../a", credref.Ref{}}, {names, "app/a@b", credref.Ref{}},
		{names, "", credref.Ref{}}, {names, "/a", credref.Ref{}}, {names, "cred://app/a", credref.Ref{}}, {names, "app/" + strings.Repeat("a", 256), credref.Ref{}},
		{names, "x:", credref.Ref{}}, {names, "x:app", credref.Ref{}}, {names, "x:app/", credref.Ref{}}, {names, "x:app/a:2", credref.Ref{}}, {names, "x:app/a:zz", credref.Ref{}},
		{names, "x:app/a#", credref.Ref{}}, {names, "x:app/a##", credref.Ref{}}, {names, "x:app/a#b#c#d", credref.Ref{}}, {names, "x:app/:00", credref.Ref{}}, {names, "x:app/:ff", credref.Ref{}},
		{vault, "apiKey", credref.Ref{}}, {vault, "a//b", credref.Ref{}}, {vault, "a/", credref.Ref{}},
	} {
		got, err := tt.names.Ref(tt.id)
		refused := tt.want == credref.Ref{}
		if refused != (err != nil) || !refused && got != tt.want {
			t.Errorf("Ref(%q) = %+v, %v; want %+v", tt.id, got, err, tt.want)
		}
		if err != nil && !errors.Is(err, backend.ErrInvalidID) {
			t.Errorf("Ref(%q): %v is no ErrInvalidID", tt.id, err)
		}
	}
}

func TestIDRefuses(t *testing.T) {
	t.Parallel()
	for _, ref := range []credref.Ref{{}, {Provider: "app"}, {Provider: "app", ID: strings.Repeat("@", 200)}} {
		if id, err := openclawexec.ID(ref); !errors.Is(err, backend.ErrInvalidID) {
			t.Errorf("ID(%+v) = %q, %v", ref, id, err)
		}
	}
}

// Every ref that is short enough has an id, which the client takes by its own rules and which stands for it alone.
func TestEveryRefHasItsID(t *testing.T) {
	t.Parallel()
	part := rapid.StringOfN(rapid.RuneFrom([]rune("aZ0._-/:#@+= %~?é\u2028\U0001f511")), 0, 12, 30)
	rapid.Check(t, func(t *rapid.T) {
		ref := credref.Ref{
			Provider: rapid.StringMatching(`[a-z][a-z0-9_-]{0,5}`).Draw(t, "provider"),
			ID:       part.Draw(t, "id"), Version: part.Draw(t, "version"), Field: part.Draw(t, "field"),
		}
		if ref.Validate() != nil {
			return
		}
		id, err := openclawexec.ID(ref)
		if err != nil {
			if len(openclawexec.Encode(ref)) <= openclawexec.MaxID {
				t.Fatalf("%s: %v", ref, err)
			}
			return
		}
		if err := (secretref.Grammar{}).Check(secretref.Ref{Source: secretref.Exec, Provider: "p", ID: id}); err != nil {
			t.Fatalf("%s: %v", ref, err)
		}
		if again, err := (openclawexec.Names{}).Ref(id); err != nil || again != ref {
			t.Fatalf("%s: Ref(%q) = %+v, %v", ref, id, again, err)
		}
	})
}

// The grammar that is checked here is that of package secretref, and an id that is read says the same when it is written.
func FuzzRef(f *testing.F) {
	for _, seed := range []string{"app/kv/db#password", "x:app/a:20b#c#3", "x:app/a##3", "conf//a", "a/..", "x:app/:2e"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, id string) {
		err := (secretref.Grammar{}).Check(secretref.Ref{Source: secretref.Exec, Provider: "p", ID: id})
		if valid := openclawexec.ValidID(id); valid != (err == nil) && id == strings.TrimSpace(id) {
			t.Fatalf("ValidID(%q) = %v, and the client says %v", id, valid, err)
		}
		ref, err := (openclawexec.Names{}).Ref(id)
		if err != nil {
			return
		}
		again, err := openclawexec.ID(ref)
		if err != nil {
			t.Fatalf("%q: %v", id, err)
		}
		if back, err := (openclawexec.Names{}).Ref(again); err != nil || back != ref {
			t.Fatalf("%q: %q is %+v, %v", id, again, back, err)
		}
	})
}
