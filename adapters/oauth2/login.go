package oauth2

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
)

const (
	maxLogins = 64
	keptLogin = 10 * time.Minute // how long the outcome of a login can be asked for
	maxURL    = 16 << 10         // bytes of a pasted URL

	defaultInterval = 5 * time.Second // RFC 8628, 3.2
	maxInterval     = 2 * time.Minute // to which a failing server makes it grow
)

// login is one login, from its start until nobody asks for it any more.
type login struct {
	b        *Backend
	device   bool
	redirect string
	nonce    string
	verifier backend.Secret // it leaves the process at the exchange alone
	code     backend.Secret // of the device
	server   *server
	life     context.Context
	finish   context.CancelFunc
	listener *http.Server // nil: the person pastes the URL

	mu        sync.Mutex
	state     backend.LoginState
	exchanged bool // the code has been taken: it is good for one exchange
	ended     time.Time
}

// StartLogin implements backend.Login.
func (b *Backend) StartLogin(ctx context.Context, req backend.Request, o backend.LoginOptions) (backend.LoginState, error) {
	switch {
	case !b.config.loggedIn():
		return backend.LoginState{}, errNotNeeded
	case req.Version != "":
		return backend.LoginState{}, errVersion
	}
	s, err := b.server(ctx)
	if err != nil {
		return backend.LoginState{}, err
	}
	now := time.Now()
	l := &login{b: b, device: b.config.Grant == grantDevice || o.Device, server: s, nonce: random(), verifier: backend.NewSecretString(random() + random())}
	l.state = backend.LoginState{State: random(), Status: backend.LoginPending, Expires: now.Add(b.config.LoginTimeout)}
	if l.device {
		err = l.startDevice(ctx)
	} else {
		err = l.startCode(o)
	}
	if err != nil {
		return backend.LoginState{}, err
	}
	l.life, l.finish = context.WithDeadline(context.Background(), l.state.Expires)
	if err := b.admit(l); err != nil {
		l.end(backend.LoginCancelled, "")
		return backend.LoginState{}, err
	}
	context.AfterFunc(l.life, func() { l.end(backend.LoginExpired, "") })
	state := l.now()
	if l.device {
		go l.ask(state.Interval)
	}
	return state, nil
}

// admit keeps l, and forgets those that ended long ago, or first where there are many.
func (b *Backend) admit(l *login) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errClosed
	}
	for state, old := range b.logins {
		if old.gone() {
			delete(b.logins, state)
		}
	}
	if len(b.logins) >= maxLogins {
		oldest := b.oldestEnded()
		if oldest == "" {
			return errMany
		}
		delete(b.logins, oldest)
	}
	b.logins[l.state.State] = l
	return nil
}

// oldestEnded is the login that ended longest ago; empty when none has. Called with b.mu held.
func (b *Backend) oldestEnded() (state string) {
	var since time.Time
	for name, l := range b.logins {
		l.mu.Lock()
		if !l.ended.IsZero() && (state == "" || l.ended.Before(since)) {
			state, since = name, l.ended
		}
		l.mu.Unlock()
	}
	return state
}

func (l *login) gone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.ended.IsZero() && time.Since(l.ended) > keptLogin
}

func (b *Backend) login(state string) (*login, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.logins[state] // 256 random bits: what can be learnt from its timing is nothing
	if l == nil || l.gone() {
		return nil, errNoState
	}
	return l, nil
}

// now gives how the login stands, without what it gave.
func (l *login) now() backend.LoginState {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.state
	s.Grant = nil
	return s
}

// end ends the login if it has not ended.
func (l *login) end(status backend.LoginStatus, message string) { l.settle(status, message, "", nil) }

// settle ends the login with what it gave, and reports whether it was still pending: one that was cancelled while its code
// was exchanged gives nothing.
func (l *login) settle(status backend.LoginStatus, message string, code backend.Code, g *backend.Grant) bool {
	l.mu.Lock()
	pending := l.state.Status == backend.LoginPending
	if pending {
		l.state.Status, l.state.Message, l.state.Code, l.state.Grant, l.ended = status, message, code, g, time.Now()
		l.state.URL, l.state.UserCode, l.state.Fields = "", "", nil
		l.verifier, l.nonce = backend.Secret{}, ""
	}
	listener := l.listener
	l.listener = nil
	l.mu.Unlock()
	if l.finish != nil {
		l.finish()
	}
	if listener != nil {
		go func() { // not from within a request of its own
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			if listener.Shutdown(ctx) != nil {
				_ = listener.Close()
			}
		}()
	}
	return pending
}

// fail ends the login with an error that may be shown.
func (l *login) fail(err error) { l.settle(backend.LoginError, err.Error(), backend.CodeOf(err), nil) }

// SubmitLogin implements backend.Login: url is the address at which the browser ended.
func (b *Backend) SubmitLogin(ctx context.Context, state string, input map[string]backend.Secret) (backend.LoginState, error) {
	l, err := b.login(state)
	if err != nil {
		return backend.LoginState{}, err
	}
	if l.device {
		return backend.LoginState{}, errNothing
	}
	text, ok := input["url"]
	if !ok || len(input) != 1 {
		return backend.LoginState{}, errNoURL
	}
	if text.Len() > maxURL {
		return backend.LoginState{}, errNoCode
	}
	var query url.Values
	if err := text.Use(func(address []byte) error {
		u, err := url.Parse(strings.TrimSpace(string(address)))
		if err != nil {
			return errNoCode
		}
		query = u.Query()
		return nil
	}); err != nil {
		return backend.LoginState{}, err
	}
	if query.Get("code") == "" && query.Get("error") == "" {
		return backend.LoginState{}, errNoCode
	}
	if err := l.answered(ctx, query); err != nil {
		return backend.LoginState{}, err
	}
	return b.PollLogin(ctx, state)
}

// PollLogin implements backend.Login.
func (b *Backend) PollLogin(_ context.Context, state string) (backend.LoginState, error) {
	l, err := b.login(state)
	if err != nil {
		return backend.LoginState{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.state
	l.state.Grant = nil
	return s, nil
}

// CancelLogin implements backend.Login.
func (b *Backend) CancelLogin(_ context.Context, state string) error {
	l, err := b.login(state)
	if err != nil {
		return err
	}
	l.end(backend.LoginCancelled, "")
	return nil
}

// startCode opens the listener to which the browser comes back, and makes the URL at which the login begins (RFC 6749, 4.1;
// RFC 7636; RFC 8252).
func (l *login) startCode(o backend.LoginOptions) error {
	c := &l.b.config
	if l.server.Authorization == "" {
		return errNoEndpoint
	}
	u, err := url.Parse(l.server.Authorization)
	if err != nil {
		return errNoEndpoint
	}
	port := c.RedirectPort
	if !o.NoRedirect {
		// The address of this machine alone: nobody else can bring an answer.
		socket, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
		if err != nil {
			return &backend.Error{Code: backend.CodeUnavailable, Reason: "port " + strconv.Itoa(port) + " of 127.0.0.1 cannot be opened for the browser to come back to",
				Remedy: "close what uses it, set another redirect_port, or log in with --no-browser and paste the address at which the browser ended"}
		}
		port = socket.Addr().(*net.TCPAddr).Port
		l.listener = &http.Server{
			Handler: http.HandlerFunc(l.receive), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second,
			WriteTimeout: c.Timeout + 10*time.Second, MaxHeaderBytes: 32 << 10,
			ErrorLog: log.New(io.Discard, "", 0), // what a stranger sends is nothing to tell of
		}
		l.listener.SetKeepAlivesEnabled(false)
		go func(s *http.Server) { _ = s.Serve(&fewConns{Listener: socket}) }(l.listener)
	} else if port == 0 {
		port = 1 // nothing listens there: the browser shows the address, which is pasted
	}
	l.redirect = "http://" + net.JoinHostPort(c.RedirectHost, strconv.Itoa(port)) + c.RedirectPath
	q := u.Query()
	for name, v := range c.Parameters {
		q.Set(name, v)
	}
	for name, v := range map[string]string{
		"response_type": "code", "client_id": c.ClientID, "redirect_uri": l.redirect, "state": l.state.State,
		"code_challenge": challenge(l.verifier), "code_challenge_method": "S256",
	} {
		q.Set(name, v)
	}
	l.b.scoped(q)
	if hasScope(c.Scopes, "openid") {
		q.Set("nonce", l.nonce)
	} else {
		l.nonce = ""
	}
	u.RawQuery = q.Encode()
	l.state.URL = u.String()
	l.state.Fields = []backend.LoginField{{
		Name: "url", Label: "the address at which the browser ended", Help: "it begins with " + l.redirect, Optional: l.listener != nil,
	}}
	return nil
}

// challenge is the S256 of RFC 7636, 4.2.
func challenge(verifier backend.Secret) string {
	var sum [sha256.Size]byte
	_ = verifier.Use(func(text []byte) error {
		sum = sha256.Sum256(text)
		return nil
	})
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// maxConns is how many connections a login's listener holds at once. The oldest is closed for one more, so that strangers who
// say nothing keep no browser waiting.
const maxConns = 64

// fewConns is a listener that holds maxConns connections at most.
type fewConns struct {
	net.Listener
	mu   sync.Mutex
	held []net.Conn // the oldest first
}

func (f *fewConns) Accept() (net.Conn, error) {
	c, err := f.Listener.Accept()
	if err != nil {
		return nil, err
	}
	one := &fewConn{Conn: c, f: f}
	f.mu.Lock()
	f.held = append(f.held, one)
	var oldest net.Conn
	if len(f.held) > maxConns {
		oldest = f.held[0]
	}
	f.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close()
	}
	return one, nil
}

type fewConn struct {
	net.Conn
	f *fewConns
}

func (c *fewConn) Close() error {
	c.f.mu.Lock()
	c.f.held = slices.DeleteFunc(c.f.held, func(one net.Conn) bool { return one == c })
	c.f.mu.Unlock()
	return c.Conn.Close()
}

func hasScope(scopes []string, want string) bool {
	for _, s := range scopes {
		if s == want {
			return true
		}
	}
	return false
}

// receive is where the browser comes back. What it shows holds nothing of the answer, since that is not to be trusted.
func (l *login) receive(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	host, _, _ := net.SplitHostPort(r.Host)
	if r.Method != http.MethodGet || r.URL.Path != l.b.config.RedirectPath || host != l.b.config.RedirectHost {
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(page("Nothing is here.")))
		return
	}
	// A browser may ask twice, and a person go back to the page: that is told how the login stands.
	if err := l.answered(r.Context(), r.URL.Query()); err != nil && !errors.Is(err, errSpent) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(page("This answer does not belong to the login. Go back to the program and begin again.")))
		return
	}
	switch l.now().Status {
	case backend.LoginPending:
		_, _ = w.Write([]byte(page("The program is still asking the server. You can close this window.")))
	case backend.LoginSuccess:
		_, _ = w.Write([]byte(page("You are logged in. You can close this window.")))
	default:
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(page("The login failed. The program says why; you can close this window.")))
	}
}

func page(text string) string {
	return `<!doctype html><html lang="en"><meta charset="utf-8"><title>credresolve</title>` +
		`<style>body{font:1.1em system-ui;margin:20vh auto;max-width:30em;text-align:center}</style><p>` + text + `</p></html>`
}

// answered takes the server's answer to the login. Its error says that the answer is not one to this login, which goes on;
// what went wrong with one that is, the login's state says.
func (l *login) answered(ctx context.Context, q url.Values) error {
	for _, name := range []string{"state", "iss", "code", "error"} {
		if len(q[name]) > 1 { // RFC 6749, 3.1
			return errForged
		}
	}
	if !equal(q.Get("state"), l.state.State) {
		return errForged
	}
	// RFC 9207, 2.4: a server that names itself in answers must do so, and another's answer must not be used.
	if iss := q.Get("iss"); iss != "" && !equal(iss, l.server.Issuer) && l.server.Issuer != "" || iss == "" && l.server.TellsIssuer {
		return errOtherIss
	}
	l.mu.Lock()
	if l.state.Status != backend.LoginPending || l.exchanged { // an answer counts once
		l.mu.Unlock()
		select {
		case <-l.life.Done():
		case <-ctx.Done():
		}
		return errSpent
	}
	l.exchanged = true
	verifier, nonce := l.verifier, l.nonce
	l.mu.Unlock()
	if name := q.Get("error"); name != "" {
		l.fail(l.b.refused("the login", http.StatusBadRequest, name, 0))
		return nil
	}
	// Whoever brought the answer may go away; the code is good for this one exchange.
	go l.take(q.Get("code"), verifier, nonce)
	select {
	case <-l.life.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take exchanges the code, and ends the login.
func (l *login) take(code string, verifier backend.Secret, nonce string) {
	const step = "the exchange of the code"
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {l.redirect}}
	fill(form, "code_verifier", verifier)
	g, _, err := l.b.exchange(l.life, step, form, nonce, nil)
	if err == nil && nonce != "" && g.About[aboutSubject] == "" {
		err = l.b.garbled(step, "it gave no ID token, though openid is in scopes")
	}
	if err != nil {
		l.fail(err)
		return
	}
	l.settle(backend.LoginSuccess, "", "", g)
}

// startDevice asks for a code that a person enters elsewhere, and begins to ask for the token (RFC 8628).
func (l *login) startDevice(ctx context.Context) error {
	if l.server.Device == "" {
		return errNoEndpoint
	}
	const step = "the start of the login"
	r, err := l.b.post(ctx, step, l.server.Device, l.b.scoped(url.Values{}))
	if err != nil {
		return err
	}
	defer clear(r.body)
	var d struct {
		DeviceCode string  `json:"device_code"`
		UserCode   string  `json:"user_code"`
		URL        string  `json:"verification_uri"`
		OldURL     string  `json:"verification_url"` // Google's
		WholeURL   string  `json:"verification_uri_complete"`
		Expires    seconds `json:"expires_in"`
		Interval   seconds `json:"interval"`
	}
	if r.status != http.StatusOK {
		_, err := l.b.failure(step, r)
		return err
	}
	if !r.json || json.Unmarshal(r.body, &d) != nil || d.DeviceCode == "" || d.UserCode == "" {
		return l.b.garbled(step, "the answer holds no code")
	}
	if d.URL == "" {
		d.URL = d.OldURL
	}
	for _, address := range []string{d.URL, d.WholeURL} {
		if d.URL == "" || address != "" && !isPage(address) {
			return l.b.garbled(step, "the answer holds no address of a web page")
		}
	}
	if hasControl(d.UserCode) || len(d.UserCode) > 256 {
		return l.b.garbled(step, "the code is not one that a person can enter")
	}
	l.state.URL, l.state.UserCode = d.URL, d.UserCode
	if d.WholeURL != "" {
		l.state.URL = d.WholeURL
	}
	if end := time.Now().Add(time.Duration(d.Expires) * time.Second); d.Expires > 0 && end.Before(l.state.Expires) {
		l.state.Expires = end
	}
	l.state.Interval = defaultInterval
	if d.Interval > 0 {
		l.state.Interval = min(time.Duration(d.Interval)*time.Second, maxLoginTimeout)
	}
	l.code = backend.NewSecretString(d.DeviceCode)
	return nil
}

// isPage reports whether address may be shown to a person to open: https, or of this machine.
func isPage(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || len(address) > 2048 {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && isLocal(u.Hostname())
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// ask asks for the token of the device's code until it comes, is refused, or the login ends.
func (l *login) ask(interval time.Duration) {
	var once time.Duration // a longer wait that the server wants once
	for {
		select {
		case <-l.life.Done():
			return
		case <-time.After(max(interval, once)):
		}
		once = 0
		form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}}
		fill(form, "device_code", l.code)
		g, refusal, err := l.b.exchange(l.life, "the wait for the login", form, "", nil)
		switch {
		case err == nil:
			l.settle(backend.LoginSuccess, "", "", g)
			return
		case refusal == "authorization_pending":
		case refusal == "slow_down":
			interval += 5 * time.Second
			l.mu.Lock()
			l.state.Interval = interval
			l.mu.Unlock()
		case refusal == "expired_token":
			l.end(backend.LoginExpired, "")
			return
		case l.life.Err() != nil:
			return
		case backend.CodeOf(err).Retryable() || backend.CodeOf(err) == backend.CodeTimeout:
			interval, once = max(interval, min(2*interval, maxInterval)), backend.RetryAfter(err) // RFC 8628, 3.5
		default:
			l.fail(err)
			return
		}
	}
}

// random gives 256 bits as text of letters, digits, - and _.
func random() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}
