package openclawtest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf16"
)

// Traces gives the files below dir that hold value, and in which form: as it is, reversed, in UTF-16, as hexadecimal
// digits, in Base64 at each of its three alignments, or with signs for URLs. Names of files count too.
func Traces(dir, value string) ([]string, error) {
	forms := forms(value)
	var found []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		content := []byte(e.Name())
		if e.Type().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = append(append(content, '\n'), text...)
		}
		for _, f := range forms {
			if bytes.Contains(content, f.bytes) {
				found = append(found, path+": "+f.name)
			}
		}
		return nil
	})
	return found, err
}

type form struct {
	name  string
	bytes []byte
}

func forms(value string) []form {
	reversed := []byte(value)
	slices.Reverse(reversed)
	little, big := make([]byte, 0, 2*len(value)), make([]byte, 0, 2*len(value))
	for _, u := range utf16.Encode([]rune(value)) {
		little = append(little, byte(u), byte(u>>8))
		big = append(big, byte(u>>8), byte(u))
	}
	digits := hex.EncodeToString([]byte(value))
	out := []form{
		{"plain", []byte(value)}, {"reversed", reversed}, {"UTF-16, little endian", little}, {"UTF-16, big endian", big},
		{"hexadecimal", []byte(digits)}, {"hexadecimal, in capitals", []byte(strings.ToUpper(digits))},
		{"for URLs", []byte(url.QueryEscape(value))},
	}
	for before := range 3 {
		// The digits that come of the value alone, whatever is before and behind it.
		n := (before + len(value)) / 3 * 3
		first := (before*8 + 5) / 6
		for name, encoding := range map[string]*base64.Encoding{"Base64": base64.RawStdEncoding, "Base64 for URLs": base64.RawURLEncoding} {
			text := encoding.EncodeToString(append(make([]byte, before), value...)[:n])
			out = append(out, form{name, []byte(text[first:])})
		}
	}
	return out
}
