package sts

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/awsform"
	"github.com/credresolve/credresolve/internal/formlogin"
	"github.com/credresolve/credresolve/internal/loginhint"
)

var _ backend.Describer = (*Backend)(nil)

const (
	maxAnswer = 1 << 20
	maxToken  = 64 << 10
)

// Backend asks STS for credentials, each time anew: it keeps none. It is safe for concurrent use.
type Backend struct {
	config      Config
	dir         string
	callerBound bool
	life        context.Context // ends with Close
	end         context.CancelFunc
	closed      atomic.Bool
	logins      formlogin.Logins
	provider    string
}

// New gives a Backend of c. It does no I/O, and does not look at the AWS configuration of the user yet.
func New(c Config, h backend.Host) (*Backend, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	c.Roles = maps.Clone(c.Roles)
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	b := &Backend{config: c, dir: h.Dir, provider: h.Provider}
	b.life, b.end = context.WithCancel(context.Background())
	lookup := h.LookupEnv
	if lookup == nil {
		lookup = os.LookupEnv
	}
	for _, name := range []string{
		"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
		"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
	} {
		if value, set := lookup(name); set && value != "" {
			b.callerBound = true
		}
	}
	return b, nil
}

// Describe implements backend.Describer. The backend is bound to its caller when a variable of the environment may decide
// who we are or where we ask.
func (b *Backend) Describe() backend.Description {
	detail := "AWS STS"
	if b.config.Region != "" {
		detail += ", region " + b.config.Region
	}
	if b.config.Endpoint != "" {
		detail += ", at " + b.config.Endpoint
	}
	return backend.Description{Detail: detail, Fields: true, CallerBound: b.callerBound, Login: b.config.asks()}
}

// Get implements backend.Backend. It asks once more with what the sources then give when AWS refuses what the caller
// showed.
func (b *Backend) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if _, err := b.stepsOf(req); err != nil {
		return nil, err
	}
	if b.config.asks() {
		return nil, &backend.Error{
			Code: backend.CodeAuthRequired, Reason: "a one-time code of the MFA device is wanted",
			Remedy: "run: " + loginhint.Command("login", b.provider, req.ID) + ", or set mfa_code to a ref that gives one",
		}
	}
	return b.get(ctx, req, "")
}

// stepsOf are the roles to assume for req, none for a session of the caller.
func (b *Backend) stepsOf(req backend.Request) ([]Role, error) {
	role, known := b.config.Roles[req.ID]
	switch {
	case b.closed.Load():
		return nil, errClosed
	case req.Version != "":
		return nil, errVersion
	case req.ID == idSession && b.config.web():
		return nil, errWebSession
	case req.ID == idSession:
		return nil, nil
	case known:
		return b.config.steps(role), nil
	case awsform.IsRole(req.ID):
		return b.config.steps(Role{RoleARN: req.ID}), nil
	case awsform.IsText(req.ID, 1, 64, nameMarks):
		return nil, errNoRole
	}
	return nil, errID
}

// within bounds ctx by the life of b.
func (b *Backend) within(ctx context.Context) (context.Context, context.CancelFunc) {
	within, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(b.life, cancel)
	return within, func() {
		stop()
		cancel()
	}
}

// get gets the credentials of req, by code where a person entered one.
func (b *Backend) get(ctx context.Context, req backend.Request, code string) (*backend.Credential, error) {
	steps, err := b.stepsOf(req)
	if err != nil {
		return nil, err
	}
	within, done := b.within(ctx)
	defer done()
	c, again, err := b.obtain(within, steps, code)
	if again {
		c, _, err = b.obtain(within, steps, code)
	}
	if err != nil && ctx.Err() == nil && b.closed.Load() {
		return nil, errClosed
	}
	return c, err
}

// obtain goes through steps; none: a session of the caller. again tells that AWS refused what a source gave, which has
// been told so.
func (b *Backend) obtain(ctx context.Context, steps []Role, code string) (c *backend.Credential, again bool, err error) {
	s, err := b.open(ctx)
	if err != nil {
		return nil, false, err
	}
	defer s.close()
	var shown shown
	out, user, err := s.first(ctx, steps, code, &shown)
	if err != nil {
		if backend.CodeOf(err) == backend.CodeAuthRequired && shown.used {
			again = shown.reject()
		}
		return nil, again && b.config.MFASerial == "", err // a one-time code is spent
	}
	for _, step := range steps[min(1, len(steps)):] {
		s.options.Credentials = credentials.NewStaticCredentialsProvider(*out.AccessKeyId, *out.SecretAccessKey, *out.SessionToken)
		answer, err := sts.New(s.options).AssumeRole(ctx, step.input())
		if err != nil {
			return nil, false, failure(ctx, err, assuming(step), false)
		}
		if out, user = answer.Credentials, answer.AssumedRoleUser; !complete(out) {
			return nil, false, errAnswer
		}
	}
	c = &backend.Credential{
		Type: backend.TypeAWS, Expires: *out.Expiration, Metadata: map[string]string{},
		Fields: map[string]backend.Secret{
			"access_key_id":     backend.NewSecretString(*out.AccessKeyId),
			"secret_access_key": backend.NewSecretString(*out.SecretAccessKey),
			"session_token":     backend.NewSecretString(*out.SessionToken),
		},
	}
	if user != nil && user.Arn != nil {
		c.Metadata["arn"] = *user.Arn
	}
	return c, false, nil
}

func assuming(r Role) string { return "assuming " + r.RoleARN }

func complete(c *types.Credentials) bool {
	return c != nil && c.AccessKeyId != nil && c.SecretAccessKey != nil && c.SessionToken != nil && c.Expiration != nil
}

// session is one way through STS.
type session struct {
	config  Config
	dir     string
	chain   aws.CredentialsProvider // the default chain's
	options sts.Options
	close   func()
}

// open loads the AWS configuration of the user, which may have changed since the last time.
func (b *Backend) open(ctx context.Context) (*session, error) {
	c := b.config
	client := awshttp.NewBuildableClient().WithTimeout(c.Timeout).
		WithTransportOptions(func(t *http.Transport) { t.DisableKeepAlives = true })
	load := []func(*config.LoadOptions) error{
		config.WithHTTPClient(client),
		config.WithLogger(logging.Nop{}),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
		config.WithAPIOptions([]func(*middleware.Stack) error{awsmiddleware.AddUserAgentKey("credresolve")}),
	}
	if c.Region != "" {
		load = append(load, config.WithRegion(c.Region))
	}
	if c.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(c.Profile))
	}
	if c.web() || !c.AccessKeyID.IsZero() {
		load = append(load, config.WithCredentialsProvider(aws.AnonymousCredentials{}))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, errLoad
	case !awsform.IsRegion(cfg.Region):
		return nil, errNoRegion
	}
	if built, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok { // by now it has the user's CA bundle
		client = built
	}
	transport := client.GetTransport()
	transport.DisableKeepAlives = true
	s := &session{config: c, dir: b.dir, chain: cfg.Credentials, close: transport.CloseIdleConnections}
	// A redirect would carry the token, or a signed request, to wherever it points.
	cfg.HTTPClient = &http.Client{
		Timeout: c.Timeout, Transport: limited{transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	s.options = sts.NewFromConfig(cfg).Options()
	if c.Endpoint != "" {
		s.options.BaseEndpoint = aws.String(c.Endpoint)
	}
	return s, nil
}

// shown is what sources gave and AWS was shown.
type shown struct {
	sources   []backend.Source
	revisions []string
	used      bool // AWS saw it
}

// reject tells the sources that AWS refused what they gave; false where none can give anything else.
func (s *shown) reject() bool {
	other := false
	for i, source := range s.sources {
		source.Reject(s.revisions[i])
		other = other || !source.IsLiteral()
	}
	return other
}

// text gives what source has. What is empty is as good as missing.
func (s *shown) text(ctx context.Context, setting string, source backend.Source) (string, error) {
	text, err := s.texts(ctx, []string{setting}, source)
	if err != nil {
		return "", err
	}
	return text[0], nil
}

// texts gives what sources have that belong together.
func (s *shown) texts(ctx context.Context, settings []string, sources ...backend.Source) ([]string, error) {
	secrets, revisions, at, err := backend.GetAll(ctx, sources...)
	if err != nil {
		return nil, sourceFailure(ctx, settings[at], err)
	}
	texts := make([]string, len(secrets))
	for i, secret := range secrets {
		b := secret.Reveal()
		texts[i] = string(bytes.TrimSpace(b))
		clear(b)
		if sources[i].IsZero() {
			continue
		}
		if texts[i] == "" {
			return nil, backend.Errorf(backend.CodeAuthRequired, "%s is empty", settings[i])
		}
		s.sources, s.revisions = append(s.sources, sources[i]), append(s.revisions, revisions[i])
	}
	return texts, nil
}

// first does the first call, with what the caller is.
func (s *session) first(ctx context.Context, steps []Role, entered string, show *shown) (*types.Credentials, *types.AssumedRoleUser, error) {
	if s.config.web() {
		return s.web(ctx, steps[0], show)
	}
	if err := s.sign(ctx, show); err != nil {
		return nil, nil, err
	}
	serial, code, err := s.mfa(ctx, entered, show)
	if err != nil {
		return nil, nil, err
	}
	client := sts.New(s.options)
	show.used = true
	if len(steps) == 0 {
		in := &sts.GetSessionTokenInput{SerialNumber: serial, TokenCode: code, DurationSeconds: seconds(s.config.Duration)}
		out, err := client.GetSessionToken(ctx, in)
		if err != nil {
			return nil, nil, failure(ctx, err, "getting a session", code != nil)
		}
		if !complete(out.Credentials) {
			return nil, nil, errAnswer
		}
		return out.Credentials, nil, nil
	}
	in := steps[0].input()
	in.SerialNumber, in.TokenCode = serial, code
	out, err := client.AssumeRole(ctx, in)
	if err != nil {
		return nil, nil, failure(ctx, err, assuming(steps[0]), code != nil)
	}
	if !complete(out.Credentials) {
		return nil, nil, errAnswer
	}
	return out.Credentials, out.AssumedRoleUser, nil
}

// sign makes the calls be signed by the caller's credentials.
func (s *session) sign(ctx context.Context, show *shown) error {
	if s.config.AccessKeyID.IsZero() {
		var sources []aws.CredentialSource
		if p, ok := s.chain.(aws.CredentialProviderSource); ok {
			sources = p.ProviderSources()
		}
		if slices.Contains(sources, aws.CredentialSourceProcess) {
			return errProcess
		}
		creds, err := s.chain.Retrieve(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			// A host without instance metadata is the rule, not a failure.
			e := failure(ctx, err, "getting AWS credentials", false)
			if backend.CodeOf(e).Retryable() && !slices.Contains(sources, aws.CredentialSourceIMDS) {
				return e
			}
			return errNoLogin
		}
		s.options.Credentials = credentials.StaticCredentialsProvider{Value: creds}
		return nil
	}
	c := s.config
	text, err := show.texts(ctx, []string{"access_key_id", "secret_access_key", "session_token"}, c.AccessKeyID, c.SecretAccessKey, c.SessionToken)
	if err != nil {
		return err
	}
	s.options.Credentials = credentials.NewStaticCredentialsProvider(text[0], text[1], text[2])
	return nil
}

// mfa gives the device and a code of it, entered by a person or of mfa_code; neither where no MFA is wanted.
func (s *session) mfa(ctx context.Context, entered string, show *shown) (serial, code *string, err error) {
	switch {
	case s.config.MFASerial == "":
		return nil, nil, nil
	case entered != "":
		return &s.config.MFASerial, &entered, nil
	}
	text, err := show.text(ctx, "mfa_code", s.config.MFACode)
	if err != nil {
		return nil, nil, err
	}
	if !isCode(text) {
		return nil, nil, backend.Errorf(backend.CodeAuthRequired, "mfa_code gave what is not six digits")
	}
	return &s.config.MFASerial, &text, nil
}

// web assumes r with the web identity token. The call is not signed.
func (s *session) web(ctx context.Context, r Role, show *shown) (*types.Credentials, *types.AssumedRoleUser, error) {
	var token string
	var err error
	if s.config.WebIdentityTokenFile != "" {
		token, err = s.tokenFile()
	} else {
		token, err = show.text(ctx, "web_identity_token", s.config.WebIdentityToken)
	}
	if err != nil {
		return nil, nil, err
	}
	show.used = true
	in := r.input()
	out, err := sts.New(s.options).AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{
		RoleArn: in.RoleArn, RoleSessionName: in.RoleSessionName, DurationSeconds: in.DurationSeconds,
		Policy: in.Policy, PolicyArns: in.PolicyArns, WebIdentityToken: &token,
	})
	if err != nil {
		return nil, nil, failure(ctx, err, assuming(r), false)
	}
	if !complete(out.Credentials) {
		return nil, nil, errAnswer
	}
	return out.Credentials, out.AssumedRoleUser, nil
}

// tokenFile reads the token anew: the kubelet replaces it well before its end.
func (s *session) tokenFile() (string, error) {
	path := s.config.WebIdentityTokenFile
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.dir, path)
	}
	// A pipe would block the open for good.
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return "", errTokenFile
	}
	f, err := os.Open(path)
	if err != nil {
		return "", errTokenFile
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	defer clear(text)
	token := string(bytes.TrimSpace(text))
	if err != nil || len(text) > maxToken || token == "" {
		return "", errTokenFile
	}
	return token, nil
}

// input is the call that assumes r.
func (r Role) input() *sts.AssumeRoleInput {
	in := &sts.AssumeRoleInput{RoleArn: &r.RoleARN, RoleSessionName: &r.SessionName, DurationSeconds: seconds(r.Duration), TransitiveTagKeys: r.TransitiveTags}
	for text, to := range map[*string]**string{&r.ExternalID: &in.ExternalId, &r.Policy: &in.Policy, &r.SourceIdentity: &in.SourceIdentity} {
		if *text != "" {
			*to = text
		}
	}
	for _, arn := range r.PolicyARNs {
		in.PolicyArns = append(in.PolicyArns, types.PolicyDescriptorType{Arn: aws.String(arn)})
	}
	for _, key := range slices.Sorted(maps.Keys(r.Tags)) {
		in.Tags = append(in.Tags, types.Tag{Key: aws.String(key), Value: aws.String(r.Tags[key])})
	}
	return in
}

func seconds(d time.Duration) *int32 {
	if d == 0 {
		return nil
	}
	return aws.Int32(int32(d / time.Second))
}

// limited bounds the length of an answer.
type limited struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := l.next.RoundTrip(r)
	if err == nil {
		answer.Body = awsform.Limit(answer.Body, maxAnswer)
	}
	return answer, err
}

// Close ends what is under way. What comes after it fails; a second Close does nothing.
func (b *Backend) Close() error {
	b.closed.Store(true)
	b.end()
	b.logins.Close()
	return nil
}
