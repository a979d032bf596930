package openclawexec

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/execproto"
	"github.com/credresolve/credresolve/resolver"
	"github.com/credresolve/credresolve/secretref"
)

// DefaultMaxOutput is how large a response is where nobody says otherwise. The client takes 1 MiB of standard output and standard
// error together, unless it is configured to take less or more.
const DefaultMaxOutput = 1<<20 - MaxMessages

// MaxMessages is how many bytes of messages may accompany a response.
const MaxMessages = 16 << 10

// Service answers requests.
type Service struct {
	Names Names
	// Resolve gives an outcome for each ref, in their order. It returns when its context is done, with the outcomes that
	// are there by then.
	Resolve func(context.Context, []credref.Ref) []resolver.Outcome
	// MaxOutput bounds the response in bytes. Zero: DefaultMaxOutput. The largest values give way, as errors of their ids,
	// since the client drops a response that is larger, as a whole.
	MaxOutput int
}

// Failure is an id that has no value. Err holds no secret.
type Failure struct {
	ID  string
	Err error
}

// Answer is what is said to a request.
type Answer struct {
	// Response goes to standard output; who writes it should zero it. It is nil where Err is not.
	Response []byte
	// Failures are the ids that have no value, in the order asked.
	Failures []Failure
	// Err is why no id has an outcome of its own: all failed for reasons that are not theirs, such as a store that is
	// away. The client then takes the whole provider for unavailable, and asks once where it would ask again for each id.
	Err error
}

// Answer has what req asks for resolved: refs that several ids stand for, once.
func (s Service) Answer(ctx context.Context, req execproto.Request) Answer {
	replies := make([]execproto.Reply, len(req.IDs))
	errs := make([]error, len(req.IDs))
	at := make(map[credref.Ref][]int)
	var refs []credref.Ref
	for i, id := range req.IDs {
		replies[i].ID = id
		ref, err := s.Names.Ref(id)
		if err != nil {
			errs[i] = err
			continue
		}
		if at[ref] == nil {
			refs = append(refs, ref)
		}
		at[ref] = append(at[ref], i)
	}
	if len(refs) > 0 {
		for _, o := range s.Resolve(ctx, refs) {
			for _, i := range at[o.Ref] {
				if errs[i] = o.Err; o.Err == nil {
					replies[i].Value, errs[i] = text(o.Value.Secret())
				}
			}
		}
	}
	s.fit(replies, errs)
	a := Answer{}
	outage := len(req.IDs) > 0
	for i, err := range errs {
		if err == nil {
			outage = false
			continue
		}
		a.Failures = append(a.Failures, Failure{req.IDs[i], err})
		replies[i].Value = backend.Secret{}
		replies[i].Code = code(err)
		if e := (*backend.Error)(nil); errors.As(err, &e) {
			replies[i].RetryAfter = e.RetryAfter
		}
		outage = outage && notItsOwn[backend.CodeOf(err)]
	}
	if outage {
		a.Err = a.Failures[0].Err
		return a
	}
	a.Response = execproto.EncodeResponse(replies)
	return a
}

// notItsOwn are the codes of failures that say nothing of the id that was asked for.
var notItsOwn = map[backend.Code]bool{
	backend.CodeUnavailable: true, backend.CodeThrottled: true, backend.CodeTimeout: true, backend.CodeCanceled: true,
	backend.CodeAuthRequired: true, backend.CodeLocked: true,
}

// code is what the client is told of err: NOT_FOUND, which it shows, or one that it counts as a failure of the provider.
func code(err error) string { return strings.ToUpper(string(backend.CodeOf(err))) }

// The errors of values that the client would take and not be able to use.
var (
	errNotText     = &backend.Error{Code: backend.CodeUnsupported, Reason: "the value is not UTF-8, and OpenClaw takes text alone", Remedy: "store it as base64"}
	errBlank       = backend.Errorf(backend.CodeUnsupported, "the value is empty, white space or null, which OpenClaw refuses")
	errPlaceholder = &backend.Error{Code: backend.CodeUnsupported, Reason: "the value is a placeholder for a redacted secret", Remedy: "store the secret itself"}
	errTooLarge    = &backend.Error{Code: backend.CodeUnsupported, Reason: "the response would be larger than OpenClaw takes", Remedy: "raise maxOutputBytes in OpenClaw and --max-output here"}
	errNothing     = &backend.Error{Code: backend.CodeFieldRequired, Reason: "the secret has several fields", Remedy: "name one behind a #"}
)

// text gives value if the client can use it: as the text that it is, of another JSON value the compact JSON text.
func text(value backend.Secret) (backend.Secret, error) {
	if value.IsZero() {
		return value, errNothing
	}
	isNull := false
	err := value.Use(func(b []byte) error {
		if !utf8.Valid(b) {
			return errNotText
		}
		isNull = value.IsJSON() && string(b) == "null"
		return nil
	})
	if err != nil || value.IsJSON() && !isNull {
		return value, err
	}
	var refused *secretref.ValueError
	if errors.As(secretref.CheckValue("", value, secretref.String), &refused) {
		if refused.Placeholder {
			return value, errPlaceholder
		}
		return value, errBlank
	}
	return value, nil
}

// fit makes errors of the largest values until the response is no larger than it may be.
func (s Service) fit(replies []execproto.Reply, errs []error) {
	room := cmp.Or(s.MaxOutput, DefaultMaxOutput)
	var large []int
	for i := range replies {
		room -= length(&replies[i])
		if errs[i] == nil {
			large = append(large, i)
		}
	}
	if room >= 0 {
		return
	}
	slices.SortStableFunc(large, func(a, b int) int { return cmp.Compare(replies[b].Value.Len(), replies[a].Value.Len()) })
	for _, i := range large {
		if room >= 0 {
			return
		}
		room += length(&replies[i])
		errs[i] = errTooLarge
		replies[i].Value = backend.Secret{}
		room -= length(&replies[i])
	}
}

// length is how many bytes a reply takes in a response, those of an error at the most.
func length(r *execproto.Reply) int {
	n := len(r.ID) + 64
	_ = r.Value.Use(func(b []byte) error {
		for _, c := range b {
			switch {
			case c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t':
				n += 2
			case c < ' ':
				n += 6
			case c == 0xe2: // perhaps U+2028, which is escaped
				n += 4
			default:
				n++
			}
		}
		return nil
	})
	return n
}
