package conformance

import (
	"bytes"
	"crypto/rand"
	"unicode/utf8"
)

func valueCases() []Case {
	value := func(name, rule string, v func(t *trial) []byte, needs ...string) Case {
		return Case{
			Name: "value/" + name, Rule: rule, Needs: append([]string{"get/value"}, needs...),
			run: func(t *trial) {
				want := v(t)
				t.holds(want)
				b, id := t.open(), t.id(name)
				t.put(id, want)
				t.check(b, id, want)
			},
		}
	}
	fixed := func(s string) func(*trial) []byte { return func(*trial) []byte { return []byte(s) } }
	return []Case{
		value("empty", "an empty value is a value", fixed("")),
		value("one-byte", "a value of one byte comes back", fixed("x")),
		value("64-kib", "a value of 64 KiB comes back whole", func(*trial) []byte { return randomText(64 << 10) }),
		value("1-mib", "a value of 1 MiB comes back whole", func(*trial) []byte { return randomText(1 << 20) }, "value/64-kib"),
		value("nul", "a NUL in a value is kept", fixed("before\x00after")),
		value("newlines", "newlines and carriage returns are kept, also at the ends", fixed("\none\r\ntwo\rthree\n\n")),
		value("white-space", "leading and trailing white space is kept", fixed(" \t x \t ")),
		value("unicode", "text is kept as it is, neither normalised nor escaped", fixed("e\u0301 \u00e9 \u65e5\u672c \U0001f511 <&> \\n \"q\" \ufeff")),
		value("not-utf-8", "bytes that are not UTF-8 are kept", fixed("\xff\xfe\x80 \xc3\x28 \xed\xa0\x80")),
		value("looks-typed", "a text that looks like a number is kept as a text", fixed("0012345678901234567890.500")),
	}
}

// holds skips the case when the store's limits exclude v.
func (t *trial) holds(v []byte) {
	l := t.h.Limits
	t.need(!l.NoEmpty || len(v) > 0, "a store that holds empty values", "Limits.NoEmpty says that this one does not")
	t.need(l.MaxValue == 0 || int64(len(v)) <= l.MaxValue, "a store that holds values of that size", "Limits.MaxValue says that this one does not")
	t.need(!l.NoNUL || !bytes.Contains(v, []byte{0}), "a store that holds NUL bytes", "Limits.NoNUL says that this one does not")
	t.need(!l.Text || utf8.Valid(v), "a store that holds bytes that are not UTF-8", "Limits.Text says that this one does not")
}

// randomText gives n random letters and digits.
func randomText(n int) []byte {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	b := make([]byte, n)
	_, _ = rand.Read(b)
	for i := range b {
		b[i] = letters[b[i]&63]
	}
	return b
}
