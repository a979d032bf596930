package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/openclaw"
	"github.com/credresolve/credresolve/secretref"
)

// reloadTimeout is how long a gateway may take when --timeout does not say, as with OpenClaw's own command.
const reloadTimeout = 30 * time.Second

func (a *app) secretrefReload() *cobra.Command {
	var address, tokenFile, passwordFile string
	var port uint16
	var offline, asJSON bool
	var output, compat *string
	cmd := &cobra.Command{
		Use:   "reload [FILE|DIR]",
		Short: "Make a running OpenClaw gateway resolve its references anew",
		Long: `Tell the gateway of an OpenClaw home to resolve its references anew, and wait until it has. It takes what it can get, each
owner of a credential for itself, and counts a warning for each that has none or keeps its old one; when its own token or
a whole provider that it needs fails, it keeps everything as it was, and the exit status is 1.

The gateway is the home's own, at 127.0.0.1 and gateway.port, or at gateway.remote.url when gateway.mode is remote. Its token
or password is the one in $OPENCLAW_GATEWAY_TOKEN or $OPENCLAW_GATEWAY_PASSWORD, else that of the home, whose reference is
resolved for it. Neither is taken from the command line: --token-file and --password-file name a file, - for standard input.
A gateway that --url names gets no other one. It waits 30s unless --timeout says else.

With --offline no gateway is asked: the references of the home are resolved once, as a gateway does when it starts, and
nothing is kept. That runs the programs of exec providers.

` + homeUsage,
		Example: `  credresolve secretref reload
  credresolve secretref reload --json ~/.openclaw
  credresolve secretref reload --url wss://gateway.example --token-file token
  credresolve secretref reload --offline openclaw.json`,
		Args:              between(0, 1, "one file or directory at most"),
		ValidArgsFunction: completeHome,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, pair := range [][2]string{{"url", "port"}, {"token-file", "password-file"}, {"offline", "url"}, {"offline", "port"}, {"offline", "token-file"}, {"offline", "password-file"}} {
				if cmd.Flags().Changed(pair[0]) && cmd.Flags().Changed(pair[1]) {
					return backend.Errorf(backend.CodeUsage, "--%s and --%s exclude one another; leave one out", pair[0], pair[1])
				}
			}
			home, err := a.openclawHome(strings.Join(args, ""), *compat)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), cmp.Or(a.timeout, reloadTimeout))
			defer cancel()
			choice := openclaw.GatewayChoice{URL: address, Port: int(port)}
			if file := cmp.Or(tokenFile, passwordFile); file != "" {
				if choice.Credential, err = a.credentialFile(ctx, file); err != nil {
					return err
				}
				choice.Password = passwordFile != ""
			}
			var answer openclaw.Reloaded
			if offline {
				answer, err = a.reloadOffline(ctx, home)
			} else {
				answer, err = reloadGateway(ctx, home, choice)
			}
			if err != nil {
				return failedReload(err)
			}
			if asJSON || *output == outputJSON {
				return a.writeJSON(answer)
			}
			what := "reloaded"
			if offline {
				what = "resolved"
			}
			if answer.WarningCount > 0 {
				what += ", with " + count(answer.WarningCount, "warning", "warnings")
				if !offline {
					what += "; the gateway's log has them"
				}
			}
			return a.write([]byte(what + "\n"))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&address, "url", "", "call the gateway at this ws:// or wss:// `address`")
	flags.Uint16Var(&port, "port", 0, "call the gateway of this machine at this `port`")
	flags.StringVar(&tokenFile, "token-file", "", "take the gateway's token from this `file`")
	flags.StringVar(&passwordFile, "password-file", "", "take the gateway's password from this `file`")
	flags.BoolVar(&offline, "offline", false, "ask no gateway, but resolve everything once")
	flags.BoolVar(&asJSON, "json", false, "the same as --output json, as OpenClaw calls it")
	output, compat = outputFlag(cmd), compatFlag(cmd)
	for _, name := range []string{"url", "port"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	return cmd
}

// failedReload gives an error OpenClaw's status for it, unless a signal came.
func failedReload(err error) error {
	var by interrupted
	if errors.As(err, &by) || errors.Is(err, context.Canceled) {
		return err
	}
	return &exit{status: 1, err: err}
}

// credentialFile reads a token or a password, without the end of its line.
func (a *app) credentialFile(ctx context.Context, path string) (backend.Secret, error) {
	var content []byte
	var err error
	what := path
	if path == "-" {
		what = "standard input"
		content, err = readAll(ctx, a.stdin, maxValue, what)
	} else {
		content, err = a.readFile(ctx, path)
	}
	if err != nil {
		return backend.Secret{}, err
	}
	defer clear(content)
	value := bytes.TrimSpace(content)
	if len(value) == 0 {
		return backend.Secret{}, backend.Errorf(backend.CodeUsage, "%s is empty; it should hold the gateway's token or password", what)
	}
	return backend.NewSecret(bytes.Clone(value)), nil
}

func reloadGateway(ctx context.Context, home openclaw.Home, choice openclaw.GatewayChoice) (openclaw.Reloaded, error) {
	document, err := home.Load()
	if err != nil && choice.URL == "" {
		return openclaw.Reloaded{}, err
	}
	gateway, err := document.Gateway(ctx, choice)
	if err != nil {
		return openclaw.Reloaded{}, err
	}
	gateway.Version = readBuildInfo().Version
	return gateway.ReloadSecrets(ctx)
}

// reloadOffline tells on standard error what a gateway would count as warnings.
func (a *app) reloadOffline(ctx context.Context, home openclaw.Home) (openclaw.Reloaded, error) {
	document, err := home.Load()
	if err != nil {
		return openclaw.Reloaded{}, err
	}
	report, err := document.Activate(ctx, func(e secretref.Event) {
		if e.Warning() {
			a.warn("%s", e)
		}
	})
	if err != nil {
		var failed *secretref.ActivationError
		if errors.As(err, &failed) {
			for _, f := range failed.Failures[1:] {
				fmt.Fprintln(a.stderr, printable(fmt.Sprintf("credresolve: %s: %v", f.Path, f.Err)))
			}
		}
		return openclaw.Reloaded{}, err
	}
	return openclaw.Reloaded{OK: true, WarningCount: report.WarningCount()}, nil
}
