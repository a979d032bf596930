package oauth2_test

import (
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/backend"
)

// A setting that cannot be is refused when the provider is opened, by its name and without its value.
func TestConfigsThatCannotBe(t *testing.T) {
	t.Parallel()
	for tells, change := range map[string]func(*oauth2.Config){
		"issuer is not the https URL":        func(c *oauth2.Config) { c.Issuer = "http://c4nary.example" },
		"issuer has a query":                 func(c *oauth2.Config) { c.Issuer = "https://login.example/?k=c4nary" },
		"endpoints.token is not the https":   func(c *oauth2.Config) { c.Endpoints.Token = "file:///c4nary" },
		"endpoints.device is not the https":  func(c *oauth2.Config) { c.Endpoints.Device = "https://user:c4nary@login.example" },
		"client_id is missing":               func(c *oauth2.Config) { c.ClientID = "" },
		"grant is not one that is known":     func(c *oauth2.Config) { c.Grant = "c4nary" },
		"client_auth is not one":             func(c *oauth2.Config) { c.ClientAuth = "c4nary" },
		"client_auth basic needs":            func(c *oauth2.Config) { c.ClientAuth = "basic" },
		"private_key_jwt needs client_key":   func(c *oauth2.Config) { c.ClientAuth, c.ClientSecret = "private_key_jwt", secret("c4nary") },
		"client_auth none takes neither":     func(c *oauth2.Config) { c.ClientAuth, c.ClientSecret = "none", secret("c4nary") },
		"client_auth tls needs":              func(c *oauth2.Config) { c.ClientAuth = "tls" },
		"client_key_id belongs to":           func(c *oauth2.Config) { c.ClientKeyID = "c4nary" },
		"needs credentials of the client":    func(c *oauth2.Config) { c.Grant = "client_credentials" },
		"subject_token belongs to":           func(c *oauth2.Config) { c.SubjectToken = secret("c4nary") },
		"subject_token_type and":             func(c *oauth2.Config) { c.SubjectTokenType = "c4nary" },
		"redirect_host is neither":           func(c *oauth2.Config) { c.RedirectHost = "c4nary.example" },
		"redirect_port is no port":           func(c *oauth2.Config) { c.RedirectPort = 65536 },
		"redirect_path is not a plain path":  func(c *oauth2.Config) { c.RedirectPath = "//c4nary.example" },
		"belong to grant authorization_code": func(c *oauth2.Config) { c.Grant, c.RedirectPort = "device_code", 8765 },
		"timeout or login_timeout":           func(c *oauth2.Config) { c.LoginTimeout = time.Hour },
		"scopes holds what is no scope":      func(c *oauth2.Config) { c.Scopes = []string{"a c4nary"} },
		"parameters.state is set by":         func(c *oauth2.Config) { c.Parameters = map[string]string{"state": "c4nary"} },
		"tls.client_cert and tls.client_key": func(c *oauth2.Config) { c.TLS.ClientCert = "/c4nary" },
		"neither issuer nor endpoints.token": func(c *oauth2.Config) { c.Issuer = "" },
		"endpoints.authorization is missing": func(c *oauth2.Config) { c.Issuer, c.Endpoints.Token = "", "https://login.example/t" },
		"endpoints.device is missing": func(c *oauth2.Config) {
			c.Issuer, c.Grant, c.Endpoints.Token = "", "device_code", "https://login.example/t"
		},
	} {
		c := oauth2.Config{Issuer: "https://login.example", ClientID: "c"}
		change(&c)
		_, err := oauth2.New(c, backend.Host{})
		if backend.CodeOf(err) != backend.CodeInvalidConfig || !strings.Contains(err.Error(), tells) || strings.Contains(err.Error(), "c4nary") {
			t.Errorf("want %q: %v", tells, err)
		}
	}
}
