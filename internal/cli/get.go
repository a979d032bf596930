package cli

import (
	"bytes"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
)

func (a *app) get() *cobra.Command {
	var output *string
	cmd := &cobra.Command{
		Use:   "get REF...",
		Short: "Print what references resolve to",
		Long: `Print what references resolve to.

The value of one reference is printed as its exact bytes; a line feed follows on a terminal alone. Several values
are printed one a line, and only when all are there and none holds a line feed. With --output json each reference has its
answer or its error in one array, in the order asked; a value that is not UTF-8 is in value_base64.`,
		Example: `  credresolve get cred://app/kv/app/db#password
  credresolve get 'cred://aws/prod/db?version=stage:AWSPREVIOUS' > old.txt
  credresolve get --output json cred://app/kv/app/db#user cred://app/kv/app/db#password`,
		Args:              atLeast(1, "one reference or more"),
		ValidArgsFunction: a.completeRefs,
		RunE: func(cmd *cobra.Command, args []string) error {
			refs := make([]credref.Ref, len(args))
			for i, arg := range args {
				var err error
				if refs[i], err = parseRef(arg); err != nil {
					return err
				}
			}
			ctx, s, done, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			outcomes := s.resolve(ctx, refs)
			errs := make([]error, len(outcomes))
			for i, o := range outcomes {
				errs[i] = o.Err
			}
			if err := stopped(ctx); err != nil {
				return err
			}
			if *output == outputJSON {
				results := make([]client.Result, len(outcomes))
				for i, o := range outcomes {
					results[i] = newResult(o)
				}
				if err := a.writeJSON(results); err != nil {
					return err
				}
				return a.failed(errs, false)
			}
			if err := a.failed(errs, true); err != nil {
				return err
			}
			var out []byte
			defer func() { clear(out) }()
			for _, o := range outcomes {
				err := o.Value.Secret().Use(func(b []byte) error {
					if len(outcomes) > 1 && bytes.IndexByte(b, '\n') >= 0 {
						return &backend.Error{
							Code:   backend.CodeUsage,
							Reason: o.Ref.String() + ": the value holds a line feed and cannot be one line of several",
							Remedy: "use --output json",
						}
					}
					out = append(out, b...)
					return nil
				})
				if err != nil {
					return err
				}
				if len(outcomes) > 1 || isTerminal(a.stdout) && !bytes.HasSuffix(out, []byte("\n")) {
					out = append(out, '\n')
				}
			}
			return a.write(out)
		},
	}
	output = outputFlag(cmd)
	return cmd
}
