package cli

import (
	"errors"
	"io/fs"
	"os"
	"os/user"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/openclaw"
	"github.com/credresolve/credresolve/secretref"
)

// secretref holds the commands for SecretRefs, OpenClaw's static references. They end with OpenClaw's exit statuses.
func (a *app) secretref() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secretref",
		Short: "Work on OpenClaw's static references",
		Long: `Work on SecretRefs, the references {source, provider, id} of OpenClaw, in an OpenClaw home or in any JSON5 file. These
commands end with OpenClaw's exit statuses.`,
		Example: `  credresolve secretref audit
  credresolve secretref explain models.providers.openai.apiKey`,
		Args: exactly(0, "the name of one of its commands"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		a.secretrefAudit(),
		a.secretrefConfigure(),
		a.secretrefApply(),
		a.secretrefInstall(),
		a.secretrefReload(),
		a.secretrefExplain(),
		a.secretrefMigrate(),
	)
	return cmd
}

// homeUsage says how the commands find the home they work on.
const homeUsage = `Without FILE or DIR the home is the one that the openclaw command uses: $OPENCLAW_STATE_DIR and
$OPENCLAW_CONFIG_PATH, else .openclaw in $OPENCLAW_HOME or $HOME. DIR is a state directory; FILE is a JSON5 document by itself,
OpenClaw's or another.`

// compatFlag adds --compat to cmd and gives where its value will be.
func compatFlag(cmd *cobra.Command) *string {
	value := ""
	choiceFlag(cmd, &value, "compat", "go by the rules of an older `release` of OpenClaw", string(secretref.V2026_3_2))
	return &value
}

// openclawHome gives the home that a FILE or a DIR names, or that the environment says when place is empty.
func (a *app) openclawHome(place, compat string) (openclaw.Home, error) {
	system := ""
	if u, err := user.Current(); err == nil {
		system = u.HomeDir
	}
	var home openclaw.Home
	var err error
	switch info, statErr := os.Stat(place); {
	case place == "":
		home, err = openclaw.Find(a.lookupEnv, system)
	case errors.Is(statErr, fs.ErrNotExist):
		return home, &backend.Error{Code: backend.CodeUsage, Reason: place + ": it does not exist", Remedy: "name a state directory of OpenClaw, or a JSON5 file"}
	case statErr != nil:
		return home, backend.Errorf(backend.CodeUsage, "%s: %s", place, reason(statErr))
	case info.IsDir():
		home, err = openclaw.DirHome(place, a.lookupEnv, system)
	default:
		home = openclaw.FileHomeIn(place, a.lookupEnv, system)
	}
	if err != nil {
		return home, backend.Errorf(backend.CodeUsage, "%v", err)
	}
	home.Compat = secretref.Compat(compat)
	return home, nil
}

// completeHome completes a FILE or a DIR.
func completeHome(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"json", "json5"}, cobra.ShellCompDirectiveFilterFileExt
}
