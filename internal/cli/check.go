package cli

import (
	"bytes"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/credref/document"
	"github.com/credresolve/credresolve/secretref"
)

// checked is the answer of check for one ref, or for one thing that is wrong with a document.
type checked struct {
	File   string         `json:"file"`
	Line   int            `json:"line,omitempty"`
	Column int            `json:"column,omitempty"`
	Path   string         `json:"path,omitempty"`
	Kind   string         `json:"kind,omitempty"` // of the reference: credential or secret
	Ref    *credref.Ref   `json:"ref,omitempty"`
	Static *secretref.Ref `json:"secret_ref,omitempty"` // instead of Ref
	Status how            `json:"status"`
	Used   *credref.Ref   `json:"used,omitempty"` // the fallback that was found
	Error  *client.Error  `json:"error,omitempty"`
}

// The kinds of references, in the answer of check.
const (
	kindCredential = "credential"
	kindSecret     = "secret"
)

func (a *app) check() *cobra.Command {
	var doc documentFlags
	var output *string
	cmd := &cobra.Command{
		Use:   "check FILE...",
		Short: "Tell of every reference in documents whether it resolves",
		Long: `Resolve every reference in documents and tell, one line each, whether that worked: the place, the reference, and ok or
the code and the reason. No value is shown. "fallback", "default" and "removed" tell what stands in for a reference
that was not found. SecretRefs, {source, provider, id}, are checked too; of these nothing can stand in.`,
		Example: `  credresolve check app.yaml
  credresolve check deploy/*.yaml app.env
  credresolve check --output json app.yaml`,
		Args:              atLeast(1, "one file or more"),
		ValidArgsFunction: completeDocuments,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, s, done, err := a.openDocuments(cmd.Context(), args, doc)
			if err != nil {
				return err
			}
			defer done()
			var sites []*document.Site
			broken := make(map[string]error)
			var docs [][]*document.Site
			for _, path := range args {
				d, err := s.read(ctx, path, doc)
				if stop := stopped(ctx); stop != nil {
					return stop
				}
				if err != nil {
					broken[path] = err
				}
				if d == nil {
					docs = append(docs, nil)
					continue
				}
				docs = append(docs, d.Refs())
				sites = append(sites, d.Refs()...)
			}
			a.warnOfDefaults(sites)
			outcomes := s.settle(ctx, sites)
			if stop := stopped(ctx); stop != nil {
				return stop
			}
			answers := []checked{}
			var errs []error
			next, statics := 0, 0
			for i, path := range args {
				for _, err := range apart(broken[path]) {
					answers = append(answers, checked{File: path, Status: howFailed, Error: client.NewError(err)})
					errs = append(errs, err)
				}
				for _, site := range docs[i] {
					o := outcomes[next]
					next++
					c := checked{File: site.File, Line: site.Line, Column: site.Column, Path: site.Path, Status: o.how}
					if ref, ok := staticRef(site); ok {
						c.Kind, c.Static = kindSecret, &ref
						statics++
					} else {
						c.Kind, c.Ref = kindCredential, &site.Ref
					}
					switch o.how {
					case howFailed:
						c.Error = client.NewError(o.err)
						errs = append(errs, o.err)
					case howFallback:
						c.Used = &o.used
					}
					answers = append(answers, c)
				}
			}
			if *output == outputJSON {
				if err := a.writeJSON(answers); err != nil {
					return err
				}
				return a.failed(errs, false)
			}
			if err := a.write(checkTable(answers)); err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "credresolve: %s\n", summary(len(sites), statics, len(errs), len(args)))
			return a.failed(errs, false)
		},
	}
	doc.add(cmd)
	output = outputFlag(cmd)
	return cmd
}

// apart gives the errors that err joins, or err alone; none for nil.
func apart(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

func checkTable(answers []checked) []byte {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.StripEscape)
	for _, c := range answers {
		if c.Kind == "" { // a document's errors name their places themselves
			fmt.Fprintf(w, "%s\n", printable(fmt.Sprintf("%s: %s", c.Error.Code, c.Error.Message)))
			continue
		}
		ref := ""
		if c.Static != nil {
			ref = c.Static.Key()
		} else {
			ref = c.Ref.String()
		}
		status := string(c.Status)
		switch {
		case c.Error != nil:
			status = fmt.Sprintf("%s: %s", c.Error.Code, c.Error.Message)
		case c.Used != nil:
			status += " " + c.Used.String()
		}
		fmt.Fprintln(w, cell(fmt.Sprintf("%s:%d:%d", c.File, c.Line, c.Column))+"\t"+cell(c.Path)+"\t"+cell(ref)+"\t"+cell(status))
	}
	_ = w.Flush() // to memory
	return out.Bytes()
}

// cell is a text in one cell of a table.
func cell(s string) string {
	var b bytes.Buffer
	for _, c := range printable(s) {
		if c == '\n' {
			c = ' '
		}
		b.WriteRune(c)
	}
	return b.String()
}

func summary(refs, statics, failed, files int) string {
	plural := func(n int, what string) string {
		if n == 1 {
			return "1 " + what
		}
		return fmt.Sprintf("%d %ss", n, what)
	}
	s := plural(refs, "reference")
	if statics > 0 {
		s += fmt.Sprintf(" (%s)", plural(statics, "SecretRef"))
	}
	s += " in " + plural(files, "file") + ", "
	if failed == 0 {
		return s + "all ok"
	}
	return s + fmt.Sprintf("%d failed", failed)
}
