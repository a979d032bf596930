package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver/grants"
)

// loggedOut is what became of a login, for a program.
type loggedOut struct {
	Provider string `json:"provider"`
	ID       string `json:"id"`
	// Subject is whose it was: one of the sidecar's.
	Subject *client.Subject `json:"subject,omitempty"`
	// Was: there was a login.
	Was bool `json:"was_logged_in"`
	// Revoked: it was ended at the store too; else it stays in force there until its own end.
	Revoked bool `json:"revoked"`
}

func (a *app) logout() *cobra.Command {
	var output *string
	var all bool
	cmd := &cobra.Command{
		Use:   "logout [PROVIDER [ID]]",
		Short: "End a login: at the store, in the token store and in the sidecar",
		Long: `End a login. The store is told where that can be, so that nobody can use what the login gave; else it stays in force there
until its own end, which is said. What is kept of it is deleted. A login that is not there is no error.

With --all every login of the provider is ended; without a provider, every login of this user to a provider of the
configuration: those too that subjects of the sidecar have, such as plugins.`,
		Example: `  credresolve logout github
  credresolve logout google work
  credresolve logout --all google
  credresolve logout --all`,
		Args:              between(0, 2, "a provider and perhaps an id"),
		ValidArgsFunction: a.completeLogins(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 && !all:
				return &backend.Error{Code: backend.CodeUsage, Reason: "no provider is named", Remedy: "name one, or use --all to end every login"}
			case len(args) == 2 && all:
				return backend.Errorf(backend.CodeUsage, "--all stands without an id")
			}
			ctx, s, done, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			logins, errs, err := s.toEnd(args, all)
			if err != nil {
				return err
			}
			results := []loggedOut{}
			for _, e := range logins {
				out, err := s.logOut(ctx, e)
				if stop := stopped(ctx); stop != nil {
					return stop
				}
				if errs = append(errs, err); err == nil {
					results = append(results, out)
				}
			}
			if *output == outputJSON {
				if err := a.writeJSON(results); err != nil {
					return err
				}
			}
			return a.failed(errs, true)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "end every login, of the provider if one is named")
	output = outputFlag(cmd)
	return cmd
}

// toEnd gives the logins that args and --all name; damaged are those of which nobody knows whose they are.
func (s *session) toEnd(args []string, all bool) (logins []grants.Entry, damaged []error, err error) {
	var ref credref.Ref
	if len(args) > 0 {
		if ref, err = loginRef(args); err != nil {
			return nil, nil, err
		}
		if !all {
			return []grants.Entry{{Provider: ref.Provider, ID: ref.ID}}, nil, nil
		}
		if _, err := s.Backend(ref.Provider); err != nil {
			return nil, nil, err
		}
	}
	entries, err := s.app.knownLogins()
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		switch {
		case e.Provider == "":
			damaged = append(damaged, backend.Errorf(backend.CodeInternal, "a login is not ended: %s", e.Reason))
		case len(args) > 0 && e.Provider != ref.Provider:
		case s.file.Provider(e.Provider) == nil:
			s.app.warn("%s: the configuration has no such provider, so that its login cannot be ended with it", e.Provider)
		default:
			logins = append(logins, e)
		}
	}
	if len(logins)+len(damaged) == 0 {
		s.app.tell("nobody is logged in")
	}
	return logins, damaged, nil
}

// logOut ends the login that e names.
func (s *session) logOut(ctx context.Context, e grants.Entry) (loggedOut, error) {
	out := loggedOut{Provider: e.Provider, ID: e.ID}
	ref := credref.Ref{Provider: e.Provider, ID: e.ID}
	name := loginInfo{Provider: e.Provider, ID: e.ID}.name()
	var b *grants.Backend
	var err error
	if e.Subject == (backend.Subject{}) {
		b, err = s.keeper(ctx, ref)
	} else {
		sub := client.Subject(e.Subject)
		out.Subject, name = &sub, name+" of "+subjectName(sub)
		b, err = s.keeperOfAll(ctx, e.Provider)
	}
	if err != nil {
		return out, err
	}
	req := backend.Request{ID: e.ID, Subject: e.Subject}
	was, err := b.Status(ctx, req)
	out.Was = err == nil
	out.Revoked, err = b.Logout(ctx, req)
	told := ref
	if e.Subject != (backend.Subject{}) {
		told.ID = "" // a subject may know it by another
	}
	s.tellOfLogin(ctx, told)
	switch {
	case errors.Is(err, backend.ErrNotFound):
		if others := s.ofSubjects(ref); e.Subject == (backend.Subject{}) && others > 0 {
			return out, &backend.Error{
				Code:   backend.CodeUnsupported,
				Reason: fmt.Sprintf("%s: this login is not one of yours, but of %d subjects of the sidecar", name, others),
				Remedy: "end it through the sidecar, with a token of the subject; " + endAll(e.Provider),
			}
		}
		s.app.tell("%s: nobody is logged in", name)
	case err != nil:
		return out, fmt.Errorf("%s: %w", ref.Provider, late(ctx, err))
	case out.Revoked:
		s.app.tell("logged out of %s: it is ended at the store, and nothing of it is kept here", name)
	case was.Expires.IsZero():
		s.app.tell("logged out of %s: nothing of it is kept here; the store cannot be told, so end it there too if others may have it", name)
	default:
		s.app.tell("logged out of %s: nothing of it is kept here; the store cannot be told, and takes what was given out until %s", name, was.Expires.Local().Format(time.RFC3339))
	}
	return out, nil
}

// ofSubjects counts the logins of ref that subjects of the sidecar have.
func (s *session) ofSubjects(ref credref.Ref) (n int) {
	entries, _ := s.app.knownLogins()
	for _, e := range entries {
		if e.Provider == ref.Provider && e.ID == ref.ID && e.Subject != (backend.Subject{}) {
			n++
		}
	}
	return n
}

// subjectName is whose a login is, as in "plugin=mail".
func subjectName(s client.Subject) string {
	var parts []string
	for _, part := range [...][2]string{{"tenant", s.Tenant}, {"end_user", s.EndUser}, {"session", s.Session}, {"plugin", s.Plugin}} {
		if part[1] != "" {
			parts = append(parts, part[0]+"="+part[1])
		}
	}
	return strings.Join(parts, ", ")
}
