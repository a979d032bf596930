package sts

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/awsform"
	"github.com/credresolve/credresolve/internal/neterr"
)

// The errors that no answer of AWS is behind.
var (
	errClosed  = backend.Errorf(backend.CodeUnavailable, "the provider is closed")
	errVersion = backend.Errorf(backend.CodeUnsupported, "temporary credentials have no versions")
	errID      = &backend.Error{Code: backend.CodeInvalidID, Reason: `the id is neither the ARN of a role, nor a name of one, nor "session"`,
		Remedy: "write it as arn:aws:iam::123456789012:role/reader, or as a name under roles"}
	errNoRole     = &backend.Error{Code: backend.CodeNotFound, Reason: "no role of that name is configured", Remedy: "add it under roles"}
	errWebSession = backend.Errorf(backend.CodeUnsupported, "a web identity token gives the session of a role, not one of its own")
	errNotNeeded  = &backend.Error{Code: backend.CodeUnsupported, Reason: "nobody logs in here: the caller's credentials are enough", Remedy: "set mfa_serial where AWS wants a one-time code"}
	errProcess    = &backend.Error{Code: backend.CodeUnsupported, Reason: "the AWS profile has a credential_process, which is not run here",
		Remedy: "set access_key_id and secret_access_key to refs of a provider of kind exec"}
	errNoRegion    = &backend.Error{Code: backend.CodeInvalidConfig, Reason: "no AWS region is known", Remedy: "set region in the provider, AWS_REGION, or region in the AWS profile"}
	errNoLogin     = &backend.Error{Code: backend.CodeAuthRequired, Reason: "no AWS credentials could be had from the environment, the profile or an instance role", Remedy: "run: aws sso login, or set access_key_id and secret_access_key"}
	errLoad        = &backend.Error{Code: backend.CodeInvalidConfig, Reason: "the AWS configuration of the user cannot be loaded", Remedy: "check the profile, ~/.aws/config and the AWS_* variables"}
	errTokenFile   = &backend.Error{Code: backend.CodeAuthRequired, Reason: "the file of the web identity token cannot be read, or is empty", Remedy: "check web_identity_token_file"}
	errAnswer      = backend.Errorf(backend.CodeUnavailable, "the answer holds no credentials; check the endpoint")
	remedyOfCaller = "check access_key_id and its like, or log in again: aws sso login"
)

// refusal is what an error code of AWS means.
type refusal struct {
	code           backend.Code
	reason, remedy string
}

// refusals is the table of the error codes of STS: its API reference, "Common errors" there, and the throttling codes of
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html.
var refusals = map[string]refusal{
	"AccessDenied":               {backend.CodeDenied, "permission denied", "check the role's trust policy, external_id, duration, and that the caller may call this"},
	"AccessDeniedException":      {backend.CodeDenied, "permission denied", "check the role's trust policy, external_id, duration, and that the caller may call this"},
	"RegionDisabledException":    {backend.CodeDenied, "the account has not enabled STS in this region", "set another region"},
	"OptInRequired":              {backend.CodeDenied, "the account is not signed up for the service", ""},
	"ExpiredToken":               {backend.CodeAuthRequired, "the AWS session has expired", remedyOfCaller},
	"ExpiredTokenException":      {backend.CodeAuthRequired, "the web identity token has expired", "get a new one"},
	"InvalidIdentityToken":       {backend.CodeAuthRequired, "AWS refuses the web identity token", "check its issuer and audience"},
	"IDPRejectedClaim":           {backend.CodeAuthRequired, "the identity provider refuses the web identity token", "get a new one"},
	"InvalidClientTokenId":       {backend.CodeAuthRequired, "AWS does not know these credentials", remedyOfCaller},
	"SignatureDoesNotMatch":      {backend.CodeAuthRequired, "AWS refuses the signature: the secret access key or this host's clock is wrong", remedyOfCaller},
	"IncompleteSignature":        {backend.CodeAuthRequired, "AWS refuses the signature", remedyOfCaller},
	"RequestExpired":             {backend.CodeAuthRequired, "this host's clock is wrong", "set the clock"},
	"MissingAuthenticationToken": {backend.CodeAuthRequired, "the request was not signed", remedyOfCaller},
	"MalformedPolicyDocument":    {backend.CodeInvalidConfig, "the policy is malformed", "check policy"},
	"PackedPolicyTooLarge":       {backend.CodeInvalidConfig, "policies and tags together are too large", "shorten policy, policy_arns or tags"},
	"ValidationError":            {backend.CodeInvalidConfig, "AWS does not accept the settings", "check duration, the role's maximum session duration, and the tags"},
	"InvalidParameterValue":      {backend.CodeInvalidConfig, "AWS does not accept the settings", ""},
	"InvalidAction":              {backend.CodeUnsupported, "the endpoint does not know this call", ""},
	"NotImplemented":             {backend.CodeUnsupported, "the endpoint does not know this call", ""},
	"Throttling":                 {backend.CodeThrottled, "too many calls", ""},
	"ThrottlingException":        {backend.CodeThrottled, "too many calls", ""},
	"TooManyRequestsException":   {backend.CodeThrottled, "too many calls", ""},
	"RequestLimitExceeded":       {backend.CodeThrottled, "too many calls", ""},
	"SlowDown":                   {backend.CodeThrottled, "too many calls", ""},
	"IDPCommunicationError":      {backend.CodeUnavailable, "the identity provider could not be reached by AWS", ""},
	"InternalFailure":            {backend.CodeUnavailable, "the service failed", ""},
	"ServiceUnavailable":         {backend.CodeUnavailable, "the service is unavailable", ""},
}

// statuses is the table of HTTP statuses, for answers without an error code that we know.
var statuses = map[int]refusal{
	http.StatusUnauthorized:      {backend.CodeAuthRequired, "AWS does not accept these credentials", remedyOfCaller},
	http.StatusForbidden:         {backend.CodeDenied, "permission denied", ""},
	http.StatusProxyAuthRequired: {backend.CodeUnavailable, "the HTTP proxy wants a login", ""},
	http.StatusTooManyRequests:   {backend.CodeThrottled, "too many calls", ""},
}

// failure gives what err of a call means; step is what the call was for. mfa tells that it showed a one-time code.
func failure(ctx context.Context, err error, step string, mfa bool) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var (
		api    smithy.APIError
		answer *smithyhttp.ResponseError
		send   *smithyhttp.RequestSendError
		status int
		wait   time.Duration
	)
	if errors.As(err, &answer) && answer.Response != nil {
		status, wait = answer.HTTPStatusCode(), neterr.RetryAfter(answer.Response.Header)
	}
	say := func(r refusal) error {
		e := &backend.Error{Code: r.code, Reason: step + ": " + r.reason, Remedy: r.remedy}
		if r.code.Retryable() {
			e.RetryAfter = wait
		}
		return e
	}
	if errors.As(err, &api) {
		// AWS has no code of its own for a wrong one-time code. The message is only looked at, never shown.
		if mfa && api.ErrorCode() == "AccessDenied" && strings.Contains(api.ErrorMessage(), "MultiFactorAuthentication") {
			return say(refusal{backend.CodeAuthRequired, "AWS refuses the one-time code, which may have been used before", "try again with the next code, and check mfa_serial"})
		}
		if r, ok := refusals[api.ErrorCode()]; ok {
			return say(r)
		}
	}
	switch r, ok := statuses[status]; {
	case ok:
		return say(r)
	case status >= 500:
		return say(refusal{backend.CodeUnavailable, fmt.Sprintf("the service failed with status %d", status), ""})
	case errors.Is(err, awsform.ErrTooLong):
		return say(refusal{backend.CodeUnavailable, awsform.ErrTooLong.Error(), "check the endpoint"})
	case errors.As(err, &send):
		return neterr.Classify(ctx, err, step)
	case status >= 300 && status < 400:
		return say(refusal{backend.CodeUnavailable, "it redirects elsewhere, which is not followed", "check the endpoint"})
	case status >= 200 && status < 300, status == http.StatusNotFound:
		return say(refusal{backend.CodeUnavailable, "the answer is not one of AWS, or ended early", "check the endpoint"})
	case status != 0:
		return say(refusal{backend.CodeInternal, fmt.Sprintf("the service refused the call with status %d", status), ""})
	}
	return say(refusal{backend.CodeInvalidConfig, "no request could be made", "check region and endpoint"})
}

// sourceFailure gives the error of reading setting. A store's "not found" is about that setting there, and must not look
// like a missing role here.
func sourceFailure(ctx context.Context, setting string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	e := &backend.Error{Code: backend.CodeOf(err), Reason: setting + " could not be read: the source failed"}
	var own *backend.Error
	if errors.As(err, &own) {
		e.Reason, e.Remedy, e.RetryAfter = setting+" could not be read: "+own.Reason, own.Remedy, own.RetryAfter
	}
	switch e.Code {
	case backend.CodeNotFound, backend.CodeInvalidID, backend.CodeFieldRequired, backend.CodeUnsupported:
		e.Code = backend.CodeAuthRequired
	case backend.CodeTimeout, backend.CodeCanceled:
		e.Code = backend.CodeUnavailable
	}
	return e
}
