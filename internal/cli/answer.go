package cli

import (
	"encoding/base64"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// result is what became of one ref, for a program: the same form as the sidecar's answers.
type result struct {
	Ref         credref.Ref       `json:"ref"`
	Type        backend.Type      `json:"type,omitempty"`
	Version     string            `json:"version,omitempty"`
	Revision    string            `json:"revision,omitempty"`
	ExpiresAt   *time.Time        `json:"expires_at,omitempty"`
	Stale       bool              `json:"stale,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Value       *string           `json:"value,omitempty"`
	ValueBase64 string            `json:"value_base64,omitempty"` // in the place of value where that is no text
	Error       *failure          `json:"error,omitempty"`
}

// failure is an error for a program.
type failure struct {
	Code         backend.Code `json:"code"`
	Message      string       `json:"message"`
	Retryable    bool         `json:"retryable"`
	RetryAfterMS int64        `json:"retry_after_ms,omitempty"`
}

func newFailure(err error) *failure {
	if err == nil {
		return nil
	}
	code := backend.CodeOf(err)
	return &failure{code, cause(err).Error(), code.Retryable(), backend.RetryAfter(err).Milliseconds()}
}

// cause is err without the name of its ref, for where that stands beside it.
func cause(err error) error {
	if e, ok := err.(*resolver.RefError); ok {
		return e.Err
	}
	return err
}

func newResult(o resolver.Outcome) result {
	r := result{Ref: o.Ref, Error: newFailure(o.Err)}
	if o.Err != nil {
		return r
	}
	v := o.Value
	r.Type, r.Version, r.Revision, r.Stale, r.Metadata = v.Type(), v.Version(), v.Revision(), v.Stale(), v.Metadata()
	if t := v.Expires(); !t.IsZero() {
		t = t.UTC()
		r.ExpiresAt = &t
	}
	_ = v.Secret().Use(func(b []byte) error {
		if utf8.Valid(b) {
			text := string(b)
			r.Value = &text
		} else {
			r.ValueBase64 = base64.StdEncoding.EncodeToString(b)
		}
		return nil
	})
	return r
}

// failed gives the status of the first of errs that is not nil, having printed those that say says to; nil when all are.
func (a *app) failed(errs []error, say bool) error {
	var first error
	seen := make(map[string]bool)
	for _, err := range errs {
		if err == nil {
			continue
		}
		if first == nil {
			first = err
		}
		if text := err.Error(); say && !seen[text] {
			seen[text] = true
			a.complain(err)
		}
	}
	if first == nil {
		return nil
	}
	return &exit{status: exitStatusOf(first)}
}

// exitStatusOf is the exit status for err.
func exitStatusOf(err error) int {
	var own *exit
	var by interrupted
	switch {
	case errors.As(err, &own):
		return own.status
	case errors.As(err, &by):
		return statusOf(by.sig)
	}
	return backend.CodeOf(err).ExitStatus()
}
