package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
)

// configCheck is the answer of config check, for a program.
type configCheck struct {
	Path      string   `json:"path"`
	OK        bool     `json:"ok"`
	Providers int      `json:"providers"`
	Problems  []string `json:"problems"`
	Warnings  []string `json:"warnings"`
}

func (a *app) config() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check, describe and find the configuration",
		Long: `Check, describe and find the configuration: the file of --config, else of $CREDRESOLVE_CONFIG, else ./credresolve.yaml,
else credresolve/credresolve.yaml in the configuration directory of the user. The first found is the only one.`,
		Example: `  credresolve config check
  credresolve config schema > credresolve.schema.json
  credresolve config path`,
		Args: exactly(0, "one of: check, path, schema"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.configCheck(), a.configPathCommand(), a.configSchema())
	return cmd
}

func (a *app) configCheck() *cobra.Command {
	var output *string
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Tell what is wrong with the configuration",
		Long:  `Tell what is wrong with the configuration, one line for each problem, without reaching any provider.`,
		Example: `  credresolve config check
  credresolve config check --output json ./credresolve.yaml`,
		Args: between(0, 1, "one file at most"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := a.bounded(cmd.Context())
			defer cancel()
			path, err := a.locate(args)
			if err != nil {
				return err
			}
			c := configCheck{Path: path, Problems: []string{}, Warnings: []string{}}
			file, err := a.loadFile(ctx, shown(path))
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err == nil {
				err = a.openable(file)
			}
			if err == nil {
				c.OK, c.Providers = true, len(file.Providers())
				c.Warnings = append(c.Warnings, file.Warnings()...)
			} else {
				c.Problems = strings.Split(err.Error(), "\n")
			}
			if *output == outputJSON {
				if err := a.writeJSON(c); err != nil {
					return err
				}
				return a.failed([]error{err}, false)
			}
			for _, w := range c.Warnings {
				a.warn("%s", w)
			}
			if err != nil {
				return err
			}
			plural := "s"
			if c.Providers == 1 {
				plural = ""
			}
			return a.write(fmt.Appendf(nil, "%s: ok, %d provider%s\n", printable(shown(path)), c.Providers, plural))
		},
	}
	output = outputFlag(cmd)
	return cmd
}

// openable tells what the kinds find wrong with the settings of their providers. It reaches nothing, so that a file need not
// be trusted for it.
func (a *app) openable(file *config.File) error {
	r, err := file.Open(config.Options{LookupEnv: a.lookupEnv})
	if err != nil {
		return err
	}
	return r.Close()
}

func (a *app) configPathCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "path",
		Short: "Print which configuration is used",
		Example: `  credresolve config path
  credresolve --config ./other.yaml config path`,
		Args: exactly(0, "no argument"),
		RunE: func(*cobra.Command, []string) error {
			path, err := a.locate(nil)
			if err != nil {
				return err
			}
			return a.write([]byte(printable(path) + "\n"))
		},
	}
}

func (a *app) configSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration",
		Long:  `Print the JSON Schema (draft 2020-12) of the configuration with the kinds that this program has, for editors and checks.`,
		Example: `  credresolve config schema > credresolve.schema.json
  credresolve config schema | jq '.properties.providers'`,
		Args: exactly(0, "no argument"),
		RunE: func(*cobra.Command, []string) error {
			return a.write(a.schema)
		},
	}
}

// locate gives the path of the configuration: the argument's, or the one in use.
func (a *app) locate(args []string) (string, error) {
	if len(args) == 1 {
		path, err := filepath.Abs(args[0])
		if err != nil {
			return "", backend.Errorf(backend.CodeUsage, "%s: %s", args[0], reason(err))
		}
		return path, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", backend.Errorf(backend.CodeInvalidConfig, "there is no working directory: %s", reason(err))
	}
	at, err := config.Find(a.configPath, a.lookupEnv, dir)
	return at.Path, err
}
