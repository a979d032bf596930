package conformance

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/backend"
)

func TestCanariesAreFound(t *testing.T) {
	t.Parallel()
	const odd = `p"ss/w+rd &%ä<x>#1`
	plain := newCanary()
	var c canaries
	c.add([]byte(plain), []byte(odd))
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for name, text := range map[string]string{
		"plain":             "error: " + plain,
		"the first half":    "error: " + plain[:16],
		"the second half":   plain[16:] + " was refused",
		"lower case":        strings.ToLower(plain),
		"base64":            b64(plain),
		"base64, shifted 1": b64("u" + plain + "tail"),
		"base64, shifted 2": b64("u:" + plain),
		"base64, half":      b64("abc" + plain[:16]),
		"base64 for URLs":   base64.RawURLEncoding.EncodeToString([]byte("?>" + odd)),
		"hex":               hex.EncodeToString([]byte(plain)),
		"upper hex":         fmt.Sprintf("%X", plain),
		"spaced hex":        fmt.Sprintf("% x", plain),
		"percent":           "%" + strings.ToUpper(strings.Join(strings.Split(fmt.Sprintf("% x", plain), " "), "%")),
		"a query":           url.QueryEscape(odd),
		"a path":            url.PathEscape(odd),
		"JSON":              `{"x":"p\"ss/w+rd \u0026%ä\u003cx\u003e#1"}`,
		"quoted":            fmt.Sprintf("%q", odd),
		"bytes":             fmt.Sprint([]byte(plain)),
		"a literal":         fmt.Sprintf("%#v", []byte(plain)),
		"a struct":          fmt.Sprintf("%+v", struct{ b []byte }{[]byte(plain)}),
	} {
		if c.find(text) == "" {
			t.Errorf("%s: not found in %q", name, text)
		}
		if hidden := c.hide(text); strings.Contains(hidden, plain[:10]) {
			t.Errorf("%s: shown as %s", name, hidden)
		}
	}
	for _, text := range []string{"", "not found", "Kanary", "kanaryabc", b64("some other text that is long enough"), fmt.Sprint(backend.NewSecretString(plain))} {
		if found := c.find(text); found != "" {
			t.Errorf("found %s in %q", found, text)
		}
	}
}

func TestShortAndUniformValuesAreNoCanaries(t *testing.T) {
	t.Parallel()
	var c canaries
	c.add(nil, []byte("x"), []byte("value"), []byte(strings.Repeat("a", 100)))
	if found := c.find("a value x " + strings.Repeat("a", 200)); found != "" {
		t.Errorf("found %s", found)
	}
}
