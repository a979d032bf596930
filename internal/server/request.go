package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/audit"
)

// request is one request as handlers see it. It is used again for another once it is answered.
type request struct {
	w        http.ResponseWriter
	r        *http.Request
	protocol *protocol // nil: the native API
	state    *state
	conn     *conn
	caller   *caller // nil: not known yet
	id       string
	status   int
	traced   context.Context // nil: not traced
	placed   bool            // it has a place of the gate
	patience time.Duration   // for what must be fetched; zero: as the configuration has it

	answers []answer
	records []audit.Record
	asks    []ask
	body    []byte
	out     []byte
}

var requests = sync.Pool{New: func() any { return new(request) }}

const maxKept = 64 << 10 // bytes of a buffer that is kept

// release zeroes what req knows and keeps its buffers.
func (req *request) release() {
	clear(req.out[:cap(req.out)])
	clear(req.body[:cap(req.body)])
	clear(req.answers[:cap(req.answers)])
	clear(req.records[:cap(req.records)])
	clear(req.asks[:cap(req.asks)])
	kept := request{answers: req.answers[:0], records: req.records[:0], asks: req.asks[:0], body: req.body[:0], out: req.out[:0]}
	if cap(req.out) > maxKept || cap(req.body) > maxKept || cap(req.answers) > 1024 {
		kept = request{}
	}
	*req = kept
	requests.Put(req)
}

func (req *request) ctx() context.Context {
	if req.traced != nil {
		return req.traced
	}
	return req.r.Context()
}

// record gives a line of the audit log with what is known of the caller.
func (req *request) record(now time.Time) audit.Record {
	rec := audit.Record{Time: now, Request: req.id, Tool: tool(req.r)}
	if req.conn != nil {
		rec.Remote = req.conn.door.name
		if p := req.conn.peer; p != nil {
			rec.UID, rec.GID, rec.PID, rec.Executable = &p.UID, &p.GID, &p.PID, p.Executable
		}
	}
	if c := req.caller; c != nil {
		rec.Consumer = c.consumer.Name()
		if c.session != nil {
			rec.Session, rec.Consumer = c.session.ID, c.session.Consumer
		}
	}
	return rec
}

// tool is what the client says that it is, in a few characters: it is a hint for whoever reads the log, and no proof.
func tool(r *http.Request) string {
	name := r.UserAgent()
	if len(name) > 64 {
		name = strings.ToValidUTF8(name[:64], "")
	}
	return name
}

// badRequest is an error of the request itself, with the status that HTTP has for it.
type badRequest struct {
	err    *backend.Error
	status int
}

func bad(status int, reason, remedy string) error {
	return &badRequest{&backend.Error{Code: backend.CodeUsage, Reason: reason, Remedy: remedy}, status}
}

func (e *badRequest) Error() string { return e.err.Error() }
func (e *badRequest) Unwrap() error { return e.err }

// readRef reads the body of a request about one ref, which is ref of it, and reports whether it is good; if not, that is answered.
func (req *request) readRef(body any, ref *credref.Ref) bool {
	err := req.read(body, defaultBody)
	if err == nil {
		if wrong := ref.Validate(); wrong != nil {
			err = bad(http.StatusBadRequest, wrong.Error(), "")
		}
	}
	if err != nil {
		req.fail(err)
	}
	return err == nil
}

// fail answers the request as a whole with err.
func (req *request) fail(err error) {
	status := backend.CodeOf(err).HTTPStatus()
	var own *badRequest
	if errors.As(err, &own) {
		status = own.status
	}
	if after := backend.RetryAfter(err); after > 0 {
		req.w.Header().Set("Retry-After", seconds(after))
	}
	if req.protocol != nil {
		req.protocol.fail(req, err)
		return
	}
	if status == http.StatusUnauthorized && req.caller == nil { // else it is a store that wants a login
		req.w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if req.r.Method == http.MethodHead { // whose answer has no body
		req.w.Header().Set(client.ErrorHeader, string(backend.CodeOf(err)))
	}
	req.json(status, client.ErrorAnswer{Error: *client.NewError(err), RequestID: req.id})
}

// seconds is d as Retry-After has it, at least one.
func seconds(d time.Duration) string { return strconv.Itoa(int(math.Ceil(d.Seconds()))) }

// json answers with v, which holds no secret.
func (req *request) json(status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"error":{"code":"internal","message":"the answer cannot be written","retryable":false}}`)
	}
	req.write(status, append(text, '\n'))
}

// write answers with text, which is JSON.
func (req *request) write(status int, text []byte) {
	h := req.w.Header()
	h["Content-Type"] = headerJSON
	h["Cache-Control"] = headerNoStore
	h["Content-Length"] = []string{strconv.Itoa(len(text))}
	req.status = status
	req.leave() // the client may read slowly
	if status != http.StatusOK {
		req.w.WriteHeader(status)
	}
	_, _ = req.w.Write(text) // who went away is told nothing
}

// Shared by all answers: nobody changes them.
var (
	headerJSON    = []string{"application/json"}
	headerNoStore = []string{"no-store"}
)

// read decodes the body, which must be one JSON value of the form of v and nothing else.
func (req *request) read(v any, limit int64) error {
	if err := req.receive(limit); err != nil {
		return err
	}
	return req.decode(v)
}

// receive reads the body into req.body.
func (req *request) receive(limit int64) error {
	if kind, _, err := mime.ParseMediaType(req.r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return bad(http.StatusUnsupportedMediaType, "the body must be JSON", "send Content-Type: application/json")
	}
	if req.r.ContentLength > limit {
		return tooLarge(limit)
	}
	in := http.MaxBytesReader(req.w, req.r.Body, limit)
	buf := bytes.NewBuffer(req.body[:0])
	if n := req.r.ContentLength; n > 0 {
		buf.Grow(int(n) + bytes.MinRead)
	}
	_, err := buf.ReadFrom(in)
	req.body = buf.Bytes()
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return tooLarge(limit)
	case errors.Is(err, context.Canceled):
		return backend.Errorf(backend.CodeCanceled, "the caller went away")
	case err != nil:
		return bad(http.StatusBadRequest, "the body did not arrive whole and in time", "")
	}
	return nil
}

// readSecret is read for a body that holds a secret and whose keys are known: of it no copies are left behind. seen is called
// first, with the names of all keys that the body has; it may be nil.
func (req *request) readSecret(v any, limit int64, seen func(name string) error, known ...string) error {
	if err := req.receive(limit); err != nil {
		return err
	}
	var names map[string]anything
	if err := json.Unmarshal(req.body, &names); err != nil {
		return bad(http.StatusBadRequest, "the body is not of the expected form"+whatIsWrong(err), "see /openapi.json")
	}
	for name := range names {
		if seen != nil {
			if err := seen(name); err != nil {
				return err
			}
		}
		if !slices.Contains(known, name) {
			return bad(http.StatusBadRequest, "the body has an unknown key", "known: "+strings.Join(known, ", "))
		}
	}
	if err := json.Unmarshal(req.body, v); err != nil { // its text may quote a value
		return bad(http.StatusBadRequest, "the body is not of the expected form"+whatIsWrong(err), "see /openapi.json")
	}
	return nil
}

// anything is a JSON value of which nothing is kept.
type anything struct{}

func (*anything) UnmarshalJSON([]byte) error { return nil }

func (req *request) decode(v any) error {
	dec := json.NewDecoder(bytes.NewReader(req.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return bad(http.StatusBadRequest, "the body is not of the expected form"+whatIsWrong(err), "see /openapi.json")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return bad(http.StatusBadRequest, "there is more than one JSON value in the body", "")
	}
	return nil
}

// whatIsWrong says where a body is wrong, without what it holds.
func whatIsWrong(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return ": it is no JSON from byte " + strconv.FormatInt(syntax.Offset, 10)
	case errors.As(err, &kind):
		return ": wrong type at byte " + strconv.FormatInt(kind.Offset, 10)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return ": it ends too early"
	}
	return ": it has an unknown key or a malformed value"
}

func tooLarge(limit int64) error {
	return bad(http.StatusRequestEntityTooLarge, "the body is larger than "+strconv.FormatInt(limit, 10)+" bytes", "send several requests")
}
