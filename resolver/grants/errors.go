package grants

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/loginhint"
)

var (
	errVersion = &backend.Error{Code: backend.CodeUnsupported, Reason: "what a login gives has no versions"}
	errClosed  = &backend.Error{Code: backend.CodeUnavailable, Reason: "the provider is closed"}
	errNoState = &backend.Error{Code: backend.CodeNotFound, Reason: "there is no such login, or it ended long ago"}
	errBusy    = &backend.Error{Code: backend.CodeUnavailable, Reason: "the login changes all the time", Remedy: "try again"}
	errNoOwner = &backend.Error{Code: backend.CodeUnsupported, Reason: "the provider makes no successor of a login: a person logs in again"}
	errNoLock  = &backend.Error{Code: backend.CodeInvalidConfig, Reason: "there is no directory for state, and so no lock by which processes refresh a login once",
		Remedy: "see what is wrong with it: credresolve doctor"}
)

// command is how a person logs in for k.
func (k key) command(verb string) string {
	return "run: " + loginhint.Command(verb, k.provider, k.req.ID)
}

// noLogin is the error of a Get for which nobody has logged in.
func (k key) noLogin() *backend.Error {
	e := k.loginNeeded("nobody has logged in as " + k.String())
	e.NoLogin = true
	return e
}

// loginNeeded is the error of a Get that only a login can make work.
func (k key) loginNeeded(reason string) *backend.Error {
	return &backend.Error{Code: backend.CodeAuthRequired, Reason: reason, Remedy: k.command("login")}
}

// damaged is the error of a record that is none of ours, or not whole. It is never taken for a missing one, and not
// overwritten.
func (k key) damaged(what string) *backend.Error {
	return &backend.Error{Code: backend.CodeInternal, Reason: "what is kept of the login of " + k.String() + " " + what,
		Remedy: "to drop it, " + k.command("logout")}
}

// fromStore says of an error of the token store that it is one, and never that a secret is missing.
func (s *Store) fromStore(doing string, err error) error {
	var e *backend.Error
	if !errors.As(err, &e) {
		return err
	}
	out := *e
	out.Login = nil
	out.Reason = doing + " the token store: " + reasonOf(e)
	switch out.Code {
	case backend.CodeNotFound: // a mount or directory, not a login
		out.Code = backend.CodeUnavailable
	case backend.CodeAuthRequired: // the store's own, which a login at the provider does not mend
		out.Code = backend.CodeDenied
	case backend.CodeUnavailable:
		if s.c.Remedy != "" {
			out.Remedy = s.c.Remedy
		}
	}
	return &out
}

func reasonOf(err error) string {
	var e *backend.Error
	switch {
	case !errors.As(err, &e):
		return string(backend.CodeOf(err))
	case e.Reason == "":
		return strings.ReplaceAll(string(e.Code), "_", " ")
	}
	return e.Reason
}

// calm makes an error of a panic, whose words are not known to be without secrets. It is deferred.
func calm(err *error) {
	if recover() != nil {
		*err = backend.Errorf(backend.CodeInternal, "the backend panicked")
	}
}

func at(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// tooLarge says of the error of a store that cannot hold what it was given how much that is.
func tooLarge(n int, err error) error {
	var e *backend.Error
	if !errors.As(err, &e) || e.Code != backend.CodeUnsupported {
		return err
	}
	return &backend.Error{Code: e.Code, Reason: reasonOf(e) + " (the login takes " + strconv.Itoa(n) + " bytes)",
		Remedy: "set logins.store to a provider that holds larger secrets"}
}
