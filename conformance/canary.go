package conformance

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
)

// newCanary gives a value that occurs nowhere else. It is of letters and digits, so that quoting, JSON and URLs leave it as it
// is, and both of its halves are as unlikely as the whole.
func newCanary() string { return "Kanary" + rand.Text() }

// Leak names the encoding in which text holds one of secrets or half of one: plain, base64, hex, URL and a few more. It is empty
// when text holds none. A secret of fewer than 8 bytes is not looked for, since it occurs by chance.
func Leak(text string, secrets ...[]byte) string {
	var c canaries
	c.add(secrets...)
	return c.find(text)
}

// canaries are values that must not be seen. They are safe for concurrent use.
type canaries struct {
	mu    sync.Mutex
	forms []form
}

// form is how a part of a value looks in some encoding.
type form struct {
	name    string
	needle  string
	anyCase bool
}

const (
	shortestCanary = 8  // what is shorter occurs by chance
	longestPart    = 32 // of a long value the beginning and the end are looked for
)

func (c *canaries) add(values ...[]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range values {
		for _, part := range parts(v) {
			c.forms = append(c.forms, forms(part)...)
		}
	}
}

// find names the encoding in which text holds a part of a canary; empty when it holds none.
func (c *canaries) find(text string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lower := strings.ToLower(text)
	for _, f := range c.forms {
		in := text
		if f.anyCase {
			in = lower
		}
		if strings.Contains(in, f.needle) {
			return f.name
		}
	}
	return ""
}

// hide gives text for a report: withheld where it holds a canary, else quoted and cut.
func (c *canaries) hide(text string) string {
	if name := c.find(text); name != "" {
		return fmt.Sprintf("[text withheld: it holds a stored value, %s]", name)
	}
	const most = 300
	if len(text) > most {
		text = text[:most] + "…"
	}
	return fmt.Sprintf("%q", text)
}

// parts gives the halves of v, since a text may hold one of them alone, or its ends when v is long.
func parts(v []byte) [][]byte {
	switch {
	case len(v) < shortestCanary || uniform(v):
		return nil
	case len(v) < 2*shortestCanary:
		return [][]byte{v}
	case len(v) > 2*longestPart:
		return [][]byte{v[:longestPart], v[len(v)-longestPart:]}
	}
	return [][]byte{v[:len(v)/2], v[len(v)/2:]}
}

// uniform reports whether v is one byte over and over, which occurs by chance.
func uniform(v []byte) bool { return len(bytes.Trim(v, string(v[:1]))) == 0 }

func forms(part []byte) []form {
	plain := string(part)
	fs := []form{{name: "plain", needle: plain}}
	add := func(name, needle string, anyCase bool) {
		for _, f := range fs {
			if f.needle == needle {
				return
			}
		}
		fs = append(fs, form{name, needle, anyCase})
	}
	add("in another case", strings.ToLower(plain), true)
	if quoted, err := json.Marshal(plain); err == nil {
		add("JSON encoded", strings.Trim(string(quoted), `"`), false)
	}
	add("quoted", strings.Trim(fmt.Sprintf("%q", plain), `"`), false)
	add("URL encoded", url.QueryEscape(plain), false)
	add("URL encoded", url.PathEscape(plain), false)
	add("hex encoded", hex.EncodeToString(part), true)
	add("hex encoded", fmt.Sprintf("% x", part), true)
	var percent, literal strings.Builder
	for _, b := range part {
		fmt.Fprintf(&percent, "%%%02x", b)
		fmt.Fprintf(&literal, "0x%x, ", b)
	}
	add("URL encoded", percent.String(), true)
	add("as a Go literal", strings.TrimSuffix(literal.String(), ", "), true)
	add("as decimal bytes", strings.Trim(fmt.Sprint(part), "[]"), false)
	for shift := range 3 {
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			// What stands before the part moves its bits; the characters that it shares with its neighbours are not looked for.
			text := enc.EncodeToString(append(make([]byte, shift), part...))
			add("base64 encoded", text[(shift*8+5)/6:(shift+len(part))*8/6], false)
		}
	}
	return fs
}
