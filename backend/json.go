package backend

import (
	"bytes"
	"encoding/json"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// FieldsFromJSON splits the text of a JSON object into its members: a string member is its text, another its JSON text.
// It reports false, and no fields, when b is not exactly one JSON object. Of duplicate keys the last wins.
func FieldsFromJSON(b []byte) (map[string]Secret, bool) {
	if t := bytes.TrimLeft(b, jsonSpace); len(t) == 0 || t[0] != '{' {
		return nil, false
	}
	var raw map[string]json.RawMessage
	if json.Unmarshal(b, &raw) != nil || raw == nil {
		return nil, false
	}
	fields := make(map[string]Secret, len(raw))
	for name, m := range raw {
		fields[name] = SecretFromJSON(m)
		clear(m)
	}
	return fields, true
}

// SecretFromJSON gives the text of a JSON string as a plain Secret, and any other valid JSON value as a JSON Secret in
// compact form. No copy of the text is left behind.
func SecretFromJSON(value []byte) Secret {
	if text, ok := textOfJSON(bytes.Trim(value, jsonSpace)); ok {
		return newSecret(text, false)
	}
	compact := bytes.NewBuffer(make([]byte, 0, len(value))) // never longer, so that it does not grow and leave a copy
	if json.Compact(compact, value) != nil {
		begun := compact.AvailableBuffer()
		clear(begun[:cap(begun)])
		return NewJSONSecret(value)
	}
	return newSecret(compact.Bytes(), true)
}

// FieldsToJSON is the reverse of FieldsFromJSON: one JSON object, keys in order, which the caller owns and should zero.
func FieldsToJSON(fields map[string]Secret) ([]byte, error) {
	names := make([]string, 0, len(fields))
	size := len("{}")
	for name, field := range fields {
		names = append(names, name)
		size += quotedLen([]byte(name)) + len(":,")
		_ = field.Use(func(b []byte) error {
			if field.IsJSON() {
				size += len(b)
			} else {
				size += quotedLen(b)
			}
			return nil
		})
	}
	slices.Sort(names)
	out := append(make([]byte, 0, size), '{') // never grown, which would leave a copy
	for i, name := range names {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(AppendJSONString(out, name), ':')
		_ = fields[name].Use(func(b []byte) error {
			if fields[name].IsJSON() {
				out = append(out, b...)
			} else {
				out = AppendJSONString(out, b)
			}
			return nil
		})
	}
	return append(out, '}'), nil
}

// jsonSpace is the white space of RFC 8259.
const jsonSpace = " \t\r\n"

// textOfJSON gives the text of a JSON string, as encoding/json reads it, in bytes of its own, and false for what is none.
// encoding/json itself would make a string of it, which cannot be zeroed.
func textOfJSON(quoted []byte) (text []byte, ok bool) {
	last := len(quoted) - 1
	if last < 1 || quoted[0] != '"' || quoted[last] != '"' {
		return nil, false
	}
	in := quoted[1:last]
	if isPlain(in) {
		return bytes.Clone(in), true
	}
	size := len(in)
	for _, c := range in {
		if c >= utf8.RuneSelf {
			size += len("\ufffd") - 1 // where it is not UTF-8
		}
	}
	text = make([]byte, 0, size) // never grown, which would leave a copy
	defer func() {
		if !ok {
			clear(text)
			text = nil
		}
	}()
	for len(in) > 0 {
		switch c := in[0]; {
		case c == '"' || c < ' ':
			return text, false
		case c == '\\':
			r, n := escaped(in)
			if n == 0 {
				return text, false
			}
			text, in = utf8.AppendRune(text, r), in[n:]
		case c < utf8.RuneSelf:
			text, in = append(text, c), in[1:]
		default:
			r, n := utf8.DecodeRune(in)
			text, in = utf8.AppendRune(text, r), in[n:]
		}
	}
	return text, true
}

// isPlain reports whether the inside of a JSON string says what it means.
func isPlain(in []byte) bool {
	for _, c := range in {
		if c == '\\' || c == '"' || c < ' ' {
			return false
		}
	}
	return utf8.Valid(in)
}

// escaped reads the escape that in starts with, and gives its length, 0 when it is none. Half a surrogate pair is U+FFFD.
func escaped(in []byte) (rune, int) {
	if len(in) < 2 {
		return 0, 0
	}
	switch in[1] {
	case '"', '\\', '/':
		return rune(in[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r, ok := codeUnit(in)
		if !ok {
			return 0, 0
		}
		if utf16.IsSurrogate(r) {
			if low, ok := codeUnit(in[6:]); ok {
				if both := utf16.DecodeRune(r, low); both != utf8.RuneError {
					return both, 12
				}
			}
			return utf8.RuneError, 6
		}
		return r, 6
	}
	return 0, 0
}

// codeUnit reads \uXXXX.
func codeUnit(in []byte) (r rune, ok bool) {
	if len(in) < 6 || in[0] != '\\' || in[1] != 'u' {
		return 0, false
	}
	for _, c := range in[2:6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// AppendJSONString appends text as a JSON string to out, as encoding/json writes it without HTML escapes: what is not UTF-8
// becomes U+FFFD. Where out has room for it, no copy of text is left behind.
func AppendJSONString[T []byte | string](out []byte, text T) []byte {
	const hex = "0123456789abcdef"
	out = append(out, '"')
	plain := 0 // from here on nothing needs an escape
	for i := 0; i < len(text); {
		c := text[i]
		if ' ' <= c && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		var r rune
		n := 1
		if r = rune(c); c >= utf8.RuneSelf {
			var whole [utf8.UTFMax]byte
			r, n = utf8.DecodeRune(whole[:copy(whole[:], text[i:])])
			if (r != utf8.RuneError || n > 1) && r != '\u2028' && r != '\u2029' {
				i += n
				continue
			}
		}
		out = append(out, text[plain:i]...)
		switch {
		case r == '"' || r == '\\':
			out = append(out, '\\', byte(r))
		case r == '\b':
			out = append(out, `\b`...)
		case r == '\f':
			out = append(out, `\f`...)
		case r == '\n':
			out = append(out, `\n`...)
		case r == '\r':
			out = append(out, `\r`...)
		case r == '\t':
			out = append(out, `\t`...)
		case r < ' ':
			out = append(out, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		case r == utf8.RuneError:
			out = append(out, `\ufffd`...)
		default: // U+2028 and U+2029, which JavaScript took for the end of a line
			out = append(out, '\\', 'u', '2', '0', '2', hex[r&15])
		}
		i += n
		plain = i
	}
	return append(append(out, text[plain:]...), '"')
}

// quotedLen is an upper bound of what AppendJSONString appends.
func quotedLen(text []byte) int {
	n := len(`""`) + len(text)
	for _, c := range text {
		if c < ' ' || c >= utf8.RuneSelf {
			n += len(`\u0000`) - 1
		} else if c == '"' || c == '\\' {
			n++
		}
	}
	return n
}
