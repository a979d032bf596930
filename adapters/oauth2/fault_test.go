package oauth2_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/oidctest"
)

// RFC 7636, appendix B.
func TestChallengeIsThatOfTheStandard(t *testing.T) {
	t.Parallel()
	if got := oauth2.Challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"); got != "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM" {
		t.Error(got)
	}
}

func TestLifeOfATokenHoweverItIsWritten(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		``: 0, `,"expires_in":0`: 0, `,"expires_in":-1`: 0, `,"expires_in":null`: 0, `,"expires_in":"x"`: 0, `,"expires_in":{}`: 0,
		`,"expires_in":3600`: time.Hour, `,"expires_in":"3600"`: time.Hour, `,"expires_in":3600.5`: time.Hour, `,"expires_in":1e300`: 10 * 365 * 24 * time.Hour,
	} {
		p := oidctest.Start(t, oidctest.Options{Before: func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/oauth/token" {
				return false
			}
			say(200, `{"access_token":"a"`+text+`}`)(w, r)
			return true
		}})
		c, err := open(t, oauth2.Config{Issuer: p.Issuer, Grant: "client_credentials", ClientID: "c", ClientSecret: secret("s")}).Get(t.Context(), backend.Request{ID: "default"})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if left := time.Until(c.Expires); want == 0 && !c.Expires.IsZero() || want > 0 && (left > want || left < want-time.Minute) {
			t.Errorf("%s: it lives for %v", text, left)
		}
	}
}

// What an answer to a refresh leaves out stays as it was.
func TestRefreshInheritsWhatTheAnswerLeavesOut(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{Before: func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/oauth/token" {
			return false
		}
		say(200, `{"access_token":"new","refresh_token":"","scope":""}`)(w, r)
		return true
	}})
	have := &backend.Grant{
		Credential: &backend.Credential{Secret: backend.NewSecretString("old"), Fields: map[string]backend.Secret{"id_token": backend.NewSecretString("i")}},
		Refresh:    backend.NewSecretString("r"), About: map[string]string{"scope": "a b", "subject": "me"},
	}
	g, err := open(t, desk(p)).Refresh(t.Context(), me, have)
	if err != nil || !g.Refresh.Equal(have.Refresh) || g.About["scope"] != "a b" || g.Credential.Metadata["subject"] != "me" || g.Credential.Fields["id_token"].IsZero() {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestErrorsNameTheCommandThatMendsThem(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	b, err := oauth2.New(desk(p), backend.Host{Provider: "corp"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	_, err = b.Get(t.Context(), backend.Request{ID: "my work"})
	fails(t, err, backend.ErrAuthRequired, "credresolve login corp 'my work'")
	_, err = b.Refresh(t.Context(), me, &backend.Grant{Credential: &backend.Credential{}, Refresh: backend.NewSecretString("c4nary")})
	fails(t, err, backend.ErrAuthRequired, "invalid_grant", "credresolve login corp me")
}

func TestWhetherATokenIsInForce(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	b := open(t, desk(p))
	g := logIn(t, b)
	if err := b.ProbeCredential(t.Context(), me, g.Credential); err != nil {
		t.Error(err)
	}
	fails(t, b.ProbeCredential(t.Context(), me, &backend.Credential{Secret: backend.NewSecretString("c4nary")}), backend.ErrExpired)
	for answer, want := range map[string]error{`{"active":true}`: nil, `{"active":false}`: backend.ErrExpired, `{}`: backend.ErrUnavailable} {
		q := oidctest.Start(t, oidctest.Options{Before: func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/oauth/introspect" {
				return false
			}
			say(200, answer)(w, r)
			return true
		}})
		c := desk(q)
		c.ClientID, c.ClientSecret = oidctest.Web, secret(oidctest.WebSecret)
		if err := open(t, c).ProbeCredential(t.Context(), me, g.Credential); !errors.Is(err, want) {
			t.Errorf("%s: %v", answer, err)
		}
	}
}

func TestAFixedPortThatIsBusyIsNamed(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := desk(p)
	c.RedirectPort = l.Addr().(*net.TCPAddr).Port
	_, err = open(t, c).StartLogin(t.Context(), me, backend.LoginOptions{})
	fails(t, err, backend.ErrUnavailable, strconv.Itoa(c.RedirectPort), "redirect_port")
}

// Nobody but this machine reaches the listener, and no page of another name.
func TestTheListenerIsOfThisMachineAlone(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	b := open(t, desk(p))
	s := start(t, b, backend.LoginOptions{})
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	back, err := url.Parse(u.Query().Get("redirect_uri"))
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		ip, ok := a.(*net.IPNet)
		if !ok || ip.IP.String() == "127.0.0.1" || ip.IP.IsLinkLocalUnicast() {
			continue
		}
		if c, err := net.DialTimeout("tcp", net.JoinHostPort(ip.IP.String(), back.Port()), time.Second); err == nil {
			_ = c.Close()
			t.Errorf("it listens on %s", ip.IP)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, back.String()+"?state="+s.State+"&code=c4nary", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example:" + back.Port()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusNotFound || !strings.Contains(res.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	if now, err := b.PollLogin(t.Context(), s.State); err != nil || now.Status != backend.LoginPending {
		t.Errorf("%+v, %v", now, err)
	}
}

// An authorization server that is no OpenID provider tells its endpoints where RFC 8414, section 3 says: before the issuer's path.
func TestDiscoveryOfAServerWithoutOpenID(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{Before: func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			http.NotFound(w, r)
			return true
		case "/.well-known/oauth-authorization-server":
			r.URL.Path = "/.well-known/openid-configuration"
		}
		return false
	}})
	if g := logIn(t, open(t, desk(p))); g.Credential.Secret.IsZero() || g.About["subject"] == "" {
		t.Errorf("%+v", g)
	}

	var asked []string
	says := "/tenant"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/.well-known/oauth-authorization-server/tenant":
			_, _ = fmt.Fprintf(w, `{"issuer":"http://%[1]s%[2]s","token_endpoint":"http://%[1]s/tenant/token"}`, r.Host, says)
		case "/tenant/token":
			_, _ = io.WriteString(w, `{"access_token":"a","token_type":"Bearer","expires_in":60}`)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer s.Close()
	c := oauth2.Config{Issuer: s.URL + "/tenant", Grant: "client_credentials", ClientID: "robot", ClientSecret: secret("s")}
	if _, err := open(t, c).Get(t.Context(), backend.Request{ID: "default"}); err != nil {
		t.Error(err)
	}
	if want := []string{"/tenant/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/tenant", "/tenant/token"}; !slices.Equal(asked, want) {
		t.Errorf("%q was asked, want %q", asked, want)
	}
	says = "/other"
	_, err := open(t, c).Get(t.Context(), backend.Request{ID: "default"})
	fails(t, err, backend.ErrUnavailable, "another issuer")
}
