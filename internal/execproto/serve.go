package execproto

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
)

// The limits of a request that DecodeRequest holds to when a Dialect has none: the most that any release of OpenClaw can be
// configured to send.
const (
	MostIDs     = 4096
	MostRequest = 5 << 20
)

// Request is what a program is asked for.
type Request struct {
	// Provider is the name under which the client knows the program.
	Provider string
	// IDs are the ids, each once, in the order asked. Their grammar is the client's.
	IDs []string
}

// DecodeRequest reads what a client sends: one JSON object with "protocolVersion": 1 and an array "ids" of texts. Keys beyond those are a later client's and ignored, and so is white space around. Its error is an *Error, which
// holds nothing of text.
func (d Dialect) DecodeRequest(text []byte) (Request, error) {
	var req Request
	bad := func(p Problem) (Request, error) { return Request{}, &Error{Problem: p, Request: true} }
	most := d.MaxRequest
	if most == 0 {
		most = MostRequest
	}
	if len(text) > most {
		return Request{}, &Error{Problem: TooBig, Got: len(text), Limit: most, Request: true}
	}
	text = bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimSpace(text), []byte("\ufeff")))
	switch {
	case len(text) == 0:
		return bad(Empty)
	case !utf8.Valid(text):
		return bad(InvalidText)
	case !json.Valid(text):
		return bad(InvalidJSON)
	case text[0] != '{':
		return bad(NotAnObject)
	}
	version, named := 0.0, true
	var ids []*string
	for key, value := range Members(text) { // of duplicates the last counts
		switch key {
		case "protocolVersion":
			version = 0
			_ = json.Unmarshal(value, &version)
		case "provider":
			req.Provider = ""
			named = value[0] == '"' && json.Unmarshal(value, &req.Provider) == nil
		case "ids":
			ids = nil
			if value[0] != '[' || json.Unmarshal(value, &ids) != nil {
				ids = nil
			}
		}
	}
	switch {
	case version != 1:
		return bad(WrongVersion)
	case !named:
		return bad(NoProvider)
	case ids == nil || slices.Contains(ids, nil): // null
		return bad(NoIDs)
	}
	seen := make(map[string]bool, len(ids))
	req.IDs = make([]string, 0, len(ids))
	for _, id := range ids {
		if !seen[*id] {
			seen[*id] = true
			req.IDs = append(req.IDs, *id)
		}
	}
	limit := d.MaxIDs
	if limit == 0 {
		limit = MostIDs
	}
	if len(req.IDs) > limit {
		return Request{}, &Error{Problem: TooManyIDs, Got: len(req.IDs), Limit: limit, Request: true}
	}
	return req, nil
}

// Reply is what a response says of one id: a value, or, where Code is not empty, a failure.
type Reply struct {
	ID string
	// Value is the text that the client gets. It must be UTF-8.
	Value backend.Secret
	// Code is the failure's code. Clients know NOT_FOUND and AMBIGUOUS_DUPLICATE_KEY and show no other.
	Code string
	// RetryAfter is how long to wait before another try; zero says nothing.
	RetryAfter time.Duration
}

// EncodeResponse gives the response with replies, which has "values" and "errors" always, and no text of an error: older
// clients print that. The caller owns it and should zero it.
func EncodeResponse(replies []Reply) []byte {
	room := 64
	for i := range replies {
		room += replies[i].size()
	}
	out := make([]byte, 0, room) // a buffer that grows leaves copies of values behind
	out = append(out, `{"protocolVersion":1,"values":{`...)
	first := true
	for _, r := range replies {
		if r.Code != "" {
			continue
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		out = append(backend.AppendJSONString(out, r.ID), ':')
		_ = r.Value.Use(func(b []byte) error {
			out = backend.AppendJSONString(out, b)
			return nil
		})
	}
	out = append(out, `},"errors":{`...)
	first = true
	for _, r := range replies {
		if r.Code == "" {
			continue
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		out = append(backend.AppendJSONString(out, r.ID), `:{"code":`...)
		out = backend.AppendJSONString(out, r.Code)
		if ms := r.RetryAfter.Milliseconds(); ms > 0 {
			out = strconv.AppendInt(append(out, `,"retryAfterMs":`...), ms, 10)
		}
		out = append(out, '}')
	}
	return append(out, "}}\n"...)
}

// size bounds the bytes that r takes in a response: a byte of a text becomes six at the most.
func (r *Reply) size() int {
	if r.Code != "" {
		return 6*len(r.ID) + 6*len(r.Code) + 64
	}
	return 6*len(r.ID) + 6*r.Value.Len() + 8
}
