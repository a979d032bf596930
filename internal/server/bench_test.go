package server

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/internal/peer"
)

// nowhere is a ResponseWriter that keeps nothing.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n *nowhere) WriteHeader(int)             {}

// What the sidecar adds to net/http for one cached ref, a policy and its checks included.
func BenchmarkCached(b *testing.B) {
	for name, audit := range map[string]string{"no audit": "off", "audit": "file"} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			path := dir + "/credresolve.yaml"
			text := "version: 1\nproviders:\n  m: {kind: memory, values: {plain: value}, cache: {ttl: 1h}}\nserve:\n  audit: {to: " + audit + "}\n" +
				"  consumers:\n    - {name: bench, uid: 0, allow: [{provider: m, id: plain}]}\n"
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				b.Fatal(err)
			}
			s, err := Open(b.Context(), Options{
				Load: func(context.Context) (*config.File, error) { return config.Load(path, testKinds()) },
				Open: config.Options{StateDir: dir + "/state"},
			})
			if err != nil {
				b.Fatal(err)
			}
			defer s.end()
			a := newAPI(s)
			c := &conn{door: &door{name: "socket"}, peer: &peer.Peer{UID: 0, PID: 1, Executable: "/usr/bin/bench"}}
			r := (&http.Request{
				Method: "GET", URL: &url.URL{Path: "/v1/resolve", RawQuery: "ref=cred%3A%2F%2Fm%2Fplain"}, Header: http.Header{}, Host: "localhost",
			}).WithContext(context.WithValue(context.Background(), connKey{}, c))
			b.ReportAllocs()
			for b.Loop() {
				w := &nowhere{header: http.Header{}}
				a.ServeHTTP(w, r)
			}
		})
	}
}

// A batch of 100 refs, without the network.
func BenchmarkBatch(b *testing.B) {
	dir := b.TempDir()
	path := dir + "/credresolve.yaml"
	values, refs := "", ""
	for i := range 100 {
		values += fmt.Sprintf("k%d: value, ", i)
		refs += fmt.Sprintf(`,{"provider":"m","id":"k%d"}`, i)
	}
	text := "version: 1\nproviders:\n  m: {kind: memory, values: {" + values + "}, cache: {ttl: 1h}}\nserve:\n  audit: {to: off}\n" +
		"  consumers:\n    - {name: bench, uid: 0, allow: [{provider: m, id: \"k*\"}]}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	s, err := Open(b.Context(), Options{
		Load: func(context.Context) (*config.File, error) { return config.Load(path, testKinds()) },
		Open: config.Options{StateDir: dir + "/state"},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer s.end()
	a := newAPI(s)
	c := &conn{door: &door{name: "socket"}, peer: &peer.Peer{UID: 0, PID: 1, Executable: "/usr/bin/bench"}}
	body := `{"refs":[` + refs[1:] + `]}`
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("POST", "/v1/resolve", strings.NewReader(body)).WithContext(context.WithValue(context.Background(), connKey{}, c))
		r.Header.Set("Content-Type", "application/json")
		a.ServeHTTP(&nowhere{header: http.Header{}}, r)
	}
}
