package vault

import (
	"net/http"
	"strconv"

	"github.com/credresolve/credresolve/backend"
)

// The errors that do not depend on an answer.
var (
	errClosed      = backend.Errorf(backend.CodeUnavailable, "the provider is closed")
	errInvalidID   = &backend.Error{Code: backend.CodeInvalidID, Reason: "the id is not a path of vault", Remedy: "write it as mount/path, without empty or dot segments"}
	errNoBinary    = backend.Errorf(backend.CodeUnsupported, "vault holds text and JSON: the value is not UTF-8")
	errNumber      = &backend.Error{Code: backend.CodeUnsupported, Reason: "vault would alter a number in the value", Remedy: "write the number as text, in quotes"}
	errNoVersions  = backend.Errorf(backend.CodeUnsupported, "only kv version 2 has versions")
	errPinned      = backend.Errorf(backend.CodeUnsupported, "a version cannot be written, only read")
	errNoCheck     = backend.Errorf(backend.CodeUnsupported, "only kv version 2 tells a version without the secret, to a policy that may read metadata/")
	errNoKV        = backend.Errorf(backend.CodeUnsupported, "only a key-value engine can be written to")
	errV1Condition = &backend.Error{Code: backend.CodeUnsupported, Reason: "kv version 1 cannot write on a condition", Remedy: "write unconditionally"}
	errExists      = backend.Errorf(backend.CodeConflict, "the secret exists already")
	errChanged     = backend.Errorf(backend.CodeConflict, "the secret has changed since that version")
	errNoLease     = backend.Errorf(backend.CodeUnsupported, "the credential has no lease: it cannot be revoked")
	errLeaseGone   = backend.Errorf(backend.CodeExpired, "the lease has ended")
	errNotRenewed  = backend.Errorf(backend.CodeUnsupported, "the lease is not renewable")
	errBlindV2     = &backend.Error{Code: backend.CodeInvalidConfig, Reason: "the mount is kv version 2, but the server did not tell so", Remedy: "set mount, and kv_version: 2"}
)

// status is what an HTTP status of the server means for a request that was let through to a path.
// https://developer.hashicorp.com/vault/api-docs#http-status-codes, and /system/health for 429, 472, 473 and 501.
type status struct {
	http   int
	code   backend.Code
	reason string
	remedy string
}

var statuses = []status{
	{301, backend.CodeUnavailable, "the server redirects to another address", "set address to the active server, or list it in redirect_to"},
	{302, backend.CodeUnavailable, "the server redirects to another address", "set address to the active server, or list it in redirect_to"},
	{307, backend.CodeUnavailable, "the server redirects to another address", "set address to the active server, or list it in redirect_to"},
	{308, backend.CodeUnavailable, "the server redirects to another address", "set address to the active server, or list it in redirect_to"},
	{400, backend.CodeInvalidID, "the server rejects the request for %s", ""},
	{403, backend.CodeDenied, "permission denied on %s", "see the policies of the login with: vault token capabilities"},
	{404, backend.CodeNotFound, "nothing at %s", ""},
	{405, backend.CodeUnsupported, "%s cannot be read, only written to", ""},
	{412, backend.CodeUnavailable, "the server has not caught up with its cluster", ""},
	{413, backend.CodeUnsupported, "the value is larger than the server takes", ""},
	{429, backend.CodeThrottled, "the server's rate limit is reached", ""},
	{472, backend.CodeUnavailable, "the server is a disaster recovery secondary", ""},
	{473, backend.CodeUnavailable, "the server is a standby", ""},
	{500, backend.CodeUnavailable, "the server failed (status 500)", ""},
	{501, backend.CodeUnavailable, "the server is not initialised", ""},
	{502, backend.CodeUnavailable, "the server behind the proxy is not reachable", ""},
	{503, backend.CodeUnavailable, "the server is down for maintenance", ""},
	{504, backend.CodeUnavailable, "the server behind the proxy gave no answer in time", ""},
}

func lookupStatus(http int) status {
	for _, s := range statuses {
		if s.http == http {
			return s
		}
	}
	if http >= 500 {
		return status{http, backend.CodeUnavailable, "the server failed (status " + strconv.Itoa(http) + ")", ""}
	}
	return status{http, backend.CodeInternal, "the server answered with status " + strconv.Itoa(http), ""}
}

// texts are errors of Vault that its status alone does not tell apart. Their text is compared, never shown.
var texts = []struct {
	http   int
	text   string
	code   backend.Code
	reason string
	remedy string
}{
	{400, "unknown role", backend.CodeNotFound, "no role at %s", ""},
	{400, "check-and-set parameter did not match", backend.CodeConflict, "%s has changed", ""},
	{400, "check-and-set parameter required", backend.CodeUnsupported, "%s can only be written on a condition (cas_required)", "write if absent, or if a version still matches"},
	{400, "lease not found", backend.CodeExpired, "the lease has ended", ""},
	{400, "invalid lease", backend.CodeExpired, "the lease has ended", ""},
	{400, "lease expired", backend.CodeExpired, "the lease has ended", ""},
	{400, "lease is not renewable", backend.CodeUnsupported, "the lease is not renewable", ""},
	{404, "no handler for route", backend.CodeNotFound, "no secrets engine is mounted at %s", "see: vault secrets list"},
	{500, "local node not active", backend.CodeUnavailable, "the server is a standby without an active server", ""},
	{503, "sealed", backend.CodeUnavailable, "the server is sealed", "an operator must run: vault operator unseal"},
}

// failure is the error of an answer of a failed call; nil when the call did not fail.
func (b *Backend) failure(a *answer, about string) error {
	if a.status < 300 {
		return nil
	}
	s := lookupStatus(a.status)
	for _, t := range texts {
		if t.http == a.status && a.says(t.text) {
			s.code, s.reason, s.remedy = t.code, t.reason, t.remedy
			break
		}
	}
	e := &backend.Error{Code: s.code, Reason: fill(s.reason, about), Remedy: s.remedy, RetryAfter: a.retryAfter}
	if a.redirect != "" && a.status < 400 {
		e.Reason += " (" + a.redirect + ")"
	}
	if e.Code.Retryable() {
		e.Reason = b.target + ": " + e.Reason
	}
	return e
}

// refused reports whether an answer to a login means that the credentials will not do, as opposed to the server being
// unable to tell.
func refused(a *answer) bool {
	return a.status == http.StatusBadRequest || a.status == http.StatusUnauthorized || a.status == http.StatusForbidden
}
