package conformance

import (
	"bytes"
	"errors"
	"sync/atomic"

	"github.com/credresolve/credresolve/backend"
)

func writeCases() []Case {
	const capWrite = "write"
	exact := func(name, rule, value string, needs ...string) Case {
		return Case{
			Name: "write/" + name, Capability: capWrite, Rule: rule, Needs: append([]string{"write/put"}, needs...),
			run: func(t *trial) {
				t.holds([]byte(value))
				w, id := t.writer(), t.id(name)
				t.mustPut(w, id, []byte(value), backend.Condition{})
				t.check(w, id, []byte(value))
			},
		}
	}
	refuses := func(name, rule string, v func(t *trial) []byte) Case {
		return Case{
			Name: "write/" + name, Capability: capWrite, Rule: rule, Needs: []string{"write/put"},
			run: func(t *trial) {
				w, id, before := t.written()
				bad := v(t)
				_, err := t.putTo(w, id, bad, backend.Condition{})
				t.wantErr("Put of a value that the store cannot hold", err, backend.CodeUnsupported)
				t.check(w, id, before)
			},
		}
	}
	return []Case{
		{
			Name: "write/strength", Capability: capWrite, Rule: "Strength is store, host or none",
			run: func(t *trial) {
				w := capability[backend.Writer](t, t.open(), capWrite)
				if s := w.Strength(); s != backend.StrengthStore && s != backend.StrengthHost && s != backend.StrengthNone {
					t.Errorf("Strength: expected store, host or none, saw %s", t.canaries.hide(string(s)))
				}
			},
		},
		{
			Name: "write/put", Capability: capWrite, Rule: "Put creates and replaces, and gives the version that Get gives then", Needs: []string{"get/fresh"},
			run: func(t *trial) {
				w, id := t.writer(), t.id("put")
				for range 2 {
					v := t.canary()
					version := t.mustPut(w, id, v, backend.Condition{})
					c := t.mustGet(w, request(id))
					t.wantPlain("Get after Put", c, v)
					if c.Version != version {
						t.Errorf("the version that Put gave: expected Credential.Version, saw another or none")
					}
				}
			},
		},
		exact("white-space", "Put stores leading and trailing white space and newlines", " \t x\r\n\n", "value/white-space", "value/newlines"),
		exact("empty", "Put stores an empty value", "", "value/empty"),
		{
			Name: "write/fields", Capability: capWrite, Rule: "Put stores fields, which the caller may change then", Needs: []string{"write/put", "fields/values"},
			run: func(t *trial) {
				w, id := t.writer(), t.id("fields")
				t.need(backend.Describe(w).Fields, "the capability fields", "set Description.Fields where credentials may have fields")
				user, password := t.canary(), t.canary()
				fields := map[string]backend.Secret{"user": backend.NewSecret(user), "password": backend.NewSecret(password)}
				t.at("in Put")
				if _, err := w.Put(t.ctx, request(id), backend.Value{Fields: fields}, backend.Condition{}); err != nil {
					t.Fatalf("Put of fields: expected no error, saw %s", t.sawErr(err))
				}
				fields["user"] = backend.NewSecretString("changed by the caller")
				delete(fields, "password")
				t.wantFields(t.mustGet(w, request(id)), map[string][]byte{"user": user, "password": password})
			},
		},
		{
			Name: "write/absent", Capability: capWrite, Rule: "Put if absent creates, and is a conflict when the secret exists", Needs: []string{"write/put", "get/missing"},
			run: func(t *trial) {
				w := t.comparing()
				id, v := t.id("absent"), t.canary()
				t.mustPut(w, id, v, backend.Condition{Absent: true})
				_, err := t.putTo(w, id, t.canary(), backend.Condition{Absent: true})
				t.wantErr("Put if absent of a secret that exists", err, backend.CodeConflict)
				t.check(w, id, v)
			},
		},
		{
			Name: "write/version", Capability: capWrite, Rule: "Put if the version matches replaces that version, and is a conflict when another came", Needs: []string{"write/put"},
			run: func(t *trial) {
				w := t.comparing()
				id := t.id("version")
				first := t.mustPut(w, id, t.canary(), backend.Condition{})
				next := t.canary()
				t.mustPut(w, id, next, backend.Condition{Version: first})
				_, err := t.putTo(w, id, t.canary(), backend.Condition{Version: first})
				t.wantErr("Put if at a version that is no longer the newest", err, backend.CodeConflict)
				t.check(w, id, next)
			},
		},
		{
			Name: "write/version-of-none", Capability: capWrite, Rule: "Put if the version matches is a conflict when there is no secret", Needs: []string{"write/version", "get/missing"},
			run: func(t *trial) {
				w := t.comparing()
				version := t.mustPut(w, t.id("other"), t.canary(), backend.Condition{})
				id := t.id("none")
				_, err := t.putTo(w, id, t.canary(), backend.Condition{Version: version})
				t.wantErr("Put if at a version of a secret that does not exist", err, backend.CodeConflict)
				_, err = t.get(w, request(id))
				t.wantErr("Get after a Put that was refused", err, backend.CodeNotFound)
			},
		},
		{
			Name: "write/lost-update", Capability: capWrite, Rule: "of several Puts at once that replace one version, exactly one succeeds", Needs: []string{"write/version"},
			run: func(t *trial) {
				w := t.comparing()
				t.race(w, w)
			},
		},
		{
			Name: "write/two-backends", Capability: capWrite, Rule: "of Puts through two backends that replace one version, exactly one succeeds", Needs: []string{"write/lost-update"},
			run: func(t *trial) {
				w := t.comparing()
				other := capability[backend.Writer](t, t.openShared(), capWrite)
				t.race(w, other)
			},
		},
		{
			Name: "write/no-condition", Capability: capWrite, Rule: "a writer of strength none refuses a condition, it never ignores one", Needs: []string{"write/put"},
			run: func(t *trial) {
				w, id, before := t.written()
				t.need(w.Strength() == backend.StrengthNone, "a writer of strength none", "this one compares, see the other cases about write")
				for name, cond := range map[string]backend.Condition{"absent": {Absent: true}, "at a version": {Version: "1"}} {
					_, err := t.putTo(w, id, t.canary(), cond)
					t.wantErr("Put if "+name, err, backend.CodeUnsupported)
				}
				t.at("in Delete")
				t.wantErr("Delete if at a version", w.Delete(t.ctx, request(id), backend.Condition{Version: "1"}), backend.CodeUnsupported)
				t.check(w, id, before)
			},
		},
		{
			Name: "write/pinned", Capability: capWrite, Rule: "a version cannot be written: unsupported, and nothing changes", Needs: []string{"write/put"},
			run: func(t *trial) {
				w, id, before := t.written()
				t.at("in Put")
				_, err := w.Put(t.ctx, backend.Request{ID: id, Version: "1"}, plainValue(t.canary()), backend.Condition{})
				t.wantErr("Put of a version", err, backend.CodeUnsupported)
				t.check(w, id, before)
			},
		},
		{
			Name: "write/delete", Capability: capWrite, Rule: "Delete removes the secret", Needs: []string{"write/put", "get/removed"},
			run: func(t *trial) {
				w, id, _ := t.written()
				t.at("in Delete")
				if err := w.Delete(t.ctx, request(id), backend.Condition{}); err != nil {
					t.Errorf("Delete: expected no error, saw %s", t.sawErr(err))
				}
				_, err := t.get(w, request(id))
				t.wantErr("Get after Delete", err, backend.CodeNotFound)
			},
		},
		{
			Name: "write/delete-twice", Capability: capWrite, Rule: "Delete of a secret that does not exist is not_found", Needs: []string{"write/delete"},
			run: func(t *trial) {
				w, id, _ := t.written()
				t.at("in Delete")
				_ = w.Delete(t.ctx, request(id), backend.Condition{})
				t.wantErr("a second Delete", w.Delete(t.ctx, request(id), backend.Condition{}), backend.CodeNotFound)
			},
		},
		{
			Name: "write/delete-version", Capability: capWrite, Rule: "Delete if the version matches is a conflict when another came", Needs: []string{"write/delete", "write/version"},
			run: func(t *trial) {
				w := t.comparing()
				id := t.id("delete")
				first := t.mustPut(w, id, t.canary(), backend.Condition{})
				v := t.canary()
				second := t.mustPut(w, id, v, backend.Condition{})
				t.at("in Delete")
				err := w.Delete(t.ctx, request(id), backend.Condition{Version: first})
				t.need(!errors.Is(err, errors.ErrUnsupported), "a store that deletes under a condition", "this one cannot, and says so")
				t.wantErr("Delete if at a version that is no longer the newest", err, backend.CodeConflict)
				t.check(w, id, v)
				if err = w.Delete(t.ctx, request(id), backend.Condition{Version: second}); err != nil {
					t.Errorf("Delete if at the newest version: expected no error, saw %s", t.sawErr(err))
				}
			},
		},
		refuses("too-large", "a value that is too large is refused, never cut", func(t *trial) []byte {
			most := t.h.Limits.MaxValue
			t.need(most > 0, "a limit", "set Limits.MaxValue where the store has one")
			return randomText(int(most) + 1)
		}),
		refuses("nul", "a value with a NUL is refused by a store that cannot hold it", func(t *trial) []byte {
			t.need(t.h.Limits.NoNUL, "a limit", "set Limits.NoNUL where the store has one")
			return []byte("before\x00after")
		}),
		refuses("not-utf-8", "bytes that are not UTF-8 are refused by a store of texts", func(t *trial) []byte {
			t.need(t.h.Limits.Text, "a limit", "set Limits.Text where the store has one")
			return []byte("\xff\xfe\x80")
		}),
		refuses("no-empty", "an empty value is refused by a store that cannot hold it", func(t *trial) []byte {
			t.need(t.h.Limits.NoEmpty, "a limit", "set Limits.NoEmpty where the store has one")
			return nil
		}),
	}
}

// writer opens a backend that writes, or skips the case.
func (t *trial) writer() backend.Writer {
	return capability[backend.Writer](t, t.open(), "write")
}

// comparing opens a backend whose writes may have a condition, or skips the case.
func (t *trial) comparing() backend.Writer {
	w := t.writer()
	t.need(w.Strength() != backend.StrengthNone, "a writer of strength store or host", "this one has none")
	return w
}

// written gives a writer, and a secret that was stored through it.
func (t *trial) written() (backend.Writer, string, []byte) {
	w, id, v := t.writer(), t.id("written"), t.canary()
	t.mustPut(w, id, v, backend.Condition{})
	return w, id, v
}

func (t *trial) putTo(w backend.Writer, id string, v []byte, cond backend.Condition) (string, error) {
	t.at("in Put")
	return w.Put(t.ctx, request(id), plainValue(bytes.Clone(v)), cond)
}

func (t *trial) mustPut(w backend.Writer, id string, v []byte, cond backend.Condition) string {
	version, err := t.putTo(w, id, v, cond)
	if cond == (backend.Condition{}) {
		t.supported(err, "write")
	}
	if err != nil {
		t.Fatalf("Put: expected no error, saw %s", t.sawErr(err))
	}
	return version
}

// race lets a and b replace one version at once, several times.
func (t *trial) race(a, b backend.Writer) {
	const writers, rounds = 8, 3
	id := t.id("race")
	version := t.mustPut(a, id, t.canary(), backend.Condition{})
	for range rounds {
		var won atomic.Int32
		values := make([][]byte, writers)
		winner := make([]string, writers)
		for i := range values {
			values[i] = t.canary()
		}
		t.all(writers, func(i int) {
			w := a
			if i%2 == 1 {
				w = b
			}
			v, err := w.Put(t.ctx, request(id), plainValue(values[i]), backend.Condition{Version: version})
			switch {
			case err == nil:
				won.Add(1)
				winner[i] = v
			default:
				t.wantErr("a Put that lost", err, backend.CodeConflict)
			}
		})
		if n := won.Load(); n != 1 {
			t.Fatalf("%d Puts at once that replace one version: expected that 1 succeeds, saw %d", writers, n)
		}
		for i, v := range winner {
			if v != "" {
				t.check(a, id, values[i])
				version = v
			}
		}
	}
}
