package openclawtest

import (
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Each form is found wherever it stands.
func TestTraces(t *testing.T) {
	t.Parallel()
	const value = "a-c4nary/with+signs=1~?"
	reversed := []byte(value)
	slices.Reverse(reversed)
	for name, content := range map[string]string{
		"plain":           "x" + value + "y",
		"reversed":        string(reversed),
		"UTF-16":          "x" + strings.Join(strings.Split(value, ""), "\x00") + "\x00",
		"hexadecimal":     hex.EncodeToString([]byte("x" + value)),
		"in capitals":     strings.ToUpper(hex.EncodeToString([]byte(value))),
		"Base64":          base64.StdEncoding.EncodeToString([]byte(value + "y")),
		"Base64 one":      base64.StdEncoding.EncodeToString([]byte("1" + value)),
		"Base64 two":      base64.StdEncoding.EncodeToString([]byte("12" + value + "123")),
		"Base64 for URLs": base64.RawURLEncoding.EncodeToString([]byte("12" + value + "1")),
		"for URLs":        "?a=a-c4nary%2Fwith%2Bsigns%3D1~%3F&b=c",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if found, err := Traces(dir, value); err != nil || len(found) == 0 {
			t.Errorf("%s: not found: %v", name, err)
		}
		if found, err := Traces(dir, "b-c4nary/with+signs=1~?"); err != nil || len(found) != 0 {
			t.Errorf("%s: another value is found: %v, %v", name, found, err)
		}
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "in", "name-c4nary"), 0o700); err != nil {
		t.Fatal(err)
	}
	if found, _ := Traces(dir, "name-c4nary"); len(found) == 0 {
		t.Errorf("a name: %v", found)
	}
}
