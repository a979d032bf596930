package oauth2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/oidctest"
)

// callback sends the browser through a login up to the address on this machine to which it is to come back.
func callback(t *testing.T, s backend.LoginState) *url.URL {
	t.Helper()
	_, address := oidctest.Browse(t, s.URL, "http://127.0.0.1:")
	u, err := url.Parse(address)
	if err != nil || u.Query().Get("code") == "" {
		t.Fatalf("the browser ended at %s: %v", address, err)
	}
	return u
}

// A browser, or a program that hands its address on, that is gone while the code is exchanged takes nothing with it.
func TestBrowserThatIsLostDuringTheExchange(t *testing.T) {
	t.Parallel()
	for name, bring := range map[string]func(context.Context, backend.Login, backend.LoginState, string) error{
		"a browser": func(ctx context.Context, _ backend.Login, _ backend.LoginState, address string) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
			if err != nil {
				return err
			}
			res, err := http.DefaultClient.Do(req)
			if err == nil {
				_ = res.Body.Close()
			}
			return err
		},
		"a program": func(ctx context.Context, b backend.Login, s backend.LoginState, address string) error {
			_, err := b.SubmitLogin(ctx, s.State, map[string]backend.Secret{"url": backend.NewSecretString(address)})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked, gone := make(chan struct{}), make(chan struct{})
			p := oidctest.Start(t, oidctest.Options{Before: func(_ http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/oauth/token" {
					close(asked)
					<-gone
				}
				return false
			}})
			b := open(t, desk(p))
			s := start(t, b, backend.LoginOptions{})
			address := callback(t, s).String()
			ctx, leave := context.WithCancel(t.Context())
			lost := make(chan error, 1)
			go func() { lost <- bring(ctx, b, s, address) }()
			<-asked
			leave()
			if err := <-lost; !errors.Is(err, context.Canceled) {
				t.Errorf("it was told %v", err)
			}
			if now, err := b.PollLogin(t.Context(), s.State); err != nil || now.Status != backend.LoginPending {
				t.Errorf("during the exchange: %+v, %v", now, err)
			}
			close(gone)
			if end := outcome(t, b, s.State); end.Status != backend.LoginSuccess || end.Grant == nil || end.Grant.Refresh.IsZero() {
				t.Errorf("%+v", end)
			}
			if p.Calls("/oauth/token") != 1 {
				t.Errorf("%d exchanges", p.Calls("/oauth/token"))
			}
		})
	}
}

// A thousand connections that say nothing, half of a request, or too much neither keep the browser waiting nor outlive the login,
// and nor does the port.
func TestStrangersAtTheListener(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	b := open(t, desk(p))
	s := start(t, b, backend.LoginOptions{})
	back := callback(t, s)
	var strangers []net.Conn
	defer func() {
		for _, c := range strangers {
			_ = c.Close()
		}
	}()
	for i := range 1000 {
		c, err := net.DialTimeout("tcp", back.Host, 30*time.Second)
		if err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
		strangers = append(strangers, c)
		switch i % 3 { // some are closed already: what is written to them does not matter
		case 1:
			_, _ = io.WriteString(c, "GET /callback?state=")
		case 2:
			_, _ = io.WriteString(c, "\x16\x03\x01"+strings.Repeat("c4nary", 1000))
		}
	}
	res, err := http.Get("http://" + back.Host + "/favicon.ico")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	held := 0
	for _, c := range strangers {
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := c.Read(make([]byte, 1<<10)); errors.Is(err, os.ErrDeadlineExceeded) {
			held++
		}
	}
	if held > 100 {
		t.Errorf("%d connections are held at once", held)
	}
	began := time.Now()
	res, err = http.Get(back.String())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(page), "You are logged in") {
		t.Errorf("%d %s, %v", res.StatusCode, page, err)
	}
	if waited := time.Since(began); waited > time.Minute { // in turn, each with its 5 seconds, it would be more
		t.Errorf("the browser waited for %v", waited)
	}
	if end := outcome(t, b, s.State); end.Status != backend.LoginSuccess {
		t.Errorf("%+v", end)
	}
	for i, c := range strangers {
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("connection %d is still open", i)
		}
	}
	for range 500 {
		c, err := net.Dial("tcp", back.Host)
		if err != nil {
			return
		}
		_ = c.Close()
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the port is open after the login")
}

// A code counts for the login that it was given to, and once, whoever brings it in whichever login.
func TestCodeThatIsReplayed(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	b := open(t, desk(p))
	bring := func(s backend.LoginState, code string) backend.LoginState {
		t.Helper()
		s, err := b.SubmitLogin(t.Context(), s.State, pasted("code="+url.QueryEscape(code)+"&state="+s.State))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := start(t, b, backend.LoginOptions{})
	used := callback(t, first).Query().Get("code")
	if s := bring(first, used); s.Status != backend.LoginSuccess {
		t.Fatalf("%+v", s)
	}
	unused := callback(t, start(t, b, backend.LoginOptions{})).Query().Get("code")
	for name, code := range map[string]string{"a code that was used": used, "the code of another login": unused} {
		s := bring(start(t, b, backend.LoginOptions{}), code)
		if s.Status != backend.LoginError || s.Grant != nil || s.Code != backend.CodeAuthRequired || !strings.Contains(s.Message, "the exchange of the code: invalid_grant") || strings.Contains(s.Message, code) {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// No redirect of an endpoint is followed: what was posted would go along.
func TestEndpointsThatRedirect(t *testing.T) {
	t.Parallel()
	var reached atomic.Int32
	evil := oidctest.Start(t, oidctest.Options{Before: func(http.ResponseWriter, *http.Request) bool { reached.Add(1); return false }})
	var location atomic.Value
	var status atomic.Int32
	p := oidctest.Start(t, oidctest.Options{Before: func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/oauth/token" && r.URL.Path != "/revoke" && r.URL.Path != "/oauth/introspect" {
			return false
		}
		w.Header().Set("Location", location.Load().(string))
		w.WriteHeader(int(status.Load()))
		return true
	}})
	c := desk(p)
	c.ClientID, c.ClientSecret = oidctest.Web, secret(oidctest.WebSecret)
	b := open(t, c)
	have := &backend.Grant{Credential: &backend.Credential{Secret: backend.NewSecretString("a-c4nary")}, Refresh: backend.NewSecretString("r-c4nary")}
	for _, code := range []int32{301, 302, 303, 307, 308} {
		for _, to := range []string{evil.Issuer + "oauth/token", "https://evil.example/", "file:///etc/passwd", "ftp://evil.example/", "/oauth/c4nary", "//evil.example", ""} {
			status.Store(code)
			location.Store(to)
			_, err := b.Refresh(t.Context(), me, have)
			for step, err := range map[string]error{
				"the refresh": err, "the revocation": b.RevokeGrant(t.Context(), me, have), "the introspection": b.ProbeCredential(t.Context(), me, have.Credential),
			} {
				if err == nil {
					t.Errorf("%s, %d to %q: followed", step, code, to)
					continue
				}
				fails(t, err, backend.ErrUnavailable, step+": it redirects elsewhere, which is not followed", "see issuer and endpoints")
			}
		}
	}
	if n := p.Calls("/oauth/c4nary"); n != 0 {
		t.Errorf("followed %d times on the same server", n)
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}

// A code that comes by one server is never shown to another: the answer must name the server that the login began at, where it
// names one (RFC 9207).
func TestServersThatAreMixedUp(t *testing.T) {
	t.Parallel()
	var shown atomic.Int32
	note := func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/oauth/token" {
			shown.Add(1)
		}
		return false
	}
	honest, evil := oidctest.Start(t, oidctest.Options{Before: note}), oidctest.Start(t, oidctest.Options{Before: note})
	atHonest, atEvil := open(t, desk(honest)), open(t, desk(evil))
	s := start(t, atEvil, backend.LoginOptions{NoRedirect: true}) // which sends the person on to the honest one
	code := callback(t, start(t, atHonest, backend.LoginOptions{})).Query().Get("code")
	for _, iss := range []string{honest.Issuer, strings.TrimSuffix(evil.Issuer, "/"), strings.ToUpper(evil.Issuer), evil.Issuer + "&iss=" + honest.Issuer} {
		_, err := atEvil.SubmitLogin(t.Context(), s.State, pasted(fmt.Sprintf("code=%s&state=%s&iss=%s", url.QueryEscape(code), s.State, iss)))
		fails(t, err, backend.ErrDenied)
	}
	if now, err := atEvil.PollLogin(t.Context(), s.State); err != nil || now.Status != backend.LoginPending || shown.Load() != 0 {
		t.Errorf("%+v, %v, shown %d times", now, err, shown.Load())
	}
}
