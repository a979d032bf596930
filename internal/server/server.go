// Package server is the sidecar: it answers the HTTP API of package client on a Unix socket, and on loopback where asked to,
// from one resolver.
//
// What a request may see is decided in this order: the listener (socket, or TCP with its token and headers), who is calling
// (the peer of the connection, or the holder of a token or session), the caller's limits, the policy for each ref. Only then
// is the resolver asked, and nothing is written to the caller before the audit log has its lines.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/audit"
	"github.com/credresolve/credresolve/internal/metrics"
	"github.com/credresolve/credresolve/internal/notify"
	"github.com/credresolve/credresolve/internal/policy"
	"github.com/credresolve/credresolve/internal/sdnotify"
	"github.com/credresolve/credresolve/internal/sealed"
	"github.com/credresolve/credresolve/internal/statedir"
	"github.com/credresolve/credresolve/internal/tracing"
	"github.com/credresolve/credresolve/resolver"
)

// Options are what a Server is made of.
type Options struct {
	// Load reads the configuration, at the start and at each reload. It refuses a project file that is not trusted.
	Load func(context.Context) (*config.File, error)
	// Adjust changes the section serve of what Load gave, as the flags of the command do; nil: nothing. In a project file,
	// which may not say where the audit log goes, that is reset before.
	Adjust func(*config.Serve)
	// Project: the configuration lies in the working directory and was not named.
	Project bool
	// Open is how the configuration is opened; it names a state directory.
	Open config.Options
	// Version of the program.
	Version string
	// Log takes what an operator wants to know; no secrets reach it.
	Log *slog.Logger
	// Stdout is where an audit log goes that is to go there.
	Stdout *os.File
	// Copied gives the refs of which there are copies elsewhere, in OpenClaw's auth profiles; nil: there are none.
	Copied func() []credref.Ref
	// Revoked is called when a credential was revoked here, to remove the copies of it; nil: nobody.
	Revoked func(context.Context, credref.Ref) error
	// Ready is called once, when the sidecar is listening and has fetched what was declared; nil: nobody.
	Ready func()
}

// Server is a sidecar. Open makes one, Run lets it serve.
type Server struct {
	options  Options
	log      *slog.Logger
	resolver *resolver.Resolver
	audit    *audit.Log
	metrics  *metrics.Metrics
	tracing  *tracing.Tracing
	keeper   atomic.Pointer[sealed.Keeper] // nil: nothing is kept
	began    time.Time
	memory   string
	notify   *sdnotify.Notifier // nil: no service manager listens

	state       atomic.Pointer[state]
	reload      sync.Mutex          // held while the state changes
	subscribers *notify.Subscribers // nil: not started; guarded by reload
	sessions    sessions
	requests    atomic.Uint64
	watchers    atomic.Int64
	ready       readiness
	badAuth     failures
	conns       sync.Map // net.Conn to *conn
	plugins     plugins
	logins      logins
	health      health

	// streams is ended, and made anew, when what an open stream may see has changed.
	streams atomic.Pointer[streams]
}

// state is what a configuration says, replaced as a whole.
type state struct {
	file     *config.File
	serve    config.Serve
	policy   *policy.Policy
	tokens   tokens
	gate     *gate
	rates    *rates
	kinds    map[string]*config.Provider
	reloaded time.Time
}

type streams struct {
	ctx    context.Context
	cancel context.CancelFunc
}

func newStreams() *streams {
	ctx, cancel := context.WithCancel(context.Background())
	return &streams{ctx, cancel}
}

// Open reads the configuration and makes everything ready that can fail, without listening. Close or Run ends what it opened.
func Open(ctx context.Context, o Options) (_ *Server, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{options: o, log: o.Log, began: time.Now(), notify: sdnotify.New(o.Open.LookupEnv)}
	s.streams.Store(newStreams())
	file, err := o.Load(ctx)
	if err != nil {
		return nil, err
	}
	st, err := s.newState(file)
	if err != nil {
		return nil, err
	}
	for _, w := range file.Warnings() {
		s.log.Warn(w)
	}
	s.metrics = metrics.New(metrics.Settings{Version: o.Version, Routes: append(paths(), dropInPaths()...), Providers: providerNames(file), Consumers: st.policy.Names()})
	if s.tracing, err = tracing.Open(st.serve.Tracing, o.Version); err != nil {
		return nil, err
	}
	if err := statedir.Ensure(o.Open.StateDir); err != nil {
		return nil, backend.Errorf(backend.CodeInvalidConfig, "%v", err)
	}
	if s.audit, err = audit.Open(s.auditSettings(st)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.audit.Close()
		}
	}()
	if s.resolver, err = file.Open(s.openOptions()); err != nil {
		return nil, err
	}
	s.metrics.Watch(s.resolver)
	if err := s.checkPlugins(st); err != nil {
		_ = s.resolver.Close()
		return nil, err
	}
	s.keeper.Store(s.openKeeper(st))
	s.state.Store(st)
	return s, nil
}

// openOptions are those with which a configuration is opened.
func (s *Server) openOptions() config.Options {
	o := s.options.Open
	o.Observe, o.OnChange, o.LoginOnDemand = s.observe, s.changed, true
	return o
}

func (s *Server) newState(file *config.File) (*state, error) {
	serve := file.Serve()
	if s.options.Project && serve.Audit != (config.AuditSettings{}) {
		s.log.Warn("the project file's audit settings are ignored: what a project says must not silence the audit log")
		serve.Audit = config.AuditSettings{}
	}
	if s.options.Adjust != nil {
		s.options.Adjust(&serve)
	}
	p, err := policy.New(serve, file.Resolvable(), os.Geteuid())
	if err != nil {
		return nil, err
	}
	st := &state{file: file, serve: serve, policy: p, gate: newGate(serve.Limits), rates: new(rates), kinds: map[string]*config.Provider{}}
	if st.tokens, err = readTokens(serve); err != nil {
		return nil, err
	}
	for _, def := range file.Providers() {
		st.kinds[def.Name] = def
	}
	return st, nil
}

func providerNames(file *config.File) []string {
	var names []string
	for _, p := range file.Providers() {
		names = append(names, p.Name)
	}
	return names
}

func (s *Server) observe(c resolver.Call) {
	s.metrics.Observe(c)
	s.tracing.Observe(c)
}

func (s *Server) changed(c resolver.Change) {
	if k := s.keeper.Load(); k != nil {
		k.Changed(c)
	}
}

// Reload reads the configuration again, checks it as a whole, and swaps it in. A bad one changes nothing.
func (s *Server) Reload(ctx context.Context) (client.ReloadAnswer, error) {
	s.reload.Lock()
	defer s.reload.Unlock()
	_ = s.notify.Reloading()
	defer func() { _ = s.notify.Ready() }()
	file, err := s.options.Load(ctx)
	if err != nil {
		return client.ReloadAnswer{}, err
	}
	st, err := s.newState(file)
	if err != nil {
		return client.ReloadAnswer{}, err
	}
	old := s.state.Load()
	if err := s.audit.Apply(s.auditSettings(st)); err != nil {
		return client.ReloadAnswer{}, err
	}
	before := digests(s.resolver)
	if err := file.Apply(s.resolver, s.openOptions()); err != nil {
		return client.ReloadAnswer{}, errors.Join(err, s.audit.Apply(s.auditSettings(old)))
	}
	if err := s.checkPlugins(st); err != nil { // as each request of a plugin will be told
		s.log.Warn("plugins cannot keep secrets", "reason", err.Error())
	}
	st.reloaded = time.Now()
	s.state.Store(st)
	if err := s.subscribe(file.Events()); err != nil {
		s.log.Warn("the subscribers of events stay as they were", "reason", err.Error())
	}
	s.metrics.Allow(providerNames(file), st.policy.Names())
	s.streams.Swap(newStreams()).cancel() // clients come again, and are judged by the new policy
	answer := client.ReloadAnswer{
		Kept: []string{}, Replaced: []string{}, Removed: []string{},
		NeedsRestart: needsRestart(old.serve, st.serve), Warnings: append([]string{}, file.Warnings()...),
	}
	after := digests(s.resolver)
	for name, digest := range after {
		if before[name] == digest && digest != "" {
			answer.Kept = append(answer.Kept, name)
		} else {
			answer.Replaced = append(answer.Replaced, name)
		}
	}
	for name := range before {
		if _, there := after[name]; !there {
			answer.Removed = append(answer.Removed, name)
		}
	}
	for _, names := range [][]string{answer.Kept, answer.Replaced, answer.Removed} {
		slices.Sort(names)
	}
	s.log.Info("reloaded", "kept", answer.Kept, "replaced", answer.Replaced, "removed", answer.Removed)
	for _, name := range answer.NeedsRestart {
		s.log.Warn("this setting changed and holds only after a restart", "setting", name)
	}
	go s.prefetch(s.streams.Load().ctx, st)
	return answer, nil
}

// HandleReload is Reload for a signal: what is wrong is told in the log.
func (s *Server) HandleReload(ctx context.Context) {
	_, err := s.Reload(ctx)
	if err != nil {
		s.log.Error("the configuration is not reloaded, and stays as it was", "reason", err.Error())
	}
	if failed := s.auditLife(audit.EventReload, string(backend.CodeOf(err))); failed != nil {
		s.log.Error("a line of the audit log is lost", "event", audit.EventReload, "reason", failed.Error())
	}
}

func digests(r *resolver.Resolver) map[string]string {
	out := map[string]string{}
	for _, p := range r.Providers() {
		out[p.Name] = p.Digest
	}
	return out
}

// needsRestart names the settings that differ and that a reload does not change.
func needsRestart(old, now config.Serve) []string {
	out := []string{}
	for _, c := range []struct {
		name string
		same bool
	}{
		{"serve.socket", old.Socket == now.Socket},
		{"serve.tcp", old.TCP == now.TCP},
		{"serve.memory", old.Memory == now.Memory},
		{"serve.sealed", old.Sealed == now.Sealed},
		{"serve.tracing", old.Tracing.Endpoint == now.Tracing.Endpoint},
		{"serve.aws_agent.listen", old.AWSAgent.Listen == now.AWSAgent.Listen && old.AWSAgent.TokenFile == now.AWSAgent.TokenFile},
		{"serve.vault.listen", old.Vault.Listen == now.Vault.Listen && old.Vault.TokenFile == now.Vault.TokenFile},
		{"serve.container_credentials.listen", old.ContainerCredentials.Listen == now.ContainerCredentials.Listen && old.ContainerCredentials.TokenFile == now.ContainerCredentials.TokenFile},
		{"serve.limits.connections", old.Limits.Connections == now.Limits.Connections},
		{"serve.limits.header", old.Limits.Header == now.Limits.Header},
	} {
		if !c.same {
			out = append(out, c.name)
		}
	}
	return out
}

// requestID names a request in the audit log and in errors.
func (s *Server) requestID() string {
	return fmt.Sprintf("%x-%x", s.began.UnixNano()&0xffffffff, s.requests.Add(1))
}

// prefetch resolves what is declared, with jitter, and says how that went; it keeps trying what is not there until ctx ends.
func (s *Server) prefetch(ctx context.Context, st *state) {
	refs := make([]credref.Ref, len(st.serve.Prefetch))
	for i, p := range st.serve.Prefetch {
		refs[i] = p.Ref
	}
	s.ready.fetch(ctx, s.resolver, st.serve.Prefetch, func(ref credref.Ref, optional bool, err error) {
		s.log.Warn("a declared secret is not there", "ref", ref.String(), "optional", optional, "code", string(backend.CodeOf(err)))
	})
}
