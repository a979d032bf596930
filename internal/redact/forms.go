package redact

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// plainForms passes to add every spelling of s that keeps the order of its bytes apart.
func plainForms(s string, add func(string)) {
	add(s)
	if strings.Contains(s, "\n") { // a terminal writes a line feed as both
		add(strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\n", "\r\n"))
	}
	h := hex.EncodeToString([]byte(s))
	add(h)
	add(strings.ToUpper(h))
	for _, f := range percentForms {
		add(percent(s, f.safe, f.plus, "0123456789ABCDEF"))
		add(percent(s, f.safe, f.plus, "0123456789abcdef"))
	}
	if len(s) <= maxEscaped {
		for _, escape := range []string{`\u%04x`, `\u%04X`} {
			add(escaped(s, escape))
		}
		for _, escape := range []string{"%%%02X", "%%%02x", `\x%02x`} {
			add(escapedBytes(s, escape))
		}
	}
	for _, ascii := range []string{"", "%04x", "%04X"} {
		for _, html := range []bool{false, true} {
			for _, slash := range []bool{false, true} {
				add(jsonText(s, ascii, html, slash))
			}
		}
	}
}

// maxEscaped is the length in bytes of the longest value that is masked where each of its characters is an escape: that
// takes six times the memory of the value, and those who write so write short texts.
const maxEscaped = 4 << 10

// escaped writes every UTF-16 unit of s in the format escape, as the strictest encoders of JSON and JavaScript do.
func escaped(s, escape string) string {
	if !utf8.ValidString(s) {
		return ""
	}
	var b strings.Builder
	for _, unit := range utf16.Encode([]rune(s)) {
		fmt.Fprintf(&b, escape, unit)
	}
	return b.String()
}

// escapedBytes writes every byte of s in the format escape.
func escapedBytes(s, escape string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, escape, s[i])
	}
	return b.String()
}

// percentForms are the sets of characters that encoders of URLs leave alone beside letters and digits, and whether they
// write a space as a plus.
var percentForms = []struct {
	safe string
	plus bool
}{
	{"-_.~", false},                 // RFC 3986, unreserved
	{"-_.~", true},                  // Go's url.QueryEscape, Python's quote_plus
	{"-_.*", true},                  // WHATWG application/x-www-form-urlencoded
	{"-_.~!'()*", false},            // encodeURIComponent of ECMAScript
	{"-_.~!'()*;,/?:@&=+$#", false}, // encodeURI of ECMAScript
	{"-_.~/", false},                // Python's quote
	{"-_.~$&+=:@", false},           // Go's url.PathEscape
	{"-_.~$&+,=:;!'()*", false},     // RFC 3986, userinfo
}

func percent(s, safe string, plus bool, digits string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte(safe, c) >= 0:
			b.WriteByte(c)
		case c == ' ' && plus:
			b.WriteByte('+')
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

// jsonText writes s as encoders of JSON write the inside of a string. ascii is the format of the escapes of what is not
// ASCII, empty to leave it alone; html escapes what is special there, as Go's encoder does; slash escapes "/", as PHP's
// does.
func jsonText(s, ascii string, html, slash bool) string {
	if !utf8.ValidString(s) {
		return "" // JSON cannot hold it
	}
	control := ascii
	if control == "" {
		control = "%04x"
	}
	var b strings.Builder
	for _, c := range s {
		switch short := strings.IndexRune("\"\\\b\f\n\r\t", c); {
		case short >= 0:
			b.WriteByte('\\')
			b.WriteByte(`"\bfnrt`[short])
		case c < 0x20, html && (strings.ContainsRune("<>&", c) || c == 0x2028 || c == 0x2029):
			fmt.Fprintf(&b, `\u`+control, c)
		case c == '/' && slash:
			b.WriteString(`\/`)
		case c >= 0x7f && ascii != "":
			if c < 0x10000 {
				fmt.Fprintf(&b, `\u`+ascii, c)
				break
			}
			high, low := utf16.EncodeRune(c)
			fmt.Fprintf(&b, `\u`+ascii+`\u`+ascii, high, low)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// base64Forms passes to add the base64 of s in both alphabets: of s alone, and what of it is the same whatever stands
// before and after s in an encoded text.
func base64Forms(s string, add func(string)) {
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		alone := enc.EncodeToString([]byte(s))
		add(alone)
		add(alone + strings.Repeat("=", (4-len(alone)%4)%4))
		for before := range 3 {
			first := (before*8 + 5) / 6 // the first character without a bit of what stands before
			last := (before + len(s)) * 8 / 6
			add(enc.EncodeToString(append(make([]byte, before), s...))[first:last])
		}
	}
}
