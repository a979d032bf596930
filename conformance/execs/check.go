package execs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
	"github.com/credresolve/credresolve/conformance/vectors"
)

// Check runs every vector against p, one after the other. The error says what is wrong with p itself; the Report is complete
// whatever the program does, and skips what is left when ctx ends.
func Check(ctx context.Context, p Program) (conformance.Report, error) {
	if err := p.check(); err != nil {
		return conformance.Report{}, err
	}
	if !filepath.IsAbs(p.Command) {
		return conformance.Report{}, backend.Errorf(backend.CodeInvalidConfig, "the path of the program is not absolute")
	}
	all, err := vectors.Load()
	if err != nil {
		return conformance.Report{}, backend.Errorf(backend.CodeInternal, "the vectors cannot be read")
	}
	return checker{p, runTime, all}.check(ctx), nil
}

// runTime bounds one run of the program.
const runTime = 10 * time.Second

const endedOutside = "needs time: the run was ended from outside"

// checker is one run of the vectors.
type checker struct {
	Program
	runTime time.Duration
	vectors []vectors.Vector
}

func (p checker) check(ctx context.Context) conformance.Report {
	report := conformance.Report{Version: conformance.ReportVersion}
	outcomes := make(map[string]conformance.Outcome)
	for _, v := range p.vectors {
		start := time.Now()
		r := conformance.Result{Name: v.Name, Rule: v.Rule, Capability: v.Capability, Outcome: conformance.Pass}
		for _, need := range v.Needs {
			if o := outcomes[need]; o == conformance.Fail || o == conformance.Blocked {
				r.Outcome = conformance.Blocked
				r.Reasons = append(r.Reasons, fmt.Sprintf("needs %s, which failed or is blocked", need))
			}
		}
		lacks := p.lacks(v.Roles(), valuesOf(v))
		switch {
		case r.Outcome == conformance.Blocked:
		case ctx.Err() != nil:
			r.Outcome, r.Reasons = conformance.Skip, []string{endedOutside}
		case lacks != "":
			r.Outcome, r.Reasons = conformance.Skip, []string{lacks}
		case v.Send.Signal != "" && !canSignal:
			r.Outcome, r.Reasons = conformance.Skip, []string{"needs signals: run on a Unix system"}
		default:
			switch r.Reasons = p.try(ctx, v); {
			case len(r.Reasons) == 0:
			case ctx.Err() != nil: // what was seen may be the end of the run, not a fault of the program
				r.Outcome, r.Reasons = conformance.Skip, []string{endedOutside}
			default:
				r.Outcome = conformance.Fail
			}
		}
		r.Elapsed = time.Since(start)
		outcomes[v.Name] = r.Outcome
		report.Results = append(report.Results, r)
	}
	return report
}

func valuesOf(v vectors.Vector) []string {
	var roles []string
	for _, a := range v.Expect.Answers {
		if a.Value != "" {
			roles = append(roles, a.Value)
		}
	}
	return roles
}

// try runs one vector and gives what was wrong.
func (p checker) try(ctx context.Context, v vectors.Vector) []string {
	ids := p.ids(v.Send.IDs)
	o := order{command: p.Command, args: p.Args, env: p.environment(), stdin: stdin(v.Send, ids), hold: v.Send.Hold, terminate: v.Send.Signal != "", alone: v.Expect.Alone, limit: p.runTime}
	n := max(1, v.Send.AtOnce)
	faults := make([][]string, n)
	var runs sync.WaitGroup
	for i := range n {
		runs.Go(func() {
			for range 3 { // a busy machine may delay one run
				out := o.run(ctx)
				faults[i] = p.judge(v, ids, out)
				out.wipe()
				if v.Expect.WithinMS == 0 || len(faults[i]) == 0 || out.timedOut {
					return
				}
			}
		})
	}
	runs.Wait()
	return slices.Compact(slices.Concat(faults...))
}

func (p Program) ids(from []vectors.ID) []string {
	var ids []string
	for _, id := range from {
		switch {
		case id.Known != "":
			ids = append(ids, id.Before+p.Known[id.Known].ID+id.After)
		case id.Text != nil:
			ids = append(ids, *id.Text)
		case id.Numbered > 0:
			for i := range id.Numbered {
				ids = append(ids, id.Repeat+"-"+strconv.Itoa(i+1))
			}
		default:
			ids = append(ids, strings.Repeat(id.Repeat, id.Times))
		}
	}
	return ids
}

// stdin gives what the program reads.
func stdin(s vectors.Send, ids []string) []byte {
	if s.Stdin != nil {
		return []byte(*s.Stdin)
	}
	version := s.ProtocolVersion
	if version == 0 {
		version = 1
	}
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = quote(id, s.Escape)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `{"protocolVersion":%d,"provider":"conformance","ids":[%s]`, version, strings.Join(texts, ","))
	for name, value := range s.Extra {
		fmt.Fprintf(&out, `,%s:%s`, quote(name, false), value)
	}
	out.WriteByte('}')
	text := out.Bytes()
	if s.Pretty {
		var pretty bytes.Buffer
		pretty.WriteString(" \r\n\t")
		if json.Indent(&pretty, text, "", "  ") == nil {
			pretty.WriteString("\n\n")
			text = pretty.Bytes()
		}
	}
	return text[:max(0, len(text)-s.Cut)]
}

func quote(s string, escape bool) string {
	if escape {
		var out strings.Builder
		out.WriteByte('"')
		for _, unit := range utf16.Encode([]rune(s)) {
			fmt.Fprintf(&out, `\u%04x`, unit)
		}
		out.WriteByte('"')
		return out.String()
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s)
	return strings.TrimSuffix(out.String(), "\n")
}

// response is what the program answered.
type response struct {
	Version json.RawMessage            `json:"protocolVersion"`
	Values  map[string]json.RawMessage `json:"values"`
	Errors  map[string]json.RawMessage `json:"errors"`
}

// judge gives what was wrong with a run.
func (p checker) judge(v vectors.Vector, ids []string, out outcome) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	e := v.Expect
	switch {
	case out.notStarted != nil:
		fault("expected the program to start, saw that %s", why(out.notStarted))
		return faults
	case out.timedOut:
		fault("expected the program to end within %v, saw it go on", p.runTime)
		return faults
	case out.flooded:
		fault("expected less than %d bytes of output, saw more", mostOutput)
		return faults
	}
	switch ended := "exit status " + strconv.Itoa(out.exit); {
	case e.Exit == "zero" && out.exit != 0, e.Exit == "nonzero" && out.exit == 0:
		if out.exit < 0 {
			ended = "an end by a signal"
		}
		fault("expected a %s exit status, saw %s", strings.Replace(e.Exit, "nonzero", "non-zero", 1), ended)
		return faults
	}
	if limit := time.Duration(e.WithinMS) * time.Millisecond; limit > 0 && out.took > limit {
		fault("expected the end within %v, saw it after %v", limit, out.took.Round(time.Millisecond))
	}
	if n := int64(len(out.stdout) + len(out.stderr)); e.MaxOutput > 0 && n > e.MaxOutput {
		fault("expected at most %d bytes of output, saw %d", e.MaxOutput, n)
	}
	if e.Alone && out.left {
		fault("expected nothing of the program's process group after its end, saw a process")
	}
	quiet := func(where, text string) {
		if form := conformance.Leak(text, p.secrets()...); form != "" {
			fault("expected no known value in %s, saw one, %s", where, form)
		}
	}
	switch e.Quiet {
	case "stdout":
		quiet("standard output", string(out.stdout))
	case "stderr":
		quiet("standard error", string(out.stderr))
	}
	if e.Answers == nil && !e.OnlyAsked && e.Values == nil && e.Errors == nil && e.Stdout == "" && e.Quiet != "errors" {
		return faults
	}
	r, problem := parse(out.stdout)
	if problem != "" {
		fault("expected one JSON object with protocolVersion 1 and an object values, saw %s", problem)
		return faults
	}
	defer func() {
		for _, value := range r.Values {
			clear(value)
		}
	}()
	if e.Quiet == "errors" {
		for _, text := range r.Errors {
			quiet("the errors of the response", string(text)+" "+unescaped(text))
		}
	}
	if e.OnlyAsked {
		for id := range r.Values {
			if !slices.Contains(ids, id) {
				fault("expected no value that was not asked for, saw one of an id of %d bytes", len(id))
			}
		}
	}
	if e.Values != nil || e.Errors != nil {
		values, failures := 0, 0
		for _, id := range ids {
			if _, failed := r.Errors[id]; failed {
				failures++
			} else if _, ok := r.Values[id]; ok {
				values++
			}
		}
		if e.Values != nil && values != *e.Values || e.Errors != nil && failures != *e.Errors {
			fault("of %d ids: expected %s values and %s errors, saw %d and %d", len(ids), count(e.Values), count(e.Errors), values, failures)
		}
	}
	for i, want := range e.Answers {
		if seen := p.answered(r, ids[i], want); seen != "" {
			fault("id %s: expected %s, saw %s", name(ids[i]), wanted(want), seen)
		}
	}
	return faults
}

// parse reads a response as the exec kind does, and says what is wrong with it.
func parse(text []byte) (r response, problem string) {
	text = bytes.TrimSpace(text)
	switch {
	case len(text) == 0:
		return r, "nothing"
	case !utf8.Valid(text):
		return r, "what is not UTF-8"
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	var first json.RawMessage
	if dec.Decode(&first) != nil {
		return r, "what is not JSON"
	}
	if _, err := dec.Token(); err != io.EOF {
		return r, "more than one JSON value"
	}
	var version float64
	switch {
	case first[0] != '{':
		return r, "no object"
	case json.Unmarshal(first, &r) != nil:
		return r, "an object of another form"
	case json.Unmarshal(r.Version, &version) != nil || version != 1:
		return r, "another protocolVersion"
	case r.Values == nil:
		return r, "no values"
	}
	return r, ""
}

// answered says what the answer to id is, when it is not what was wanted.
func (p Program) answered(r response, id string, want vectors.Answer) string {
	failure, failed := r.Errors[id]
	value, ok := r.Values[id]
	var e struct {
		Code       json.RawMessage `json:"code"`
		RetryAfter json.RawMessage `json:"retryAfterMs"`
	}
	_ = json.Unmarshal(failure, &e)
	code := codeOf(e.Code)
	switch {
	case !failed && !ok:
		return "no answer"
	case want.Value != "" && failed, want.Value == "" && failed && !slices.Contains(want.Codes, "any") && !slices.Contains(want.Codes, code):
		if code == "" {
			return "an error without a code"
		}
		return "the error " + code
	case want.Value == "" && !failed:
		return "a value"
	case want.Value != "" && !same(value, p.Known[want.Value].Value):
		return "another value"
	}
	if want.RetryAfter {
		var ms float64
		if json.Unmarshal(e.RetryAfter, &ms) != nil || ms <= 0 {
			return "the error without a positive number retryAfterMs"
		}
	}
	return ""
}

var codeForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,39}$`) })

// codeOf gives a code that may be shown.
func codeOf(text json.RawMessage) string {
	var code string
	if json.Unmarshal(text, &code) != nil || code == "" {
		return ""
	}
	if !codeForm().MatchString(code) {
		return "of a code that is no upper case word"
	}
	return code
}

// same compares JSON values; numbers by their text.
func same(a, b json.RawMessage) bool {
	decode := func(text json.RawMessage) (v any, err error) {
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		err = dec.Decode(&v)
		return v, err
	}
	x, err1 := decode(a)
	y, err2 := decode(b)
	return err1 == nil && err2 == nil && reflect.DeepEqual(x, y)
}

// unescaped gives the texts in a JSON value without their escapes.
func unescaped(text json.RawMessage) string {
	var v any
	_ = json.Unmarshal(text, &v)
	return fmt.Sprint(v)
}

func why(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "it, or the interpreter that its first line names, does not exist"
	case errors.Is(err, fs.ErrPermission):
		return "it may not be executed"
	case errors.Is(err, syscall.ENOEXEC):
		return "it is no program of this system, and has no first line that names an interpreter"
	}
	return "the system refused"
}

func wanted(a vectors.Answer) string {
	switch {
	case a.Value != "":
		return "its value"
	case slices.Contains(a.Codes, "any"):
		return "an error"
	case a.RetryAfter:
		return "the error " + strings.Join(a.Codes, " or ") + " with retryAfterMs"
	}
	return "the error " + strings.Join(a.Codes, " or ")
}

func name(id string) string {
	if len(id) > 40 {
		return fmt.Sprintf("%+q… of %d bytes", id[:40], len(id))
	}
	return fmt.Sprintf("%+q", id)
}

func count(n *int) string {
	if n == nil {
		return "any"
	}
	return strconv.Itoa(*n)
}
