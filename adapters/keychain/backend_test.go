package keychain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/credresolve/credresolve/backend"
)

// canary is in every secret of these tests, and in nothing else.
const canary = "c4nary-4b1d"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		os.Exit(child())
	}
	goleak.VerifyTestMain(m)
}

func noEnv(string) (string, bool) { return "", false }

func lookup(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

func open(t testing.TB, c Config, host backend.Host) *Backend {
	t.Helper()
	if host.LookupEnv == nil {
		host.LookupEnv = noEnv
	}
	b, err := New(c, host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// state gives a state directory.
func state(t testing.TB) string { return filepath.Join(t.TempDir(), "state") }

func get(t testing.TB, b *Backend, id string) string {
	t.Helper()
	c, err := b.Get(t.Context(), backend.Request{ID: id})
	if err != nil {
		t.Fatalf("get %q: %v", id, err)
	}
	return string(c.Secret.Reveal())
}

func put(t testing.TB, b *Backend, id, value string, cond backend.Condition) string {
	t.Helper()
	version, err := b.Put(t.Context(), backend.Request{ID: id}, backend.Value{Secret: backend.NewSecretString(value)}, cond)
	if err != nil {
		t.Fatalf("put %q: %v", id, err)
	}
	return version
}

func putError(t testing.TB, b *Backend, id, value string, cond backend.Condition) error {
	t.Helper()
	_, err := b.Put(t.Context(), backend.Request{ID: id}, backend.Value{Secret: backend.NewSecretString(value)}, cond)
	if err != nil && strings.Contains(err.Error(), canary) {
		t.Errorf("an error holds a secret: %v", err)
	}
	return err
}

func getError(t testing.TB, b *Backend, id string) error {
	t.Helper()
	_, err := b.Get(t.Context(), backend.Request{ID: id})
	return err
}

func ids(t testing.TB, b *Backend, prefix string) []string {
	t.Helper()
	var ids []string
	for e, err := range b.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	slices.Sort(ids)
	return ids
}

// wantCode fails t unless err is of code.
func wantCode(t testing.TB, err error, code backend.Code) {
	t.Helper()
	if backend.CodeOf(err) != code {
		t.Errorf("the error is %v (%s), want code %s", err, backend.CodeOf(err), code)
	}
}

// odd are values that a store may have trouble with.
var odd = map[string]string{
	"text":       canary,
	"lines":      canary + "\nand more\n",
	"line feed":  canary + "\n",
	"spaces":     " " + canary + " ",
	"unicode":    canary + " pässwörd 密码 🔑",
	"zero bytes": canary + "\x00\x00" + canary,
	"not utf-8":  canary + "\xff\xfe\xc3",
	"json":       `{"user":"u","password":"` + canary + `"}`,
	"envelope":   `{"Key":"odd/envelope","Data":"Zm9v","Label":"","Description":"","KeychainNotTrustApplication":false,"KeychainNotSynchronizable":false}`,
	"large":      strings.Repeat(canary+"\n", 2000),
	"empty":      "",
}

// testStore checks what every store owes. With a limit, larger values must be refused; holdsEmpty is false where empty ones
// must be.
func testStore(t *testing.T, b *Backend, limit int, holdsEmpty bool) {
	t.Helper()
	for name, value := range odd {
		id := "odd/" + name
		if limit > 0 && len(value) > limit || value == "" && !holdsEmpty {
			wantCode(t, putError(t, b, id, value, backend.Condition{}), backend.CodeUnsupported)
			continue
		}
		put(t, b, id, value, backend.Condition{Absent: true})
		if got := get(t, b, id); got != value {
			t.Errorf("%s came back as %q", name, got)
		}
	}
	c, err := b.Get(t.Context(), backend.Request{ID: "odd/json"})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(c.Fields["password"].Reveal()); got != canary || len(c.Fields) != 2 {
		t.Errorf("the field is %q, of %d", got, len(c.Fields))
	}

	want := []string{}
	for name, value := range odd {
		if limit > 0 && len(value) > limit || value == "" && !holdsEmpty {
			continue
		}
		want = append(want, "odd/"+name)
	}
	slices.Sort(want)
	if got := ids(t, b, "odd/"); !slices.Equal(got, want) {
		t.Errorf("the list is %q, want %q", got, want)
	}
	if got := ids(t, b, "odd/js"); !slices.Equal(got, []string{"odd/json"}) {
		t.Errorf("the list below a prefix is %q", got)
	}

	first := put(t, b, "cas", canary+"1", backend.Condition{Absent: true})
	wantCode(t, putError(t, b, "cas", canary+"2", backend.Condition{Absent: true}), backend.CodeConflict)
	wantCode(t, putError(t, b, "cas", canary+"2", backend.Condition{Version: "0"}), backend.CodeConflict)
	second := put(t, b, "cas", canary+"2", backend.Condition{Version: first})
	if first == "" || first == second || strings.Contains(first, canary) {
		t.Errorf("versions %q and %q", first, second)
	}
	c, err = b.Get(t.Context(), backend.Request{ID: "cas"})
	if err != nil || c.Version != second {
		t.Errorf("version %q, %v; want %q", c.Version, err, second)
	}
	wantCode(t, putError(t, b, "cas", canary+"3", backend.Condition{Version: first}), backend.CodeConflict)
	wantCode(t, b.Delete(t.Context(), backend.Request{ID: "cas"}, backend.Condition{Version: first}), backend.CodeConflict)
	if got := get(t, b, "cas"); got != canary+"2" {
		t.Errorf("a refused write changed the value to %q", got)
	}
	if err := b.Delete(t.Context(), backend.Request{ID: "cas"}, backend.Condition{Version: second}); err != nil {
		t.Error(err)
	}
	wantCode(t, getError(t, b, "cas"), backend.CodeNotFound)
	wantCode(t, b.Delete(t.Context(), backend.Request{ID: "cas"}, backend.Condition{}), backend.CodeNotFound)
	wantCode(t, b.Delete(t.Context(), backend.Request{ID: "cas"}, backend.Condition{Version: second}), backend.CodeConflict)
	wantCode(t, putError(t, b, "cas", canary, backend.Condition{Version: second}), backend.CodeConflict)
	wantCode(t, getError(t, b, "never/was"), backend.CodeNotFound)

	if err := backend.Probe(t.Context(), b); err != nil {
		t.Errorf("probe: %v", err)
	}
	testConcurrent(t, b)
}

// testConcurrent has conditional writers race: each increment must count.
func testConcurrent(t *testing.T, b *Backend) {
	t.Helper()
	const writers, each = 2, 2
	put(t, b, "counter", "0", backend.Condition{Absent: true})
	increment := func() error {
		for {
			c, err := b.Get(t.Context(), backend.Request{ID: "counter"})
			if err != nil {
				return err
			}
			next := append(c.Secret.Reveal(), '+')
			_, err = b.Put(t.Context(), backend.Request{ID: "counter"}, backend.Value{Secret: backend.NewSecret(next)}, backend.Condition{Version: c.Version})
			if !errors.Is(err, backend.ErrConflict) {
				return err
			}
		}
	}
	failed := make(chan error, writers)
	for range writers {
		go func() {
			var err error
			for i := 0; i < each && err == nil; i++ {
				err = increment()
			}
			failed <- err
		}()
	}
	for range writers {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if got := get(t, b, "counter"); got != "0"+strings.Repeat("+", writers*each) {
		t.Errorf("the counter is %q after %d increments", got, writers*each)
	}
	if err := b.Delete(t.Context(), backend.Request{ID: "counter"}, backend.Condition{}); err != nil {
		t.Error(err)
	}
}

// testDone checks that calls whose context has ended touch nothing.
func testDone(t *testing.T, b *Backend) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Get(ctx, backend.Request{ID: "x"})
	wantCode(t, err, backend.CodeCanceled)
	_, err = b.Put(ctx, backend.Request{ID: "x"}, backend.Value{Secret: backend.NewSecretString("x")}, backend.Condition{})
	wantCode(t, err, backend.CodeCanceled)
	wantCode(t, b.Delete(ctx, backend.Request{ID: "x"}, backend.Condition{}), backend.CodeCanceled)
	wantCode(t, b.Probe(ctx), backend.CodeCanceled)
	for _, err := range b.List(ctx, "") {
		wantCode(t, err, backend.CodeCanceled)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	password := backend.Literal(backend.NewSecretString(canary))
	tests := []struct {
		name   string
		config Config
		want   string // in the error; empty: it is good
	}{
		{"zero", Config{}, ""},
		{"secret service", Config{Backend: "secret-service", Service: "app", Collection: "login"}, ""},
		{"file", Config{Backend: "file", Path: "/tmp/x", Password: password}, ""},
		{"pass at the top", Config{Backend: "pass", PassPrefix: "/"}, ""},
		{"unknown", Config{Backend: "secretservice"}, "secret-service"},
		{"file without path", Config{Backend: "file", Password: password}, "path"},
		{"file without password", Config{Backend: "file", Path: "/tmp/x"}, "password"},
		{"scope", Config{Backend: "keyctl", KeyctlScope: "thread"}, "keyctl_scope"},
		{"control character", Config{Service: "a\nb"}, "service"},
		{"pass outside", Config{Backend: "pass", PassPrefix: "a/../../b"}, "pass_prefix"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := New(test.config, backend.Host{LookupEnv: noEnv})
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantCode(t, err, backend.CodeInvalidConfig)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v does not name %s", err, test.want)
			}
		})
	}
}

func TestReach(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		config Config
		want   []backend.ReachType
	}{
		"secret service": {Config{Backend: "secret-service"}, []backend.ReachType{backend.ReachKeychain}},
		"file":           {Config{Backend: "file", Path: "x"}, []backend.ReachType{backend.ReachKeychain, backend.ReachFile}},
		"pass":           {Config{Backend: "pass", PassDir: "x"}, []backend.ReachType{backend.ReachExecutable, backend.ReachFile}},
	} {
		var got []backend.ReachType
		for _, r := range test.config.Reach() {
			got = append(got, r.What)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s reaches %v, want %v", name, got, test.want)
		}
	}
	if got := (Config{Path: "x"}).Reach(); len(got) < 2 || got[0].What != backend.ReachKeychain || got[len(got)-1].What != backend.ReachFile {
		t.Errorf("auto reaches %v", got)
	}
}

func TestAuto(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := Config{Path: "secrets", Password: backend.Literal(backend.NewSecretString(canary))}
	b := open(t, c, backend.Host{Dir: dir, LookupEnv: lookup(map[string]string{"HOME": dir, "XDG_RUNTIME_DIR": dir, "PATH": dir})})
	if d := b.Describe(); !strings.Contains(d.Detail, "chosen at first use") {
		t.Errorf("before the first use: %q", d.Detail)
	}
	if err := b.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := b.Describe(); !strings.HasPrefix(d.Detail, "file, chosen as ") || !strings.Contains(d.Detail, filepath.Join(dir, "secrets")) {
		t.Errorf("after the first use: %q", d.Detail)
	} else if _, over, _ := strings.Cut(d.Detail, "; passed over: "); !strings.Contains(over, ": ") || !strings.Contains(over, "pass: the program pass") {
		t.Errorf("%q does not say why the others were passed over", d.Detail)
	}

	none := open(t, Config{}, backend.Host{LookupEnv: lookup(map[string]string{"HOME": dir, "XDG_RUNTIME_DIR": dir, "PATH": dir})})
	err := getError(t, none, "x")
	wantCode(t, err, backend.CodeUnavailable)
	for _, part := range []string{"file: it needs", "pass: the program pass", "backend: file"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
}

func TestUnsupported(t *testing.T) {
	t.Parallel()
	b := open(t, Config{Backend: "file", Path: t.TempDir(), Password: backend.Literal(backend.NewSecretString(canary))}, backend.Host{})
	_, err := b.Get(t.Context(), backend.Request{ID: "x", Version: "3"})
	wantCode(t, err, backend.CodeUnsupported)
	for _, id := range []string{"", "a\x00b", "a\nb", strings.Repeat("x", 2049), "\xff", "?a=b"} {
		wantCode(t, getError(t, b, id), backend.CodeInvalidID)
		wantCode(t, putError(t, b, id, canary, backend.Condition{}), backend.CodeInvalidID)
	}
	if b.Strength() != backend.StrengthNone {
		t.Errorf("strength %s without a state directory", b.Strength())
	}
	if version := put(t, b, "x", canary, backend.Condition{}); version != "" {
		t.Errorf("version %q without a state directory", version)
	}
	wantCode(t, putError(t, b, "x", canary, backend.Condition{Absent: true}), backend.CodeUnsupported)
	_, err = b.Put(t.Context(), backend.Request{ID: "x"}, backend.Value{}, backend.Condition{})
	wantCode(t, err, backend.CodeUsage)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, getError(t, b, "x"), backend.CodeUnavailable)
	wantCode(t, b.Probe(t.Context()), backend.CodeUnavailable)
}

func TestFields(t *testing.T) {
	t.Parallel()
	b := open(t, Config{Backend: "file", Path: t.TempDir(), Password: backend.Literal(backend.NewSecretString(canary))}, backend.Host{StateDir: state(t)})
	fields := map[string]backend.Secret{"user": backend.NewSecretString("u"), "password": backend.NewSecretString(canary)}
	if _, err := b.Put(t.Context(), backend.Request{ID: "x"}, backend.Value{Fields: fields}, backend.Condition{}); err != nil {
		t.Fatal(err)
	}
	if _, err := backend.PutField(t.Context(), b, backend.Request{ID: "x"}, "host", backend.NewSecretString("h"), backend.Condition{}); err != nil {
		t.Fatal(err)
	}
	c, err := b.Get(t.Context(), backend.Request{ID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for name, f := range c.Fields {
		got[name] = string(f.Reveal())
	}
	if want := map[string]string{"user": "u", "password": canary, "host": "h"}; !maps.Equal(got, want) {
		t.Errorf("fields %v", slices.Sorted(maps.Keys(got)))
	}
}

func TestEnvelope(t *testing.T) {
	t.Parallel()
	sealed, err := wrap("k", []byte("a\x00b"))
	if err != nil {
		t.Fatal(err)
	}
	if key, value, ok := openEnvelope(sealed); !ok || key != "k" || string(value) != "a\x00b" {
		t.Errorf("%q %q %v", key, value, ok)
	}
	for _, other := range []string{"", "{}", "[]", "null", `{"Key":"k","Data":"Zm9v"}`, string(bytes.Replace(sealed, []byte("Label"), []byte("Lapel"), 1)), string(sealed) + "x"} {
		if _, _, ok := openEnvelope([]byte(other)); ok {
			t.Errorf("%q is taken for an envelope", other)
		}
	}
}

func TestLineLeaves(t *testing.T) {
	t.Parallel()
	l := newLine(1)
	hung := make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := inLine(ctx, l, func() (int, error) { <-hung; return 0, nil })
	wantCode(t, err, backend.CodeTimeout)
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = inLine(ctx, l, func() (int, error) { t.Error("a call began beside the one that hangs"); return 0, nil })
	wantCode(t, err, backend.CodeTimeout)
	close(hung)
	n, err := inLine(t.Context(), l, func() (int, error) { return 7, nil })
	if n != 7 || err != nil {
		t.Error(n, err)
	}
	_, err = inLine(t.Context(), l, func() (int, error) { panic(fmt.Sprint(canary)) })
	wantCode(t, err, backend.CodeInternal)
	if strings.Contains(err.Error(), canary) {
		t.Error(err)
	}
}

func TestUTF16(t *testing.T) {
	t.Parallel()
	if text, ok := fromUTF16([]byte("p\x00w\x00")); !ok || string(text) != "pw" {
		t.Errorf("%q %v", text, ok)
	}
	for _, other := range []string{"", "pw", "p\x00w", "\x00p\x00w", "p\x00\x00\x00", "pw12"} {
		if _, ok := fromUTF16([]byte(other)); ok {
			t.Errorf("%q is taken for UTF-16", other)
		}
	}
}
