package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/credref/document"
	"github.com/credresolve/credresolve/internal/requirements"
)

// needFlags are the flags of commands that read requirements.
type needFlags struct {
	files []string
	maps  []string
}

func (f *needFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.maps, "map", nil, "take the required variable `NAME=REF` from there, whatever its file says; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("map", cobra.NoFileCompletions)
}

func completeRequirements(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"md", "yaml", "yml", "json"}, cobra.ShellCompDirectiveFilterFileExt
}

// required is the answer of requirements for one of them.
type required struct {
	File        string              `json:"file"`
	Line        int                 `json:"line"`
	Env         string              `json:"env"`
	Ref         *credref.Ref        `json:"ref,omitempty"`
	Type        backend.Type        `json:"type,omitempty"`
	Scopes      []string            `json:"scopes,omitempty"`
	Optional    bool                `json:"optional"`
	Status      requirements.Status `json:"status"`
	ExpiresAt   *time.Time          `json:"expires_at,omitempty"`
	Login       string              `json:"login,omitempty"` // the command that logs in
	Description string              `json:"description,omitempty"`
	Help        string              `json:"help,omitempty"`
	Error       *client.Error       `json:"error,omitempty"`
}

func (a *app) requirements() *cobra.Command {
	var needs needFlags
	var output *string
	cmd := &cobra.Command{
		Use:   "requirements FILE...",
		Short: "Tell whether the credentials that a skill or a plugin requires are there",
		Long: `Tell of each credential that files require whether it is there: ok, missing, expired, needs_login, unsupported (of another
type, or without scopes that are needed) or error, and what to do next. No value is shown.

A file is a SKILL.md, whose front matter has the key credentials, or the folder of one; or a YAML or JSON file with a list of
requirements. The status is 0 when all are ok that are not optional, else that of the first that is not.`,
		Example: `  credresolve requirements skills/report/SKILL.md
  credresolve requirements --map GITHUB_TOKEN=cred://desk/github skills/report
  credresolve requirements --output json plugin/requirements.yaml`,
		Args:              atLeast(1, "one file or more"),
		ValidArgsFunction: completeRequirements,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, s, done, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			needs.files = args
			all, err := s.requirements(ctx, needs)
			if err != nil {
				return err
			}
			vars := make([]variable, len(all))
			for i := range all {
				vars[i] = s.required(&all[i])
			}
			outcomes := s.settleVariables(ctx, vars)
			if stop := stopped(ctx); stop != nil {
				return stop
			}
			now := time.Now()
			answers := make([]required, len(vars))
			var errs []error
			for i := range vars {
				f := vars[i].find(outcomes[i], now)
				answers[i] = newRequired(vars[i].need, outcomes[i], f)
				if f.Status != requirements.OK && !vars[i].need.Optional {
					errs = append(errs, f.Err)
				}
			}
			if *output == outputJSON {
				err = a.writeJSON(answers)
			} else {
				err = a.write(requirementsTable(answers))
			}
			if err != nil {
				return err
			}
			return a.failed(errs, false)
		},
	}
	needs.add(cmd)
	output = outputFlag(cmd)
	return cmd
}

func newRequired(r *requirements.Requirement, o settled, f requirements.Finding) required {
	out := required{
		File: r.File, Line: r.Line, Env: r.Env, Type: r.Type, Scopes: r.Scopes, Optional: r.Optional, Status: f.Status,
		Login: f.Login, Description: r.Description, Help: r.Help, Error: client.NewError(f.Err),
	}
	if r.Ref.Provider != "" {
		out.Ref = &r.Ref
	}
	if o.value != nil && !o.value.Expires().IsZero() {
		end := o.value.Expires().UTC()
		out.ExpiresAt = &end
	}
	return out
}

func requirementsTable(answers []required) []byte {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.StripEscape)
	for _, r := range answers {
		ref, what := "-", "required"
		if r.Ref != nil {
			ref = r.Ref.String()
		}
		if r.Optional {
			what = "optional"
		}
		status := string(r.Status)
		if r.Ref == nil && r.Status == requirements.OK {
			status += ": set in the environment"
		}
		if r.Error != nil {
			status += ": " + r.Error.Message
			if r.Help != "" {
				status += "; its author says: " + r.Help
			}
		}
		fmt.Fprintln(w, cell(fmt.Sprintf("%s:%d", r.File, r.Line))+"\t"+r.Env+"\t"+cell(ref)+"\t"+what+"\t"+cell(status))
	}
	_ = w.Flush() // to memory
	return out.Bytes()
}

// requirements reads the files of f, with what is mapped.
func (s *session) requirements(ctx context.Context, f needFlags) ([]requirements.Requirement, error) {
	mapped := make(map[string]credref.Ref)
	for i, pair := range f.maps {
		name, ref, err := namedRef("map", i, pair)
		if err != nil {
			return nil, err
		}
		if requirements.CheckEnv(name) != nil {
			return nil, backend.Errorf(backend.CodeUsage, "--map number %d: it begins with a required variable, as in GITHUB_TOKEN=cred://desk/github", i+1)
		}
		if _, twice := mapped[name]; twice {
			return nil, backend.Errorf(backend.CodeUsage, "--map %s stands twice", name)
		}
		mapped[name] = ref
	}
	var all []requirements.Requirement
	for _, path := range f.files {
		path, src, err := s.app.readRequirements(ctx, path)
		if err != nil {
			return nil, err
		}
		own, err := requirements.Parse(path, src)
		if err != nil {
			return nil, err
		}
		if len(own) == 0 {
			s.app.warn("%s requires nothing: its key credentials is missing or empty", path)
		}
		all = append(all, own...)
	}
	return requirements.Map(all, mapped)
}

// maxRequirementsFile is the size of the largest file with requirements, in bytes.
const maxRequirementsFile = 1 << 20

// readRequirements reads a file with requirements, of a folder its SKILL.md, and gives its name.
func (a *app) readRequirements(ctx context.Context, path string) (string, []byte, error) {
	if path == "-" {
		src, err := readAll(ctx, a.stdin, maxRequirementsFile, "standard input")
		return "<stdin>", src, err
	}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, "SKILL.md")
	}
	in, err := await(ctx, func() (*os.File, error) { return os.Open(path) })
	if err != nil {
		if ctx.Err() != nil {
			return "", nil, context.Cause(ctx)
		}
		return "", nil, backend.Errorf(backend.CodeUsage, "%s cannot be read: %s", path, reason(err))
	}
	defer in.Close()
	src, err := readAll(ctx, in, maxRequirementsFile, path)
	return path, src, err
}

// required is the variable that r requires.
func (s *session) required(r *requirements.Requirement) variable {
	v := variable{need: r, Var: document.Var{Name: r.Env, Site: &document.Site{
		Ref: r.Ref, File: r.File, Line: r.Line, Column: r.Column, Path: r.Env,
	}}}
	if own, set := s.app.lookupEnv(r.Env); r.Ref.Provider == "" && set && own != "" {
		v.Site, v.Value = nil, own // it is set already, by whoever runs this
		return v
	}
	if r.Ref.Provider == "" || s.file.Provider(r.Ref.Provider) == nil {
		var known []string
		for _, p := range s.file.Providers() {
			known = append(known, p.Name)
		}
		v.lacks = r.NoProvider(known).Err
	}
	return v
}

// find judges what became of v, which is required.
func (v *variable) find(o settled, now time.Time) requirements.Finding {
	if v.Site == nil {
		return requirements.Finding{Status: requirements.OK}
	}
	if v.lacks != nil {
		return requirements.Finding{Status: requirements.Missing, Err: v.lacks}
	}
	return v.need.Judge(o.value, o.err, now)
}

// meet makes o what a child gets of v, which is required: what does not meet an optional requirement is left away, and is
// told of unless there is none at all.
func (s *session) meet(v *variable, o *settled, now time.Time) {
	f := v.find(*o, now)
	switch {
	case f.Status == requirements.OK:
	case !v.need.Optional:
		if v.need.Help != "" && v.told != f.Status {
			s.app.tell("%s: of %s its author says: %s", v.need.Place(), v.need.Env, v.need.Help)
		}
		v.told = f.Status
		*o = settled{how: howFailed, err: f.Err}
	default:
		if f.Status != requirements.Missing && v.told != f.Status {
			v.told = f.Status
			s.app.warn("%s: %s is optional and stays unset: %v", v.need.Place(), v.need.Env, f.Err)
		}
		*o = settled{how: howRemoved}
	}
}
