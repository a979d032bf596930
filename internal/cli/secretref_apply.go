package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/openclaw"
	"github.com/credresolve/credresolve/secretref"
)

func (a *app) secretrefApply() *cobra.Command {
	var from string
	var dryRun, allowExec, asJSON bool
	var output, compat *string
	cmd := &cobra.Command{
		Use:   "apply --from PLAN [FILE|DIR]",
		Short: "Put references in the place of plain-text secrets, by a plan",
		Long: `Carry out a plan, as openclaw secrets apply does: define providers, put references in the place of secrets, and take the
secrets that moved out of the .env files and the auth profiles. Plans come from secretref configure, or from OpenClaw.

Every reference of the plan is resolved before anything is written. Files are replaced as wholes, with comments, order of
keys, owner and mode kept; either all change or none. What cannot be kept is refused: a configuration behind a symbolic or
hard link, a value from an included file, a key that is there twice. There is no backup, and no way back: the secrets that
moved are gone from the home. Auth profiles in a database are OpenClaw's to write, and refused.

` + homeUsage + `

The exit status is 1 when anything failed, else 0.`,
		Example: `  credresolve secretref apply --from plan.json --dry-run
  credresolve secretref apply --from plan.json --allow-exec
  credresolve secretref apply --from plan.json --allow-exec --json ~/.openclaw`,
		Args:              between(0, 1, "one file or directory at most"),
		ValidArgsFunction: completeHome,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := a.bounded(cmd.Context())
			defer cancel()
			if from == "" {
				return &exit{1, &backend.Error{Code: backend.CodeUsage, Reason: "there is no plan to carry out", Remedy: "name one with --from; secretref configure writes it"}}
			}
			home, err := a.openclawHome(strings.Join(args, ""), *compat)
			if err != nil {
				return a.asOpenClaw(ctx, err)
			}
			plan, err := openclaw.ReadPlan(ctx, from, secretref.Compat(*compat))
			if err != nil {
				return a.asOpenClaw(ctx, err)
			}
			report, err := home.Apply(ctx, plan, openclaw.ApplyOptions{Write: !dryRun, AllowExec: allowExec})
			if err != nil {
				return a.asOpenClaw(ctx, err)
			}
			if asJSON || *output == outputJSON {
				return a.writeJSON(report)
			}
			return a.write(applyText(report))
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "`file` of the plan; needed")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "tell what would change, and write nothing")
	cmd.Flags().BoolVar(&allowExec, "allow-exec", false, "run the programs of exec providers, each once")
	cmd.Flags().BoolVar(&asJSON, "json", false, "the same as --output json, as OpenClaw calls it")
	_ = cmd.RegisterFlagCompletionFunc("from", cobra.FixedCompletions([]string{"json"}, cobra.ShellCompDirectiveFilterFileExt))
	output, compat = outputFlag(cmd), compatFlag(cmd)
	return cmd
}

// asOpenClaw gives an error the status of OpenClaw's commands that write, unless a signal or a limit of time came.
func (a *app) asOpenClaw(ctx context.Context, err error) error {
	var by interrupted
	if errors.As(err, &by) || stopped(ctx) != nil {
		return err
	}
	return &exit{1, err}
}

// applyText is a report for people.
func applyText(r *openclaw.ApplyReport) []byte {
	var out bytes.Buffer
	for _, w := range r.Warnings {
		fmt.Fprintln(&out, printable("warning: "+w))
	}
	would := ""
	if r.Mode == openclaw.ApplyDryRun {
		would = "would be "
	}
	for _, path := range r.ChangedFiles {
		fmt.Fprintln(&out, printable(fmt.Sprintf("%s: %schanged", shown(path), would)))
	}
	fmt.Fprintf(&out, "%s: %s %schanged, %s", r.Mode, count(len(r.ChangedFiles), "file", "files"), would, count(r.RefsChecked, "reference resolves", "references resolve"))
	if r.SkippedExec > 0 {
		fmt.Fprintf(&out, ", %d of programs skipped: --allow-exec runs them", r.SkippedExec)
	}
	fmt.Fprintln(&out)
	return out.Bytes()
}
