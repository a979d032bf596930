package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/internal/openclaw"
)

func (a *app) secretrefAudit() *cobra.Command {
	var check, allowExec, asJSON bool
	var output, compat *string
	cmd := &cobra.Command{
		Use:   "audit [FILE|DIR]",
		Short: "Find plain-text secrets and broken references in an OpenClaw home",
		Long: `Look through an OpenClaw home for secrets in plain text, references without a value, and credentials that older
releases left behind: the configuration, the auth profiles, generated models.json, the .env files and OpenClaw's own
store. Nothing is changed and no value is shown. Programs of exec providers run with --allow-exec alone, each once
for all of its references.

` + homeUsage + `

The exit status is 2 when a reference has no value, 1 when there is any finding and --check is given, else 0.`,
		Example: `  credresolve secretref audit
  credresolve secretref audit --check --allow-exec
  credresolve secretref audit --json ~/.openclaw
  credresolve secretref audit app.json5`,
		Args:              between(0, 1, "one file or directory at most"),
		ValidArgsFunction: completeHome,
		RunE: func(cmd *cobra.Command, args []string) error {
			home, err := a.openclawHome(strings.Join(args, ""), *compat)
			if err != nil {
				return err
			}
			ctx, cancel := a.bounded(cmd.Context())
			defer cancel()
			report, err := home.Audit(ctx, openclaw.AuditOptions{AllowExec: allowExec})
			if err != nil {
				return crashed(err)
			}
			if report.Skipped > 0 && (asJSON || *output == outputJSON) {
				a.warn("%s not resolved; --allow-exec runs the programs", count(report.Skipped, "reference of a program is", "references of programs are"))
			}
			if asJSON || *output == outputJSON {
				for _, f := range report.Findings {
					if f.Detail != "" {
						a.warn("%s", f.Detail) // the report has no place for it
					}
				}
				err = a.writeJSON(report)
			} else {
				err = a.write(auditText(home, report))
			}
			if err != nil {
				return err
			}
			if status := report.ExitStatus(check); status != 0 {
				return &exit{status: status}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "end with status 1 when there is any finding")
	cmd.Flags().BoolVar(&allowExec, "allow-exec", false, "run the programs of exec providers, each once")
	cmd.Flags().BoolVar(&asJSON, "json", false, "the same as --output json, as OpenClaw calls it")
	output, compat = outputFlag(cmd), compatFlag(cmd)
	return cmd
}

// crashed gives an error OpenClaw's status for it, unless a signal came.
func crashed(err error) error {
	var by interrupted
	if errors.As(err, &by) || errors.Is(err, context.Canceled) {
		return err
	}
	return &exit{status: 2, err: err}
}

// count writes a number of things.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// auditText is a report for people: two lines for each finding, where and what, and what to do.
func auditText(home openclaw.Home, r *openclaw.AuditReport) []byte {
	var out bytes.Buffer
	for _, f := range r.Findings {
		file := f.File
		if f.Code == openclaw.RefShadowed {
			file = home.Config
		}
		place := shown(file)
		if f.Line > 0 {
			place += fmt.Sprintf(":%d", f.Line)
		}
		if f.Path != "<root>" {
			place += ": " + f.Path
		}
		what := strings.TrimSuffix(strings.TrimPrefix(f.Message, f.Path+" is "), ".")
		if f.Detail != "" {
			what += ": " + f.Detail
		}
		fmt.Fprintln(&out, printable(fmt.Sprintf("%s: %s %s: %s", place, f.Severity, f.Code, what)))
		if f.Remedy != "" {
			fmt.Fprintln(&out, printable("  "+f.Remedy))
		}
	}
	s := r.Summary
	fmt.Fprintf(&out, "%s: %s", r.Status, count(len(r.Findings), "finding", "findings"))
	for _, part := range []struct {
		n    int
		what string
	}{{s.Plaintext, "plain text"}, {s.Unresolved, "unresolved"}, {s.Shadowed, "shadowed"}, {deref(s.StoreResidue), "also in the store"}, {s.Legacy, "legacy"}} {
		if part.n > 0 {
			fmt.Fprintf(&out, ", %d %s", part.n, part.what)
		}
	}
	fmt.Fprintf(&out, "; %s, %s", count(len(r.Files), "file", "files"), count(r.Checked, "reference checked", "references checked"))
	if r.Skipped > 0 {
		fmt.Fprintf(&out, ", %d of programs skipped: --allow-exec runs them", r.Skipped)
	}
	fmt.Fprintln(&out)
	return out.Bytes()
}

func deref(n *int) int {
	if n == nil {
		return 0
	}
	return *n
}
