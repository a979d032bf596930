package cli

import (
	"bytes"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
)

// trustAnswer tells of the trust in one configuration, for a program.
type trustAnswer struct {
	Path    string   `json:"path"`
	SHA256  string   `json:"sha256"`
	Trusted bool     `json:"trusted"`
	Needs   []string `json:"needs,omitempty"` // what its providers touch
}

func (a *app) trust() *cobra.Command {
	var output *string
	var yes, list, revoke bool
	cmd := &cobra.Command{
		Use:   "trust [FILE]",
		Short: "Allow the providers of a project's configuration to run",
		Long: `Allow the providers of a configuration that was found in the working directory to run. Such a file may have come with
somebody else's project: until it is trusted, its providers touch nothing but files below its directory.

The command shows every executable, address, environment variable and file outside the directory that the providers
touch, and every reference among them, and then asks. What is trusted is the file as it is: a change needs trust again.`,
		Example: `  credresolve trust
  credresolve trust --yes ./credresolve.yaml
  credresolve trust --revoke ./credresolve.yaml`,
		Args: between(0, 1, "one file at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := a.bounded(cmd.Context())
			defer cancel()
			switch {
			case list && (revoke || yes || len(args) > 0):
				return backend.Errorf(backend.CodeUsage, "--list stands alone")
			case revoke && yes:
				return backend.Errorf(backend.CodeUsage, "--revoke and --yes exclude each other")
			}
			state, err := a.openStateDir()
			if err != nil {
				return backend.Errorf(backend.CodeInvalidConfig, "there is no place to remember trust: %v", err)
			}
			trusted := config.TrustStore{Dir: state}
			if list {
				return a.listTrusted(trusted, *output)
			}
			if len(args) == 0 {
				args = []string{config.FileName}
			}
			path, err := a.locate(args)
			if err != nil {
				return err
			}
			if revoke {
				return trusted.Remove(ctx, path)
			}
			file, err := a.loadFile(ctx, path)
			if err != nil {
				return err
			}
			already, err := trusted.Trusted(file)
			if err != nil {
				return err
			}
			answer := trustAnswer{Path: file.Path(), SHA256: file.SHA256(), Trusted: already, Needs: file.NeedsTrust()}
			if *output == outputText {
				if err := a.write(answer.text()); err != nil {
					return err
				}
			}
			if !already && len(answer.Needs) > 0 && (yes || *output == outputText) {
				if !yes {
					if err := a.confirm(ctx, "trust this file?", "use --yes"); err != nil {
						return err
					}
				}
				if err := trusted.Add(ctx, file); err != nil {
					return err
				}
				answer.Trusted = true
				if *output == outputText {
					fmt.Fprintln(a.stderr, "credresolve: it is trusted from now on, until it changes")
				}
			}
			if *output == outputJSON {
				return a.writeJSON(answer)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&list, "list", false, "list the trusted files")
	cmd.Flags().BoolVar(&revoke, "revoke", false, "trust the file no longer")
	output = outputFlag(cmd)
	return cmd
}

func (t trustAnswer) text() []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s\nsha256 %s\n", cell(t.Path), t.SHA256)
	for _, need := range t.Needs {
		fmt.Fprintf(&out, "  %s\n", cell(need))
	}
	switch {
	case len(t.Needs) == 0:
		fmt.Fprintln(&out, "nothing in it needs trust")
	case t.Trusted:
		fmt.Fprintln(&out, "it is trusted")
	}
	return out.Bytes()
}

func (a *app) listTrusted(trusted config.TrustStore, output string) error {
	known, err := trusted.List()
	if err != nil {
		return err
	}
	paths, err := trusted.TrustedPaths()
	if err != nil {
		return err
	}
	answers := []trustAnswer{}
	var text bytes.Buffer
	for _, path := range paths {
		answers = append(answers, trustAnswer{Path: path, SHA256: known[path], Trusted: true})
		fmt.Fprintf(&text, "%s  %s\n", known[path], cell(path))
	}
	if output == outputJSON {
		return a.writeJSON(answers)
	}
	return a.write(text.Bytes())
}
