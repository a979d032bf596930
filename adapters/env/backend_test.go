package env_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/adapters/env"
	"github.com/credresolve/credresolve/backend"
)

const canary = "hunter2-c4nary"

func open(t *testing.T, c env.Config, vars map[string]string) *env.Backend {
	t.Helper()
	b, err := env.New(c, backend.Host{LookupEnv: func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGet(t *testing.T) {
	t.Parallel()
	vars := map[string]string{
		"API_KEY": canary, "EMPTY": "", "BLANK": " \t", "SPACED": " x ", "OTHER": canary, "APP_A": "a", "app.b-c": "b", "APP": "no",
		"JSON": `{"user":"u","n":1.0}`,
	}
	allow := []string{"API_KEY", "EMPTY", "BLANK", "SPACED", "UNSET", "APP_*", "app.*", "JSON"}
	for _, tt := range []struct {
		name  string
		req   backend.Request
		blank bool
		want  string
		err   error
	}{
		{name: "set", req: backend.Request{ID: "API_KEY"}, want: canary},
		{name: "white space is kept", req: backend.Request{ID: "SPACED"}, want: " x "},
		{name: "by its start", req: backend.Request{ID: "APP_A"}, want: "a"},
		{name: "a name with dots", req: backend.Request{ID: "app.b-c"}, want: "b"},
		{name: "not set", req: backend.Request{ID: "UNSET"}, err: backend.ErrNotFound},
		{name: "by its start, not set", req: backend.Request{ID: "APP_NONE"}, err: backend.ErrNotFound},
		{name: "empty", req: backend.Request{ID: "EMPTY"}, err: backend.ErrNotFound},
		{name: "blank", req: backend.Request{ID: "BLANK"}, err: backend.ErrNotFound},
		{name: "empty, allowed", req: backend.Request{ID: "EMPTY"}, blank: true, want: ""},
		{name: "blank, allowed", req: backend.Request{ID: "BLANK"}, blank: true, want: " \t"},
		{name: "not set, blank allowed", req: backend.Request{ID: "UNSET"}, blank: true, err: backend.ErrNotFound},
		{name: "set but not allowed", req: backend.Request{ID: "OTHER"}, err: backend.ErrDenied},
		{name: "neither set nor allowed", req: backend.Request{ID: "NONE"}, err: backend.ErrDenied},
		{name: "shorter than the start", req: backend.Request{ID: "APP"}, err: backend.ErrDenied},
		{name: "another case", req: backend.Request{ID: "api_key"}, err: backend.ErrDenied},
		{name: "a pattern", req: backend.Request{ID: "APP_*"}, err: backend.ErrInvalidID},
		{name: "no name", req: backend.Request{}, err: backend.ErrInvalidID},
		{name: "a digit first", req: backend.Request{ID: "1A"}, err: backend.ErrInvalidID},
		{name: "an assignment", req: backend.Request{ID: "API_KEY=" + canary}, err: backend.ErrInvalidID},
		{name: "a NUL", req: backend.Request{ID: "API_KEY\x00"}, err: backend.ErrInvalidID},
		{name: "a version", req: backend.Request{ID: "API_KEY", Version: "1"}, err: errors.ErrUnsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := open(t, env.Config{Allow: allow, AllowBlank: tt.blank}, vars)
			c, err := b.Get(t.Context(), tt.req)
			if tt.err != nil {
				if !errors.Is(err, tt.err) || c != nil {
					t.Errorf("got %v, %v; want %v", c, err, tt.err)
				} else if strings.Contains(err.Error(), canary) {
					t.Errorf("the error holds a value: %v", err)
				}
				return
			}
			if err != nil || string(c.Secret.Reveal()) != tt.want || c.Fields != nil {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	c, err := open(t, env.Config{Allow: allow}, vars).Get(t.Context(), backend.Request{ID: "JSON"})
	if err != nil || string(c.Fields["user"].Reveal()) != "u" || string(c.Fields["n"].Reveal()) != "1.0" || string(c.Secret.Reveal()) != vars["JSON"] {
		t.Errorf("a JSON object: %v, %v", c, err)
	}
}

func TestEnvironmentOfTheProcess(t *testing.T) {
	t.Setenv("CREDRESOLVE_ENV_TEST_A", "a")
	t.Setenv("CREDRESOLVE_ENV_TEST_B", "b")
	t.Setenv("CREDRESOLVE_ENV_TEST_BLANK", " ")
	t.Setenv("CREDRESOLVE_ENV_OTHER", "o")
	b, err := env.New(env.Config{Allow: []string{"CREDRESOLVE_ENV_TEST_*", "CREDRESOLVE_ENV_TEST_A", "CREDRESOLVE_ENV_UNSET"}}, backend.Host{})
	if err != nil {
		t.Fatal(err)
	}
	if c, err := b.Get(t.Context(), backend.Request{ID: "CREDRESOLVE_ENV_TEST_B"}); err != nil || string(c.Secret.Reveal()) != "b" {
		t.Errorf("got %v, %v", c, err)
	}
	for prefix, want := range map[string][]string{
		"":                       {"CREDRESOLVE_ENV_TEST_A", "CREDRESOLVE_ENV_TEST_B"},
		"CREDRESOLVE_ENV_TEST_B": {"CREDRESOLVE_ENV_TEST_B"},
		"CREDRESOLVE_ENV_O":      nil,
	} {
		var got []string
		for e, err := range b.List(t.Context(), prefix) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("under %q: %q, want %q", prefix, got, want)
		}
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	b := open(t, env.Config{Allow: []string{"A"}}, map[string]string{"A": "x"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Get(ctx, backend.Request{ID: "A"}); !errors.Is(err, context.Canceled) {
		t.Errorf("Get: %v", err)
	}
	for _, err := range b.List(ctx, "") {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("List: %v", err)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, allow := range [][]string{nil, {}, {""}, {"A", "B C"}, {"A*B"}, {"**"}, {"=" + canary}, {"1*"}} {
		if _, err := env.New(env.Config{Allow: allow}, backend.Host{}); !errors.Is(err, backend.ErrInvalidConfig) {
			t.Errorf("allow %q: %v, want ErrInvalidConfig", allow, err)
		} else if strings.Contains(err.Error(), canary) {
			t.Errorf("the error repeats the input: %v", err)
		}
	}
	b, err := env.Kind().Open(&env.Config{Allow: []string{"*"}}, backend.Host{})
	if err != nil || !backend.Describe(b).CallerBound {
		t.Errorf("got %v, %v; want a provider bound to its caller", b, err)
	}
	reach := env.Config{Allow: []string{"A", "B_*"}}.Reach()
	if want := []backend.Reach{{What: backend.ReachEnvironment, Value: "A"}, {What: backend.ReachEnvironment, Value: "B_*"}}; !slices.Equal(reach, want) {
		t.Errorf("Reach = %v, want %v", reach, want)
	}
}
