package server

import (
	"time"
	"unicode/utf8"

	"github.com/credresolve/credresolve/client"
)

// plainRefs reads the body of POST /v1/resolve where it is of the form that programs write, {"refs": [{…}, …], "timeout": "…"}
// with texts that need no escape, and appends to asks; the timeout may be absent. It reports false for everything else, which is for encoding/json to judge: reflection
// takes two thirds of the time of a batch. The texts of asks are parts of body.
func plainRefs(body string, asks []ask) (_ []ask, timeout client.Duration, ok bool) {
	p := plain{text: body}
	if !p.next('{') || p.string() != "refs" || !p.next(':') || !p.next('[') {
		return asks, 0, false
	}
	for first := true; !p.next(']'); first = false {
		if !first && !p.next(',') || !p.next('{') {
			return asks, 0, false
		}
		var a ask
		for field := true; !p.next('}'); field = false {
			if !field && !p.next(',') {
				return asks, 0, false
			}
			into := a.part(p.string())
			if into == nil || !p.next(':') || *into != "" { // an unknown key, or one that stands twice
				return asks, 0, false
			}
			if *into = p.string(); *into == "" {
				return asks, 0, false
			}
		}
		asks = append(asks, a)
	}
	if p.next(',') {
		if p.string() != "timeout" || !p.next(':') {
			return asks, 0, false
		}
		d, err := time.ParseDuration(p.string())
		if err != nil || d < 0 {
			return asks, 0, false
		}
		timeout = client.Duration(d)
	}
	return asks, timeout, p.next('}') && p.end()
}

// part is the text that the key name stands for.
func (a *ask) part(name string) *string {
	switch name {
	case "provider":
		return &a.ref.Provider
	case "id":
		return &a.ref.ID
	case "version":
		return &a.ref.Version
	case "field":
		return &a.ref.Field
	case "if_revision":
		return &a.ifRevision
	}
	return nil
}

// plain is JSON text, and how far it was read.
type plain struct {
	text string
	at   int
}

func (p *plain) space() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\r', '\n':
			p.at++
		default:
			return
		}
	}
}

// next reads c, if it is what comes next.
func (p *plain) next(c byte) bool {
	p.space()
	if p.at < len(p.text) && p.text[p.at] == c {
		p.at++
		return true
	}
	return false
}

// string reads a text without escapes; it is empty where there is none, or none of that kind.
func (p *plain) string() string {
	if !p.next('"') {
		return ""
	}
	start := p.at
	ascii := true
	for ; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; {
		case c == '"':
			s := p.text[start:p.at]
			p.at++
			if !ascii && !utf8.ValidString(s) {
				return ""
			}
			return s
		case c == '\\' || c < ' ':
			return ""
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return ""
}

func (p *plain) end() bool {
	p.space()
	return p.at == len(p.text)
}
