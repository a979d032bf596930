package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/credresolve/credresolve/backend"
)

// session is one token, from its login to its end. It is safe for concurrent use.
type session struct {
	client    *api.Client // holds the token
	static    bool        // the token was handed over, not given by a login
	reject    func()      // tells the source of a static token that it was refused
	granted   time.Duration
	renewable bool
	expires   atomic.Int64 // Unix nanoseconds; 0: never, or unknown
	ended     context.Context
	end       context.CancelFunc
}

// left is how long the token still lives; far in the future when it does not end.
func (s *session) left() time.Duration {
	if at := s.expires.Load(); at != 0 {
		return time.Until(time.Unix(0, at))
	}
	return time.Duration(1<<63 - 1)
}

func (s *session) live() bool { return s.left() > 0 }

// grant sets the end of the token's life. Vault counts in whole seconds, and some tokens (batch) from the start of the second
// in which they were made: up to one second is missing at the end.
func (s *session) grant(from time.Time, ttl time.Duration) {
	if ttl > 0 {
		s.expires.Store(from.Add(ttl - min(time.Second, ttl/2)).UnixNano())
	}
}

// session gives the current session, after a login when there is none.
func (b *Backend) session(ctx context.Context) (*session, error) {
	if b.life.Err() != nil {
		return nil, errClosed
	}
	if s := b.current.Load(); s != nil && s.live() {
		return s, nil
	}
	return b.replace(ctx, nil, false)
}

// replace gives a session other than old, by a login that all who need one at a time share. dead says that the server no
// longer knows old's token.
func (b *Backend) replace(ctx context.Context, old *session, dead bool) (*session, error) {
	v, err := b.fly(ctx, "login", func(ctx context.Context) (any, error) {
		have := b.current.Load()
		if have != nil && have != old && have.live() {
			return have, nil // somebody was here between the question and the flight
		}
		if dead && old.static {
			old.reject()
		}
		s, err := b.login(ctx)
		if err != nil {
			return nil, err
		}
		if dead && old.static && s.client.Token() == old.client.Token() {
			s.end()
			old.end()
			b.current.CompareAndSwap(old, nil)
			return nil, b.authError("the token is not valid any more")
		}
		b.current.Store(s)
		if have != nil {
			have.end()
		}
		b.work(func() { b.keep(s) })
		return s, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*session), nil
}

// login makes a session.
func (b *Backend) login(ctx context.Context) (*session, error) {
	s := &session{}
	if methods()[b.settings.Auth.method()].static {
		token, reject, err := b.token(ctx)
		if err != nil {
			return nil, err
		}
		s.static, s.reject = true, reject
		if s.client, err = b.newClient(string(token.Reveal())); err != nil {
			return nil, err
		}
	} else {
		anonymous, err := b.newClient("")
		if err != nil {
			return nil, err
		}
		c, reject, err := b.loginCall(ctx)
		if err != nil {
			return nil, err
		}
		a, err := b.send(ctx, anonymous, c)
		clear(c.body)
		if err != nil {
			return nil, err
		}
		switch {
		case refused(a):
			reject()
			return nil, b.authError(fmt.Sprintf("the login by %s at %s was refused", b.settings.Auth.method(), c.about))
		case a.status == http.StatusNotFound:
			return nil, &backend.Error{Code: backend.CodeInvalidConfig, Reason: "no auth method is mounted at auth/" + b.settings.Auth.mount(),
				Remedy: "correct auth.mount, or auth.method"}
		}
		if err := b.failure(a, c.about); err != nil {
			return nil, err
		}
		switch {
		case a.Auth == nil:
			return nil, b.garbled(c.about)
		case a.Auth.ClientToken == "" && len(a.Auth.MFARequirement) > 0:
			return nil, b.authError("the login at " + c.about + " wants a second factor, which a program cannot give")
		case a.Auth.ClientToken == "":
			return nil, b.garbled(c.about)
		}
		s.granted, s.renewable = time.Duration(a.Auth.LeaseDuration)*time.Second, a.Auth.Renewable
		s.grant(a.sent, s.granted)
		if s.client, err = b.newClient(a.Auth.ClientToken); err != nil {
			return nil, err
		}
	}
	s.ended, s.end = context.WithCancel(b.life)
	return s, nil
}

// dead decides what a 403 means: Vault gives it for what a policy denies and for a token that it does not know.
func (b *Backend) dead(ctx context.Context, s *session) (bool, error) {
	v, err := b.fly(ctx, fmt.Sprintf("alive %p", s), func(ctx context.Context) (any, error) {
		a, err := b.send(ctx, s.client, call{method: http.MethodGet, path: "auth/token/lookup-self"})
		if err != nil {
			return false, err
		}
		a.wipe()
		if a.status != http.StatusForbidden {
			return false, b.failure(a, "auth/token/lookup-self")
		}
		// A token without the default policy may not even look itself up. But the server tells every token that it
		// knows whether a mount exists, and words the refusal in its own way.
		a, err = b.send(ctx, s.client, call{method: http.MethodGet, path: "sys/internal/ui/mounts/cubbyhole"})
		if err != nil {
			return false, err
		}
		return a.status == http.StatusForbidden && !a.says("preflight capability check"), nil
	})
	if err != nil {
		return false, err
	}
	return v.(bool), nil
}

// do makes a call with the current session, and once more with a new one when its token turns out to be dead.
func (b *Backend) do(ctx context.Context, c call) (*answer, error) {
	s, err := b.session(ctx)
	if err != nil {
		return nil, err
	}
	a, _, err := b.doWith(ctx, s, c)
	return a, err
}

// doWith is do from a session that the caller has; it also gives the session that was answered.
func (b *Backend) doWith(ctx context.Context, s *session, c call) (*answer, *session, error) {
	a, err := b.send(ctx, s.client, c)
	if err != nil || a.status != http.StatusForbidden {
		return a, s, err
	}
	dead, err := b.dead(ctx, s)
	if err != nil || !dead {
		return a, s, err
	}
	if s, err = b.replace(ctx, s, true); err != nil {
		return nil, nil, err
	}
	a, err = b.send(ctx, s.client, c)
	return a, s, err
}

// renewAt is the part of a token's life after which it is renewed; some tenth of it is jitter, so that the sessions of
// many processes started together spread out.
func renewAt(ttl time.Duration) time.Duration {
	return time.Duration(float64(ttl) * (0.60 + 0.07*rand.Float64()))
}

// keep renews a session while it may be renewed, and replaces it before it ends. Its errors are nobody's: when all fails
// the session ends, and who asks next tries a login and hears why it cannot be.
func (b *Backend) keep(s *session) {
	if s.static {
		// Commands that run for a moment do not pay for knowing how long their token lives.
		if !pause(s.ended, time.Second) || !b.measure(s) {
			return
		}
	}
	if s.granted == 0 {
		return
	}
	for wait := renewAt(s.left()); pause(s.ended, wait); {
		if s.renewable {
			ttl, err := b.renew(s)
			switch {
			case err == nil && (s.static || ttl >= s.granted*9/10):
				wait = renewAt(s.left())
				if wait < time.Second && ttl < s.granted*9/10 {
					return // its greatest life ends, and nothing can replace it
				}
				continue
			case err == nil: // near the end of its greatest life
			case backend.CodeOf(err).Retryable() && s.live():
				wait = max(s.left()/4, 200*time.Millisecond)
				continue
			}
		}
		if s.static {
			return
		}
		_, err := b.replace(s.ended, s, false)
		if err == nil || !backend.CodeOf(err).Retryable() || !s.live() {
			return
		}
		wait = max(s.left()/4, 200*time.Millisecond)
	}
}

// measure learns how long a static token lives; false when it never ends or cannot be told.
func (b *Backend) measure(s *session) bool {
	a, err := b.send(s.ended, s.client, call{method: http.MethodGet, path: "auth/token/lookup-self"})
	if err != nil {
		return false
	}
	defer a.wipe()
	var data struct {
		TTL       int64 `json:"ttl"`
		Renewable bool  `json:"renewable"`
	}
	if a.status != http.StatusOK || json.Unmarshal(a.Data, &data) != nil || data.TTL <= 0 {
		return false
	}
	s.granted, s.renewable = time.Duration(data.TTL)*time.Second, data.Renewable
	s.grant(a.sent, s.granted)
	return s.renewable
}

// renew prolongs a session's token and gives the time it has then.
func (b *Backend) renew(s *session) (time.Duration, error) {
	a, err := b.send(s.ended, s.client, call{method: http.MethodPut, path: "auth/token/renew-self", body: []byte("{}")})
	if err != nil {
		return 0, err
	}
	if err := b.failure(a, "auth/token/renew-self"); err != nil {
		return 0, err
	}
	if a.Auth == nil || a.Auth.LeaseDuration <= 0 {
		return 0, b.garbled("auth/token/renew-self")
	}
	ttl := time.Duration(a.Auth.LeaseDuration) * time.Second
	s.grant(a.sent, ttl)
	return ttl, nil
}

// pause waits, and reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
