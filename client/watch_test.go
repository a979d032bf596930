package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// transport answers requests in the process, so that time can be that of a bubble. The writer that a handler gets ends with
// the request.
type transport func(n int, r *http.Request, out *io.PipeWriter) *http.Response

type bubble struct {
	n      atomic.Int32
	handle transport
}

func (b *bubble) RoundTrip(r *http.Request) (*http.Response, error) {
	in, out := io.Pipe()
	context.AfterFunc(r.Context(), func() { _ = out.CloseWithError(r.Context().Err()) })
	res := b.handle(int(b.n.Add(1)), r, out)
	if res == nil {
		return nil, errors.New("v-c4nary: connection refused")
	}
	res.Request, res.Body = r, in
	return res, nil
}

// inside gives a client whose requests handle answers, for use in a bubble.
func inside(t *testing.T, handle transport) (*Client, *bubble) {
	t.Helper()
	c := dial(t, Config{Socket: "/nowhere"})
	b := &bubble{handle: handle}
	c.http.Transport = b
	return c, b
}

func streaming() *http.Response {
	return &http.Response{StatusCode: 200, ContentLength: -1, Header: http.Header{"Content-Type": {"text/event-stream"}}}
}

func refusing(status int) *http.Response {
	return &http.Response{StatusCode: status, ContentLength: -1, Header: http.Header{"Content-Type": {"application/json"}}}
}

func event(id string, kind resolver.EventKind, revision string) string {
	return fmt.Sprintf("event: %s\nid: %s\ndata: {\"ref\":{\"provider\":\"app\",\"id\":\"a\"},\"kind\":%q,\"time\":\"2030-01-02T03:04:05Z\",\"revision\":%q}\n\n", kind, id, kind, revision)
}

func TestWatchGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var last []string
		c, b := inside(t, func(n int, r *http.Request, out *io.PipeWriter) *http.Response {
			last = append(last, r.Header.Get("Last-Event-Id"))
			if r.Method != http.MethodGet || r.URL.Path != "/v1/watch" || r.URL.Query().Get("ref") != "cred://app/a" || r.Header.Get(RequestHeader) == "" {
				t.Errorf("it asks for %s %s", r.Method, r.URL)
			}
			if n == 3 || n == 4 {
				return nil // away
			}
			go func() {
				_, _ = io.WriteString(out, ": hello\n\n:\n\n"+event(fmt.Sprint("id", n), resolver.EventRotated, fmt.Sprint("r", n)))
				_, _ = io.WriteString(out, "id: lost\ndata: {\"ref\":") // cut off
				if n < 6 {
					_ = out.Close()
				}
			}()
			return streaming()
		})
		ctx, cancel := context.WithCancel(t.Context())
		events := c.Watch(ctx, refA)
		for _, want := range []string{"r1", "r2", "r5", "r6"} {
			if ev := <-events; ev.Revision != want || ev.Ref != refA || ev.Kind != resolver.EventRotated || ev.Err != nil {
				t.Errorf("%+v, want revision %s", ev, want)
			}
		}
		cancel()
		if ev, open := <-events; open {
			t.Errorf("after its end: %+v", ev)
		}
		if got := strings.Join(last, ","); got != ",id1,id2,id2,id2,id5" || b.n.Load() != 6 {
			t.Errorf("it went on after %s", got)
		}
	})
}

// What may be better later is tried again, not too often; what is refused for good is told once.
func TestWatchThatIsRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status int
		text   string
		again  bool
		code   backend.Code
	}{
		"denied":        {403, `{"error":{"code":"denied","message":"m"}}`, false, backend.CodeDenied},
		"no token":      {401, `{"error":{"code":"auth_required","message":"m"}}`, false, backend.CodeAuthRequired},
		"malformed":     {400, `{"error":{"code":"usage","message":"m"}}`, false, backend.CodeUsage},
		"of tomorrow":   {400, `{"error":{"code":"of_tomorrow","message":"m"}}`, false, "of_tomorrow"},
		"no such error": {500, `v-c4nary`, false, backend.CodeInternal},
		"a redirect":    {302, `v-c4nary`, false, backend.CodeInternal},
		"a full disk":   {500, `{"error":{"code":"internal","message":"m"}}`, true, ""},
		"throttled":     {429, `{"error":{"code":"throttled","message":"m","retry_after_ms":60000}}`, true, ""},
		"unavailable":   {503, `{"error":{"code":"unavailable","message":"m"}}`, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, b := inside(t, func(_ int, _ *http.Request, out *io.PipeWriter) *http.Response {
					go func() {
						_, _ = io.WriteString(out, tt.text)
						_ = out.Close()
					}()
					return refusing(tt.status)
				})
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				began := time.Now()
				var told []credref.Ref
				for ev := range c.Watch(ctx, refA, refB) {
					told = append(told, ev.Ref)
					failed(t, ev.Err, tt.code)
					if ev.Kind != resolver.EventFailed {
						t.Errorf("kind %s", ev.Kind)
					}
				}
				n, took := b.n.Load(), time.Since(began)
				switch {
				case !tt.again && (len(told) != 2 || n != 1 || took > 0):
					t.Errorf("%d events, %d requests in %s", len(told), n, took)
				case tt.again && (len(told) != 0 || took != 10*time.Minute):
					t.Errorf("%d events, it ended after %s", len(told), took)
				case tt.status == 429 && (n < 10 || n > 11):
					t.Errorf("%d requests in ten minutes, where one a minute was asked for", n)
				case tt.status == 503 && (n < 50 || n > 150):
					t.Errorf("%d requests in ten minutes", n)
				}
			})
		})
	}
}

func TestStreamThatNoSidecarGives(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"garbage for data": "data: v-c4nary\n\n",
		"another type":     "data: {\"ref\":\"v-c4nary\"}\n\n",
		"another ref":      "data: {\"ref\":{\"provider\":\"app\",\"id\":\"c4nary\"},\"kind\":\"rotated\"}\n\n",
		"no ref":           "data: {}\n\n",
		"an endless line":  "data: " + strings.Repeat("v-c4nary", maxEvent/8) + "\n\n",
		"endless lines":    strings.Repeat("data: "+strings.Repeat("v-c4nary", 1<<10)+"\n", maxEvent>>13+1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
				_, _ = io.WriteString(w, text)
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			})
			n := 0
			for ev := range c.Watch(t.Context(), refA) {
				n++
				failed(t, ev.Err, backend.CodeInternal)
				if ev.Ref != refA || ev.Kind != resolver.EventFailed {
					t.Errorf("%+v", ev)
				}
			}
			if n != 1 {
				t.Errorf("%d events", n)
			}
		})
	}
	c := serve(t, answer(200, `{"results":["v-c4nary"]}`))
	for ev := range c.Watch(t.Context(), refA) {
		failed(t, ev.Err, backend.CodeInternal)
	}
}

// An id becomes a header of the next request: one that cannot is not kept, or no request would ever succeed.
func TestEventIDThatIsNoHeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var last []string
		c, _ := inside(t, func(n int, r *http.Request, out *io.PipeWriter) *http.Response {
			last = append(last, r.Header.Get("Last-Event-Id"))
			id := []string{"good", "a\x00b", "a\x7fb", strings.Repeat("x", maxEventID+1), "end"}[n-1]
			go func() {
				_, _ = io.WriteString(out, event(id, resolver.EventRotated, "r"))
				_ = out.Close()
			}()
			return streaming()
		})
		ctx, cancel := context.WithCancel(t.Context())
		events := c.Watch(ctx, refA)
		for range 4 {
			<-events
		}
		cancel()
		for range events {
		}
		for i, id := range last {
			if want := []string{"", "good", "", "", ""}[i]; id != want && id != "good" {
				t.Errorf("request %d: the id %q", i, id)
			}
		}
	})
}

// A stream without a line for too long is given up for a new one; a reader that takes its time is not silence.
func TestSilentStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, b := inside(t, func(n int, r *http.Request, out *io.PipeWriter) *http.Response {
			go func() {
				_, _ = io.WriteString(out, event("1", resolver.EventRotated, fmt.Sprint("r", n)))
				for range 10 {
					select {
					case <-time.After(15 * time.Second):
					case <-r.Context().Done():
						return
					}
					if _, err := io.WriteString(out, ":\n\n"); err != nil {
						return
					}
				}
			}()
			return streaming()
		})
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		events := c.Watch(ctx, refA)
		time.Sleep(100 * time.Second) // while the first event waits
		if ev := <-events; ev.Revision != "r1" || ev.Err != nil {
			t.Errorf("%+v", ev)
		}
		if ev := <-events; ev.Revision != "r2" || ev.Err != nil {
			t.Errorf("%+v", ev)
		}
		if took := time.Since(began); took < 150*time.Second+silence || took > 300*time.Second || b.n.Load() != 2 {
			t.Errorf("a new stream after %s, %d requests", took, b.n.Load())
		}
		cancel()
		for range events {
		}
	})
}

// One request of a stream takes so many refs, and so many bytes of them.
func TestWatchOfManyRefs(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		count, streams int
		id             string
	}{"none": {0, 0, ""}, "short": {600, 3, ""}, "long": {20, 20, strings.Repeat("é", 1000)}} {
		var streams, watched atomic.Int32
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			refs := r.URL.Query()["ref"]
			if len(refs) > 256 || len(r.URL.RawQuery) > 15<<10 {
				t.Errorf("%s: a stream of %d refs, %d bytes", name, len(refs), len(r.URL.RawQuery))
			}
			streams.Add(1)
			watched.Add(int32(len(refs)))
			w.Header().Set("Content-Type", "text/event-stream")
			for _, text := range refs {
				ref, err := credref.Parse(text)
				if err != nil {
					t.Error(err)
				}
				_, _ = fmt.Fprintf(w, "data: {\"ref\":{\"provider\":\"app\",\"id\":%q},\"kind\":\"rotated\"}\n\n", ref.ID)
			}
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		refs := make([]credref.Ref, tt.count)
		for i := range refs {
			refs[i] = credref.Ref{Provider: "app", ID: fmt.Sprint(i, tt.id)}
		}
		ctx, cancel := context.WithCancel(t.Context())
		events := c.Watch(ctx, refs...)
		seen := map[credref.Ref]bool{}
		for len(seen) < tt.count {
			ev, open := <-events
			if !open || ev.Err != nil {
				t.Fatalf("%s: %+v", name, ev)
			}
			seen[ev.Ref] = true
		}
		cancel()
		for range events {
		}
		if int(streams.Load()) != tt.streams || int(watched.Load()) != tt.count {
			t.Errorf("%s: %d refs in %d streams, want %d in %d", name, watched.Load(), streams.Load(), tt.count, tt.streams)
		}
	}
}

// The end of its context ends a watch at once, also while nobody reads, or nobody answers.
func TestWatchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no answer": "", "silence": "-", "unread": event("1", resolver.EventRotated, "r"),
	} {
		ready := make(chan struct{})
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			defer func() { <-r.Context().Done() }()
			defer close(ready)
			if text == "" {
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, strings.Trim(text, "-"))
			_ = http.NewResponseController(w).Flush()
		})
		ctx, cancel := context.WithCancel(t.Context())
		events := c.Watch(ctx, refA)
		<-ready
		time.Sleep(20 * time.Millisecond)
		cancel()
		began := time.Now()
		for ev := range events {
			if ev.Err != nil {
				t.Errorf("%s: %v", name, ev.Err)
			}
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
	}
}

// The refs of a watch are queries, and no two of them the same.
func TestQueryOfAWatch(t *testing.T) {
	t.Parallel()
	odd := credref.Ref{Provider: "app", ID: "a&ref=cred://app/b#?=% é+", Version: "&", Field: "/x~1y z"}
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		q, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil || len(q) != 1 || len(q["ref"]) != 1 {
			t.Errorf("the query is %s", r.URL.RawQuery)
			return
		}
		if ref, err := credref.Parse(q["ref"][0]); err != nil || ref != odd {
			t.Errorf("it came as %+v, %v", ref, err)
		}
		answer(403, `{"error":{"code":"denied","message":"m"}}`)(w, r)
	})
	for ev := range c.Watch(t.Context(), odd) {
		failed(t, ev.Err, backend.CodeDenied)
	}
}
