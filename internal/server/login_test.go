package server

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/oidctest"
)

// loginSidecar runs a sidecar with a provider where people log in: hub for everybody, desk for each end user and session.
func loginSidecar(t *testing.T, p *oidctest.Provider) *sidecar {
	t.Helper()
	dir := t.TempDir()
	var tokens []string
	for _, name := range []string{"ann", "bob", "web", "reader"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(tokenOf(name)), 0o600); err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, fmt.Sprintf("%s: %q", name, path))
	}
	sc := &sidecar{t: t, dir: t.TempDir(), logs: &buffer{}, kinds: testKinds(oauth2.Kind())}
	sc.socket = filepath.Join(sc.dir, "run", "sock")
	settings := `kind: oauth2, client_id: desk, scopes: [openid, offline_access, profile], issuer: "` + p.Issuer + `"`
	sc.configure(`
  m: {kind: memory, values: {plain: "plain-c4nary"}}
  vessel: {kind: memory}
  kept: {kind: memory}
  hub: {`+settings+`}
  desk: {`+settings+`, scope: [session, end_user], id_template: "of/{end_user}/{id}"}
  shop: {`+settings+`, scope: [session, plugin]}
logins: {store: vessel}
`, `
  plugins: {store: kept}
  tokens: {`+strings.Join(tokens, ", ")+`}
  consumers:
    - {name: ann, token: ann, subject: {end_user: ann}, allow: [{provider: "*", id: "**", login: true}]}
    - {name: bob, token: bob, subject: {end_user: bob}, allow: [{provider: "*", id: "**", login: true}]}
    - {name: web, token: web, allow: [{provider: hub, id: "**", login: true}]}
    - {name: reader, token: reader, allow: [{provider: hub, id: "**"}, {provider: m, id: plain}]}
`)
	sc.open()
	return sc
}

func tokenOf(name string) string { return name + "-0123456789abcdef0123456789abcdef" }

// ended polls a login until it is over.
func ended(t *testing.T, c *client.Client, state string) client.LoginState {
	t.Helper()
	for range 600 {
		s, err := c.PollLogin(t.Context(), state)
		if err != nil {
			t.Fatal(err)
		}
		if s.Status != backend.LoginPending {
			return s
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the login does not end")
	return client.LoginState{}
}

// logIn logs the person in by device code.
func logIn(t *testing.T, p *oidctest.Provider, c *client.Client, provider, id string) {
	t.Helper()
	s, err := c.StartLogin(t.Context(), client.LoginRequest{Provider: provider, ID: id, Device: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Approve(t.Context(), s.UserCode); err != nil {
		t.Fatal(err)
	}
	if s = ended(t, c, s.State); s.Status != backend.LoginSuccess {
		t.Fatalf("the login is %+v", s)
	}
}

func value(t *testing.T, c *client.Client, ref string) string {
	t.Helper()
	v, err := c.Resolve(t.Context(), refOf(ref))
	if err != nil {
		t.Fatal(err)
	}
	return string(v.Secret().Reveal())
}

func loginOf(err error) *backend.LoginState {
	var e *backend.Error
	if errors.As(err, &e) {
		return e.Login
	}
	return nil
}

func TestLoginByDevice(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	sc := loginSidecar(t, p)
	ctx, ann, bob := t.Context(), sc.client(tokenOf("ann")), sc.client(tokenOf("bob"))
	s, err := ann.StartLogin(ctx, client.LoginRequest{Provider: "hub", ID: "me", Device: true})
	if err != nil {
		t.Fatal(err)
	}
	if s.Status != backend.LoginPending || s.URL == "" || s.UserCode == "" || s.ExpiresAt == nil || s.Interval < client.Duration(time.Second) || len(s.State) < 43 {
		t.Errorf("it begins as %+v", s)
	}
	if again, err := ann.PollLogin(ctx, s.State); err != nil || again.Status != backend.LoginPending || again.State != s.State {
		t.Errorf("while it is under way: %+v, %v", again, err)
	}
	// It is nobody else's, not even the owner's.
	for name, c := range map[string]*client.Client{"another consumer": bob, "the owner": sc.client(""), "who may resolve alone": sc.client(tokenOf("reader"))} {
		if _, err := c.PollLogin(ctx, s.State); !errors.Is(err, backend.ErrNotFound) {
			t.Errorf("%s polls: %v", name, err)
		}
		if _, err := c.SubmitLogin(ctx, s.State, map[string]backend.Secret{"url": backend.NewSecretString("x-c4nary")}); !errors.Is(err, backend.ErrNotFound) {
			t.Errorf("%s submits: %v", name, err)
		}
		if err := c.CancelLogin(ctx, s.State); !errors.Is(err, backend.ErrNotFound) {
			t.Errorf("%s cancels: %v", name, err)
		}
	}
	if err := p.Approve(ctx, s.UserCode); err != nil {
		t.Fatal(err)
	}
	if s = ended(t, ann, s.State); s.Status != backend.LoginSuccess {
		t.Fatalf("it ends as %+v", s)
	}
	if again, err := ann.PollLogin(ctx, s.State); err != nil || again.Status != backend.LoginSuccess {
		t.Errorf("its outcome is not there any more: %+v, %v", again, err)
	}
	first := value(t, ann, "cred://hub/me")
	if value(t, sc.client(tokenOf("reader")), "cred://hub/me") != first {
		t.Error("another consumer gets another token")
	}
	entry, err := ann.Refresh(ctx, refOf("cred://hub/me"))
	if err != nil || entry.Status != "active" || !entry.Refreshable || entry.ExpiresAt == nil || entry.Subject != nil {
		t.Errorf("a refresh: %+v, %v", entry, err)
	}
	second := value(t, ann, "cred://hub/me")
	if second == first {
		t.Error("after a refresh it is the same token")
	}
	logins, err := ann.Logins(ctx)
	if err != nil || len(logins) != 1 || logins[0].Ref != refOf("cred://hub/me") || logins[0].Status != "active" || logins[0].LoggedInAt == nil {
		t.Errorf("the logins are %+v, %v", logins, err)
	}
	revoked, err := ann.Logout(ctx, refOf("cred://hub/me"))
	if err != nil || !revoked {
		t.Errorf("a logout: revoked %t, %v", revoked, err)
	}
	if _, err := ann.Logout(ctx, refOf("cred://hub/me")); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("a second logout: %v", err)
	}
	if logins, err := ann.Logins(ctx); err != nil || len(logins) != 0 {
		t.Errorf("the logins are still %+v, %v", logins, err)
	}
	for _, secret := range []string{first, second, s.UserCode} {
		if secret != "" && (strings.Contains(sc.logs.String(), secret) || strings.Contains(sc.auditLog(), secret)) {
			t.Error("a token is in a log")
		}
	}
	for _, want := range []string{`"event":"login_start"`, `"event":"login_end"`, `"reason":"success"`, `"event":"refresh"`, `"event":"logout"`} {
		if !strings.Contains(sc.auditLog(), want) {
			t.Errorf("the audit log lacks %s", want)
		}
	}
}

// Resolving without a login says at once how to log in, and who was told can ask how that stands.
func TestResolveWithoutALogin(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	sc := loginSidecar(t, p)
	ctx, reader, web := t.Context(), sc.client(tokenOf("reader")), sc.client(tokenOf("web"))
	_, err := reader.Resolve(ctx, refOf("cred://hub/me"))
	login := loginOf(err)
	if !errors.Is(err, backend.ErrAuthRequired) || login == nil || login.URL == "" || login.UserCode == "" || login.State == "" || login.Expires.IsZero() {
		t.Fatalf("the error is %v, and its login %+v", err, login)
	}
	if got := sc.do("GET", "/v1/resolve?ref="+escape("cred://hub/me"), "", "Authorization: Bearer "+tokenOf("reader")); got.status != http.StatusUnauthorized || !strings.Contains(got.body, `"login":{"url":"http`) || got.header.Get("WWW-Authenticate") != "" {
		t.Errorf("status %d: %s", got.status, got.body)
	}
	if s, err := reader.PollLogin(ctx, login.State); err != nil || s.Status != backend.LoginPending {
		t.Errorf("who was told of it polls: %+v, %v", s, err)
	}
	if err := reader.CancelLogin(ctx, login.State); backend.CodeOf(err) != backend.CodeDenied {
		t.Errorf("who may not log in cancels: %v", err)
	}
	if _, err := web.PollLogin(ctx, login.State); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("who was not told polls: %v", err)
	}
	for range 5 { // it is the same one, however often and by whomever it is asked for
		_, err = web.Resolve(ctx, refOf("cred://hub/me"))
		if again := loginOf(err); again == nil || again.State != login.State {
			t.Fatalf("another login: %v", err)
		}
	}
	if err := p.Approve(ctx, login.UserCode); err != nil {
		t.Fatal(err)
	}
	if s := ended(t, web, login.State); s.Status != backend.LoginSuccess {
		t.Errorf("it ends as %+v", s)
	}
	if value(t, reader, "cred://hub/me") == "" {
		t.Error("there is no token")
	}
}

func TestLoginBySubmittingAURL(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	sc := loginSidecar(t, p)
	ctx, web := t.Context(), sc.client(tokenOf("web"))
	start := func() client.LoginState {
		t.Helper()
		s, err := web.StartLogin(ctx, client.LoginRequest{Provider: "hub", ID: "me", NoRedirect: true})
		if err != nil {
			t.Fatal(err)
		}
		if s.URL == "" || len(s.Fields) != 1 || s.Fields[0].Name != "url" {
			t.Fatalf("it begins as %+v", s)
		}
		return s
	}
	s := start()
	_, at := oidctest.Browse(t, s.URL, "http://127.0.0.1")
	if done, err := web.SubmitLogin(ctx, s.State, map[string]backend.Secret{s.Fields[0].Name: backend.NewSecretString(at)}); err != nil || done.Status == backend.LoginError {
		t.Fatalf("submitting: %+v, %v", done, err)
	}
	if s = ended(t, web, s.State); s.Status != backend.LoginSuccess {
		t.Fatalf("it ends as %+v", s)
	}
	if strings.Contains(sc.logs.String()+sc.auditLog(), at) {
		t.Error("what was submitted is in a log")
	}
	// What belongs to one login is none of another.
	other := start()
	if done, err := web.SubmitLogin(ctx, other.State, map[string]backend.Secret{other.Fields[0].Name: backend.NewSecretString(at)}); err == nil && done.Status != backend.LoginError && done.Status != backend.LoginPending {
		t.Errorf("another login's URL: %+v", done)
	}
	if err := web.CancelLogin(ctx, other.State); err != nil {
		t.Error(err)
	}
	if done, err := web.PollLogin(ctx, other.State); err != nil || done.Status == backend.LoginSuccess || done.Status == backend.LoginPending {
		t.Errorf("after its end: %+v, %v", done, err)
	}
	for name, body := range map[string]string{
		"no JSON": `{"state":c4nary`, "an unknown key": `{"state":"x","input":{},"c4nary":1}`, "a number": `{"state":"x","input":{"url":4}}`, "a list": `{"state":"x","input":["c4nary"]}`,
	} {
		if got := sc.do("POST", "/v1/login/submit", body); got.status != http.StatusBadRequest || strings.Contains(got.body, canary) {
			t.Errorf("%s: status %d: %s", name, got.status, got.body)
		}
	}
}

func TestLoginThatEndsOtherwise(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	sc := loginSidecar(t, p)
	ctx, web := t.Context(), sc.client(tokenOf("web"))
	start := func() client.LoginState {
		t.Helper()
		s, err := web.StartLogin(ctx, client.LoginRequest{Provider: "hub", ID: "me", Device: true})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	denied, cancelled := start(), start()
	if err := p.Deny(ctx, denied.UserCode); err != nil {
		t.Fatal(err)
	}
	if s := ended(t, web, denied.State); s.Status != backend.LoginError || s.Message == "" || s.Code != backend.CodeDenied {
		t.Errorf("a person who refuses: %+v", s)
	}
	for range 2 {
		if err := web.CancelLogin(ctx, cancelled.State); err != nil {
			t.Error(err)
		}
	}
	_ = p.Approve(ctx, cancelled.UserCode)
	if s, err := web.PollLogin(ctx, cancelled.State); err != nil || s.Status != backend.LoginCancelled {
		t.Errorf("after it was cancelled: %+v, %v", s, err)
	}
	if logins, err := web.Logins(ctx); err != nil || len(logins) != 0 {
		t.Errorf("something of it is kept: %+v, %v", logins, err)
	}
	if _, err := web.PollLogin(ctx, "none"); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("an unknown state: %v", err)
	}
}

func TestLoginsNeedPermission(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	sc := loginSidecar(t, p)
	ctx, reader := t.Context(), sc.client(tokenOf("reader"))
	me := refOf("cred://hub/me")
	if _, err := reader.StartLogin(ctx, client.LoginRequest{Provider: "hub", ID: "me"}); backend.CodeOf(err) != backend.CodeDenied || !strings.Contains(err.Error(), "login: true") {
		t.Errorf("it starts one: %v", err)
	}
	if _, err := reader.Logout(ctx, me); backend.CodeOf(err) != backend.CodeDenied {
		t.Errorf("it logs out: %v", err)
	}
	if _, err := reader.Refresh(ctx, me); backend.CodeOf(err) != backend.CodeDenied {
		t.Errorf("it refreshes: %v", err)
	}
	// What logins gave is resolved for nobody but the owner, whatever rules match.
	if _, err := sc.client(tokenOf("ann")).Resolve(ctx, refOf("cred://vessel/credresolve/hub/me")); backend.CodeOf(err) != backend.CodeDenied {
		t.Errorf("the token store is resolved: %v", err)
	}
	for name, c := range map[string]struct {
		path, body string
		status     int
	}{
		"a provider without logins": {"/v1/login/start", `{"provider":"m","id":"plain"}`, 422},
		"no such provider":          {"/v1/login/start", `{"provider":"none","id":"x"}`, 400},
		"no id":                     {"/v1/login/start", `{"provider":"hub","id":""}`, 400},
		"a subject":                 {"/v1/login/start", `{"provider":"hub","id":"me","subject":{"end_user":"bob"}}`, 400},
		"a refresh without one":     {"/v1/refresh", `{"ref":{"provider":"m","id":"plain"}}`, 422},
		"a refresh before a login":  {"/v1/refresh", `{"ref":{"provider":"hub","id":"nobody"}}`, 401},
		"a field":                   {"/v1/logout", `{"ref":{"provider":"hub","id":"me","field":"x"}}`, 400},
		"an unknown state":          {"/v1/login/poll", `{"state":"none"}`, 404},
	} {
		if got := sc.do("POST", c.path, c.body); got.status != c.status {
			t.Errorf("%s: status %d, want %d: %s", name, got.status, c.status, got.body)
		}
	}
}

// A login is that of its subject: of two end users of one ref each has a login of its own, and sees no other.
func TestLoginsOfTwoSubjects(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	sc := loginSidecar(t, p)
	ctx, ann, bob := t.Context(), sc.client(tokenOf("ann")), sc.client(tokenOf("bob"))
	logIn(t, p, ann, "desk", "mail")
	mine := value(t, ann, "cred://desk/mail")
	_, err := bob.Resolve(ctx, refOf("cred://desk/mail"))
	if login := loginOf(err); !errors.Is(err, backend.ErrAuthRequired) || login == nil {
		t.Fatalf("another user without a login: %v", err)
	}
	if logins, err := bob.Logins(ctx); err != nil || len(logins) != 0 {
		t.Errorf("another user sees %+v, %v", logins, err)
	}
	if _, err := bob.Logout(ctx, refOf("cred://desk/mail")); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("another user logs out: %v", err)
	}
	logIn(t, p, bob, "desk", "mail")
	if value(t, bob, "cred://desk/mail") == mine || value(t, ann, "cred://desk/mail") != mine {
		t.Error("two users share a token")
	}
	if logins, err := ann.Logins(ctx); err != nil || len(logins) != 1 || logins[0].Ref != refOf("cred://desk/mail") || logins[0].Subject == nil || logins[0].Subject.EndUser != "ann" {
		t.Errorf("ann's logins are %+v, %v", logins, err)
	}
	if logins, err := sc.client("").Logins(ctx); err != nil || len(logins) != 2 {
		t.Errorf("the owner sees %+v, %v", logins, err)
	}
	if _, err := bob.Logout(ctx, refOf("cred://desk/mail")); err != nil {
		t.Error(err)
	}
	if value(t, ann, "cred://desk/mail") != mine {
		t.Error("one user's logout ended another's login")
	}
}

// The end of a session, or of a plugin, takes its logins with it, under way or done, and no others.
func TestEndTakesLogins(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	sc := loginSidecar(t, p)
	ctx, owner := t.Context(), sc.client("")
	logIn(t, p, owner, "hub", "me")
	var of [3]*client.Client
	var ids [3]string
	for i, plugin := range []string{"one", "two", "two"} {
		one := sc.session(`{"consumer":"job","allow":["cred://shop/cart","cred://hub/me"],"login":true,"subject":{"plugin":"` + plugin + `"}}`)
		of[i], ids[i] = sc.client(one.Token), one.ID
		logIn(t, p, of[i], "shop", "cart")
	}
	pending, err := of[0].StartLogin(ctx, client.LoginRequest{Provider: "hub", ID: "me", Device: true})
	if err != nil {
		t.Fatal(err)
	}
	asked := p.Calls("/revoke")
	if err := owner.EndSession(ctx, ids[0]); err != nil {
		t.Fatal(err)
	}
	if p.Calls("/revoke") == asked {
		t.Error("the provider was not told")
	}
	if logins, err := owner.Logins(ctx); err != nil || len(logins) != 3 {
		t.Errorf("there are %+v, %v", logins, err)
	}
	if _, err := sc.server.logins.find(pending.State, claimant{consumer: "job", session: ids[0]}); err == nil {
		t.Error("a login under way outlives its session")
	}
	if value(t, of[1], "cred://shop/cart") == "" || value(t, owner, "cred://hub/me") == "" {
		t.Error("another login ended")
	}
	if err := owner.EndPlugin(ctx, "two"); err != nil {
		t.Fatal(err)
	}
	if logins, err := owner.Logins(ctx); err != nil || len(logins) != 1 || logins[0].Ref != refOf("cred://hub/me") {
		t.Errorf("there are %+v, %v", logins, err)
	}
}

// Whatever comes together, a login that was cancelled is not kept, and one that succeeded is.
func TestLoginsTogether(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	sc := loginSidecar(t, p)
	ctx, web := t.Context(), sc.client(tokenOf("web"))
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			id := fmt.Sprint("me", i)
			s, err := web.StartLogin(ctx, client.LoginRequest{Provider: "hub", ID: id, Device: true})
			if err != nil {
				t.Error(err)
				return
			}
			var some sync.WaitGroup
			some.Go(func() { _ = p.Approve(ctx, s.UserCode) })
			some.Go(func() {
				if i%2 == 0 {
					if err := web.CancelLogin(ctx, s.State); err != nil {
						t.Error(err)
					}
				}
			})
			for range 2 {
				some.Go(func() {
					if _, err := web.PollLogin(ctx, s.State); err != nil {
						t.Error(err)
					}
				})
			}
			some.Wait()
			s = ended(t, web, s.State)
			if i%2 == 1 && s.Status != backend.LoginSuccess {
				t.Errorf("%s: %+v", id, s)
			}
			_, err = web.Resolve(ctx, credref.Ref{Provider: "hub", ID: id})
			if (err == nil) != (s.Status == backend.LoginSuccess) {
				t.Errorf("%s: it is %s, and resolving gives %v", id, s.Status, err)
			}
		})
	}
	all.Wait()
}

// So many logins one caller may begin, and others all the same.
func TestLoginsAreBounded(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	sc := loginSidecar(t, p)
	ctx, web := t.Context(), sc.client(tokenOf("web"))
	var last client.LoginState
	for i := range maxLoginsOfOne {
		var err error
		if last, err = web.StartLogin(ctx, client.LoginRequest{Provider: "hub", ID: fmt.Sprint(i), Device: true}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := web.StartLogin(ctx, client.LoginRequest{Provider: "hub", ID: "more", Device: true}); backend.CodeOf(err) != backend.CodeThrottled {
		t.Errorf("one too many: %v", err)
	}
	if _, err := sc.client(tokenOf("ann")).StartLogin(ctx, client.LoginRequest{Provider: "hub", ID: "me", Device: true}); err != nil {
		t.Errorf("another caller: %v", err)
	}
	if err := web.CancelLogin(ctx, last.State); err != nil {
		t.Fatal(err)
	}
	if _, err := web.StartLogin(ctx, client.LoginRequest{Provider: "hub", ID: "more", Device: true}); err != nil {
		t.Errorf("after one was cancelled: %v", err)
	}
}

// An authorization server that hangs holds up who resolves no longer than the request allows, and nobody who asks for something else.
func TestLoginAtAServerThatHangs(t *testing.T) {
	t.Parallel()
	block := make(chan struct{})
	p := oidctest.Start(t, oidctest.Options{Before: func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-block:
		case <-r.Context().Done():
		}
		return true
	}})
	t.Cleanup(func() { close(block) })
	sc := loginSidecar(t, p)
	got := sc.do("POST", "/v1/resolve", `{"refs":[{"provider":"hub","id":"me"},{"provider":"m","id":"plain"}],"timeout":"1s"}`)
	var answer client.ResolveAnswer
	got.json(t, &answer)
	if got.status != http.StatusOK || len(answer.Results) != 2 || answer.Results[0].Error == nil || text(t, answer.Results[1]) != "plain-c4nary" {
		t.Fatalf("status %d: %s", got.status, got.body)
	}
	if code := answer.Results[0].Error.Code; code != backend.CodeTimeout && code != backend.CodeAuthRequired && code != backend.CodeUnavailable {
		t.Errorf("the error is %s", code)
	}
}
