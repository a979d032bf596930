// Package neterr turns the errors of a network call into errors that may be shown. The texts of net/url, crypto/tls and
// the SDKs hold URLs with their queries, and sometimes parts of a response.
package neterr

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// Classify gives ctx's own error when ctx has ended, and otherwise an Error of code unavailable that says why target, the
// host and port that was called, could not be talked to. A certificate that cannot be verified is unavailable as well,
// with a reason that names what is wrong with it. err must not be nil.
func Classify(ctx context.Context, err error, target string) error {
	if ctxErr := ctx.Err(); ctxErr != nil {
		return ctxErr
	}
	return backend.Errorf(backend.CodeUnavailable, "%s: %s", target, reason(err))
}

func reason(err error) string {
	var (
		dns       *net.DNSError
		timeout   interface{ Timeout() bool }
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		remote    *net.OpError
	)
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such host"
	case errors.As(err, &dns):
		return "the host name could not be looked up"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET):
		return "connection reset"
	case errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return "connection closed"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "host unreachable"
	case errors.As(err, &authority):
		return "its TLS certificate is signed by an unknown authority"
	case errors.As(err, &hostname):
		return "its TLS certificate is for another name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its TLS certificate has expired or is not valid yet"
	case errors.As(err, &invalid), errors.As(err, &verify):
		return "its TLS certificate cannot be verified"
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return "it does not speak TLS"
	case errors.As(err, &remote) && remote.Op == "remote error": // an alert of TLS, whose text is of crypto/tls
		return "it refused the TLS connection: " + strings.TrimPrefix(remote.Err.Error(), "tls: ")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), endedEarly(err):
		return "the connection ended before the answer did"
	case errors.Is(err, http.ErrHandlerTimeout), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	}
	return "the call failed"
}

// endedEarly knows the errors without a type by which net/http tells that the server closed the connection before the
// request was written, or while answers over HTTP/2 were due.
func endedEarly(err error) bool {
	text := err.Error()
	return strings.HasSuffix(text, "http: server closed idle connection") || strings.HasSuffix(text, "http2: client connection lost") ||
		strings.Contains(text, "http2: server sent GOAWAY and closed the connection")
}

// RetryAfter reads a Retry-After header: seconds, or a date (RFC 9110, 10.2.3). It is zero when there is none, or none
// that makes sense.
func RetryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(v); err == nil && seconds > 0 {
		return time.Duration(min(seconds, 24*60*60)) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(time.Until(at), 0), 24*time.Hour)
	}
	return 0
}
