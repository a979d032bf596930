package document

import (
	"strings"
)

// envReader reads the lines of a .env file into events. Its dialect is what docker, godotenv and a shell agree on, see
// docs/documents.md.
type envReader struct {
	f *finder
	s string
	i int
}

func readEnv(f *finder) error {
	r := &envReader{f: f, s: f.src.text}
	r.i = len(r.s) - len(strings.TrimPrefix(r.s, bom))
	f.document()
	seen := map[string]struct{}{}
	for r.i < len(r.s) {
		for r.i < len(r.s) && (isBlank(r.s[r.i]) || isBreak(r.s[r.i])) {
			r.i++
		}
		if r.i == len(r.s) {
			break
		}
		if r.s[r.i] == '#' {
			r.i = r.lineEnd()
			continue
		}
		if err := r.assignment(seen); err != nil {
			return err
		}
	}
	f.stack = f.stack[:0]
	return nil
}

func (r *envReader) lineEnd() int {
	i := r.i
	for i < len(r.s) && !isBreak(r.s[i]) {
		i++
	}
	return i
}

func (r *envReader) blanks() {
	for r.i < len(r.s) && isBlank(r.s[r.i]) {
		r.i++
	}
}

// assignment reads [export] NAME=value, or NAME alone, which sets nothing.
func (r *envReader) assignment(seen map[string]struct{}) error {
	start := r.i
	if rest, ok := strings.CutPrefix(r.s[r.i:], "export"); ok && rest != "" && isBlank(rest[0]) {
		r.i += len("export")
		r.blanks()
	}
	at := r.i
	for r.i < len(r.s) && (isAlnum(r.s[r.i]) || r.s[r.i] == '_' || r.i > at && (r.s[r.i] == '.' || r.s[r.i] == '-')) {
		r.i++
	}
	name := r.s[at:r.i]
	r.blanks()
	switch {
	case name == "" || '0' <= name[0] && name[0] <= '9':
		return &syntaxError{at, "a line must be NAME=value, a comment or empty; a name has letters, digits, _, . and -"}
	case r.i == len(r.s) || isBreak(r.s[r.i]) || r.s[r.i] == '#':
		r.i = r.lineEnd()
		return nil
	case r.s[r.i] != '=':
		return &syntaxError{r.i, "= is expected after the name"}
	}
	r.i++
	after := r.i
	r.blanks()
	r.f.node(at)
	r.f.stack = append(r.f.stack[:0], frame{kind: framePath, key: name, style: boxStyle{layout: layoutLines}, entry: start, comma: -1})
	if _, dup := seen[name]; dup {
		r.f.faults.add(fault{offset: at, path: r.f.path(true), reason: "the variable is set twice"})
	}
	seen[name] = struct{}{}
	s := scalar{kind: scalarText, value: span{r.i, r.i}, props: props{after: -1}}
	var err error
	switch {
	case r.i == len(r.s) || isBreak(r.s[r.i]) || r.s[r.i] == '#' && r.i > after:
		s.value = span{after, after}
	case r.s[r.i] == '"' || r.s[r.i] == '\'':
		if s.text, err = r.quoted(); err != nil {
			return err
		}
		s.value.end = r.i
		r.blanks()
		if r.i < len(r.s) && !isBreak(r.s[r.i]) && (r.s[r.i] != '#' || r.i == s.value.end) {
			return &syntaxError{r.i, "something follows the value on its line: a value with spaces needs quotes around all of it"}
		}
	default:
		s.text = r.bare()
		s.value.end = s.value.start + len(s.text)
	}
	r.i = r.lineEnd()
	return r.f.scalar(s)
}

// bare reads a value without quotes: to the end of the line, or to a comment after white space.
func (r *envReader) bare() string {
	line := r.s[r.i:r.lineEnd()]
	for i := 1; i < len(line); i++ {
		if line[i] == '#' && isBlank(line[i-1]) {
			line = line[:i]
			break
		}
	}
	return strings.TrimRight(line, " \t")
}

// quoted reads a value in quotes, and what a shell joins to it: 'it'\”s'.
func (r *envReader) quoted() (string, error) {
	start := r.i
	var b strings.Builder
	for r.i < len(r.s) && !isBlank(r.s[r.i]) && !isBreak(r.s[r.i]) {
		switch c := r.s[r.i]; c {
		case '\'':
			n := strings.IndexByte(r.s[r.i+1:], '\'')
			if n < 0 {
				return "", &syntaxError{start, "a quote without its end"}
			}
			b.WriteString(r.s[r.i+1 : r.i+1+n])
			r.i += n + 2
		case '"':
			if !r.double(&b) {
				return "", &syntaxError{start, "a quote without its end"}
			}
		case '\\':
			r.i++
			if r.i < len(r.s) {
				b.WriteByte(r.s[r.i])
				r.i++
			}
		default:
			b.WriteByte(c)
			r.i++
		}
	}
	return b.String(), nil
}

// double reads what is in double quotes: \n, \r and \t are the characters they name, a backslash before another
// character that means something goes, any other stays.
func (r *envReader) double(b *strings.Builder) bool {
	for r.i++; r.i < len(r.s); r.i++ {
		c := r.s[r.i]
		if c == '"' {
			r.i++
			return true
		}
		if c != '\\' || r.i+1 == len(r.s) {
			b.WriteByte(c)
			continue
		}
		r.i++
		const names, values = "nrt\"\\$`", "\n\r\t\"\\$`"
		if n := strings.IndexByte(names, r.s[r.i]); n >= 0 {
			b.WriteByte(values[n])
		} else {
			b.WriteByte('\\')
			b.WriteByte(r.s[r.i])
		}
	}
	return false
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}
