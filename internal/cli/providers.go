package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/config"
)

// probeTime bounds the probe of one provider where --timeout does not.
const probeTime = 15 * time.Second

// inventory is what there is, for a program.
type inventory struct {
	Config    string             `json:"config,omitempty"`
	Providers []providerInstance `json:"providers"`
	Kinds     []kindInfo         `json:"kinds"`
}

type providerInstance struct {
	Name         string   `json:"name"`
	Kind         string   `json:"kind"`
	Capabilities []string `json:"capabilities"`
	Detail       string   `json:"detail,omitempty"`
	Trusted      bool     `json:"trusted"`
	Probe        *probed  `json:"probe,omitempty"`
}

type probed struct {
	OK    bool          `json:"ok"`
	Error *client.Error `json:"error,omitempty"`
}

type kindInfo struct {
	Name    string `json:"name"`
	Summary string `json:"summary"`
}

func (a *app) providers() *cobra.Command {
	var output *string
	var probe bool
	cmd := &cobra.Command{
		Use:   "providers",
		Short: "List the configured providers and the kinds that this program has",
		Long: `List the configured providers with what they can do, and the kinds that this program has.

With --probe each provider is reached and logged in to, all at once, and no secret is read. A provider that cannot be
probed in this way counts as no failure.`,
		Example: `  credresolve providers
  credresolve providers --probe
  credresolve providers --output json`,
		Args: exactly(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			inv := inventory{Providers: []providerInstance{}}
			for _, name := range a.kinds.Names() {
				k, err := a.kinds.Lookup(name)
				if err != nil {
					return err
				}
				inv.Kinds = append(inv.Kinds, kindInfo{k.Name, k.Summary})
			}
			ctx, s, done, err := a.open(cmd.Context())
			switch {
			case err == nil:
				defer done()
			case !probe && a.unconfigured():
				a.complain(err)
			default:
				return err
			}
			var errs []error
			if s != nil {
				inv.Config = s.file.Path()
				if inv.Providers, errs, err = s.instances(ctx, probe); err != nil {
					return err
				}
			}
			if *output == outputJSON {
				err = a.writeJSON(inv)
			} else {
				err = a.write(inv.table(probe))
			}
			if err != nil {
				return err
			}
			return a.failed(errs, false)
		},
	}
	cmd.Flags().BoolVar(&probe, "probe", false, "reach each provider and log in, reading no secret")
	output = outputFlag(cmd)
	return cmd
}

// instances describes the configured providers; errs are what probing each gave.
func (s *session) instances(ctx context.Context, probe bool) (out []providerInstance, errs []error, err error) {
	backends := make([]backend.Backend, 0, len(s.file.Providers()))
	for _, p := range s.file.Providers() {
		b, err := s.Backend(p.Name)
		if err != nil {
			return nil, nil, err
		}
		d := backend.Describe(b)
		capabilities := backend.Capabilities(b)
		if capabilities == nil || config.IsUntrusted(b) {
			capabilities = []string{}
		}
		backends = append(backends, b)
		out = append(out, providerInstance{
			Name: p.Name, Kind: p.Kind, Capabilities: capabilities, Detail: d.Detail, Trusted: !config.IsUntrusted(b),
		})
	}
	if out == nil {
		out = []providerInstance{}
	}
	if !probe {
		return out, nil, nil
	}
	errs = make([]error, len(out))
	var wg sync.WaitGroup
	for i, b := range backends {
		wg.Go(func() {
			ctx, cancel := ctx, context.CancelFunc(func() {})
			if s.app.timeout <= 0 {
				ctx, cancel = context.WithTimeoutCause(ctx, probeTime, backend.Errorf(backend.CodeTimeout, "not done within %v", probeTime))
			}
			defer cancel()
			errs[i] = late(ctx, backend.Probe(ctx, b))
		})
	}
	wg.Wait()
	if stop := stopped(ctx); stop != nil {
		return nil, nil, stop
	}
	for i, err := range errs {
		out[i].Detail = backend.Describe(backends[i]).Detail // which store was chosen, and why, may be known now
		out[i].Probe = &probed{OK: err == nil, Error: client.NewError(err)}
		if errors.Is(err, errors.ErrUnsupported) {
			errs[i] = nil
		}
	}
	return out, errs, nil
}

func (inv inventory) table(probe bool) []byte {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	row := func(cells ...string) {
		for i, c := range cells {
			cells[i] = cell(c)
		}
		fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
	}
	if len(inv.Providers) > 0 {
		head := []string{"PROVIDER", "KIND", "CAPABILITIES"}
		if probe {
			head = append(head, "PROBE")
		}
		row(append(head, "DETAIL")...)
		for _, p := range inv.Providers {
			cells := []string{p.Name, p.Kind, dash(strings.Join(p.Capabilities, ","))}
			detail := p.Detail
			if probe {
				result := "ok"
				if !p.Probe.OK { // why, in the place of what is known without a probe
					result, detail = string(p.Probe.Error.Code), p.Probe.Error.Message
				}
				cells = append(cells, result)
			}
			row(append(cells, dash(detail))...)
		}
		_ = w.Flush() // to memory
		fmt.Fprintln(&out)
	}
	row("KIND", "WHAT IT IS")
	for _, k := range inv.Kinds {
		row(k.Name, k.Summary)
	}
	_ = w.Flush()
	return out.Bytes()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// refusedForTrust is the error of a provider that its configuration's lack of trust keeps closed, which says what to do.
func refusedForTrust(ctx context.Context, b backend.Backend) error {
	if !config.IsUntrusted(b) {
		return nil
	}
	return backend.Probe(ctx, b)
}
