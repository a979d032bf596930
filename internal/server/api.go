package server

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/audit"
	"github.com/credresolve/credresolve/internal/listen"
	"github.com/credresolve/credresolve/internal/metrics"
	"github.com/credresolve/credresolve/internal/policy"
	"github.com/credresolve/credresolve/resolver"
)

// route is one operation of the API. The OpenAPI document is made of the same table.
type route struct {
	method, path string
	handle       func(*Server, *request)
	may          policy.Permission // that a caller needs; empty: being known is enough
	health       bool              // answered also when all places are taken, and without a turn
	open         bool              // answered to anybody whom the listener admits
	stream       bool              // takes no turn: it has a limit of its own

	summary     string
	query       []parameter
	takes       any // type of the body; nil: none
	gives       any // type of the answer; nil: none
	contentType string
	codes       []backend.Code // that answers of the request as a whole may have, beside those of all
}

type parameter struct{ name, about string }

// routes is every operation.
func routes() []route {
	demand := []parameter{
		{"min_freshness", "how much longer the credential must live, such as 5m; one that ends sooner is fetched anew"},
		{"max_stale", "how far past its time a value may be while its store is unavailable, such as 0s"},
		{"no_cache", "true: fetch from the store, at most once a second"},
		{"timeout", "how long to wait, such as 2s; then the code is timeout"},
	}
	ofOne := []backend.Code{backend.CodeNotFound, backend.CodeInvalidID, backend.CodeLocked, backend.CodeExpired, backend.CodeTimeout, backend.CodeInternal}
	ofLogin := append([]backend.Code{backend.CodeConflict, backend.CodeUnsupported}, ofOne...)
	return []route{
		{method: "POST", path: "/v1/resolve", handle: (*Server).postResolve,
			summary: "Resolve refs. The answer has a result for each, in their order; its status is 200 whenever the request itself is good.",
			takes:   client.ResolveRequest{}, gives: client.ResolveAnswer{}},
		{method: "GET", path: "/v1/resolve", handle: (*Server).getResolve,
			summary: "Resolve one ref. It has an ETag, and is answered 304 where If-None-Match has it.",
			query:   append([]parameter{{"ref", "the short form of one ref, percent-encoded"}}, demand...), gives: client.Result{},
			codes: ofOne},
		{method: "GET", path: "/v1/watch", handle: (*Server).watch, stream: true,
			summary: "Watch refs: server-sent events, without values. First comes how each ref stands; with Last-Event-ID only what changed since.",
			query:   []parameter{{"ref", "the short form of a ref, percent-encoded; may be repeated"}}, gives: client.WatchEvent{}, contentType: "text/event-stream"},
		{method: "POST", path: "/v1/report", handle: (*Server).report,
			summary: "Tell that the value of a revision was refused; the answer is a newer one if there is.",
			takes:   client.ReportRequest{}, gives: client.Result{}, codes: ofOne},
		{method: "POST", path: "/v1/explain", handle: (*Server).explain,
			summary: "Tell how a ref stands: where it is looked for, since when it is known, when it is refreshed. Nothing is fetched, and no value is told.",
			takes:   client.ExplainRequest{}, gives: client.Explanation{}, codes: []backend.Code{backend.CodeInvalidID}},
		{method: "POST", path: "/v1/invalidate", handle: (*Server).invalidate, may: policy.Invalidate,
			summary: "End what is known of a ref, of a provider, or of what of it begins with a prefix; for the webhooks of stores.",
			takes:   client.InvalidateRequest{}, gives: client.InvalidateAnswer{}},
		{method: "POST", path: "/v1/revoke", handle: (*Server).revoke, may: policy.Revoke,
			summary: "End a credential here, in sealed copies, and at its store.",
			takes:   client.RevokeRequest{}, codes: append([]backend.Code{backend.CodeUnsupported}, ofOne...)},
		{method: "POST", path: "/v1/sessions", handle: (*Server).postSession, may: policy.Sessions,
			summary: "Begin a session: a token with an allow-list of refs, a subject and an end.",
			takes:   client.SessionRequest{}, gives: client.Session{}},
		{method: "GET", path: "/v1/sessions", handle: (*Server).getSessions, may: policy.Sessions,
			summary: "List sessions, without their tokens.", gives: client.SessionsAnswer{}},
		{method: "DELETE", path: "/v1/sessions/{id}", handle: (*Server).deleteSession, may: policy.Sessions,
			summary: "End a session and all that is of its scope.", codes: []backend.Code{backend.CodeNotFound}},
		{method: "GET", path: "/v1/secrets/{key}", handle: (*Server).getSecret, may: policy.SecretsRead,
			summary: "Give a secret that the plugin of the connection keeps. Which plugin that is comes from the connection alone.",
			gives:   client.PluginSecret{}, codes: ofOne},
		{method: "HEAD", path: "/v1/secrets/{key}", handle: (*Server).hasSecret, may: policy.SecretsRead,
			summary: "Tell whether the plugin keeps that secret. An error has its code in the header " + client.ErrorHeader + ".", codes: ofOne},
		{method: "PUT", path: "/v1/secrets/{key}", handle: (*Server).putSecret, may: policy.SecretsWrite,
			summary: "Keep a secret for the plugin, in the place of the one that it keeps under that key.",
			takes:   client.PluginSecret{}, codes: append([]backend.Code{backend.CodeConflict, backend.CodeUnsupported}, ofOne...)},
		{method: "DELETE", path: "/v1/secrets/{key}", handle: (*Server).deleteSecret, may: policy.SecretsWrite,
			summary: "Remove a secret of the plugin. One that is not there is no error.", codes: append([]backend.Code{backend.CodeConflict}, ofOne...)},
		{method: "DELETE", path: "/v1/plugins/{name}", handle: (*Server).deletePlugin, may: policy.Plugins,
			summary: "End a plugin: its secrets, its sessions, and all else that is of its scope.",
			codes:   append([]backend.Code{backend.CodeConflict}, ofOne...)},
		{method: "POST", path: "/v1/login/start", handle: (*Server).startLogin,
			summary: "Begin a login for the subject of the connection. Poll tells how it stands; what it gives stays here.",
			takes:   client.LoginRequest{}, gives: client.LoginState{}, codes: ofLogin},
		{method: "POST", path: "/v1/login/submit", handle: (*Server).submitLogin,
			summary: "Give what the person entered, by the names of the login's fields.",
			takes:   client.LoginInput{}, gives: client.LoginState{}, codes: ofLogin},
		{method: "POST", path: "/v1/login/poll", handle: (*Server).pollLogin,
			summary: "Tell how a login stands. One that is unknown, long over or somebody else's is not found.",
			takes:   client.LoginQuery{}, gives: client.LoginState{}, codes: ofLogin},
		{method: "POST", path: "/v1/login/cancel", handle: (*Server).cancelLogin,
			summary: "End a login, of which nothing is kept. One that is over already is no error.",
			takes:   client.LoginQuery{}, codes: ofLogin},
		{method: "POST", path: "/v1/logout", handle: (*Server).logout,
			summary: "End what a login gave, at its provider where that can be told, and here.",
			takes:   client.LoginRef{}, gives: client.LogoutAnswer{}, codes: ofLogin},
		{method: "GET", path: "/v1/logins", handle: (*Server).getLogins,
			summary: "Tell of the logins of the caller's subject for what the caller may resolve; the owner is told of all.",
			gives:   client.LoginsAnswer{}},
		{method: "POST", path: "/v1/refresh", handle: (*Server).refresh,
			summary: "Make a successor of what a login gave now, whether or not it is due.",
			takes:   client.LoginRef{}, gives: client.LoginEntry{}, codes: ofLogin},
		{method: "POST", path: "/v1/reload", handle: (*Server).postReload, may: policy.Reload,
			summary: "Read the configuration again. A bad one changes nothing.",
			gives:   client.ReloadAnswer{}, codes: []backend.Code{backend.CodeInvalidConfig}},
		{method: "GET", path: "/v1/status", handle: (*Server).status, may: policy.Status,
			summary: "Tell how the sidecar is.", gives: client.StatusAnswer{}},
		{method: "GET", path: "/v1/health", handle: (*Server).getHealth, may: policy.Status,
			summary: "Tell how providers and credentials stood when they were last looked at.",
			query: []parameter{
				{"now", "1: look first, which is the owner's alone"},
				{"executables", "1: with now, also where a program may be started for it"},
			}, gives: client.HealthAnswer{}, codes: []backend.Code{backend.CodeTimeout}},
		{method: "GET", path: "/v1/providers", handle: (*Server).getProviders,
			summary: "Tell of the providers of which the caller may resolve something.", gives: client.ProvidersAnswer{}},
		{method: "GET", path: "/livez", handle: (*Server).livez, health: true,
			summary: "Tell that the process answers.", gives: client.ReadyAnswer{}},
		{method: "GET", path: "/readyz", handle: (*Server).readyz, health: true,
			summary: "Tell whether all declared refs are there and how each provider stands. 503 until then.", gives: client.ReadyAnswer{}},
		{method: "GET", path: "/metrics", handle: (*Server).getMetrics, may: policy.Metrics, health: true,
			summary: "Metrics in the text format of Prometheus.", contentType: metrics.ContentType},
		{method: "GET", path: "/openapi.json", handle: (*Server).getOpenAPI,
			summary: "This document.", contentType: "application/json"},
	}
}

// paths are those of the routes.
func paths() []string {
	var out []string
	for _, r := range routes() {
		out = append(out, r.path)
	}
	return out
}

// api is the handler of the native API.
type api struct {
	s      *Server
	byPath map[string][]route
}

func newAPI(s *Server) *api {
	a := &api{s: s, byPath: map[string][]route{}}
	for _, r := range routes() {
		a.byPath[r.path] = append(a.byPath[r.path], r)
	}
	return a
}

// parts are the paths whose last part is a name, by what stands before it.
var parts = [...]struct{ prefix, path string }{
	{"/v1/sessions/", "/v1/sessions/{id}"},
	{secretsPrefix, "/v1/secrets/{key}"},
	{pluginsPrefix, "/v1/plugins/{name}"},
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	for _, p := range parts {
		if strings.HasPrefix(path, p.prefix) {
			path = p.path
		}
	}
	found := a.byPath[path]
	name := path
	if len(found) == 0 {
		name = otherPath
	}
	a.s.answer(w, r, nil, found, name)
}

const otherPath = "other"

// answer answers one request of a listener that speaks p; nil: the native API. found are the routes of its path, and name is
// what metrics call that.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, p *protocol, found []route, name string) {
	began := time.Now()
	req := requests.Get().(*request)
	defer req.release()
	req.w, req.r, req.protocol, req.conn, req.state, req.id = w, r, p, connOf(r.Context()), s.state.Load(), s.requestID()
	defer func() {
		if recover() != nil { // what it says is not known to be without secrets
			s.log.Error("a request made the sidecar panic", "route", name, "request", req.id)
			if req.status == 0 {
				req.fail(backend.Errorf(backend.CodeInternal, "the sidecar failed"))
			}
		}
		s.metrics.Request(name, req.status, time.Since(began))
	}()
	s.serve(req, found, name)
}

func (s *Server) serve(req *request, found []route, name string) {
	if len(req.r.TransferEncoding) > 0 {
		// It may have had a length too, by which somebody in between saw another end of it (RFC 9112, 6.1).
		req.w.Header().Set("Connection", "close")
	}
	if err := admit(req.conn, req.r); err != nil {
		req.fail(err)
		return
	}
	i := slices.IndexFunc(found, func(r route) bool { return r.method == req.r.Method })
	if i >= 0 && found[i].open {
		found[i].handle(s, req)
		return
	}
	var err error
	if req.caller, err = s.identify(req); err != nil {
		_ = s.auditOne(req, audit.EventDenial, nil, "no identity", err)
		req.fail(err)
		return
	}
	switch {
	case len(found) == 0:
		req.fail(bad(http.StatusNotFound, "there is no such path", "see /openapi.json"))
		return
	case i < 0:
		var methods []string
		for _, r := range found {
			methods = append(methods, r.method)
		}
		req.w.Header().Set("Allow", strings.Join(methods, ", "))
		req.fail(bad(http.StatusMethodNotAllowed, "this path does not take that method", "use "+strings.Join(methods, " or ")))
		return
	}
	to := &found[i]
	if !to.health && listen.IsReserve(req.conn.socket) {
		req.w.Header().Set("Connection", "close")
		req.fail(errFull)
		return
	}
	if to.may != "" {
		if d := req.caller.consumer.May(to.may); !d.Allowed {
			err := denial(req.caller.consumer.Name(), d.Reason)
			_ = s.auditOne(req, audit.EventDenial, nil, string(to.may), err)
			s.metrics.Denied(req.caller.consumer.Name())
			req.fail(err)
			return
		}
	}
	if !to.health && !to.stream {
		if err := req.state.gate.enter(req.r.Context()); err != nil {
			req.fail(err)
			return
		}
		req.placed = true
		defer req.leave()
	}
	if s.tracing.On() {
		var end func(status int)
		req.traced, end = s.tracing.Request(req.r.Context(), req.r.Header, req.r.Method+" "+name, req.caller.consumer.Name())
		defer func() { end(req.status) }()
	}
	to.handle(s, req)
}

func (s *Server) postResolve(req *request) {
	if err := req.receive(cmp.Or(req.state.serve.Limits.Body, defaultBody)); err != nil {
		req.fail(err)
		return
	}
	var body client.ResolveRequest
	asks, timeout, plain := plainRefs(string(req.body), req.asks[:0])
	body.Timeout = timeout
	if !plain {
		body.Timeout = 0
		if err := req.decode(&body); err != nil {
			req.fail(err)
			return
		}
		asks = asks[:0]
		for i := range body.Refs {
			asks = append(asks, ask{ref: body.Refs[i].Ref, ifRevision: body.Refs[i].IfRevision, exact: body.Refs[i].Exact})
		}
	}
	req.asks = asks
	if most := cmp.Or(req.state.serve.Limits.Batch, defaultBatch); len(asks) > most {
		req.fail(bad(http.StatusRequestEntityTooLarge, "the request has more refs than it may have", "send several requests"))
		return
	}
	req.patience = time.Duration(body.Timeout)
	answers, err := s.resolve(req, asks, demand(body.Demand))
	if err != nil {
		req.fail(err)
		return
	}
	need := 16
	for i := range answers {
		need += room(&answers[i])
	}
	out := append(slices.Grow(req.out[:0], need), `{"results":[`...)
	for i := range answers {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendResult(out, &answers[i])
	}
	req.out = append(out, "]}\n"...)
	req.write(http.StatusOK, req.out)
}

func demand(d client.Demand) resolver.Demand {
	out := resolver.Demand{MinFreshness: time.Duration(d.MinFreshness), NoCache: d.NoCache}
	if d.MaxStale != nil {
		stale := time.Duration(*d.MaxStale)
		out.MaxStale = &stale
	}
	return out
}

func (s *Server) getResolve(req *request) {
	one, d, patience, err := oneRef(req.r.URL.RawQuery)
	if err != nil {
		req.fail(err)
		return
	}
	req.patience = patience
	a := ask{ref: one, ifNoneMatch: strings.Join(req.r.Header["If-None-Match"], ",")}
	answers, err := s.resolve(req, append(req.asks[:0], a), d)
	if err != nil {
		req.fail(err)
		return
	}
	got := &answers[0]
	status := http.StatusOK
	if got.err != nil {
		status = backend.CodeOf(got.err).HTTPStatus()
	}
	s.writeOne(req, status, got)
}

// writeOne answers with a result alone.
func (s *Server) writeOne(req *request, status int, a *answer) {
	h := req.w.Header()
	if a.value != nil {
		h["Etag"] = []string{`"` + a.value.Revision() + `"`}
	}
	if a.unchanged && req.r.Method == http.MethodGet {
		h["Cache-Control"] = headerNoStore
		req.status = http.StatusNotModified
		req.w.WriteHeader(req.status)
		return
	}
	if after := backend.RetryAfter(a.err); after > 0 {
		h["Retry-After"] = []string{seconds(after)}
	}
	req.out = append(appendResult(slices.Grow(req.out[:0], room(a)), a), '\n')
	req.write(status, req.out)
}

// oneRef reads the query of GET /v1/resolve. What is wrong with it is told without what it holds.
func oneRef(query string) (ref credref.Ref, d resolver.Demand, patience time.Duration, err error) {
	seen := false
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		name, value, _ := strings.Cut(pair, "=")
		if value, err = url.QueryUnescape(value); err != nil {
			return ref, d, 0, bad(http.StatusBadRequest, "the query is not percent-encoded", "")
		}
		switch name {
		case "ref":
			if seen {
				return ref, d, 0, bad(http.StatusBadRequest, "the query names more than one ref", "use POST for several")
			}
			seen = true
			if ref, err = credref.Parse(value); err != nil {
				return ref, d, 0, bad(http.StatusBadRequest, err.Error(), "")
			}
		case "min_freshness", "max_stale", "timeout":
			v, err := time.ParseDuration(value)
			if err != nil || v < 0 {
				return ref, d, 0, bad(http.StatusBadRequest, name+" must be a duration such as 30s", "")
			}
			switch name {
			case "max_stale":
				d.MaxStale = &v
			case "timeout":
				patience = v
			default:
				d.MinFreshness = v
			}
		case "no_cache":
			if value != "true" && value != "false" {
				return ref, d, 0, bad(http.StatusBadRequest, "no_cache must be true or false", "")
			}
			d.NoCache = value == "true"
		case "":
		default:
			return ref, d, 0, bad(http.StatusBadRequest, "the query has an unknown parameter", "known: ref, min_freshness, max_stale, no_cache, timeout; percent-encode the ref")
		}
	}
	if !seen {
		return ref, d, 0, bad(http.StatusBadRequest, "the query names no ref", "send ?ref=cred%3A%2F%2Fapp%2Fkv%2Fapp%2Fdb%23password")
	}
	return ref, d, patience, nil
}

func (s *Server) report(req *request) {
	var body client.ReportRequest
	if err := req.read(&body, defaultBody); err != nil {
		req.fail(err)
		return
	}
	answers := []answer{{ref: body.Ref}}
	a := &answers[0]
	if err := a.ref.Validate(); err != nil {
		req.fail(bad(http.StatusBadRequest, err.Error(), ""))
		return
	}
	if err := allow(req.caller.limiter, 1); err != nil {
		req.fail(err)
		return
	}
	status := http.StatusOK
	// What the caller calls a revision is not repeated: it may be anything.
	if err := s.auditOne(req, audit.EventReport, &a.ref, "", nil); err != nil {
		req.fail(err)
		return
	}
	if d := req.caller.consumer.Resolve(a.ref); !d.Allowed {
		a.rule, a.denied, a.err = d.Rule, true, denial(req.caller.consumer.Name(), d.Reason)
	} else {
		a.rule = d.Rule
		ctx, end, err := req.wait()
		if err != nil {
			req.fail(err)
			return
		}
		defer end()
		a.value, a.err = req.caller.view.Report(ctx, a.ref, body.Revision)
		if e, ok := a.err.(*resolver.RefError); ok {
			a.err = e.Err
		}
		a.unchanged = a.value != nil && a.value.Revision() == body.Revision
	}
	if a.err != nil {
		status = backend.CodeOf(a.err).HTTPStatus()
	}
	if err := s.auditAnswers(req, answers); err != nil {
		req.fail(err)
		return
	}
	s.writeOne(req, status, a)
}

func (s *Server) invalidate(req *request) {
	var body client.InvalidateRequest
	if err := req.read(&body, defaultBody); err != nil {
		req.fail(err)
		return
	}
	ref := body.Ref
	if ref != nil {
		if err := ref.Validate(); err != nil {
			req.fail(bad(http.StatusBadRequest, err.Error(), ""))
			return
		}
	}
	if (ref == nil) == (body.Provider == "") || ref != nil && body.Prefix != "" {
		req.fail(bad(http.StatusBadRequest, "name either a ref, or a provider with or without a prefix", ""))
		return
	}
	provider := body.Provider
	if ref != nil {
		provider = ref.Provider
	}
	if _, err := s.resolver.Backend(provider); err != nil {
		req.fail(err)
		return
	}
	var n int
	if ref != nil {
		n = s.resolver.Forget(*ref)
	} else {
		n = s.resolver.Invalidate(provider, body.Prefix)
	}
	if ref == nil {
		ref = &credref.Ref{Provider: provider, ID: cmp.Or(body.Prefix, "*")}
	}
	if err := s.auditOne(req, audit.EventInvalidate, ref, "", nil); err != nil {
		req.fail(err)
		return
	}
	req.json(http.StatusOK, client.InvalidateAnswer{Ended: n})
}

func (s *Server) revoke(req *request) {
	var body client.RevokeRequest
	if !req.readRef(&body, &body.Ref) {
		return
	}
	d := req.caller.consumer.Resolve(credref.Ref{Provider: body.Ref.Provider, ID: body.Ref.ID, Version: body.Ref.Version}) // all of it ends
	if !d.Allowed {
		err := denial(req.caller.consumer.Name(), d.Reason)
		_ = s.auditOne(req, audit.EventDenial, &body.Ref, d.Rule, err)
		req.fail(err)
		return
	}
	ctx, end, err := req.wait()
	if err != nil {
		req.fail(err)
		return
	}
	defer end()
	err = req.caller.view.Revoke(ctx, body.Ref)
	if req.caller.subject == (credref.Subject{}) { // a copy is everybody's
		s.revoked(ctx, body.Ref) // also of what this process does not know, or cannot end at its store
	}
	if k := s.keeper.Load(); k != nil {
		if kept := k.Flush(ctx); err == nil {
			err = kept
		}
	}
	if e, ok := err.(*resolver.RefError); ok {
		err = e.Err
	}
	if failed := s.auditOne(req, audit.EventRevoke, &body.Ref, d.Rule, err); err == nil {
		err = failed
	}
	if err != nil {
		req.fail(err)
		return
	}
	req.none()
}

// none answers that it is done.
func (req *request) none() {
	req.w.Header()["Cache-Control"] = headerNoStore
	req.status = http.StatusNoContent
	req.w.WriteHeader(req.status)
}

func (s *Server) postSession(req *request) {
	var body client.SessionRequest
	if err := req.read(&body, defaultBody); err != nil {
		req.fail(err)
		return
	}
	one, token, err := s.startSession(req.state, body)
	if err != nil {
		req.fail(err)
		return
	}
	rec := req.record(time.Now())
	rec.Event, rec.Session, rec.Reason, rec.Outcome = audit.EventSessionStart, one.ID, cmp.Or(body.Reason, "for "+one.Consumer), backend.CodeOK
	if err := s.audit.Write(append(req.records[:0], rec)); err != nil {
		_, _ = s.endSession(req.ctx(), one.ID)
		req.fail(err)
		return
	}
	answer := one.Session
	answer.Token = token
	req.json(http.StatusCreated, answer)
}

func (s *Server) getSessions(req *request) {
	req.json(http.StatusOK, client.SessionsAnswer{Sessions: s.sessions.list()})
}

func (s *Server) deleteSession(req *request) {
	id := strings.TrimPrefix(req.r.URL.Path, "/v1/sessions/")
	ctx, end, err := req.wait() // its leases end at their stores
	if err != nil {
		req.fail(err)
		return
	}
	defer end()
	one, err := s.endSession(ctx, id)
	if one != nil {
		s.auditSession(one, audit.EventSessionEnd, "ended")
	}
	if err != nil {
		req.fail(err)
		return
	}
	req.none()
}

func (s *Server) postReload(req *request) {
	answer, err := s.Reload(req.ctx())
	if failed := s.auditOne(req, audit.EventReload, nil, "", err); err == nil {
		err = failed
	}
	if err != nil {
		req.fail(err)
		return
	}
	req.json(http.StatusOK, answer)
}

func (s *Server) status(req *request) {
	st := req.state
	stats := s.resolver.Stats()
	ready, _ := s.ready.now()
	answer := client.StatusAnswer{
		Version: s.options.Version, PID: pid(), StartedAt: s.began.UTC(), Ready: ready,
		Config: st.file.Path(), ConfigSHA: st.file.SHA256(),
		Providers: s.providerStates(st, nil), Cache: client.CacheState{Entries: stats.Entries, Bytes: stats.Bytes},
		Sessions: s.sessions.len(), Watchers: int(s.watchers.Load()), Memory: s.memory,
	}
	if !st.reloaded.IsZero() {
		at := st.reloaded.UTC()
		answer.ReloadedAt = &at
	}
	req.json(http.StatusOK, answer)
}

func (s *Server) getProviders(req *request) {
	req.json(http.StatusOK, client.ProvidersAnswer{Providers: s.providerStates(req.state, req.caller.consumer)})
}

// providerStates tells of the providers of which who may resolve something; nil: of all.
func (s *Server) providerStates(st *state, who *policy.Consumer) []client.ProviderState {
	out := []client.ProviderState{}
	for _, p := range s.resolver.Providers() {
		if who != nil && !who.Sees(p.Name) {
			continue
		}
		one := client.ProviderState{
			Name: p.Name, Digest: p.Digest, Breaker: p.Breaker, Failures: p.Failures, Code: p.Code, Reason: p.Reason, Entries: p.Entries,
		}
		if def := st.kinds[p.Name]; def != nil {
			one.Kind = def.Kind
		}
		if b, err := s.resolver.Backend(p.Name); err == nil {
			one.CallerBound = backend.Describe(b).CallerBound
		}
		if !p.RetryAt.IsZero() {
			at := p.RetryAt.UTC()
			one.RetryAt = &at
		}
		one.Health = s.health.provider(p.Name, p.Digest)
		out = append(out, one)
	}
	return out
}

func (s *Server) livez(req *request) { req.json(http.StatusOK, client.ReadyAnswer{Ready: true}) }

func (s *Server) readyz(req *request) {
	ready, waiting := s.ready.now()
	answer := client.ReadyAnswer{Ready: ready, Waiting: waiting, Providers: map[string]backend.Code{}}
	for _, p := range s.resolver.Providers() {
		if !req.caller.consumer.Sees(p.Name) {
			continue
		}
		answer.Providers[p.Name] = backend.CodeOK
		if p.Breaker != "closed" {
			answer.Providers[p.Name] = cmp.Or(p.Code, backend.CodeUnavailable)
		}
	}
	status := http.StatusOK
	if !ready {
		status = http.StatusServiceUnavailable
	}
	req.json(status, answer)
}

func (s *Server) getMetrics(req *request) {
	h := req.w.Header()
	h.Set("Content-Type", metrics.ContentType)
	h["Cache-Control"] = headerNoStore
	req.status = http.StatusOK
	gate := req.state.gate
	_, _ = s.metrics.WriteTo(req.w, metrics.Now{
		Watchers: int(s.watchers.Load()), Sessions: s.sessions.len(), Requests: len(gate.slots) + int(gate.fetches.Load()), Queued: int(gate.waiting.Load()),
		AuditLost: s.audit.Lost(), SpansLost: s.tracing.Lost(), Health: s.health.gauges(),
	})
}

func (s *Server) getOpenAPI(req *request) { req.write(http.StatusOK, openAPI) }
