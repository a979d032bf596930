// Package cli is the credresolve command: one file for each of its commands.
//
// Answers go to standard output and nothing else does; all else goes to standard error. A command prints nothing at all of
// an answer that it cannot give whole, unless its answer has a place for errors. Secrets come in through standard input or
// a hidden prompt and go out only where they are asked for: in the answers of get and render, and into the environment of
// the command that run starts.
package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/credresolve/credresolve/backend"
)

// Program is what the command gets from outside. It looks at nothing else, but for the working directory, and $PATH for the
// command that run starts.
type Program struct {
	Args                  []string // without the program's name
	Environ               []string // as os.Environ gives it
	Stdin, Stdout, Stderr *os.File
	Kinds                 *backend.Registry
	Schema                []byte // JSON Schema of a configuration
	// CollectOften keeps the memory of a process small that stays; nil: nothing does.
	CollectOften func()
}

// Run executes one command and gives the exit status of the process.
func Run(p Program) int {
	ctx, signals := listen(context.Background())
	defer signals.close()
	a := &app{
		stdin: p.Stdin, stdout: p.Stdout, stderr: p.Stderr, environ: p.Environ, kinds: p.Kinds, schema: p.Schema, signals: signals, collectOften: p.CollectOften,
		log: slog.New(slog.DiscardHandler), started: time.Now(),
	}
	if a.collectOften == nil {
		a.collectOften = func() {}
	}
	root := a.root()
	root.SetArgs(p.Args)
	root.SetIn(p.Stdin)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	return a.status(root.ExecuteContext(ctx))
}

// app is what all commands share.
type app struct {
	stdin, stdout, stderr *os.File
	environ               []string
	kinds                 *backend.Registry
	schema                []byte
	signals               *signals
	collectOften          func()
	log                   *slog.Logger
	started               time.Time

	configPath  string
	now         bool
	interactive bool
	noSidecar   bool
	verbose     bool
	timeout     time.Duration
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "credresolve",
		Short: "Turn references to credentials into credentials",
		Long: `credresolve turns references in configuration files into the credentials they point at, from whichever store
holds them. A reference is a cred:// text, or a map with the keys provider and id; the providers are configured
in credresolve.yaml.

Answers go to standard output, messages to standard error. The exit status tells what failed: 1 internal, 2 usage
or configuration, 3 not found, 4 denied, 5 invalid id, field required or unsupported, 6 unavailable or throttled,
7 locked, 8 login required, 9 expired, 10 conflict, 11 timeout, 130 canceled. Of several references the first that
failed decides.`,
		Example: `  credresolve get cred://app/kv/app/db#password
  credresolve render app.yaml
  credresolve run app.env -- ./server`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		PersistentPreRun: func(*cobra.Command, []string) {
			if a.verbose {
				a.log = slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
			}
		},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			var names []string
			for _, c := range cmd.Commands() {
				names = append(names, c.Name())
			}
			e := &backend.Error{Code: backend.CodeUsage, Reason: "unknown command", Remedy: "see credresolve --help"}
			if near := backend.Nearest(args[0], names); near != "" {
				e.Remedy = fmt.Sprintf("did you mean %q?", near)
			}
			return e
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.configPath, "config", "", "configuration `file`; default: $CREDRESOLVE_CONFIG, ./credresolve.yaml, the user's")
	flags.BoolVar(&a.now, "now", false, "try at once, whatever is remembered of failures")
	flags.BoolVar(&a.interactive, "interactive", false, "let the operating system ask to unlock a store")
	flags.BoolVar(&a.noSidecar, "no-sidecar", false, "resolve in this process, whatever sidecar there is")
	flags.DurationVar(&a.timeout, "timeout", 0, "give up after this `time`, as in 10s; run: before the command starts")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "tell on standard error what is done, without values")
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(helpCommand(root))
	root.AddCommand(
		a.get(), a.render(), a.run(), a.check(), a.requirements(), a.put(), a.rm(), a.list(), a.providers(), a.provider(), a.config(), a.trust(), a.policy(),
		a.login(), a.logout(), a.whoami(), a.explain(), a.doctor(),
		a.conformance(), a.serve(), a.statusCommand(), a.secretref(), a.openClawExec(), a.versionCommand(), a.completion(root),
	)
	return root
}

func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show how a command is used",
		Example: `  credresolve help run
  credresolve help config check`,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			at, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, c := range at.Commands() {
				names = append(names, c.Name())
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return &backend.Error{Code: backend.CodeUsage, Reason: "there is no help on that", Remedy: "see credresolve --help"}
			}
			return cmd.Help()
		},
	}
}

// flagError says what is wrong with a flag without its value, which may be a secret in the wrong place.
func flagError(cmd *cobra.Command, err error) error {
	e := backend.Errorf(backend.CodeUsage, "the flags are malformed")
	e.Remedy = "see " + cmd.CommandPath() + " --help"
	var (
		invalid *pflag.InvalidValueError
		missing *pflag.ValueRequiredError
		unknown *pflag.NotExistError
	)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return err
	case errors.As(err, &invalid):
		e.Reason = fmt.Sprintf("the value of --%s must be a %s", invalid.GetFlag().Name, invalid.GetFlag().Value.Type())
		if invalid.GetFlag().Value.Type() == "duration" {
			e.Reason += " such as 10s or 2m"
		}
		if v, ok := invalid.GetFlag().Value.(interface{ Known() []string }); ok {
			e.Reason = fmt.Sprintf("the value of --%s must be one of: %s", invalid.GetFlag().Name, strings.Join(v.Known(), ", "))
		}
	case errors.As(err, &missing):
		e.Reason = fmt.Sprintf("--%s needs a value", missing.GetSpecifiedName())
	case errors.As(err, &unknown):
		name, _, _ := strings.Cut(unknown.GetSpecifiedName(), "=")
		if unknown.GetSpecifiedShortnames() != "" {
			e.Reason = "unknown short flag"
			break
		}
		e.Reason = "unknown flag"
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if near := backend.Nearest(name, names); near != "" {
			e.Reason = fmt.Sprintf("unknown flag; did you mean --%s?", near)
		}
	}
	return e
}

// atLeast and exactly check the number of arguments without repeating them.
func atLeast(n int, what string) cobra.PositionalArgs { return between(n, -1, what) }

func exactly(n int, what string) cobra.PositionalArgs { return between(n, n, what) }

func between(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		e := backend.Errorf(backend.CodeUsage, "%s takes %s", cmd.CommandPath(), what)
		e.Remedy = "see " + cmd.CommandPath() + " --help"
		return e
	}
}

// choice is a flag that takes one of a few words.
type choice struct {
	value *string
	known []string
}

func (c choice) String() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}

func (c choice) Type() string    { return strings.Join(c.known, "|") }
func (c choice) Known() []string { return c.known }

func (c choice) Set(s string) error {
	if !slices.Contains(c.known, s) {
		return errors.New("unknown")
	}
	*c.value = s
	return nil
}

// choiceFlag adds a flag to cmd that takes one of known.
func choiceFlag(cmd *cobra.Command, value *string, name, usage string, known ...string) {
	cmd.Flags().Var(choice{value, known}, name, usage)
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(known, cobra.ShellCompDirectiveNoFileComp))
}

const (
	outputText = "text"
	outputJSON = "json"
)

// outputFlag adds --output to cmd and gives where its value will be.
func outputFlag(cmd *cobra.Command) *string {
	value := outputText
	choiceFlag(cmd, &value, "output", "form of the answer", outputText, outputJSON)
	return &value
}

// exit is an error that has a status of its own.
type exit struct {
	status int
	err    error // nil: everything was said
}

func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

// status prints err and gives the exit status that stands for it.
func (a *app) status(err error) int {
	if err == nil {
		return 0
	}
	status := exitStatusOf(err)
	var own *exit
	if errors.As(err, &own) {
		err = own.err
	}
	if err != nil {
		a.complain(err)
	}
	return status
}

// complain prints err, each of several joined ones for itself.
func (a *app) complain(err error) {
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintf(a.stderr, "credresolve: %s\n", printable(line))
		}
	}
}

func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.stderr, "credresolve: warning: %s\n", printable(fmt.Sprintf(format, args...)))
}

// write writes an answer.
func (a *app) write(answer []byte) error {
	if _, err := a.stdout.Write(answer); err != nil {
		return backend.Errorf(backend.CodeInternal, "standard output cannot be written: %s", reason(err))
	}
	return nil
}

// writeJSON writes an answer for a program. v holds secrets in its answers alone, never in a backend.Secret.
func (a *app) writeJSON(v any) error {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return backend.Errorf(backend.CodeInternal, "the answer cannot be written as JSON")
	}
	text := printableJSON(out.Bytes())
	defer clear(text)
	defer clear(out.Bytes())
	return a.write(text)
}

// reason is why the system refused, without the paths and arguments that the errors of package os repeat.
func reason(err error) string {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, fs.ErrNotExist):
		return "it does not exist"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it ended too early"
	}
	return "the system refused"
}

// lookupEnv finds a variable of the environment that the program was given; of several of one name the last counts, as
// os/exec has it.
func (a *app) lookupEnv(name string) (string, bool) {
	for _, kv := range slices.Backward(a.environ) {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			return v, true
		}
	}
	return "", false
}
