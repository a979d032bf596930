package authprofiles

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/authstore"
)

var (
	_ backend.BatchGetter = (*Backend)(nil)
	_ backend.Prober      = (*Backend)(nil)
	_ backend.Checker     = (*Backend)(nil)
	_ backend.Lister      = (*Backend)(nil)
	_ backend.Describer   = (*Backend)(nil)
	_ backend.Writer      = (*writable)(nil)
)

// Backend reads the auth profiles of one agent. It is safe for concurrent use.
type Backend struct {
	config    Config
	home      authstore.Home
	lookupEnv func(string) (string, bool)
	found     found
}

// New gives a *Backend for the agent or store that c names; it is a backend.Writer too, unless c names a database.
func New(c Config, host backend.Host) (backend.Backend, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	b := &Backend{config: c, home: c.home(host), lookupEnv: host.LookupEnv}
	if b.lookupEnv == nil {
		b.lookupEnv = os.LookupEnv
	}
	if b.home.FilePath() != "" {
		return &writable{b}, nil
	}
	return b, nil
}

// Describe implements backend.Describer.
func (b *Backend) Describe() backend.Description {
	d := backend.Description{Fields: true}
	switch {
	case b.home.Path != "":
		d.Detail = b.home.Path
	case b.home.StateDir != "":
		d.Detail = fmt.Sprintf("agent %s of %s", b.agent(), b.home.StateDir)
	default:
		d.Detail = fmt.Sprintf("agent %s of this user", b.agent())
		d.CallerBound = true
	}
	return d
}

func (b *Backend) agent() string {
	if b.home.Agent == "" {
		return authstore.MainAgent
	}
	return b.home.Agent
}

// locate gives where the profiles are, for the environment of the moment.
func (b *Backend) locate() (authstore.Home, error) {
	h := b.home
	if h.Path == "" && h.StateDir == "" {
		home, _ := b.lookupEnv("HOME")
		if home == "" {
			home, _ = b.lookupEnv("USERPROFILE")
		}
		dir, err := authstore.DefaultStateDir(b.lookupEnv, home)
		if err != nil {
			return h, errNoHome
		}
		h.StateDir = dir
	}
	return h, nil
}

// Get implements backend.Backend.
func (b *Backend) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	results, err := b.GetBatch(ctx, []backend.Request{req})
	if err != nil {
		return nil, err
	}
	return results[0].Credential, results[0].Err
}

// GetBatch implements backend.BatchGetter. It reads each store once.
func (b *Backend) GetBatch(ctx context.Context, reqs []backend.Request) ([]backend.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	results := make([]backend.Result, len(reqs))
	pending := 0
	for i, req := range reqs {
		if results[i].Err = checkRequest(req); results[i].Err == nil {
			pending++
		}
	}
	if pending == 0 {
		return results, nil
	}
	stores, err := b.read(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for i, req := range reqs {
		if r := &results[i]; r.Err == nil {
			if r.Credential, r.Err = b.credential(stores, req.ID, now); r.Err == nil {
				b.found.add(stores.Version, req.ID, r.Credential.Expires)
			}
		}
	}
	return results, nil
}

func (b *Backend) read(ctx context.Context) (*authstore.Stores, error) {
	h, err := b.locate()
	if err != nil {
		return nil, err
	}
	return h.Read(ctx)
}

func checkRequest(req backend.Request) error {
	switch {
	case req.Version != "":
		return errVersion
	case req.ID == "":
		return errEmptyID
	}
	return nil
}

// credential gives the profile id as it may be used at now.
func (b *Backend) credential(stores *authstore.Stores, id string, now time.Time) (*backend.Credential, error) {
	p, _ := stores.Profile(id)
	switch {
	case p == nil:
		return nil, errNoID
	case p.Ref != nil:
		return nil, errRef(*p.Ref)
	case p.Secret.IsZero():
		return nil, errNothing
	case p.Masked():
		return nil, errMasked
	}
	switch p.Fence() {
	case authstore.RefreshRunning:
		return nil, errFence
	case authstore.RefreshFailed:
		return nil, errFailed
	case authstore.NoFence:
	}
	switch {
	case p.Invalid:
		return nil, errInvalid
	case p.Expires.IsZero() || p.Expires.After(now):
	case p.Type == authstore.TypeOAuth:
		return nil, errOAuth
	default:
		return nil, errExpired
	}
	c := &backend.Credential{Secret: p.Secret, Version: stores.Version, Expires: p.Expires, Metadata: metadata(p)}
	switch p.Type {
	case authstore.TypeAPIKey:
		c.Type = backend.TypeAPIKey
	case authstore.TypeToken:
		c.Type = backend.TypeToken
	case authstore.TypeOAuth:
		c.Type = backend.TypeOAuth2
		c.Fields = b.oauthFields(p)
		return c, nil
	}
	_ = p.Secret.Use(func(text []byte) error {
		c.Fields, _ = backend.FieldsFromJSON(text)
		return nil
	})
	return c, nil
}

// oauthFields are the members of an OAuth profile that are given as fields. A list, since a release may add a secret one.
func (b *Backend) oauthFields(p *authstore.Profile) map[string]backend.Secret {
	names := []string{"access", "expires", "email", "accountId", "projectId", "clientId", "enterpriseUrl", "tokenEndpoint", "issuer"}
	if b.config.RefreshTokens {
		names = append(names, "refresh", "idToken")
	}
	fields := make(map[string]backend.Secret, len(names))
	for _, name := range names {
		if v, has := p.Members[name]; has {
			fields[name] = v
		}
	}
	return fields
}

// metadata is what a profile says of itself. Of the profile's own metadata only our mark is taken: anybody may have put
// anything there.
func metadata(p *authstore.Profile) map[string]string {
	m := map[string]string{"provider": p.Provider}
	if p.Managed() {
		m["managed_by"] = authstore.ManagedBy
		for name, key := range map[string]string{"managed_ref": "ref", "managed_revision": "revision"} {
			if v := p.Metadata[key]; v != "" {
				m[name] = v
			}
		}
	}
	return m
}

// Probe implements backend.Prober. It looks at the stores and reads no secret, but where a database has it in the same row.
func (b *Backend) Probe(ctx context.Context) error {
	h, err := b.locate()
	if err != nil {
		return err
	}
	_, err = h.Version(ctx)
	return err
}

// CurrentVersion implements backend.Checker. It reads profiles only when a store has changed since the id was last found.
func (b *Backend) CurrentVersion(ctx context.Context, req backend.Request) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := checkRequest(req); err != nil {
		return "", err
	}
	h, err := b.locate()
	if err != nil {
		return "", err
	}
	version, err := h.Version(ctx)
	if err != nil {
		return "", err
	}
	if b.found.has(version, req.ID, time.Now()) {
		return version, nil
	}
	c, err := b.Get(ctx, req)
	if err != nil {
		return "", err
	}
	return c.Version, nil
}

// List implements backend.Lister. It yields every profile, also one that cannot be read here.
func (b *Backend) List(ctx context.Context, prefix string) iter.Seq2[backend.Entry, error] {
	return func(yield func(backend.Entry, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(backend.Entry{}, err)
			return
		}
		stores, err := b.read(ctx)
		if err != nil {
			yield(backend.Entry{}, err)
			return
		}
		ids := make(map[string]struct{})
		for _, s := range []*authstore.Store{stores.Own, stores.Base} {
			if s != nil {
				for id := range s.Profiles {
					ids[id] = struct{}{}
				}
			}
		}
		for _, id := range slices.Sorted(maps.Keys(ids)) {
			if strings.HasPrefix(id, prefix) && !yield(backend.Entry{ID: id, Version: stores.Version}, nil) {
				return
			}
		}
	}
}
