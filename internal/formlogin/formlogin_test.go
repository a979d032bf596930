package formlogin

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
)

var form = []backend.LoginField{{Name: "key", Secret: true}, {Name: "note", Optional: true}}

func entered(pairs ...string) map[string]backend.Secret {
	input := map[string]backend.Secret{}
	for i := 0; i < len(pairs); i += 2 {
		input[pairs[i]] = backend.NewSecretString(pairs[i+1])
	}
	return input
}

func grants(err error) Take {
	return func(_ context.Context, _ backend.Request, input map[string]backend.Secret) (*backend.Grant, error) {
		if err != nil {
			return nil, err
		}
		return &backend.Grant{Credential: &backend.Credential{Secret: input["key"]}}, nil
	}
}

func start(t *testing.T, l *Logins) string {
	t.Helper()
	s, err := l.Start(backend.Request{ID: "a"}, form)
	if err != nil || s.Status != backend.LoginPending || len(s.Fields) != 2 || len(s.State) != 43 {
		t.Fatalf("%+v, %v", s, err)
	}
	return s.State
}

func TestSubmit(t *testing.T) {
	var l Logins
	for _, tt := range []struct {
		name   string
		input  map[string]backend.Secret
		fails  error
		err    string
		status backend.LoginStatus
	}{
		{"whole", entered("key", "k-c4nary"), nil, "", backend.LoginSuccess},
		{"nothing", nil, nil, "key is missing", backend.LoginPending},
		{"empty", entered("key", ""), nil, "key is missing", backend.LoginPending},
		{"unknown", entered("c4nary", "x"), nil, "key is missing; a field is none of key, note", backend.LoginPending},
		{"too long", entered("key", strings.Repeat("x", maxInput+1)), nil, "key is too long", backend.LoginPending},
		{"a slip", entered("key", "k"), backend.Errorf(backend.CodeUsage, "no key has that form"), "no key has that form", backend.LoginPending},
		{"away", entered("key", "k"), backend.Errorf(backend.CodeUnavailable, "away"), "away", backend.LoginPending},
		{"refused", entered("key", "k"), backend.Errorf(backend.CodeDenied, "the key was refused"), "", backend.LoginError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			state := start(t, &l)
			s, err := l.Submit(t.Context(), state, tt.input, grants(tt.fails))
			if (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
				t.Errorf("%v, want %q", err, tt.err)
			}
			if (s.Grant != nil) != (tt.status == backend.LoginSuccess) {
				t.Errorf("a grant: %v", s.Grant != nil)
			}
			after, err := l.Poll(state)
			if err != nil || after.Status != tt.status || after.Grant != nil {
				t.Errorf("%+v, %v", after, err)
			}
			if tt.status == backend.LoginError && after.Message != "the key was refused" {
				t.Errorf("message %q", after.Message)
			}
			_, err = l.Submit(t.Context(), state, entered("key", "again"), grants(nil))
			if ended := tt.status != backend.LoginPending; ended != errors.Is(err, backend.ErrConflict) {
				t.Errorf("a second one: %v", err)
			}
		})
	}
}

func TestCancelWhileChecked(t *testing.T) {
	var l Logins
	state := start(t, &l)
	s, err := l.Submit(t.Context(), state, entered("key", "k"), func(ctx context.Context, _ backend.Request, _ map[string]backend.Secret) (*backend.Grant, error) {
		if _, err := l.Submit(ctx, state, entered("key", "k"), grants(nil)); !errors.Is(err, backend.ErrConflict) {
			t.Errorf("two at once: %v", err)
		}
		if err := l.Cancel(state); err != nil {
			t.Error(err)
		}
		<-ctx.Done()
		return &backend.Grant{Credential: &backend.Credential{}}, nil
	})
	if err != nil || s.Status != backend.LoginCancelled || s.Grant != nil {
		t.Errorf("%+v, %v", s, err)
	}
	if err := l.Cancel(state); err != nil {
		t.Errorf("cancelled twice: %v", err)
	}
}

func TestLoginsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Logins
		state := start(t, &l)
		time.Sleep(life)
		if s, err := l.Poll(state); err != nil || s.Status != backend.LoginExpired {
			t.Errorf("%+v, %v", s, err)
		}
		time.Sleep(kept + time.Second)
		if _, err := l.Poll(state); !errors.Is(err, backend.ErrNotFound) {
			t.Errorf("long after its end: %v", err)
		}
		for range maxLogins {
			start(t, &l)
		}
		if _, err := l.Start(backend.Request{}, form); !errors.Is(err, backend.ErrThrottled) {
			t.Errorf("one too many: %v", err)
		}
		for state := range l.logins { // those that have ended are in nobody's way
			if err := l.Cancel(state); err != nil {
				t.Error(err)
			}
		}
		for range 5 * maxLogins {
			state = start(t, &l)
			if err := l.Cancel(state); err != nil {
				t.Error(err)
			}
		}
		if s, err := l.Poll(state); err != nil || s.Status != backend.LoginCancelled || len(l.logins) > 2*maxLogins {
			t.Errorf("of many that ended: %+v, %v, %d are kept", s, err, len(l.logins))
		}
		state = start(t, &l)
		l.Close()
		if s, err := l.Poll(state); err != nil || s.Status != backend.LoginCancelled {
			t.Errorf("after closing: %+v, %v", s, err)
		}
		if _, err := l.Start(backend.Request{}, form); !errors.Is(err, backend.ErrUnavailable) {
			t.Errorf("after closing: %v", err)
		}
	})
}
