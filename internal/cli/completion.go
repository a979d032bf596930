package cli

import (
	"bytes"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
)

func (a *app) completion(root *cobra.Command) *cobra.Command {
	shells := map[string]func(*bytes.Buffer) error{
		"bash":       func(b *bytes.Buffer) error { return root.GenBashCompletionV2(b, true) },
		"zsh":        func(b *bytes.Buffer) error { return root.GenZshCompletion(b) },
		"fish":       func(b *bytes.Buffer) error { return root.GenFishCompletion(b, true) },
		"powershell": func(b *bytes.Buffer) error { return root.GenPowerShellCompletionWithDesc(b) },
	}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print the completion script for a shell",
		Long:  `Print the script that makes a shell complete commands, flags, files and the names of providers.`,
		Example: `  source <(credresolve completion bash)
  credresolve completion zsh > "${fpath[1]}/_credresolve"
  credresolve completion fish > ~/.config/fish/completions/credresolve.fish`,
		Args:      exactly(1, "one of: bash, zsh, fish, powershell"),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(_ *cobra.Command, args []string) error {
			write, ok := shells[args[0]]
			if !ok {
				return backend.Errorf(backend.CodeUsage, "unknown shell; known: bash, zsh, fish, powershell")
			}
			var script bytes.Buffer
			if err := write(&script); err != nil {
				return backend.Errorf(backend.CodeInternal, "the script cannot be made")
			}
			return a.write(script.Bytes())
		},
	}
}
