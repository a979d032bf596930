package backend

import (
	"context"
	"time"
)

// Login is a Backend whose credentials a person must first consent to.
type Login interface {
	Backend
	// StartLogin begins a login and returns at once.
	StartLogin(ctx context.Context, s Subject) (LoginState, error)
	// SubmitLogin gives what the person entered: a pasted URL, a code, an API key.
	SubmitLogin(ctx context.Context, state string, input map[string]Secret) (LoginState, error)
	// PollLogin tells how a login stands; ErrNotFound for a state that is unknown or long gone.
	PollLogin(ctx context.Context, state string) (LoginState, error)
	// CancelLogin ends a login and stores nothing of it; one that has ended already is no error.
	CancelLogin(ctx context.Context, state string) error
}

// LoginStatus is how far a login is.
type LoginStatus string

// The statuses of a login.
const (
	LoginPending   LoginStatus = "pending"
	LoginSuccess   LoginStatus = "success"
	LoginError     LoginStatus = "error"
	LoginExpired   LoginStatus = "expired"
	LoginCancelled LoginStatus = "cancelled"
)

// LoginState is a login under way. State names it; nothing here is secret but what a person must see to log in.
type LoginState struct {
	State    string
	Status   LoginStatus
	Message  string // for a person, when Status is LoginError
	URL      string
	UserCode string
	Expires  time.Time
	Interval time.Duration // how long to wait between polls
}

// AsLogin gives b as a Login, or errors.ErrUnsupported.
func AsLogin(b Backend) (Login, error) {
	if l, ok := b.(Login); ok {
		return l, nil
	}
	return nil, unsupported("log in on request")
}
