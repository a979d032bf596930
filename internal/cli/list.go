package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// listed is one secret of a store, for a program.
type listed struct {
	Ref      credref.Ref       `json:"ref"`
	Version  string            `json:"version,omitempty"`
	Modified *time.Time        `json:"modified,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

func (a *app) list() *cobra.Command {
	var output *string
	cmd := &cobra.Command{
		Use:   "list PROVIDER [PREFIX]",
		Short: "List the secrets of a provider",
		Long:  `List the secrets of a provider whose ids start with a prefix, as one reference a line. No value is read.`,
		Example: `  credresolve list app kv/
  credresolve list desk
  credresolve list --output json aws prod/`,
		Args:              between(1, 2, "a provider and perhaps a prefix"),
		ValidArgsFunction: a.completeProvider,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := credref.ValidateProvider(args[0]); err != nil {
				return backend.Errorf(backend.CodeUsage, "the name of a provider must match ^[a-z][a-z0-9_-]{0,63}$")
			}
			prefix := ""
			if len(args) == 2 {
				prefix = args[1]
			}
			ctx, s, done, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			b, err := s.Backend(args[0])
			if err != nil {
				return err
			}
			if err := refusedForTrust(ctx, b); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			entries := []listed{}
			for e, err := range backend.List(ctx, b, prefix) {
				if stop := stopped(ctx); stop != nil {
					return stop
				}
				if err != nil {
					return fmt.Errorf("%s: %w", args[0], late(ctx, err))
				}
				ref := credref.Ref{Provider: args[0], ID: e.ID}
				if err := ref.Validate(); err != nil {
					a.warn("a secret is left out whose name no reference can have: %v", err)
					continue
				}
				if *output == outputText { // as they come: there may be many
					if err := a.write([]byte(ref.String() + "\n")); err != nil {
						return err
					}
					continue
				}
				l := listed{Ref: ref, Version: e.Version, Metadata: e.Metadata}
				if !e.Modified.IsZero() {
					t := e.Modified.UTC()
					l.Modified = &t
				}
				entries = append(entries, l)
			}
			if *output == outputJSON {
				return a.writeJSON(entries)
			}
			return nil
		},
	}
	output = outputFlag(cmd)
	return cmd
}
