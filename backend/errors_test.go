package backend_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// The table that the command's exit statuses and the sidecar's HTTP statuses come from.
func TestCodes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code       backend.Code
		exit, http int
		retryable  bool
		sentinel   error
	}{
		{backend.CodeOK, 0, 200, false, nil},
		{backend.CodeInternal, 1, 500, false, nil},
		{backend.CodeUsage, 2, 400, false, backend.ErrUsage},
		{backend.CodeInvalidConfig, 2, 400, false, backend.ErrInvalidConfig},
		{backend.CodeNotFound, 3, 404, false, backend.ErrNotFound},
		{backend.CodeDenied, 4, 403, false, backend.ErrDenied},
		{backend.CodeInvalidID, 5, 422, false, backend.ErrInvalidID},
		{backend.CodeFieldRequired, 5, 422, false, backend.ErrFieldRequired},
		{backend.CodeUnsupported, 5, 422, false, errors.ErrUnsupported},
		{backend.CodeUnavailable, 6, 503, true, backend.ErrUnavailable},
		{backend.CodeThrottled, 6, 429, true, backend.ErrThrottled},
		{backend.CodeLocked, 7, 423, false, backend.ErrLocked},
		{backend.CodeAuthRequired, 8, 401, false, backend.ErrAuthRequired},
		{backend.CodeExpired, 9, 410, false, backend.ErrExpired},
		{backend.CodeConflict, 10, 409, false, backend.ErrConflict},
		{backend.CodeTimeout, 11, 504, false, context.DeadlineExceeded},
		{backend.CodeCanceled, 130, 499, false, context.Canceled},
	} {
		if tt.code.ExitStatus() != tt.exit || tt.code.HTTPStatus() != tt.http || tt.code.Retryable() != tt.retryable {
			t.Errorf("%s: exit %d, http %d, retryable %v", tt.code, tt.code.ExitStatus(), tt.code.HTTPStatus(), tt.code.Retryable())
		}
		if tt.sentinel == nil {
			continue
		}
		if got := backend.CodeOf(tt.sentinel); got != tt.code {
			t.Errorf("CodeOf(%v) = %s, want %s", tt.sentinel, got, tt.code)
		}
		err := fmt.Errorf("app: %w", backend.Errorf(tt.code, "why"))
		if !errors.Is(err, tt.sentinel) {
			t.Errorf("an error of code %s is not its sentinel", tt.code)
		}
		for _, other := range []error{backend.ErrNotFound, backend.ErrDenied, backend.ErrInvalidID, backend.ErrUnavailable, backend.ErrThrottled,
			backend.ErrLocked, backend.ErrAuthRequired, backend.ErrExpired, backend.ErrConflict, errors.ErrUnsupported} {
			throttledIsUnavailable := tt.code == backend.CodeThrottled && other == backend.ErrUnavailable
			if other != tt.sentinel && errors.Is(err, other) != throttledIsUnavailable {
				t.Errorf("an error of code %s taken as %v: %v", tt.code, other, !throttledIsUnavailable)
			}
		}
	}
	if got := backend.Code("of tomorrow").ExitStatus(); got != 1 {
		t.Errorf("an unknown code has exit status %d", got)
	}
	if got := backend.CodeOf(errors.New("x")); got != backend.CodeInternal {
		t.Errorf("CodeOf an error of no kind = %s", got)
	}
}

func TestErrorText(t *testing.T) {
	t.Parallel()
	e := backend.Errorf(backend.CodeAuthRequired, "the login to %s was refused", "vault.example")
	e.Remedy = "run: vault login"
	if got := e.Error(); got != "the login to vault.example was refused; run: vault login" {
		t.Error(got)
	}
	if got := backend.ErrNotFound.Error(); got != "not found" {
		t.Error(got)
	}
	e.RetryAfter = time.Second
	if got := backend.RetryAfter(fmt.Errorf("x: %w", e)); got != time.Second {
		t.Errorf("RetryAfter = %v", got)
	}
	if got := backend.RetryAfter(context.Canceled); got != 0 {
		t.Errorf("RetryAfter = %v", got)
	}
}
