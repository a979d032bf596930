package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// Close ends what is under way at once, and nothing is answered after it.
func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	asked := make(chan bool, 10)
	c := accept(t, func(_ int, conn net.Conn) {
		asked <- true
		_, _ = io.Copy(io.Discard, conn)
	})
	resolved := make(chan error, 1)
	go func() {
		_, err := c.Resolve(t.Context(), refA)
		resolved <- err
	}()
	events := c.Watch(t.Context(), refA)
	<-asked
	<-asked
	began := time.Now()
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	err := <-resolved
	failed(t, err, backend.CodeUnavailable)
	if errors.Is(err, ErrUnreachable) {
		t.Error("who closed the client is told that no sidecar is there")
	}
	if _, open := <-events; open {
		t.Error("there is an event")
	}
	_, err = c.Resolve(t.Context(), refA)
	failed(t, err, backend.CodeUnavailable)
	if _, open := <-c.Watch(t.Context(), refA); open {
		t.Error("there is an event after Close")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if len(asked) > 0 {
		t.Error("the sidecar was asked after Close")
	}
}

// A session that has ended is replaced by that of the token's next revision.
func TestRefusedTokenIsAskedForAnew(t *testing.T) {
	t.Parallel()
	const value = `{"results":[{"ref":{"provider":"app","id":"a"},"value":"v-c4nary"}]}`
	for name, tt := range map[string]struct {
		header   string // that of an answer which refuses the token
		renewed  bool   // there is another token
		requests int32
		rejected int32
		code     backend.Code
	}{
		"a newer one":            {"Bearer", true, 2, 1, backend.CodeOK},
		"none":                   {"Bearer", false, 1, 1, backend.CodeAuthRequired},
		"not that of the caller": {"", true, 1, 0, backend.CodeAuthRequired},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests, rejected atomic.Int32
			socket := serve(t, func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				if r.Header.Get("Authorization") == "Bearer 2-c4nary" {
					answer(200, value)(w, r)
					return
				}
				if tt.header != "" {
					w.Header().Set("WWW-Authenticate", tt.header)
				}
				answer(401, `{"error":{"code":"auth_required","message":"m"}}`)(w, r)
			}).config.Socket
			token := backend.NewSource(func(context.Context) (backend.Secret, string, error) {
				n := 1
				if tt.renewed && rejected.Load() > 0 {
					n = 2
				}
				return backend.NewSecretString(fmt.Sprintf("%d-c4nary", n)), fmt.Sprint(n), nil
			}, func(revision string) {
				if rejected.Add(1); revision != "1" {
					t.Errorf("revision %s is rejected", revision)
				}
			})
			c := dial(t, Config{Socket: socket, Token: token})
			_, err := c.Resolve(t.Context(), refA)
			failed(t, err, tt.code)
			if requests.Load() != tt.requests || rejected.Load() != tt.rejected {
				t.Errorf("%d requests, %d tokens rejected, want %d, %d", requests.Load(), rejected.Load(), tt.requests, tt.rejected)
			}
		})
	}
}

// A sidecar with lower limits gets what it takes.
func TestSidecarWithLowerLimits(t *testing.T) {
	t.Parallel()
	for name, most := range map[string]int{"some": 40, "one": 1, "none": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				var req ResolveRequest
				if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
					t.Error("no request of the form")
				}
				if len(req.Refs) > most {
					answer(413, `{"error":{"code":"usage","message":"too many refs"}}`)(w, r)
					return
				}
				var out ResolveAnswer
				for _, q := range req.Refs {
					out.Results = append(out.Results, Result{Ref: q.Ref, Value: &Text{backend.NewSecretString(q.ID)}})
				}
				_ = json.NewEncoder(w).Encode(out)
			})
			refs := make([]credref.Ref, 130)
			for i := range refs {
				refs[i] = credref.Ref{Provider: "app", ID: fmt.Sprint(i)}
			}
			for i, o := range c.ResolveAll(t.Context(), refs) {
				switch {
				case o.Ref != refs[i]:
					t.Fatalf("outcome %d is of another ref", i)
				case most == 0:
					failed(t, o.Err, backend.CodeUsage)
				case o.Err != nil || string(o.Value.Secret().Reveal()) != refs[i].ID:
					t.Fatalf("outcome %d: %v", i, o.Err)
				}
			}
		})
	}
}

// Where a service refused the newest value, that is the answer, as a resolver has it.
func TestReportOfTheNewestValue(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/report" {
			answer(200, `{"ref":{"provider":"app","id":"a"},"revision":"r","unchanged":true}`)(w, r)
			return
		}
		answer(200, `{"results":[{"ref":{"provider":"app","id":"a"},"revision":"r","value":"v-c4nary"}]}`)(w, r)
	})
	v, err := c.Report(t.Context(), refA, "r")
	failed(t, err, backend.CodeOK)
	if v == nil || v.Revision() != "r" || string(v.Secret().Reveal()) != "v-c4nary" {
		t.Error("it is another value")
	}
	_, err = c.Report(t.Context(), refB, "r")
	failed(t, err, backend.CodeInternal)
}

// Whether the sidecar or the store failed is told apart.
func TestRequestThatFailsAsAWhole(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status int
		text   string
		whole  bool
	}{
		"overload":  {503, `{"error":{"code":"unavailable","message":"m"}}`, true},
		"garbage":   {200, "v-c4nary", true},
		"the store": {200, `{"results":[{"ref":{"provider":"app","id":"a"},"error":{"code":"unavailable","message":"m"}}]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, answer(tt.status, tt.text))
			_, err := c.Resolve(t.Context(), refA)
			if err == nil || errors.Is(err, ErrRequest) != tt.whole {
				t.Error(err)
			}
		})
	}
	c := accept(t, func(_ int, conn net.Conn) { _ = conn.Close() })
	if _, err := c.Resolve(t.Context(), refA); !errors.Is(err, ErrRequest) || !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Resolve(ctx, refA); errors.Is(err, ErrRequest) {
		t.Error("who gave up is told that the request failed")
	}
}
