package backend

import (
	"context"
	"time"
)

// Login is a Backend whose credentials a person must first consent to. It keeps nothing of what a login gave: that is the
// caller's, which hands it to Refresh.
type Login interface {
	Backend
	// StartLogin begins a login for the credential that req names, and returns at once. The login goes on until it ends, is
	// cancelled, expires, or the Backend is closed; ctx bounds the start alone.
	StartLogin(ctx context.Context, req Request, o LoginOptions) (LoginState, error)
	// SubmitLogin gives what the person entered: a pasted URL, a code, an API key, by the name of the field.
	SubmitLogin(ctx context.Context, state string, input map[string]Secret) (LoginState, error)
	// PollLogin tells how a login stands; ErrNotFound for a state that is unknown or long gone.
	PollLogin(ctx context.Context, state string) (LoginState, error)
	// CancelLogin ends a login and stores nothing of it; one that has ended already is no error.
	CancelLogin(ctx context.Context, state string) error
}

// LoginOptions say how a person can be reached. A Backend that knows one way alone takes it.
type LoginOptions struct {
	// Device asks for a code that is entered on another device.
	Device bool
	// NoRedirect: the person's browser cannot come back to this machine, and the URL at which it ends is submitted.
	NoRedirect bool
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

// LoginState is a login under way. State names it; nothing here is secret but Grant, and what a person must see to log in.
type LoginState struct {
	State    string
	Status   LoginStatus
	Message  string // for a person, when Status is LoginError
	Code     Code   // of the error then; empty: CodeDenied
	URL      string
	UserCode string
	Expires  time.Time
	Interval time.Duration // how long to wait between polls
	// Fields are what SubmitLogin takes, in the order in which a person is asked; none when nothing is to be entered.
	Fields []LoginField
	// Grant is what the login gave. It is set in the one answer that first says LoginSuccess, whose caller keeps it; it is
	// never sent anywhere.
	Grant *Grant
}

// LoginField is something that a person enters to log in.
type LoginField struct {
	Name     string // the key in the input of SubmitLogin
	Label    string // empty: the name
	Help     string // where it is found, in one line
	URL      string // a page that tells more
	Secret   bool   // it is not shown while it is entered
	Optional bool
}

// Grant is a credential and what its successor is made from.
type Grant struct {
	Credential *Credential
	// Refresh is what the store takes for a successor, a refresh token; the zero Secret when only a new login gives one. It
	// is never handed out with the credential.
	Refresh Secret
	// About tells of the grant what the Backend wants to find again, such as issuer and subject; nothing in it is secret.
	About map[string]string
}

// GrantRevoker is a Backend that ends a whole grant at its store: what it was made from too, and all successors.
type GrantRevoker interface {
	Backend
	// RevokeGrant ends have. One that has ended already is no error; ErrUnsupported where the store cannot be told.
	RevokeGrant(ctx context.Context, req Request, have *Grant) error
}

// LoginBeginner is a Backend whose Get begins a login by itself where nobody has logged in.
type LoginBeginner interface {
	Backend
	// BeginLogin gives the ErrAuthRequired of a Get for which nobody has logged in, with the login that it began.
	BeginLogin(ctx context.Context, req Request) error
}

type withoutLogin struct{}

// WithoutLogin gives a ctx under which no Get begins a login: the caller has other subjects to ask for first.
func WithoutLogin(ctx context.Context) context.Context {
	return context.WithValue(ctx, withoutLogin{}, true)
}

// MayLogin reports whether a Get under ctx may begin a login.
func MayLogin(ctx context.Context) bool { return ctx.Value(withoutLogin{}) == nil }

// AsLogin gives b as a Login, or errors.ErrUnsupported.
func AsLogin(b Backend) (Login, error) {
	if l, ok := b.(Login); ok {
		return l, nil
	}
	return nil, unsupported("log in on request")
}
