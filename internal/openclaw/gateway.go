package openclaw

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/lazyregexp"
	"github.com/credresolve/credresolve/secretref"
)

// Gateway is how to reach a running gateway of OpenClaw. It opens a connection for each call, and is safe for concurrent use.
type Gateway struct {
	// URL is where it listens: ws://, of this machine alone, or wss://.
	URL string
	// Credential is what it asks of its clients; the zero Secret where it asks for nothing.
	Credential backend.Secret
	// Password says that the credential is a password and not a token.
	Password bool
	// Fingerprint is the SHA-256 of the only certificate that is taken, in hexadecimal; empty leaves that to the system's
	// authorities.
	Fingerprint string
	// Version is how the client names its own.
	Version string
}

// GatewayChoice is what somebody says of the gateway to call; what is zero comes from the home.
type GatewayChoice struct {
	URL        string
	Port       int
	Credential backend.Secret
	Password   bool
}

const defaultGatewayPort = 18789

// Gateway finds the gateway of the document, and what it asks of its clients: the choice, else $OPENCLAW_GATEWAY_TOKEN or
// $OPENCLAW_GATEWAY_PASSWORD, else what the document has or refers to, which is resolved, by a program if it is of one. A
// URL that is chosen gets a chosen credential alone, so that none goes where it does not belong.
func (d *Document) Gateway(ctx context.Context, c GatewayChoice) (Gateway, error) {
	g := Gateway{URL: c.URL, Credential: c.Credential, Password: c.Password}
	section := object(d.substitute(d.Value["gateway"]))
	remote, auth := member(section, "remote"), member(section, "auth")
	away := text(section["mode"]) == "remote"
	if g.URL == "" && away && c.Port == 0 {
		if g.URL = strings.TrimSpace(text(remote["url"])); g.URL == "" {
			return g, fmt.Errorf("%s: gateway.mode is remote, and gateway.remote.url is empty; write where the gateway is", d.Config)
		}
		g.Fingerprint = text(remote["tlsFingerprint"])
	} else if g.URL == "" {
		away = false
		port := c.Port
		if port == 0 {
			if s, ok := d.variable("OPENCLAW_GATEWAY_PORT"); ok {
				port, _ = strconv.Atoi(s)
			}
		}
		if n, ok := number(section["port"]); ok && port == 0 {
			port = int(n)
		}
		port = cmp.Or(port, defaultGatewayPort)
		g.URL = "ws://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if secure := member(section, "tls"); secure["enabled"] == true {
			g.URL = "wss" + strings.TrimPrefix(g.URL, "ws")
			var err error
			if g.Fingerprint, err = d.certificate(text(secure["certPath"])); err != nil {
				return g, err
			}
		}
	}
	if err := checkURL(g.URL); err != nil {
		return g, err
	}
	switch {
	case !g.Credential.IsZero():
	case c.URL != "":
		return g, errors.New("a gateway that is named by its address needs its token or password too, so that the home's goes nowhere else; give it in a file or on standard input")
	case away:
		return g, d.credential(ctx, &g, remote, "gateway.remote")
	default:
		return g, d.credential(ctx, &g, auth, "gateway.auth")
	}
	return g, nil
}

// credential finds the token or the password in a section of the document or in the environment.
func (d *Document) credential(ctx context.Context, g *Gateway, section map[string]any, path string) error {
	mode := text(section["mode"])
	if mode == "none" {
		return nil
	}
	for _, kind := range []struct{ key, variable string }{{"token", "OPENCLAW_GATEWAY_TOKEN"}, {"password", "OPENCLAW_GATEWAY_PASSWORD"}} {
		if mode == "token" && kind.key != "token" || mode == "password" && kind.key != "password" {
			continue
		}
		if s, ok := d.LookupEnv(kind.variable); ok && strings.TrimSpace(s) != "" {
			g.Credential, g.Password = backend.NewSecretString(strings.TrimSpace(s)), kind.key == "password"
			return nil
		}
		value, ok := section[kind.key]
		if !ok {
			continue
		}
		at := path + "." + kind.key
		ref, ok := d.Grammar.FromValue(value)
		if !ok {
			if strings.TrimSpace(text(value)) == "" {
				continue
			}
			g.Credential, g.Password = backend.NewSecretString(text(value)), kind.key == "password"
			return nil
		}
		err := d.Grammar.Check(ref)
		var outcome secretref.Outcome
		if err == nil {
			outcome = secretref.Resolve(ctx, d.Secrets, d.Host(), []secretref.Ref{ref})[0]
			if err = outcome.Err; err == nil {
				err = secretref.CheckValue(at, outcome.Value, secretref.String)
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %w; to call the gateway without its store, set %s or give a file", d.Config, at, err, kind.variable)
		}
		g.Credential, g.Password = outcome.Value, kind.key == "password"
		return nil
	}
	return nil // the gateway says so if it wants one
}

// certificate gives the fingerprint of the certificate that the document's own gateway shows.
func (d *Document) certificate(path string) (string, error) {
	if path = strings.TrimSpace(path); path != "" {
		path = d.Path(path)
	} else {
		path = filepath.Join(cmp.Or(d.State, filepath.Dir(d.Config)), "gateway", "tls", "gateway-cert.pem")
	}
	content, err := readFile(path, mostEnv)
	if err != nil {
		return "", fmt.Errorf("the gateway's certificate: %s: %w", path, err)
	}
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			return "", fmt.Errorf("the gateway's certificate: %s: it holds none in PEM", path)
		}
		if block.Type == "CERTIFICATE" {
			sum := sha256.Sum256(block.Bytes)
			return hex.EncodeToString(sum[:]), nil
		}
	}
}

// checkURL refuses addresses that would show the credential to a network.
func checkURL(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("the gateway's address is not of the form ws://HOST:PORT or wss://HOST:PORT")
	}
	switch {
	case u.Scheme == "wss", u.Scheme == "ws" && loopback(u.Hostname()):
		return nil
	case u.Scheme == "ws":
		return fmt.Errorf("%s is not of this machine, and ws:// would show the gateway's token to the network; use wss://, or ssh -L and 127.0.0.1", address)
	}
	return fmt.Errorf("the gateway's address begins with %s://; it has to be ws:// or wss://", u.Scheme)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Reloaded is the gateway's answer to a reload, as OpenClaw writes it.
type Reloaded struct {
	OK           bool `json:"ok"`
	WarningCount int  `json:"warningCount"`
}

// GatewayError says why a gateway could not be talked to or did not do what it was told. Code is the gateway's, and empty
// when there was no answer. It holds none of the gateway's own texts.
type GatewayError struct {
	URL, Code, Detail string
	Reason, Remedy    string
	err               error
}

func (e *GatewayError) Error() string {
	s := "the gateway at " + e.URL + ": " + e.Reason
	if code := cmp.Or(e.Detail, e.Code); code != "" {
		s += " (" + code + ")"
	}
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}

func (e *GatewayError) Unwrap() error { return e.err }

// ReloadSecrets tells the gateway to resolve its references anew, and waits for the end of that: either it publishes them
// together, or it keeps those it has. A gateway that is still starting is asked again until ctx is done.
func (g Gateway) ReloadSecrets(ctx context.Context) (Reloaded, error) {
	for {
		answer, err := g.call(ctx, "secrets.reload")
		var wait *startingError
		if errors.As(err, &wait) {
			select {
			case <-time.After(wait.after):
				continue
			case <-ctx.Done():
				return Reloaded{}, g.fail(ctx, wait.err)
			}
		}
		var out Reloaded
		if err == nil && (json.Unmarshal(answer, &out) != nil || !out.OK) {
			err = &GatewayError{URL: g.URL, Reason: "its answer to a reload is none that is known", Remedy: "see whether it is an OpenClaw of 2026.3.2 or later"}
		}
		if err != nil {
			return Reloaded{}, err
		}
		return out, nil
	}
}

// startingError says that a gateway does not serve its methods yet.
type startingError struct {
	after time.Duration
	err   error
}

func (e *startingError) Error() string { return e.err.Error() }

// The versions of the gateway's protocol in which a connection and this method are the same.
const (
	minProtocol = 3
	maxProtocol = 4
)

// mostFrame is the most that a frame may have. The answer to connect tells of everything that the gateway knows.
const mostFrame = 32 << 20

type frame struct {
	Type    string          `json:"type"`
	Event   string          `json:"event"`
	ID      string          `json:"id"`
	OK      bool            `json:"ok"`
	Payload json.RawMessage `json:"payload"`
	Error   struct {
		Code       string  `json:"code"`
		Message    string  `json:"message"`
		RetryAfter float64 `json:"retryAfterMs"`
		Details    struct {
			Code     string `json:"code"`
			Reason   string `json:"reason"`
			Expected int    `json:"expectedProtocol"`
		} `json:"details"`
	} `json:"error"`
}

// call connects, calls one method without parameters, and gives its payload.
func (g Gateway) call(ctx context.Context, method string) (json.RawMessage, error) {
	conn, response, err := websocket.Dial(ctx, g.URL, &websocket.DialOptions{HTTPClient: &http.Client{
		Transport:     &http.Transport{TLSClientConfig: g.tls(), DisableKeepAlives: true}, // and no proxy: this is the user's own gateway
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}})
	if err != nil {
		if response != nil {
			return nil, &GatewayError{URL: g.URL, err: err, Reason: fmt.Sprintf("what listens there answers %d and speaks no WebSocket", response.StatusCode), Remedy: "name the gateway's port with --port"}
		}
		return nil, g.fail(ctx, err)
	}
	defer conn.CloseNow()
	conn.SetReadLimit(mostFrame)

	// The challenge is for clients with a key of their own; it only says when to begin.
	challenged := func(f frame) bool { return f.Type == "event" && f.Event == "connect.challenge" }
	if _, err := g.await(ctx, conn, challenged); err != nil {
		return nil, err
	}
	connect := g.connectFrame()
	err = conn.Write(ctx, websocket.MessageText, connect)
	clear(connect)
	if err != nil {
		return nil, g.fail(ctx, err)
	}
	for _, step := range []string{"connect", method} {
		if step == method {
			if err := conn.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"type":"req","id":%q,"method":%[1]q}`, method)); err != nil {
				return nil, g.fail(ctx, err)
			}
		}
		f, err := g.await(ctx, conn, func(f frame) bool { return f.Type == "res" && f.ID == step })
		if err != nil {
			return nil, err
		}
		if !f.OK {
			return nil, g.refused(f, step)
		}
		if step == method {
			_ = conn.Close(websocket.StatusNormalClosure, "")
			return f.Payload, nil
		}
	}
	panic("unreachable")
}

// connectFrame is the request that opens a connection. Its bytes hold the credential.
func (g Gateway) connectFrame() []byte {
	about, _ := json.Marshal(map[string]any{ // of texts and numbers
		"minProtocol": minProtocol, "maxProtocol": maxProtocol,
		"client": map[string]string{"id": "cli", "displayName": "credresolve", "version": cmp.Or(g.Version, "dev"), "platform": runtime.GOOS, "mode": "cli"},
		"role":   "operator", "scopes": []string{"operator.admin"}, "caps": []string{},
	})
	out := make([]byte, 0, len(about)+6*g.Credential.Len()+128) // never grows, which would leave a copy
	out = append(out, `{"type":"req","id":"connect","method":"connect","params":`...)
	out = append(out, about[:len(about)-1]...)
	if !g.Credential.IsZero() {
		field := `,"auth":{"token":`
		if g.Password {
			field = `,"auth":{"password":`
		}
		out = append(out, field...)
		_ = g.Credential.Use(func(b []byte) error { // fails only as the function does
			out = backend.AppendJSONString(out, b)
			return nil
		})
		out = append(out, '}')
	}
	return append(out, "}}"...)
}

// await reads frames until one is the wanted one.
func (g Gateway) await(ctx context.Context, conn *websocket.Conn, wanted func(frame) bool) (frame, error) {
	for {
		_, b, err := conn.Read(ctx)
		if err != nil {
			return frame{}, g.fail(ctx, err)
		}
		var f frame
		if json.Unmarshal(b, &f) != nil {
			return frame{}, &GatewayError{URL: g.URL, Reason: "what listens there does not speak the gateway's protocol", Remedy: "name the gateway's port with --port"}
		}
		if wanted(f) {
			return f, nil
		}
	}
}

// tls takes the pinned certificate alone, where there is one.
func (g Gateway) tls() *tls.Config {
	if g.Fingerprint == "" {
		return nil
	}
	pinned, _ := hex.DecodeString(strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(g.Fingerprint, "sha256:"), ":", ""))) // matches nothing if it is none
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // the certificate is its own authority; what follows is stricter
		VerifyConnection: func(s tls.ConnectionState) error {
			sum := sha256.Sum256(s.PeerCertificates[0].Raw)
			if subtle.ConstantTimeCompare(sum[:], pinned) != 1 {
				return errPinned
			}
			return nil
		},
	}
}

var errPinned = errors.New("it shows another certificate than the one that the home knows")

// fail words an error of the connection.
func (g Gateway) fail(ctx context.Context, err error) error {
	e := &GatewayError{URL: g.URL, err: err}
	var closed websocket.CloseError
	var timeout net.Error
	switch {
	case context.Cause(ctx) != nil:
		if errors.Is(ctx.Err(), context.Canceled) {
			return context.Cause(ctx)
		}
		e.Reason, e.Remedy, e.err = "it does not answer in time", "see its log, or wait longer with --timeout", ctx.Err()
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Reason, e.Remedy = "nobody listens there", "start it with openclaw gateway run, or name its port with --port"
	case errors.Is(err, errPinned):
		e.Reason = errPinned.Error()
	case errors.As(err, &closed):
		e.Reason = fmt.Sprintf("it closes the connection, with code %d", int(closed.Code))
		switch closed.Code {
		case websocket.StatusServiceRestart:
			e.Reason, e.Remedy = "it is restarting", "try again when it is up"
		case websocket.StatusPolicyViolation:
			e.Remedy = "see its log for why"
		}
	case errors.As(err, &timeout) && timeout.Timeout():
		e.Reason = "it does not answer in time"
	default:
		e.Reason = "it cannot be talked to: " + networkReason(err)
	}
	return e
}

// networkReason is the innermost of a network error, whose outer ones hold addresses and requests.
func networkReason(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	var unverified *tls.CertificateVerificationError
	switch {
	case errors.As(err, &dns):
		return "the name of its host is not known"
	case errors.As(err, &unverified):
		return "its certificate is not one that this machine trusts; write its fingerprint into gateway.remote.tlsFingerprint"
	case errors.As(err, &op):
		return op.Op + " failed"
	}
	return "the connection broke"
}

var plainCode = lazyregexp.New(`^[A-Z][A-Z0-9_]{0,63}$`)

// refused words the gateway's answer to a request that it did not grant.
func (g Gateway) refused(f frame, step string) error {
	e := &GatewayError{URL: g.URL}
	if plainCode().MatchString(f.Error.Code) {
		e.Code = f.Error.Code
	}
	if plainCode().MatchString(f.Error.Details.Code) {
		e.Detail = f.Error.Details.Code
	}
	kind := "token"
	if g.Password {
		kind = "password"
	}
	switch {
	case e.Code == "UNAVAILABLE" && f.Error.Details.Reason == "startup-sidecars":
		e.Reason = "it is still starting"
		wait := time.Duration(f.Error.RetryAfter) * time.Millisecond
		return &startingError{after: min(max(wait, 100*time.Millisecond), 5*time.Second), err: e}
	case step != "connect" && e.Code == "UNAVAILABLE":
		e.Reason, e.Remedy = "it could not resolve its references, and keeps the values it has", "its log says which provider failed; credresolve secretref audit --allow-exec says why"
	case strings.HasPrefix(f.Error.Message, "missing scope"):
		e.Reason, e.Remedy = "it does not let this client reload", "call it from its own machine, at 127.0.0.1, with the token of gateway.auth"
	case e.Detail == "PROTOCOL_MISMATCH" || strings.Contains(f.Error.Message, "protocol mismatch"):
		e.Reason = "it speaks another version of its protocol"
		if n := f.Error.Details.Expected; n != 0 {
			e.Reason = fmt.Sprintf("it speaks version %d of its protocol, and this program %d to %d", n, minProtocol, maxProtocol)
		}
		e.Remedy = "use a credresolve of its time, or openclaw secrets reload"
	case strings.HasSuffix(e.Detail, "_MISMATCH") && strings.HasPrefix(e.Detail, "AUTH_"):
		e.Reason, e.Remedy = "it does not accept the "+kind, "the one it runs with may be older than the one in its store: restart it, or give the older one"
	case strings.HasSuffix(e.Detail, "_MISSING") || e.Detail == "AUTH_REQUIRED" || strings.HasSuffix(e.Detail, "_REQUIRED") && g.Credential.IsZero():
		e.Reason, e.Remedy = "it asks for a token or a password", "set OPENCLAW_GATEWAY_TOKEN, or give a file with --token-file or --password-file"
	case e.Detail == "AUTH_RATE_LIMITED":
		e.Reason, e.Remedy = "it refuses logins for a while, after too many wrong ones", "wait, then try once with the right "+kind
	case strings.HasPrefix(e.Detail, "AUTH_"), step == "connect" && e.Code == "INVALID_REQUEST" && strings.Contains(f.Error.Message, "unauthorized"):
		e.Reason, e.Remedy = "it does not accept the "+kind, "see gateway.auth of its configuration"
	case e.Detail == "PAIRING_REQUIRED" || strings.HasPrefix(e.Detail, "DEVICE_"):
		e.Reason, e.Remedy = "it wants a paired device", "call it from its own machine, at 127.0.0.1, with the token of gateway.auth"
	default:
		e.Reason, e.Remedy = "it refuses "+step, "see its log for why"
	}
	return e
}
