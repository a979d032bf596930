package client

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// Text is a secret that is a JSON string on the wire. It prints as backend.Redacted under every verb.
type Text struct{ backend.Secret }

// MarshalJSON gives the secret's text as a JSON string: a Text is a place where a secret is meant to be written.
func (t Text) MarshalJSON() (out []byte, err error) {
	err = t.Use(func(b []byte) error {
		out = backend.AppendJSONString(make([]byte, 0, len(b)+len(b)/8+2), b)
		return nil
	})
	return out, err
}

// UnmarshalJSON reads a JSON string.
func (t *Text) UnmarshalJSON(b []byte) error {
	if len(b) == 0 || b[0] != '"' {
		return fmt.Errorf("a value is no JSON string")
	}
	t.Secret = backend.SecretFromJSON(b)
	return nil
}

// Bytes is a secret that is base64 in a JSON string on the wire. It prints as backend.Redacted under every verb.
type Bytes struct{ backend.Secret }

// MarshalJSON gives the secret in base64 as a JSON string.
func (t Bytes) MarshalJSON() (out []byte, err error) {
	err = t.Use(func(b []byte) error {
		out = append(base64.StdEncoding.AppendEncode([]byte{'"'}, b), '"')
		return nil
	})
	return out, err
}

// UnmarshalJSON reads base64 in a JSON string.
func (t *Bytes) UnmarshalJSON(b []byte) error {
	if len(b) < 2 || b[0] != '"' {
		return fmt.Errorf("a value is no JSON string")
	}
	out, err := base64.StdEncoding.AppendDecode(nil, b[1:len(b)-1])
	defer func() { clear(out) }()
	if err != nil {
		return fmt.Errorf("a value is no base64")
	}
	t.Secret = backend.NewSecret(out)
	return nil
}

// Duration is a time.Duration that is a text such as "30s" on the wire.
type Duration time.Duration

// MarshalJSON gives d as a text such as "1m30s".
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON reads a text such as "1m30s"; a negative one is an error.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf(`expected a duration such as "30s"`)
	}
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		return fmt.Errorf(`expected a duration such as "30s"`)
	}
	*d = Duration(v)
	return nil
}
