package client

import (
	"errors"
	"time"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/resolver"
)

// NewResult gives the wire form of o.
func NewResult(o resolver.Outcome) Result {
	r := Result{Ref: o.Ref, Error: NewError(o.Err)}
	if o.Err != nil {
		return r
	}
	v := o.Value
	r.Type, r.Version, r.Revision, r.Stale, r.Metadata = v.Type(), v.Version(), v.Revision(), v.Stale(), v.Metadata()
	r.ExpiresAt, r.RefreshAfter = pointTo(v.Expires()), pointTo(v.RefreshAfter())
	r.RefreshError = NewError(v.RefreshError())
	if s := v.Secret(); !s.IsZero() {
		f := newFieldValue(s)
		r.Value, r.ValueBase64, r.JSON = f.Value, f.ValueBase64, f.JSON
	}
	if fields := v.Fields(); len(fields) > 0 {
		r.Fields = make(map[string]FieldValue, len(fields))
		for name, s := range fields {
			r.Fields[name] = newFieldValue(s)
		}
	}
	return r
}

func newFieldValue(s backend.Secret) FieldValue {
	out := FieldValue{JSON: s.IsJSON()}
	_ = s.Use(func(b []byte) error {
		if utf8.Valid(b) {
			out.Value = &Text{s}
		} else {
			out.ValueBase64 = &Bytes{s}
		}
		return nil
	})
	return out
}

func pointTo(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// NewError gives the wire form of err, nil for nil. What a RefError says of its ref, which stands beside it, is left away.
func NewError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*resolver.RefError); ok {
		err = e.Err
	}
	code := backend.CodeOf(err)
	out := &Error{Code: code, Message: err.Error(), Retryable: code.Retryable(), RetryAfterMS: backend.RetryAfter(err).Milliseconds()}
	var e *backend.Error
	if errors.As(err, &e) && e.Login != nil {
		out.Login = &Login{URL: e.Login.URL, UserCode: e.Login.UserCode, State: e.Login.State, ExpiresAt: pointTo(e.Login.Expires)}
	}
	return out
}

// Err gives the error that e is the wire form of: a *backend.Error of the same code and text, with the login under way. A code that this version does
// not know is kept, and counts as internal; without one it is internal.
func (e *Error) Err() error {
	out := &backend.Error{Code: e.Code, Reason: e.Message}
	if e.Code == "" || e.Code == backend.CodeOK {
		out.Code = backend.CodeInternal
	}
	if l := e.Login; l != nil {
		out.Login = &backend.LoginState{State: l.State, Status: backend.LoginPending, URL: l.URL, UserCode: l.UserCode}
		if l.ExpiresAt != nil {
			out.Login.Expires = *l.ExpiresAt
		}
	}
	if ms := min(e.RetryAfterMS, maxRetryAfter.Milliseconds()); ms > 0 {
		out.RetryAfter = time.Duration(ms) * time.Millisecond
	}
	return out
}

// maxRetryAfter bounds what is believed of how long to wait.
const maxRetryAfter = 24 * time.Hour

var errNoValue = errors.New("the sidecar gave neither a value nor an error")

// outcome gives what r is the wire form of. A secret with several fields, of which the ref names none, is field_required, as
// a Resolver has it; with whole it is a Value without a secret of its own.
func (r *Result) outcome(whole bool) resolver.Outcome {
	o := resolver.Outcome{Ref: r.Ref}
	fail := func(err error) resolver.Outcome {
		o.Err = &resolver.RefError{Ref: r.Ref, Err: err}
		return o
	}
	if r.Error != nil {
		return fail(r.Error.Err())
	}
	facts := resolver.ValueFacts{
		Secret: FieldValue{r.Value, r.ValueBase64, r.JSON}.secret(),
		Type:   r.Type, Version: r.Version, Revision: r.Revision, Stale: r.Stale, Metadata: r.Metadata,
	}
	if r.ExpiresAt != nil {
		facts.Expires = *r.ExpiresAt
	}
	if r.RefreshError != nil {
		facts.RefreshError = r.RefreshError.Err()
	}
	if r.RefreshAfter != nil {
		facts.RefreshAfter = *r.RefreshAfter
	}
	if len(r.Fields) > 0 {
		facts.Fields = make(map[string]backend.Secret, len(r.Fields))
		for name, f := range r.Fields {
			if facts.Fields[name] = f.secret(); facts.Fields[name].IsZero() {
				return fail(backend.Errorf(backend.CodeInternal, "the sidecar gave a field without a value"))
			}
		}
	}
	switch {
	case !facts.Secret.IsZero():
	case len(facts.Fields) == 0:
		return fail(backend.Errorf(backend.CodeInternal, "%v", errNoValue))
	case !whole:
		return fail(resolver.FieldRequired(facts.Fields))
	}
	o.Value = resolver.NewValue(facts)
	return o
}

// secret gives the field's value, the zero Secret when it has none.
func (f FieldValue) secret() backend.Secret {
	switch {
	case f.ValueBase64 != nil:
		return f.ValueBase64.Secret
	case f.Value == nil:
		return backend.Secret{}
	case !f.JSON:
		return f.Value.Secret
	}
	var out backend.Secret
	_ = f.Value.Use(func(b []byte) error {
		out = backend.NewJSONSecret(b)
		return nil
	})
	return out
}
