package vault_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/credresolve/credresolve/adapters/vault"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
	"github.com/credresolve/credresolve/internal/conformancetest"
	"github.com/credresolve/credresolve/internal/vaulttest"
)

// store is a mount of the test server as the suite sees it.
type store struct {
	server *vaulttest.Server
	proxy  *vaulttest.Proxy
	mount  string
	v2     bool
	root   *api.Client
	roles  int
	db     string
}

func newStore(t *testing.T, version string) *store {
	t.Helper()
	s := vaulttest.Start(t)
	st := &store{server: s, proxy: s.Proxy(t), mount: s.Mount(t, "kv", map[string]string{"version": version}), v2: version == "2", db: s.Mount(t, "database", nil)}
	s.Write(t, st.db+"/config/d", map[string]any{"plugin_name": "memdb-database-plugin", "allowed_roles": "*"})
	// The suite looks for goroutines that are left behind: connections of the harness must not stay open.
	c := &api.Config{Address: s.Addr, HttpClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	var err error
	if st.root, err = api.NewClient(c); err != nil {
		t.Fatal(err)
	}
	st.root.SetToken(s.Token)
	return st
}

// open opens a backend of the mount, or of all mounts; with PEM certificates, over TLS.
func (s *store) open(t conformance.T, dial *conformance.Dialer, mount string, kvVersion int, roots []byte) backend.Backend {
	scheme := "http://"
	if roots != nil {
		scheme = "https://"
	}
	b, err := vault.New(vault.Config{
		Address: scheme + dial.Through(strings.TrimPrefix(s.proxy.URL, "http://")), Mount: mount, KVVersion: kvVersion,
		Auth: vault.Auth{Token: secret(s.server.Token)}, TLS: vault.TLS{CAPEM: string(roots)},
	}, backend.Host{LookupEnv: func(string) (string, bool) { return "", false }})
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	return b
}

func (s *store) path(part, id string) string {
	if s.v2 {
		return s.mount + "/" + part + "/" + id
	}
	return s.mount + "/" + id
}

func (s *store) put(t conformance.T, id string, v backend.Value) string {
	fields := maps.Clone(v.Fields)
	if fields == nil {
		fields = map[string]backend.Secret{"value": v.Secret}
	}
	body, err := backend.FieldsToJSON(fields)
	if err == nil && s.v2 {
		body = []byte(`{"data":` + string(body) + `}`)
	}
	if err != nil {
		t.Fatalf("encoding: %v", err)
	}
	resp, err := s.root.Logical().WriteRawWithContext(t.Context(), s.path("data", id), body)
	if err != nil {
		t.Fatalf("writing out of band failed: status %v", backend.CodeOf(err))
	}
	defer resp.Body.Close()
	var made struct{ Data struct{ Version int } }
	_ = json.NewDecoder(resp.Body).Decode(&made)
	return strconv.Itoa(made.Data.Version)
}

func (s *store) harness(kvVersion int) conformance.Harness {
	h := conformance.Harness{
		Open: func(t conformance.T, dial *conformance.Dialer) backend.Backend {
			return s.open(t, dial, s.mount, kvVersion, nil)
		},
		OpenTLS: func(t conformance.T, dial *conformance.Dialer) backend.Backend {
			return s.open(t, dial, s.mount, kvVersion, dial.RootsPEM())
		},
		Put: func(t conformance.T, id string, v backend.Value) { s.put(t, id, v) },
		Delete: func(t conformance.T, id string) {
			if _, err := s.root.Logical().DeleteWithContext(t.Context(), s.path("metadata", id)); err != nil {
				t.Fatalf("deleting out of band failed")
			}
		},
		Fault: s.fault,
		Reads: func(conformance.T) int {
			n := 0
			for _, c := range s.proxy.Calls("/v1/" + s.path("data", "")) {
				if c.Method == http.MethodGet && !strings.Contains(c.Query, "list=") {
					n++
				}
			}
			return n
		},
		InvalidIDs: []string{"/a", "a/", "a//b", "../a", "a/./b"},
		Secrets:    [][]byte{[]byte(s.server.Token)},
		Limits:     conformance.Limits{Text: true, Floats: s.v2},
	}
	if s.v2 {
		h.Advance = func(t conformance.T, id string, next backend.Value) conformance.Versions {
			current := s.put(t, id, next)
			n, _ := strconv.Atoi(current)
			return conformance.Versions{Previous: strconv.Itoa(n - 1), Current: current, Missing: "9999"}
		}
	}
	return h
}

func (s *store) fault(t conformance.T, f conformance.Fault) func() {
	path := "/v1/"
	if f.ID != "" {
		path += s.path("data", f.ID)
	}
	switch f.Kind {
	case conformance.FaultDeny:
		if f.ID == "" {
			path += s.mount + "/"
		}
		return s.proxy.Fail(path, -1, vaulttest.Answer(403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`))
	case conformance.FaultThrottle:
		var headers []string
		if f.RetryAfter > 0 {
			headers = []string{"Retry-After", strconv.Itoa(int(f.RetryAfter / time.Second))}
		}
		return s.proxy.Fail(path, -1, vaulttest.Answer(429, `{"errors":["rate limit quota exceeded"]}`, headers...))
	case conformance.FaultDisappear:
		return s.proxy.Fail(path, -1, vaulttest.Answer(503, `{"errors":["Vault is sealed"]}`))
	case conformance.FaultLogout:
		return s.proxy.Fail(path, -1, vaulttest.Answer(403, `{"errors":["permission denied"]}`))
	case conformance.FaultHang:
		return s.proxy.Fail(path, -1, func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		})
	case conformance.FaultSkew:
		return s.proxy.Fail("/v1/", -1, func(w http.ResponseWriter, r *http.Request, server http.Handler) {
			server.ServeHTTP(skewed{w}, r)
		})
	case conformance.FaultExpire:
		if err := s.root.Sys().RevokePrefixWithContext(t.Context(), s.db+"/creds"); err != nil {
			t.Fatalf("ending the leases failed")
		}
		return func() {}
	}
	return nil
}

// skewed is a response of a server whose clock is an hour ahead.
type skewed struct{ http.ResponseWriter }

func (w skewed) WriteHeader(status int) {
	w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
	w.ResponseWriter.WriteHeader(status)
}

// The suites run one by one: they look at what the whole process leaves behind.
func TestConformanceOfVersion1(t *testing.T) {
	conformancetest.Run(t, "vault-kv1", newStore(t, "1").harness(1))
}

// Version 2, with ids that begin with the mount, and leases of the database engine.
func TestConformance(t *testing.T) {
	s := newStore(t, "2")
	h := s.harness(0)
	h.Open = func(t conformance.T, dial *conformance.Dialer) backend.Backend { return s.open(t, dial, "", 0, nil) }
	h.OpenTLS = func(t conformance.T, dial *conformance.Dialer) backend.Backend {
		return s.open(t, dial, "", 0, dial.RootsPEM())
	}
	h.ID = func(name string) string { return s.mount + "/" + name }
	relative := func(id string) string { return strings.TrimPrefix(id, s.mount+"/") }
	put, remove, advance, fault := h.Put, h.Delete, h.Advance, h.Fault
	h.Put = func(t conformance.T, id string, v backend.Value) { put(t, relative(id), v) }
	h.Delete = func(t conformance.T, id string) { remove(t, relative(id)) }
	h.Advance = func(t conformance.T, id string, v backend.Value) conformance.Versions {
		return advance(t, relative(id), v)
	}
	h.Fault = func(t conformance.T, f conformance.Fault) func() { f.ID = relative(f.ID); return fault(t, f) }
	h.Lease = func(t conformance.T, ttl, longest time.Duration) string {
		s.roles++
		role := "r" + strconv.Itoa(s.roles)
		if _, err := s.root.Logical().WriteWithContext(t.Context(), s.db+"/roles/"+role, map[string]any{
			"db_name": "d", "default_ttl": ttl.String(), "max_ttl": longest.String(), "creation_statements": "x"}); err != nil {
			t.Fatalf("making a role failed")
		}
		return s.db + "/creds/" + role
	}
	conformancetest.Run(t, "vault-kv2", h)
}
