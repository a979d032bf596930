package awssm_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/mototest"
)

func TestRefusals(t *testing.T) {
	t.Parallel()
	p := mototest.Alone(t)
	b := open(t, basic(p))
	for _, tt := range []struct {
		status int
		name   string
		code   backend.Code
	}{
		{400, "ResourceNotFoundException", backend.CodeNotFound},
		{404, "ResourceNotFoundException", backend.CodeNotFound},
		{400, "com.amazonaws.secretsmanager#ResourceNotFoundException", backend.CodeNotFound},
		{400, "InvalidRequestException", backend.CodeUnsupported},
		{400, "InvalidParameterException", backend.CodeInvalidID},
		{400, "ValidationException", backend.CodeInvalidID},
		{400, "AccessDeniedException", backend.CodeDenied},
		{400, "DecryptionFailure", backend.CodeDenied},
		{400, "ThrottlingException", backend.CodeThrottled},
		{400, "TooManyRequestsException", backend.CodeThrottled},
		{400, "RequestLimitExceeded", backend.CodeThrottled},
		{400, "LimitExceededException", backend.CodeThrottled},
		{503, "SlowDown", backend.CodeThrottled},
		{500, "InternalServiceError", backend.CodeUnavailable},
		{500, "canary-unheard-of", backend.CodeUnavailable},
		{503, "ServiceUnavailable", backend.CodeUnavailable},
		{400, "canary-unheard-of", backend.CodeInternal},
		{403, "canary-unheard-of", backend.CodeDenied},
		{429, "canary-unheard-of", backend.CodeThrottled},
		{400, "ExpiredTokenException", backend.CodeAuthRequired},
		{400, "UnrecognizedClientException", backend.CodeAuthRequired},
		{400, "InvalidSignatureException", backend.CodeAuthRequired},
		{403, "MissingAuthenticationTokenException", backend.CodeDenied},
	} {
		p.Fail("GetSecretValue", mototest.Refuse(tt.status, tt.name, textCanary, "Retry-After", "7"))
		again := 1
		if tt.code == backend.CodeAuthRequired {
			p.Fail("GetSecretValue", mototest.Refuse(tt.status, tt.name, textCanary))
			again = 2
		}
		p.Reset()
		_, err := b.Get(t.Context(), backend.Request{ID: "s"})
		t.Run(fmt.Sprint(tt.status, " ", tt.name), func(t *testing.T) { fails(t, err, tt.code, `"s"`, "AWS Secrets Manager in eu-west-1") })
		if n := len(p.All()); n != again {
			t.Errorf("%s: %d calls, want %d: the SDK's retries are off", tt.name, n, again)
		}
		want := time.Duration(0)
		if tt.code.Retryable() {
			want = 7 * time.Second
		}
		if got := backend.RetryAfter(err); got != want {
			t.Errorf("%s: retry after %v, want %v", tt.name, got, want)
		}
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	long := `{"SecretString":"` + strings.Repeat("canary", 4<<20) + `"}`
	stray := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer stray.Close()
	p := mototest.Alone(t)
	b := open(t, basic(p))
	for _, tt := range []struct {
		name  string
		fault mototest.Fault
		code  backend.Code
		tells string
	}{
		{"a page", mototest.Raw(200, "text/html", "<html>"+textCanary), backend.CodeUnavailable, "not one of AWS"},
		{"no JSON", mototest.Raw(200, json11, textCanary), backend.CodeUnavailable, "not one of AWS"},
		{"another type", mototest.Raw(200, json11, `{"SecretString":{"canary":1}}`), backend.CodeUnavailable, ""},
		{"an array", mototest.Raw(200, json11, `["canary"]`), backend.CodeUnavailable, ""},
		{"no secret", mototest.Raw(200, json11, `{"Name":"s"}`), backend.CodeUnavailable, "no secret in it"},
		{"nothing", mototest.Raw(200, json11, ""), backend.CodeUnavailable, ""},
		{"a page of a web server", mototest.Raw(404, "text/html", "<html>"+textCanary), backend.CodeUnavailable, "check the endpoint"},
		{"a gateway", mototest.Raw(502, "text/html", "<html>"+textCanary), backend.CodeUnavailable, "status 502"},
		{"a denial in XML", mototest.RefuseXML(403, "AccessDenied", textCanary), backend.CodeDenied, "permission denied"},
		{"a proxy that wants a login", mototest.Raw(407, "text/html", textCanary), backend.CodeUnavailable, "proxy"},
		{"cut", mototest.Cut, backend.CodeUnavailable, "the connection ended"},
		{"closed", mototest.LoseAnswer, backend.CodeUnavailable, "the connection ended"},
		{"endless", mototest.Raw(200, json11, long), backend.CodeUnavailable, "too long"},
		{"moved", mototest.Redirect(302, stray.URL), backend.CodeUnavailable, "not followed"},
		{"moved for now", mototest.Redirect(307, stray.URL), backend.CodeUnavailable, "not followed"},
		{"moved for good", mototest.Redirect(308, stray.URL), backend.CodeUnavailable, "not followed"},
	} {
		p.Fail("GetSecretValue", tt.fault)
		_, err := b.Get(t.Context(), backend.Request{ID: "s"})
		t.Run(tt.name, func(t *testing.T) { fails(t, err, tt.code, tt.tells) })
	}
	if n := len(p.All()); n != 16 {
		t.Errorf("%d calls for 16 questions", n)
	}
}

func TestAServerThatIsNotThere(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	defer tls.Close()
	for endpoint, tells := range map[string]string{
		"http://" + addr: "connection refused", "http://no-such-host.invalid": "host", tls.URL: "unknown authority",
	} {
		c := basic(&mototest.Proxy{URL: endpoint})
		b := open(t, c)
		_, err := b.Get(t.Context(), backend.Request{ID: "s"})
		fails(t, err, backend.CodeUnavailable, tells)
	}
}

func TestSilence(t *testing.T) {
	t.Parallel()
	p := mototest.Alone(t)
	b := open(t, basic(p))
	p.Fail("GetSecretValue", mototest.Times(2, mototest.Hang)...)
	p.Fail("BatchGetSecretValue", mototest.Hang)
	for name, op := range map[string]func(context.Context) error{
		"get": func(ctx context.Context) error { _, err := b.Get(ctx, backend.Request{ID: "s"}); return err },
		"batch": func(ctx context.Context) error {
			results, err := b.GetBatch(ctx, batchOf(3))
			if err == nil {
				err = results[2].Err
			}
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		start := time.Now()
		err := op(ctx)
		cancel()
		fails(t, err, backend.CodeTimeout)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s returned %v after its context ended", name, took)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p.Reset()
	_, err := b.Get(ctx, backend.Request{ID: "s"})
	if !errors.Is(err, context.Canceled) || len(p.All()) > 0 {
		t.Errorf("a context that has ended: %v after %d calls", err, len(p.All()))
	}
	c := basic(p)
	c.Timeout = 100 * time.Millisecond
	start := time.Now()
	_, err = open(t, c).Get(t.Context(), backend.Request{ID: "s"})
	fails(t, err, backend.CodeUnavailable, "no answer in time")
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the provider's own timeout of 100ms took %v", took)
	}
}
