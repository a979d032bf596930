package credref

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"
)

// Scheme is the URI scheme of the short form.
const Scheme = "cred"

// Limits of a Ref's parts, in bytes.
const (
	MaxProvider = 64
	MaxID       = 2048
	MaxVersion  = 512
	MaxField    = 2048
)

// ErrMalformed is wrapped by every error of this package. The text of such an error names the part that is
// wrong and never repeats the input, since what was put in the place of a ref may be a secret.
var ErrMalformed = errors.New("malformed credential reference")

// Ref is a CredentialRef: a pointer to a credential, never the credential itself. It is comparable and can key
// a map. The zero Ref is not valid.
type Ref struct {
	// Provider is the name of a configured provider: ^[a-z][a-z0-9_-]{0,63}$.
	Provider string `json:"provider"`
	// ID names the secret as its store does: 1 to 2,048 bytes of UTF-8 without control characters.
	ID string `json:"id"`
	// Version pins a version or a stage; empty means the current one. A provider without versions refuses it.
	Version string `json:"version,omitempty"`
	// Field selects one field of a structured secret: a key, or an RFC 6901 JSON Pointer when it starts with
	// "/". Empty means the whole secret, or its only field.
	Field string `json:"field,omitempty"`
}

// Validate reports the first part of r that breaks the grammar; the error wraps ErrMalformed.
func (r Ref) Validate() error {
	if err := ValidateProvider(r.Provider); err != nil {
		return err
	}
	if r.ID == "" {
		return fmt.Errorf("%w: the id is empty", ErrMalformed)
	}
	if err := validText("id", r.ID, MaxID); err != nil {
		return err
	}
	if err := validText("version", r.Version, MaxVersion); err != nil {
		return err
	}
	if err := validText("field", r.Field, MaxField); err != nil {
		return err
	}
	if strings.HasPrefix(r.Field, "/") && !validPointer(r.Field) {
		return fmt.Errorf("%w: the field is not a JSON Pointer: ~ must be written ~0, and / within a key ~1", ErrMalformed)
	}
	return nil
}

// ValidateProvider reports whether name can name a provider: ^[a-z][a-z0-9_-]{0,63}$.
func ValidateProvider(name string) error {
	if name == "" {
		return fmt.Errorf("%w: the provider is empty", ErrMalformed)
	}
	if len(name) > MaxProvider {
		return fmt.Errorf("%w: the provider is longer than %d bytes", ErrMalformed, MaxProvider)
	}
	for i, c := range []byte(name) {
		lower := 'a' <= c && c <= 'z'
		if lower || i > 0 && ('0' <= c && c <= '9' || c == '_' || c == '-') {
			continue
		}
		return fmt.Errorf("%w: the provider must match ^[a-z][a-z0-9_-]{0,63}$", ErrMalformed)
	}
	return nil
}

func validText(part, s string, limit int) error {
	switch {
	case len(s) > limit:
		return fmt.Errorf("%w: the %s is longer than %d bytes", ErrMalformed, part, limit)
	case !utf8.ValidString(s):
		return fmt.Errorf("%w: the %s is not valid UTF-8", ErrMalformed, part)
	}
	for _, c := range s {
		if c < 0x20 || 0x7f <= c && c < 0xa0 {
			return fmt.Errorf("%w: the %s holds a control character", ErrMalformed, part)
		}
	}
	return nil
}

func validPointer(s string) bool {
	for {
		_, rest, found := strings.Cut(s, "~")
		if !found {
			return true
		}
		if rest == "" || rest[0] != '0' && rest[0] != '1' {
			return false
		}
		s = rest[1:]
	}
}

// IsShortForm reports whether s looks like the short form, well formed or not: it starts with "cred://".
func IsShortForm(s string) bool { return strings.HasPrefix(s, Scheme+"://") }

// Parse reads the short form cred://provider/id?version=3#field, each part percent-encoded as RFC 3986 says.
// The result is valid, and Parse(r.String()) gives r again. Its error wraps ErrMalformed.
func Parse(s string) (Ref, error) {
	rest, ok := strings.CutPrefix(s, Scheme+"://")
	if !ok {
		return Ref{}, fmt.Errorf("%w: it must start with %s://", ErrMalformed, Scheme)
	}
	rest, fragment, hasFragment := strings.Cut(rest, "#")
	rest, query, hasQuery := strings.Cut(rest, "?")
	provider, id, ok := strings.Cut(rest, "/")
	if !ok {
		return Ref{}, fmt.Errorf("%w: it must have the form cred://provider/id", ErrMalformed)
	}
	r := Ref{Provider: provider}
	var err error
	if r.ID, err = decode("id", id); err != nil {
		return Ref{}, err
	}
	if hasQuery {
		key, value, _ := strings.Cut(query, "=")
		if key != "version" || strings.Contains(value, "&") {
			return Ref{}, fmt.Errorf("%w: the only query parameter is version; write a ? of an id as %%3F", ErrMalformed)
		}
		if r.Version, err = decode("version", value); err != nil {
			return Ref{}, err
		}
		if r.Version == "" {
			return Ref{}, fmt.Errorf("%w: the version is empty", ErrMalformed)
		}
	}
	if hasFragment {
		if r.Field, err = decode("field", fragment); err != nil {
			return Ref{}, err
		}
		if r.Field == "" {
			return Ref{}, fmt.Errorf("%w: the field is empty", ErrMalformed)
		}
	}
	return r, r.Validate()
}

func decode(part, s string) (string, error) {
	out, err := url.PathUnescape(s)
	if err != nil {
		return "", fmt.Errorf("%w: the %s has a %% that is not followed by two hexadecimal digits", ErrMalformed, part)
	}
	return out, nil
}

// String gives the short form. It is not a secret, but an id can tell what a system does.
func (r Ref) String() string {
	var b strings.Builder
	b.Grow(len(Scheme) + 4 + len(r.Provider) + len(r.ID) + len(r.Version) + len(r.Field))
	b.WriteString(Scheme + "://")
	b.WriteString(r.Provider)
	b.WriteByte('/')
	encode(&b, r.ID)
	if r.Version != "" {
		b.WriteString("?version=")
		encode(&b, r.Version)
	}
	if r.Field != "" {
		b.WriteByte('#')
		encode(&b, r.Field)
	}
	return b.String()
}

// encode writes s with everything but RFC 3986's pchar and "/" percent-encoded, and "&" too, which keeps a
// version apart from a second parameter.
func encode(b *strings.Builder, s string) {
	const upperHex = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			strings.IndexByte("-._~!$'()*+,;=:@/", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
	}
}
