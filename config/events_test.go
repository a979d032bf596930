package config_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
)

// A pattern that names nothing is refused with its place, when the file is read.
func TestEventsAreChecked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ refs, want string }{
		"none":                   {`[]`, ""},
		"good":                   {`[box/**, "*/ci/?", "b[a-z]x/x"]`, ""},
		"no id":                  {`[box/**, box]`, ":7:20: events.hooks[0].refs[1]: expected a pattern PROVIDER/ID"},
		"an empty id":            {`[box/]`, ":7:12: events.hooks[0].refs[0]: expected a pattern PROVIDER/ID"},
		"no provider":            {`[/x]`, ":7:12: events.hooks[0].refs[0]: expected a pattern PROVIDER/ID"},
		"an empty pattern":       {`[""]`, ":7:12: events.hooks[0].refs[0]: expected a pattern PROVIDER/ID"},
		"a bracket that is open": {`["b[ox/x"]`, ":7:12: events.hooks[0].refs[0]: expected a pattern PROVIDER/ID"},
		"an escape of nothing":   {`['box\/x']`, ":7:12: events.hooks[0].refs[0]: expected a pattern PROVIDER/ID"},
		"too long":               {`[box/` + strings.Repeat("x", 2049) + `]`, ":7:12: events.hooks[0].refs[0]: expected a pattern PROVIDER/ID"},
		"another provider":       {`[bix/**]`, `:7:12: events.hooks[0].refs[0]: no provider matches "bix"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Load(write(t, "version: 1\nproviders:\n  box: {kind: box}\nevents:\n  hooks:\n  - command: /bin/x\n    refs: "+c.refs+"\n"), registry(nil))
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, backend.ErrInvalidConfig)):
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
