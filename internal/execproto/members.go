package execproto

import (
	"bytes"
	"encoding/json"
	"iter"
)

// Members yields the members of object, which is valid JSON without space around it: each key, and its value's text, which is
// a part of object. It copies no value and decodes none; a response has thousands. Of what is no object it yields nothing.
func Members(object []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		if len(object) == 0 || object[0] != '{' {
			return
		}
		for i := space(object, 1); object[i] != '}'; {
			end := stringEnd(object, i)
			key := keyText(object[i:end])
			i = space(object, end)
			i = space(object, i+1) // past the colon
			end = valueEnd(object, i)
			if !yield(key, object[i:end]) {
				return
			}
			if i = space(object, end); object[i] == ',' {
				i = space(object, i+1)
			}
		}
	}
}

// Items yields the items of array, which is valid JSON without space around it: the text of each, which is a part of array. Of
// what is no array it yields nothing.
func Items(array []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if len(array) == 0 || array[0] != '[' {
			return
		}
		for i := space(array, 1); array[i] != ']'; {
			end := valueEnd(array, i)
			if !yield(array[i:end]) {
				return
			}
			if i = space(array, end); array[i] == ',' {
				i = space(array, i+1)
			}
		}
	}
}

func keyText(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var key string
	_ = json.Unmarshal(quoted, &key) // it is valid
	return key
}

// space gives the place at or behind i that is not white space.
func space(text []byte, i int) int {
	for text[i] == ' ' || text[i] == '\t' || text[i] == '\n' || text[i] == '\r' {
		i++
	}
	return i
}

// stringEnd gives the place behind the string that starts at i.
func stringEnd(text []byte, i int) int {
	for i++; text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// valueEnd gives the place behind the value that starts at i.
func valueEnd(text []byte, i int) int {
	for depth := 0; ; {
		switch text[i] {
		case '"':
			if i = stringEnd(text, i); depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i // the end of what a number stands in
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
		}
		i++
	}
}
