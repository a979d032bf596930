package cli

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/internal/execproto"
	"github.com/credresolve/credresolve/internal/openclawexec"
)

const (
	// openClawTime leaves a fifth of the five seconds that OpenClaw gives a program: to start, and to be read.
	openClawTime = 4 * time.Second
	// openClawClose is how long what was opened may take to be closed, once the answer is out. What hangs ends with the
	// process.
	openClawClose = 200 * time.Millisecond
)

type openClawFlags struct {
	id, ref   string
	vaultEnv  bool
	maxOutput int
}

func (a *app) openClawExec() *cobra.Command {
	var f openClawFlags
	cmd := &cobra.Command{
		Use:   "openclaw-exec",
		Short: "Answer OpenClaw's requests for secrets",
		Long: `Answer one request of OpenClaw, as the program of a secret provider with source "exec": protocol version 1 on
standard input and output. credresolve secretref install --for openclaw writes such a provider.

An id is an alias under openclaw.aliases in the configuration, or <provider>/<id>, or <provider>/<id>#<field>. OpenClaw
takes letters, digits and ._:/#- in an id; other references need an alias or the encoded id that --id prints.

The status is 0 whenever an id has an outcome of its own: a value, or an error such as NOT_FOUND. It is another, and
standard output is empty, when the request or the configuration is malformed, and when every id failed for a reason that
is not its own: a store that is away, or a login that is refused. What is not there within --timeout, 4s unless it is
set, is an error of its id. Keep it a second below timeoutMs of the provider in OpenClaw's configuration.

Where the environment has no HOME, as OpenClaw passes none, the configuration and the sidecar are looked for in the
home directory that the system has for this user.

--vault-env reads no configuration: it answers as OpenClaw's own resolver for Vault does, for ids <path>/<field>, by the
variables that this one reads (VAULT_ADDR, VAULT_TOKEN, OPENCLAW_VAULT_AUTH_METHOD and so on), and the method approle.`,
		Example: `  echo '{"protocolVersion":1,"provider":"credresolve","ids":["app/kv/db#password"]}' | credresolve openclaw-exec
  credresolve openclaw-exec --id 'cred://app/kv/team@corp#pass word'
  credresolve openclaw-exec --ref x:app/kv/team:40corp#pass:20word`,
		Args: exactly(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.environ = a.withHome()
			switch {
			case f.id != "" && f.ref != "":
				return backend.Errorf(backend.CodeUsage, "--id and --ref exclude each other")
			case f.maxOutput < 0:
				return backend.Errorf(backend.CodeUsage, "--max-output is negative")
			case f.id != "":
				return a.openClawID(f.id)
			case f.ref != "":
				return a.openClawRef(cmd.Context(), f.ref)
			}
			return a.answerOpenClaw(cmd.Context(), f)
		},
	}
	cmd.Flags().StringVar(&f.id, "id", "", "print the id that stands for this `reference`, and answer nothing")
	cmd.Flags().StringVar(&f.ref, "ref", "", "print the reference that this `id` stands for, and answer nothing")
	cmd.Flags().BoolVar(&f.vaultEnv, "vault-env", false, "answer by the variables of OpenClaw's resolver for Vault, without a configuration")
	cmd.Flags().IntVar(&f.maxOutput, "max-output", 0, "`bytes` that the response may have; default: what OpenClaw takes, 1 MiB less messages")
	_ = cmd.RegisterFlagCompletionFunc("id", func(cmd *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
		return a.completeRefs(cmd, args, s)
	})
	_ = cmd.RegisterFlagCompletionFunc("ref", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("max-output", cobra.NoFileCompletions)
	return cmd
}

// answerOpenClaw answers the request on standard input. Time counts from the start of the process, as OpenClaw's does.
func (a *app) answerOpenClaw(ctx context.Context, f openClawFlags) error {
	defer outliveReader()() // a client that reads no messages gets its answer all the same
	limit := openClawTime
	if a.timeout > 0 {
		limit = a.timeout
	}
	ctx, cancel := context.WithDeadlineCause(ctx, a.started.Add(limit), backend.Errorf(backend.CodeTimeout, "not done within %v", limit))
	defer cancel()
	a.timeout = 0 // it is counted once
	src, err := readAll(ctx, a.stdin, execproto.MostRequest, "the request")
	if err != nil {
		return err
	}
	req, err := execproto.Dialect{}.DecodeRequest(src)
	if err != nil {
		return backend.Errorf(backend.CodeUsage, "%v", err)
	}
	ctx, s, names, done, err := a.openForOpenClaw(ctx, f, req.Provider)
	if err != nil {
		return err
	}
	defer patiently(func() { cancel(); done() })
	service := openclawexec.Service{Names: names, Resolve: s.resolve, MaxOutput: f.maxOutput}
	answer := service.Answer(ctx, req)
	defer clear(answer.Response)
	if err := stopped(ctx); err != nil {
		return err
	}
	if answer.Err != nil {
		a.tellFailures(answer.Failures)
		return a.failed([]error{answer.Err}, false)
	}
	if err := a.write(answer.Response); err != nil {
		return err
	}
	a.tellFailures(answer.Failures)
	return nil
}

// openForOpenClaw opens what the flags name, and says what ids mean for the provider of that name in OpenClaw's configuration.
func (a *app) openForOpenClaw(ctx context.Context, f openClawFlags, provider string) (context.Context, *session, openclawexec.Names, func(), error) {
	if !f.vaultEnv {
		ctx, s, done, err := a.open(ctx)
		if err != nil {
			return nil, nil, openclawexec.Names{}, nil, err
		}
		return ctx, s, openClawNames(s.file, provider), done, nil
	}
	src, names, err := openclawexec.VaultEnv(a.lookupEnv)
	if err != nil {
		return nil, nil, names, nil, err
	}
	dir, err := os.Getwd()
	if err != nil {
		dir = string(filepath.Separator)
	}
	file, err := config.Parse(filepath.Join(dir, "environment"), src, a.kinds)
	if err != nil {
		return nil, nil, names, nil, err
	}
	a.noSidecar = true // what it has depends on its own environment
	ctx, s, done, err := a.openFile(ctx, file, false)
	return ctx, s, names, done, err
}

// openClawNames says what ids mean that file's settings have for the provider of that name in OpenClaw's configuration.
func openClawNames(file *config.File, provider string) openclawexec.Names {
	settings := file.OpenClaw()
	n := openclawexec.Names{Aliases: settings.Aliases}
	n.Vault, n.VaultPath, _ = strings.Cut(settings.VaultIDs[provider], "/")
	n.VaultPath = strings.Trim(n.VaultPath, "/")
	return n
}

// tellFailures writes why ids have no value to standard error, which OpenClaw reads beside the response and throws away, up to
// the limit that leaves the response its own.
func (a *app) tellFailures(failures []openclawexec.Failure) {
	room := openclawexec.MaxMessages / 2 // what is not printable gets longer
	for i, f := range failures {
		line := fmt.Sprintf("credresolve: %s: %s\n", printable(f.ID), strings.ReplaceAll(printable(f.Err.Error()), "\n", " "))
		if room -= len(line); room < 0 {
			fmt.Fprintf(a.stderr, "credresolve: and %d more\n", len(failures)-i)
			return
		}
		fmt.Fprint(a.stderr, line)
	}
}

// patiently calls done and gives it up after a while: what hangs in a store's client must not hold the process, which OpenClaw
// waits for.
func patiently(done func()) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		done()
	}()
	select {
	case <-ended:
	case <-time.After(openClawClose):
	}
}

func (a *app) openClawID(text string) error {
	ref, err := parseRef(text)
	if err != nil {
		return err
	}
	id, err := openclawexec.ID(ref)
	if err != nil {
		return err
	}
	return a.write([]byte(id + "\n"))
}

func (a *app) openClawRef(ctx context.Context, id string) error {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	var names openclawexec.Names
	if !a.unconfigured() {
		file, _, err := a.load(ctx)
		if err != nil {
			return err
		}
		names = openClawNames(file, "")
	}
	ref, err := names.Ref(id)
	if err != nil {
		return err
	}
	return a.write([]byte(ref.String() + "\n"))
}

// withHome gives the environment, with the home directory and the sidecar's socket where it names none: OpenClaw starts
// programs with what its configuration passes on, often nothing.
func (a *app) withHome() []string {
	environ := slices.Clip(a.environ)
	uid := os.Getuid()
	if uid < 0 { // no Unix
		return environ
	}
	if home, _ := a.lookupEnv("HOME"); home == "" {
		if u, err := user.LookupId(strconv.Itoa(uid)); err == nil && filepath.IsAbs(u.HomeDir) {
			environ = append(environ, "HOME="+u.HomeDir)
		}
	}
	socket, _ := a.lookupEnv("CREDRESOLVE_SOCKET")
	runtime, _ := a.lookupEnv("XDG_RUNTIME_DIR")
	if socket == "" && runtime == "" {
		dir := fmt.Sprintf("/run/user/%d", uid)
		// A sidecar that was started without such a directory either has its socket beside its state.
		if st, err := os.Lstat(filepath.Join(dir, "credresolve", "sock")); err == nil && st.Mode().Type() == os.ModeSocket {
			environ = append(environ, "XDG_RUNTIME_DIR="+dir)
		}
	}
	return environ
}
