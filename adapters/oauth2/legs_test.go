package oauth2_test

import (
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/backend"
)

// tape is a token endpoint that notes what it is sent.
type tape struct {
	answer string
	mu     sync.Mutex
	forms  []url.Values
}

func (p *tape) RoundTrip(r *http.Request) (*http.Response, error) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(text))
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.forms = append(p.forms, form)
	p.mu.Unlock()
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(p.answer)), Request: r,
	}, nil
}

// byCode is a login by an authorization code at endpoints that tape plays.
func byCode(t *testing.T, c oauth2.Config, p *tape) *oauth2.Backend {
	t.Helper()
	c.ClientID = "c"
	c.Endpoints = oauth2.Endpoints{Authorization: "https://login.example/a", Token: "https://login.example/t"}
	b, err := oauth2.New(c, backend.Host{})
	if err != nil {
		t.Fatal(err)
	}
	oauth2.Through(b, p)
	return b
}

// RFC 6749, 4.1.3, and RFC 7636: of a public and a confidential client the second leg has the redirect URI of the first, and the
// verifier of its challenge, which is in the second leg alone.
func TestBothLegsOfALogin(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for name, c := range map[string]oauth2.Config{
		"public": {}, "confidential": {ClientSecret: secret("s")}, "with a port and path": {RedirectPort: 8765, RedirectPath: "/back", RedirectHost: "localhost"},
	} {
		p := &tape{answer: `{"access_token":"a","token_type":"bearer","refresh_token":"r","scope":"x y"}`}
		b := byCode(t, c, p)
		defer b.Close()
		for range 2 {
			s := start(t, b, backend.LoginOptions{NoRedirect: true})
			u, err := url.Parse(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			q := u.Query()
			if !regexp.MustCompile(`^[A-Za-z0-9._-]{43,128}$`).MatchString(s.State) || q.Get("state") != s.State {
				t.Errorf("%s: the state is %q, and the server is given %q", name, s.State, q.Get("state"))
			}
			end, err := b.SubmitLogin(t.Context(), s.State, pasted("code=c0de&state="+s.State))
			if err != nil || end.Status != backend.LoginSuccess || end.Grant.About["scope"] != "x y" {
				t.Fatalf("%s: %+v, %v", name, end, err)
			}
			sent := p.forms[len(p.forms)-1]
			if sent.Get("redirect_uri") != q.Get("redirect_uri") || sent.Get("redirect_uri") == "" || sent.Get("code") != "c0de" {
				t.Errorf("%s: it goes to %q, then to %q", name, q.Get("redirect_uri"), sent.Get("redirect_uri"))
			}
			verifier := sent.Get("code_verifier")
			if len(verifier) < 43 || q.Get("code_challenge") != oauth2.Challenge(verifier) || q.Get("code_challenge_method") != "S256" || strings.Contains(s.URL, verifier) {
				t.Errorf("%s: a verifier of %d bytes for %s", name, len(verifier), s.URL)
			}
			for _, once := range []string{s.State, verifier} {
				if seen[once] {
					t.Errorf("%s: two logins share what only one may have", name)
				}
				seen[once] = true
			}
		}
	}
}

// A login that nobody finishes ends by itself, and what comes after is told so; how it ended is forgotten later.
func TestALoginThatNobodyFinishes(t *testing.T) {
	t.Parallel()
	for set, life := range map[time.Duration]time.Duration{0: 10 * time.Minute, 90 * time.Second: 90 * time.Second, 30 * time.Minute: 30 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			p := &tape{answer: `{"access_token":"a"}`}
			b := byCode(t, oauth2.Config{LoginTimeout: set}, p)
			defer b.Close()
			s := start(t, b, backend.LoginOptions{NoRedirect: true})
			if left := time.Until(s.Expires); left != life {
				t.Errorf("it is to end in %v, want %v", left, life)
			}
			time.Sleep(life - time.Nanosecond)
			synctest.Wait()
			if now, err := b.PollLogin(t.Context(), s.State); err != nil || now.Status != backend.LoginPending {
				t.Errorf("just before: %+v, %v", now, err)
			}
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			if now, err := b.PollLogin(t.Context(), s.State); err != nil || now.Status != backend.LoginExpired || now.URL != "" {
				t.Errorf("at its end: %+v, %v", now, err)
			}
			_, err := b.SubmitLogin(t.Context(), s.State, pasted("code=c0de&state="+s.State))
			fails(t, err, backend.ErrDenied)
			time.Sleep(10*time.Minute + time.Second)
			_, err = b.PollLogin(t.Context(), s.State)
			fails(t, err, backend.ErrNotFound)
			if len(p.forms) != 0 {
				t.Errorf("%d requests for it", len(p.forms))
			}
		})
	}
	if _, err := oauth2.New(oauth2.Config{Issuer: "https://login.example", ClientID: "c", LoginTimeout: 31 * time.Minute}, backend.Host{}); backend.CodeOf(err) != backend.CodeInvalidConfig {
		t.Errorf("a longer one: %v", err)
	}
}

// The page says how the login went and nothing that came with the answer, needs nothing from elsewhere, and is not kept; how the
// login ended is known without it.
func TestPageOfALogin(t *testing.T) {
	t.Parallel()
	b := byCode(t, oauth2.Config{}, &tape{answer: `{"access_token":"a"}`})
	defer b.Close()
	for query, want := range map[string]backend.LoginStatus{
		"error=<script>alert(1)</script>&error_description=evil-c4nary%0d%0aSet-Cookie:x&error_uri=https://evil.example": backend.LoginError,
		"code=c4nary&session=<b>evil</b>": backend.LoginSuccess,
	} {
		s := start(t, b, backend.LoginOptions{})
		u, err := url.Parse(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.Get(u.Query().Get("redirect_uri") + "?state=" + s.State + "&" + query)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		page := string(text)
		for _, never := range []string{"script", "evil", "c4nary", "http", "src=", "href=", "url(", s.State} {
			if strings.Contains(page, never) {
				t.Errorf("%s: %q is on the page %s", query, never, page)
			}
		}
		h := res.Header
		if (res.StatusCode == http.StatusOK) != (want == backend.LoginSuccess) || h.Get("Cache-Control") != "no-store" || h.Get("Content-Type") != "text/html; charset=utf-8" ||
			len(h.Values("Set-Cookie")) != 0 || h.Get("Access-Control-Allow-Origin") != "" || h.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: %d %v", query, res.StatusCode, h)
		}
		if end := outcome(t, b, s.State); end.Status != want || strings.Contains(end.Message, "evil") {
			t.Errorf("%s: %+v", query, end)
		}
	}
}
