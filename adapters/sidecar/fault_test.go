package sidecar_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/adapters/sidecar"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
)

// breakable is a store of the sidecar that may fail for one secret.
type breakable struct {
	*memory.Backend
	broken atomic.Pointer[broken]
}

type broken struct {
	id     string        // that the sidecar is asked for
	mended chan struct{} // until then there is no answer; nil: it is denied
}

// fail breaks the store for f.ID; nil: there is no such fault.
func (b *breakable) fail(f conformance.Fault) (undo func()) {
	switch f.Kind {
	case conformance.FaultDeny:
		b.broken.Store(&broken{id: f.ID})
		return func() { b.broken.Store(nil) }
	case conformance.FaultHang:
		mended := make(chan struct{})
		b.broken.Store(&broken{f.ID, mended})
		return func() {
			b.broken.Store(nil)
			close(mended)
		}
	}
	return nil
}

func (b *breakable) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	if f := b.broken.Load(); f != nil && f.id == "m/"+req.ID {
		if f.mended == nil {
			return nil, backend.Errorf(backend.CodeDenied, "the store refuses")
		}
		select {
		case <-f.mended:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return b.Backend.Get(ctx, req)
}

// GetBatch hides that of the memory.
func (b *breakable) GetBatch(context.Context, []backend.Request) ([]backend.Result, error) {
	return nil, errors.ErrUnsupported
}

// way is a socket that leads to a sidecar, unless something is in the way.
type way struct {
	socket  string
	handler atomic.Pointer[http.HandlerFunc] // nil: the sidecar answers
}

func newWay(t *testing.T, to string) *way {
	t.Helper()
	w := &way{socket: filepath.Join(t.TempDir(), "sock")}
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "localhost"}) },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", to)
		}},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	s := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if h := w.handler.Load(); h != nil {
			(*h)(rw, r)
			return
		}
		proxy.ServeHTTP(rw, r)
	})}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return w
}

// fail puts f in the way; nil: there is no such fault.
func (w *way) fail(f conformance.Fault) (undo func()) {
	answer := func(status int, code backend.Code, more string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(status)
			fmt.Fprintf(rw, `{"error":{"code":%q,"message":"the sidecar refuses"%s}}`, code, more)
		}
	}
	var h http.HandlerFunc
	switch f.Kind {
	case conformance.FaultDeny:
		h = answer(http.StatusForbidden, backend.CodeDenied, "")
	case conformance.FaultLogout:
		h = answer(http.StatusUnauthorized, backend.CodeAuthRequired, "")
	case conformance.FaultThrottle:
		h = answer(http.StatusTooManyRequests, backend.CodeThrottled, fmt.Sprintf(`,"retryable":true,"retry_after_ms":%d`, f.RetryAfter.Milliseconds()))
	case conformance.FaultDisappear:
		h = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	case conformance.FaultHang:
		h = func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // the end of a connection is noticed only after it
			<-r.Context().Done()
		}
	default:
		return nil
	}
	w.handler.Store(&h)
	return func() { w.handler.Store(nil) }
}

// outside is a provider where nobody has logged in, and a login has begun.
type outside struct{}

func (outside) Get(context.Context, backend.Request) (*backend.Credential, error) {
	return nil, &backend.Error{
		Code: backend.CodeAuthRequired, Reason: "nobody has logged in",
		Login: &backend.LoginState{State: "s", URL: "https://login.example/device", UserCode: "AB-CD", Expires: time.Now().Add(time.Minute)},
	}
}

// What the sidecar says of a login under way reaches who asks this provider.
func TestLoginUnderWay(t *testing.T) {
	t.Parallel()
	socket, _ := start(t, outside{})
	b, err := sidecar.New(sidecar.Config{Socket: socket}, backend.Host{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	_, err = b.Get(t.Context(), backend.Request{ID: "m/x"})
	var e *backend.Error
	if !errors.As(err, &e) || e.Code != backend.CodeAuthRequired || e.Login == nil || e.Login.UserCode != "AB-CD" || e.Login.State != "s" || e.Login.Expires.IsZero() {
		t.Errorf("the error is %v", err)
	}
}
