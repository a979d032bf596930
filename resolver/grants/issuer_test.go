package grants_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// issuer is a provider whose refresh tokens are good once, as those of oidctest are, and that fails as a test wants it to.
type issuer struct {
	ttl     time.Duration // of tokens; zero: they tell no end
	advice  func(now time.Time) time.Time
	grace   bool // what was spent is good once more
	plain   bool // it gives no refresh token
	device  bool // it knows logins by device code alone
	revoked []string

	mu        sync.Mutex
	n         int
	spent     map[string]int
	exchanges int
	fail      error         // of the exchanges to come
	hold      chan struct{} // an exchange waits for it
	entered   chan struct{} // told of each exchange
	logins    map[string]*backend.LoginState
	starts    int
	probe     error
	deaf      error // of revocations
}

var (
	_ backend.Login            = (*issuer)(nil)
	_ backend.Refresher        = (*issuer)(nil)
	_ backend.GrantRevoker     = (*issuer)(nil)
	_ backend.CredentialProber = (*issuer)(nil)
)

func (i *issuer) Describe() backend.Description { return backend.Description{Login: true} }

func (i *issuer) Get(context.Context, backend.Request) (*backend.Credential, error) {
	return nil, backend.ErrAuthRequired
}

func (i *issuer) grant() *backend.Grant {
	i.n++
	n := strconv.Itoa(i.n)
	c := &backend.Credential{
		Type: backend.TypeOAuth2, Secret: backend.NewSecretString("access-c4nary-" + n), Metadata: map[string]string{"subject": "id1"},
		Fields: map[string]backend.Secret{"access_token": backend.NewSecretString("access-c4nary-" + n), "id_token": backend.NewSecretString("id-c4nary-" + n)},
	}
	if i.ttl > 0 {
		c.Expires = time.Now().Add(i.ttl)
	}
	if i.advice != nil {
		c.RefreshAfter = i.advice(time.Now())
	}
	g := &backend.Grant{Credential: c, About: map[string]string{"subject": "id1", "n": n}}
	if !i.plain {
		g.Refresh = backend.NewSecretString("refresh-c4nary-" + n)
	}
	return g
}

func (i *issuer) StartLogin(_ context.Context, _ backend.Request, o backend.LoginOptions) (backend.LoginState, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.device != o.Device {
		return backend.LoginState{}, backend.Errorf(backend.CodeUnsupported, "not so")
	}
	i.starts++
	s := &backend.LoginState{
		State: "state-" + strconv.Itoa(i.starts), Status: backend.LoginPending, URL: "https://issuer.example/login", Expires: time.Now().Add(10 * time.Minute),
	}
	if i.device {
		s.UserCode = "ABCD-" + strconv.Itoa(i.starts)
	}
	if i.logins == nil {
		i.logins = map[string]*backend.LoginState{}
	}
	i.logins[s.State] = s
	return *s, nil
}

// finish is what a person does.
func (i *issuer) finish(state string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if s := i.logins[state]; s.Status == backend.LoginPending {
		s.Status, s.Grant = backend.LoginSuccess, i.grant()
	}
}

func (i *issuer) SubmitLogin(ctx context.Context, state string, input map[string]backend.Secret) (backend.LoginState, error) {
	i.mu.Lock()
	hold := i.hold
	i.mu.Unlock()
	if hold != nil { // the exchange of a code
		i.entered <- struct{}{}
		<-hold
	}
	i.finish(state)
	return i.PollLogin(ctx, state)
}

func (i *issuer) PollLogin(_ context.Context, state string) (backend.LoginState, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := i.logins[state]
	if s == nil {
		return backend.LoginState{}, backend.ErrNotFound
	}
	out := *s
	s.Grant = nil
	return out, nil
}

func (i *issuer) CancelLogin(_ context.Context, state string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if s := i.logins[state]; s != nil && s.Status == backend.LoginPending {
		s.Status = backend.LoginCancelled
	}
	return nil
}

func (i *issuer) Refresh(ctx context.Context, _ backend.Request, have *backend.Grant) (*backend.Grant, error) {
	i.mu.Lock()
	i.exchanges++
	hold, entered := i.hold, i.entered
	i.mu.Unlock()
	if entered != nil {
		entered <- struct{}{}
	}
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.fail != nil {
		return nil, i.fail
	}
	if i.spent == nil {
		i.spent = map[string]int{}
	}
	text := string(have.Refresh.Reveal())
	i.spent[text]++
	if i.spent[text] > 1 && !i.grace {
		return nil, backend.Errorf(backend.CodeAuthRequired, "issuer.example: the refresh: invalid_grant")
	}
	return i.grant(), nil
}

func (i *issuer) RevokeGrant(_ context.Context, _ backend.Request, have *backend.Grant) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.deaf != nil {
		return i.deaf
	}
	i.revoked = append(i.revoked, string(have.Refresh.Reveal()))
	return nil
}

func (i *issuer) ProbeCredential(context.Context, backend.Request, *backend.Credential) error {
	if i.probe == nil {
		return errors.ErrUnsupported
	}
	return i.probe
}

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.exchanges
}

// ended gives the refresh tokens that were revoked.
func (i *issuer) ended() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.revoked)
}

func (i *issuer) deafTo(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.deaf = err
}

func (i *issuer) failing(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fail = err
}

// faulty is a token store that fails as a test wants it to.
type faulty struct {
	backend.Writer
	mu     sync.Mutex
	put    func(n int) error // of the n-th write since it was set
	get    error
	puts   int
	before func() // a write
}

func (f *faulty) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	f.mu.Lock()
	err := f.get
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return f.Writer.Get(ctx, req)
}

func (f *faulty) Put(ctx context.Context, req backend.Request, v backend.Value, cond backend.Condition) (string, error) {
	f.mu.Lock()
	f.puts++
	var err error
	if f.put != nil {
		err = f.put(f.puts)
	}
	before := f.before
	f.mu.Unlock()
	if before != nil {
		before()
	}
	if err != nil {
		return "", err
	}
	return f.Writer.Put(ctx, req, v, cond)
}

func (f *faulty) set(get error, put func(int) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.get, f.put, f.puts = get, put, 0
}

// weak is a Writer that does not compare.
type weak struct{ backend.Writer }

func (weak) Strength() backend.Strength { return backend.StrengthNone }
