package oauth2

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/loginhint"
)

// logInAgain is the remedy that remedied completes.
const logInAgain = "log in again"

// remedied names in err the command by which a person logs in for req.
func (b *Backend) remedied(err error, req backend.Request) error {
	var e *backend.Error
	if !errors.As(err, &e) || e.Remedy != logInAgain || b.host.Provider == "" || !b.config.loggedIn() {
		return err
	}
	out := *e
	out.Remedy = "run: " + loginhint.Command("login", b.host.Provider, req.ID)
	return &out
}

// The errors that do not depend on an answer.
var (
	errClosed     = backend.Errorf(backend.CodeUnavailable, "the provider is closed")
	errVersion    = backend.Errorf(backend.CodeUnsupported, "tokens have no versions")
	errOnlyID     = &backend.Error{Code: backend.CodeInvalidID, Reason: "nobody logs in here, so that there is one token alone", Remedy: `write the id as "default"`}
	errNoLogin    = &backend.Error{Code: backend.CodeAuthRequired, Reason: "nobody has logged in", Remedy: logInAgain}
	errNoRefresh  = &backend.Error{Code: backend.CodeAuthRequired, Reason: "the token has ended, and the server gave no refresh token; offline access may have to be asked for in scopes", Remedy: logInAgain}
	errNoState    = backend.Errorf(backend.CodeNotFound, "there is no such login, or it ended long ago")
	errNotNeeded  = backend.Errorf(backend.CodeUnsupported, "nobody logs in with this grant: the client has credentials of its own")
	errMany       = backend.Errorf(backend.CodeThrottled, "too many logins are under way")
	errForged     = backend.Errorf(backend.CodeDenied, "the answer belongs to another login, or was forged")
	errOtherIss   = backend.Errorf(backend.CodeDenied, "the answer comes from another issuer than the one that was asked")
	errNoCode     = &backend.Error{Code: backend.CodeUsage, Reason: "the URL holds no code", Remedy: "paste the whole address at which the browser ended"}
	errSpent      = backend.Errorf(backend.CodeDenied, "the login has had its answer already, and takes one alone")
	errNothing    = &backend.Error{Code: backend.CodeUsage, Reason: "nothing is entered here for this login", Remedy: "enter the code at the page that the login names"}
	errNoProbe    = backend.Errorf(backend.CodeUnsupported, "the server has no endpoint that tells this client whether a token is in force")
	errEnded      = backend.Errorf(backend.CodeExpired, "the server says that the token has ended or was revoked")
	errNoURL      = &backend.Error{Code: backend.CodeUsage, Reason: "a login takes one field, url", Remedy: "submit the address at which the browser ended"}
	errNoRevoke   = backend.Errorf(backend.CodeUnsupported, "the server has no endpoint at which tokens are revoked")
	errClientKey  = &backend.Error{Code: backend.CodeInvalidConfig, Reason: "client_key is no private key in PEM that signs", Remedy: "give an RSA, ECDSA or Ed25519 key, not encrypted"}
	errNoEndpoint = backend.Errorf(backend.CodeInvalidConfig, "the server does not tell an endpoint for this grant")
)

// meaning is what an error code of the server means for a step.
type meaning struct {
	code   backend.Code
	reason string
	remedy string
}

// refusal gives what an error code means that a standard names: RFC 6749 (4.1.2.1, 5.2), 8628 (3.5), 8693 (2.2.2), 8707 (2),
// 7009 (2.2.1) and OpenID Connect Core (3.1.2.6), or for which GitHub and Slack have words of their own. Others are shown as "an error of its own". A switch costs nothing at start-up.
func refusal(name string) (m meaning, known bool) {
	switch name {
	case "invalid_request":
		return meaning{backend.CodeInvalidConfig, "invalid_request: it does not understand the request", "see grant, client_auth and parameters"}, true
	case "invalid_client", "incorrect_client_credentials", "bad_client_secret", "invalid_client_id":
		return meaning{backend.CodeAuthRequired, "invalid_client: it does not accept the client's credentials", "see client_id, client_secret and client_auth"}, true
	case "invalid_grant", "bad_refresh_token", "invalid_refresh_token", "bad_verification_code", "invalid_code", "token_revoked": // GitHub's and Slack's
		return meaning{backend.CodeAuthRequired, "invalid_grant or its like: what the token was to be made from has ended or was revoked", logInAgain}, true
	case "device_flow_disabled":
		return meaning{backend.CodeDenied, "device_flow_disabled: this client may not use device codes", "enable the device flow in the client's settings at the server"}, true
	case "redirect_uri_mismatch", "bad_redirect_uri":
		return meaning{backend.CodeInvalidConfig, "the address to which a login comes back is not registered", "register it, or see redirect_host, redirect_port and redirect_path"}, true
	case "unauthorized_client":
		return meaning{backend.CodeDenied, "unauthorized_client: this client may not use this grant", "allow the grant to the client at the server"}, true
	case "unsupported_grant_type":
		return meaning{backend.CodeInvalidConfig, "unsupported_grant_type: it does not know this grant", "set another grant"}, true
	case "unsupported_response_type":
		return meaning{backend.CodeInvalidConfig, "unsupported_response_type: it gives no codes", "set another grant"}, true
	case "invalid_scope":
		return meaning{backend.CodeInvalidConfig, "invalid_scope: a scope is unknown, malformed, or more than was granted", "see scopes"}, true
	case "invalid_target":
		return meaning{backend.CodeInvalidConfig, "invalid_target: it does not know the audience or resource", "see audience and resource"}, true
	case "access_denied":
		return meaning{backend.CodeDenied, "access_denied: the login was refused", ""}, true
	case "expired_token":
		return meaning{backend.CodeExpired, "expired_token: the code was not used in time", "begin the login again"}, true
	case "server_error":
		return meaning{backend.CodeUnavailable, "server_error: it failed inside", ""}, true
	case "temporarily_unavailable":
		return meaning{backend.CodeUnavailable, "temporarily_unavailable: it is overloaded or in maintenance", ""}, true
	case "unsupported_token_type":
		return meaning{backend.CodeUnsupported, "unsupported_token_type: it does not revoke tokens of this type", ""}, true
	case "interaction_required":
		return meaning{backend.CodeAuthRequired, "interaction_required: a person must be asked", logInAgain}, true
	case "login_required":
		return meaning{backend.CodeAuthRequired, "login_required: a person must log in", logInAgain}, true
	case "consent_required":
		return meaning{backend.CodeAuthRequired, "consent_required: a person must consent", logInAgain}, true
	case "account_selection_required":
		return meaning{backend.CodeAuthRequired, "account_selection_required: a person must choose an account", logInAgain}, true
	}
	return meaning{}, false
}

// isOfClient reports whether an error code is about the client's credentials.
func isOfClient(name string) bool {
	return slices.Contains([]string{"invalid_client", "incorrect_client_credentials", "bad_client_secret", "invalid_client_id"}, name)
}

// refused gives the error for an answer of the server that is none, at a step such as "the exchange of the code".
func (b *Backend) refused(step string, status int, name string, wait time.Duration) error {
	if m, ok := refusal(name); ok && status != http.StatusTooManyRequests && status < http.StatusInternalServerError {
		e := &backend.Error{Code: m.code, Reason: b.target + ": " + step + ": " + m.reason, Remedy: m.remedy}
		if m.code.Retryable() {
			e.RetryAfter = wait
		}
		return e
	}
	e := &backend.Error{Code: backend.CodeInternal, Reason: b.target + ": " + step + ": it refused with an error of its own, status " + strconv.Itoa(status)}
	switch {
	case status == http.StatusTooManyRequests:
		e.Code, e.Reason, e.RetryAfter = backend.CodeThrottled, b.target+": "+step+": too many requests", wait
	case status >= http.StatusInternalServerError:
		e.Code, e.Reason, e.RetryAfter = backend.CodeUnavailable, b.target+": "+step+": it failed with status "+strconv.Itoa(status), wait
	case status >= 300 && status < 400:
		e.Code, e.Reason, e.Remedy = backend.CodeUnavailable, b.target+": "+step+": it redirects elsewhere, which is not followed", "see issuer and endpoints"
	case status == http.StatusUnauthorized:
		e.Code = backend.CodeAuthRequired
	case status == http.StatusForbidden:
		e.Code = backend.CodeDenied
	}
	return e
}

// garbled gives the error for an answer that no server of the standards gives.
func (b *Backend) garbled(step, what string) error {
	return &backend.Error{Code: backend.CodeUnavailable, Reason: b.target + ": " + step + ": " + what, Remedy: "see that issuer and endpoints are an authorization server's"}
}
