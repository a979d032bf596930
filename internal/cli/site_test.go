package cli

import "testing"

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
