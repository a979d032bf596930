package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/statedir"
	"github.com/credresolve/credresolve/resolver"
)

var _ resolver.Interface = (*Client)(nil)

// Config says which sidecar a Client talks to. The zero Config is that of this user, on its Unix socket.
type Config struct {
	// Socket is the path of the sidecar's Unix socket. Empty, without Address: $CREDRESOLVE_SOCKET, else
	// $XDG_RUNTIME_DIR/credresolve/sock, else sock in the state directory.
	Socket string
	// Address is that of a TCP listener on this machine, as http://127.0.0.1:8270, in place of a socket.
	Address string
	// Token is a bearer token: a session's, or that of a TCP listener. Not set: none.
	Token backend.Source
	// ServerUID is the user that must be serving the socket, else nothing is sent to it; nil: any. It is known on Linux,
	// macOS and the BSDs.
	ServerUID *int
	// LookupEnv finds environment variables; nil: os.LookupEnv.
	LookupEnv func(string) (string, bool)
}

// Client asks a sidecar. It is safe for concurrent use. Errors are those that a Resolver would give; where the sidecar cannot
// be reached they are ErrUnavailable.
type Client struct {
	config Config
	base   string
	where  string // for people
	http   *http.Client
	ctx    context.Context // until Close
	close  context.CancelFunc
	most   int64 // maxAnswer
}

const (
	// longest is how long one request may take, its answer included, whatever its context allows; a stream only until it begins.
	longest = time.Minute
	// maxBatch and maxRequest are how many refs, and about how many bytes of them, go out in one request.
	maxBatch   = 500
	maxRequest = 512 << 10
)

// maxMargin is how long before the end of its context a request is to be answered, at most.
const maxMargin = 500 * time.Millisecond

// errSlow is why a request ended that took longest.
var errSlow = errors.New("the request took too long")

// maxAnswer is the size of the largest answer that is read, in bytes.
const maxAnswer = 64 << 20

// New gives a Client. It does no I/O. Its errors are ErrInvalidConfig.
func New(c Config) (*Client, error) {
	out := &Client{config: c, most: maxAnswer}
	transport := &http.Transport{
		MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second, DisableCompression: true,
		ResponseHeaderTimeout: longest, MaxResponseHeaderBytes: 64 << 10,
	}
	switch {
	case c.Socket != "" && c.Address != "":
		return nil, backend.Errorf(backend.CodeInvalidConfig, "a sidecar has a socket or an address, not both")
	case c.Address != "":
		u, err := url.Parse(c.Address)
		if err != nil || u.Scheme != "http" || u.User != nil || !isLoopback(u.Hostname()) || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, backend.Errorf(backend.CodeInvalidConfig, "the address of a sidecar must be that of this machine, such as http://127.0.0.1:8270")
		}
		out.base, out.where = "http://"+u.Host, u.Host
		transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, addr)
			if tcp, ok := conn.(*net.TCPConn); ok && !tcp.RemoteAddr().(*net.TCPAddr).IP.IsLoopback() {
				_ = conn.Close() // a name may lead anywhere, and the token would go there in clear
				return nil, backend.Errorf(backend.CodeInvalidConfig, "the address of the sidecar leads to another machine")
			}
			return conn, err
		}
	default:
		path := c.Socket
		if path == "" {
			var err error
			if path, err = SocketPath(c.LookupEnv); err != nil {
				return nil, backend.Errorf(backend.CodeInvalidConfig, "%v", err)
			}
		}
		out.base, out.where = "http://localhost", path
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
			if err != nil || c.ServerUID == nil {
				return conn, err
			}
			if err := servedBy(conn, *c.ServerUID); err != nil {
				_ = conn.Close()
				return nil, err
			}
			return conn, nil
		}
	}
	out.ctx, out.close = context.WithCancel(context.Background())
	out.http = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return out, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// SocketPath is where this user's sidecar has its socket: $CREDRESOLVE_SOCKET, else $XDG_RUNTIME_DIR/credresolve/sock, else
// sock in the state directory. lookupEnv may be nil: os.LookupEnv.
func SocketPath(lookupEnv func(string) (string, bool)) (string, error) {
	if lookupEnv == nil {
		lookupEnv = os.LookupEnv
	}
	if path, _ := lookupEnv("CREDRESOLVE_SOCKET"); path != "" {
		if !filepath.IsAbs(path) {
			return "", fmt.Errorf("$CREDRESOLVE_SOCKET is not an absolute path")
		}
		return path, nil
	}
	if dir, _ := lookupEnv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "credresolve", "sock"), nil
	}
	dir, err := statedir.Path(lookupEnv)
	if err != nil {
		return "", fmt.Errorf("no place for a socket: neither $CREDRESOLVE_SOCKET nor $XDG_RUNTIME_DIR is set, and %w", err)
	}
	return filepath.Join(dir, "sock"), nil
}

// Resolve gives what ref points to. Errors are a *resolver.RefError.
func (c *Client) Resolve(ctx context.Context, ref credref.Ref) (*resolver.Value, error) {
	o := c.ResolveAll(ctx, []credref.Ref{ref})[0]
	return o.Value, o.Err
}

// ResolveUnless is Resolve for who has ref's value of that revision already: while that is what Resolve would give, the value is
// not sent again, and both results are nil.
func (c *Client) ResolveUnless(ctx context.Context, ref credref.Ref, revision string) (*resolver.Value, error) {
	if err := ref.Validate(); err != nil {
		return nil, &resolver.RefError{Ref: ref, Err: backend.Errorf(backend.CodeUsage, "%v", err)}
	}
	results, err := c.ask(ctx, ResolveRequest{Refs: []RefQuery{{Ref: ref, IfRevision: revision}}})
	switch {
	case err != nil:
		return nil, &resolver.RefError{Ref: ref, Err: err}
	case results[0].Ref == ref && results[0].Unchanged && results[0].Error == nil && revision != "":
		return nil, nil
	}
	o := c.outcome(ref, &results[0], false)
	return o.Value, o.Err
}

// ResolveAll gives one Outcome for each of refs, in their order.
func (c *Client) ResolveAll(ctx context.Context, refs []credref.Ref) []resolver.Outcome {
	return c.ResolveWith(ctx, refs, resolver.Demand{})
}

// ResolveWith is ResolveAll with a demand. More refs than a sidecar takes at once go out in several requests.
func (c *Client) ResolveWith(ctx context.Context, refs []credref.Ref, d resolver.Demand) []resolver.Outcome {
	out := make([]resolver.Outcome, len(refs))
	var good []credref.Ref
	var at []int
	for i, ref := range refs {
		if err := ref.Validate(); err != nil { // JSON may not be able to say it
			err = backend.Errorf(backend.CodeUsage, "%v", err)
			out[i] = resolver.Outcome{Ref: ref, Err: &resolver.RefError{Ref: ref, Err: err}}
			continue
		}
		good, at = append(good, ref), append(at, i)
	}
	for most := maxBatch; len(good) > 0; {
		n := portion(good, most, maxRequest, func(ref credref.Ref) int {
			return len(ref.Provider) + len(ref.ID) + len(ref.Version) + len(ref.Field) + 64
		})
		outcomes, err := c.resolve(ctx, good[:n], d)
		var no *refusal
		if n > 1 && errors.As(err, &no) && no.status == http.StatusRequestEntityTooLarge {
			most = n / 2 // this sidecar has lower limits
			continue
		}
		for i, o := range outcomes {
			out[at[i]] = o
		}
		good, at = good[n:], at[n:]
	}
	return out
}

// portion is how many of refs, at least one, make at most count refs and room bytes.
func portion(refs []credref.Ref, count, room int, size func(credref.Ref) int) int {
	for i, ref := range refs {
		room -= size(ref)
		if i == count || room < 0 && i > 0 {
			return i
		}
	}
	return len(refs)
}

// resolve sends one request. An error of it as a whole is in each outcome too.
func (c *Client) resolve(ctx context.Context, refs []credref.Ref, d resolver.Demand) ([]resolver.Outcome, error) {
	req := ResolveRequest{Refs: make([]RefQuery, len(refs)), Demand: Demand{MinFreshness: Duration(d.MinFreshness), NoCache: d.NoCache}}
	if d.MaxStale != nil {
		stale := Duration(*d.MaxStale)
		req.MaxStale = &stale
	}
	for i, ref := range refs {
		req.Refs[i].Ref, req.Refs[i].Exact = ref, d.Exact
	}
	results, err := c.ask(ctx, req)
	out := make([]resolver.Outcome, len(refs))
	for i, ref := range refs {
		if err != nil {
			out[i] = resolver.Outcome{Ref: ref, Err: &resolver.RefError{Ref: ref, Err: err}}
		} else {
			out[i] = c.outcome(ref, &results[i], d.Whole)
		}
	}
	return out, err
}

// ask gives one result for each of req's refs. Where ctx has a deadline, what is there by then is not lost with what is not.
func (c *Client) ask(ctx context.Context, req ResolveRequest) ([]Result, error) {
	deadline, limited := ctx.Deadline()
	margin := min(time.Until(deadline)/8, maxMargin) // for the way
	if limited {
		req.Timeout = Duration(max(time.Until(deadline)-margin, 0).Round(time.Millisecond))
	}
	var answer ResolveAnswer
	err := c.post(ctx, "/v1/resolve", req, &answer)
	if err == nil && len(answer.Results) != len(req.Refs) {
		err = c.odd("it gave %d results for %d refs", len(answer.Results), len(req.Refs))
	}
	if err != nil && ctx.Err() == nil {
		err = &failedRequest{err}
	}
	if err != nil || !limited || time.Until(deadline) > margin {
		return answer.Results, err
	}
	for i := range answer.Results {
		if e := answer.Results[i].Error; e != nil && e.Code == backend.CodeTimeout {
			<-ctx.Done() // its time is over, not the sidecar's
			e.Message = context.DeadlineExceeded.Error()
		}
	}
	return answer.Results, nil
}

// outcome gives what r says of ref, which was asked for.
func (c *Client) outcome(ref credref.Ref, r *Result, whole bool) resolver.Outcome {
	if r.Ref != ref {
		return resolver.Outcome{Ref: ref, Err: &resolver.RefError{Ref: ref, Err: c.odd("it answered for another ref")}}
	}
	return r.outcome(whole)
}

// Report tells that the value of that revision was refused, and gives a newer one, as Resolver.Report does.
func (c *Client) Report(ctx context.Context, ref credref.Ref, revision string) (*resolver.Value, error) {
	var answer Result
	if err := c.post(ctx, "/v1/report", ReportRequest{ref, revision}, &answer); err != nil {
		return nil, &resolver.RefError{Ref: ref, Err: err}
	}
	switch {
	case answer.Ref != ref:
		return nil, &resolver.RefError{Ref: ref, Err: c.odd("it answered for another ref")}
	case answer.Unchanged: // there is none newer, and the value does not come again
		return c.Resolve(ctx, ref)
	}
	o := answer.outcome(false)
	return o.Value, o.Err
}

// Revoke ends the credential of ref, at the sidecar and at its store. It needs the permission revoke.
func (c *Client) Revoke(ctx context.Context, ref credref.Ref) error {
	if err := c.post(ctx, "/v1/revoke", RevokeRequest{ref}, nil); err != nil {
		return &resolver.RefError{Ref: ref, Err: err}
	}
	return nil
}

// Invalidate ends what the sidecar knows of the ids of provider that begin with prefix, and tells of how many. It needs the
// permission invalidate.
func (c *Client) Invalidate(ctx context.Context, provider, prefix string) (int, error) {
	var answer InvalidateAnswer
	err := c.post(ctx, "/v1/invalidate", InvalidateRequest{Provider: provider, Prefix: prefix}, &answer)
	return answer.Ended, err
}

// Forget ends what the sidecar knows of ref's secret. It needs the permission invalidate.
func (c *Client) Forget(ctx context.Context, ref credref.Ref) error {
	return c.post(ctx, "/v1/invalidate", InvalidateRequest{Ref: &ref}, nil)
}

// StartSession begins a session; its token is the answer's. It is the owner's alone.
func (c *Client) StartSession(ctx context.Context, req SessionRequest) (Session, error) {
	var s Session
	err := c.post(ctx, "/v1/sessions", req, &s)
	return s, err
}

// EndSession ends a session and all that is of its scope.
func (c *Client) EndSession(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/v1/sessions/"+url.PathEscape(id), nil, nil)
}

// Reload makes the sidecar read its configuration again. An invalid one changes nothing.
func (c *Client) Reload(ctx context.Context) (ReloadAnswer, error) {
	var answer ReloadAnswer
	err := c.post(ctx, "/v1/reload", struct{}{}, &answer)
	return answer, err
}

// Providers tells of the sidecar's providers, as far as the caller may know of them.
func (c *Client) Providers(ctx context.Context) ([]ProviderState, error) {
	var answer ProvidersAnswer
	err := c.call(ctx, http.MethodGet, "/v1/providers", nil, &answer)
	return answer.Providers, err
}

// Status tells how the sidecar is. It needs the permission status.
func (c *Client) Status(ctx context.Context) (StatusAnswer, error) {
	var answer StatusAnswer
	err := c.call(ctx, http.MethodGet, "/v1/status", nil, &answer)
	return answer, err
}

// Health tells how providers and credentials stood when they were last looked at; with now they are looked at first, which is the
// owner's alone. It needs the permission status.
func (c *Client) Health(ctx context.Context, now bool) (HealthAnswer, error) {
	path := "/v1/health"
	if now {
		path += "?now=1"
	}
	var answer HealthAnswer
	err := c.call(ctx, http.MethodGet, path, nil, &answer)
	return answer, err
}

// Close ends the requests and streams that are under way, and lets connections go; nothing is answered after it. A second
// Close does nothing.
func (c *Client) Close() error {
	c.close()
	c.http.CloseIdleConnections()
	return nil
}

var errClosed = &backend.Error{Code: backend.CodeUnavailable, Reason: "the client is closed"}

// begin gives a context of ctx that ends with Close too.
func (c *Client) begin(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	if c.ctx.Err() != nil {
		cancel(errClosed)
	}
	stop := context.AfterFunc(c.ctx, func() { cancel(errClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

func (c *Client) post(ctx context.Context, path string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return backend.Errorf(backend.CodeInternal, "the request cannot be written as JSON")
	}
	return c.call(ctx, http.MethodPost, path, text, answer)
}

func (c *Client) call(ctx context.Context, method, path string, body []byte, answer any) error {
	ctx, end := c.begin(ctx)
	defer end()
	ctx, cancel := context.WithTimeoutCause(ctx, longest, errSlow)
	defer cancel()
	res, err := c.send(ctx, method, path, body, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var text bytes.Buffer
	if n := res.ContentLength; n > 0 && n <= c.most {
		text.Grow(int(n) + bytes.MinRead) // does not grow again, which would leave a copy
	}
	defer func() { b := text.Bytes(); clear(b[:cap(b)]) }()
	if _, err := text.ReadFrom(io.LimitReader(res.Body, c.most+1)); err != nil {
		return c.unreachable(ctx, err)
	}
	if int64(text.Len()) > c.most {
		return c.odd("its answer is larger than %d bytes", c.most)
	}
	switch {
	case res.StatusCode/100 != 2 && method == http.MethodHead && res.Header.Get(ErrorHeader) != "":
		return &refusal{status: res.StatusCode, err: (&Error{Code: backend.Code(res.Header.Get(ErrorHeader))}).Err()}
	case res.StatusCode/100 != 2:
		return c.refused(res.StatusCode, text.Bytes())
	case answer == nil:
		return nil
	}
	if err := json.Unmarshal(text.Bytes(), answer); err != nil { // its text may quote a value
		return c.odd("its answer is not of the expected form")
	}
	return nil
}

// refused gives the error that an answer with status tells of.
func (c *Client) refused(status int, text []byte) error {
	var failed ErrorAnswer
	if json.Unmarshal(text, &failed) != nil || failed.Error.Code == "" {
		return &refusal{status: status, err: c.odd("it answered with status %d", status), odd: true}
	}
	return &refusal{status: status, err: failed.Error.Err()}
}

// refusal is the error of an answer with another status than success.
type refusal struct {
	status int
	err    error
	odd    bool // the answer is of no form that a sidecar gives
}

func (e *refusal) Error() string { return e.err.Error() }
func (e *refusal) Unwrap() error { return e.err }

// send gives the answer to one request, whose body the caller closes. A token that the sidecar refuses is rejected, and a newer
// one tried once.
func (c *Client) send(ctx context.Context, method, path string, body []byte, header http.Header) (*http.Response, error) {
	res, refused, err := c.sendOnce(ctx, method, path, body, header.Clone())
	if err != nil || !badToken(res) {
		return res, err
	}
	c.config.Token.Reject(refused)
	_, revision, err := c.config.Token.Get(ctx)
	if err != nil || revision == refused {
		return res, nil
	}
	_ = res.Body.Close()
	res, _, err = c.sendOnce(ctx, method, path, body, header)
	return res, err
}

// badToken reports whether the sidecar does not take the token, rather than that a store does not take one of the sidecar's.
func badToken(res *http.Response) bool {
	return res.StatusCode == http.StatusUnauthorized && res.Header.Get("WWW-Authenticate") != ""
}

// sendOnce also gives the revision of the token that it sent.
func (c *Client) sendOnce(ctx context.Context, method, path string, body []byte, header http.Header) (_ *http.Response, revision string, _ error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, "", backend.Errorf(backend.CodeInternal, "the request is malformed")
	}
	if header != nil {
		req.Header = header
	}
	if path == "/v1/resolve" {
		req.Header["Idempotency-Key"] = nil // it goes out again on a new connection where an idle one was closed meanwhile
	}
	req.Header.Set(RequestHeader, "1")
	req.Header.Set("User-Agent", "credresolve-client")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if !c.config.Token.IsZero() {
		var token backend.Secret
		if token, revision, err = c.config.Token.Get(ctx); err != nil {
			return nil, "", err
		}
		err = token.Use(func(b []byte) error {
			if bytes.ContainsFunc(b, func(r rune) bool { return r <= ' ' || r > '~' }) {
				return backend.Errorf(backend.CodeInvalidConfig, "the token has white space, or a character that no token has")
			}
			req.Header.Set("Authorization", "Bearer "+string(b))
			return nil
		})
		if err != nil {
			return nil, "", err
		}
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, "", c.unreachable(ctx, err)
	}
	return res, revision, nil
}

var (
	// ErrUnreachable is found by errors.Is in the errors of requests that no sidecar answered. They are ErrUnavailable too,
	// unless another user than Config.ServerUID serves the socket.
	ErrUnreachable = errors.New("no sidecar answers")
	// ErrRequest is found by errors.Is in the errors of refs whose request failed as a whole, so that they tell of the sidecar
	// and nothing of the refs.
	ErrRequest = errors.New("the request failed")
)

// failedRequest is the error of each ref of a request that failed as a whole.
type failedRequest struct{ err error }

func (e *failedRequest) Error() string   { return e.err.Error() }
func (e *failedRequest) Unwrap() []error { return []error{e.err, ErrRequest} }

// unanswered is the error of a request that no sidecar answered.
type unanswered struct{ err *backend.Error }

func (e *unanswered) Error() string   { return e.err.Error() }
func (e *unanswered) Unwrap() []error { return []error{e.err, ErrUnreachable} }

// unreachable is the error of a request without an answer, without the address and the cause's text that package http adds.
func (c *Client) unreachable(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case cause == error(errClosed):
		return errClosed
	case cause != nil && cause != errSlow:
		return ctx.Err()
	}
	var known *backend.Error
	if errors.As(err, &known) {
		return &unanswered{known}
	}
	e := &backend.Error{Code: backend.CodeUnavailable, Reason: "the sidecar at " + c.where + " does not answer"}
	var op *net.OpError
	switch {
	case !errors.As(err, &op) || op.Op != "dial":
	case errors.Is(err, fs.ErrPermission):
		e.Reason = "the sidecar at " + c.where + " may not be reached by this user"
	case errors.Is(err, syscall.EAGAIN): // its queue of connections is full
		e.Reason = "the sidecar at " + c.where + " is busy"
	default:
		e.Reason = "no sidecar listens at " + c.where
		e.Remedy = "start one: credresolve serve"
	}
	return &unanswered{e}
}

// odd is the error of an answer that no sidecar of this version gives.
func (c *Client) odd(format string, args ...any) error {
	return backend.Errorf(backend.CodeInternal, "the sidecar at %s answered oddly: %s", c.where, fmt.Sprintf(format, args...))
}
