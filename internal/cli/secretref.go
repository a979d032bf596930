package cli

import "github.com/spf13/cobra"

// secretref holds the commands for SecretRefs, OpenClaw's static references. They end with OpenClaw's exit statuses.
func (a *app) secretref() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secretref",
		Short: "Work on OpenClaw's static references",
		Long: `Work on SecretRefs, the references {source, provider, id} of OpenClaw, in an OpenClaw home or in any JSON5 file. These
commands end with OpenClaw's exit statuses.`,
		Example: `  credresolve secretref --help`,
		Args:    exactly(0, "the name of one of its commands"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand()
	return cmd
}
