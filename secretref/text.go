package secretref

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// OpenClaw is a JavaScript program: what is white space to it differs from Go by U+FEFF, which is some, and U+0085, which is
// none.
func isSpace(c rune) bool { return c == '\ufeff' || c != '\u0085' && unicode.IsSpace(c) }

func trim(s string) string { return strings.TrimFunc(s, isSpace) }

func trimBytes(b []byte) []byte { return bytes.TrimFunc(b, isSpace) }

// visible writes control characters of s out, so that a text with an id in it stays one line and moves no cursor.
func visible(s string) string {
	if !strings.ContainsFunc(s, unicode.IsControl) {
		return s
	}
	var out strings.Builder
	for _, c := range s {
		if unicode.IsControl(c) {
			fmt.Fprintf(&out, `\u%04x`, c)
		} else {
			out.WriteRune(c)
		}
	}
	return out.String()
}

// decode gives text as a JavaScript program reads it, with U+FFFD in the place of what is not UTF-8. Where something is not,
// the result is a copy.
func decode(text []byte) []byte {
	if utf8.Valid(text) {
		return text
	}
	out := make([]byte, 0, len(text)*len("\ufffd")) // never grown, which would leave a copy
	for len(text) > 0 {
		c, n := utf8.DecodeRune(text)
		if c == utf8.RuneError && n == 1 {
			n = broken(text)
		}
		out = utf8.AppendRune(out, c)
		text = text[n:]
	}
	return out
}

// broken gives how much of the start of text becomes one U+FFFD: the longest start of a character, or one byte.
func broken(text []byte) int {
	low, high, size := byte(0x80), byte(0xbf), 1
	switch c := text[0]; {
	case 0xc2 <= c && c <= 0xdf:
		size = 2
	case 0xe0 <= c && c <= 0xef:
		size = 3
		if c == 0xe0 {
			low = 0xa0
		} else if c == 0xed {
			high = 0x9f
		}
	case 0xf0 <= c && c <= 0xf4:
		size = 4
		if c == 0xf0 {
			low = 0x90
		} else if c == 0xf4 {
			high = 0x8f
		}
	}
	n := 1
	for n < size && n < len(text) && low <= text[n] && text[n] <= high {
		n, low, high = n+1, 0x80, 0xbf
	}
	return n
}
