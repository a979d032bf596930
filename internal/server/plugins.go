package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/audit"
)

const (
	secretsPrefix = "/v1/secrets/"
	pluginsPrefix = "/v1/plugins/"

	defaultPluginPrefix = "plugins"
	indexName           = "=keys" // which no name is escaped to

	maxPluginName = 128
	maxSecretKey  = 128
	maxSecretKeys = 512      // of one plugin
	maxSecret     = 64 << 10 // bytes of a value
	maxSecretBody = 6*maxSecret + 1024
	maxConflicts  = 16 // how often a change of an index is tried again that somebody else was quicker than
)

// plugins lets one request at a time change what a plugin keeps.
type plugins struct {
	mu   sync.Mutex
	busy map[string]*turn
}

type turn struct {
	place chan struct{}
	users int
}

// lock waits for the turn of a change.
func (p *plugins) lock(ctx context.Context, plugin string) (unlock func(), err error) {
	p.mu.Lock()
	if p.busy == nil {
		p.busy = map[string]*turn{}
	}
	t := p.busy[plugin]
	if t == nil {
		t = &turn{place: make(chan struct{}, 1)}
		p.busy[plugin] = t
	}
	t.users++
	p.mu.Unlock()
	leave := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(p.busy, plugin)
		}
	}
	select {
	case t.place <- struct{}{}:
		return func() { <-t.place; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// pluginSecrets are the secrets that one plugin keeps. Beside them the store has an index of their keys, so that all of them can
// be removed: a key is in it before its value is stored, and until after it is deleted.
type pluginSecrets struct {
	store    backend.Writer
	provider string
	dir      string // what all their ids begin with
}

// checkPlugins fails when plugins are to keep secrets where that cannot be done safely.
func (s *Server) checkPlugins(st *state) error {
	if st.serve.Plugins.Store == "" {
		return nil
	}
	_, err := s.secretsOf(st, "plugin")
	return err
}

// secretsOf gives the secrets of a plugin.
func (s *Server) secretsOf(st *state, plugin string) (*pluginSecrets, error) {
	settings := st.serve.Plugins
	if settings.Store == "" {
		return nil, &backend.Error{Code: backend.CodeUnsupported, Reason: "plugins keep no secrets here", Remedy: "name a provider for them: serve.plugins.store"}
	}
	if len(plugin) > maxPluginName {
		return nil, backend.Errorf(backend.CodeInvalidID, "the name of a plugin has at most %d bytes", maxPluginName)
	}
	b, err := s.resolver.Backend(settings.Store)
	if err != nil {
		return nil, err
	}
	w, err := backend.AsWriter(b)
	if err == nil && w.Strength() == backend.StrengthNone {
		err = backend.Errorf(backend.CodeUnsupported, "it cannot compare what it replaces")
	}
	if err != nil {
		return nil, &backend.Error{
			Code:   backend.CodeInvalidConfig,
			Reason: "the provider " + settings.Store + " cannot keep secrets of plugins: " + err.Error(),
			Remedy: "set serve.plugins.store to one that can be written, such as of kind keychain or vault",
		}
	}
	return &pluginSecrets{store: w, provider: settings.Store, dir: cmp.Or(settings.Prefix, defaultPluginPrefix) + "/" + escapeName(plugin) + "/"}, nil
}

// escapeName writes a name so that it is one part of an id in any store, and no two names are written alike, not even where a
// store takes upper and lower case for the same.
func escapeName(name string) string {
	const hex = "0123456789abcdef"
	dots := strings.Trim(name, ".") == ""
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.' && !dots:
			b.WriteByte(c)
		case 'A' <= c && c <= 'Z':
			b.WriteByte('+')
			b.WriteByte(c + 'a' - 'A')
		default:
			b.WriteByte('=')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}

// validKey reports whether key can be one of a plugin's.
func validKey(key string) bool {
	return key != "" && len(key) <= maxSecretKey && strings.Trim(key, ".") != "" && !strings.Contains(key, "..") &&
		!strings.ContainsFunc(key, func(c rune) bool {
			return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-'
		})
}

func (p *pluginSecrets) request(key string) backend.Request {
	return backend.Request{ID: p.dir + escapeName(key)}
}

func (p *pluginSecrets) ref(key string) credref.Ref {
	return credref.Ref{Provider: p.provider, ID: p.request(key).ID}
}

// get gives the secret of key; ErrNotFound when there is none.
func (p *pluginSecrets) get(ctx context.Context, key string) (backend.Secret, error) {
	c, err := p.store.Get(ctx, p.request(key))
	if err != nil {
		return backend.Secret{}, err
	}
	return plainSecret(c)
}

// plainSecret gives what was put as a plain secret; some stores keep it as the field "value".
func plainSecret(c *backend.Credential) (backend.Secret, error) {
	if !c.Secret.IsZero() {
		return c.Secret, nil
	}
	if v, ok := c.Fields["value"]; ok && len(c.Fields) == 1 {
		return v, nil
	}
	return backend.Secret{}, backend.Errorf(backend.CodeInternal, "what the store has there was not written by this program")
}

var errContended = &backend.Error{Code: backend.CodeConflict, Reason: "the plugin's secrets are being changed by another process", Remedy: "try again"}

// index gives the keys, in order, and the version of the list.
func (p *pluginSecrets) index(ctx context.Context) (keys []string, version string, err error) {
	c, err := p.store.Get(ctx, backend.Request{ID: p.dir + indexName})
	if errors.Is(err, backend.ErrNotFound) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	text, err := plainSecret(c)
	if err == nil {
		err = text.Use(func(b []byte) error { return json.Unmarshal(b, &keys) })
	}
	if err != nil || slices.ContainsFunc(keys, func(key string) bool { return !validKey(key) }) {
		return nil, "", &backend.Error{
			Code: backend.CodeInternal, Reason: "the list of the plugin's keys is damaged",
			Remedy: "write it anew as a JSON list of texts: cred://" + p.provider + "/" + p.dir + indexName,
		}
	}
	return keys, c.Version, nil
}

// alter lets change make another list of keys, which must not be the same slice; nil: it is to stay.
func (p *pluginSecrets) alter(ctx context.Context, change func(keys []string) ([]string, error)) error {
	for range maxConflicts {
		keys, version, err := p.index(ctx)
		if err != nil {
			return err
		}
		next, err := change(keys)
		if err != nil || next == nil {
			return err
		}
		text, err := json.Marshal(next)
		if err != nil {
			return backend.Errorf(backend.CodeInternal, "the list of the plugin's keys cannot be written")
		}
		cond := backend.Condition{Version: version, Absent: version == ""}
		_, err = p.store.Put(ctx, backend.Request{ID: p.dir + indexName}, backend.Value{Secret: backend.NewSecret(text)}, cond)
		if !errors.Is(err, backend.ErrConflict) {
			return err
		}
	}
	return errContended
}

// set keeps value under key.
func (p *pluginSecrets) set(ctx context.Context, key string, value backend.Secret) error {
	for range maxConflicts {
		added, err := p.list(ctx, key, maxSecretKeys)
		if err != nil {
			return err
		}
		if _, err = p.store.Put(ctx, p.request(key), backend.Value{Secret: value}, backend.Condition{}); err != nil {
			if added {
				_ = p.unlist(context.WithoutCancel(ctx), key)
			}
			return err
		}
		// Another sidecar may have deleted the key, or ended the plugin, meanwhile.
		keys, _, err := p.index(ctx)
		if err != nil {
			return err
		}
		if _, there := slices.BinarySearch(keys, key); there {
			return nil
		}
	}
	return errContended
}

// list adds key to the list, which may have no more than limit.
func (p *pluginSecrets) list(ctx context.Context, key string, limit int) (added bool, err error) {
	err = p.alter(ctx, func(keys []string) ([]string, error) {
		i, there := slices.BinarySearch(keys, key)
		switch added = !there; {
		case there:
			return nil, nil
		case len(keys) >= limit:
			return nil, &backend.Error{Code: backend.CodeDenied, Reason: "the plugin keeps as many secrets as it may", Remedy: "delete some"}
		}
		return slices.Insert(slices.Clone(keys), i, key), nil
	})
	return added, err
}

// unlist takes key from the list, unless it has a value again: another sidecar that set it in between found it listed.
func (p *pluginSecrets) unlist(ctx context.Context, key string) error {
	err := p.alter(ctx, func(keys []string) ([]string, error) {
		i, there := slices.BinarySearch(keys, key)
		if !there {
			return nil, nil
		}
		return append([]string{}, slices.Delete(slices.Clone(keys), i, i+1)...), nil
	})
	if err != nil {
		return err
	}
	return p.relist(ctx, key)
}

// relist lists a key that was just taken from the list if it has a value, or if that cannot be told.
func (p *pluginSecrets) relist(ctx context.Context, key string) error {
	_, err := p.get(ctx, key)
	if errors.Is(err, backend.ErrNotFound) {
		return nil
	}
	_, failed := p.list(context.WithoutCancel(ctx), key, math.MaxInt)
	if err = cmp.Or(err, failed); err != nil {
		return err
	}
	if _, err = p.get(ctx, key); errors.Is(err, backend.ErrNotFound) { // it was deleted once more
		return p.unlist(ctx, key)
	}
	return err
}

// remove deletes the secret of key; one that is not there is no error.
func (p *pluginSecrets) remove(ctx context.Context, key string) error {
	if err := p.store.Delete(ctx, p.request(key), backend.Condition{}); err != nil && !errors.Is(err, backend.ErrNotFound) {
		return err
	}
	return p.unlist(ctx, key)
}

// end deletes all secrets, and gives the keys that there were. All are tried; the error is the first.
func (p *pluginSecrets) end(ctx context.Context) (ended []string, err error) {
	for range maxConflicts {
		keys, version, err := p.index(ctx)
		if err != nil {
			return ended, err
		}
		var first error
		for _, key := range keys {
			err := p.store.Delete(ctx, p.request(key), backend.Condition{})
			if err != nil && !errors.Is(err, backend.ErrNotFound) {
				first = cmp.Or(first, err)
				continue
			}
			ended = append(ended, key)
		}
		if first != nil || version == "" {
			return ended, first
		}
		err = p.store.Delete(ctx, backend.Request{ID: p.dir + indexName}, backend.Condition{Version: version})
		switch {
		case err == nil || errors.Is(err, backend.ErrNotFound):
			for _, key := range keys { // what another sidecar set since stays, as if it were set after the end
				first = cmp.Or(first, p.relist(ctx, key))
			}
			return ended, first
		case !errors.Is(err, backend.ErrConflict):
			return ended, err
		}
	}
	return ended, errContended
}

// claims are names by which somebody might say for whom a request is. That comes from the connection alone.
var claims = [...]string{"plugin", "plugin_id", "plugin_name", "plugin_scope", "pluginid", "pluginname", "subject", "scope", "session", "session_id", "tenant", "end_user", "namespace"}

func isClaim(name string) bool {
	return slices.Contains(claims[:], strings.ReplaceAll(strings.ToLower(name), "-", "_"))
}

var errClaim = &backend.Error{
	Code: backend.CodeDenied, Reason: "the request says whose the secret is, which comes from the connection alone",
	Remedy: "leave plugin, subject and scope away",
}

// pluginRequest is a request of a plugin for one of its secrets.
type pluginRequest struct {
	*pluginSecrets
	plugin, key string
}

// pluginOf tells which plugin asks, and for what. What is refused is answered and audited.
func (s *Server) pluginOf(req *request) (*pluginRequest, bool) {
	refuse := func(err error) (*pluginRequest, bool) {
		if backend.CodeOf(err) == backend.CodeDenied {
			_ = s.auditOne(req, audit.EventDenial, nil, "secrets of plugins", err)
			s.metrics.Denied(req.caller.consumer.Name())
		}
		req.fail(err)
		return nil, false
	}
	for name := range req.r.Header {
		if name = strings.TrimPrefix(strings.TrimPrefix(name, "X-"), "Credresolve-"); isClaim(name) {
			return refuse(errClaim)
		}
	}
	query, err := url.ParseQuery(req.r.URL.RawQuery)
	for name := range query {
		if isClaim(name) {
			return refuse(errClaim)
		}
	}
	if err != nil || len(query) > 0 {
		return refuse(bad(http.StatusBadRequest, "the request takes no query", ""))
	}
	plugin := req.caller.subject.Plugin
	if plugin == "" {
		return refuse(&backend.Error{
			Code: backend.CodeDenied, Reason: "the caller is no plugin",
			Remedy: "give its consumer subject: {plugin: NAME} and secrets: [read, write], or start a session for one",
		})
	}
	key := strings.TrimPrefix(req.r.URL.Path, secretsPrefix)
	if !validKey(key) {
		return refuse(backend.Errorf(backend.CodeInvalidID, "a key has 1 to %d of the characters A-Z a-z 0-9 . _ - and no two dots in a row", maxSecretKey))
	}
	if err := allow(req.caller.limiter, 1); err != nil {
		s.metrics.Limited(req.caller.consumer.Name())
		return refuse(err)
	}
	secrets, err := s.secretsOf(req.state, plugin)
	if err != nil {
		return refuse(err)
	}
	return &pluginRequest{secrets, plugin, key}, true
}

// auditSecret writes the line of what a plugin did with a secret of its own. With an error it must not be told.
func (s *Server) auditSecret(req *request, p *pluginRequest, event string, err error) error {
	ref := p.ref(p.key)
	return s.auditOne(req, event, &ref, "plugin "+p.plugin, err)
}

func (s *Server) getSecret(req *request) {
	p, ok := s.pluginOf(req)
	if !ok {
		return
	}
	secret, err := func() (backend.Secret, error) {
		ctx, end, err := req.wait()
		if err != nil {
			return backend.Secret{}, err
		}
		defer end()
		return p.get(ctx, p.key)
	}()
	event := audit.EventReveal
	if err != nil {
		event = audit.EventFailure
	}
	if failed := s.auditSecret(req, p, event, err); failed != nil {
		err = failed
	}
	if err != nil {
		req.fail(absent(err))
		return
	}
	out := append(slices.Grow(req.out[:0], wireLen(secret)+64), '{')
	if secret.IsJSON() { // a plugin keeps texts alone
		_ = secret.Use(func(b []byte) error { secret = backend.NewSecret(b); return nil })
	}
	req.out = append(appendSecret(out, secret), "}\n"...)
	req.write(http.StatusOK, req.out)
}

// absent says of a key that is not there no more than that.
func absent(err error) error {
	if errors.Is(err, backend.ErrNotFound) {
		return backend.Errorf(backend.CodeNotFound, "the plugin keeps no such secret")
	}
	return err
}

func (s *Server) hasSecret(req *request) {
	p, ok := s.pluginOf(req)
	if !ok {
		return
	}
	err := func() error {
		ctx, end, err := req.wait()
		if err != nil {
			return err
		}
		defer end()
		_, err = p.get(ctx, p.key)
		return err
	}()
	if failed := s.auditSecret(req, p, audit.EventSecretHas, err); failed != nil {
		err = failed
	}
	if err != nil {
		req.fail(absent(err))
		return
	}
	req.w.Header()["Cache-Control"] = headerNoStore
	req.status = http.StatusOK
	req.w.WriteHeader(req.status)
}

func (s *Server) putSecret(req *request) {
	p, ok := s.pluginOf(req)
	if !ok {
		return
	}
	var body client.PluginSecret
	err := req.readSecret(&body, maxSecretBody, func(name string) error {
		if isClaim(name) {
			return errClaim
		}
		return nil
	}, "value", "value_base64")
	var value backend.Secret
	switch {
	case err != nil:
		if errors.Is(err, backend.ErrDenied) {
			_ = s.auditSecret(req, p, audit.EventDenial, err)
			s.metrics.Denied(req.caller.consumer.Name())
		}
	case body.Value != nil && body.ValueBase64 == nil:
		value = body.Value.Secret
	case body.ValueBase64 != nil && body.Value == nil:
		value = body.ValueBase64.Secret
	default:
		err = bad(http.StatusBadRequest, "the body must have value or value_base64", "")
	}
	if err == nil && value.Len() > maxSecret {
		err = bad(http.StatusRequestEntityTooLarge, "a secret of a plugin has at most 65536 bytes", "keep it elsewhere, and the key to it here")
	}
	if err != nil {
		req.fail(err)
		return
	}
	s.changeSecret(req, p, audit.EventSecretSet, func(ctx context.Context) error { return p.set(ctx, p.key, value) })
}

func (s *Server) deleteSecret(req *request) {
	p, ok := s.pluginOf(req)
	if !ok {
		return
	}
	s.changeSecret(req, p, audit.EventSecretDelete, func(ctx context.Context) error { return p.remove(ctx, p.key) })
}

// changeSecret answers a request that changes a secret.
func (s *Server) changeSecret(req *request, p *pluginRequest, event string, change func(context.Context) error) {
	err := func() error {
		ctx, end, err := req.wait()
		if err != nil {
			return err
		}
		defer end()
		unlock, err := s.plugins.lock(ctx, p.plugin)
		if err != nil {
			return err
		}
		defer unlock()
		defer s.resolver.Wrote(p.ref(p.key)) // the owner may have resolved it
		return change(ctx)
	}()
	if failed := s.auditSecret(req, p, event, err); err == nil {
		err = failed
	}
	if err != nil {
		req.fail(err)
		return
	}
	req.none()
}

func (s *Server) deletePlugin(req *request) {
	plugin := strings.TrimPrefix(req.r.URL.Path, pluginsPrefix)
	if err := (credref.Subject{Plugin: plugin}).Validate(); err != nil || plugin == "" || len(plugin) > maxPluginName {
		req.fail(backend.Errorf(backend.CodeInvalidID, "the name of a plugin has 1 to %d bytes and no control characters", maxPluginName))
		return
	}
	ctx, end, err := req.wait()
	if err != nil {
		req.fail(err)
		return
	}
	defer end()
	err = s.endPlugin(ctx, req.state, plugin)
	if failed := s.auditOne(req, audit.EventPluginEnd, nil, plugin, err); err == nil {
		err = failed
	}
	if err != nil {
		req.fail(err)
		return
	}
	req.none()
}

// endPlugin ends the sessions of a plugin, then its secrets, and what is kept for it. All is tried; the error is the first.
func (s *Server) endPlugin(ctx context.Context, st *state, plugin string) (first error) {
	for _, one := range s.sessions.of(func(sub credref.Subject) bool { return sub.Plugin == plugin }) {
		_, err := s.endSession(ctx, one.ID)
		if errors.Is(err, backend.ErrNotFound) {
			continue // it ended by itself
		}
		first = cmp.Or(first, err)
		s.auditSession(one, audit.EventSessionEnd, "its plugin ended")
	}
	first = cmp.Or(first, s.endLogins(ctx, func(sub credref.Subject) bool { return sub.Plugin == plugin }, ""))
	first = cmp.Or(first, s.resolver.EndPlugin(ctx, plugin))
	if st.serve.Plugins.Store == "" {
		return first
	}
	secrets, err := s.secretsOf(st, plugin)
	if err != nil {
		return cmp.Or(first, err)
	}
	unlock, err := s.plugins.lock(ctx, plugin)
	if err != nil {
		return cmp.Or(first, err)
	}
	defer unlock()
	ended, err := secrets.end(ctx)
	for _, key := range ended {
		s.resolver.Wrote(secrets.ref(key))
	}
	return cmp.Or(first, err)
}
