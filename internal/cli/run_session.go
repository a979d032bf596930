package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
)

// sessionFlags say for whom run resolves.
type sessionFlags struct {
	name, endUser, tenant, reason string
}

func (f *sessionFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.name, "session", "", "resolve for the session `NAME`, or a new one: new; it ends with the command")
	cmd.Flags().StringVar(&f.endUser, "end-user", "", "end user of the session")
	cmd.Flags().StringVar(&f.tenant, "tenant", "", "tenant of the session")
	cmd.Flags().StringVar(&f.reason, "reason", "", "`text` about the session for the sidecar's audit log")
	_ = cmd.RegisterFlagCompletionFunc("session", cobra.FixedCompletions([]string{newSession}, cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"end-user", "tenant", "reason"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
}

const (
	newSession = "new"
	// runConsumer is the name that sessions of run have in the sidecar's audit log; rules of a consumer of that name hold too.
	runConsumer = "run"
	// sessionTTL is how long a sidecar keeps a session at most.
	sessionTTL = 24 * time.Hour
	// endingTime is how long stores may take to end what a command had.
	endingTime = 15 * time.Second
)

// begin makes s resolve for a session, if the flags ask for one, until finish is called. vars are all that will be asked for.
func (s *session) begin(ctx context.Context, f sessionFlags, vars []variable) (context.Context, error) {
	if f.name == "" {
		return ctx, nil
	}
	subject := credref.Subject{Session: f.name, EndUser: f.endUser, Tenant: f.tenant}
	if f.name == newSession {
		subject.Session = ""
	}
	if err := subject.Validate(); err != nil {
		return nil, backend.Errorf(backend.CodeUsage, "the session cannot be: %v", err)
	}
	s.scoped = true
	if owner := s.answering(ctx); owner != nil {
		id, as, err := s.beginShared(ctx, owner, subject, f.reason, vars)
		if err != nil {
			return nil, err
		}
		s.subject = as
		if id != "" {
			s.closing = func() {
				defer owner.Close()
				ctx, cancel := context.WithTimeout(context.Background(), endingTime)
				defer cancel()
				if err := owner.EndSession(ctx, id); err != nil && backend.CodeOf(err) != backend.CodeNotFound {
					s.app.warn("the session could not be ended everywhere: %v", err)
				}
			}
		}
	} else {
		s.subject = subject
	}
	if s.subject.Session == "" {
		random := make([]byte, 8)
		_, _ = rand.Read(random) // it never fails
		s.subject.Session = hex.EncodeToString(random)
	}
	shared := s.closing
	s.closing = func() {
		if shared != nil {
			shared()
		}
		ctx, cancel := context.WithTimeout(context.Background(), endingTime)
		defer cancel()
		if err := s.EndSession(ctx, s.subject.Session); err != nil && s.FinishRevocations(ctx) > 0 {
			s.app.warn("the session could not be ended everywhere: %v", err)
		}
	}
	return credref.WithSubject(ctx, s.subject), nil
}

// beginShared starts a session at the sidecar for what it is to be asked, and has it asked by the session alone. The id is
// empty when there is nothing to ask it.
func (s *session) beginShared(ctx context.Context, owner *shared, subject credref.Subject, reason string, vars []variable) (id string, as credref.Subject, err error) {
	req := client.SessionRequest{
		Consumer: runConsumer, Reason: reason, TTL: client.Duration(sessionTTL),
		Subject: &client.Subject{Tenant: subject.Tenant, EndUser: subject.EndUser, Session: subject.Session},
	}
	for _, ref := range refsOf(vars) {
		if owner.has(ref) {
			req.Allow = append(req.Allow, ref.String())
		}
	}
	if len(req.Allow) == 0 {
		s.with = nil
		_ = owner.Close()
		return "", subject, nil
	}
	started, err := owner.StartSession(ctx, req)
	if err != nil {
		return "", subject, err
	}
	uid := os.Geteuid()
	c, err := client.New(client.Config{
		Socket: owner.path, ServerUID: &uid, LookupEnv: s.app.lookupEnv, Token: backend.Literal(backend.NewSecretString(started.Token)),
	})
	if err != nil {
		_ = owner.EndSession(ctx, started.ID)
		return "", subject, err
	}
	s.with = &shared{Client: c, path: owner.path, providers: owner.providers, own: owner.own}
	if started.Subject != nil {
		subject.Session = started.Subject.Session
	}
	s.app.log.Debug("the sidecar gave a session", "session", started.ID)
	return started.ID, subject, nil
}

// finish ends the session of begin, and what has a lease if revoke says so. It may be called when nothing was begun.
func (s *session) finish(revoke bool) {
	if s.closing != nil {
		s.closing()
	}
	if !revoke {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), endingTime)
	defer cancel()
	n, err := s.RevokeLeases(ctx)
	s.app.log.Debug("revoked leases", "count", n)
	if err != nil && s.FinishRevocations(ctx) > 0 {
		s.app.warn("not all leases were revoked: %v", err)
	}
}
