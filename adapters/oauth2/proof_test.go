package oauth2_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/backend"
)

var robot = backend.Request{ID: "default"}

// strict is an authorization server that holds clients to their assertions (RFC 7523, 3).
type strict struct {
	*httptest.Server
	keys map[string]crypto.PublicKey // by kid

	mu   sync.Mutex
	seen map[string]bool // jti
	at   []string        // the paths at which a client was let in
}

func newStrict(t *testing.T, keys map[string]crypto.PublicKey) *strict {
	t.Helper()
	p := &strict{keys: keys, seen: map[string]bool{}}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.HasPrefix(r.URL.Path, "/.well-known/") {
			_ = json.NewEncoder(w).Encode(map[string]any{
				"issuer": p.URL, "token_endpoint": p.URL + "/token", "revocation_endpoint": p.URL + "/revoke", "introspection_endpoint": p.URL + "/introspect",
			})
			return
		}
		if err := p.check(r); err != nil {
			t.Logf("%s: %v", r.URL.Path, err)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":"invalid_client"}`)
			return
		}
		_, _ = io.WriteString(w, `{"access_token":"a","token_type":"Bearer","active":true}`)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *strict) check(r *http.Request) error {
	if r.FormValue("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || r.Header.Get("Authorization") != "" ||
		r.FormValue("client_secret") != "" || r.FormValue("client_id") != "robot" {
		return fmt.Errorf("another proof, or more than one: %v", r.Form)
	}
	token, err := jwt.ParseSigned(r.FormValue("client_assertion"), []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA})
	if err != nil {
		return err
	}
	header := token.Headers[0]
	var c jwt.Claims
	if err := token.Claims(p.keys[header.KeyID], &c); err != nil {
		return err
	}
	if err := c.ValidateWithLeeway(jwt.Expected{Issuer: "robot", Subject: "robot", AnyAudience: jwt.Audience{p.URL}, Time: time.Now()}, 0); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch life := time.Until(c.Expiry.Time()); {
	case header.ExtraHeaders["typ"] != "JWT" || len(c.Audience) != 1 || c.IssuedAt == nil:
		return fmt.Errorf("%+v %+v", header, c)
	case life <= 0 || life > 5*time.Minute:
		return fmt.Errorf("it lives for %v", life)
	case len(c.ID) < 22 || p.seen[c.ID]:
		return fmt.Errorf("jti %q was there before, or can be guessed", c.ID)
	}
	p.seen[c.ID] = true
	p.at = append(p.at, r.URL.Path)
	return nil
}

func pemOf(t *testing.T, kind string, der []byte, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestAssertionsPassAStrictServer(t *testing.T) {
	t.Parallel()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve := func(c elliptic.Curve) *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	e, e3, e5 := curve(elliptic.P256()), curve(elliptic.P384()), curve(elliptic.P521())
	_, d, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8 := func(key any) string {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return pemOf(t, "PRIVATE KEY", der, err)
	}
	sec1, err := x509.MarshalECPrivateKey(e5)
	keys := map[string]string{
		"rsa": pkcs8(r), "rsa1": pemOf(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(r), nil), "p256": pkcs8(e), "p384": pkcs8(e3),
		"p521": pemOf(t, "EC PRIVATE KEY", sec1, err), "ed": pkcs8(d),
	}
	p := newStrict(t, map[string]crypto.PublicKey{
		"rsa": r.Public(), "rsa1": r.Public(), "p256": e.Public(), "p384": e3.Public(), "p521": e5.Public(), "ed": d.Public(),
	})
	config := oauth2.Config{Issuer: p.URL, Grant: "client_credentials", ClientID: "robot"}
	for id, key := range keys {
		config.ClientKeyID, config.ClientKey = id, secret(key)
		b := open(t, config)
		p.at = nil
		c, err := b.Get(t.Context(), robot)
		if err == nil {
			_, err = b.Get(t.Context(), robot) // by an assertion of its own
		}
		if err == nil {
			err = b.ProbeCredential(t.Context(), robot, c)
		}
		if err == nil {
			err = b.Revoke(t.Context(), robot, c)
		}
		if want := []string{"/token", "/token", "/introspect", "/revoke"}; err != nil || !slices.Equal(p.at, want) {
			t.Errorf("%s: let in at %v: %v", id, p.at, err)
		}
	}
	config.ClientKeyID, config.ClientKey = "ed", secret(keys["rsa"])
	_, err = open(t, config).Get(t.Context(), robot)
	fails(t, err, backend.ErrAuthRequired, "invalid_client", "client_id")
}

// turning is a secret that its provider renews.
type turning struct {
	mu       sync.Mutex
	value    string
	next     string // the value from the moment on at which the one there is is rejected
	rejected []string
}

func (s *turning) source() backend.Source {
	return backend.NewSource(func(context.Context) (backend.Secret, string, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return backend.NewSecretString(s.value), "rev-" + s.value[:1], nil
	}, func(revision string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.rejected = append(s.rejected, revision)
		if s.next != "" {
			s.value = s.next
		}
	})
}

// A client's secret or key is asked for at each exchange, and anew where the server refuses it.
func TestClientsSecretThatIsRenewed(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	good, shown := "1-c4nary", []string(nil)
	p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		id, secret, _ := r.BasicAuth()
		shown = append(shown, secret)
		w.Header().Set("Content-Type", "application/json")
		if id != "robot" || secret != good {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = fmt.Fprintf(w, `{"error":"invalid_client","error_description":"%s"}`, secret)
			return
		}
		_, _ = io.WriteString(w, `{"access_token":"a","token_type":"Bearer"}`)
	}))
	defer p.Close()
	s := &turning{value: good}
	b := open(t, oauth2.Config{Endpoints: oauth2.Endpoints{Token: p.URL}, Grant: "client_credentials", ClientID: "robot", ClientSecret: s.source()})
	get := func(want ...string) error {
		t.Helper()
		shown = nil
		_, err := b.Get(t.Context(), robot)
		if !slices.Equal(shown, want) {
			t.Errorf("it showed %v, want %v", shown, want)
		}
		return err
	}
	if err := get("1-c4nary"); err != nil {
		t.Error(err)
	}
	good, s.value = "2-c4nary", "2-c4nary" // its provider has noticed
	if err := get("2-c4nary"); err != nil {
		t.Error(err)
	}
	good, s.next = "3-c4nary", "3-c4nary" // it notices when it is told
	if err := get("2-c4nary", "3-c4nary"); err != nil || !slices.Equal(s.rejected, []string{"rev-2"}) {
		t.Errorf("%v, rejected %v", err, s.rejected)
	}
	good, s.next = "4-c4nary", "" // it has no newer one
	fails(t, get("3-c4nary"), backend.ErrAuthRequired, "invalid_client")
	good, s.next = "6-c4nary", "5-c4nary" // nor is the newer one right: it is not asked on and on
	fails(t, get("3-c4nary", "5-c4nary"), backend.ErrAuthRequired, "invalid_client")
}

// paper is a certificate with its key, in files.
type paper struct {
	cert     *x509.Certificate
	key      *ecdsa.PrivateKey
	certFile string
	keyFile  string
}

// issue makes a certificate, self-signed without by, in files called name in dir.
func issue(t *testing.T, dir, name string, by *paper) *paper {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	want := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		IsCA: by == nil, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, signer := want, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, want, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	p := &paper{cert: cert, key: key, certFile: filepath.Join(dir, name+".pem"), keyFile: filepath.Join(dir, name+".key")}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	for file, text := range map[string]string{p.certFile: pemOf(t, "CERTIFICATE", der, nil), p.keyFile: pemOf(t, "PRIVATE KEY", keyDER, err)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *paper) pair() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key}
}

func serveTLS(t *testing.T, c *tls.Config, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS, s.Config.ErrorLog = c, log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// A client shows its certificate, signed by an authority (RFC 8705, 2.1) or by itself (2.2), at the endpoints that are for those
// who do (5), and sends no other proof.
func TestProofByCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := issue(t, dir, "ca", nil)
	site, signed, stranger := issue(t, dir, "site", ca), issue(t, dir, "signed", ca), issue(t, dir, "stranger", ca)
	self, other := issue(t, dir, "self", nil), issue(t, dir, "other", nil)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	authority := &tls.Config{Certificates: []tls.Certificate{site.pair()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	itself := &tls.Config{Certificates: []tls.Certificate{site.pair()}, ClientAuth: tls.RequireAnyClientCert}
	for name, tt := range map[string]struct {
		server *tls.Config
		shown  *paper
		knows  *paper // the certificate of the client, at the server
		auth   string
		fails  string
	}{
		"signed by an authority":         {server: authority, shown: signed, knows: signed},
		"signed by itself":               {server: itself, shown: self, knows: self},
		"of another client":              {authority, stranger, signed, "", "invalid_client"},
		"of another one, by itself":      {itself, other, self, "", "invalid_client"},
		"by itself, where it must not":   {authority, self, self, "", "connection"},
		"beside a public client's id":    {server: authority, shown: signed, knows: signed, auth: "none"},
		"where the endpoints are common": {server: authority, shown: signed, knows: signed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var at []string
			secure := serveTLS(t, tt.server, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				at = append(at, r.URL.Path)
				mu.Unlock()
				w.Header().Set("Content-Type", "application/json")
				if r.FormValue("client_id") != "robot" || !r.TLS.PeerCertificates[0].Equal(tt.knows.cert) || r.Header.Get("Authorization") != "" ||
					r.FormValue("client_secret")+r.FormValue("client_assertion") != "" {
					w.WriteHeader(http.StatusUnauthorized)
					_, _ = io.WriteString(w, `{"error":"invalid_client"}`)
					return
				}
				_, _ = io.WriteString(w, `{"access_token":"a","refresh_token":"r","token_type":"Bearer","active":true}`)
			})
			common := false
			var plain *httptest.Server
			plain = serveTLS(t, &tls.Config{Certificates: []tls.Certificate{site.pair()}}, func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasPrefix(r.URL.Path, "/.well-known/") {
					common = true
				}
				alias := map[string]string{
					"token_endpoint": secure.URL + "/token", "revocation_endpoint": secure.URL + "/revoke", "introspection_endpoint": secure.URL + "/introspect",
				}
				tells := map[string]any{"issuer": plain.URL, "mtls_endpoint_aliases": alias}
				for name := range alias {
					tells[name] = plain.URL + "/common"
				}
				if strings.HasPrefix(name, "where") {
					delete(tells, "mtls_endpoint_aliases")
					for name, address := range alias {
						tells[name] = address
					}
				}
				w.Header().Set("Content-Type", "application/json")
				_ = json.NewEncoder(w).Encode(tells)
			})
			c := oauth2.Config{
				Issuer: plain.URL, Grant: "client_credentials", ClientID: "robot", ClientAuth: tt.auth,
				TLS: oauth2.TLS{CAFile: ca.certFile, ClientCert: tt.shown.certFile, ClientKey: tt.shown.keyFile},
			}
			if tt.auth == "none" {
				c.Grant = "authorization_code" // of whose tokens the certificate is then the proof (RFC 8705, 4)
				c.Endpoints.Authorization = "https://login.example/authorize"
			}
			b := open(t, c)
			var err error
			cred := &backend.Credential{Secret: backend.NewSecretString("a")}
			if tt.auth == "none" {
				_, err = b.Refresh(t.Context(), me, &backend.Grant{Credential: cred, Refresh: backend.NewSecretString("r")})
			} else if cred, err = b.Get(t.Context(), robot); err == nil {
				err = b.ProbeCredential(t.Context(), robot, cred)
			}
			if err == nil {
				err = b.Revoke(t.Context(), robot, cred)
			}
			if common {
				t.Error("it was shown at an endpoint for everybody")
			}
			if tt.fails != "" {
				if err == nil {
					t.Fatal("it is let in")
				}
				fails(t, err, err, "127.0.0.1", tt.fails)
				return
			}
			if err != nil || len(at) == 0 || at[len(at)-1] != "/revoke" {
				t.Errorf("let in at %v: %v", at, err)
			}
		})
	}
}

// A certificate that lives for an hour is replaced in its file, and the next connection shows the new one.
func TestCertificateThatIsReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := issue(t, dir, "ca", nil)
	site, first := issue(t, dir, "site", ca), issue(t, dir, "client", ca)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	var mu sync.Mutex
	var serials []string
	p := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{site.pair()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		serials = append(serials, r.TLS.PeerCertificates[0].SerialNumber.String())
		mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Connection", "close")
		_, _ = io.WriteString(w, `{"access_token":"a","token_type":"Bearer"}`)
	})
	b := open(t, oauth2.Config{
		Endpoints: oauth2.Endpoints{Token: p.URL}, Grant: "client_credentials", ClientID: "robot",
		TLS: oauth2.TLS{CAFile: ca.certFile, ClientCert: first.certFile, ClientKey: first.keyFile},
	})
	get := func() error { _, err := b.Get(t.Context(), robot); return err }
	if err := get(); err != nil {
		t.Fatal(err)
	}
	second := issue(t, dir, "client", ca)
	if err := get(); err != nil {
		t.Fatal(err)
	}
	if want := []string{first.cert.SerialNumber.String(), second.cert.SerialNumber.String()}; !slices.Equal(serials, want) {
		t.Errorf("it showed %v, want %v", serials, want)
	}
	if err := os.WriteFile(first.keyFile, []byte("c4nary"), 0o600); err != nil {
		t.Fatal(err)
	}
	fails(t, get(), backend.ErrInvalidConfig, "tls.client_cert", first.keyFile)
}
