package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The sentinels: errors.Is finds them in every error of a Backend. Unsupported is errors.ErrUnsupported, time-out and
// cancellation are the context's errors.
var (
	ErrUsage         error = &Error{Code: CodeUsage}
	ErrInvalidConfig error = &Error{Code: CodeInvalidConfig}
	ErrNotFound      error = &Error{Code: CodeNotFound}      // secret, version or field
	ErrDenied        error = &Error{Code: CodeDenied}        // the store refuses this caller
	ErrInvalidID     error = &Error{Code: CodeInvalidID}     // the id can never exist in this store
	ErrFieldRequired error = &Error{Code: CodeFieldRequired} // a structured secret, and no field named
	ErrUnavailable   error = &Error{Code: CodeUnavailable}   // another try may succeed
	ErrThrottled     error = &Error{Code: CodeThrottled}     // too many calls; is an ErrUnavailable too
	ErrLocked        error = &Error{Code: CodeLocked}        // a person must unlock the store first
	ErrAuthRequired  error = &Error{Code: CodeAuthRequired}  // a login is missing or was refused
	ErrExpired       error = &Error{Code: CodeExpired}       // the credential is past its life
	ErrConflict      error = &Error{Code: CodeConflict}      // a compare-and-swap lost
)

// Code is the name of a kind of error, as it crosses a process.
type Code string

// The codes.
const (
	CodeOK            Code = "ok"
	CodeInternal      Code = "internal"
	CodeUsage         Code = "usage"
	CodeInvalidConfig Code = "invalid_config"
	CodeNotFound      Code = "not_found"
	CodeDenied        Code = "denied"
	CodeInvalidID     Code = "invalid_id"
	CodeFieldRequired Code = "field_required"
	CodeUnsupported   Code = "unsupported"
	CodeUnavailable   Code = "unavailable"
	CodeThrottled     Code = "throttled"
	CodeLocked        Code = "locked"
	CodeAuthRequired  Code = "auth_required"
	CodeExpired       Code = "expired"
	CodeConflict      Code = "conflict"
	CodeTimeout       Code = "timeout"
	CodeCanceled      Code = "canceled"
)

// codes is the one table of what a code means outside of Go.
var codes = map[Code]struct {
	exit, http int
	is         []error // what errors.Is finds beside the code's own sentinel
}{
	CodeOK:            {0, 200, nil},
	CodeInternal:      {1, 500, nil},
	CodeUsage:         {2, 400, nil},
	CodeInvalidConfig: {2, 400, nil},
	CodeNotFound:      {3, 404, nil},
	CodeDenied:        {4, 403, nil},
	CodeInvalidID:     {5, 422, nil},
	CodeFieldRequired: {5, 422, nil},
	CodeUnsupported:   {5, 422, []error{errors.ErrUnsupported}},
	CodeUnavailable:   {6, 503, nil},
	CodeThrottled:     {6, 429, []error{ErrUnavailable}},
	CodeLocked:        {7, 423, nil},
	CodeAuthRequired:  {8, 401, nil},
	CodeExpired:       {9, 410, nil},
	CodeConflict:      {10, 409, nil},
	CodeTimeout:       {11, 504, []error{context.DeadlineExceeded}},
	CodeCanceled:      {130, 499, []error{context.Canceled}},
}

// ExitStatus is the exit status of the credresolve command for c; that of CodeInternal for an unknown code.
func (c Code) ExitStatus() int { return c.row().exit }

// HTTPStatus is the status of an HTTP answer for c; that of CodeInternal for an unknown code.
func (c Code) HTTPStatus() int { return c.row().http }

// Retryable reports whether another try may succeed: unavailable and throttled alone.
func (c Code) Retryable() bool { return c == CodeUnavailable || c == CodeThrottled }

func (c Code) row() struct {
	exit, http int
	is         []error
} {
	if r, ok := codes[c]; ok {
		return r
	}
	return codes[CodeInternal]
}

// Error is an error of a Backend. Its texts are shown to people and written to logs: they hold no secret, no
// response body, no command output, no query string and no rejected input line. There is no field for a cause, since
// the text of an SDK's error may hold any of them.
type Error struct {
	Code Code
	// Reason says what failed and why, in lower case, without a full stop: "permission denied on kv/app/db".
	Reason string
	// Remedy says what to do next, as a command where there is one; empty when there is nothing to say.
	Remedy string
	// RetryAfter is how long the store asked to wait; zero when it did not say.
	RetryAfter time.Duration
	// Login is a login under way that would end an ErrAuthRequired, without its Grant; nil: none is.
	Login *LoginState
	// NoLogin tells of an ErrAuthRequired that nobody has logged in for the request's subject, so that the credential of a wider
	// subject may be looked for, as after ErrNotFound.
	NoLogin bool
}

// Errorf gives an Error whose Reason is formatted as fmt.Sprintf does. No argument may be or hold a secret.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Reason: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string {
	s := e.Reason
	if s == "" {
		s = strings.ReplaceAll(string(e.Code), "_", " ")
	}
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}

// Is makes errors.Is find the sentinel of e's code, ErrUnavailable in a throttled error, errors.ErrUnsupported and
// the context's errors.
func (e *Error) Is(target error) bool {
	if t, ok := target.(*Error); ok && t.Code == e.Code && t.Reason == "" {
		return true
	}
	for _, is := range e.Code.row().is {
		if is == target {
			return true
		}
	}
	return false
}

// CodeOf gives the code of err: CodeOK for nil, CodeInternal for an error of no known kind.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return CodeOK
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.DeadlineExceeded):
		return CodeTimeout
	case errors.Is(err, context.Canceled):
		return CodeCanceled
	case errors.Is(err, errors.ErrUnsupported):
		return CodeUnsupported
	}
	return CodeInternal
}

// Missing reports whether err tells that there is nothing for the request's subject: ErrNotFound, or nobody has logged in.
func Missing(err error) bool {
	var e *Error
	if errors.As(err, &e) && e.Code == CodeAuthRequired {
		return e.NoLogin
	}
	return CodeOf(err) == CodeNotFound
}

// RetryAfter is how long the store that failed with err asked to wait; zero when it did not say.
func RetryAfter(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}
