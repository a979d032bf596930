package backend

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
)

// Redacted is what a Secret prints as.
const Redacted = "[redacted]"

// ErrSecretMarshal is what marshalling a Secret gives, in any encoding.
var ErrSecretMarshal = errors.New("a secret cannot be marshalled: reveal it where it is needed")

// Secret holds bytes that must not be shown. Copies share the bytes; when the last one is gone, the garbage
// collector zeroes them, never while somebody uses them. The zero Secret holds no value, which differs from an
// empty value. A Secret is immutable and safe for concurrent use.
//
// The bytes are behind a closure: a fmt verb applied to a struct that has a Secret in an unexported field calls no
// method of it and would print a []byte in clear.
type Secret struct {
	lend func(func([]byte) error) error
	json bool
}

type secretBytes struct{ b []byte }

// NewSecret gives a Secret that holds a copy of b, which the caller may then overwrite.
func NewSecret(b []byte) Secret { return newSecret(bytes.Clone(b), false) }

// NewSecretString is NewSecret for a string. The string itself cannot be zeroed: prefer NewSecret.
func NewSecretString(s string) Secret { return newSecret([]byte(s), false) }

// NewJSONSecret gives a Secret whose bytes are the JSON text of a number, boolean, object, array or null, as opposed
// to a text that happens to look like one. It holds a copy of b.
func NewJSONSecret(b []byte) Secret { return newSecret(bytes.Clone(b), true) }

func newSecret(b []byte, isJSON bool) Secret {
	h := &secretBytes{b: b}
	runtime.AddCleanup(h, func(b []byte) { clear(b) }, b)
	return Secret{json: isJSON, lend: func(use func([]byte) error) error {
		err := use(h.b)
		runtime.KeepAlive(h)
		return err
	}}
}

// IsZero reports whether s holds no value at all; an empty value is a value.
func (s Secret) IsZero() bool { return s.lend == nil }

// IsJSON reports whether the bytes are the JSON text of a value that is not a string.
func (s Secret) IsJSON() bool { return s.json }

// Len is the number of bytes.
func (s Secret) Len() int {
	var n int
	_ = s.Use(func(b []byte) error { n = len(b); return nil })
	return n
}

// Reveal gives a copy of the bytes, which the caller owns and should zero after use. It is nil for the zero Secret
// and never nil otherwise.
func (s Secret) Reveal() []byte {
	var out []byte
	if s.lend != nil {
		_ = s.lend(func(b []byte) error { out = append(make([]byte, 0, len(b)), b...); return nil })
	}
	return out
}

// Use lends the bytes to use, which must neither change nor keep them, and returns its error. The zero Secret lends
// nil.
func (s Secret) Use(use func([]byte) error) error {
	if s.lend == nil {
		return use(nil)
	}
	return s.lend(use)
}

// Equal reports whether s and t hold the same bytes, in time that depends on their lengths alone.
func (s Secret) Equal(t Secret) bool {
	if s.IsZero() != t.IsZero() || s.json != t.json {
		return false
	}
	equal := false
	_ = s.Use(func(a []byte) error {
		return t.Use(func(b []byte) error {
			equal = subtle.ConstantTimeCompare(a, b) == 1
			return nil
		})
	})
	return equal
}

// Format writes Redacted under every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// String gives Redacted.
func (s Secret) String() string { return Redacted }

// GoString gives Redacted.
func (s Secret) GoString() string { return Redacted }

// LogValue gives Redacted.
func (s Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText fails with ErrSecretMarshal.
func (s Secret) MarshalText() ([]byte, error) { return nil, ErrSecretMarshal }

// MarshalJSON fails with ErrSecretMarshal.
func (s Secret) MarshalJSON() ([]byte, error) { return nil, ErrSecretMarshal }

// MarshalBinary fails with ErrSecretMarshal.
func (s Secret) MarshalBinary() ([]byte, error) { return nil, ErrSecretMarshal }
