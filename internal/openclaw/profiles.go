package openclaw

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/authstore"
	"github.com/credresolve/credresolve/internal/json5"
	"github.com/credresolve/credresolve/secretref"
)

// Delegation lets an auth profile take its secret from a SecretRef, as a keyRef or tokenRef.
type Delegation struct {
	Home    authstore.Home
	Profile string
	// Type is the type of the profile, TypeAPIKey or TypeToken of authstore. Empty: its own; of a new one api_key.
	Type string
	Ref  secretref.Ref

	// Shared: a plain secret is in the store that agents have in common, where it stays for them; Check says so.
	Shared bool

	provider string // of the profile
}

var errOAuthProfile = &backend.Error{
	Code: backend.CodeUnsupported,
	Reason: "the auth profile is an OAuth sign-in, whose tokens OpenClaw writes itself at each refresh: it refuses a SecretRef there, " +
		"and every start with one",
	Remedy: "let a profile of type api_key or token point here, under another name",
}

// Check reads the profile, and completes and judges the delegation. It gives the secret that the agent has by the profile
// now; zero where it has none. doc is the configuration that the profile belongs to; nil: none is known.
func (d *Delegation) Check(ctx context.Context, doc *Document) (backend.Secret, error) {
	provider, ok := authstore.ProviderOf(d.Profile)
	if !ok {
		return backend.Secret{}, &backend.Error{Code: backend.CodeInvalidID, Reason: "the id of an auth profile is PROVIDER:NAME", Remedy: "such as openai:default"}
	}
	g := secretref.Grammar{}
	if doc != nil {
		g = doc.Grammar
		auth := object(object(object(doc.Value["auth"])["profiles"])[d.Profile])
		if text(auth["mode"]) == authstore.TypeOAuth {
			return backend.Secret{}, errOAuthProfile
		}
	}
	if err := g.Check(d.Ref); err != nil {
		return backend.Secret{}, &backend.Error{Code: backend.CodeInvalidID, Reason: err.Error()}
	}
	stores, err := d.Home.Read(ctx)
	if err != nil {
		return backend.Secret{}, err
	}
	d.provider = provider
	p, where := stores.Profile(d.Profile)
	switch {
	case p == nil:
		if d.Type == "" {
			d.Type = authstore.TypeAPIKey
		}
		return backend.Secret{}, nil
	case p.Type == authstore.TypeOAuth:
		return backend.Secret{}, errOAuthProfile
	case d.Type != "" && d.Type != p.Type:
		return backend.Secret{}, backend.Errorf(backend.CodeConflict, "the auth profile is of type %s, not %s", p.Type, d.Type)
	}
	d.Type, d.provider = p.Type, p.Provider
	d.Shared = where != stores.Own && !p.Secret.IsZero()
	return p.Secret, nil
}

// Write writes the ref into the agent's auth-profiles.json, and takes the secret beside it out, in one step. Check comes
// before. Where profiles are kept in a database the error is an authstore.DatabaseError: Plan is for those.
func (d *Delegation) Write(ctx context.Context) error {
	ref := authstore.Ref{Source: string(d.Ref.Source), Provider: d.Ref.Provider, ID: d.Ref.ID}
	_, err := d.Home.Update(ctx, func(stores *authstore.Stores, f *json5.File) ([]json5.Edit, error) {
		p := stores.Own.Profiles[d.Profile]
		switch {
		case p != nil && p.Type == authstore.TypeOAuth:
			return nil, errOAuthProfile
		case p != nil && p.Type != d.Type:
			return nil, backend.Errorf(backend.CodeConflict, "the auth profile was changed meanwhile")
		case p != nil:
			return authstore.Delegate(d.Profile, p, ref), nil
		case f.Root().Get("profiles", d.Profile) != nil:
			return nil, backend.Errorf(backend.CodeDenied, "there is an entry of that name which is no auth profile that OpenClaw knows")
		}
		return authstore.Set(d.Profile, authstore.Entry{Type: d.Type, Provider: d.provider, Ref: &ref}), nil
	})
	return err
}

// profilePlan is a plan of `openclaw secrets apply` with one target. It is OpenClaw's own way into its database.
type profilePlan struct {
	Version         int             `json:"version"`
	ProtocolVersion int             `json:"protocolVersion"`
	GeneratedAt     string          `json:"generatedAt"`
	GeneratedBy     string          `json:"generatedBy"`
	Targets         []profileTarget `json:"targets"`
	Options         map[string]bool `json:"options"`
}

type profileTarget struct {
	Type         string   `json:"type"`
	Path         string   `json:"path"`
	PathSegments []string `json:"pathSegments"`
	Ref          planRef  `json:"ref"`
	AgentID      string   `json:"agentId"`
	Provider     string   `json:"authProfileProvider"`
}

type planRef struct {
	Source   string `json:"source"`
	Provider string `json:"provider"`
	ID       string `json:"id"`
}

// Plan gives the plan that lets OpenClaw itself write the ref, with `openclaw secrets apply --from FILE --allow-exec`. Check
// comes before.
func (d *Delegation) Plan(at time.Time) ([]byte, error) {
	kind, member := "auth-profiles.api_key.key", "key"
	if d.Type == authstore.TypeToken {
		kind, member = "auth-profiles.token.token", "token"
	}
	agent := d.Home.Agent
	if agent == "" {
		agent = authstore.MainAgent
	}
	text, err := json.MarshalIndent(profilePlan{
		Version: 1, ProtocolVersion: 1, GeneratedAt: at.UTC().Format(time.RFC3339), GeneratedBy: authstore.ManagedBy,
		Targets: []profileTarget{{
			Type: kind, Path: "profiles." + d.Profile + "." + member, PathSegments: []string{"profiles", d.Profile, member},
			Ref:     planRef{string(d.Ref.Source), d.Ref.Provider, d.Ref.ID},
			AgentID: agent, Provider: d.provider,
		}},
		Options: map[string]bool{"scrubEnv": false, "scrubAuthProfilesForProviderTargets": false, "scrubLegacyAuthJson": false},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the plan: %w", err)
	}
	return append(text, '\n'), nil
}

// InDatabase reports whether err says that profiles are kept in a database, and in which.
func InDatabase(err error) (path string, is bool) {
	var e *authstore.DatabaseError
	if errors.As(err, &e) {
		return e.Path, true
	}
	return "", false
}
