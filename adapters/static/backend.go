package static

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/formlogin"
	"github.com/credresolve/credresolve/internal/loginhint"
	"github.com/credresolve/credresolve/internal/neterr"
)

var (
	_ backend.Login            = (*Backend)(nil)
	_ backend.CredentialProber = (*Backend)(nil)
	_ backend.Describer        = (*Backend)(nil)
)

var (
	errVersion = backend.Errorf(backend.CodeUnsupported, "what a person entered has no versions")
	errID      = &backend.Error{Code: backend.CodeInvalidID, Reason: "the id is not the name of an account", Remedy: `write 1 to 256 characters without control characters, such as "default"`}
	errNoCheck = backend.Errorf(backend.CodeUnsupported, "check.url is not set: nothing tells whether the value is in force")
)

// Backend asks a person for values. It is safe for concurrent use.
type Backend struct {
	config   Config
	provider string
	http     *http.Client
	logins   formlogin.Logins
}

// New gives a Backend of c. It does no I/O.
func New(c Config, h backend.Host) (*Backend, error) {
	if err := c.settle(); err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	transport.MaxResponseHeaderBytes = 64 << 10
	return &Backend{config: c, provider: h.Provider, http: &http.Client{
		Transport: transport, Timeout: c.Check.Timeout,
		// A redirect would carry the key to wherever it points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Describe implements backend.Describer.
func (b *Backend) Describe() backend.Description {
	names := make([]string, len(b.config.Fields))
	for i, f := range b.config.Fields {
		names[i] = f.Name
	}
	return backend.Description{Detail: b.config.Type + " of " + strings.Join(names, ", "), Fields: len(names) > 1, Login: true}
}

// Get implements backend.Backend: a person has to log in.
func (b *Backend) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	if err := check(ctx, req); err != nil {
		return nil, err
	}
	return nil, &backend.Error{Code: backend.CodeAuthRequired, Reason: "nobody has entered it yet", Remedy: "run: " + loginhint.Command("login", b.provider, req.ID)}
}

func check(ctx context.Context, req backend.Request) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case req.Version != "":
		return errVersion
	case req.ID == "" || len(req.ID) > 256 || !utf8.ValidString(req.ID) || strings.ContainsFunc(req.ID, isControl) || strings.Contains(req.ID, "\t"):
		return errID
	}
	return nil
}

// StartLogin implements backend.Login.
func (b *Backend) StartLogin(ctx context.Context, req backend.Request, _ backend.LoginOptions) (backend.LoginState, error) {
	if err := check(ctx, req); err != nil {
		return backend.LoginState{}, err
	}
	fields := make([]backend.LoginField, len(b.config.Fields))
	for i, f := range b.config.Fields {
		fields[i] = backend.LoginField{
			Name: f.Name, Label: f.Label, Help: f.Help, URL: f.URL, Optional: f.Optional, Secret: f.Secret == nil || *f.Secret,
		}
	}
	return b.logins.Start(req, fields)
}

// SubmitLogin implements backend.Login. What the service refuses ends the login.
func (b *Backend) SubmitLogin(ctx context.Context, state string, input map[string]backend.Secret) (backend.LoginState, error) {
	return b.logins.Submit(ctx, state, input, b.take)
}

// take makes a grant of input, if all of it is good.
func (b *Backend) take(ctx context.Context, _ backend.Request, input map[string]backend.Secret) (*backend.Grant, error) {
	c := &backend.Credential{Type: backend.Type(b.config.Type)}
	var wrong []string
	fields := map[string]backend.Secret{}
	for _, f := range b.config.Fields {
		v, given := input[f.Name]
		if !given || v.Len() == 0 {
			continue // it is optional
		}
		whole := v.Reveal()
		text := bytes.TrimRight(whole, "\r\n") // of the terminal or file that it came from
		switch {
		case len(bytes.TrimSpace(text)) == 0:
			wrong = append(wrong, f.Name+" is blank")
		case isMark(string(text)):
			wrong = append(wrong, f.Name+" is the mark that stands in the place of a hidden value")
		case b.sends(f.Name) && bytes.ContainsFunc(text, isControl):
			wrong = append(wrong, f.Name+" holds a control character")
		}
		fields[f.Name] = backend.NewSecret(text)
		clear(whole)
	}
	if len(wrong) > 0 {
		return nil, backend.Errorf(backend.CodeUsage, "%s", strings.Join(wrong, "; "))
	}
	if len(b.config.Fields) == 1 {
		c.Secret = fields[b.config.Fields[0].Name]
	} else {
		c.Fields = fields
	}
	if b.config.Check.URL != "" {
		if err := b.ask(ctx, fields); err != nil {
			return nil, err
		}
	}
	return &backend.Grant{Credential: c}, nil
}

// isMark reports whether s is what programs show in the place of a secret.
func isMark(s string) bool {
	s = strings.TrimSpace(s)
	return slices.Contains([]string{"[__HIDDEN__]", "[__UNKNOWN__]", "[redacted]", "[REDACTED]", "__OPENCLAW_REDACTED__"}, s) ||
		len(s) >= 3 && (strings.Trim(s, "*") == "" || strings.Trim(s, "•") == "")
}

// sends reports whether the check sends the field.
func (b *Backend) sends(field string) bool {
	for _, value := range b.config.Check.Headers {
		for part, isField := range parts(value) {
			if isField && part == field {
				return true
			}
		}
	}
	return false
}

// PollLogin implements backend.Login.
func (b *Backend) PollLogin(_ context.Context, state string) (backend.LoginState, error) {
	return b.logins.Poll(state)
}

// CancelLogin implements backend.Login.
func (b *Backend) CancelLogin(_ context.Context, state string) error { return b.logins.Cancel(state) }

// ProbeCredential implements backend.CredentialProber by the check.
func (b *Backend) ProbeCredential(ctx context.Context, _ backend.Request, have *backend.Credential) error {
	if b.config.Check.URL == "" {
		return errNoCheck
	}
	fields := have.Fields
	if fields == nil {
		fields = map[string]backend.Secret{b.config.Fields[0].Name: have.Secret}
	}
	return b.ask(ctx, fields)
}

// ask sends fields to the service of the check.
func (b *Backend) ask(ctx context.Context, fields map[string]backend.Secret) error {
	c := b.config.Check
	req, err := http.NewRequestWithContext(ctx, c.Method, c.URL, nil)
	if err != nil {
		return backend.Errorf(backend.CodeInternal, "no request could be made of check.url")
	}
	at := "the check at " + req.URL.Host
	req.Header.Set("User-Agent", "credresolve")
	for name, value := range c.Headers {
		var header strings.Builder
		whole := true
		for part, isField := range parts(value) {
			if !isField {
				header.WriteString(part)
				continue
			}
			whole = whole && fields[part].Len() > 0
			_ = fields[part].Use(func(text []byte) error {
				header.Write(text)
				return nil
			})
		}
		if whole { // else an optional field was left out, and a header with a gap would be refused
			req.Header.Set(name, header.String())
		}
	}
	answer, err := b.http.Do(req)
	if err != nil {
		return neterr.Classify(ctx, err, at)
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, 64<<10)
	return c.judge(at, answer)
}

// judge says what the service's answer means.
func (c *Check) judge(at string, answer *http.Response) error {
	status := answer.StatusCode
	if slices.Contains(c.Status, status) || len(c.Status) == 0 && status >= 200 && status < 300 {
		return nil
	}
	e := &backend.Error{Code: backend.CodeDenied, Reason: fmt.Sprintf("%s: status %d, which is none that accepts", at, status), Remedy: "see check.url and check.status"}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		e.Reason, e.Remedy = at+": the service refuses what was entered", "check that it is whole, and for this service"
	case status == http.StatusTooManyRequests:
		e.Code, e.Reason, e.Remedy, e.RetryAfter = backend.CodeThrottled, at+": too many calls", "", neterr.RetryAfter(answer.Header)
	case status >= 500:
		e.Code, e.Reason, e.Remedy = backend.CodeUnavailable, fmt.Sprintf("%s: the service failed with status %d", at, status), ""
	case status >= 300 && status < 400:
		e.Code, e.Reason, e.Remedy = backend.CodeInvalidConfig, at+": it redirects elsewhere, which is not followed", "see check.url"
	}
	return e
}

// Close ends the logins that are under way.
func (b *Backend) Close() error {
	b.logins.Close()
	b.http.CloseIdleConnections()
	return nil
}
