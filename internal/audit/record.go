package audit

import (
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// The events.
const (
	EventReveal       = "reveal"    // a value was given out
	EventUnchanged    = "unchanged" // the caller has the value already
	EventDenial       = "denial"    // the policy refused
	EventFailure      = "failure"   // allowed, and the store gave none
	EventReport       = "report"    // the caller says that a revision was rejected
	EventInvalidate   = "invalidate"
	EventRevoke       = "revoke"
	EventSessionStart = "session_start"
	EventSessionEnd   = "session_end"
	EventLoginStart   = "login_start"
	EventLoginEnd     = "login_end" // how it ended is the reason
	EventLogout       = "logout"
	EventRefresh      = "refresh"
	EventSecretHas    = "secret_has" // a plugin asked whether it keeps a secret
	EventSecretSet    = "secret_set" // a plugin stored a secret of its own
	EventSecretDelete = "secret_delete"
	EventPluginEnd    = "plugin_end" // the secrets of a plugin were removed
	EventReload       = "reload"
	EventStart        = "start"
	EventStop         = "stop"
)

// Record is one line. What is not set is left out, but for time and event.
type Record struct {
	Time       time.Time // zero: now
	Event      string
	Consumer   string
	Session    string
	UID        *int
	GID        *int
	PID        *int
	Executable string
	Remote     string // where the request came in
	Request    string // id of the request
	Ref        *credref.Ref
	Revision   string
	Outcome    backend.Code
	Reason     string
	Stale      bool
	Tool       string // what the client says that it is
}

// maxText is how many bytes of a text are written; what follows is cut off. A path has no more.
const maxText = 4096

// appendRecord appends the line of r, with its line feed, to b. Whatever its texts are, it is one line of printable
// characters and valid JSON.
func appendRecord(b []byte, r *Record) []byte {
	t := r.Time
	if t.IsZero() {
		t = time.Now()
	}
	b = append(b, `{"time":"`...)
	b = t.UTC().AppendFormat(b, time.RFC3339) // which package time writes quicker than a layout with a fraction
	b = append(b[:len(b)-len("Z")], '.')
	for micros, unit := t.Nanosecond()/1000, 100_000; unit > 0; unit /= 10 {
		b = append(b, '0'+byte(micros/unit%10))
	}
	b = append(b, `Z","event":`...)
	b = appendText(b, r.Event)
	b = appendMember(b, `,"consumer":`, r.Consumer)
	b = appendMember(b, `,"session":`, r.Session)
	b = appendNumber(b, `,"uid":`, r.UID)
	b = appendNumber(b, `,"gid":`, r.GID)
	b = appendNumber(b, `,"pid":`, r.PID)
	b = appendMember(b, `,"executable":`, r.Executable)
	b = appendMember(b, `,"remote":`, r.Remote)
	b = appendMember(b, `,"request":`, r.Request)
	if r.Ref != nil {
		b = append(b, `,"ref":`...)
		b = appendWhole(b, r.Ref.String()) // three times as long as an id at most, and a part of one would be another's
	}
	b = appendMember(b, `,"revision":`, r.Revision)
	b = appendMember(b, `,"outcome":`, string(r.Outcome))
	b = appendMember(b, `,"reason":`, r.Reason)
	if r.Stale {
		b = append(b, `,"stale":true`...)
	}
	b = appendMember(b, `,"tool":`, r.Tool)
	return append(b, "}\n"...)
}

func appendMember(b []byte, name, text string) []byte {
	if text == "" {
		return b
	}
	return appendText(append(b, name...), text)
}

func appendNumber(b []byte, name string, n *int) []byte {
	if n == nil {
		return b
	}
	return strconv.AppendInt(append(b, name...), int64(*n), 10)
}

func appendText(b []byte, text string) []byte {
	if len(text) > maxText {
		text = text[:maxText]
		for i := range utf8.UTFMax { // no part of a character
			if i > 0 && utf8.RuneStart(text[len(text)-i]) {
				if !utf8.FullRuneInString(text[len(text)-i:]) {
					text = text[:len(text)-i]
				}
				break
			}
		}
		b = appendWhole(b, text)
		return append(b[:len(b)-1], `…"`...)
	}
	return appendWhole(b, text)
}

// appendWhole appends text as a JSON string. Beside what JSON demands it escapes whatever is not printable: a terminal acts
// on some of it, and some changes the order in which the rest is shown.
func appendWhole(b []byte, text string) []byte {
	const hex = "0123456789abcdef"
	unit := func(b []byte, u rune) []byte {
		return append(b, '\\', 'u', hex[u>>12&15], hex[u>>8&15], hex[u>>4&15], hex[u&15])
	}
	b = append(b, '"')
	plain := 0 // from here on nothing needs an escape
	for i := 0; i < len(text); {
		c := text[i]
		if ' ' <= c && c < 0x7f && c != '"' && c != '\\' {
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		if c >= utf8.RuneSelf && unicode.IsPrint(r) && (r != utf8.RuneError || n > 1) {
			i += n
			continue
		}
		b = append(b, text[plain:i]...)
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case r > 0xffff:
			r -= 0x10000
			b = unit(unit(b, 0xd800|r>>10), 0xdc00|r&0x3ff)
		default:
			b = unit(b, r)
		}
		i += n
		plain = i
	}
	return append(append(b, text[plain:]...), '"')
}
