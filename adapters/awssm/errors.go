package awssm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/awsform"
	"github.com/credresolve/credresolve/internal/neterr"
)

// The errors of this adapter that no answer of AWS is behind.
var (
	errClosed     = backend.Errorf(backend.CodeUnavailable, "the provider is closed")
	errPinned     = backend.Errorf(backend.CodeUnsupported, "a version cannot be written, only read")
	errDeleteIf   = backend.Errorf(backend.CodeUnsupported, "AWS Secrets Manager cannot delete under a condition")
	errEmptyValue = backend.Errorf(backend.CodeUnsupported, "AWS Secrets Manager holds no empty value")
	errFieldBytes = backend.Errorf(backend.CodeUnsupported, "a field that is not UTF-8 text cannot be stored: store it as a secret of its own")
	errNewByARN   = backend.Errorf(backend.CodeInvalidID, "a new secret needs a name, AWS makes its ARN")
	errID         = backend.Errorf(backend.CodeInvalidID, "the id is neither a name nor an ARN of a secret: a name has up to 512 letters, digits or any of /_+=.@!-")
	errVersion    = backend.Errorf(backend.CodeInvalidID, "the version is neither a version id (32 to 64 characters) nor a staging label (1 to 256)")
	errExists     = backend.Errorf(backend.CodeConflict, "the secret exists already")
	errStale      = backend.Errorf(backend.CodeConflict, "the secret has changed since that version")
	errDeleted    = &backend.Error{Code: backend.CodeConflict, Reason: "the secret is marked for deletion, and its name is taken until then",
		Remedy: "run: aws secretsmanager restore-secret --secret-id NAME"}
)

const (
	reasonAbsent  = "the secret or its version does not exist"
	reasonDeleted = "the secret is marked for deletion"
)

// refusal is what an error code of AWS means.
type refusal struct {
	code   backend.Code
	reason string
}

// refusals is the table of error codes, of Secrets Manager and of the services that credentials come from. Sources: the
// API references of Secrets Manager, STS and IAM Identity Center, "Common errors" in each, and the throttling codes of
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html.
var refusals = map[string]refusal{
	"ResourceNotFoundException": {backend.CodeNotFound, reasonAbsent},
	"ResourceExistsException":   {backend.CodeConflict, "the secret exists already"},
	"InvalidRequestException":   {backend.CodeUnsupported, "the state of the secret does not allow this, or another service manages it"},
	"InvalidParameterException": {backend.CodeInvalidID, "AWS does not accept this id or version"},
	"InvalidParameterValue":     {backend.CodeInvalidID, "AWS does not accept this id or version"},
	"ValidationException":       {backend.CodeInvalidID, "AWS does not accept this id or version"},
	"ValidationError":           {backend.CodeInvalidID, "AWS does not accept this id or version"},
	"InvalidNextTokenException": {backend.CodeUnavailable, "AWS lost its place in the list"},
	"UnknownOperationException": {backend.CodeUnsupported, "the endpoint does not know this call"},
	"InvalidAction":             {backend.CodeUnsupported, "the endpoint does not know this call"},
	"NotImplemented":            {backend.CodeUnsupported, "the endpoint does not know this call"},

	"AccessDeniedException":         {backend.CodeDenied, "permission denied"},
	"AccessDenied":                  {backend.CodeDenied, "permission denied"},
	"UnauthorizedOperation":         {backend.CodeDenied, "permission denied"},
	"NotAuthorized":                 {backend.CodeDenied, "permission denied"},
	"DecryptionFailure":             {backend.CodeDenied, "the secret's KMS key cannot be used to decrypt it"},
	"EncryptionFailure":             {backend.CodeDenied, "the secret's KMS key cannot be used to encrypt it"},
	"OptInRequired":                 {backend.CodeDenied, "the account is not signed up for the service"},
	"SubscriptionRequiredException": {backend.CodeDenied, "the account is not signed up for the service"},
	"RegionDisabledException":       {backend.CodeDenied, "the account has not enabled STS in this region"},

	"ThrottlingException":                    {backend.CodeThrottled, "too many calls"},
	"Throttling":                             {backend.CodeThrottled, "too many calls"},
	"ThrottledException":                     {backend.CodeThrottled, "too many calls"},
	"RequestThrottled":                       {backend.CodeThrottled, "too many calls"},
	"RequestThrottledException":              {backend.CodeThrottled, "too many calls"},
	"TooManyRequestsException":               {backend.CodeThrottled, "too many calls"},
	"RequestLimitExceeded":                   {backend.CodeThrottled, "too many calls"},
	"ProvisionedThroughputExceededException": {backend.CodeThrottled, "too many calls"},
	"TransactionInProgressException":         {backend.CodeThrottled, "too many calls"},
	"PriorRequestNotComplete":                {backend.CodeThrottled, "too many calls"},
	"BandwidthLimitExceeded":                 {backend.CodeThrottled, "too many calls"},
	"EC2ThrottledException":                  {backend.CodeThrottled, "too many calls"},
	"SlowDown":                               {backend.CodeThrottled, "too many calls"},
	"LimitExceededException":                 {backend.CodeThrottled, "a quota of the account is used up"},

	"InternalServiceError":        {backend.CodeUnavailable, "the service failed"},
	"InternalServerError":         {backend.CodeUnavailable, "the service failed"},
	"InternalServerException":     {backend.CodeUnavailable, "the service failed"},
	"InternalFailure":             {backend.CodeUnavailable, "the service failed"},
	"ServiceUnavailable":          {backend.CodeUnavailable, "the service is unavailable"},
	"ServiceUnavailableException": {backend.CodeUnavailable, "the service is unavailable"},
	"RequestTimeout":              {backend.CodeUnavailable, "the service did not get the whole request in time"},
	"RequestTimeoutException":     {backend.CodeUnavailable, "the service did not get the whole request in time"},
	"IDPCommunicationError":       {backend.CodeUnavailable, "the identity provider could not be reached by AWS"},

	"ExpiredToken":                   {backend.CodeAuthRequired, "the AWS session has expired"},
	"ExpiredTokenException":          {backend.CodeAuthRequired, "the AWS session has expired"},
	"UnrecognizedClientException":    {backend.CodeAuthRequired, "AWS does not know these credentials"},
	"InvalidClientTokenId":           {backend.CodeAuthRequired, "AWS does not know these credentials"},
	"InvalidAccessKeyId":             {backend.CodeAuthRequired, "AWS does not know these credentials"},
	"InvalidToken":                   {backend.CodeAuthRequired, "AWS does not know these credentials"},
	"AuthFailure":                    {backend.CodeAuthRequired, "AWS does not know these credentials"},
	"InvalidSignatureException":      {backend.CodeAuthRequired, "AWS refuses the signature: the secret access key or this host's clock is wrong"},
	"SignatureDoesNotMatch":          {backend.CodeAuthRequired, "AWS refuses the signature: the secret access key or this host's clock is wrong"},
	"IncompleteSignature":            {backend.CodeAuthRequired, "AWS refuses the signature"},
	"IncompleteSignatureException":   {backend.CodeAuthRequired, "AWS refuses the signature"},
	"RequestExpired":                 {backend.CodeAuthRequired, "this host's clock is wrong"},
	"RequestTimeTooSkewed":           {backend.CodeAuthRequired, "this host's clock is wrong"},
	"MissingAuthenticationToken":     {backend.CodeAuthRequired, "the request was not signed"},
	"MissingAuthenticationException": {backend.CodeAuthRequired, "the request was not signed"},
	"InvalidIdentityToken":           {backend.CodeAuthRequired, "AWS refuses the web identity token"},
	"InvalidIdentityTokenException":  {backend.CodeAuthRequired, "AWS refuses the web identity token"},
	"IDPRejectedClaim":               {backend.CodeAuthRequired, "the identity provider refuses the web identity token"},
	"IDPRejectedClaimException":      {backend.CodeAuthRequired, "the identity provider refuses the web identity token"},
	"UnauthorizedException":          {backend.CodeAuthRequired, "the AWS session has expired"},
	"InvalidGrantException":          {backend.CodeAuthRequired, "the AWS session has expired"},
	"InvalidClientException":         {backend.CodeAuthRequired, "the AWS session has expired"},
}

// statuses is the table of HTTP statuses, for answers without an error code that we know.
var statuses = map[int]refusal{
	http.StatusUnauthorized:          {backend.CodeAuthRequired, "AWS does not accept these credentials"},
	http.StatusForbidden:             {backend.CodeDenied, "permission denied"},
	http.StatusProxyAuthRequired:     {backend.CodeUnavailable, "the HTTP proxy wants a login"},
	http.StatusRequestEntityTooLarge: {backend.CodeUnsupported, "the value is too long"},
	http.StatusTooManyRequests:       {backend.CodeThrottled, "too many calls"},
}

// tellsDeletion reports whether message, of an InvalidRequestException, is about a secret that waits for its deletion. AWS
// has no code of its own for it. The message is only looked at, never shown.
func tellsDeletion(message string) bool {
	message = strings.ToLower(message)
	return strings.Contains(message, "marked for deletion") || strings.Contains(message, "scheduled for deletion") ||
		strings.Contains(message, "marked deleted") || strings.Contains(message, "was deleted")
}

// failure is an error of AWS, and what it says of the credentials that the call was made with.
type failure struct {
	err     error
	refused bool // the credentials were refused: others may be accepted
	login   bool // it was getting credentials that failed
	skewed  bool // this host's clock is off; the SDK has learned by how much
}

// loginError is the error of getting credentials, as it travels through the SDK to the caller.
type loginError struct {
	err     error // of this module, or a context's
	refused bool  // AWS refused the credentials that a role was to be assumed with
}

func (e *loginError) Error() string { return e.err.Error() }

// classify gives the failure of a call to Secrets Manager that ended with err.
func (s *session) classify(ctx context.Context, err error) failure {
	var login *loginError
	switch {
	case ctx.Err() != nil:
		return failure{err: ctx.Err()}
	case errors.As(err, &login):
		return failure{err: login.err, refused: login.refused, login: true}
	}
	e := serviceError(err, s.target)
	f := failure{err: e, refused: e.Code == backend.CodeAuthRequired}
	if f.refused {
		f.skewed = skewed(err)
		e.Remedy = s.remedy
	}
	return f
}

// serviceError gives what the answer of an AWS service, or its absence, means; target is whom we called.
func serviceError(err error, target string) *backend.Error {
	var (
		api     smithy.APIError
		answer  *smithyhttp.ResponseError
		send    *smithyhttp.RequestSendError
		garbage *smithy.DeserializationError
		status  int
		wait    time.Duration
	)
	if errors.As(err, &answer) && answer.Response != nil {
		status, wait = answer.HTTPStatusCode(), neterr.RetryAfter(answer.Response.Header)
	}
	say := func(r refusal) *backend.Error {
		e := backend.Errorf(r.code, "%s: %s", target, r.reason)
		if r.code.Retryable() {
			e.RetryAfter = wait
		}
		return e
	}
	if errors.As(err, &api) {
		// A query protocol's code may have a namespace before it or a URI behind it.
		name, _, _ := strings.Cut(api.ErrorCode(), ":")
		name = name[strings.LastIndexByte(name, '#')+1:]
		if r, ok := refusals[name]; ok {
			if name == "InvalidRequestException" && tellsDeletion(api.ErrorMessage()) {
				r = refusal{backend.CodeNotFound, reasonDeleted}
			}
			return say(r)
		}
	}
	network := func() *backend.Error {
		e, _ := neterr.Classify(context.Background(), err, target).(*backend.Error)
		return e
	}
	switch r, ok := statuses[status]; {
	case ok:
		return say(r)
	case status >= 500:
		return say(refusal{backend.CodeUnavailable, fmt.Sprintf("the service failed with status %d", status)})
	case errors.Is(err, awsform.ErrTooLong):
		return say(refusal{backend.CodeUnavailable, awsform.ErrTooLong.Error()})
	case errors.As(err, &send), cut(err):
		return network()
	case status >= 300 && status < 400:
		return say(refusal{backend.CodeUnavailable, "it redirects elsewhere, which is not followed; check the endpoint"})
	case status >= 200 && status < 300, status == http.StatusNotFound, errors.As(err, &garbage):
		return say(refusal{backend.CodeUnavailable, "the answer is not one of AWS; check the endpoint"})
	case status != 0:
		return say(refusal{backend.CodeInternal, fmt.Sprintf("the service refused the call with status %d", status)})
	}
	return say(refusal{backend.CodeInvalidConfig, "no request could be made; check region, endpoint, fips and dual_stack"})
}

// entryError gives what the error of one secret in a batch means.
func entryError(code, message string) *backend.Error {
	if _, ok := refusals[code]; !ok {
		return backend.Errorf(backend.CodeInternal, "AWS could not read the secret")
	}
	return serviceError(&smithy.GenericAPIError{Code: code, Message: message}, "AWS Secrets Manager")
}

// loginFailure gives the error of getting credentials from what the default chain chose, sources. target says what a call of
// STS was for. had tells that there were credentials before: then a service of this host that does not answer is down,
// else there is none.
func (c Config) loginFailure(err error, target string, sources []aws.CredentialSource, had bool) *loginError {
	var (
		before *loginError
		op     *smithy.OperationError
		from   = func(any ...aws.CredentialSource) bool {
			return slices.ContainsFunc(sources, func(s aws.CredentialSource) bool { return slices.Contains(any, s) })
		}
		required = func(reason, remedy string) *loginError {
			return &loginError{err: &backend.Error{Code: backend.CodeAuthRequired, Reason: reason, Remedy: remedy}}
		}
	)
	if errors.As(err, &before) {
		return before
	}
	if errors.As(err, &op) && op.ServiceID == sts.ServiceID {
		return c.stsFailure(err, target)
	}
	// A host without instance metadata is the rule, not a failure.
	if !from(aws.CredentialSourceIMDS) {
		if e := serviceError(err, "getting AWS credentials"); e.Code.Retryable() {
			return &loginError{err: e}
		}
	}
	switch {
	case from(aws.CredentialSourceSSO, aws.CredentialSourceSSOLegacy):
		return required("the sign-in to IAM Identity Center has expired or was never made", "run: aws sso login"+c.profileFlag())
	case from(aws.CredentialSourceLogin):
		return required("the sign-in with aws login has expired or was never made", "run: aws login"+c.profileFlag())
	case from(aws.CredentialSourceProcess):
		return required("the credential_process of the AWS profile failed", "run it by hand to see why")
	case from(aws.CredentialSourceEnvVarsSTSWebIDToken, aws.CredentialSourceProfileSTSWebIDToken):
		return required("the web identity token file cannot be read", "check AWS_WEB_IDENTITY_TOKEN_FILE")
	case had:
		return &loginError{err: backend.Errorf(backend.CodeUnavailable, "the AWS credentials of this host could not be renewed")}
	}
	return required("no AWS credentials were found in the environment, the profile or an instance role", c.remedy())
}

// stsFailure gives the error of assuming a role.
func (c Config) stsFailure(err error, target string) *loginError {
	e := serviceError(err, target)
	refused := e.Code == backend.CodeAuthRequired
	switch e.Code {
	case backend.CodeAuthRequired:
		e.Remedy = c.remedy()
	case backend.CodeDenied:
		e.Remedy = "check the role's trust policy, external_id, and that the caller may call sts:AssumeRole"
	case backend.CodeNotFound, backend.CodeInvalidID, backend.CodeUnsupported, backend.CodeConflict:
		// Those codes are about secrets, and a role is none.
		*e = *backend.Errorf(backend.CodeInvalidConfig, "%s: AWS does not accept its settings", target)
	}
	return &loginError{err: e, refused: refused}
}

// sourceFailure gives the error of reading setting, which holds credentials for AWS. A store's "not found" is about that
// setting there, and must not look like a missing secret here.
func sourceFailure(setting string, err error) *loginError {
	e := backend.Errorf(backend.CodeOf(err), "%s could not be read: %s", setting, "the source failed")
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
	return &loginError{err: e}
}

// loadFailure gives the error of loading the user's AWS configuration.
func (c Config) loadFailure(err error) error {
	var (
		noProfile config.SharedConfigProfileNotExistError
		badFile   config.SharedConfigLoadError
		badRole   config.SharedConfigAssumeRoleError
		mfa       config.AssumeRoleTokenProviderNotSetError
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return backend.Errorf(backend.CodeUnavailable, "the AWS configuration could not be loaded in time")
	case errors.As(err, &noProfile):
		e := backend.Errorf(backend.CodeInvalidConfig, "there is no AWS profile %q", noProfile.Profile)
		e.Remedy = "name another, or run: aws configure --profile " + noProfile.Profile
		return e
	case errors.As(err, &mfa):
		e := backend.Errorf(backend.CodeAuthRequired, "the AWS profile wants a one-time code (mfa_serial), which cannot be asked for here")
		e.Remedy = "log in with the aws command, and name a profile that holds the session"
		return e
	case errors.As(err, &badRole):
		return backend.Errorf(backend.CodeInvalidConfig, "the role or source_profile of the AWS profile is wrong")
	case errors.As(err, &badFile):
		return backend.Errorf(backend.CodeInvalidConfig, "the AWS configuration file cannot be read")
	}
	return backend.Errorf(backend.CodeInvalidConfig, "the AWS configuration cannot be loaded: an AWS_* variable or a setting of the profile is wrong")
}

// remedy says how a person gives us credentials.
func (c Config) remedy() string {
	if !c.AccessKeyID.IsZero() {
		return "check access_key_id, secret_access_key and session_token of the provider"
	}
	return "run: aws sso login" + c.profileFlag() + ", or see aws configure" + c.profileFlag()
}

func (c Config) profileFlag() string {
	if c.Profile == "" {
		return ""
	}
	return " --profile " + c.Profile
}

// cut reports whether the answer ended early or too late, rather than being of the wrong form.
func cut(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) || errors.As(err, &timeout) && timeout.Timeout()
}

// skewed reports whether AWS's clock is so far from ours that it refuses what we sign.
func skewed(err error) bool {
	var answer *smithyhttp.ResponseError
	if !errors.As(err, &answer) || answer.Response == nil {
		return false
	}
	at, err := http.ParseTime(answer.Response.Header.Get("Date"))
	return err == nil && math.Abs(time.Since(at).Minutes()) > 4
}

// about puts the id before the reason of err; not for a context's error, nor an id that is none: it may be a secret in the
// wrong place.
func about(id string, err error) error {
	var e *backend.Error
	if !errors.As(err, &e) || e == errID {
		return err
	}
	named := *e
	named.Reason = fmt.Sprintf("%q: %s", id, e.Reason)
	return &named
}
