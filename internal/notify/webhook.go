package notify

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/internal/neterr"
)

const (
	attempts     = 6
	firstPause   = time.Second // between attempts; it doubles, give or take a quarter
	maxPause     = 30 * time.Second
	maxAskedWait = 5 * time.Minute // that a receiver may ask for by Retry-After
	minKey       = 24              // bytes, as the specification says
	keyPrefix    = "whsec_"
)

// webhook sends messages as the specification of Standard Webhooks 1.0 says: the headers webhook-id, webhook-timestamp and
// webhook-signature, the latter "v1," and the Base64 of the HMAC-SHA-256 of "ID.TIMESTAMP.BODY".
type webhook struct {
	url, agent string
	timeout    time.Duration
	key        backend.Source
	client     *http.Client
}

func newWebhook(h config.Webhook, o Options) *webhook {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConns: parallel, IdleConnTimeout: time.Minute,
		MaxResponseHeaderBytes: 64 << 10, DisableCompression: true,
	}
	return &webhook{
		url: h.URL, agent: "credresolve/" + cmp.Or(o.Version, "unknown"), timeout: cmp.Or(h.Timeout, defaultTimeout), key: o.Resolver.Source(h.Secret),
		client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

func newID() string {
	b := make([]byte, 16)
	_, _ = crand.Read(b)
	return "msg_" + hex.EncodeToString(b)
}

// deliver sends m until it is taken, for good refused, or tried often enough.
func (w *webhook) deliver(ctx context.Context, m message) error {
	var rejected bool
	for n := 0; ; n++ {
		err := w.attempt(ctx, m)
		var e *backend.Error
		again := errors.Is(err, backend.ErrUnavailable) // throttled too
		if errors.Is(err, backend.ErrDenied) && !rejected {
			rejected, again = true, true // with the key anew: it may have been rotated
		}
		if err == nil || !again || n+1 == attempts {
			return err
		}
		pause := min(firstPause<<n, maxPause)
		pause = time.Duration(float64(pause) * (0.75 + 0.5*rand.Float64()))
		if errors.As(err, &e) && e.RetryAfter > pause {
			if e.RetryAfter > maxAskedWait {
				return err
			}
			pause = e.RetryAfter
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// attempt sends m once, signed with the key of now.
func (w *webhook) attempt(ctx context.Context, m message) error {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	secret, revision, err := w.key.Get(ctx)
	if err != nil {
		return err
	}
	stamp := strconv.FormatInt(time.Now().Unix(), 10)
	var signature string
	if err := secret.Use(func(key []byte) error {
		signature, err = sign(key, m.id, stamp, m.body)
		return err
	}); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(m.body))
	if err != nil {
		return backend.Errorf(backend.CodeInvalidConfig, "the URL is malformed")
	}
	req.Header = http.Header{
		"Content-Type": {"application/json"}, "User-Agent": {w.agent},
		"Webhook-Id": {m.id}, "Webhook-Timestamp": {stamp}, "Webhook-Signature": {signature},
	}
	res, err := w.client.Do(req)
	if err != nil {
		return neterr.Classify(context.WithoutCancel(ctx), err, "the receiver")
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.CopyN(io.Discard, res.Body, 4<<10) // so that the connection can be used again
	switch code := res.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		w.key.Reject(revision)
		return backend.Errorf(backend.CodeDenied, "the receiver refused it with status %d", code)
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code == http.StatusTooEarly, code >= 500:
		e := backend.Errorf(backend.CodeUnavailable, "the receiver answered with status %d", code)
		e.RetryAfter = neterr.RetryAfter(res.Header)
		return e
	default: // redirects too: what is signed for one address goes to no other
		return backend.Errorf(backend.CodeInvalidConfig, "the receiver answered with status %d", code)
	}
}

// sign gives the value of webhook-signature. A key that begins with whsec_ is Base64 behind that.
func sign(key []byte, id, stamp string, body []byte) (string, error) {
	if rest, is := bytes.CutPrefix(bytes.TrimSpace(key), []byte(keyPrefix)); is {
		raw := make([]byte, base64.StdEncoding.DecodedLen(len(rest)))
		defer clear(raw)
		n, err := base64.StdEncoding.Decode(raw, rest)
		if err != nil {
			return "", &backend.Error{Code: backend.CodeInvalidConfig, Reason: "the key that signs is not Base64 behind whsec_"}
		}
		key = raw[:n]
	}
	if len(key) < minKey {
		return "", &backend.Error{
			Code: backend.CodeInvalidConfig, Reason: "the key that signs is shorter than 24 bytes",
			Remedy: "make one: openssl rand -base64 32",
		}
	}
	h := hmac.New(sha256.New, key)
	_, _ = io.Copy(h, io.MultiReader(strings.NewReader(id+"."+stamp+"."), bytes.NewReader(body)))
	return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil)), nil
}
