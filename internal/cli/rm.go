package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
)

func (a *app) rm() *cobra.Command {
	var yes bool
	var ifVersion string
	cmd := &cobra.Command{
		Use:   "rm REF",
		Short: "Delete a secret",
		Long:  `Delete a secret from its store, after a question on a terminal. Where there is no terminal, --yes is needed.`,
		Example: `  credresolve rm cred://desk/github-token
  credresolve rm --yes --if-version 3 cred://app/kv/app/db`,
		Args:              exactly(1, "one reference"),
		ValidArgsFunction: a.completeRefs,
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, field, err := writableRef(args[0])
			if err != nil {
				return err
			}
			if field != "" {
				return backend.Errorf(backend.CodeUsage, "%s: only a whole secret can be deleted; leave #%s away", ref, field)
			}
			if cmd.Flags().Changed("if-version") && ifVersion == "" {
				return backend.Errorf(backend.CodeUsage, "--if-version needs a version")
			}
			ctx, s, done, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			w, err := s.writer(ref)
			if err != nil {
				return err
			}
			if !yes {
				if err := a.confirm(ctx, fmt.Sprintf("delete %s?", ref), "use --yes"); err != nil {
					return err
				}
			}
			err = w.Delete(ctx, backend.Request{ID: ref.ID}, backend.Condition{Version: ifVersion})
			s.wrote(ctx, ref)
			if stop := stopped(ctx); err != nil && stop != nil {
				return stop
			}
			if err != nil {
				return writeFailed(ref, late(ctx, err), backend.Condition{})
			}
			return a.endCopies(ctx, ref)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().StringVar(&ifVersion, "if-version", "", "delete the secret only if it is still at this `version`")
	return cmd
}
