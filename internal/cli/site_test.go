package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestLooksSecret(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		path, text string
		want       bool
	}{
		{"db.password", "changeme", true},
		{"services[0].apiKey", "x", true},
		{"a", "AKIAIOSFODNN7EXAMPLE", true},
		{"a", "Zq8Vt2Lw9Xb4Nc7Rf1Hj6Kd3", true},
		{"db.password", "", false},
		{"db.host", "localhost", false},
		{"a", "postgres://db.example:5432/app", false},
		{"a", "a long sentence with 1 number in it", false},
		{"a", "aaaaaaaaaaaaaaaaaaaaaaaa1", false},
		{"secrets.host", "localhost", false},
	} {
		if got := looksSecret(tt.path, tt.text); got != tt.want {
			t.Errorf("looksSecret(%q, %q) = %v, want %v", tt.path, tt.text, got, tt.want)
		}
	}
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain ü\n":      "plain ü\n",
		"\x1b[2K\r\a":    `\u001b[2K\u000d\u0007`,
		"a\u202eb\u200b": `a\u202eb\u200b`,
		"\xff":           `\ufffd`,
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

// JSON that goes to a terminal moves no cursor either, and means what it meant.
func TestPrintableJSON(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"plain ü\n", "\x1b[2K\u009b2J\x7f", "a\u202eb\u200b", "\U000e0041\U0001f600", "\ufffd", "\xff"} {
		var whole bytes.Buffer
		enc := json.NewEncoder(&whole)
		enc.SetIndent("", "  ")
		if err := enc.Encode(map[string]string{"a": text, "b": "ü"}); err != nil {
			t.Fatal(err)
		}
		got := printableJSON(whole.Bytes())
		if bytes.ContainsFunc(got, strange) {
			t.Errorf("%q: %q has a character that a terminal acts on", text, got)
		}
		var back map[string]string
		if err := json.Unmarshal(got, &back); err != nil || back["a"] != strings.ToValidUTF8(text, "\ufffd") || back["b"] != "ü" {
			t.Errorf("%q reads back as %q, %v", text, back, err)
		}
	}
}
