package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/internal/audit"
	"github.com/credresolve/credresolve/internal/harden"
	"github.com/credresolve/credresolve/internal/listen"
	"github.com/credresolve/credresolve/internal/resident"
)

func pid() int { return os.Getpid() }

// The times within which a client must send what it began to.
const (
	headTimeout  = 5 * time.Second
	bodyTimeout  = 30 * time.Second
	idleTimeout  = 2 * time.Minute
	revokingTime = 5 * time.Second // for revocations, after the last request
	closingTime  = 5 * time.Second // for what comes then
	answerMargin = 10 * time.Second
	restoreTime  = 10 * time.Second // for the key of the sealed copy
)

// place is a listener that is open, and who answers there.
type place struct {
	door    *door
	socket  net.Listener
	handler http.Handler
}

// Run serves until ctx ends; then it takes no more connections, lets requests under way finish within the grace period,
// revokes leases if so configured, and forgets everything. It closes what Open opened, also when it fails.
func (s *Server) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.end()) }()
	st := s.state.Load()
	report, err := harden.Apply(harden.Settings{Lock: st.serve.Memory.Lock})
	if err != nil {
		return err
	}
	s.memory = report.String()
	s.log.Info("memory", "protection", s.memory)
	places, err := s.listen(st)
	if err != nil {
		return err
	}
	if err := s.auditLife(audit.EventStart, "pid "+fmt.Sprint(pid())); err != nil {
		closeAll(places)
		return err
	}
	s.reload.Lock()
	err = s.subscribe(st.file.Events())
	s.reload.Unlock()
	if err != nil {
		closeAll(places)
		return err
	}
	s.restore(ctx)
	servers := make([]*http.Server, len(places))
	failed := make(chan error, 2*len(places))
	var serving sync.WaitGroup
	var lanes []*lane
	for i, p := range places {
		servers[i] = s.httpServer(st, p)
		watch := func(serve func(net.Listener) error, l net.Listener) {
			serving.Go(func() {
				if err := serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
					failed <- backend.Errorf(backend.CodeInternal, "the listener %s failed", p.door.name)
				}
			})
		}
		if p.door.token != nil {
			watch(servers[i].Serve, p.socket)
		} else {
			a := newLane(s, p.door, p.socket, p.handler)
			lanes = append(lanes, a)
			watch(a.serve, p.socket)
			watch(servers[i].Serve, a.rest)
		}
		s.log.Info("listening", "door", p.door.name, "address", p.socket.Addr().String())
	}
	life, stop := context.WithCancel(context.Background())
	defer stop()
	var background sync.WaitGroup
	background.Go(func() { s.become(life) })
	background.Go(func() { s.notify.Watchdog(life) })
	background.Go(func() { s.lookAtHealth(life) })

	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	_ = s.notify.Stopping()
	s.ready.end()
	stop()
	s.streams.Load().cancel()
	s.log.Info("stopping")
	grace, cancel := context.WithTimeout(context.Background(), cmp.Or(s.state.Load().serve.Grace, defaultGrace))
	defer cancel()
	closeAll(places)
	var draining sync.WaitGroup
	for _, a := range lanes {
		draining.Go(func() { a.drain(grace) })
	}
	for _, h := range servers {
		draining.Go(func() {
			if h.Shutdown(grace) != nil {
				_ = h.Close()
			}
		})
	}
	draining.Wait()
	serving.Wait()
	background.Wait()
	return err
}

// restore takes over what was kept for an outage, before anybody is answered.
func (s *Server) restore(ctx context.Context) {
	k := s.keeper.Load()
	if k == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, restoreTime)
	defer cancel()
	n, warning := k.Load(ctx)
	if warning != nil {
		s.log.Warn("what was kept for an outage is not used", "reason", warning.Error())
	}
	s.log.Info("restored for an outage", "secrets", n)
}

// become fetches what is declared, and says when the sidecar is ready.
func (s *Server) become(ctx context.Context) {
	var fetching sync.WaitGroup
	fetching.Go(func() { s.prefetch(ctx, s.state.Load()) })
	for {
		if ready, _ := s.ready.now(); ready {
			break
		}
		if sleep(ctx, 20*time.Millisecond); ctx.Err() != nil {
			break
		}
	}
	if ctx.Err() == nil {
		resident.Release()
		_ = s.notify.Ready()
		s.log.Info("ready")
		if s.options.Ready != nil {
			s.options.Ready()
		}
	}
	fetching.Wait()
}

// end revokes, wipes and closes what Open opened.
func (s *Server) end() error {
	s.revokeAtEnd()
	ctx, cancel := context.WithTimeout(context.Background(), closingTime)
	defer cancel()
	s.unsubscribe(ctx)
	var errs []error
	if k := s.keeper.Load(); k != nil {
		errs = append(errs, k.Close(ctx))
	}
	errs = append(errs, s.resolver.Close(), s.auditLife(audit.EventStop, ""), s.tracing.Close(ctx), s.audit.Close())
	// What nobody holds any more is zeroed by the collector: it runs twice, since the first run only finds it.
	runtime.GC()
	runtime.GC()
	return errors.Join(errs...)
}

// revokeAtEnd revokes leases if so configured, and what is revoked and was not ended at its store yet.
func (s *Server) revokeAtEnd() {
	ctx, cancel := context.WithTimeout(context.Background(), revokingTime)
	defer cancel()
	if s.state.Load().serve.RevokeOnExit {
		tell := s.watchCopies(ctx)
		n, err := s.resolver.RevokeLeases(ctx)
		tell()
		s.log.Info("revoked leases", "count", n)
		if err != nil {
			s.log.Warn("not all leases were revoked at once", "code", string(backend.CodeOf(err)))
		}
	}
	if left := s.resolver.FinishRevocations(ctx); left > 0 {
		s.log.Warn("what is revoked was not ended at its store", "count", left)
	}
}

func (s *Server) auditLife(event, reason string) error {
	return s.audit.Write([]audit.Record{{Time: time.Now(), Event: event, Consumer: config.OwnerName, Outcome: backend.CodeOK, Reason: reason}})
}

func (s *Server) httpServer(st *state, p place) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           p.handler,
		Protocols:         protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 128, MaxReadFrameSize: 64 << 10, MaxReceiveBufferPerConnection: 1 << 20, MaxReceiveBufferPerStream: 256 << 10},
		ReadHeaderTimeout: headTimeout, ReadTimeout: bodyTimeout, IdleTimeout: idleTimeout,
		WriteTimeout:   cmp.Or(st.serve.Limits.Timeout, defaultTimeout) + bodyTimeout + answerMargin,
		MaxHeaderBytes: cmp.Or(st.serve.Limits.Header, defaultHeader),
		ErrorLog:       log.New(discard{}, "", 0), // its lines may quote what a client sent
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if given, ok := c.(*givenConn); ok {
				return context.WithValue(ctx, connKey{}, given.c)
			}
			return s.meet(ctx, c, p.door)
		},
		ConnState: func(c net.Conn, state http.ConnState) {
			if state == http.StateClosed || state == http.StateHijacked {
				s.part(c)
			}
		},
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// listen opens every listener of the configuration, or none.
func (s *Server) listen(st *state) (places []place, err error) {
	defer func() {
		if err != nil {
			closeAll(places)
			places = nil
		}
	}()
	limits := st.serve.Limits
	add := func(d *door, l net.Listener, h http.Handler) {
		places = append(places, place{d, listen.Limit(l, cmp.Or(limits.Connections, defaultConnections), reservedForHealth), h})
	}
	native := newAPI(s)
	handed, err := listen.Activated(s.lookupEnv())
	if err != nil {
		return places, err
	}
	for _, l := range handed {
		d := &door{name: "socket"}
		if _, isTCP := l.Addr().(*net.TCPAddr); isTCP {
			d.name = "tcp"
			if st.serve.TCP.TokenFile == "" {
				_ = l.Close()
				return places, &backend.Error{Code: backend.CodeInvalidConfig, Reason: "a TCP socket was handed over, and there is no token for it", Remedy: "set serve.tcp.token_file"}
			}
			if d.token, err = listen.Token(st.serve.TCP.TokenFile); err != nil {
				return places, err
			}
		}
		add(d, l, native)
	}
	if len(handed) == 0 {
		path, err := s.socketPath(st)
		if err != nil {
			return places, err
		}
		l, err := listen.Unix(path, listen.Options{Group: st.serve.Socket.Group})
		if err != nil {
			return places, err
		}
		add(&door{name: "socket"}, l, native)
	}
	tcp := extra{name: "tcp", address: st.serve.TCP.Listen, tokenFile: st.serve.TCP.TokenFile, handler: native}
	if len(handed) > 0 {
		tcp.address = "" // systemd's unit says where
	}
	for _, t := range append([]extra{tcp}, s.dropIns(st.serve)...) {
		if t.address == "" {
			continue
		}
		d := &door{name: t.name, consumer: t.consumer}
		if d.token, err = listen.Token(t.tokenFile); err != nil {
			return places, err
		}
		l, err := listen.TCP(t.address)
		if err != nil {
			return places, err
		}
		add(d, l, t.handler)
	}
	return places, nil
}

// extra is a listener beside the socket: TCP, with a token.
type extra struct {
	name, address, tokenFile string
	consumer                 func(*config.Serve) string // as that of door
	handler                  http.Handler
}

func closeAll(places []place) {
	for _, p := range places {
		_ = p.socket.Close()
	}
}

func (s *Server) lookupEnv() func(string) (string, bool) {
	if s.options.Open.LookupEnv != nil {
		return s.options.Open.LookupEnv
	}
	return os.LookupEnv
}

func (s *Server) socketPath(st *state) (string, error) {
	if path := st.serve.Socket.Path; path != "" {
		return path, nil
	}
	path, err := client.SocketPath(s.lookupEnv())
	if err != nil {
		return "", backend.Errorf(backend.CodeInvalidConfig, "%v", err)
	}
	return path, nil
}
