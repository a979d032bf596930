package openclawexec

import (
	"fmt"
	"strings"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// MaxID is the longest id that the client carries, in bytes.
const MaxID = 256

// encoded begins the encoded form of a ref. No other form of an id begins so: the name of a provider has no colon.
const encoded = "x:"

// ValidID reports whether the client carries id: by the rules of OpenClaw 2026.9.6 it matches
// ^[A-Za-z0-9][A-Za-z0-9._:/#-]{0,255}$, and no segment is "." or "..".
func ValidID(id string) bool {
	if id == "" || len(id) > MaxID {
		return false
	}
	for i, c := range []byte(id) {
		word := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !word && (i == 0 || strings.IndexByte("._:/#-", c) < 0) {
			return false
		}
	}
	for segment := range strings.SplitSeq(id, "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

// Names says what ids mean beside their plain and their encoded form. The zero Names adds nothing. It is safe for concurrent
// use while nobody changes it.
type Names struct {
	// Aliases are refs by the id that stands for them.
	Aliases map[string]credref.Ref
	// Vault is the provider whose secrets the ids <path>/<field> name. Empty: there are no such ids.
	Vault string
	// VaultPath goes in front of their path, the mount of an engine, for a provider whose ids begin with one.
	VaultPath string
	// Only is the one provider that an id may name. Empty: any.
	Only string
}

// Ref gives the ref that id stands for. Its error is an ErrInvalidID, which tells the form that an id has and not the id.
func (n Names) Ref(id string) (credref.Ref, error) {
	if ref, ok := n.Aliases[id]; ok {
		return ref, nil
	}
	if !ValidID(id) {
		return credref.Ref{}, &backend.Error{
			Code:   backend.CodeInvalidID,
			Reason: `the id does not match ^[A-Za-z0-9][A-Za-z0-9._:/#-]{0,255}$, or has a segment "." or ".."`,
			Remedy: "make one with: credresolve openclaw-exec --id REF",
		}
	}
	var ref credref.Ref
	var err error
	switch {
	case strings.HasPrefix(id, encoded):
		ref, err = Decode(id)
	case n.Vault != "":
		ref, err = n.vault(id)
	default:
		ref, err = plain(id)
	}
	if err == nil && n.Only != "" && ref.Provider != n.Only {
		err = backend.Errorf(backend.CodeInvalidID, "the id names another provider than %s, which is the only one here", n.Only)
	}
	return ref, err
}

// plain reads <provider>/<id>[#<field>].
func plain(id string) (credref.Ref, error) {
	rest, field, hasField := strings.Cut(id, "#")
	provider, name, ok := strings.Cut(rest, "/")
	ref := credref.Ref{Provider: provider, ID: name, Field: field}
	switch {
	case !ok || name == "":
		return ref, &backend.Error{
			Code: backend.CodeInvalidID, Reason: "the id is no alias and does not have the form <provider>/<id> or <provider>/<id>#<field>",
			Remedy: "name a provider, or add an alias under openclaw.aliases",
		}
	case hasField && field == "":
		return ref, backend.Errorf(backend.CodeInvalidID, "the id ends with #, without a field")
	}
	return ref, invalid(ref.Validate())
}

// vault reads <path>/<field>.
func (n Names) vault(id string) (credref.Ref, error) {
	for segment := range strings.SplitSeq(id, "/") {
		if segment == "" {
			return credref.Ref{}, backend.Errorf(backend.CodeInvalidID, "the id has an empty segment")
		}
	}
	i := strings.LastIndexByte(id, '/')
	if i < 0 {
		return credref.Ref{}, backend.Errorf(backend.CodeInvalidID, "the id is no alias and does not have the form <path>/<field>")
	}
	ref := credref.Ref{Provider: n.Vault, ID: id[:i], Field: id[i+1:]}
	if n.VaultPath != "" {
		ref.ID = n.VaultPath + "/" + ref.ID
	}
	return ref, invalid(ref.Validate())
}

func invalid(err error) error {
	if err == nil {
		return nil
	}
	return backend.Errorf(backend.CodeInvalidID, "%v", err)
}

// ID gives the id that stands for ref: the plain form where that can say it, else the encoded one. Its error is an
// ErrInvalidID where both are longer than the client carries, and where ref is not valid.
func ID(ref credref.Ref) (string, error) {
	if err := ref.Validate(); err != nil {
		return "", backend.Errorf(backend.CodeInvalidID, "%v", err)
	}
	id := ref.Provider + "/" + ref.ID
	if ref.Field != "" {
		id += "#" + ref.Field
	}
	if ValidID(id) {
		if again, err := plain(id); err == nil && again == ref { // of a version, or a # in the id, it is another
			return id, nil
		}
	}
	id = Encode(ref)
	if len(id) > MaxID {
		return "", &backend.Error{
			Code:   backend.CodeInvalidID,
			Reason: fmt.Sprintf("the id would have %d bytes, more than the %d that OpenClaw takes", len(id), MaxID),
			Remedy: "give the reference an alias under openclaw.aliases",
		}
	}
	return id, nil
}

// Encode gives the encoded form of ref: "x:" and then provider, "/" and id, "#" and field, "#" and version, the last two only
// where there is one or the next. In each part a letter, a digit, ".", "_", "-" and, in the id and the field, "/" stand for
// themselves, and any other byte is ":" and two hexadecimal digits; so is a "." that would make a segment "." or "..". It can
// be longer than MaxID.
func Encode(ref credref.Ref) string {
	var b strings.Builder
	b.WriteString(encoded)
	b.WriteString(ref.Provider)
	b.WriteByte('/')
	escape(&b, ref.ID)
	if ref.Field != "" || ref.Version != "" {
		b.WriteByte('#')
		escape(&b, ref.Field)
	}
	if ref.Version != "" {
		b.WriteByte('#')
		escape(&b, ref.Version)
	}
	return b.String()
}

func escape(b *strings.Builder, part string) {
	const digits = "0123456789abcdef"
	for i, segment := range strings.Split(part, "/") {
		if i > 0 {
			b.WriteByte('/')
		}
		dots := segment == "." || segment == ".."
		for _, c := range []byte(segment) {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-', c == '.' && !dots:
				b.WriteByte(c)
			default:
				b.WriteByte(':')
				b.WriteByte(digits[c>>4])
				b.WriteByte(digits[c&15])
			}
		}
	}
}

// Decode reads the encoded form of a ref: Decode(Encode(ref)) is ref. Its error is an ErrInvalidID.
func Decode(id string) (credref.Ref, error) {
	malformed := &backend.Error{
		Code: backend.CodeInvalidID, Reason: `the id begins with "x:" and is no encoded reference`,
		Remedy: "make one with: credresolve openclaw-exec --id REF",
	}
	rest, ok := strings.CutPrefix(id, encoded)
	if !ok {
		return credref.Ref{}, malformed
	}
	parts := strings.Split(rest, "#")
	provider, name, ok := strings.Cut(parts[0], "/")
	// An empty part at the end would be a second way to say the same.
	if !ok || len(parts) > 3 || len(parts) > 1 && parts[len(parts)-1] == "" {
		return credref.Ref{}, malformed
	}
	ref := credref.Ref{Provider: provider}
	if ref.ID, ok = unescape(name); !ok {
		return credref.Ref{}, malformed
	}
	if len(parts) > 1 {
		if ref.Field, ok = unescape(parts[1]); !ok {
			return credref.Ref{}, malformed
		}
	}
	if len(parts) > 2 {
		if ref.Version, ok = unescape(parts[2]); !ok {
			return credref.Ref{}, malformed
		}
	}
	return ref, invalid(ref.Validate())
}

func unescape(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != ':' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		hi, ok := hexDigit(s[i+1])
		lo, okToo := hexDigit(s[i+2])
		if !ok || !okToo {
			return "", false
		}
		b.WriteByte(hi<<4 | lo)
		i += 2
	}
	return b.String(), true
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// NoSuchID is an id that the client carries and that stands for nothing, whatever the configuration: it is answered with an
// error of its own by who can answer at all.
const NoSuchID = "x:"
