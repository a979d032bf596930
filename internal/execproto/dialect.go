package execproto

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
)

// Dialect is what peers of the protocol may differ in. The zero Dialect has no limits and knows no codes.
type Dialect struct {
	// Codes are the error codes that are passed on; another becomes "".
	Codes []string
	// MaxIDs bounds the ids of a request. Zero: no limit.
	MaxIDs int
	// MaxRequest bounds a request in bytes. Zero: no limit.
	MaxRequest int
	// ReplaceInvalid takes a response that is not valid UTF-8, with U+FFFD in the place of what is invalid, as JavaScript
	// does. Otherwise such a response is InvalidText, since a secret would come out altered.
	ReplaceInvalid bool
	// NullFails takes null in "errors" for a failure of its id. Otherwise it says nothing.
	NullFails bool
}

// Answer is what a response says of one id: a failure, a value, or neither. The zero Answer is an id that the response does
// not mention.
type Answer struct {
	// Failed: "errors" has the id.
	Failed bool
	// Code is the failure's code if the Dialect knows it, else empty.
	Code string
	// RetryAfter is how long the program asked to wait, at most maxRetryAfter; zero when it did not say.
	RetryAfter time.Duration
	// Value is the text of a string, and the compact JSON text of another value, null too. It is the zero Secret where the
	// response has no value.
	Value backend.Secret
	// Fields are the members of a value that is an object, else nil.
	Fields map[string]backend.Secret
	// Null: the value is null.
	Null bool
}

const maxRetryAfter = 24 * time.Hour

// Problem is what is wrong with a request or a response.
type Problem string

// The problems.
const (
	TooManyIDs   Problem = "too many ids"
	TooBig       Problem = "request too big"
	Empty        Problem = "empty"
	InvalidText  Problem = "not UTF-8"
	InvalidJSON  Problem = "invalid JSON"
	NotAnObject  Problem = "not an object"
	WrongVersion Problem = "wrong version"
	NoValues     Problem = "no values"
	NoProvider   Problem = "no provider" // of a request
	NoIDs        Problem = "no ids"      // of a request
)

// Error tells what is wrong with a request or a response; it holds nothing of either.
type Error struct {
	Problem Problem
	Got     int // of TooManyIDs and TooBig
	Limit   int
	Request bool // a request was read, not a response
}

func (e *Error) Error() string {
	if e.Request {
		return e.ofRequest()
	}
	switch e.Problem {
	case TooManyIDs:
		return fmt.Sprintf("the request has %d ids, more than %d", e.Got, e.Limit)
	case TooBig:
		return fmt.Sprintf("the request has %d bytes, more than %d", e.Got, e.Limit)
	case Empty:
		return "the program answered nothing"
	case InvalidText:
		return "the program's answer is not valid UTF-8"
	case InvalidJSON:
		return "the program's answer is not one JSON value"
	case NotAnObject:
		return "the program's answer is not a JSON object"
	case WrongVersion:
		return `the program's answer does not have "protocolVersion": 1`
	}
	return `the program's answer has no object "values"`
}

func (e *Error) ofRequest() string {
	switch e.Problem {
	case TooManyIDs:
		return fmt.Sprintf("the request has %d ids, more than %d", e.Got, e.Limit)
	case TooBig:
		return fmt.Sprintf("the request has more than %d bytes", e.Limit)
	case Empty:
		return "the request is empty"
	case InvalidText:
		return "the request is not valid UTF-8"
	case InvalidJSON:
		return "the request is not one JSON value"
	case NotAnObject:
		return "the request is not a JSON object"
	case WrongVersion:
		return `the request does not have "protocolVersion": 1`
	case NoProvider:
		return `the request's "provider" is not a text`
	}
	return `the request has no array "ids" of texts`
}

// EncodeRequest gives the request for ids, each once, in their order. Its error is an *Error.
func (d Dialect) EncodeRequest(provider string, ids []string) ([]byte, error) {
	seen := make(map[string]bool, len(ids))
	distinct := make([]string, 0, len(ids))
	for _, id := range ids {
		if !seen[id] {
			seen[id] = true
			distinct = append(distinct, id)
		}
	}
	if d.MaxIDs > 0 && len(distinct) > d.MaxIDs {
		return nil, &Error{Problem: TooManyIDs, Got: len(distinct), Limit: d.MaxIDs}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(struct {
		Version  int      `json:"protocolVersion"`
		Provider string   `json:"provider"`
		IDs      []string `json:"ids"`
	}{1, provider, distinct}); err != nil {
		return nil, err
	}
	out.Truncate(out.Len() - 1) // the newline that an Encoder appends
	if d.MaxRequest > 0 && out.Len() > d.MaxRequest {
		return nil, &Error{Problem: TooBig, Got: out.Len(), Limit: d.MaxRequest}
	}
	return out.Bytes(), nil
}

// DecodeResponse gives one Answer for each of ids, in their order. It keeps nothing of response, which the caller should
// zero. Its error is an *Error, and then the whole response is worth nothing.
func (d Dialect) DecodeResponse(response []byte, ids []string) ([]Answer, error) {
	text := bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimSpace(response), []byte("\ufeff")))
	switch {
	case len(text) == 0:
		return nil, &Error{Problem: Empty}
	case !d.ReplaceInvalid && !utf8.Valid(text):
		return nil, &Error{Problem: InvalidText}
	case !json.Valid(text):
		return nil, &Error{Problem: InvalidJSON}
	case text[0] != '{':
		return nil, &Error{Problem: NotAnObject}
	}
	var version float64
	var values, failures []byte
	for key, value := range Members(text) { // of duplicates the last counts
		switch key {
		case "protocolVersion":
			version = 0
			_ = json.Unmarshal(value, &version)
		case "values":
			values = value
		case "errors":
			failures = value
		}
	}
	switch {
	case version != 1:
		return nil, &Error{Problem: WrongVersion}
	case len(values) == 0 || values[0] != '{':
		return nil, &Error{Problem: NoValues}
	}
	valueOf := make(map[string][]byte, len(ids))
	failureOf := make(map[string][]byte)
	for _, id := range ids {
		valueOf[id] = nil
	}
	for id, value := range Members(values) {
		if _, asked := valueOf[id]; asked {
			valueOf[id] = value
		}
	}
	for id, failure := range Members(failures) {
		if _, asked := valueOf[id]; asked {
			failureOf[id] = failure
		}
	}
	answers := make([]Answer, len(ids))
	for i, id := range ids {
		if failure := failureOf[id]; failure != nil && (d.NullFails || string(failure) != "null") {
			answers[i] = d.failure(failure)
		} else if value := valueOf[id]; value != nil {
			answers[i] = answer(value)
		}
	}
	return answers, nil
}

func (d Dialect) failure(value []byte) Answer {
	a := Answer{Failed: true}
	for key, value := range Members(value) {
		switch key {
		case "code":
			var code string
			if a.Code = ""; json.Unmarshal(value, &code) == nil && slices.Contains(d.Codes, code) {
				a.Code = code
			}
		case "retryAfterMs":
			var ms float64
			if a.RetryAfter = 0; json.Unmarshal(value, &ms) == nil && ms > 0 {
				a.RetryAfter = time.Duration(math.Min(ms, float64(maxRetryAfter/time.Millisecond))) * time.Millisecond
			}
		}
	}
	return a
}

func answer(value []byte) Answer {
	if isPlainString(value) {
		return Answer{Value: backend.NewSecret(value[1 : len(value)-1])}
	}
	a := Answer{Value: backend.SecretFromJSON(value), Null: string(value) == "null"}
	a.Fields, _ = backend.FieldsFromJSON(value)
	return a
}

// isPlainString reports whether value, which is valid JSON, is a string that says what it means: the common case, which need
// not be decoded.
func isPlainString(value []byte) bool {
	return value[0] == '"' && bytes.IndexByte(value, '\\') < 0 && utf8.Valid(value)
}
