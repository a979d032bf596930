package keychain

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/secretservicetest"
)

func secretServiceConfig() Config { return Config{Backend: "secret-service", Service: "app"} }

func TestSecretService(t *testing.T) {
	t.Parallel()
	s := secretservicetest.Start(t)
	b := open(t, secretServiceConfig(), backend.Host{LookupEnv: s.LookupEnv, StateDir: state(t)})
	testStore(t, b, 0, true)
	testDone(t, b)
	if d := b.Describe(); d.Detail != "secret-service, as configured: service app in every collection, new items in the default one" {
		t.Errorf("%q", d.Detail)
	}

	s.Restart(t)
	for name, value := range odd {
		if got := get(t, b, "odd/"+name); got != value {
			t.Errorf("%s came back as %q after the service was started anew", name, got)
		}
	}
	if n := s.Sessions(t); n != 1 {
		t.Errorf("%d sessions", n)
	}
	large := strings.Repeat(canary, 1<<16)
	put(t, b, "a megabyte", large, backend.Condition{})
	if got := get(t, b, "a megabyte"); got != large {
		t.Errorf("%d of %d bytes came back", len(got), len(large))
	}
}

// What users made with other tools must be readable, and what we make by them.
func TestSecretServiceOtherTools(t *testing.T) {
	t.Parallel()
	s := secretservicetest.Start(t)
	b := open(t, secretServiceConfig(), backend.Host{LookupEnv: s.LookupEnv, StateDir: state(t)})

	s.Tool(t, canary, "store", "--label=mine", "service", "app", "account", "tool")
	if got := get(t, b, "tool"); got != canary {
		t.Errorf("an item of secret-tool is %q", got)
	}
	put(t, b, "tool", canary+"2", backend.Condition{})
	if got := s.Tool(t, "", "lookup", "service", "app", "account", "tool"); got != canary+"2" {
		t.Errorf("secret-tool sees %q", got)
	}
	put(t, b, "ours", canary+"3", backend.Condition{})
	if got := s.Tool(t, "", "lookup", "service", "app", "account", "ours"); got != canary+"3" {
		t.Errorf("secret-tool sees %q", got)
	}
	s.Tool(t, canary+"4", "store", "--label=py", "service", "app", "username", "python", "application", "Python keyring library")
	if got := get(t, b, "python"); got != canary+"4" {
		t.Errorf("an item of python-keyring is %q", got)
	}
	s.Tool(t, canary+"5", "store", "--label=other", "service", "other", "account", "tool")
	if got := ids(t, b, ""); !slices.Equal(got, []string{"ours", "python", "tool"}) {
		t.Errorf("the list is %q", got)
	}
	for e, err := range b.List(t.Context(), "to") {
		if err != nil || e.Metadata["label"] != "mine" || time.Since(e.Modified).Abs() > time.Hour {
			t.Errorf("%+v %v", e, err)
		}
	}

	s.Tool(t, canary+"6", "store", "--label=wifi", "setting", "a b&c", "kind", "wifi")
	for query, want := range map[string]string{
		"?setting=a%20b%26c":                              canary + "6",
		"?kind=wifi&setting=a%20b%26c":                    canary + "6",
		"?service=other":                                  canary + "5",
		"?username=python&service=app":                    canary + "4",
		"?service=app&account=ours&xdg:schema=" + generic: canary + "3",
	} {
		if got := get(t, b, query); got != want {
			t.Errorf("%s is %q", query, got)
		}
	}
	wantCode(t, getError(t, b, "?service=app"), backend.CodeInvalidID) // several
	wantCode(t, getError(t, b, "?service=none"), backend.CodeNotFound)
	wantCode(t, getError(t, b, "?service"), backend.CodeInvalidID)
	put(t, b, "?kind=wifi", canary+"7", backend.Condition{})
	if got := get(t, b, "?setting=a%20b%26c"); got != canary+"7" {
		t.Errorf("%q", got)
	}
	put(t, b, "?kind=new&place=here", canary+"8", backend.Condition{Absent: true})
	if got := s.Tool(t, "", "lookup", "kind", "new"); got != canary+"8" {
		t.Errorf("secret-tool sees %q", got)
	}
	if err := b.Delete(t.Context(), backend.Request{ID: "?kind=new"}, backend.Condition{}); err != nil {
		t.Error(err)
	}

	s.Tool(t, canary, "store", "--label=twice", "service", "app", "account", "tool", "more", "x")
	wantCode(t, getError(t, b, "tool"), backend.CodeInvalidID)
	wantCode(t, putError(t, b, "tool", canary, backend.Condition{}), backend.CodeInvalidID)
	if got := get(t, b, "?account=tool&more=x"); got != canary {
		t.Errorf("%q", got)
	}
}

// The keyring library, and what is built on it, puts values into envelopes.
func TestSecretServiceEnvelope(t *testing.T) {
	t.Parallel()
	s := secretservicetest.Start(t)
	sealed, err := wrap("profile", []byte(canary+"\x00"))
	if err != nil {
		t.Fatal(err)
	}
	s.Tool(t, string(sealed), "store", "--label=profile", "profile", "profile")
	named := open(t, Config{Backend: "secret-service", Service: "app", Collection: "login"}, backend.Host{LookupEnv: s.LookupEnv})
	if got := get(t, named, "profile"); got != canary+"\x00" {
		t.Errorf("%q", got)
	}
	put(t, named, "profile", canary+"2", backend.Condition{})
	raw := s.Tool(t, "", "lookup", "profile", "profile")
	if key, value, ok := openEnvelope([]byte(raw)); !ok || key != "profile" || string(value) != canary+"2" {
		t.Errorf("the envelope is lost: %q", raw)
	}
	// Without the collection the library's items, which know no service, are not ours.
	wantCode(t, getError(t, open(t, secretServiceConfig(), backend.Host{LookupEnv: s.LookupEnv}), "profile"), backend.CodeNotFound)
	missing := open(t, Config{Backend: "secret-service", Collection: "none"}, backend.Host{LookupEnv: s.LookupEnv})
	wantCode(t, getError(t, missing, "profile"), backend.CodeNotFound)
	wantCode(t, putError(t, missing, "profile", canary, backend.Condition{}), backend.CodeUnavailable)
}

func TestSecretServiceLocked(t *testing.T) {
	t.Parallel()
	s := secretservicetest.Start(t)
	b := open(t, secretServiceConfig(), backend.Host{LookupEnv: s.LookupEnv, StateDir: state(t)})
	put(t, b, "a", canary, backend.Condition{})
	auto := open(t, Config{Service: "app"}, backend.Host{LookupEnv: s.LookupEnv})
	if err := auto.Probe(t.Context()); err != nil {
		t.Error(err)
	}
	if d := auto.Describe(); !strings.HasPrefix(d.Detail, "secret-service, chosen as a Secret Service answers") {
		t.Errorf("%q", d.Detail)
	}
	s.Lock(t)
	start := time.Now()
	err := getError(t, b, "a")
	wantCode(t, err, backend.CodeLocked)
	if err == nil || !strings.Contains(err.Error(), "--interactive") {
		t.Errorf("%v does not say what to do", err)
	}
	wantCode(t, getError(t, b, "missing"), backend.CodeLocked)
	wantCode(t, putError(t, b, "a", canary, backend.Condition{}), backend.CodeLocked)
	wantCode(t, putError(t, b, "b", canary, backend.Condition{}), backend.CodeLocked)
	wantCode(t, b.Delete(t.Context(), backend.Request{ID: "a"}, backend.Condition{}), backend.CodeLocked)
	wantCode(t, b.Probe(t.Context()), backend.CodeLocked)
	wantCode(t, auto.Probe(t.Context()), backend.CodeLocked)
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("that took %v: something waited", took)
	}
	if n := s.Prompts(t); n != 0 {
		t.Errorf("%d prompts are left", n)
	}
}

func TestSecretServiceKeepsOneSession(t *testing.T) {
	t.Parallel()
	s := secretservicetest.Start(t)
	b := open(t, secretServiceConfig(), backend.Host{LookupEnv: s.LookupEnv})
	put(t, b, "a", canary, backend.Condition{})
	failed := make(chan error)
	const callers, gets = 4, 50
	for range callers {
		go func() {
			var err error
			for i := 0; i < gets && err == nil; i++ {
				_, err = b.Get(context.Background(), backend.Request{ID: "a"})
			}
			failed <- err
		}()
	}
	for range callers {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if n := s.Sessions(t); n != 1 {
		t.Errorf("%d sessions after %d gets", n, callers*gets)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); s.Sessions(t) != 0; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the session outlives Close")
		}
	}
	wantCode(t, getError(t, b, "a"), backend.CodeUnavailable)
}

// The number that both sides compute, from which the key comes, begins with a zero byte in one of 256 sessions.
func TestSecretServiceManySessions(t *testing.T) {
	t.Parallel()
	s := secretservicetest.Start(t)
	b := open(t, secretServiceConfig(), backend.Host{LookupEnv: s.LookupEnv})
	put(t, b, "a", canary, backend.Condition{})
	client := b.candidates[0].(*secretService)
	first, err := client.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	it, err := client.one(t.Context(), first, "a")
	if err != nil {
		t.Fatal(err)
	}
	for range 150 {
		sess, err := openSession(t.Context(), first.conn)
		if err != nil {
			t.Fatal(err)
		}
		if value, err := client.read(t.Context(), sess, it); err != nil || string(value) != canary {
			t.Fatalf("%q %v", value, err)
		}
		if err := sess.conn.call(t.Context(), secretsName, sess.path, "org.freedesktop.Secret.Session.Close", nil); err != nil {
			t.Fatal(err)
		}
	}
}

// testLeaves checks that a call on b, which hangs, ends within 100 ms of its context. A machine that is busy with other
// things may need several tries.
func testLeaves(t *testing.T, b *Backend) {
	t.Helper()
	const patience, late, tries = 20 * time.Millisecond, 100 * time.Millisecond, 10
	best := time.Hour
	for try := 0; try < tries && (try < 2 || best > patience+late); try++ {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		start := time.Now()
		_, err := b.Get(ctx, backend.Request{ID: "a"})
		best = min(best, time.Since(start))
		cancel()
		wantCode(t, err, backend.CodeTimeout)
	}
	if best > patience+late {
		t.Errorf("it took %v at best", best)
	}
}

// A bus that hangs, at any of the places where it can, must not hold a caller past its time.
func TestHungBus(t *testing.T) {
	t.Parallel()
	address, _ := silentBus(t)
	for _, name := range []string{"secret-service", "kwallet", "auto"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, Config{Backend: name}, backend.Host{LookupEnv: lookup(map[string]string{busVariable: address})})
			testLeaves(t, b)
		})
	}
}

// A service that owns the name of the Secret Service and never answers must not hold a caller either.
func TestHungService(t *testing.T) {
	t.Parallel()
	address := secretservicetest.StartBus(t)
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	release := make(chan struct{})
	defer close(release)
	if err := conn.ExportMethodTable(map[string]any{
		"OpenSession": func(string, dbus.Variant) (dbus.Variant, dbus.ObjectPath, *dbus.Error) {
			<-release
			return dbus.MakeVariant(""), "/", nil
		},
	}, secretsPath, serviceIface); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName(secretsName, 0); err != nil {
		t.Fatal(err)
	}
	b := open(t, secretServiceConfig(), backend.Host{LookupEnv: lookup(map[string]string{busVariable: address})})
	testLeaves(t, b)
}

func TestNoBus(t *testing.T) {
	t.Parallel()
	for name, env := range map[string]map[string]string{
		"none":      {"XDG_RUNTIME_DIR": t.TempDir()},
		"no socket": {busVariable: "unix:path=/nonexistent/bus"},
		"disabled":  {busVariable: "disabled:"},
		"garbage":   {busVariable: "%zz"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, secretServiceConfig(), backend.Host{LookupEnv: lookup(env)})
			wantCode(t, getError(t, b, "a"), backend.CodeUnavailable)
			wantCode(t, b.Probe(t.Context()), backend.CodeUnavailable)
		})
	}
	t.Run("no service", func(t *testing.T) {
		t.Parallel()
		b := open(t, secretServiceConfig(), backend.Host{LookupEnv: lookup(map[string]string{busVariable: secretservicetest.StartBus(t)})})
		wantCode(t, getError(t, b, "a"), backend.CodeUnavailable)
	})
}

// prompter is a Secret Service with one locked item, which a prompt unlocks. GNOME Keyring shows its prompts on a display.
type prompter struct {
	conn   *dbus.Conn
	answer string // yes, no, or never

	mu             sync.Mutex
	locked         bool
	shown, dismiss int
}

const (
	promptPath = dbus.ObjectPath(secretsPath + "/prompt/p1")
	itemPath   = dbus.ObjectPath(secretsPath + "/collection/login/1")
)

func (p *prompter) OpenSession(algorithm string, _ dbus.Variant) (dbus.Variant, dbus.ObjectPath, *dbus.Error) {
	if algorithm != algorithmPlain {
		return dbus.Variant{}, "/", dbus.NewError("org.freedesktop.DBus.Error.NotSupported", nil)
	}
	return dbus.MakeVariant(""), secretsPath + "/session/s1", nil
}

func (p *prompter) SearchItems(map[string]string) (unlocked, locked []dbus.ObjectPath, e *dbus.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.locked {
		return nil, []dbus.ObjectPath{itemPath}, nil
	}
	return []dbus.ObjectPath{itemPath}, nil, nil
}

func (p *prompter) Unlock([]dbus.ObjectPath) ([]dbus.ObjectPath, dbus.ObjectPath, *dbus.Error) {
	return nil, promptPath, nil
}

func (p *prompter) Prompt(string) *dbus.Error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shown++
	if p.answer != "never" {
		p.locked = p.answer == "no"
		_ = p.conn.Emit(promptPath, promptIface+".Completed", p.answer == "no", dbus.MakeVariant([]dbus.ObjectPath{itemPath}))
	}
	return nil
}

func (p *prompter) Dismiss() *dbus.Error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dismiss++
	return nil
}

func (p *prompter) GetSecret(session dbus.ObjectPath) (secretStruct, *dbus.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.locked {
		return secretStruct{}, dbus.NewError("org.freedesktop.Secret.Error.IsLocked", []any{canary})
	}
	return secretStruct{Session: session, Parameters: []byte{}, Value: []byte(canary), ContentType: "text/plain"}, nil
}

func TestPrompt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		interactive    bool
		answer         string
		want           backend.Code
		shown, dismiss int
	}{
		"not interactive": {false, "yes", backend.CodeLocked, 0, 0},
		"yes":             {true, "yes", backend.CodeOK, 1, 0},
		"no":              {true, "no", backend.CodeLocked, 1, 0},
		"never":           {true, "never", backend.CodeTimeout, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := secretservicetest.StartBus(t)
			conn, err := dbus.Connect(address)
			if err != nil {
				t.Fatal(err)
			}
			p := &prompter{conn: conn, answer: test.answer, locked: true}
			for path, iface := range map[dbus.ObjectPath]string{secretsPath: serviceIface, promptPath: promptIface, itemPath: itemIface} {
				if err := conn.Export(p, path, iface); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := conn.RequestName(secretsName, 0); err != nil {
				t.Fatal(err)
			}
			b := open(t, secretServiceConfig(), backend.Host{LookupEnv: lookup(map[string]string{busVariable: address}), Interactive: test.interactive})
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if test.want == backend.CodeTimeout {
				ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
			}
			defer cancel()
			c, err := b.Get(ctx, backend.Request{ID: "a"})
			wantCode(t, err, test.want)
			if err == nil && string(c.Secret.Reveal()) != canary {
				t.Errorf("%q", c.Secret.Reveal())
			}
			counts := func() [2]int {
				p.mu.Lock()
				defer p.mu.Unlock()
				return [2]int{p.shown, p.dismiss}
			}
			want := [2]int{test.shown, test.dismiss}
			for deadline := time.Now().Add(5 * time.Second); counts() != want && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			if got := counts(); got != want {
				t.Errorf("shown and dismissed %v times, want %v", got, want)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestBusError(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]backend.Code{
		"org.freedesktop.Secret.Error.IsLocked":     backend.CodeLocked,
		"org.freedesktop.DBus.Error.AccessDenied":   backend.CodeDenied,
		"org.freedesktop.DBus.Error.ServiceUnknown": backend.CodeUnavailable,
		"org.freedesktop.DBus.Error.LimitsExceeded": backend.CodeThrottled,
		"com.example.Strange":                       backend.CodeUnavailable,
	} {
		err := busError(t.Context(), dbus.Error{Name: name, Body: []any{canary}})
		wantCode(t, err, want)
		if strings.Contains(err.Error(), canary) {
			t.Errorf("%v holds what came with the error", err)
		}
	}
	wantCode(t, busError(t.Context(), errors.New(canary)), backend.CodeUnavailable)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantCode(t, busError(ctx, dbus.ErrClosed), backend.CodeCanceled)
}

func TestBusAddress(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/bus", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		env  map[string]string
		want string
	}{
		"variable": {map[string]string{busVariable: "unix:path=/x", "XDG_RUNTIME_DIR": dir}, "unix:path=/x"},
		"socket":   {map[string]string{"XDG_RUNTIME_DIR": dir}, "unix:path=" + strings.ReplaceAll(dir, "/", "%2F") + "%2Fbus"},
		"launch":   {map[string]string{busVariable: "autolaunch:", "XDG_RUNTIME_DIR": "/nonexistent"}, ""},
	} {
		if got := busAddress(environment(backend.Host{LookupEnv: lookup(test.env)})); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	for address, want := range map[string]string{
		"unix:path=/run/a%20b,guid=1":  "unix /run/a b",
		"unix:abstract=/tmp/x":         "unix @/tmp/x",
		"tcp:host=127.0.0.1,port=1234": "tcp 127.0.0.1:1234",
		"unix:dir=/tmp":                "",
		"launchd:env=X":                "",
		"unix":                         "",
		"unix:path=%z":                 "",
	} {
		network, target, ok := parseAddress(address)
		if got := strings.TrimSpace(network + " " + target); got != want || ok != (want != "") {
			t.Errorf("%s: %q %v", address, got, ok)
		}
	}
}

func BenchmarkSecretServiceGet(b *testing.B) {
	for _, items := range []int{1, 1000} {
		b.Run(strconv.Itoa(items), func(b *testing.B) {
			s := secretservicetest.Start(b)
			k := open(b, secretServiceConfig(), backend.Host{LookupEnv: s.LookupEnv})
			for i := range items {
				put(b, k, strconv.Itoa(i), canary, backend.Condition{})
			}
			for b.Loop() {
				get(b, k, "0")
			}
		})
	}
}

func BenchmarkSecretServiceList(b *testing.B) {
	s := secretservicetest.Start(b)
	k := open(b, secretServiceConfig(), backend.Host{LookupEnv: s.LookupEnv})
	for i := range 1000 {
		put(b, k, strconv.Itoa(i), canary, backend.Condition{})
	}
	for b.Loop() {
		if n := len(ids(b, k, "")); n != 1000 {
			b.Fatal(n)
		}
	}
}
