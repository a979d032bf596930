package document

import (
	"bytes"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
)

// quoter writes secrets as values of a format.
type quoter struct {
	format Format
	editor *editor
	isJSON bool
	out    []byte
	use    func([]byte) error // made once: a closure for each secret would cost more than the writing
}

func newQuoter(format Format, e *editor) *quoter {
	q := &quoter{format: format, editor: e}
	q.use = q.write
	return q
}

// quote writes a secret as a value of the format. The bytes are the caller's to zero.
func (q *quoter) quote(s backend.Secret) ([]byte, error) {
	if s.IsZero() {
		return nil, backend.Errorf(backend.CodeInternal, "there is no value to put in the place of the ref")
	}
	q.isJSON, q.out = s.IsJSON(), nil
	err := s.Use(q.use)
	return q.out, err
}

func (q *quoter) write(b []byte) (err error) {
	if !utf8.Valid(b) {
		return unsupported("the secret is binary and cannot stand in a text document")
	}
	switch {
	case q.format == Env:
		q.out, err = quoteEnv(b)
	case !q.isJSON:
		q.out = appendQuoted(q.editor.room(quotedSize(b)), b)
	case !json.Valid(b):
		err = backend.Errorf(backend.CodeInternal, "the secret is said to be JSON and is not")
	case q.format == YAML:
		q.out, err = rewrite(b, yamlSyntax)
	case q.format == TOML:
		q.out, err = rewrite(b, tomlSyntax)
	default:
		var compact bytes.Buffer
		compact.Grow(len(b))
		err = json.Compact(&compact, b)
		q.out = compact.Bytes()
	}
	return err
}

func unsupported(reason string) error {
	return &backend.Error{Code: backend.CodeUnsupported, Reason: reason}
}

// appendQuoted writes text in double quotes with the escapes that JSON, JSON5, TOML and YAML of any version have in
// common. What a YAML reader may not see as it is, or folds, is escaped: control characters, line separators, BOM.
func appendQuoted(out, text []byte) []byte {
	out = append(out, '"')
	for i := 0; i < len(text); {
		c := text[i]
		if c >= ' ' && c < 0x7f && c != '"' && c != '\\' {
			out = append(out, c)
			i++
			continue
		}
		char, size := utf8.DecodeRune(text[i:])
		out = appendChar(out, char, text[i:i+size])
		i += size
	}
	return append(out, '"')
}

func appendChar(out []byte, char rune, raw []byte) []byte {
	switch char {
	case '"', '\\':
		return append(out, '\\', byte(char))
	case '\b':
		return append(out, '\\', 'b')
	case '\t':
		return append(out, '\\', 't')
	case '\n':
		return append(out, '\\', 'n')
	case '\f':
		return append(out, '\\', 'f')
	case '\r':
		return append(out, '\\', 'r')
	}
	if char >= 0xa0 && char != 0x2028 && char != 0x2029 && char != 0xfeff && char != 0xfffe && char != 0xffff {
		return append(out, raw...)
	}
	const digits = "0123456789abcdef"
	return append(out, '\\', 'u', digits[char>>12&15], digits[char>>8&15], digits[char>>4&15], digits[char&15])
}

// quotedSize is no less than what appendQuoted writes.
func quotedSize(text []byte) int {
	n := 2
	for _, c := range text {
		if c >= ' ' && c < 0x7f && c != '"' && c != '\\' {
			n++
		} else {
			n += 6
		}
	}
	return n
}

// syntax is how a format writes the values of JSON.
type syntax struct {
	colon  string
	number func(string) (string, error)
	null   error // why null cannot be written
	key    func(out, quoted []byte) []byte
}

var (
	yamlSyntax = syntax{colon: ": ", number: yamlNumber, key: yamlKey}
	tomlSyntax = syntax{colon: " = ", number: tomlNumber, null: unsupported("the value has a null, which TOML cannot write")}
)

// rewrite writes a JSON value on one line in another syntax. It keeps its own stack, so that depth costs no call.
func rewrite(value []byte, to syntax) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(value))
	dec.UseNumber()
	type level struct {
		isMap, isKey bool
		n            int
		seen         map[string]struct{}
	}
	var stack []level
	out := make([]byte, 0, 2*len(value)+16)
	for {
		token, err := dec.Token()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, unsupported("the value is nested too deep")
		}
		if end, ok := token.(json.Delim); ok && (end == ']' || end == '}') {
			out = append(out, byte(end))
			stack = stack[:len(stack)-1]
			continue
		}
		if len(stack) > 0 {
			top := &stack[len(stack)-1]
			if top.isMap && top.isKey {
				top.isKey = false
				if top.n++; top.n > 1 {
					out = append(out, ", "...)
				}
				name := token.(string)
				if _, twice := top.seen[name]; twice {
					return nil, unsupported("an object of the value has a key twice")
				}
				top.seen[name] = struct{}{}
				quoted := appendQuoted(nil, []byte(name))
				if to.key != nil {
					out = to.key(out, quoted)
				} else {
					out = append(out, quoted...)
				}
				out = append(out, to.colon...)
				continue
			}
			if top.isMap {
				top.isKey = true
			} else if top.n++; top.n > 1 {
				out = append(out, ", "...)
			}
		}
		switch v := token.(type) {
		case json.Delim:
			out = append(out, byte(v))
			stack = append(stack, level{isMap: v == '{', isKey: v == '{', seen: map[string]struct{}{}})
		case string:
			out = appendQuoted(out, []byte(v))
		case json.Number:
			text, err := to.number(v.String())
			if err != nil {
				return nil, err
			}
			out = append(out, text...)
		case bool:
			out = strconv.AppendBool(out, v)
		case nil:
			if to.null != nil {
				return nil, to.null
			}
			out = append(out, "null"...)
		}
	}
}

// yamlKey marks a key that is too long to be found by its colon: YAML looks no further than 1,024 characters.
func yamlKey(out, quoted []byte) []byte {
	if len(quoted) > 1000 {
		out = append(out, "? "...)
	}
	return append(out, quoted...)
}

// yamlNumber writes an exponent as YAML 1.1 wants it, with a point and a sign: its readers take 1e3 for a string.
func yamlNumber(s string) (string, error) {
	mantissa, exponent, ok := strings.Cut(strings.ToLower(s), "e")
	if !ok {
		return s, nil
	}
	if !strings.Contains(mantissa, ".") {
		mantissa += ".0"
	}
	if exponent[0] != '+' && exponent[0] != '-' {
		exponent = "+" + exponent
	}
	return mantissa + "e" + exponent, nil
}

func tomlNumber(s string) (string, error) {
	var err error
	if strings.ContainsAny(s, ".eE") {
		_, err = strconv.ParseFloat(s, 64)
	} else {
		_, err = strconv.ParseInt(s, 10, 64)
	}
	if err != nil {
		return "", unsupported("the value has a number of more than 64 bits, which TOML cannot write")
	}
	return s, nil
}

// quoteEnv writes a value so that docker compose, godotenv and a shell read the same: bare if no reader can mistake it,
// else in single quotes, else in double quotes. What these readers do not agree on is an error.
func quoteEnv(b []byte) ([]byte, error) {
	bare := len(b) > 0 // of nothing before a comment, godotenv makes the comment
	for _, c := range b {
		bare = bare && (isAlnum(c) || strings.IndexByte("_./:@%+,=-", c) >= 0)
	}
	switch {
	case bare:
		return append([]byte{}, b...), nil
	case bytes.IndexByte(b, 0) >= 0:
		return nil, unsupported("the secret holds a NUL, which an environment variable cannot")
	case bytes.IndexByte(b, '\r') >= 0:
		return nil, unsupported("the secret holds a carriage return, which readers of .env files change")
	case bytes.HasSuffix(b, []byte{'\\'}):
		return nil, unsupported("the secret ends with a backslash, on which readers of .env files do not agree")
	case bytes.IndexByte(b, '\'') < 0:
		out := append(make([]byte, 0, len(b)+2), '\'')
		return append(append(out, b...), '\''), nil
	case bytes.IndexByte(b, '`') >= 0 || b[len(b)-1] == '"':
		return nil, unsupported("the secret holds a single quote, and a backtick or a double quote at its end: readers of .env files do not agree on these together")
	}
	out := append(make([]byte, 0, 2*len(b)+2), '"')
	for _, c := range b {
		if c == '\\' || c == '"' || c == '$' {
			out = append(out, '\\')
		}
		out = append(out, c)
	}
	return append(out, '"'), nil
}
