package oauth2

import (
	"net/http"

	"github.com/credresolve/credresolve/backend"
)

// Challenge is the S256 of RFC 7636 for its tests.
func Challenge(verifier string) string { return challenge(backend.NewSecretString(verifier)) }

// Through lets b make its requests by t: for tests under a clock of their own, and for such as see each request.
func Through(b *Backend, t http.RoundTripper) {
	b.http = &http.Client{Transport: t, CheckRedirect: noRedirect}
}
