package client

import (
	"context"
	"net/http"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// LoginRequest is the body of POST /v1/login/start. For whom it is comes from the connection.
type LoginRequest struct {
	// Provider is whose login it is.
	Provider string `json:"provider"`
	// ID is that of the credential.
	ID string `json:"id"`
	// Device asks for a code that is entered on another device.
	Device bool `json:"device,omitempty"`
	// NoRedirect: the person's browser cannot come back to the sidecar's machine, and the URL at which it ends is submitted.
	NoRedirect bool `json:"no_redirect,omitempty"`
}

// LoginState is how a login stands. Nothing in it is secret but what the person must see to log in; what the login gave stays in
// the sidecar.
type LoginState struct {
	// State names the login. Only who began it, or was told of it, can ask for it.
	State string `json:"state"`
	// Status is pending, success, error, expired or cancelled.
	Status backend.LoginStatus `json:"status"`
	// Message says for a person what went wrong.
	Message string `json:"message,omitempty"`
	// Code is the kind of that error: one that is retryable tells that the login may be tried again as it is. Not set: denied.
	Code backend.Code `json:"code,omitempty"`
	// URL is what the person opens.
	URL string `json:"url,omitempty"`
	// UserCode is what the person enters there.
	UserCode string `json:"user_code,omitempty"`
	// ExpiresAt is until when the login can be finished.
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	// Interval is how long to wait between polls.
	Interval Duration `json:"interval,omitempty"`
	// Fields are what is to be submitted, in the order in which a person is asked; none: nothing is.
	Fields []LoginField `json:"fields,omitempty"`
}

// LoginField is something that a person enters to log in.
type LoginField struct {
	// Name is the key in the input.
	Name string `json:"name"`
	// Label is what a form shows. Not set: the name.
	Label string `json:"label,omitempty"`
	// Help says where it is found, in one line.
	Help string `json:"help,omitempty"`
	// URL is of a page that tells more.
	URL string `json:"url,omitempty"`
	// Secret: it is not shown while it is entered.
	Secret bool `json:"secret,omitempty"`
	// Optional: it may be left out.
	Optional bool `json:"optional,omitempty"`
}

// NewLoginState gives the wire form of s, without what the login gave.
func NewLoginState(s backend.LoginState) LoginState {
	out := LoginState{
		State: s.State, Status: s.Status, Message: s.Message, Code: s.Code, URL: s.URL, UserCode: s.UserCode, ExpiresAt: pointTo(s.Expires), Interval: Duration(s.Interval),
	}
	for _, f := range s.Fields {
		out.Fields = append(out.Fields, LoginField(f))
	}
	return out
}

// LoginInput is the body of POST /v1/login/submit.
type LoginInput struct {
	State string `json:"state"`
	// Input is what the person entered, by the names of the fields.
	Input map[string]Text `json:"input"`
}

// LoginQuery is the body of POST /v1/login/poll and POST /v1/login/cancel.
type LoginQuery struct {
	State string `json:"state"`
}

// LoginRef is the body of POST /v1/logout and POST /v1/refresh. For whom it is comes from the connection.
type LoginRef struct {
	// Ref is the credential that a login gave.
	Ref credref.Ref `json:"ref"`
}

// LogoutAnswer is the answer to POST /v1/logout.
type LogoutAnswer struct {
	// Revoked: the credential was ended where it came from too.
	Revoked bool `json:"revoked"`
}

// LoginsAnswer is the answer to GET /v1/logins.
type LoginsAnswer struct {
	Logins []LoginEntry `json:"logins"`
}

// LoginEntry is what is known of a login. Nothing in it is secret.
type LoginEntry struct {
	Ref credref.Ref `json:"ref"`
	// Subject is whose login it is; not set: everybody's.
	Subject *Subject `json:"subject,omitempty"`
	// Status is active, refreshing, expired, auth_required, interrupted or unknown.
	Status string `json:"status"`
	// Account tells who logged in where, as the provider has it.
	Account map[string]string `json:"account,omitempty"`
	// ExpiresAt is when the credential ends.
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	// RefreshAfter is when its successor is due.
	RefreshAfter *time.Time `json:"refresh_after,omitempty"`
	// LoggedInAt is when somebody logged in.
	LoggedInAt *time.Time `json:"logged_in_at,omitempty"`
	// RefreshedAt is when the credential was got, by that login or by a refresh.
	RefreshedAt *time.Time `json:"refreshed_at,omitempty"`
	// Refreshable: a successor is made without anybody logging in.
	Refreshable bool `json:"refreshable,omitempty"`
	// Reason says more about the status, for a person.
	Reason string `json:"reason,omitempty"`
}

// StartLogin begins a login. It goes on in the sidecar, which keeps what it gives; PollLogin tells how it stands. It needs a rule
// with login: true.
func (c *Client) StartLogin(ctx context.Context, req LoginRequest) (LoginState, error) {
	var s LoginState
	err := c.post(ctx, "/v1/login/start", req, &s)
	return s, err
}

// SubmitLogin gives what the person entered, by the names of the login's fields.
func (c *Client) SubmitLogin(ctx context.Context, state string, input map[string]backend.Secret) (LoginState, error) {
	body := []byte(`{"state":`)
	size := len(state)
	for name, s := range input {
		size += 6*(s.Len()+len(name)) + 8
	}
	body = append(make([]byte, 0, 6*size+64), body...) // so that it does not grow, which would leave a copy
	body = append(backend.AppendJSONString(body, state), `,"input":{`...)
	first := true
	for name, s := range input {
		if !first {
			body = append(body, ',')
		}
		first = false
		body = append(backend.AppendJSONString(body, name), ':')
		_ = s.Use(func(b []byte) error { body = backend.AppendJSONString(body, b); return nil })
	}
	body = append(body, "}}"...)
	defer clear(body)
	var out LoginState
	err := c.call(ctx, http.MethodPost, "/v1/login/submit", body, &out)
	return out, err
}

// PollLogin tells how a login stands; ErrNotFound for one that is unknown, long over, or somebody else's.
func (c *Client) PollLogin(ctx context.Context, state string) (LoginState, error) {
	var s LoginState
	err := c.post(ctx, "/v1/login/poll", LoginQuery{state}, &s)
	return s, err
}

// CancelLogin ends a login, of which nothing is kept. One that is over already is no error.
func (c *Client) CancelLogin(ctx context.Context, state string) error {
	return c.post(ctx, "/v1/login/cancel", LoginQuery{state}, nil)
}

// WaitLogin polls a login until it is over, as often as it asks for.
func (c *Client) WaitLogin(ctx context.Context, s LoginState) (LoginState, error) {
	for s.Status == backend.LoginPending {
		select {
		case <-time.After(max(time.Duration(s.Interval), minPoll)):
		case <-ctx.Done():
			return s, ctx.Err()
		}
		next, err := c.PollLogin(ctx, s.State)
		if err != nil {
			return s, err
		}
		s = next
	}
	return s, nil
}

// minPoll is how long WaitLogin waits at least.
const minPoll = time.Second

// Logout ends what a login gave, at its provider where that can be told, and in the sidecar.
func (c *Client) Logout(ctx context.Context, ref credref.Ref) (revoked bool, err error) {
	var answer LogoutAnswer
	err = c.post(ctx, "/v1/logout", LoginRef{ref}, &answer)
	return answer.Revoked, err
}

// Logins tells of the logins for what the caller may resolve, as the caller's subject has them.
func (c *Client) Logins(ctx context.Context) ([]LoginEntry, error) {
	var answer LoginsAnswer
	err := c.call(ctx, http.MethodGet, "/v1/logins", nil, &answer)
	return answer.Logins, err
}

// Refresh makes a successor of what a login gave now, whether or not it is due; errors.ErrUnsupported where only a login gives
// one.
func (c *Client) Refresh(ctx context.Context, ref credref.Ref) (LoginEntry, error) {
	var answer LoginEntry
	err := c.post(ctx, "/v1/refresh", LoginRef{ref}, &answer)
	return answer, err
}
