// Package loginhint writes the commands that errors name as remedies of logins that are missing or have ended.
package loginhint

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// DefaultID is the id of a login that is given none.
const DefaultID = "default"

// Command is the command line by which a person does what verb says, login for one, to the login id of provider. It may
// be pasted into bash or zsh whatever id holds, which a document of somebody else may have chosen.
func Command(verb, provider, id string) string {
	words := []string{"credresolve", verb, provider}
	if strings.HasPrefix(id, "-") {
		words = append(words, "--")
	}
	if id != DefaultID {
		words = append(words, word(id))
	}
	return strings.Join(words, " ")
}

// word quotes s for a shell, where it needs to be.
func word(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("@%+=:,./_-", r)
	}
	shown := func(r rune) bool { return r != utf8.RuneError && unicode.IsPrint(r) }
	switch {
	case s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0:
		return s
	case strings.IndexFunc(s, func(r rune) bool { return !shown(r) }) < 0:
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	var out strings.Builder
	for i, r := range s {
		switch {
		case r == '\'' || r == '\\':
			out.WriteString(`\` + string(r))
		case shown(r):
			out.WriteRune(r)
		default:
			_, size := utf8.DecodeRuneInString(s[i:])
			for _, b := range []byte(s[i : i+size]) {
				fmt.Fprintf(&out, `\x%02x`, b)
			}
		}
	}
	return "$'" + out.String() + "'"
}
