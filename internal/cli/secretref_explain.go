package cli

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/internal/openclaw"
)

func (a *app) secretrefExplain() *cobra.Command {
	var resolve, allowExec bool
	var output, compat *string
	cmd := &cobra.Command{
		Use:   "explain [FILE|DIR] [PATH|REF]",
		Short: "Tell how a reference of an OpenClaw home is read, who owns it, and what it takes to resolve",
		Long: `Tell of one reference how it is written, what its provider is, who owns it and what its failure does, and what
resolving it would check; of all references a line each. PATH is a path as OpenClaw writes it, or a JSON Pointer; REF is
source:provider:id. Nothing is resolved without --resolve, and no program runs without --allow-exec. No value is shown.

` + homeUsage + `

The exit status is 2 when a reference that was resolved has no value, or when there is no such reference.`,
		Example: `  credresolve secretref explain
  credresolve secretref explain models.providers.openai.apiKey
  credresolve secretref explain --resolve ~/.openclaw env:default:OPENAI_API_KEY
  credresolve secretref explain --output json openclaw.json /gateway/auth/token`,
		Args:              between(0, 2, "a file or directory and a path or reference at most"),
		ValidArgsFunction: completeHome,
		RunE: func(cmd *cobra.Command, args []string) error {
			place, what := a.placeAndWhat(args)
			home, err := a.openclawHome(place, *compat)
			if err != nil {
				return err
			}
			ctx, cancel := a.bounded(cmd.Context())
			defer cancel()
			found, err := home.Explain(ctx, what, openclaw.ExplainOptions{Resolve: resolve || allowExec, AllowExec: allowExec})
			if err != nil {
				return crashed(err)
			}
			switch {
			case *output == outputJSON:
				if found == nil {
					found = []openclaw.Explanation{}
				}
				err = a.writeJSON(found)
			case what == "":
				err = a.write(explainTable(found))
			default:
				err = a.write(explainText(found))
			}
			if err != nil {
				return err
			}
			for _, x := range found {
				if x.Outcome.Status == "failed" {
					return &exit{status: 2}
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&resolve, "resolve", false, "resolve references of environment and files, and tell whether that worked")
	cmd.Flags().BoolVar(&allowExec, "allow-exec", false, "resolve those of programs too, each of which runs once")
	output, compat = outputFlag(cmd), compatFlag(cmd)
	return cmd
}

// placeAndWhat tells a FILE or DIR from a PATH or REF: one argument alone is a place when there is such a file.
func (a *app) placeAndWhat(args []string) (place, what string) {
	switch len(args) {
	case 2:
		return args[0], args[1]
	case 1:
		if _, err := os.Stat(args[0]); err == nil || strings.ContainsRune(args[0], os.PathSeparator) && !strings.HasPrefix(args[0], "/") && !isRef(args[0]) {
			return args[0], ""
		}
		return "", args[0]
	}
	return "", ""
}

func isRef(s string) bool {
	source, _, ok := strings.Cut(s, ":")
	return ok && (source == "env" || source == "file" || source == "exec" || source == "store")
}

// owners writes who has a reference, and whether it is in use.
func owners(x openclaw.Explanation) string {
	var parts []string
	for _, u := range x.Uses {
		part := u.Owner
		if part == "" {
			part = "nobody known"
		}
		if !u.Active {
			part += " (inactive)"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

func outcome(o openclaw.ExplainedOutcome) string {
	if o.Status == "failed" && o.Code != "" {
		return o.Status + " " + string(o.Code)
	}
	return o.Status
}

func explainTable(found []openclaw.Explanation) []byte {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, x := range found {
		state := outcome(x.Outcome)
		if x.Outcome.Status == "skipped" {
			state = ""
			if x.Problem != "" || x.Provider.Problem != "" {
				state = "broken"
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", printable(x.Path), printable(x.Key), printable(owners(x)), state)
	}
	_ = w.Flush()
	lines := bytes.Buffer{}
	for line := range strings.Lines(out.String()) {
		lines.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return lines.Bytes()
}

// forms say how a reference is written.
var forms = map[openclaw.Form]string{
	openclaw.FormObject:  "an object with source, provider and id",
	openclaw.FormLegacy:  "an object without a provider, which is then the source's default",
	openclaw.FormBraces:  `the shorthand "${NAME}" of a variable, with the default provider`,
	openclaw.FormDollar:  `the shorthand "$NAME" of a variable, with the default provider`,
	openclaw.FormUnknown: "nowhere in this home",
}

func explainText(found []openclaw.Explanation) []byte {
	var out bytes.Buffer
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&out, "  %-9s %s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	for i, x := range found {
		if i > 0 {
			out.WriteByte('\n')
		}
		head := x.Key
		if x.Path != "" {
			head = shown(x.File)
			if x.Line > 0 {
				head += fmt.Sprintf(":%d", x.Line)
			}
			head += ": " + x.Path
		}
		fmt.Fprintln(&out, printable(head))
		line("ref", "%s", x.Key)
		line("written", "%s", forms[x.Form])
		if x.Problem != "" {
			line("problem", "%s", x.Problem)
		}
		switch p := x.Provider; {
		case p.Problem != "":
			line("provider", "%s: %s", p.Name, p.Problem)
		case p.BuiltIn:
			line("provider", "%s, which is built in", p.Name)
		default:
			line("provider", "%s (%s)", p.Defined, strings.Join(p.Settings, "; "))
		}
		if s := x.Surface; s != nil {
			note := ""
			if s.RuntimeOnly {
				note = "; the gateway resolves it, but no plan may name it"
			}
			line("surface", "%s, takes a %s%s", s.Pattern, strings.ReplaceAll(string(s.Expected), "-", " "), note)
		} else if x.Path != "" {
			line("surface", "none: openclaw takes no reference here")
		}
		for _, u := range x.Uses {
			text := u.Owner
			if text == "" {
				text = "nobody known"
			}
			if u.Strict {
				text += "; strict: its failure fails the whole start or reload"
			} else {
				text += "; its failure leaves other owners alone"
			}
			if !u.Active {
				text += "; inactive"
			}
			if u.Reason != "" {
				text += ": " + u.Reason
			}
			line("owner", "%s", text)
		}
		for _, note := range x.Notes {
			line("note", "%s", note)
		}
		for _, check := range x.Checks {
			line("check", "%s", check)
		}
		text := outcome(x.Outcome)
		if x.Outcome.Reason != "" {
			text += ": " + x.Outcome.Reason
		}
		if x.Outcome.Retryable {
			text += " (another try may succeed)"
		}
		line("outcome", "%s", text)
	}
	return out.Bytes()
}
