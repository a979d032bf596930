package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/loginhint"
	"github.com/credresolve/credresolve/resolver/grants"
)

// loginInfo is a login, for a program. It holds nothing secret.
type loginInfo struct {
	Provider     string            `json:"provider"`
	ID           string            `json:"id"`
	Subject      *client.Subject   `json:"subject,omitempty"`
	Status       grants.Status     `json:"status"`
	Account      map[string]string `json:"account,omitempty"`
	ExpiresAt    *time.Time        `json:"expires_at,omitempty"`
	RefreshAfter *time.Time        `json:"refresh_after,omitempty"`
	LoggedInAt   *time.Time        `json:"logged_in_at,omitempty"`
	RefreshedAt  *time.Time        `json:"refreshed_at,omitempty"`
	Refreshable  bool              `json:"refreshable"`
	Reason       string            `json:"reason,omitempty"`
	KeptIn       string            `json:"kept_in,omitempty"`
}

func newLoginInfo(e grants.Entry) loginInfo {
	out := loginInfo{
		Provider: e.Provider, ID: e.ID, Status: e.Status, Account: e.Account, Refreshable: e.Refreshable, Reason: e.Reason,
		ExpiresAt: when(e.Expires), RefreshAfter: when(e.RefreshAfter), LoggedInAt: when(e.LoggedIn), RefreshedAt: when(e.Refreshed),
	}
	if e.Subject != (backend.Subject{}) {
		s := client.Subject(e.Subject)
		out.Subject = &s
	}
	return out
}

// when is t for a program, nil for none.
func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// isLoggedIn reports whether a login of that status is of use now.
func isLoggedIn(s grants.Status) bool {
	return s == grants.StatusActive || s == grants.StatusRefreshing
}

// accountNames are the keys of an account by which a person knows it, the best first.
var accountNames = [...]string{"account", "login", "email", "preferred_username", "username", "user", "arn", "name", "subject"}

// who is the account in a word, empty where the login does not tell.
func (i loginInfo) who() string {
	for _, name := range accountNames {
		if v := i.Account[name]; v != "" {
			return v
		}
	}
	return ""
}

// name is what the login is called: the provider, and the id where that is not the usual one.
func (i loginInfo) name() string {
	if i.ID == loginhint.DefaultID {
		return i.Provider
	}
	return i.Provider + " " + i.ID
}

// command is how a person logs in for it.
func (i loginInfo) command() string { return loginhint.Command("login", i.Provider, i.ID) }

// until tells how long the login holds.
func (i loginInfo) until() string {
	switch {
	case i.ExpiresAt == nil:
		return "without an end"
	case i.Refreshable:
		return "until " + i.ExpiresAt.Local().Format(time.RFC3339) + ", renewed before"
	}
	return "until " + i.ExpiresAt.Local().Format(time.RFC3339)
}

func (i loginInfo) present() string {
	as := ""
	if who := i.who(); who != "" {
		as = " as " + who
	}
	return fmt.Sprintf("%s is logged in%s %s", i.name(), as, i.until())
}

func (i loginInfo) loggedIn() string {
	text := "logged in to " + i.name()
	if who := i.who(); who != "" {
		text += " as " + who
	}
	if issuer := i.Account["issuer"]; issuer != "" {
		text += " at " + issuer
	}
	text += ", " + i.until()
	if i.KeptIn != "" {
		text += "; it is kept in " + i.KeptIn
	}
	return text
}

// newLoginInfo also tells where the login is kept.
func (s *session) newLoginInfo(e grants.Entry) loginInfo {
	i := newLoginInfo(e)
	i.KeptIn = s.tokenStore()
	return i
}

// knownLogins reads the index of logins, which needs neither the configuration nor the token store.
func (a *app) knownLogins() ([]grants.Entry, error) {
	dir, err := a.openStateDir()
	if err != nil {
		return nil, backend.Errorf(backend.CodeInvalidConfig, "the list of logins cannot be read: %v", err)
	}
	return grants.NewStore(grants.Config{StateDir: dir}).Logins()
}

// tellOfLogin tells our own resolver and the sidecar that ref's login is another, or gone: also a sidecar of another
// configuration, and for every subject. Without an id all that is known of the provider is to be read anew.
func (s *session) tellOfLogin(ctx context.Context, ref credref.Ref) {
	s.Wrote(ref)
	a := s.app
	path, err := client.SocketPath(a.lookupEnv)
	if err != nil || a.noSidecar {
		return
	}
	if st, err := os.Lstat(path); err != nil || st.Mode().Type() != os.ModeSocket {
		return
	}
	c, err := a.dial(path)
	if err != nil {
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sidecarTime)
	defer cancel()
	if ref.ID == "" {
		_, err = c.Invalidate(ctx, ref.Provider, "")
	} else {
		err = c.Forget(ctx, credref.Ref{Provider: ref.Provider, ID: ref.ID})
	}
	if err != nil {
		a.log.Debug("the sidecar may have the old value for a while", "reason", err.Error())
	}
}

// completeLogins completes a provider and an id: providers are those that take logins, and with all also those that nobody
// logged in to yet.
func (a *app) completeLogins(all bool) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var words []string
		entries, _ := a.knownLogins()
		switch len(args) {
		case 0:
			if all {
				words = a.providerNames()
			}
			for _, e := range entries {
				words = append(words, e.Provider)
			}
		case 1:
			for _, e := range entries {
				if e.Provider == args[0] {
					words = append(words, e.ID)
				}
			}
		}
		slices.Sort(words)
		return slices.Compact(words), cobra.ShellCompDirectiveNoFileComp
	}
}

// tokenStore tells where logins are kept.
func (s *session) tokenStore() string {
	name := s.file.LoginStore()
	if def := s.file.Provider(name); def != nil {
		return fmt.Sprintf("provider %s (%s)", name, def.Kind)
	}
	return "the keychain of this user"
}
