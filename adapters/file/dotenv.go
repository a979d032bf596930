package file

import (
	"bytes"
	"strings"

	"github.com/credresolve/credresolve/backend"
)

// jsonFromDotenv gives the variables of a dotenv file as a JSON object of texts. Its error is a *syntaxError.
//
// A line is NAME=value, "export " may stand before it, and # starts a comment at a line's start or after white space. A value
// in single quotes is taken literally. In double quotes \n, \r, \t, \", \\ and \$ are escapes. Both may span lines. Without quotes the
// value ends at the line's end, without the white space around it. No variable is expanded: a $ in a secret is a $.
func jsonFromDotenv(content []byte) ([]byte, error) {
	fields := make(map[string]backend.Secret)
	p := dotenvParser{content: content}
	for p.skipBlank() {
		start := p.i
		name, value, err := p.line()
		if err != nil {
			return nil, err
		}
		if _, exists := fields[name]; exists {
			return nil, at(content, start, "the same variable twice")
		}
		fields[name] = backend.NewSecret(value)
		clear(value)
	}
	return backend.FieldsToJSON(fields)
}

type dotenvParser struct {
	content []byte
	i       int
}

// skipBlank passes over white space, empty lines and comments; false at the end.
func (p *dotenvParser) skipBlank() bool {
	for p.i < len(p.content) {
		switch c := p.content[p.i]; {
		case isSpace(c) || c == '\n':
			p.i++
		case c == '#':
			p.i = p.lineEnd()
		default:
			return true
		}
	}
	return false
}

func (p *dotenvParser) lineEnd() int {
	if n := bytes.IndexByte(p.content[p.i:], '\n'); n >= 0 {
		return p.i + n
	}
	return len(p.content)
}

func (p *dotenvParser) line() (name string, value []byte, err error) {
	end := p.lineEnd()
	before, _, found := bytes.Cut(p.content[p.i:end], []byte("="))
	if !found {
		return "", nil, at(p.content, p.i, "a line without =")
	}
	name = strings.TrimSpace(string(before))
	if rest, ok := strings.CutPrefix(name, "export"); ok && rest != "" && isSpace(rest[0]) {
		name = strings.TrimSpace(rest)
	}
	if !validName(name) {
		return "", nil, at(p.content, p.i, "what is no variable's name")
	}
	p.i += len(before) + 1
	for p.i < end && isSpace(p.content[p.i]) {
		p.i++
	}
	if p.i < end && (p.content[p.i] == '\'' || p.content[p.i] == '"') {
		value, err = p.quoted()
		return name, value, err
	}
	text := p.content[p.i:end]
	for i, c := range text {
		// "NAME= # comment" has an empty value, since the white space before the # is gone by now.
		if c == '#' && (i == 0 && p.i > 0 && isSpace(p.content[p.i-1]) || i > 0 && isSpace(text[i-1])) {
			text = text[:i]
			break
		}
	}
	p.i = end
	return name, bytes.Clone(bytes.TrimRight(text, " \t\r")), nil
}

// quoted reads a value in quotes, and what may follow it on its line.
func (p *dotenvParser) quoted() ([]byte, error) {
	open, quote := p.i, p.content[p.i]
	var value []byte
	for p.i++; ; p.i++ {
		if p.i == len(p.content) {
			clear(value)
			return nil, at(p.content, open, "a quote that is not closed")
		}
		c := p.content[p.i]
		if c == quote {
			break
		}
		if c == '\\' && quote == '"' && p.i+1 < len(p.content) {
			if replaced, ok := escapes[p.content[p.i+1]]; ok {
				p.i++
				c = replaced
			}
		}
		value = append(value, c)
	}
	p.i++
	end := p.lineEnd()
	if rest := bytes.TrimLeft(p.content[p.i:end], " \t\r"); len(rest) > 0 && rest[0] != '#' {
		clear(value)
		return nil, at(p.content, p.i, "text after a closing quote")
	}
	p.i = end
	return value, nil
}

// escapes are those of a value in double quotes; another backslash stands for itself.
var escapes = map[byte]byte{'n': '\n', 'r': '\r', 't': '\t', '"': '"', '\\': '\\', '$': '$'}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' }

func validName(name string) bool {
	return name != "" && !('0' <= name[0] && name[0] <= '9') && !strings.ContainsFunc(name, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '.')
	})
}
