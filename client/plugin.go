package client

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
)

// Plugin is the secrets that a plugin keeps. Which plugin that is the sidecar knows from the connection or the token; other
// plugins' secrets cannot be seen. It is safe for concurrent use.
type Plugin struct{ c *Client }

// Plugin gives the secrets of the plugin that c is to the sidecar.
func (c *Client) Plugin() Plugin { return Plugin{c} }

// Get gives the secret of key, ErrNotFound when the plugin keeps none.
func (p Plugin) Get(ctx context.Context, key string) (backend.Secret, error) {
	var answer PluginSecret
	if err := p.c.call(ctx, http.MethodGet, secretPath(key), nil, &answer); err != nil {
		return backend.Secret{}, err
	}
	s := FieldValue{Value: answer.Value, ValueBase64: answer.ValueBase64}.secret()
	if s.IsZero() {
		return s, p.c.odd("it gave no value")
	}
	return s, nil
}

// Set keeps value, at most 64 KiB, under key, in the place of what was there. A key has 1 to 128 of the characters A-Z a-z 0-9
// . _ - without two dots in a row, else the error is ErrInvalidID.
func (p Plugin) Set(ctx context.Context, key string, value backend.Secret) error {
	if value.IsZero() {
		return backend.Errorf(backend.CodeUsage, "there is no value to keep")
	}
	var body []byte
	_ = value.Use(func(b []byte) error {
		if utf8.Valid(b) {
			body = make([]byte, 0, 6*len(b)+16)
			body = append(backend.AppendJSONString(append(body, `{"value":`...), b), '}')
		} else {
			body = make([]byte, 0, 2*len(b)+32)
			body = append(base64.StdEncoding.AppendEncode(append(body, `{"value_base64":"`...), b), `"}`...)
		}
		return nil
	})
	defer clear(body)
	return p.c.call(ctx, http.MethodPut, secretPath(key), body, nil)
}

// Has reports whether the plugin keeps a secret under key.
func (p Plugin) Has(ctx context.Context, key string) (bool, error) {
	err := p.c.call(ctx, http.MethodHead, secretPath(key), nil, nil)
	if errors.Is(err, backend.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Delete removes the secret of key. One that is not there is no error.
func (p Plugin) Delete(ctx context.Context, key string) error {
	return p.c.call(ctx, http.MethodDelete, secretPath(key), nil, nil)
}

func secretPath(key string) string { return "/v1/secrets/" + url.PathEscape(key) }

// EndPlugin removes the secrets of a plugin, ends its sessions, and forgets what is known for it. It is the owner's alone.
func (c *Client) EndPlugin(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, "/v1/plugins/"+url.PathEscape(name), nil, nil)
}
