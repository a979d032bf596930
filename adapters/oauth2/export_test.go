package oauth2

import "net/http"

// Challenge is the S256 of RFC 7636 for its tests.
var Challenge = challenge

// Through lets b make its requests by t: for tests under a clock of their own, and for such as see each request.
func Through(b *Backend, t http.RoundTripper) {
	b.http = &http.Client{Transport: t, CheckRedirect: noRedirect}
}
