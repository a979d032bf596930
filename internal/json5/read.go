package json5

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Dialect says what a text may hold. The zero Dialect is JSON with comments and trailing commas.
type Dialect uint8

// The dialects.
const (
	JSON  Dialect = iota // JSON, with comments and trailing commas
	JSON5                // and single quotes, keys without quotes, more numbers and escapes
)

// Handler takes what Read finds, in the order of the text. Offsets are in bytes. An error ends the reading, and Read gives it
// as it is.
type Handler interface {
	// Open begins an object or an array at its bracket, which is the value of what Key or Item told last, or the document. Its
	// error bounds the depth: Read calls itself for what a container holds, and has no limit of its own.
	Open(object bool, at int) error
	// Close ends the innermost container, just after its bracket.
	Close(end int)
	// Key begins a member of an object. name is decoded.
	Key(name string, start, end int)
	// Item begins an item of an array.
	Item(at int)
	// Comma tells of a comma in the innermost container.
	Comma(at int)
	// Scalar is a value without parts. text is decoded for a String, and as it is written for all else.
	Scalar(kind Kind, text string, start, end int) error
}

// Kind is the type of a value.
type Kind uint8

// The kinds.
const (
	Null Kind = iota
	Bool
	Number
	String
	Array
	Object
)

// SyntaxError tells what is wrong at an offset. It holds no text of the document.
type SyntaxError struct {
	Offset int
	Reason string
}

func (e *SyntaxError) Error() string { return e.Reason }

// bom may begin a text.
const bom = "\ufeff"

// Read tells h what text holds, which is to be one value. A *SyntaxError is the text's, all other errors are h's. Keys that an
// object has twice are told twice.
func Read(text string, d Dialect, h Handler) error {
	r := &reader{h: h, s: text, json5: d == JSON5}
	r.i = len(r.s) - len(strings.TrimPrefix(r.s, bom))
	if err := r.blank(); err != nil {
		return err
	}
	if err := r.value(); err != nil {
		return err
	}
	if err := r.blank(); err != nil {
		return err
	}
	if r.i < len(r.s) {
		return r.fail("something follows the end of the document")
	}
	return nil
}

type reader struct {
	h     Handler
	s     string
	i     int
	json5 bool
}

func (r *reader) fail(reason string) error { return &SyntaxError{r.i, reason} }

// blank skips white space and comments.
func (r *reader) blank() error {
	for r.i < len(r.s) {
		c := r.s[r.i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			r.i++
		case strings.HasPrefix(r.s[r.i:], "//"):
			if n := strings.IndexAny(r.s[r.i:], "\n\r"); n >= 0 {
				r.i += n
			} else {
				r.i = len(r.s)
			}
		case strings.HasPrefix(r.s[r.i:], "/*"):
			n := strings.Index(r.s[r.i+2:], "*/")
			if n < 0 {
				return r.fail("a comment without its end")
			}
			r.i += n + 4
		case r.json5 && (c == '\v' || c == '\f' || c >= utf8.RuneSelf):
			char, size := utf8.DecodeRuneInString(r.s[r.i:])
			if char != '\v' && char != '\f' && char != 0xfeff && char != 0x2028 && char != 0x2029 && !unicode.Is(unicode.Zs, char) {
				return nil
			}
			r.i += size
		default:
			return nil
		}
	}
	return nil
}

func (r *reader) peek() byte {
	if r.i < len(r.s) {
		return r.s[r.i]
	}
	return 0
}

func (r *reader) value() error {
	start := r.i
	switch c := r.peek(); {
	case c == '{' || c == '[':
		return r.container(c == '{')
	case c == '"' || c == '\'' && r.json5:
		text, err := r.text()
		if err != nil {
			return err
		}
		return r.h.Scalar(String, text, start, r.i)
	case r.i == len(r.s):
		return r.fail("a value is missing")
	}
	for r.i < len(r.s) && strings.IndexByte("+-._$", r.s[r.i]) >= 0 || r.i < len(r.s) && isAlnum(r.s[r.i]) {
		r.i++
	}
	word := r.s[start:r.i]
	var kind Kind
	switch {
	case word == "true" || word == "false":
		kind = Bool
	case word == "null":
		kind = Null
	case isJSONNumber(word) || r.json5 && isJSON5Number(word):
		kind = Number
	default:
		r.i = start
		if !r.json5 {
			return r.fail("a value is expected: a string in double quotes, a number, true, false, null, { or [")
		}
		return r.fail("a value is expected")
	}
	return r.h.Scalar(kind, word, start, r.i)
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

func isJSONNumber(s string) bool {
	s = strings.TrimPrefix(s, "-")
	digits := func() int {
		n := 0
		for n < len(s) && '0' <= s[n] && s[n] <= '9' {
			n++
		}
		return n
	}
	n := digits()
	if n == 0 || n > 1 && s[0] == '0' {
		return false
	}
	s = s[n:]
	if strings.HasPrefix(s, ".") {
		s = s[1:]
		if n = digits(); n == 0 {
			return false
		}
		s = s[n:]
	}
	if s != "" && s[0]|0x20 == 'e' {
		s = s[1:]
		if s != "" && (s[0] == '+' || s[0] == '-') {
			s = s[1:]
		}
		if n = digits(); n == 0 {
			return false
		}
		s = s[n:]
	}
	return s == ""
}

func isJSON5Number(s string) bool {
	s = strings.TrimLeft(s[:min(1, len(s))], "+-") + s[min(1, len(s)):]
	if s == "Infinity" || s == "NaN" {
		return true
	}
	if len(s) > 2 && s[0] == '0' && s[1]|0x20 == 'x' {
		return strings.Trim(s[2:], "0123456789abcdefABCDEF") == ""
	}
	if len(s) > 1 && s[0] == '0' && '0' <= s[1] && s[1] <= '9' {
		return false
	}
	if s == "" || strings.Trim(s, "0123456789.eE+-") != "" || !strings.ContainsAny(s, "0123456789") || s[0] == '+' || s[0] == '-' {
		return false
	}
	_, err := strconv.ParseFloat(s, 64)
	return err == nil || strings.HasSuffix(err.Error(), strconv.ErrRange.Error())
}

// container reads an object or an array. It calls itself through value, no deeper than the handler allows.
func (r *reader) container(object bool) error {
	end := byte(']')
	if object {
		end = '}'
	}
	start := r.i
	if err := r.h.Open(object, start); err != nil {
		return err
	}
	r.i++
	for {
		if err := r.blank(); err != nil {
			return err
		}
		if r.peek() == end {
			r.i++
			r.h.Close(r.i)
			return nil
		}
		if object {
			if err := r.member(); err != nil {
				return err
			}
		} else {
			r.h.Item(r.i)
		}
		if err := r.value(); err != nil {
			return err
		}
		if err := r.blank(); err != nil {
			return err
		}
		switch {
		case r.peek() == ',':
			r.h.Comma(r.i)
			r.i++
		case r.peek() != end && r.i == len(r.s):
			return &SyntaxError{start, "a { or [ without its end"}
		case r.peek() != end:
			return r.fail("a comma or the end of the list or object is expected")
		}
	}
}

// member reads a key and its colon.
func (r *reader) member() error {
	start := r.i
	var key string
	var err error
	switch c := r.peek(); {
	case c == '"' || c == '\'' && r.json5:
		key, err = r.text()
	case r.i == len(r.s):
		return r.fail("an object without its end")
	case r.json5:
		key, err = r.identifier()
	default:
		return r.fail("a key in double quotes is expected")
	}
	if err != nil {
		return err
	}
	r.h.Key(key, start, r.i)
	if err := r.blank(); err != nil {
		return err
	}
	if r.peek() != ':' {
		return r.fail("a colon is expected after a key")
	}
	r.i++
	return r.blank()
}

// identifier reads a key of JSON5 without quotes.
func (r *reader) identifier() (string, error) {
	start := r.i
	escaped := false
	for r.i < len(r.s) {
		char, size := utf8.DecodeRuneInString(r.s[r.i:])
		if char == '\\' {
			escaped = true
		} else if char != '$' && char != '_' && !unicode.IsLetter(char) && char != 0x200c && char != 0x200d &&
			(r.i == start || !unicode.In(char, unicode.Nd, unicode.Mn, unicode.Mc, unicode.Pc)) {
			break
		}
		r.i += size
	}
	if r.i == start {
		return "", r.fail("a key is expected")
	}
	if !escaped {
		return r.s[start:r.i], nil
	}
	key, err := r.unescape(r.s[start:r.i], start)
	return key, err
}

// text reads a string and gives what it says.
func (r *reader) text() (string, error) {
	quote, start := r.s[r.i], r.i+1
	escaped := false
	for i := start; i < len(r.s); i++ {
		switch c := r.s[i]; {
		case c == quote:
			r.i = i + 1
			if !escaped {
				return r.s[start:i], nil
			}
			return r.unescape(r.s[start:i], start)
		case c == '\\':
			escaped = true
			i++
			if i < len(r.s) && r.s[i] == '\r' && r.json5 && strings.HasPrefix(r.s[i+1:], "\n") {
				i++
			}
		case c == '\n' || c == '\r' || c < 0x20 && !r.json5:
			r.i = i
			return "", r.fail("a control character or the end of the line within a string")
		}
	}
	r.i = start - 1
	return "", r.fail("a string without its end")
}

func (r *reader) unescape(s string, at int) (string, error) {
	var b strings.Builder
	b.Grow(len(s))
	bad := func(i int) (string, error) { return "", &SyntaxError{at + i, "an unknown escape"} }
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		if i == len(s) {
			return bad(i - 1)
		}
		const names, values = "bfnrt\"\\/", "\b\f\n\r\t\"\\/"
		switch c := s[i]; {
		case strings.IndexByte(names, c) >= 0:
			b.WriteByte(values[strings.IndexByte(names, c)])
		case c == 'u':
			char, ok := hexadecimal(s, i+1, 4)
			if !ok {
				return bad(i - 1)
			}
			i += 4
			if 0xd800 <= char && char < 0xdc00 && strings.HasPrefix(s[i+1:], `\u`) {
				if low, ok := hexadecimal(s, i+3, 4); ok && 0xdc00 <= low && low < 0xe000 {
					char = (char-0xd800)<<10 + (low - 0xdc00) + 0x10000
					i += 6
				}
			}
			b.WriteRune(char)
		case !r.json5 || '1' <= c && c <= '9':
			return bad(i - 1)
		case c == 'x':
			char, ok := hexadecimal(s, i+1, 2)
			if !ok {
				return bad(i - 1)
			}
			i += 2
			b.WriteRune(char)
		case c == 'v':
			b.WriteByte('\v')
		case c == '0':
			b.WriteByte(0)
		case c == '\n':
		case c == '\r':
			if strings.HasPrefix(s[i+1:], "\n") {
				i++
			}
		default:
			char, size := utf8.DecodeRuneInString(s[i:])
			if char != 0x2028 && char != 0x2029 {
				b.WriteString(s[i : i+size])
			}
			i += size - 1
		}
	}
	return b.String(), nil
}

// hexadecimal reads n digits of s from i on.
func hexadecimal(s string, i, n int) (rune, bool) {
	if i+n > len(s) {
		return 0, false
	}
	char, err := strconv.ParseUint(s[i:i+n], 16, 32)
	return rune(char), err == nil
}
