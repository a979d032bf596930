package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/credref/document"
	"github.com/credresolve/credresolve/internal/loginhint"
	"github.com/credresolve/credresolve/internal/statedir"
	"github.com/credresolve/credresolve/resolver"
	"github.com/credresolve/credresolve/resolver/grants"
	"github.com/credresolve/credresolve/secretref"
)

// maxDocument is the size of the largest document that is read, in bytes; the parser has its own, lower limit.
const maxDocument = 64 << 20

// session is a command's open configuration. Nothing is reached before something is resolved.
type session struct {
	*resolver.Resolver
	app       *app
	file      *config.File
	untrusted bool // the file's providers may not run

	others *statics // SecretRefs of documents other than OpenClaw's; nil: none was read

	once sync.Once
	with *shared // the sidecar, once it was looked for; nil: none

	// What run says beyond a configuration.
	ownOnly bool                       // nothing is asked of a sidecar
	subject credref.Subject            // for whom is resolved; the context of open has it too
	scoped  bool                       // a sidecar may be asked for scoped providers: it is told for whom
	closing func()                     // ends what begin began
	statics map[*document.Site]settled // SecretRefs that were resolved
}

// open opens the configuration for one command, whose context it bounds by --timeout. close ends both.
func (a *app) open(ctx context.Context) (_ context.Context, _ *session, done func(), err error) {
	ctx, cancel := a.bounded(ctx)
	defer func() {
		if err != nil {
			cancel()
			return
		}
		end := done
		done = func() { cancel(); end() }
	}()
	file, project, err := a.load(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	return a.openFile(ctx, file, project)
}

// openDocuments is open for a command that reads documents. Those of OpenClaw, by their names or by the flag, need no
// configuration.
func (a *app) openDocuments(ctx context.Context, paths []string, f documentFlags) (_ context.Context, _ *session, done func(), err error) {
	if !a.unconfigured() || len(paths) == 0 || slices.ContainsFunc(paths, func(path string) bool { return !a.isOpenClaw(path, f) }) {
		return a.open(ctx)
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil, nil, nil, backend.Errorf(backend.CodeInvalidConfig, "there is no working directory: %s", reason(err))
	}
	file, err := config.Parse(filepath.Join(dir, config.FileName), []byte("version: 1\n"), a.kinds)
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, cancel := a.bounded(ctx)
	ctx, s, end, err := a.openFile(ctx, file, false)
	if err != nil {
		cancel()
		return nil, nil, nil, err
	}
	return ctx, s, func() { cancel(); end() }, nil
}

// openFile is open for a configuration that was read.
func (a *app) openFile(ctx context.Context, file *config.File, project bool) (_ context.Context, _ *session, done func(), err error) {
	for _, w := range file.Warnings() {
		a.warn("%s", w)
	}
	state := a.stateDir()
	untrusted := false
	if project {
		trusted, err := config.TrustStore{Dir: state}.Trusted(file)
		if err != nil {
			return nil, nil, nil, err
		}
		untrusted = !trusted
		if untrusted && state == "" && len(file.NeedsTrust()) > 0 {
			_, err := a.openStateDir()
			a.warn("what is trusted cannot be looked up: %v", err)
		}
	}
	r, err := file.Open(config.Options{
		StateDir: state, Interactive: a.interactive, LookupEnv: a.lookupEnv, IgnoreFailures: a.now, Untrusted: untrusted,
	})
	if err != nil {
		return nil, nil, nil, err
	}
	s := &session{Resolver: r, app: a, file: file, untrusted: untrusted}
	return ctx, s, func() { s.end(); _ = r.Close() }, nil
}

// load reads the configuration that the flags and the environment name. project is true for one that was only found in the
// working directory.
func (a *app) load(ctx context.Context) (file *config.File, project bool, err error) {
	dir, err := os.Getwd()
	if err != nil && !filepath.IsAbs(a.configPath) {
		return nil, false, backend.Errorf(backend.CodeInvalidConfig, "there is no working directory: %s", reason(err))
	}
	at, err := config.Find(a.configPath, a.lookupEnv, dir)
	if err != nil {
		return nil, false, err
	}
	a.log.Debug("configuration", "path", at.Path, "project", at.Project)
	file, err = a.loadFile(ctx, at.Path)
	return file, at.Project, err
}

// loadFile reads a configuration, which may be a pipe that nobody writes to.
func (a *app) loadFile(ctx context.Context, path string) (*config.File, error) {
	return await(ctx, func() (*config.File, error) { return config.Load(path, a.kinds) })
}

// stateDir is the directory for state, empty where there can be none: then nothing is remembered.
func (a *app) stateDir() string {
	dir, err := a.openStateDir()
	if err != nil {
		a.log.Debug("nothing is remembered from one run to the next", "reason", err.Error())
	}
	return dir
}

// openStateDir is stateDir for what cannot do without. It fails where a disk is full or read-only, or where others may write
// to the directory, which must not keep secrets away.
func (a *app) openStateDir() (string, error) {
	dir, err := statedir.Path(a.lookupEnv)
	if err == nil {
		_, err = statedir.Key(dir, "revision")
	}
	if err != nil {
		return "", err
	}
	return dir, nil
}

// unconfigured reports whether there is no configuration because nobody named or wrote one.
func (a *app) unconfigured() bool {
	named, _ := a.lookupEnv("CREDRESOLVE_CONFIG")
	dir, err := os.Getwd()
	if err != nil || a.configPath != "" || named != "" {
		return false
	}
	_, err = config.Find("", a.lookupEnv, dir)
	return err != nil
}

func (a *app) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if a.timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, a.timeout, backend.Errorf(backend.CodeTimeout, "not done within %v", a.timeout))
}

// resolve gives an outcome for each of refs, all of them asked for together.
func (s *session) resolve(ctx context.Context, refs []credref.Ref) []resolver.Outcome {
	if len(refs) == 0 {
		return nil
	}
	began := time.Now()
	outcomes := s.resolveAll(ctx, refs)
	for i, o := range outcomes {
		if late := late(ctx, o.Err); late != o.Err {
			outcomes[i].Err = &resolver.RefError{Ref: o.Ref, Err: late}
		}
	}
	if err := stopped(ctx); err != nil {
		// What ended every fetch is said once, and not as the failure of a ref.
		for i, o := range outcomes {
			if o.Err != nil && errors.Is(o.Err, context.Canceled) {
				outcomes[i].Err = err
			}
		}
	}
	for _, o := range outcomes {
		s.warn(o)
	}
	if !s.app.verbose {
		return outcomes
	}
	for _, o := range outcomes {
		s.app.log.Debug("resolved", "ref", o.Ref.String(), "code", string(backend.CodeOf(o.Err)), "took", time.Since(began).Round(time.Microsecond))
	}
	return outcomes
}

// warn tells of a value that may be used, and whose next may not come.
func (s *session) warn(o resolver.Outcome) {
	if o.Value == nil {
		return
	}
	switch warning := o.Value.Metadata()[grants.Warning]; {
	case o.Value.RefreshError() != nil:
		s.app.tell("%s is used as it was, since it could not be fetched again: %v", o.Ref, o.Value.RefreshError())
	case o.Value.Stale():
		s.app.tell("%s is used as it was, past its time, since its store is unavailable", o.Ref)
	case warning == "refreshing":
	case warning == string(backend.CodeAuthRequired), warning == "rejected":
		s.app.tell("%s is used until it ends, and not renewed; log in again: %s", o.Ref, loginhint.Command("login", o.Ref.Provider, o.Ref.ID))
	case warning != "":
		s.app.tell("%s is used until it ends; its renewal failed, and is tried again (%s)", o.Ref, warning)
	}
}

// stopped gives the signal that ended ctx, nil when none did.
func stopped(ctx context.Context) error {
	var by interrupted
	if ctx.Err() != nil && errors.As(context.Cause(ctx), &by) {
		return by
	}
	return nil
}

// late gives the cause of ctx's end, which says after what time, in the place of an err that says only that it was too late.
func late(ctx context.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}

// documentFlags are the flags of commands that read documents.
type documentFlags struct {
	format string
	refs   string
	ignore []string

	openClaw  bool
	compat    string
	allowExec bool
}

func (f *documentFlags) add(cmd *cobra.Command) {
	var formats []string
	for _, known := range document.Formats() {
		formats = append(formats, string(known))
	}
	choiceFlag(cmd, &f.format, "format", "format of the documents; default: by the name of each", formats...)
	choiceFlag(cmd, &f.refs, "refs", "what counts as a reference: any, or short: cred:// texts alone", "any", "short")
	cmd.Flags().BoolVar(&f.openClaw, "openclaw", false, "take the documents for OpenClaw's, whatever their names")
	choiceFlag(cmd, &f.compat, "secretref-compat", "go by an older `release` of OpenClaw for SecretRefs", string(secretref.V2026_3_2))
	cmd.Flags().BoolVar(&f.allowExec, "allow-exec", false, "let OpenClaw documents outside of your home run programs and read files elsewhere")
	cmd.Flags().StringArrayVar(&f.ignore, "ignore", nil, "`path` in the documents to leave alone, as in /metadata/**; may be repeated")
}

// read reads and parses a document; "-" is standard input.
func (s *session) read(ctx context.Context, path string, f documentFlags) (*document.Document, error) {
	format := document.Format(f.format)
	name := path
	var src []byte
	var err error
	if path == "-" {
		if format == "" {
			return nil, &backend.Error{Code: backend.CodeUsage, Reason: "the format of standard input is not known", Remedy: "name it with --format"}
		}
		name = "<stdin>"
		src, err = readAll(ctx, s.app.stdin, maxDocument, "standard input")
	} else {
		if format == "" {
			if s.app.isOpenClaw(path, documentFlags{}) {
				format = document.JSON5
			} else if format, err = document.FormatOf(path); err != nil {
				var e *backend.Error
				if errors.As(err, &e) {
					e.Remedy = "name the format with --format"
				}
				return nil, err
			}
		}
		src, err = s.app.readFile(ctx, path)
	}
	if err != nil {
		return nil, err
	}
	o := document.Options{Providers: []string{}, Ignore: append(s.file.Ignore(), f.ignore...)}
	if f.refs == "short" || f.refs == "" && s.file.ShortRefsOnly() {
		o.Refs = document.RefsShort
	}
	for _, p := range s.file.Providers() {
		o.Providers = append(o.Providers, p.Name)
	}
	o.Foreign = s.staticsOf(path, src, format, f).foreign(format)
	return document.Parse(name, src, format, o)
}

// readFile reads a document: a file, or a pipe as a shell makes of <(…).
func (a *app) readFile(ctx context.Context, path string) ([]byte, error) {
	in, err := await(ctx, func() (*os.File, error) { return os.Open(path) })
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, backend.Errorf(backend.CodeUsage, "%s cannot be read: %s", path, reason(err))
	}
	defer in.Close()
	if st, err := in.Stat(); err == nil && st.IsDir() {
		return nil, backend.Errorf(backend.CodeUsage, "%s is a directory", path)
	}
	return readAll(ctx, in, maxDocument, path)
}

// parseRef reads a ref of the command line. What was given in its place is not repeated, since it may be a secret.
func parseRef(s string) (credref.Ref, error) {
	ref, err := credref.Parse(s)
	if err != nil {
		return ref, backend.Errorf(backend.CodeUsage, "%v", err)
	}
	return ref, nil
}

// completeRefs completes the provider of a ref; ids would cost a call to the store.
func (a *app) completeRefs(_ *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var refs []string
	for _, name := range a.providerNames() {
		refs = append(refs, credref.Scheme+"://"+name+"/")
	}
	return refs, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeProvider(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.providerNames(), cobra.ShellCompDirectiveNoFileComp
}

func completeDocuments(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"yaml", "yml", "json", "jsonc", "json5", "toml", "env"}, cobra.ShellCompDirectiveFilterFileExt
}

func (a *app) providerNames() []string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // a shell waits for the answer
	defer cancel()
	file, _, err := a.load(ctx)
	if err != nil {
		return nil
	}
	var names []string
	for _, p := range file.Providers() {
		names = append(names, p.Name)
	}
	return slices.Sorted(slices.Values(names))
}

// shown is a path for people: relative where that is shorter.
func shown(path string) string {
	if dir, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(dir, path); err == nil && len(rel) < len(path) {
			return rel
		}
	}
	return path
}
