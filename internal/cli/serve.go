package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/internal/openclaw"
	"github.com/credresolve/credresolve/internal/server"
)

// serveFlags are those of serve.
type serveFlags struct {
	socket, tcp, tokenFile, audit, log string
	forCommand                         bool
}

func (a *app) serve() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve [--for -- COMMAND [ARG...]]",
		Short: "Serve credentials to other programs: a sidecar",
		Long: `Hold logins, cache and refresh in one process, and answer other programs on a Unix socket: any language, in
microseconds, and none of them needs a store's token. Only the user who runs it is answered, and whom the section serve of
the configuration names as consumers. Commands of the same user find it by themselves.

The socket is $CREDRESOLVE_SOCKET, else credresolve/sock in $XDG_RUNTIME_DIR, else sock in the state directory. SIGHUP
reads the configuration again; a bad one changes nothing. SIGTERM lets requests under way finish. Each reveal and each
denial is a line of the audit log, without values.

With --for the sidecar runs for as long as COMMAND does, on a socket of its own that COMMAND finds in its environment; the
exit status is the command's.`,
		Example: `  credresolve serve
  credresolve serve --audit stdout
  credresolve serve --tcp 127.0.0.1:8270 --token-file ~/.config/credresolve/token
  credresolve serve --for -- ./server --port 8080`,
		Args: func(cmd *cobra.Command, args []string) error {
			at := cmd.ArgsLenAtDash()
			switch {
			case f.forCommand && (at != 0 || len(args) == 0):
				return &exit{statusNotRun, &backend.Error{
					Code: backend.CodeUsage, Reason: "no command to run",
					Remedy: "write it behind two dashes: credresolve serve --for -- ./server",
				}}
			case !f.forCommand && len(args) > 0:
				return &backend.Error{Code: backend.CodeUsage, Reason: "credresolve serve takes a command with --for alone", Remedy: "see credresolve serve --help"}
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (f.tcp == "") != (f.tokenFile == "") {
				return backend.Errorf(backend.CodeUsage, "--tcp and --token-file go together: a TCP listener answers nobody without a token")
			}
			if f.forCommand {
				status, err := a.serveFor(cmd.Context(), f, args)
				if by := (interrupted{}); errors.As(err, &by) {
					return by
				}
				if status == 0 && err == nil {
					return nil
				}
				return &exit{status, err}
			}
			s, err := a.openServer(cmd.Context(), f, nil)
			if err != nil {
				return err
			}
			return a.attend(cmd.Context(), s)
		},
	}
	cmd.Flags().StringVar(&f.socket, "socket", "", "listen at this `path`")
	cmd.Flags().StringVar(&f.tcp, "tcp", "", "listen at this loopback `address` too, such as 127.0.0.1:8270")
	cmd.Flags().StringVar(&f.tokenFile, "token-file", "", "`file` with the token for --tcp; made if it does not exist")
	cmd.Flags().StringVar(&f.audit, "audit", "", "audit log: stdout, syslog, off or a `file`; default: audit.jsonl in the state directory")
	cmd.Flags().BoolVar(&f.forCommand, "for", false, "serve for as long as a command runs")
	choiceFlag(cmd, &f.log, "log", "form of the messages on standard error", "text", "json")
	return cmd
}

// openServer opens a sidecar of the configuration that the flags and the environment name.
func (a *app) openServer(ctx context.Context, f serveFlags, ready func()) (*server.Server, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, backend.Errorf(backend.CodeInvalidConfig, "there is no working directory: %s", reason(err))
	}
	at, err := config.Find(a.configPath, a.lookupEnv, dir)
	if err != nil {
		return nil, err
	}
	state, err := a.openStateDir()
	if err != nil {
		return nil, backend.Errorf(backend.CodeInvalidConfig, "a sidecar needs a state directory: %v", err)
	}
	for _, path := range []*string{&f.socket, &f.tokenFile} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	copies := profileCopies{openclaw.Copies{Dir: state}, a}
	return server.Open(ctx, server.Options{
		Load: func(ctx context.Context) (*config.File, error) {
			file, err := a.loadFile(ctx, at.Path)
			if err != nil || !at.Project {
				return file, err
			}
			if ok, err := (config.TrustStore{Dir: state}).Trusted(file); err != nil || !ok {
				return nil, errors.Join(err, &backend.Error{
					Code: backend.CodeDenied, Reason: fmt.Sprintf("the project file %s is not trusted", at.Path),
					Remedy: "read it, then run: credresolve trust " + at.Path,
				})
			}
			return file, nil
		},
		Project: at.Project,
		Adjust:  f.adjust(dir),
		Open:    config.Options{StateDir: state, Interactive: a.interactive, LookupEnv: a.lookupEnv, IgnoreFailures: a.now},
		Version: readBuildInfo().Version,
		Log:     a.serveLog(f),
		Stdout:  a.stdout,
		Copied:  copies.refs,
		Revoked: copies.end,
		Ready:   ready,
	})
}

// adjust puts the flags over the section serve of the configuration.
func (f serveFlags) adjust(dir string) func(*config.Serve) {
	return func(s *config.Serve) {
		if f.socket != "" {
			s.Socket.Path = f.socket
		}
		if f.tcp != "" {
			s.TCP = config.TCPSettings{Listen: f.tcp, TokenFile: f.tokenFile}
		}
		switch f.audit {
		case "":
		case "stdout", "syslog", "off":
			s.Audit.To = f.audit
		default:
			s.Audit.To, s.Audit.Path = "file", f.audit
			if !filepath.IsAbs(f.audit) {
				s.Audit.Path = filepath.Join(dir, f.audit)
			}
		}
	}
}

func (a *app) serveLog(f serveFlags) *slog.Logger {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	switch {
	case a.verbose:
		o.Level = slog.LevelDebug
	case f.forCommand: // standard error is the command's
		o.Level = slog.LevelWarn
	}
	if f.log == "json" {
		return slog.New(slog.NewJSONHandler(a.stderr, o))
	}
	return slog.New(slog.NewTextHandler(a.stderr, o))
}

// attend runs s until a signal ends it, and reloads at SIGHUP.
func (a *app) attend(ctx context.Context, s *server.Server) error {
	if err := stopped(ctx); err != nil {
		return err
	}
	a.collectOften()
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	received := a.signals.handOver()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(life) }()
	for {
		select {
		case err := <-ended:
			return err
		case sig := <-received:
			switch {
			case isHangup(sig):
				s.HandleReload(life)
			case slices.Contains(ending, sig):
				a.signals.close() // a second one is the system's
				stop()
				return <-ended
			}
		}
	}
}

// serveFor serves for as long as the command argv runs, and gives its exit status.
func (a *app) serveFor(ctx context.Context, f serveFlags, argv []string) (int, error) {
	if f.socket == "" {
		dir, err := os.MkdirTemp(a.runtimeDir(), "credresolve-")
		if err != nil {
			return statusNotRun, backend.Errorf(backend.CodeInternal, "no directory for the socket can be made: %s", reason(err))
		}
		defer os.RemoveAll(dir)
		f.socket = filepath.Join(dir, "sock")
	}
	ready := make(chan struct{})
	s, err := a.openServer(ctx, f, func() { close(ready) })
	if err != nil {
		return statusNotRun, err
	}
	a.collectOften()
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(life) }()
	waiting, cancel := a.bounded(ctx)
	defer cancel()
	select {
	case err := <-ended:
		return statusNotRun, err
	case <-waiting.Done():
		stop()
		return statusNotRun, errors.Join(context.Cause(waiting), <-ended)
	case <-ready:
	}
	env := slices.DeleteFunc(slices.Clone(a.environ), func(kv string) bool { return strings.HasPrefix(kv, "CREDRESOLVE_SOCKET=") })
	c := &child{
		argv: argv, env: append(env, "CREDRESOLVE_SOCKET="+f.socket), stdin: a.stdin, stdout: a.stdout, stderr: a.stderr,
		signals: a.signals.handOver(),
	}
	status, err := c.run(ctx)
	stop()
	return status, errors.Join(err, <-ended)
}

// runtimeDir is where sockets of this user go, empty: where temporary files go.
func (a *app) runtimeDir() string {
	dir, _ := a.lookupEnv("XDG_RUNTIME_DIR")
	if st, err := os.Stat(dir); dir == "" || err != nil || !st.IsDir() {
		return ""
	}
	return dir
}
