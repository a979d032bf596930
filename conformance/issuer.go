package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"time"
)

// issuer makes the certificates that the proxy shows: good ones, and ones that a backend must refuse.
type issuer struct {
	roots *x509.CertPool
	good  authority
	bad   authority // whom nobody trusts
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// certKind is what is wrong with a certificate.
type certKind int

const (
	certGood certKind = iota
	certUnknownAuthority
	certOtherName
	certExpired
)

func newIssuer() (*issuer, error) {
	good, err := newAuthority("conformance")
	if err != nil {
		return nil, err
	}
	bad, err := newAuthority("conformance, not trusted")
	if err != nil {
		return nil, err
	}
	is := &issuer{roots: x509.NewCertPool(), good: good, bad: bad}
	is.roots.AddCert(good.cert)
	return is, nil
}

func newAuthority(name string) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return authority{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return authority{cert, key}, err
}

// config is what a server for target, host and port, shows.
func (is *issuer) config(kind certKind, target string) *tls.Config {
	return &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return is.issue(kind, target)
	}}
}

func (is *issuer) issue(kind certKind, target string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "store"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if host, _, err := net.SplitHostPort(target); err == nil {
		if ip := net.ParseIP(host); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, host)
		}
	}
	by := is.good
	switch kind {
	case certUnknownAuthority:
		by = is.bad
	case certOtherName:
		c.DNSNames, c.IPAddresses = []string{"another.invalid"}, nil
	case certExpired:
		c.NotAfter = time.Now().Add(-time.Minute)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.cert, key.Public(), by.key)
	if err != nil {
		return nil, fmt.Errorf("issuing a certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
