//go:build unix

package secretref_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/secretref"
)

// canary is a value that must show nowhere.
const canary = "sk-c4nary-5f0c7d"

// providersOf has one provider of each source that holds the canary, and some that fail while they do.
func providersOf(t *testing.T) (secretref.Config, secretref.Host, []secretref.Ref) {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	script := func(name string, actions ...action) []string {
		text, err := json.Marshal(actions)
		if err != nil {
			t.Fatal(err)
		}
		return []string{"play", write(name, string(text))}
	}
	exec := func(args []string) secretref.Provider {
		return secretref.Provider{Source: secretref.Exec, Exec: &secretref.ExecProvider{Command: self, Args: args, Env: map[string]backend.Secret{"TOKEN": backend.NewSecretString(canary)}, Timeout: 60e9}}
	}
	file := func(p secretref.FileProvider) secretref.Provider {
		return secretref.Provider{Source: secretref.File, File: &p}
	}
	config := secretref.Config{Providers: map[string]secretref.Provider{
		"good":    exec(script("good", action{Out: `{"protocolVersion":1,"values":{"a":"` + canary + `","b":{"k":"` + canary + `"}},"errors":{"c":{"code":"` + canary + `","message":"` + canary + `"}}}`})),
		"broken":  exec(script("broken", action{Out: canary, Err: canary})),
		"failing": exec(script("failing", action{Out: canary, Err: canary}, action{Exit: 3})),
		"json":    file(secretref.FileProvider{Path: write("json", `{"a":"`+canary+`","l":["`+canary+`"]}`)}),
		"half":    file(secretref.FileProvider{Path: write("half", `{"a":"`+canary)}),
		"one":     file(secretref.FileProvider{Path: write("one", canary), Mode: secretref.ModeSingleValue}),
		"small":   file(secretref.FileProvider{Path: write("small", canary), MaxBytes: 3}),
	}}
	host := secretref.Host{Dir: dir, LookupEnv: func(name string) (string, bool) { return canary, name == "A" }}
	var refs []secretref.Ref
	for _, key := range []string{
		"exec:good:a", "exec:good:b", "exec:good:c", "exec:good:d", "exec:broken:a", "exec:failing:a", "file:json:/a", "file:json:/a/b", "file:json:/l/7",
		"file:half:/a", "file:one:value", "file:one:/a", "file:small:/a", "env:default:A", "env:default:B", "store:default:A", "env:none:A", "env:default:a",
	} {
		parts := strings.SplitN(key, ":", 3)
		refs = append(refs, secretref.Ref{Source: secretref.Source(parts[0]), Provider: parts[1], ID: parts[2]})
	}
	return config, host, refs
}

func TestNothingShowsAValue(t *testing.T) {
	t.Parallel()
	config, host, refs := providersOf(t)
	outcomes := secretref.Resolve(context.Background(), config, host, refs)
	found := 0
	var log strings.Builder
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	show := func(what any) {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			text := fmt.Sprintf(verb, what)
			if strings.Contains(text, canary) || strings.Contains(text, fmt.Sprintf("%x", canary)) {
				t.Errorf("%s of %T shows a value", verb, what)
			}
		}
		logger.Info("x", "what", what)
	}
	for _, o := range outcomes {
		if o.Err == nil {
			found++
			if text := string(o.Value.Reveal()); !strings.Contains(text, canary) {
				t.Errorf("%s is %q", o.Ref.Key(), text)
			}
			show(secretref.CheckValue("a.b", o.Value, secretref.String))
			o.Err = secretref.CheckValue("a.b", o.Value, "")
		}
		show(o)
		show(&o)
		show(struct{ hidden secretref.Outcome }{o})
		show(o.Err)
	}
	if want := 6; found != want {
		t.Errorf("%d values, want %d", found, want)
	}
	show(outcomes)
	show(config)
	show(config.Providers["good"])
	show(*config.Providers["good"].Exec)
	show(struct{ Any any }{config.Providers["good"].Exec})
	show(struct{ hidden secretref.Config }{config})
	show(struct{ hidden secretref.ExecProvider }{*config.Providers["good"].Exec})
	if strings.Contains(log.String(), canary) {
		t.Error("the log shows a value")
	}
}

func TestCanceledPass(t *testing.T) {
	t.Parallel()
	config, host, refs := providersOf(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, o := range secretref.Resolve(ctx, config, host, refs) {
		var e *secretref.Error
		if grammar := (secretref.Grammar{}).Check(o.Ref); grammar == nil && !errors.Is(o.Err, context.Canceled) || errors.As(o.Err, &e) {
			t.Errorf("%s: %v, want the context's error", o.Ref.Key(), o.Err)
		}
	}
}

func TestCanceledWhileAProgramRuns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte(`[{"sleep":"1h"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	config := secretref.Config{Providers: map[string]secretref.Provider{
		"p": {Source: secretref.Exec, Exec: &secretref.ExecProvider{Command: self, Args: []string{"play", script}, Timeout: 3600e9}},
	}}
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		for {
			if _, err := os.Stat(filepath.Join(dir, "starts")); err == nil {
				cancel(nil)
				return
			}
		}
	}()
	o := secretref.Resolve(ctx, config, secretref.Host{}, []secretref.Ref{{Source: secretref.Exec, Provider: "p", ID: "a"}})[0]
	if !errors.Is(o.Err, context.Canceled) {
		t.Errorf("got %v, want the context's error", o.Err)
	}
}

func TestHostWithoutAHome(t *testing.T) {
	t.Parallel()
	config := secretref.Config{Providers: map[string]secretref.Provider{"f": {Source: secretref.File, File: &secretref.FileProvider{Path: "~/x"}}}}
	o := secretref.Resolve(context.Background(), config, secretref.Host{}, []secretref.Ref{{Source: secretref.File, Provider: "f", ID: "/a"}})[0]
	if want := "secrets.providers.f.path must be an absolute path."; o.Err == nil || o.Err.Error() != want {
		t.Errorf("got %v, want %s", o.Err, want)
	}
}

func TestOwnersOfTheHost(t *testing.T) {
	t.Parallel()
	config, host, _ := providersOf(t)
	refs := []secretref.Ref{{Source: secretref.File, Provider: "json", ID: "/a"}, {Source: secretref.Exec, Provider: "good", ID: "a"}}
	self := os.Geteuid()
	for _, c := range []struct {
		owners []int
		good   bool
	}{{nil, true}, {[]int{self}, true}, {[]int{self + 1, self}, true}, {[]int{self + 1}, false}} {
		host.Owners = c.owners
		for _, o := range secretref.Resolve(context.Background(), config, host, refs) {
			if (o.Err == nil) != c.good {
				t.Errorf("owners %v: %s gives %v", c.owners, o.Ref.Key(), o.Err)
			}
			if want := fmt.Sprintf("(uid=%d)", self+1); !c.good && !strings.Contains(o.Err.Error(), want) {
				t.Errorf("owners %v: %v, want %s", c.owners, o.Err, want)
			}
		}
	}
}

func TestNoRefs(t *testing.T) {
	t.Parallel()
	if got := secretref.Resolve(context.Background(), secretref.Config{}, secretref.Host{}, nil); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestParseCompat(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]secretref.Compat{"": secretref.Newest, "newest": secretref.Newest, "2026.3.2": secretref.V2026_3_2} {
		if got, err := secretref.ParseCompat(text); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	if _, err := secretref.ParseCompat("2025.1.1"); err == nil {
		t.Error("an unknown release is known")
	}
}

func ExampleResolve() {
	config, err := secretref.DecodeConfig(map[string]any{
		"providers": map[string]any{"shell": map[string]any{"source": "env", "allowlist": []any{"API_KEY"}}},
	}, secretref.Newest)
	if err != nil {
		fmt.Println(err)
		return
	}
	host := secretref.Host{LookupEnv: func(name string) (string, bool) {
		value, ok := map[string]string{"API_KEY": "k-1", "OTHER": "x"}[name]
		return value, ok
	}}
	for _, o := range secretref.Resolve(context.Background(), config, host, []secretref.Ref{
		{Source: secretref.Env, Provider: "shell", ID: "API_KEY"},
		{Source: secretref.Env, Provider: "shell", ID: "OTHER"},
	}) {
		if o.Err == nil {
			o.Err = secretref.CheckValue("models.providers.openai.apiKey", o.Value, secretref.String)
		}
		fmt.Println(o.Ref.Key(), o.Value, o.Err)
	}
	// Output:
	// env:shell:API_KEY [redacted] <nil>
	// env:shell:OTHER [redacted] Environment variable "OTHER" is not allowlisted in secrets.providers.shell.allowlist.
}

func TestProviderEqual(t *testing.T) {
	t.Parallel()
	decode := func(text string) secretref.Provider {
		var v any
		if err := json.Unmarshal([]byte(`{"providers":{"p":`+text+`}}`), &v); err != nil {
			t.Fatal(err)
		}
		c, err := secretref.DecodeConfig(v, secretref.Newest)
		if err != nil {
			t.Fatal(err)
		}
		return c.Providers["p"]
	}
	different := []string{
		`{"source":"env"}`, `{"source":"env","allowlist":[]}`, `{"source":"env","allowlist":["A"]}`, `{"source":"store"}`,
		`{"source":"file","path":"/x"}`, `{"source":"file","path":"/y"}`, `{"source":"file","path":"/x","maxBytes":5}`,
		`{"source":"exec","command":"/x"}`, `{"source":"exec","command":"/x","env":{}}`, `{"source":"exec","command":"/x","env":{"A":"b"}}`,
		`{"source":"exec","command":"/x","env":{"A":"c"}}`, `{"source":"exec","command":"/x","env":{"B":"b"}}`, `{"source":"exec","command":"/x","args":["a"]}`,
	}
	for i, a := range different {
		for j, b := range different {
			if got := decode(a).Equal(decode(b)); got != (i == j) {
				t.Errorf("%s equals %s: %t", a, b, got)
			}
		}
	}
}
