package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref/document"
)

func (a *app) render() *cobra.Command {
	var doc documentFlags
	var out string
	cmd := &cobra.Command{
		Use:   "render FILE",
		Short: "Print a document with every reference replaced",
		Long: `Print a document (YAML, JSON, JSON5, TOML or .env) with every reference replaced by what it resolves to. Comments,
order and everything else stay as they are. SecretRefs, {source, provider, id}, are replaced too. Nothing is printed unless every reference resolves. FILE may be - for
standard input.

With --out the document goes into a file of mode 0600, which is replaced in one step once it is complete.`,
		Example: `  credresolve render app.yaml
  credresolve render app.yaml --out /run/app/config.yaml
  helm template . | credresolve render - --format yaml --refs short | kubectl apply -f -`,
		Args:              exactly(1, "one file, or - for standard input"),
		ValidArgsFunction: completeDocuments,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, s, done, err := a.openDocuments(cmd.Context(), args, doc)
			if err != nil {
				return err
			}
			defer done()
			var to *outFile
			if cmd.Flags().Changed("out") {
				if to, err = newOutFile(out, args[0]); err != nil {
					return err
				}
				if to.is(a.stdout) || to.is(a.stderr) {
					return &backend.Error{
						Code: backend.CodeUsage, Reason: fmt.Sprintf("%s is what this command writes to already", out),
						Remedy: "leave --out away",
					}
				}
			}
			rendered, err := s.render(ctx, args[0], doc)
			if err != nil {
				return err
			}
			defer clear(rendered)
			if err := stopped(ctx); err != nil {
				return err
			}
			if to == nil {
				return a.write(rendered)
			}
			return to.write(ctx, rendered)
		},
	}
	doc.add(cmd)
	cmd.Flags().StringVar(&out, "out", "", "write to this `file` in place of standard output")
	return cmd
}

func (s *session) render(ctx context.Context, path string, f documentFlags) ([]byte, error) {
	d, err := s.read(ctx, path, f)
	if err != nil {
		return nil, err
	}
	sites := d.Refs()
	s.app.warnOfDefaults(sites)
	outcomes := s.settle(ctx, sites)
	if err := s.app.failed(failures(sites, outcomes), true); err != nil {
		return nil, err
	}
	next := 0 // Render asks in the order of Refs
	return d.Render(func(site *document.Site) (document.Replacement, error) {
		secret, removed := outcomes[next].secret(site)
		next++
		return document.Replacement{Secret: secret, Remove: removed}, nil
	})
}
