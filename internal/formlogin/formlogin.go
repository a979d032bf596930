// Package formlogin is the part of a backend.Login that asks a person for the fields of a form, and makes a grant of what was
// entered.
package formlogin

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
)

const (
	life      = 10 * time.Minute // of a login
	kept      = 10 * time.Minute // how long the outcome can be asked for
	maxLogins = 64
	maxInput  = 64 << 10 // bytes of one field
)

var (
	errClosed  = backend.Errorf(backend.CodeUnavailable, "the provider is closed")
	errNoState = backend.Errorf(backend.CodeNotFound, "there is no such login, or it ended long ago")
	errMany    = backend.Errorf(backend.CodeThrottled, "too many logins are under way")
	errBusy    = backend.Errorf(backend.CodeConflict, "what was submitted before is still being checked")
	errEnded   = backend.Errorf(backend.CodeConflict, "the login has ended")
)

// Take makes a grant of what was entered for the credential of req. An error of CodeUsage lets the person try again, another ends the
// login.
type Take func(ctx context.Context, req backend.Request, input map[string]backend.Secret) (*backend.Grant, error)

// Logins are the logins of one backend. The zero Logins is ready, and safe for concurrent use.
type Logins struct {
	mu     sync.Mutex
	logins map[string]*login
	closed bool
}

type login struct {
	req    backend.Request
	state  backend.LoginState
	busy   bool
	cancel context.CancelFunc // of the check under way
	ended  time.Time
}

// Start begins a login for the credential of req, in which a person enters fields.
func (l *Logins) Start(req backend.Request, fields []backend.LoginField) (backend.LoginState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return backend.LoginState{}, errClosed
	}
	if l.logins == nil {
		l.logins = map[string]*login{}
	}
	pending := 0
	var oldest *login // of those that ended
	for state, one := range l.logins {
		one.settle()
		switch {
		case one.ended.IsZero():
			pending++
		case time.Since(one.ended) > kept:
			delete(l.logins, state)
		case oldest == nil || one.ended.Before(oldest.ended):
			oldest = one
		}
	}
	switch {
	case pending >= maxLogins:
		return backend.LoginState{}, errMany
	case len(l.logins) >= 2*maxLogins && oldest != nil:
		delete(l.logins, oldest.state.State)
	}
	name := make([]byte, 32)
	_, _ = rand.Read(name) // never fails, as its documentation says
	one := &login{req: req, state: backend.LoginState{
		State: base64.RawURLEncoding.EncodeToString(name), Status: backend.LoginPending,
		Expires: time.Now().Add(life), Fields: slices.Clone(fields),
	}}
	l.logins[one.state.State] = one
	return one.state, nil
}

// settle ends a login whose time is over. Called with Logins.mu held.
func (one *login) settle() {
	if one.state.Status == backend.LoginPending && !time.Now().Before(one.state.Expires) {
		one.end(backend.LoginExpired, "")
		one.ended = one.state.Expires
	}
}

func (one *login) end(status backend.LoginStatus, message string) {
	one.state.Status, one.state.Message, one.state.Fields, one.ended = status, message, nil, time.Now()
	if one.cancel != nil {
		one.cancel()
	}
}

// find gives the login of that state. Called with l.mu held.
func (l *Logins) find(state string) (*login, error) {
	one := l.logins[state] // 256 random bits: what can be learnt from its timing is nothing
	if one == nil {
		return nil, errNoState
	}
	one.settle()
	if !one.ended.IsZero() && time.Since(one.ended) > kept {
		return nil, errNoState
	}
	return one, nil
}

// Submit gives input to take, once all that is asked for is there, and nothing else. The answer that says LoginSuccess carries the
// grant. A login that was cancelled meanwhile gives nothing.
func (l *Logins) Submit(ctx context.Context, state string, input map[string]backend.Secret, take Take) (backend.LoginState, error) {
	l.mu.Lock()
	one, err := l.find(state)
	switch {
	case err != nil:
	case one.state.Status != backend.LoginPending:
		err = errEnded
	case one.busy:
		err = errBusy
	default:
		err = check(one.state.Fields, input)
	}
	if err != nil {
		l.mu.Unlock()
		return backend.LoginState{}, err
	}
	one.busy = true
	within, cancel := context.WithCancel(ctx)
	one.cancel = cancel
	l.mu.Unlock()

	g, err := take(within, one.req, input)
	cancel()

	l.mu.Lock()
	defer l.mu.Unlock()
	one.busy, one.cancel = false, nil
	one.settle()
	switch {
	case one.state.Status != backend.LoginPending: // cancelled, or its time is over
	case err == nil:
		one.end(backend.LoginSuccess, "")
		s := one.state
		s.Grant = g
		return s, nil
	case backend.CodeOf(err) == backend.CodeUsage || ctx.Err() != nil || backend.CodeOf(err).Retryable():
		return backend.LoginState{}, err
	default:
		one.state.Code = backend.CodeOf(err)
		one.end(backend.LoginError, err.Error())
	}
	return one.state, nil
}

// check tells all that is wrong with input at once, without a value.
func check(fields []backend.LoginField, input map[string]backend.Secret) error {
	var wrong []string
	for _, f := range fields {
		switch v, given := input[f.Name]; {
		case (!given || v.Len() == 0) && !f.Optional:
			wrong = append(wrong, f.Name+" is missing")
		case v.Len() > maxInput:
			wrong = append(wrong, f.Name+" is too long")
		}
	}
	unknown := 0
	for name := range input {
		if !slices.ContainsFunc(fields, func(f backend.LoginField) bool { return f.Name == name }) {
			unknown++
		}
	}
	if unknown > 0 { // its name may be a value in the wrong place
		var names []string
		for _, f := range fields {
			names = append(names, f.Name)
		}
		wrong = append(wrong, "a field is none of "+strings.Join(names, ", "))
	}
	if len(wrong) > 0 {
		return backend.Errorf(backend.CodeUsage, "%s", strings.Join(wrong, "; "))
	}
	return nil
}

// Poll tells how a login stands.
func (l *Logins) Poll(state string) (backend.LoginState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one, err := l.find(state)
	if err != nil {
		return backend.LoginState{}, err
	}
	return one.state, nil
}

// Cancel ends a login; one that has ended already is no error.
func (l *Logins) Cancel(state string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	one, err := l.find(state)
	if err == nil && one.state.Status == backend.LoginPending {
		one.end(backend.LoginCancelled, "")
	}
	return err
}

// Close cancels the logins that are under way; none begins after it.
func (l *Logins) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, one := range l.logins {
		if one.state.Status == backend.LoginPending {
			one.end(backend.LoginCancelled, "")
		}
	}
}
