// Package redact masks secrets in a stream of bytes: as they are, and in the forms in which programs print them. It helps
// against accidents. It is no wall against a program that means to print its secrets, which can spell them in ways that
// nobody listed.
//
// # What is masked
//
// Every value of at least MinLen bytes, and of a value that is a JSON object or array each text in it. Each of them as it
// is (also with the line ends of a terminal), each longer line of it by itself, its base64 (standard and URL alphabet,
// with and without padding, wrapped into lines, and inside of a longer text that was encoded with it, as in HTTP basic
// authentication), percent-encoded, as the inside of a JSON string, and in hexadecimal.
//
// What of base64 depends on the neighbours of the value is not masked: at most one character on either side, with four
// bits of the value at most.
package redact

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/credresolve/credresolve/backend"
)

// MinLen is the length in bytes of the shortest value that is masked. What is shorter stands in too much innocent text.
const MinLen = 4

// minLine is the length in bytes of the shortest line that is masked without the lines around it.
const minLine = 8

// Redactor knows the values to mask. It is immutable and safe for concurrent use.
type Redactor struct {
	plain automaton // over the bytes as they come
	based automaton // over the bytes without line ends: base64
}

// New gives a Redactor for secrets. skipped are the indices of those that are too short to be masked; an empty value is
// not among them.
func New(secrets []backend.Secret) (r *Redactor, skipped []int) {
	var plain, based trie
	for i, s := range secrets {
		_ = s.Use(func(b []byte) error {
			if len(b) < MinLen {
				if len(b) > 0 {
					skipped = append(skipped, i)
				}
				return nil
			}
			for _, text := range texts(b) {
				plainForms(text, plain.add)
				base64Forms(text, based.add)
			}
			return nil
		})
	}
	return &Redactor{plain: plain.compile(), based: based.compile()}, skipped
}

// texts gives b, its longer lines, and, where b is a JSON object or array, the texts in it.
func texts(b []byte) []string {
	all := []string{string(b)}
	add := func(s string) {
		if strings.TrimSpace(s) == "" || len(s) < MinLen {
			return
		}
		all = append(all, s)
		if trimmed := strings.TrimSpace(s); len(trimmed) >= MinLen {
			all = append(all, trimmed)
		}
	}
	if t := bytes.TrimSpace(b); len(t) < len(b) && len(t) >= MinLen {
		all = append(all, string(t))
	}
	if bytes.IndexByte(b, '\n') >= 0 {
		for line := range strings.Lines(string(b)) {
			line = strings.TrimSpace(line)
			// The frame of a PEM block is no secret, and it is the same for all.
			if len(line) >= minLine && !strings.HasPrefix(line, "-----") {
				all = append(all, line)
			}
		}
	}
	if t := bytes.TrimSpace(b); len(t) > 0 && (t[0] == '{' || t[0] == '[') {
		var v any
		if json.Unmarshal(t, &v) == nil {
			leaves(v, add)
		}
	}
	return all
}

// leaves passes the strings in v to add; keys are names and no secrets.
func leaves(v any, add func(string)) {
	switch v := v.(type) {
	case string:
		add(v)
	case []any:
		for _, e := range v {
			leaves(e, add)
		}
	case map[string]any:
		for _, e := range v {
			leaves(e, add)
		}
	}
}
