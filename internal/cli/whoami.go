package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
	"github.com/credresolve/credresolve/resolver/grants"
)

// identity is for whom a provider acts, for a program.
type identity struct {
	loginInfo
	// Metadata is what the store tells of the credential, of a provider without a login.
	Metadata map[string]string `json:"metadata,omitempty"`
}

func (a *app) whoami() *cobra.Command {
	var output *string
	cmd := &cobra.Command{
		Use:   "whoami [PROVIDER [ID]]",
		Short: "Tell as whom this user is logged in",
		Long: `Tell as whom this user is logged in: without a provider all logins, as the index of logins has them, which asks no store and
unlocks no keychain. With a provider its token store is read. Of a provider without a login, such as temporary
credentials of AWS, the credential is resolved and what its store tells of it is shown: the ARN, not a value.

The status is 8 when nobody is logged in to the provider that is named.`,
		Example: `  credresolve whoami
  credresolve whoami github
  credresolve whoami aws deploy
  credresolve whoami --output json`,
		Args:              between(0, 2, "a provider and perhaps an id"),
		ValidArgsFunction: a.completeLogins(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.whoAll(*output)
			}
			ref, err := loginRef(args)
			if err != nil {
				return err
			}
			ctx, s, done, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			who, err := s.who(ctx, ref)
			if stop := stopped(ctx); err != nil && stop != nil {
				return stop
			}
			if err != nil {
				return fmt.Errorf("%s: %w", ref.Provider, late(ctx, err))
			}
			if *output == outputJSON {
				err = a.writeJSON(who)
			} else {
				err = a.write(who.text())
			}
			if err == nil && !isLoggedIn(who.Status) {
				err = who.notActive()
			}
			return err
		},
	}
	output = outputFlag(cmd)
	return cmd
}

// notActive is why the identity is of no use now.
func (i identity) notActive() error {
	e := &backend.Error{Code: backend.CodeAuthRequired, Reason: i.Provider + ": " + strings.ReplaceAll(string(i.Status), "_", " "), Remedy: "log in: " + i.command()}
	if i.Reason != "" {
		e.Reason = i.Provider + ": " + i.Reason
	}
	return e
}

func (a *app) whoAll(output string) error {
	entries, err := a.knownLogins()
	if err != nil {
		return err
	}
	if output == outputJSON {
		return a.writeJSON(newLoginInfos(entries))
	}
	if len(entries) == 0 {
		a.tell("nobody is logged in; log in with: credresolve login PROVIDER")
		return nil
	}
	return a.write(loginTable(newLoginInfos(entries)))
}

func newLoginInfos(entries []grants.Entry) []loginInfo {
	out := make([]loginInfo, 0, len(entries))
	for _, e := range entries {
		out = append(out, newLoginInfo(e))
	}
	return out
}

func loginTable(logins []loginInfo) []byte {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROVIDER\tLOGIN\tACCOUNT\tSTATUS\tUNTIL\tREASON")
	for _, l := range logins {
		until := "-"
		if l.ExpiresAt != nil {
			until = l.ExpiresAt.Local().Format(time.RFC3339)
			if l.Refreshable {
				until += ", renewed"
			}
		}
		id := l.ID
		if l.Subject != nil {
			id += " of a subject"
		}
		fmt.Fprintln(w, strings.TrimRight(strings.Join([]string{cell(l.Provider), cell(id), cell(dash(l.who())), cell(string(l.Status)), until, cell(l.Reason)}, "\t"), "\t"))
	}
	_ = w.Flush() // to memory
	return trimLines(out.Bytes())
}

// trimLines takes the spaces off that a table leaves at the ends of lines.
func trimLines(text []byte) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(text) {
		out.Write(bytes.TrimRight(line, " \n"))
		out.WriteByte('\n')
	}
	return out.Bytes()
}

// who gives for whom ref's provider acts.
func (s *session) who(ctx context.Context, ref credref.Ref) (identity, error) {
	b, err := s.Backend(ref.Provider)
	if err != nil {
		return identity{}, err
	}
	if err := refusedForTrust(ctx, b); err != nil {
		return identity{}, err
	}
	if g, ok := grants.As(b); ok {
		entry, err := g.Status(ctx, backend.Request{ID: ref.ID})
		if errors.Is(err, backend.ErrNotFound) {
			login := loginInfo{Provider: ref.Provider, ID: ref.ID}.command()
			err = &backend.Error{Code: backend.CodeAuthRequired, Reason: "nobody is logged in", Remedy: "log in: " + login}
		}
		return identity{loginInfo: s.newLoginInfo(entry)}, err
	}
	o := s.resolveWhole(ctx, ref)
	if e := new(resolver.RefError); errors.As(o.Err, &e) {
		return identity{}, e.Err
	}
	who := identity{loginInfo: loginInfo{Provider: ref.Provider, ID: ref.ID, Status: grants.StatusActive}}
	who.Metadata, who.ExpiresAt, who.RefreshAfter = o.Value.Metadata(), when(o.Value.Expires()), when(o.Value.RefreshAfter())
	return who, nil
}

// resolveWhole resolves ref, of which no field need be named.
func (s *session) resolveWhole(ctx context.Context, ref credref.Ref) resolver.Outcome {
	demand := resolver.Demand{Whole: true}
	if with := s.answering(ctx); with.has(ref) {
		if o := with.ResolveWith(ctx, []credref.Ref{ref}, demand)[0]; o.Err == nil || !ownReasons(ctx, o.Err) {
			return o
		}
	}
	return s.ResolveWith(ctx, []credref.Ref{ref}, demand)[0]
}

func (i identity) text() []byte {
	var out bytes.Buffer
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&out, "%-9s %s\n", name, cell(value))
		}
	}
	line("provider", i.Provider)
	line("id", i.ID)
	line("status", string(i.Status))
	for _, name := range slices.Sorted(maps.Keys(i.Account)) {
		line(name, i.Account[name])
	}
	for _, name := range slices.Sorted(maps.Keys(i.Metadata)) {
		line(name, i.Metadata[name])
	}
	line("until", strings.TrimPrefix(i.until(), "until "))
	if i.LoggedInAt != nil {
		line("logged in", i.LoggedInAt.Local().Format(time.RFC3339))
	}
	if i.RefreshedAt != nil {
		line("renewed", i.RefreshedAt.Local().Format(time.RFC3339))
	}
	line("kept in", i.KeptIn)
	line("reason", i.Reason)
	return out.Bytes()
}
