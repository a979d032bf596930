package conformance

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
)

func getCases() []Case {
	return []Case{
		{
			Name: "open/no-io", Rule: "opening a backend does no I/O",
			run: func(t *trial) {
				d := t.dialer()
				t.openThrough(d)
				pause(2 * time.Millisecond)
				if n := d.accepted.Load(); n > 0 {
					t.Errorf("opening: expected no connection to the store, saw %d", n)
				}
			},
		},
		{
			Name: "get/value", Rule: "Get gives the secret that is stored",
			run: func(t *trial) {
				b := t.open()
				id, v := t.stored()
				t.check(b, id, v)
			},
		},
		{
			Name: "get/identity", Rule: "the same request gives the same credential, and another id another one",
			Needs: []string{"get/value"},
			run: func(t *trial) {
				b := t.open()
				id1, v1 := t.stored()
				id2, v2 := t.stored()
				first := t.mustGet(b, request(id1))
				t.check(b, id2, v2)
				again := t.mustGet(b, request(id1))
				t.wantPlain("a second Get, after one of another id", again, v1)
				if what := differs(first, again); what != "" {
					t.Errorf("two Gets of an unchanged secret: expected the same credential, saw another %s", what)
				}
				if !slices.Contains(append(backend.Types(), ""), first.Type) {
					t.Errorf("Credential.Type: expected one of backend.Types or none, saw %s", t.canaries.hide(string(first.Type)))
				}
			},
		},
		{
			Name: "get/fresh", Rule: "nothing is cached: the next Get shows what was stored since",
			Needs: []string{"get/value"},
			run: func(t *trial) {
				b := t.open()
				id, v := t.stored()
				t.check(b, id, v)
				next := t.canary()
				t.put(id, next)
				t.wantPlain("Get after the store changed", t.mustGet(b, request(id)), next)
			},
		},
		{
			Name: "get/immutable", Rule: "a credential does not change after it was returned, and who revealed it may overwrite the bytes",
			Needs: []string{"get/fresh"},
			run: func(t *trial) {
				b := t.open()
				id, v := t.stored()
				c := t.mustGet(b, request(id))
				s, _ := plainOf(c)
				clear(s.Reveal())
				next := t.canary()
				t.put(id, next)
				t.check(b, id, next)
				t.wantPlain("a credential that was returned before the store changed", c, v)
			},
		},
		{
			Name: "get/missing", Rule: "a secret that does not exist is not_found, and nothing else",
			Needs: []string{"get/value"},
			run: func(t *trial) {
				b := t.open()
				id, v := t.stored()
				t.check(b, id, v)
				c, err := t.get(b, request(t.id("missing")))
				if t.wantErr("Get of a secret that does not exist", err, backend.CodeNotFound) && c != nil {
					t.Errorf("Get of a secret that does not exist: expected no credential beside the error, saw one")
				}
			},
		},
		{
			Name: "get/removed", Rule: "a secret that was removed is not_found",
			Needs: []string{"get/fresh", "get/missing"},
			run: func(t *trial) {
				b := t.open()
				id, v := t.stored()
				t.check(b, id, v)
				t.remove(id)
				_, err := t.get(b, request(id))
				t.wantErr("Get of a secret that was removed", err, backend.CodeNotFound)
			},
		},
		{
			Name: "get/invalid-id", Rule: "an id that can never exist is invalid_id, which nobody mistakes for a missing secret",
			run: func(t *trial) {
				t.need(len(t.h.InvalidIDs) > 0, "an id that can never exist", "set Harness.InvalidIDs")
				b := t.open()
				for _, id := range t.h.InvalidIDs {
					_, err := t.get(b, request(id))
					t.wantErr("Get of the invalid id "+t.canaries.hide(id), err, backend.CodeInvalidID)
				}
			},
		},
		{
			Name: "get/hostile-ids", Rule: "a hostile id gives an error: no credential, no panic, no hang",
			Needs: []string{"get/value"},
			run: func(t *trial) {
				b := t.open()
				id, v := t.stored()
				t.check(b, id, v)
				for name, hostile := range hostileIDs(id) {
					var c *backend.Credential
					var err error
					t.at("in Get of " + name)
					if !t.within(someTime, func() { c, err = b.Get(t.ctx, request(hostile)) }) {
						t.Errorf("Get of %s: expected an answer within %v, saw none", name, someTime)
						continue
					}
					if err == nil {
						t.Errorf("Get of %s: expected an error, saw %s", name, t.saw(c, err))
					}
				}
			},
		},
		{
			Name: "error/type", Rule: "an error is a *backend.Error or the error of a context",
			Needs: []string{"get/missing"},
			run: func(t *trial) {
				b := t.open()
				t.stored()
				_, err := t.get(b, request(t.id("missing")))
				if e := new(backend.Error); !errors.As(err, &e) || e.Code != backend.CodeNotFound {
					t.Errorf("Get of a secret that does not exist: expected a *backend.Error of code not_found, saw a %T", err)
				}
			},
		},
		{
			Name: "error/text", Rule: "the text of an error is one or two lines that begin in lower case",
			Needs: []string{"get/missing"},
			run: func(t *trial) {
				b := t.open()
				t.stored()
				_, err := t.get(b, request(t.id("missing")))
				text := err.Error()
				switch first := firstLetter(text); {
				case strings.TrimSpace(text) == "":
					t.Errorf("the text of an error: expected what failed and why, saw none")
				case strings.Count(text, "\n") > 1 || len(text) > 1000:
					t.Errorf("the text of an error: expected two lines and 1,000 bytes at most, saw %d and %d", strings.Count(text, "\n")+1, len(text))
				case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f }):
					t.Errorf("the text of an error: expected no control characters, saw %s", t.canaries.hide(text))
				case first >= 'A' && first <= 'Z':
					t.Errorf("the text of an error: expected it to begin in lower case, saw %s", t.canaries.hide(text))
				}
			},
		},
	}
}

// hostileIDs are ids of which no store holds one; id is one that is there.
func hostileIDs(id string) map[string]string {
	return map[string]string{
		"an empty id":                 "",
		"a blank id":                  " ",
		"an id with a NUL":            id + "\x00",
		"an id with a newline":        id + "\nX-Injected: 1",
		"an id that is not UTF-8":     id + "\xff\xfe",
		"an id that climbs":           id + "/../../../../etc/passwd",
		"an id of dots":               "..",
		"an id with a query":          id + "?x=1&list=true",
		"an id with a fragment":       id + "#field",
		"an id with percent escapes":  id + "%2f..%2f%00",
		"an id like an option":        "--help",
		"an id with a format":         id + "%s%n%d",
		"an id with a template":       id + "{{.}}${HOME}$(id)`id`",
		"an id with quotes":           id + `"';--`,
		"an id of 64 KiB":             id + strings.Repeat("a", 64<<10),
		"an id of 100 path segments":  id + strings.Repeat("/a", 100),
		"an id from right to left":    id + "\u202e\u2066",
		"an id with a wildcard":       id[:len(id)-1] + "*",
		"an id that begins another's": id[:len(id)-1],
	}
}

func firstLetter(s string) byte {
	if s == "" {
		return 0
	}
	return s[0]
}

// differs names what tells a from b; empty when nothing does.
func differs(a, b *backend.Credential) string {
	switch {
	case a.Type != b.Type:
		return "type"
	case a.Version != b.Version:
		return "version"
	case !a.Secret.Equal(b.Secret):
		return "secret"
	case !maps.EqualFunc(a.Fields, b.Fields, backend.Secret.Equal):
		return "fields"
	case !maps.Equal(a.Metadata, b.Metadata):
		return "metadata"
	}
	return ""
}
