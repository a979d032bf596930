package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/policy"
)

// verdict is the answer of policy test, for a program.
type verdict struct {
	Consumer string    `json:"consumer,omitempty"` // missing: nobody
	Identity string    `json:"identity"`
	Results  []allowed `json:"results"`
}

type allowed struct {
	Ref     credref.Ref `json:"ref"`
	Allowed bool        `json:"allowed"`
	Rule    string      `json:"rule"`
	Reason  string      `json:"reason,omitempty"`
}

func (a *app) policy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Tell what the sidecar's policy allows",
		Long: `Tell what the sidecar's policy allows: the consumers in the section serve of the configuration, and their rules. No sidecar
need run.`,
		Example: `  credresolve policy test --consumer web cred://app/kv/app/db#password`,
		Args:    exactly(0, "one of: test"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.policyTest())
	return cmd
}

func (a *app) policyTest() *cobra.Command {
	var output *string
	var consumer, executable, token string
	var uid, gid *int
	cmd := &cobra.Command{
		Use:   "test --consumer NAME|--uid N|--gid N|--executable PATH|--token NAME REF...",
		Short: "Tell whether somebody may resolve references, and by which rule",
		Long: `Tell whether somebody may resolve references, and by which rule. Who asks is a consumer by name, or a process or a holder
of a token as the sidecar would see it; the user who runs this command counts as the owner of the sidecar. No store is
asked: a reference that is allowed need not exist.

The status is 0 when all are allowed, and 4 otherwise.`,
		Example: `  credresolve policy test --consumer web cred://app/kv/app/db#password
  credresolve policy test --uid 33 --gid 33 --executable /usr/bin/web cred://app/kv/app/db
  credresolve policy test --output json --token ci cred://app/kv/app/db#user cred://app/kv/app/db`,
		Args:              atLeast(1, "one reference or more"),
		ValidArgsFunction: a.completeRefs,
		RunE: func(cmd *cobra.Command, args []string) error {
			facts := uid != nil || gid != nil || executable != ""
			switch {
			case consumer == "" && !facts && token == "":
				return &backend.Error{Code: backend.CodeUsage, Reason: "nobody asks", Remedy: "name a consumer with --consumer, or tell of the caller with --uid, --gid, --executable and --token"}
			case consumer != "" && (facts || token != ""):
				return backend.Errorf(backend.CodeUsage, "--consumer stands without --uid, --gid, --executable and --token")
			case executable != "" && !filepath.IsAbs(executable):
				return backend.Errorf(backend.CodeUsage, "--executable must be an absolute path")
			}
			refs := make([]credref.Ref, len(args))
			for i, arg := range args {
				var err error
				if refs[i], err = parseRef(arg); err != nil {
					return err
				}
			}
			ctx, cancel := a.bounded(cmd.Context())
			defer cancel()
			file, _, err := a.load(ctx)
			if err != nil {
				return err
			}
			for _, w := range file.Warnings() {
				a.warn("%s", w)
			}
			serve := file.Serve()
			var providers []string
			for _, p := range file.Providers() {
				providers = append(providers, p.Name)
			}
			p, err := policy.New(serve, file.Resolvable(), os.Geteuid())
			if err != nil {
				return err
			}
			a.warnOfLinks(serve.Consumers)
			var who *policy.Consumer
			answer := verdict{Results: []allowed{}}
			if consumer != "" {
				known := append(p.Names(), config.OwnerName)
				if who = p.Named(consumer); who == nil {
					return unknownName("consumer", consumer, known)
				}
				answer.Identity = "named " + consumer
			} else {
				if known := slices.Sorted(maps.Keys(serve.Tokens)); token != "" && token != config.OwnerName && !slices.Contains(known, token) {
					return unknownName("token", token, append(known, config.OwnerName))
				}
				caller := policy.Caller{Token: token}
				if facts {
					caller.Peer = &policy.Facts{UID: uid, GID: gid, Executable: executable}
				}
				who, answer.Identity = p.Identify(caller), p.Explain(caller)
			}
			answer.Consumer = who.Name()
			denied := false
			for _, ref := range refs {
				if !slices.Contains(providers, ref.Provider) {
					a.warn("%s: there is no provider %s", ref, ref.Provider)
				}
				d := who.Resolve(ref)
				answer.Results = append(answer.Results, allowed{ref, d.Allowed, d.Rule, d.Reason})
				denied = denied || !d.Allowed
			}
			if *output == outputJSON {
				err = a.writeJSON(answer)
			} else {
				if consumer == "" {
					fmt.Fprintf(a.stderr, "credresolve: the caller is %s\n", printable(answer.Identity))
				}
				err = a.write(answer.table())
			}
			if err == nil && denied {
				err = &exit{status: backend.CodeDenied.ExitStatus()}
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&consumer, "consumer", "", "`name` of the consumer who asks, or owner")
	flags.Var(idFlag{&uid}, "uid", "user id of the process that asks")
	flags.Var(idFlag{&gid}, "gid", "group id of the process that asks")
	flags.StringVar(&executable, "executable", "", "`path` of the program that asks, links resolved")
	flags.StringVar(&token, "token", "", "`name` of the token that the caller brings, or owner")
	complete := func(names func(config.Serve) []string) cobra.CompletionFunc {
		return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return append(names(a.serveSettings()), config.OwnerName), cobra.ShellCompDirectiveNoFileComp
		}
	}
	_ = cmd.RegisterFlagCompletionFunc("consumer", complete(func(s config.Serve) (names []string) {
		for _, c := range s.Consumers {
			names = append(names, c.Name)
		}
		return names
	}))
	_ = cmd.RegisterFlagCompletionFunc("token", complete(func(s config.Serve) []string { return slices.Sorted(maps.Keys(s.Tokens)) }))
	output = outputFlag(cmd)
	return cmd
}

func (v verdict) table() []byte {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, r := range v.Results {
		if r.Allowed {
			fmt.Fprintf(w, "%s\tallowed\t%s\n", cell(r.Ref.String()), cell(r.Rule))
		} else {
			fmt.Fprintf(w, "%s\tdenied\t%s: %s\n", cell(r.Ref.String()), cell(r.Rule), cell(r.Reason))
		}
	}
	_ = w.Flush()
	return out.Bytes()
}

// warnOfLinks warns of executables that no caller can be seen to run.
func (a *app) warnOfLinks(consumers []config.Consumer) {
	for _, c := range consumers {
		if c.Executable == "" {
			continue
		}
		if real, err := filepath.EvalSymlinks(c.Executable); err == nil && real != c.Executable {
			a.warn("the executable of the consumer %s is reached through a link, and callers are seen to run %s", c.Name, real)
		}
	}
}

// unknownName is the error of a name of what that is not among known. The name is not repeated.
func unknownName(what, name string, known []string) error {
	e := backend.Errorf(backend.CodeUsage, "there is no such %s in the configuration", what)
	if near := backend.Nearest(name, known); near != "" {
		e.Remedy = fmt.Sprintf("did you mean %q?", near)
	}
	return e
}

// serveSettings gives the section serve for completion, empty where there is no configuration.
func (a *app) serveSettings() config.Serve {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // a shell waits for the answer
	defer cancel()
	file, _, err := a.load(ctx)
	if err != nil {
		return config.Serve{}
	}
	return file.Serve()
}

// idFlag is a flag that takes a user or group id, and tells whether it was given.
type idFlag struct{ value **int }

func (f idFlag) String() string {
	if f.value == nil || *f.value == nil {
		return ""
	}
	return strconv.Itoa(**f.value)
}

func (f idFlag) Type() string { return "number" }

func (f idFlag) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return errors.New("no id")
	}
	id := int(n)
	*f.value = &id
	return nil
}
