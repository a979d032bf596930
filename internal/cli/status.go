package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
)

func (a *app) statusCommand() *cobra.Command {
	var output *string
	var socket string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell how the sidecar of this user is, and who is logged in",
		Long: `Tell how the sidecar of this user is: since when it serves which configuration, how each provider stands, and how much is
cached; and to which providers this user is logged in, as the index of logins has it, which unlocks no keychain and asks
no store. The exit status is 0 when the sidecar is ready, 6 when it is not or none answers: good for the health check of a
container.`,
		Example: `  credresolve status
  credresolve status --output json
  credresolve status --socket /run/app/sock`,
		Args: exactly(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := a.bounded(cmd.Context())
			defer cancel()
			if a.timeout <= 0 {
				ctx, cancel = context.WithTimeoutCause(ctx, statusTime, &backend.Error{
					Code: backend.CodeUnavailable, Reason: fmt.Sprintf("the sidecar did not answer within %v", statusTime), Remedy: "start it again: credresolve serve",
				})
				defer cancel()
			}
			logins, err := a.loginsAt(socket)
			if err != nil {
				a.complain(err)
			}
			c, err := a.dial(socket)
			if err != nil {
				return err
			}
			defer c.Close()
			st, err := c.Status(ctx)
			if err != nil {
				return errors.Join(a.writeLogins(*output, logins), late(ctx, err))
			}
			if *output == outputJSON {
				err = a.writeJSON(status{&st, logins})
			} else {
				text := statusTable(st)
				if len(logins) > 0 {
					text = append(append(text, '\n'), loginTable(logins)...)
				}
				err = a.write(text)
			}
			if err == nil && !st.Ready {
				err = backend.Errorf(backend.CodeUnavailable, "the sidecar is not ready")
			}
			return err
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "ask the sidecar at this `path`")
	output = outputFlag(cmd)
	return cmd
}

const statusTime = 10 * time.Second // for a sidecar that hangs, where --timeout does not say otherwise

// status is the sidecar's answer, with the logins of this user.
type status struct {
	*client.StatusAnswer             // nil: none answers
	Logins               []loginInfo `json:"logins,omitempty"`
}

// loginsAt gives the logins of this user; those of a sidecar elsewhere are not known here.
func (a *app) loginsAt(socket string) ([]loginInfo, error) {
	if socket != "" {
		return nil, nil
	}
	entries, err := a.knownLogins()
	return newLoginInfos(entries), err
}

// writeLogins answers where no sidecar does.
func (a *app) writeLogins(output string, logins []loginInfo) error {
	switch {
	case len(logins) == 0:
		return nil
	case output == outputJSON:
		return a.writeJSON(status{Logins: logins})
	}
	return a.write(loginTable(logins))
}

// dial gives a client of this user's sidecar, at socket if that is not empty. It does no I/O.
func (a *app) dial(socket string) (*client.Client, error) {
	uid := os.Geteuid()
	return client.New(client.Config{Socket: socket, ServerUID: &uid, LookupEnv: a.lookupEnv})
}

func statusTable(st client.StatusAnswer) []byte {
	var out bytes.Buffer
	ready := "ready"
	if !st.Ready {
		ready = "not ready"
	}
	fmt.Fprintf(&out, "credresolve %s, pid %d, %s, since %s\n", st.Version, st.PID, ready, st.StartedAt.Format(time.RFC3339))
	fmt.Fprintf(&out, "configuration %s\n", printable(st.Config))
	if st.Memory != "" {
		fmt.Fprintf(&out, "memory: %s\n", printable(st.Memory))
	}
	fmt.Fprintf(&out, "%d secrets cached, %d sessions, %d watchers\n\n", st.Cache.Entries, st.Sessions, st.Watchers)
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.StripEscape)
	fmt.Fprintln(w, "PROVIDER\tKIND\tSTANDS\tCACHED\tREASON")
	for _, p := range st.Providers {
		stands := p.Breaker
		if stands == "closed" {
			stands = "ok"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", cell(p.Name), cell(p.Kind), cell(stands), p.Entries, cell(p.Reason))
	}
	_ = w.Flush() // to memory
	return out.Bytes()
}
