package server

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// appendResult appends a as JSON, as encoding/json writes a client.Result. It is written by hand since most of a cached
// request's time would go into reflection, and since encoding/json leaves copies of values in buffers of its own.
func appendResult(out []byte, a *answer) []byte {
	out = append(out, `{"ref":`...)
	out = appendRef(out, &a.ref)
	switch {
	case a.err != nil:
		out = append(out, `,"error":`...)
		out = appendError(out, a.problem())
		return append(out, '}')
	case a.unchanged:
		out = appendText(out, `,"revision":`, a.value.Revision())
		out = appendTime(out, `,"expires_at":`, a.value.Expires())
		return append(out, `,"unchanged":true}`...)
	}
	v := a.value
	out = appendText(out, `,"type":`, string(v.Type()))
	out = appendText(out, `,"version":`, v.Version())
	out = appendText(out, `,"revision":`, v.Revision())
	out = appendTime(out, `,"expires_at":`, v.Expires())
	out = appendTime(out, `,"refresh_after":`, v.RefreshAfter())
	if v.Stale() {
		out = append(out, `,"stale":true`...)
	}
	if e := a.problem(); e != nil {
		out = appendError(append(out, `,"refresh_error":`...), e)
	}
	if v.HasMetadata() {
		out = append(out, `,"metadata":{`...)
		metadata := v.Metadata()
		for i, name := range slices.Sorted(maps.Keys(metadata)) {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(backend.AppendJSONString(out, name), ':')
			out = backend.AppendJSONString(out, metadata[name])
		}
		out = append(out, '}')
	}
	if s := v.Secret(); !s.IsZero() {
		out = appendSecret(append(out, ','), s)
	}
	if v.HasFields() {
		out = append(out, `,"fields":{`...)
		fields := v.Fields()
		for i, name := range slices.Sorted(maps.Keys(fields)) {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(backend.AppendJSONString(out, name), `:{`...)
			out = append(appendSecret(out, fields[name]), '}')
		}
		out = append(out, '}')
	}
	return append(out, '}')
}

func appendSecret(out []byte, s backend.Secret) []byte {
	_ = s.Use(func(b []byte) error {
		if utf8.Valid(b) {
			out = backend.AppendJSONString(append(out, `"value":`...), b)
		} else {
			out = base64.StdEncoding.AppendEncode(append(out, `"value_base64":"`...), b)
			out = append(out, '"')
		}
		return nil
	})
	if s.IsJSON() {
		out = append(out, `,"json":true`...)
	}
	return out
}

func appendRef(out []byte, ref *credref.Ref) []byte {
	out = backend.AppendJSONString(append(out, `{"provider":`...), ref.Provider)
	out = backend.AppendJSONString(append(out, `,"id":`...), ref.ID)
	out = appendText(out, `,"version":`, ref.Version)
	out = appendText(out, `,"field":`, ref.Field)
	return append(out, '}')
}

func appendText(out []byte, key, text string) []byte {
	if text == "" {
		return out
	}
	return backend.AppendJSONString(append(out, key...), text)
}

func appendTime(out []byte, key string, t time.Time) []byte {
	if t.IsZero() {
		return out
	}
	out = append(append(out, key...), '"')
	return append(t.UTC().AppendFormat(out, time.RFC3339Nano), '"')
}

func appendError(out []byte, e *client.Error) []byte {
	out = backend.AppendJSONString(append(out, `{"code":`...), string(e.Code))
	out = backend.AppendJSONString(append(out, `,"message":`...), e.Message)
	out = strconv.AppendBool(append(out, `,"retryable":`...), e.Retryable)
	if e.RetryAfterMS != 0 {
		out = strconv.AppendInt(append(out, `,"retry_after_ms":`...), e.RetryAfterMS, 10)
	}
	if l := e.Login; l != nil {
		text, err := json.Marshal(l) // seldom, and nothing in it is secret
		if err == nil {
			out = append(append(out, `,"login":`...), text...)
		}
	}
	return append(out, '}')
}

// room is how many bytes appendResult needs for a, about: a buffer that grows leaves a copy of a value behind.
func room(a *answer) int {
	n := 512 + len(a.ref.ID)*2 + len(a.ref.Version) + len(a.ref.Field)
	if e := a.problem(); e != nil {
		n += textLen([]byte(e.Message))
		if l := e.Login; l != nil {
			n += 256 + 6*(len(l.URL)+len(l.UserCode)+len(l.State))
		}
	}
	if a.err != nil || a.value == nil || a.unchanged {
		return n
	}
	return n + size(a.value)
}

func size(v *resolver.Value) int {
	n := wireLen(v.Secret())
	if v.HasFields() {
		for name, s := range v.Fields() {
			n += 6*len(name) + wireLen(s) + 32
		}
	}
	if v.HasMetadata() {
		for name, text := range v.Metadata() {
			n += 6 * (len(name) + len(text) + 2)
		}
	}
	return n
}

// wireLen is an upper bound of what s takes as a JSON string.
func wireLen(s backend.Secret) (n int) {
	_ = s.Use(func(b []byte) error { n = textLen(b); return nil })
	return n
}

// textLen is wireLen of a text.
func textLen(b []byte) int {
	n := len(b) + 48
	for _, c := range b {
		if c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			n += 5
		}
	}
	return n
}
