package requirements

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/loginhint"
	"github.com/credresolve/credresolve/resolver"
)

// Status says whether a requirement is met.
type Status string

// The statuses of a requirement.
const (
	OK          Status = "ok"
	Missing     Status = "missing"     // there is no such credential, or no such provider
	Expired     Status = "expired"     // it is past its life
	NeedsLogin  Status = "needs_login" // a person must log in first
	Unsupported Status = "unsupported" // it is of another type, or lacks scopes
	Failed      Status = "error"       // anything else: Err tells
)

// Finding is what became of a requirement.
type Finding struct {
	Status Status
	// Err is why Status is not OK: a *backend.Error with what to do next.
	Err error
	// Login is the command that logs in, where Status is NeedsLogin.
	Login string
}

// Judge tells whether what r's ref resolved to meets r: v, or err where there is none. now is the time of the judgement.
func (r *Requirement) Judge(v *resolver.Value, err error, now time.Time) Finding {
	switch {
	case err == nil:
		return r.judge(v, now)
	case errors.Is(err, backend.ErrNotFound):
		return Finding{Status: Missing, Err: r.withRemedy(err, "store it, or take another: --map "+r.Env+"=cred://provider/id")}
	case errors.Is(err, backend.ErrAuthRequired):
		login := LoginCommand(r.Ref)
		return Finding{Status: NeedsLogin, Err: r.withRemedy(err, "log in: "+login), Login: login}
	case errors.Is(err, backend.ErrExpired):
		return Finding{Status: Expired, Err: r.withRemedy(err, "")}
	}
	return Finding{Status: Failed, Err: err}
}

// NoProvider is the Finding of a requirement whose provider is not configured; known are those that are.
func (r *Requirement) NoProvider(known []string) Finding {
	e := &backend.Error{
		Code:   backend.CodeNotFound,
		Reason: "the file names no provider for it",
		Remedy: fmt.Sprintf("say where it is: --map %s=cred://provider/id, or set it yourself", r.Env),
	}
	if r.Ref.Provider != "" {
		e.Reason = fmt.Sprintf("there is no provider %s", r.Ref.Provider)
		e.Remedy = fmt.Sprintf("configure it, or say where the credential is: --map %s=cred://provider/id", r.Env)
		if near := backend.Nearest(r.Ref.Provider, known); near != "" {
			e.Remedy = fmt.Sprintf("did the author mean %q? else configure it, or map the variable: --map %s=cred://provider/id", near, r.Env)
		}
	}
	return Finding{Status: Missing, Err: e}
}

func (r *Requirement) judge(v *resolver.Value, now time.Time) Finding {
	if end := v.Expires(); !end.IsZero() && !now.Before(end) {
		return Finding{Status: Expired, Err: &backend.Error{Code: backend.CodeExpired, Reason: r.Ref.String() + ": it is past its life"}}
	}
	if !meets(v.Type(), r.Type) {
		return Finding{Status: Unsupported, Err: &backend.Error{
			Code:   backend.CodeUnsupported,
			Reason: fmt.Sprintf("%s is of type %s, where %s is needed", r.Ref, v.Type(), r.Type),
			Remedy: "take another: --map " + r.Env + "=cred://provider/id; or give it that type in its provider's types",
		}}
	}
	if len(r.Scopes) == 0 || v.Type() != backend.TypeOAuth2 {
		return Finding{Status: OK}
	}
	granted := Scopes(v.Metadata()["scope"])
	lacking := slices.DeleteFunc(slices.Clone(r.Scopes), func(s string) bool { return slices.Contains(granted, s) })
	if len(lacking) == 0 {
		return Finding{Status: OK}
	}
	e := &backend.Error{
		Code:   backend.CodeUnsupported,
		Reason: fmt.Sprintf("%s lacks the scopes %s", r.Ref, strings.Join(lacking, " ")),
		Remedy: "add them to the provider's scopes, and, if it is one that a person logs in to, log in again: " + LoginCommand(r.Ref),
	}
	if len(granted) == 0 {
		e.Reason = fmt.Sprintf("%s does not tell its scopes, where %s are needed", r.Ref, strings.Join(lacking, " "))
	}
	return Finding{Status: Unsupported, Err: e}
}

// meets reports whether a credential of type is will do where want is needed. A store that knows no types gives user_value,
// which may be any single text; an access token of OAuth 2.0 is a token.
func meets(is, want backend.Type) bool {
	switch {
	case want == "" || is == want:
		return true
	case is == backend.TypeUserValue:
		return want == backend.TypeAPIKey || want == backend.TypeToken
	case want == backend.TypeUserValue:
		return is == backend.TypeAPIKey || is == backend.TypeToken
	}
	return is == backend.TypeOAuth2 && want == backend.TypeToken
}

// Scopes reads a list of scopes: with spaces between them, as RFC 6749 has it, or commas, as some servers do.
func Scopes(text string) []string {
	return strings.FieldsFunc(text, func(c rune) bool { return c == ' ' || c == ',' })
}

// LoginCommand is the command by which a person logs in for ref.
func LoginCommand(ref credref.Ref) string {
	return loginhint.Command("login", ref.Provider, ref.ID)
}

// withRemedy gives err with what to do next, where it does not say so itself.
func (r *Requirement) withRemedy(err error, remedy string) error {
	e := &backend.Error{Code: backend.CodeOf(err), Reason: err.Error(), Remedy: remedy}
	var own *backend.Error
	if errors.As(err, &own) {
		e.Login = own.Login
		if own.Remedy != "" {
			e.Remedy = "" // it is in the text
		}
	}
	return e
}
