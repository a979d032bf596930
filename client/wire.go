package client

import (
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// RequestHeader must be on each request to a TCP listener, with any value: a browser does not send it to another site without
// asking, and is not answered.
const RequestHeader = "X-Credresolve-Request"

// ErrorHeader has the code of the error in answers to HEAD, which have no body.
const ErrorHeader = "X-Credresolve-Error"

// ResolveRequest is the body of POST /v1/resolve.
type ResolveRequest struct {
	// Refs are the secrets that are asked for, answered in their order.
	Refs []RefQuery `json:"refs"`
	Demand
}

// RefQuery is a ref, and what the caller has of it.
type RefQuery struct {
	credref.Ref
	// IfRevision is the revision that the caller has: the answer to an equal one is unchanged, without the value.
	IfRevision string `json:"if_revision,omitempty"`
	// Exact: what is shared with others, a tenant's or everybody's, is no answer for the caller's subject.
	Exact bool `json:"exact,omitempty"`
}

// Demand is what a caller asks beyond refs.
type Demand struct {
	// MinFreshness is how much longer the credentials must live: one that ends sooner is fetched anew.
	MinFreshness Duration `json:"min_freshness,omitempty"`
	// MaxStale is how far past its time a value may be while its store is unavailable. Not set: as the provider has it.
	MaxStale *Duration `json:"max_stale,omitempty"`
	// NoCache fetches each secret from its store, at most once a second.
	NoCache bool `json:"no_cache,omitempty"`
	// Timeout is how long to wait for what must be fetched: then it has the error timeout, and the rest is answered. Not set,
	// or longer than the sidecar's own: that.
	Timeout Duration `json:"timeout,omitempty"`
}

// ResolveAnswer is the answer to POST /v1/resolve.
type ResolveAnswer struct {
	// Results are the answers, in the order of the refs.
	Results []Result `json:"results"`
}

// Result is what became of one ref: a value, unchanged, or an error.
type Result struct {
	Ref credref.Ref `json:"ref"`
	// Type says how the credential is used.
	Type backend.Type `json:"type,omitempty"`
	// Version is the store's own name of what was read.
	Version string `json:"version,omitempty"`
	// Revision tells one content from another; opaque, only for equality.
	Revision string `json:"revision,omitempty"`
	// ExpiresAt is when the store stops to accept the credential.
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	// RefreshAfter is when the store advised to fetch a successor.
	RefreshAfter *time.Time `json:"refresh_after,omitempty"`
	// Stale tells of a value that is given past its time, since its store is unavailable.
	Stale bool `json:"stale,omitempty"`
	// RefreshError is why the last fetch of a successor failed: the value may be used, but the next may not come in time.
	RefreshError *Error `json:"refresh_error,omitempty"`
	// Metadata tells about the secret and is never secret itself.
	Metadata map[string]string `json:"metadata,omitempty"`
	// Value is the secret that the ref selects; absent of a secret with several fields, where the ref names none.
	Value *Text `json:"value,omitempty"`
	// ValueBase64 stands in the place of value where that is not UTF-8.
	ValueBase64 *Bytes `json:"value_base64,omitempty"`
	// JSON: the value is the JSON text of a number, boolean, object or array of the store, not a text of its own.
	JSON bool `json:"json,omitempty"`
	// Fields are the parts of a structured secret, for a ref that names none.
	Fields map[string]FieldValue `json:"fields,omitempty"`
	// Unchanged: the caller has this revision already.
	Unchanged bool `json:"unchanged,omitempty"`
	// Error is why there is no value.
	Error *Error `json:"error,omitempty"`
}

// FieldValue is one field of a structured secret.
type FieldValue struct {
	// Value is the field's text.
	Value *Text `json:"value,omitempty"`
	// ValueBase64 stands in the place of value where that is not UTF-8.
	ValueBase64 *Bytes `json:"value_base64,omitempty"`
	// JSON: the value is the JSON text of a number, boolean, object or array of the store, not a text of its own.
	JSON bool `json:"json,omitempty"`
}

// Error is an error for a program. It holds no secret.
type Error struct {
	// Code is the kind of error.
	Code backend.Code `json:"code"`
	// Message says for a person what failed, why, and what to do next.
	Message string `json:"message"`
	// Retryable: another try may succeed.
	Retryable bool `json:"retryable"`
	// RetryAfterMS is how many milliseconds to wait before it.
	RetryAfterMS int64 `json:"retry_after_ms,omitempty"`
	// Login is how to log in, where the code is auth_required and the provider can tell.
	Login *Login `json:"login,omitempty"`
}

// Login is a login under way that a person must finish.
type Login struct {
	// URL is what the person opens.
	URL string `json:"url,omitempty"`
	// UserCode is what the person enters there.
	UserCode string `json:"user_code,omitempty"`
	// State names the login, for POST /v1/login/poll.
	State string `json:"state,omitempty"`
	// ExpiresAt is until when it can be finished.
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// ErrorAnswer is the answer to a request that failed as a whole.
type ErrorAnswer struct {
	Error Error `json:"error"`
	// RequestID is that of the request in the audit log.
	RequestID string `json:"request_id,omitempty"`
}

// ReportRequest is the body of POST /v1/report.
type ReportRequest struct {
	Ref credref.Ref `json:"ref"`
	// Revision is what a service refused.
	Revision string `json:"revision"`
}

// InvalidateRequest is the body of POST /v1/invalidate: a ref, or a provider, or what of a provider begins with prefix.
type InvalidateRequest struct {
	Ref      *credref.Ref `json:"ref,omitempty"`
	Provider string       `json:"provider,omitempty"`
	Prefix   string       `json:"prefix,omitempty"`
}

// InvalidateAnswer is the answer to POST /v1/invalidate.
type InvalidateAnswer struct {
	// Ended is how many secrets were known.
	Ended int `json:"ended"`
}

// RevokeRequest is the body of POST /v1/revoke.
type RevokeRequest struct {
	Ref credref.Ref `json:"ref"`
}

// SessionRequest is the body of POST /v1/sessions.
type SessionRequest struct {
	// Consumer is the name that the session has in the audit log; of a configured consumer, its rules hold too.
	Consumer string `json:"consumer"`
	// Allow are the refs that the session may resolve, in the short form: cred://app/kv/app/db#password.
	Allow []string `json:"allow"`
	// Secrets is what the session may do with the secrets of its own that the plugin of its subject keeps: read, write.
	Secrets []string `json:"secrets,omitempty"`
	// Login lets it log in and out for its refs, and refresh what a login gave.
	Login bool `json:"login,omitempty"`
	// Subject is for whom scoped providers resolve. Its session is that of this answer's id, unless it is given.
	Subject *Subject `json:"subject,omitempty"`
	// Reason stands in the audit log.
	Reason string `json:"reason,omitempty"`
	// TTL is how long the session lasts, at most 24h. Not set: 1h.
	TTL Duration `json:"ttl,omitempty"`
}

// Subject is for whom credentials are.
type Subject struct {
	Tenant  string `json:"tenant,omitempty"`
	EndUser string `json:"end_user,omitempty"`
	Session string `json:"session,omitempty"`
	Plugin  string `json:"plugin,omitempty"`
}

// Session is a session; Token is there only in the answer to POST /v1/sessions.
type Session struct {
	ID        string    `json:"id"`
	Token     string    `json:"token,omitempty"`
	Consumer  string    `json:"consumer"`
	Allow     []string  `json:"allow"`
	Secrets   []string  `json:"secrets,omitempty"`
	Login     bool      `json:"login,omitempty"`
	Subject   *Subject  `json:"subject,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	ExpiresAt time.Time `json:"expires_at"`
}

// SessionsAnswer is the answer to GET /v1/sessions.
type SessionsAnswer struct {
	Sessions []Session `json:"sessions"`
}

// PluginSecret is a secret that a plugin keeps: the body of PUT /v1/secrets/{key}, and the answer to GET. It has one of both.
type PluginSecret struct {
	// Value is the secret's text, at most 64 KiB.
	Value *Text `json:"value,omitempty"`
	// ValueBase64 stands in the place of value where that is not UTF-8.
	ValueBase64 *Bytes `json:"value_base64,omitempty"`
}

// ReloadAnswer is the answer to POST /v1/reload.
type ReloadAnswer struct {
	// Kept are the providers whose definition did not change: they keep login, cache and leases.
	Kept []string `json:"kept"`
	// Replaced are those that are new or have another definition.
	Replaced []string `json:"replaced"`
	// Removed are those that are gone.
	Removed []string `json:"removed"`
	// NeedsRestart are settings that changed and hold only after a restart.
	NeedsRestart []string `json:"needs_restart"`
	// Warnings are lines about what is not wrong but should be otherwise.
	Warnings []string `json:"warnings"`
}

// StatusAnswer is the answer to GET /v1/status.
type StatusAnswer struct {
	Version    string          `json:"version"`
	PID        int             `json:"pid"`
	StartedAt  time.Time       `json:"started_at"`
	Ready      bool            `json:"ready"`
	Config     string          `json:"config"`
	ConfigSHA  string          `json:"config_sha256"`
	ReloadedAt *time.Time      `json:"reloaded_at,omitempty"`
	Providers  []ProviderState `json:"providers"`
	Cache      CacheState      `json:"cache"`
	Sessions   int             `json:"sessions"`
	Watchers   int             `json:"watchers"`
	// Memory says what of the process is kept out of swap and core dumps.
	Memory string `json:"memory,omitempty"`
}

// CacheState is how full the cache is.
type CacheState struct {
	Entries int   `json:"entries"`
	Bytes   int64 `json:"bytes"`
}

// ProvidersAnswer is the answer to GET /v1/providers.
type ProvidersAnswer struct {
	Providers []ProviderState `json:"providers"`
}

// ProviderState is how a provider stands.
type ProviderState struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	// Digest names the definition, with those that it depends on: two processes of one user whose digests of a provider are
	// equal have the same provider.
	Digest string `json:"digest"`
	// CallerBound: what it gives depends on the environment or directory of who asks, so that the sidecar's answer is not a
	// caller's own.
	CallerBound bool `json:"caller_bound,omitempty"`
	// Breaker is closed, open, half_open or held.
	Breaker string `json:"breaker"`
	// Failures is how many calls failed in a row.
	Failures int          `json:"failures,omitempty"`
	RetryAt  *time.Time   `json:"retry_at,omitempty"`
	Code     backend.Code `json:"code,omitempty"`
	Reason   string       `json:"reason,omitempty"`
	// Entries is how many of its secrets are cached.
	Entries int `json:"entries"`
	// Health is what the last look at it found; not set: there was none.
	Health *Health `json:"health,omitempty"`
}

// Health is what a look found.
type Health struct {
	// Code is ok, unsupported where it cannot be told, or that of what is wrong.
	Code backend.Code `json:"code"`
	// Message says for a person what is wrong, and what to do next.
	Message string `json:"message,omitempty"`
	// CheckedAt is when the look began.
	CheckedAt time.Time `json:"checked_at"`
	// Took is how long it took.
	Took Duration `json:"took,omitempty"`
}

// HealthAnswer is the answer to GET /v1/health.
type HealthAnswer struct {
	// Providers are how they stood at the last look; those that were not looked at are left out.
	Providers []ProviderHealth `json:"providers"`
	// Credentials are those of logins, and those that are configured to be looked at.
	Credentials []CredentialHealth `json:"credentials"`
}

// ProviderHealth is how a provider stood.
type ProviderHealth struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	Health
}

// CredentialHealth is how a credential stood.
type CredentialHealth struct {
	Ref credref.Ref `json:"ref"`
	// Subject is whose credential it is; not set: everybody's.
	Subject *Subject `json:"subject,omitempty"`
	Health
}

// ReadyAnswer is the answer to GET /readyz.
type ReadyAnswer struct {
	Ready bool `json:"ready"`
	// Providers tell, by name, ok or the code of what keeps the provider from answering.
	Providers map[string]backend.Code `json:"providers,omitempty"`
	// Waiting are the declared refs that are not there yet.
	Waiting int `json:"waiting,omitempty"`
}

// WatchEvent is the data of a server-sent event of GET /v1/watch. It holds no value.
type WatchEvent struct {
	Ref  credref.Ref        `json:"ref"`
	Kind resolver.EventKind `json:"kind"`
	// State is where the credential is in its life after this step.
	State    resolver.State `json:"state,omitempty"`
	Time     time.Time      `json:"time"`
	Revision string         `json:"revision,omitempty"`
	Version  string         `json:"version,omitempty"`
	// ExpiresAt is when the store stops to accept the credential.
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	Error     *Error     `json:"error,omitempty"`
}
