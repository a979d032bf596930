package awssm

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/awsform"
)

const (
	loadTimeout  = 10 * time.Second // files and variables, perhaps a name to look up
	dialTimeout  = 10 * time.Second
	expiryWindow = time.Minute // credentials are renewed that long before they end
	maxAnswer    = 16 << 20    // 20 secrets of 64 KiB, each byte escaped, fit several times
)

// session is a login: a client, and where it has its credentials from. It is immutable, and replaced when AWS refuses the
// credentials, since the files that they came from may have changed.
type session struct {
	client *secretsmanager.Client
	region string
	target string // what errors call the service
	remedy string // how a person gives us other credentials
	source *sourceCredentials
	role   bool
	close  func()
}

// loading is a session in the making.
type loading struct {
	done chan struct{} // closed when the rest is set
	s    *session
	err  error
}

// session gives the session in use, or makes one. It does so once for all who wait, and again after a failure.
func (b *Backend) session(ctx context.Context) (*session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	if b.closed || b.current != nil {
		defer b.mu.Unlock()
		if b.closed {
			return nil, errClosed
		}
		return b.current, nil
	}
	l := b.loading
	if l == nil {
		l = &loading{done: make(chan struct{})}
		b.loading = l
		go b.load(l)
	}
	b.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.done:
		return l.s, l.err
	}
}

func (b *Backend) load(l *loading) {
	defer close(l.done)
	ctx, cancel := context.WithTimeout(b.life, loadTimeout)
	l.s, l.err = b.config.load(ctx, b.processes)
	cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loading = nil
	switch {
	case b.closed:
		l.s, l.err = nil, errClosed
	case l.err == nil:
		b.current = l.s
	}
}

// drop makes the next call log in anew, if s is still in use.
func (b *Backend) drop(s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.current == s {
		b.current = nil
		s.close()
	}
}

// load makes a session of c and of the user's AWS configuration, whose credential_process p runs. It does not ask for
// credentials yet.
func (c Config) load(ctx context.Context, p *processes) (*session, error) {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	// Calls for credentials are rare, and their connections would outlive Close.
	client := awshttp.NewBuildableClient().WithTimeout(timeout).
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = min(dialTimeout, timeout) }).
		WithTransportOptions(func(t *http.Transport) { t.DisableKeepAlives = true })
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(client),
		config.WithLogger(logging.Nop{}),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
		config.WithCredentialsCacheOptions(func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = expiryWindow }),
		// CloudTrail shows it.
		config.WithAPIOptions([]func(*middleware.Stack) error{awsmiddleware.AddUserAgentKey("credresolve")}),
	}
	if c.Region != "" {
		options = append(options, config.WithRegion(c.Region))
	}
	if c.Profile != "" {
		options = append(options, config.WithSharedConfigProfile(c.Profile))
	}
	if c.FIPS {
		options = append(options, config.WithUseFIPSEndpoint(aws.FIPSEndpointStateEnabled))
	}
	if c.DualStack {
		options = append(options, config.WithUseDualStackEndpoint(aws.DualStackEndpointStateEnabled))
	}
	var source *sourceCredentials
	if !c.AccessKeyID.IsZero() {
		source = &sourceCredentials{config: c}
		options = append(options, config.WithCredentialsProvider(source))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	switch {
	case err != nil:
		return nil, c.loadFailure(err)
	case cfg.Region == "":
		e := backend.Errorf(backend.CodeInvalidConfig, "no AWS region is known")
		e.Remedy = "set region in the provider, AWS_REGION, or region in the AWS profile"
		return nil, e
	case !awsform.IsRegion(cfg.Region):
		return nil, backend.Errorf(backend.CodeInvalidConfig, "AWS_REGION or the region of the AWS profile is not the name of a region")
	}
	s := &session{region: cfg.Region, target: "AWS Secrets Manager in " + cfg.Region, remedy: c.remedy(), source: source, role: c.RoleARN != ""}
	if c.Endpoint != "" {
		if u, err := url.Parse(c.Endpoint); err == nil {
			s.target += " at " + u.Host
		}
	}
	if err := c.quietProcess(&cfg, p); err != nil {
		return nil, err
	}
	cfg.Credentials = c.login(cfg.Credentials, "assuming the role of the AWS profile")
	if s.role {
		cfg.Credentials = c.login(assume(cfg, c.STSEndpoint, c.RoleARN, c.ExternalID, cmp.Or(c.SessionName, defaultSessionName), c.SessionDuration),
			"assuming "+c.RoleARN)
	}
	transport := client.GetTransport()
	if built, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok { // always, and by now it has the user's CA bundle
		transport = built.GetTransport()
	}
	transport.DisableKeepAlives = false
	transport.MaxIdleConnsPerHost = 2 * parallelCalls
	s.close = transport.CloseIdleConnections
	s.client = secretsmanager.NewFromConfig(cfg, func(o *secretsmanager.Options) {
		// A redirect would carry the request, with what it stores and the session token, to wherever it points.
		o.HTTPClient = &http.Client{
			Timeout: timeout, Transport: limitedTransport{transport},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		if c.Endpoint != "" {
			o.BaseEndpoint = aws.String(c.Endpoint)
		}
	})
	return s, nil
}

// assume gives the credentials of role, which is assumed with those of cfg. What is empty or zero is left to the SDK.
func assume(cfg aws.Config, endpoint, role, externalID, sessionName string, duration time.Duration) aws.CredentialsProvider {
	client := sts.NewFromConfig(cfg, func(o *sts.Options) {
		if endpoint != "" {
			o.BaseEndpoint = aws.String(endpoint)
		}
	})
	provider := stscreds.NewAssumeRoleProvider(client, role, func(o *stscreds.AssumeRoleOptions) {
		o.Duration, o.RoleSessionName = duration, sessionName
		if externalID != "" {
			o.ExternalID = aws.String(externalID)
		}
	})
	return cached(provider)
}

func cached(provider aws.CredentialsProvider) aws.CredentialsProvider {
	return aws.NewCredentialsCache(provider, func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = expiryWindow })
}

// quietProcess has p run the credential_process of the profile that the SDK chose, where it chose one.
func (c Config) quietProcess(cfg *aws.Config, p *processes) error {
	chosen, ok := cfg.Credentials.(aws.CredentialProviderSource)
	if !ok || !slices.Contains(chosen.ProviderSources(), aws.CredentialSourceProcess) {
		return nil
	}
	var hops []*config.SharedConfig // the profile in use first, the one with the process last
	for _, source := range cfg.ConfigSources {
		if shared, ok := source.(config.SharedConfig); ok {
			for hop := &shared; hop != nil; hop = hop.Source {
				hops = append(hops, hop)
			}
		}
	}
	if len(hops) == 0 || hops[len(hops)-1].CredentialProcess == "" {
		return backend.Errorf(backend.CodeInternal, "the credential_process of the AWS profile was not found again")
	}
	cfg.Credentials = cached(p.provider(hops[len(hops)-1].CredentialProcess))
	for _, hop := range slices.Backward(hops) {
		if hop.RoleARN == "" {
			continue
		}
		duration := time.Duration(0)
		if hop.RoleDurationSeconds != nil && *hop.RoleDurationSeconds > 15*time.Minute {
			duration = *hop.RoleDurationSeconds
		}
		cfg.Credentials = c.login(cfg.Credentials, "")
		cfg.Credentials = assume(*cfg, "", hop.RoleARN, hop.ExternalID, hop.RoleSessionName, duration)
	}
	return nil
}

// login gives the credentials of provider, and errors that may be shown.
type login struct {
	provider aws.CredentialsProvider
	config   Config
	target   string // what a call of STS that fails was for
	had      atomic.Bool
}

func (c Config) login(provider aws.CredentialsProvider, target string) *login {
	return &login{provider: provider, config: c, target: target}
}

// Retrieve implements aws.CredentialsProvider. Its error is a *loginError, or ctx's.
func (l *login) Retrieve(ctx context.Context) (aws.Credentials, error) {
	creds, err := l.provider.Retrieve(ctx)
	switch {
	case err == nil:
		l.had.Store(true)
		return creds, nil
	case ctx.Err() != nil:
		return creds, ctx.Err()
	}
	var sources []aws.CredentialSource
	if p, ok := l.provider.(aws.CredentialProviderSource); ok {
		sources = p.ProviderSources()
	}
	return creds, l.config.loginFailure(err, l.target, sources, l.had.Load())
}

// sourceCredentials are an access key of the configuration. The SDK asks once for each session, and keeps it.
type sourceCredentials struct {
	config Config

	mu        sync.Mutex
	revisions []string
}

// Retrieve implements aws.CredentialsProvider.
func (p *sourceCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	settings := p.settings()
	secrets, revisions, at, err := backend.GetAll(ctx, settings[0].source, settings[1].source, settings[2].source)
	if err != nil {
		return aws.Credentials{}, sourceFailure(settings[at].name, err)
	}
	var text [3]string
	for i, secret := range secrets {
		b := secret.Reveal()
		text[i] = string(b)
		clear(b)
		if text[i] == "" && !settings[i].source.IsZero() {
			return aws.Credentials{}, &loginError{err: backend.Errorf(backend.CodeAuthRequired, "%s is empty", settings[i].name)}
		}
	}
	p.mu.Lock()
	p.revisions = revisions
	p.mu.Unlock()
	return aws.Credentials{AccessKeyID: text[0], SecretAccessKey: text[1], SessionToken: text[2], Source: "credresolve"}, nil
}

type setting struct {
	name   string
	source backend.Source
}

func (p *sourceCredentials) settings() [3]setting {
	return [3]setting{
		{"access_key_id", p.config.AccessKeyID},
		{"secret_access_key", p.config.SecretAccessKey},
		{"session_token", p.config.SessionToken},
	}
}

// reject tells the sources that AWS refused what they gave.
func (p *sourceCredentials) reject() {
	if p == nil {
		return
	}
	p.mu.Lock()
	revisions := p.revisions
	p.mu.Unlock()
	settings := p.settings()
	for i, revision := range revisions {
		settings[i].source.Reject(revision)
	}
}

// limitedTransport bounds the length of an answer. It also sends a body of its own: the SDK closes the one that it gave as
// soon as an answer begins, and net/http, where it is still looking for the body's end, then breaks off the answer.
type limitedTransport struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t limitedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		r.Body, _ = r.GetBody()
	}
	answer, err := t.next.RoundTrip(r)
	if err == nil {
		answer.Body = awsform.Limit(answer.Body, maxAnswer)
	}
	return answer, err
}
