package oauth2

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"net/url"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// assertionLife is how long an assertion counts. It is used at once; the rest is for clocks that differ.
const assertionLife = time.Minute

// prove adds to form and header what shows the server which client asks (RFC 6749, 2.3; RFC 7523, 2.2; RFC 8705, 2). The secret
// or key is asked for anew each time; revision is that of what is shown.
func (b *Backend) prove(ctx context.Context, audience string, form url.Values, header http.Header) (revision string, err error) {
	switch b.config.ClientAuth {
	case authBasic, authPost:
		secret, revision, err := b.config.ClientSecret.Get(ctx)
		if err != nil {
			return "", err
		}
		return revision, secret.Use(func(text []byte) error {
			if b.config.ClientAuth == authPost {
				form.Set("client_id", b.config.ClientID)
				form.Set("client_secret", string(text))
				return nil
			}
			pair := url.QueryEscape(b.config.ClientID) + ":" + url.QueryEscape(string(text))
			header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
			return nil
		})
	case authKey:
		// One audience, the issuer, so that no other server can use it (draft-ietf-oauth-rfc7523bis).
		if s := b.found.Load(); s != nil && s.Issuer != "" {
			audience = s.Issuer
		}
		assertion, revision, err := b.assertion(ctx, audience)
		if err != nil {
			return "", err
		}
		form.Set("client_id", b.config.ClientID)
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", assertion)
		return revision, nil
	}
	form.Set("client_id", b.config.ClientID)
	return "", nil
}

// assertion signs that this client asks the server at audience.
func (b *Backend) assertion(ctx context.Context, audience string) (text, revision string, err error) {
	secret, revision, err := b.config.ClientKey.Get(ctx)
	if err != nil {
		return "", "", err
	}
	var key crypto.Signer
	if err := secret.Use(func(text []byte) error {
		key, err = parseKey(text)
		return err
	}); err != nil {
		return "", "", err
	}
	options := (&jose.SignerOptions{}).WithType("JWT")
	if b.config.ClientKeyID != "" {
		options = options.WithHeader("kid", b.config.ClientKeyID)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm(key), Key: key}, options)
	if err != nil {
		return "", "", errClientKey
	}
	now := time.Now()
	text, err = jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: b.config.ClientID, Subject: b.config.ClientID, Audience: jwt.Audience{audience}, ID: rand.Text(),
		IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(assertionLife)),
	}).Serialize()
	if err != nil {
		return "", "", errClientKey
	}
	return text, revision, nil
}

// parseKey reads a private key; its error says nothing of the text.
func parseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errClientKey
	}
	defer clear(block.Bytes)
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	}
	if signer, ok := key.(crypto.Signer); ok && err == nil && algorithm(signer) != "" {
		return signer, nil
	}
	return nil, errClientKey
}

// algorithm is the one that RFC 7518 and RFC 8037 have for a key; empty when there is none.
func algorithm(key crypto.Signer) jose.SignatureAlgorithm {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return jose.RS256
	case ed25519.PrivateKey:
		return jose.EdDSA
	case *ecdsa.PrivateKey:
		switch key.Curve {
		case elliptic.P256():
			return jose.ES256
		case elliptic.P384():
			return jose.ES384
		case elliptic.P521():
			return jose.ES512
		}
	}
	return ""
}
