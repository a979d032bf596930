package client

import (
	"context"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// ExplainRequest is the body of POST /v1/explain.
type ExplainRequest struct {
	Ref credref.Ref `json:"ref"`
}

// Explanation is how a ref stands, without its value.
type Explanation struct {
	Ref credref.Ref `json:"ref"`
	// Places are where the ref is looked for, in this order. The next one counts only where a place has nothing.
	Places []Place `json:"places"`
	// Provider is how its provider stands.
	Provider ProviderState `json:"provider"`
}

// Place is one place where a ref is looked for, and what is known of it.
type Place struct {
	// Subject is whose credential it would be; not set: everybody's.
	Subject *Subject `json:"subject,omitempty"`
	// ID is what the store is asked for.
	ID string `json:"id"`
	// State is where the credential is in its life; configured: nothing is known.
	State resolver.State `json:"state"`
	// Missing: the store has no such secret, which is remembered until fresh_until.
	Missing  bool         `json:"missing,omitempty"`
	Type     backend.Type `json:"type,omitempty"`
	Revision string       `json:"revision,omitempty"`
	Version  string       `json:"version,omitempty"`
	// Metadata tells about the secret and is never secret itself.
	Metadata map[string]string `json:"metadata,omitempty"`
	// FetchedAt is when the store gave it.
	FetchedAt *time.Time `json:"fetched_at,omitempty"`
	// ExpiresAt is when the store stops to accept it.
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	// FreshUntil is until when it is served as it is.
	FreshUntil *time.Time `json:"fresh_until,omitempty"`
	// ServedUntil is until when it is served at all, should its store be unavailable.
	ServedUntil *time.Time `json:"served_until,omitempty"`
	// NextRefresh is when a successor is to be fetched, if somebody still uses it.
	NextRefresh *time.Time `json:"next_refresh,omitempty"`
	// Lease is how long its lease lasts from one renewal to the next.
	Lease Duration `json:"lease,omitempty"`
	// Failures is how many fetches of a successor failed in a row.
	Failures int `json:"failures,omitempty"`
	// FailedAt is when the last of them did.
	FailedAt *time.Time   `json:"failed_at,omitempty"`
	Code     backend.Code `json:"code,omitempty"`
	Reason   string       `json:"reason,omitempty"`
	// Fetching: a fetch is under way.
	Fetching bool `json:"fetching,omitempty"`
}

// NewPlace gives the wire form of p.
func NewPlace(p resolver.Place) Place {
	out := Place{
		ID: p.ID, State: p.State, Missing: p.Missing, Type: p.Type, Revision: p.Revision, Version: p.Version, Metadata: p.Metadata,
		FetchedAt: pointTo(p.Fetched), ExpiresAt: pointTo(p.Expires), FreshUntil: pointTo(p.FreshUntil), ServedUntil: pointTo(p.ServedUntil),
		NextRefresh: pointTo(p.NextRefresh), Lease: Duration(p.Lease), Failures: p.Failures, FailedAt: pointTo(p.Failed), Code: p.Code,
		Reason: p.Reason, Fetching: p.Fetching,
	}
	if p.Subject != (credref.Subject{}) {
		s := Subject(p.Subject)
		out.Subject = &s
	}
	return out
}

// Explain tells how ref stands at the sidecar, which fetches nothing for it. The caller must be allowed to resolve ref.
func (c *Client) Explain(ctx context.Context, ref credref.Ref) (Explanation, error) {
	var answer Explanation
	err := c.post(ctx, "/v1/explain", ExplainRequest{ref}, &answer)
	return answer, err
}
