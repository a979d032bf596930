package neterr_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/neterr"
)

const canary = "s3cr3t-c4nary"

func get(t *testing.T, client *http.Client, url string) error {
	t.Helper()
	resp, err := client.Get(url + "/?token=" + canary)
	if err == nil {
		resp.Body.Close()
		t.Fatalf("the call of %s succeeded", url)
	}
	return err
}

// closingServer gives the address of a server that closes each connection at once.
func closingServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return l.Addr().String()
}

func TestClassify(t *testing.T) {
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	closing := closingServer(t)
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing.Close()
	misnamed := &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "other.example.org"}}

	for _, tt := range []struct {
		name   string
		client *http.Client
		url    string
		want   string
	}{
		{"refused", http.DefaultClient, "http://" + refusing.Addr().String(), "connection refused"},
		{"unknown authority", http.DefaultClient, secure.URL, "unknown authority"},
		{"wrong name", &http.Client{Transport: misnamed}, secure.URL, "for another name"},
		{"no TLS", http.DefaultClient, strings.Replace(plain.URL, "http:", "https:", 1), "does not speak TLS"},
		{"ends early", http.DefaultClient, "http://" + closing, "connection"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := neterr.Classify(t.Context(), get(t, tt.client, tt.url), "vault.example:8200")
			if !errors.Is(err, backend.ErrUnavailable) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "vault.example:8200") {
				t.Errorf("got %v, want an ErrUnavailable with %q", err, tt.want)
			}
			if strings.Contains(err.Error(), canary) {
				t.Errorf("the query shows: %v", err)
			}
		})
	}
}

func TestClassifyAServerThatWantsACertificate(t *testing.T) {
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	config := secure.TLS.Clone()
	config.ClientAuth = tls.RequireAnyClientCert
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = tls.Server(c, config).Handshake()
		_, _ = io.Copy(io.Discard, c) // so that its alert is read before the connection ends
	}()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: secure.Client().Transport.(*http.Transport).TLSClientConfig}}
	err = neterr.Classify(t.Context(), get(t, client, "https://"+l.Addr().String()), "x")
	if want := "x: it refused the TLS connection: "; !errors.Is(err, backend.ErrUnavailable) || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), canary) {
		t.Errorf("got %v, want %q", err, want)
	}
}

// endingConn tells when its peer has closed it.
type endingConn struct {
	net.Conn
	ended chan struct{}
	once  sync.Once
}

func (c *endingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.once.Do(func() { close(c.ended) })
	}
	return n, err
}

func TestClassifyAConnectionThatEndsBeforeTheRequest(t *testing.T) {
	closing := closingServer(t)
	conns := make(chan *endingConn, 1)
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c := &endingConn{Conn: conn, ended: make(chan struct{})}
		conns <- c
		return c, nil
	}}}
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		<-(<-conns).ended
		time.Sleep(10 * time.Millisecond) // the transport has yet to take the end in
	}}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodGet, "http://"+closing, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err == nil {
		resp.Body.Close()
		t.Fatal("the call succeeded")
	}
	if err := neterr.Classify(t.Context(), err, "x"); !strings.Contains(err.Error(), "connection") {
		t.Errorf("got %v", err)
	}
}

func TestClassifyPrefersTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := neterr.Classify(ctx, errors.New(canary), "x"); err != context.Canceled {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestRetryAfter(t *testing.T) {
	in := func(v string) time.Duration { return neterr.RetryAfter(http.Header{"Retry-After": {v}}) }
	for v, want := range map[string]time.Duration{"": 0, "3": 3 * time.Second, "-1": 0, "soon": 0, "999999999": 24 * time.Hour} {
		if got := in(v); got != want {
			t.Errorf("RetryAfter(%q) = %v, want %v", v, got, want)
		}
	}
	if got := in(time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)); got < 59*time.Minute || got > time.Hour {
		t.Errorf("a date an hour from now gave %v", got)
	}
}
