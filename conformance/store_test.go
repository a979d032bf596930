package conformance_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
)

// store is a server over HTTP that keeps its secrets in an adapters/memory, and can do everything that the suite knows: it
// leases, pages, hangs and refuses.
type store struct {
	mem    *memory.Backend
	limits conformance.Limits
	http   *httptest.Server
	reads  atomic.Int64

	mu      sync.Mutex
	changed chan struct{}
	faults  map[conformance.Fault]chan struct{} // each closed when it is undone
	leases  map[string]*leased
}

type leased struct {
	ttl, longest time.Duration
	given        time.Time
	over         bool
}

// ask is a request of the wire.
type ask struct {
	Op       string                `json:"op"`
	Requests []backend.Request     `json:"requests"`
	Since    []string              `json:"since,omitempty"`
	Cond     backend.Condition     `json:"cond"`
	Fields   map[string]wireSecret `json:"fields,omitempty"`
	Plain    []byte                `json:"plain,omitempty"`
	IsPlain  bool                  `json:"is_plain"`
	Lease    string                `json:"lease,omitempty"`
	Duration time.Duration         `json:"duration,omitempty"`
	After    string                `json:"after,omitempty"`
}

// answer is a response of the wire, one for each request.
type answer struct {
	Code     backend.Code          `json:"code,omitempty"`
	Wait     time.Duration         `json:"wait,omitempty"`
	Version  string                `json:"version,omitempty"`
	Plain    []byte                `json:"plain,omitempty"`
	IsPlain  bool                  `json:"is_plain,omitempty"`
	Fields   map[string]wireSecret `json:"fields,omitempty"`
	Lease    *backend.Lease        `json:"lease,omitempty"`
	Ends     time.Time             `json:"ends,omitzero"` // by the store's clock
	IDs      []string              `json:"ids,omitempty"`
	States   []string              `json:"states,omitempty"`
	Strength backend.Strength      `json:"strength,omitempty"`
}

type wireSecret struct {
	Text []byte `json:"text"`
	JSON bool   `json:"json,omitempty"`
}

const storeBatch = 20

func newStore(t testing.TB, limits conformance.Limits) *store {
	mem, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s := &store{
		mem: mem, limits: limits, changed: make(chan struct{}),
		faults: make(map[conformance.Fault]chan struct{}), leases: make(map[string]*leased),
	}
	s.http = httptest.NewServer(s)
	t.Cleanup(func() {
		s.mu.Lock()
		for _, undone := range s.faults {
			close(undone)
		}
		clear(s.faults)
		s.mu.Unlock()
		s.http.CloseClientConnections()
		s.http.Close()
	})
	return s
}

func (s *store) address() string { return s.http.Listener.Addr().String() }

func (s *store) fault(f conformance.Fault) (undo func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Kind == conformance.FaultExpire {
		for _, l := range s.leases {
			l.over = true
		}
		return func() {}
	}
	undone := make(chan struct{})
	s.faults[f] = undone
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.faults[f] == undone {
			delete(s.faults, f)
			close(undone)
		}
	}
}

// broken gives the answer to a request for id under the faults that there are. It hangs under FaultHang.
func (s *store) broken(ctx context.Context, id string) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f, undone := range s.faults {
		if f.ID != "" && f.ID != id {
			continue
		}
		switch f.Kind {
		case conformance.FaultHang:
			s.mu.Unlock()
			select {
			case <-undone:
			case <-ctx.Done():
			}
			s.mu.Lock()
			return nil
		case conformance.FaultDeny:
			return &answer{Code: backend.CodeDenied}
		case conformance.FaultLock:
			return &answer{Code: backend.CodeLocked}
		case conformance.FaultThrottle:
			return &answer{Code: backend.CodeThrottled, Wait: f.RetryAfter}
		case conformance.FaultDisappear:
			return &answer{Code: backend.CodeUnavailable}
		case conformance.FaultLogout:
			return &answer{Code: backend.CodeAuthRequired}
		}
	}
	return nil
}

func (s *store) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.faults {
		if f.Kind == conformance.FaultSkew {
			return time.Now().Add(time.Hour)
		}
	}
	return time.Now()
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var a ask
	if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var answers []answer
	if len(a.Requests) == 0 {
		a.Requests = make([]backend.Request, 1)
	}
	if a.Op == "state" || a.Op == "wait" {
		answers = []answer{s.wait(r.Context(), a)}
	} else {
		for _, req := range a.Requests {
			if b := s.broken(r.Context(), req.ID); b != nil {
				answers = append(answers, *b)
			} else {
				answers = append(answers, s.answer(r.Context(), a, req))
			}
		}
	}
	w.Header().Set("X-Store", "yes")
	body, err := json.Marshal(answers)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}

func (s *store) answer(ctx context.Context, a ask, req backend.Request) answer {
	switch a.Op {
	case "get":
		return s.get(ctx, req)
	case "probe":
		return answer{}
	case "check":
		version, err := s.mem.CurrentVersion(ctx, req)
		return answer{Version: version, Code: code(err)}
	case "put":
		v := backend.Value{}
		if a.IsPlain {
			v.Secret = backend.NewSecret(a.Plain)
		} else {
			v.Fields = make(map[string]backend.Secret)
			for name, f := range a.Fields {
				v.Fields[name] = fromWire(f)
			}
		}
		if !s.holds(a.Plain, a.IsPlain) || req.ID == "" {
			return answer{Code: backend.CodeUnsupported}
		}
		version, err := s.put(ctx, req, v, a.Cond)
		return answer{Version: version, Code: code(err)}
	case "delete":
		return answer{Code: code(s.delete(ctx, req, a.Cond))}
	case "list":
		return s.list(ctx, req.ID, a.After)
	case "renew", "revoke":
		return s.lease(a)
	}
	return answer{Code: backend.CodeUsage}
}

func (s *store) get(ctx context.Context, req backend.Request) answer {
	switch req.Version {
	case "stage:current":
		req.Version = ""
	case "stage:previous":
		n, _ := s.mem.CurrentVersion(ctx, backend.Request{ID: req.ID})
		before, _ := strconv.Atoi(n)
		req.Version = strconv.Itoa(before - 1)
	}
	c, err := s.mem.Get(ctx, req)
	if err != nil {
		return answer{Code: code(err)}
	}
	s.reads.Add(1)
	out := answer{Version: c.Version, IsPlain: !c.Secret.IsZero(), Plain: c.Secret.Reveal()}
	if !out.IsPlain {
		out.Fields = make(map[string]wireSecret)
		for name, f := range c.Fields {
			out.Fields[name] = toWire(f)
		}
	}
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.leases[req.ID]; l != nil {
		out.Lease = &backend.Lease{ID: "lease/" + req.ID, Duration: l.ttl, Renewable: true}
		out.Ends = now.Add(l.ttl)
	}
	return out
}

func (s *store) lease(a ask) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.leases[strings.TrimPrefix(a.Lease, "lease/")]
	switch {
	case l == nil || l.over && a.Op == "renew":
		return answer{Code: backend.CodeExpired}
	case a.Op == "revoke":
		l.over = true
		return answer{}
	}
	d := a.Duration
	if d <= 0 {
		d = l.ttl
	}
	d = min(d, l.longest-time.Since(l.given))
	return answer{Lease: &backend.Lease{ID: a.Lease, Duration: d, Renewable: true}}
}

func (s *store) list(ctx context.Context, prefix, after string) answer {
	var ids []string
	for e, err := range s.mem.List(ctx, prefix) {
		if err != nil {
			return answer{Code: code(err)}
		}
		ids = append(ids, e.ID)
	}
	i, found := slices.BinarySearch(ids, after)
	if found {
		i++
	}
	ids = ids[i:]
	return answer{IDs: ids[:min(len(ids), s.limits.Page)]}
}

// wait gives the states of the secrets, for "wait" when one of them is another than since.
func (s *store) wait(ctx context.Context, a ask) answer {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		states := make([]string, len(a.Requests))
		for i, req := range a.Requests {
			states[i], _ = s.mem.CurrentVersion(ctx, req)
		}
		if a.Op == "state" || !slices.Equal(states, a.Since) {
			return answer{States: states}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return answer{Code: backend.CodeUnavailable}
		}
	}
}

func (s *store) holds(v []byte, plain bool) bool {
	l := s.limits
	return (l.MaxValue == 0 || int64(len(v)) <= l.MaxValue) && (!l.NoEmpty || !plain || len(v) > 0) &&
		(!l.NoNUL || !strings.Contains(string(v), "\x00")) && (!l.Text || utf8.Valid(v))
}

func (s *store) put(ctx context.Context, req backend.Request, v backend.Value, cond backend.Condition) (string, error) {
	defer s.tell()
	return s.mem.Put(ctx, req, v, cond)
}

func (s *store) delete(ctx context.Context, req backend.Request, cond backend.Condition) error {
	defer s.tell()
	return s.mem.Delete(ctx, req, cond)
}

func (s *store) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

func code(err error) backend.Code {
	if err == nil {
		return ""
	}
	return backend.CodeOf(err)
}

func toWire(s backend.Secret) wireSecret { return wireSecret{s.Reveal(), s.IsJSON()} }

func fromWire(w wireSecret) backend.Secret {
	if w.JSON {
		return backend.NewJSONSecret(w.Text)
	}
	return backend.NewSecret(w.Text)
}

// harness is that of a reference over s, which break may break.
func (s *store) harness(plain bool, break_ func(*reference)) conformance.Harness {
	ctx := context.Background()
	open := func(t conformance.T, d *conformance.Dialer, tls bool) backend.Backend {
		r := newReference(d, s.address(), tls, s.limits, plain)
		if break_ != nil {
			break_(r)
		}
		return r
	}
	put := func(t conformance.T, id string, v backend.Value) {
		if _, err := s.put(ctx, backend.Request{ID: id}, v, backend.Condition{}); err != nil {
			t.Fatalf("putting: %v", err)
		}
	}
	h := conformance.Harness{
		Open:       func(t conformance.T, d *conformance.Dialer) backend.Backend { return open(t, d, false) },
		OpenTLS:    func(t conformance.T, d *conformance.Dialer) backend.Backend { return open(t, d, true) },
		Put:        put,
		Delete:     func(_ conformance.T, id string) { _ = s.delete(ctx, backend.Request{ID: id}, backend.Condition{}) },
		Fault:      func(_ conformance.T, f conformance.Fault) func() { return s.fault(f) },
		Reads:      func(conformance.T) int { return int(s.reads.Load()) },
		InvalidIDs: []string{"invalid:1", "invalid:2"},
		Limits:     s.limits,
		CaseTime:   4 * time.Second,
		Lease: func(t conformance.T, ttl, longest time.Duration) string {
			id := "leased-" + strconv.FormatInt(time.Now().UnixNano(), 36)
			put(t, id, backend.Value{Secret: backend.NewSecretString("a leased password")})
			s.mu.Lock()
			defer s.mu.Unlock()
			s.leases[id] = &leased{ttl: ttl, longest: longest, given: time.Now()}
			return id
		},
	}
	if !plain {
		h.Advance = func(t conformance.T, id string, next backend.Value) conformance.Versions {
			before, _ := s.mem.CurrentVersion(ctx, backend.Request{ID: id})
			put(t, id, next)
			after, _ := s.mem.CurrentVersion(ctx, backend.Request{ID: id})
			return conformance.Versions{Previous: before, Current: after, Missing: "999", PreviousStage: "stage:previous", CurrentStage: "stage:current"}
		}
	}
	return h
}

var errClosed = backend.Errorf(backend.CodeUnavailable, "the backend is closed")
