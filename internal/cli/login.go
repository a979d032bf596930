package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/loginhint"
	"github.com/credresolve/credresolve/resolver/grants"
)

func (a *app) login() *cobra.Command {
	var o loginOptions
	var output *string
	cmd := &cobra.Command{
		Use:   "login PROVIDER [ID]",
		Short: "Log in to a provider, once, so that its references resolve",
		Long: `Log in to a provider. What the login gives is kept in the token store of the configuration, the OS keychain if it names
none, and renewed from there. ID tells several logins to one provider apart, as in cred://PROVIDER/ID; it is "default" if
it is not given. A login that is there already is replaced by the new one.

The browser is opened, and its address printed. Where the browser cannot come back to this machine, paste the address at
which it ended: --no-browser does so from the start. With --device a code is printed that is entered on any other device.
Over ssh, where there is no browser, the address is printed as with --no-browser.

What a provider asks for, such as an API key or a one-time code, is asked on the terminal, secrets without being shown. Where
there is none it is read from standard input: one field is all of it, less one line end; of several each is a line, in the
order asked; with --json they are the members of a JSON object.

Nothing is stored when the login is interrupted, refused, or not done in time.`,
		Example: `  credresolve login github
  credresolve login google work
  credresolve login --device github
  credresolve login openai < key.txt
  printf '{"user": "alice", "password": "…"}' | credresolve login --json intranet`,
		Args:              between(1, 2, "a provider and perhaps an id"),
		ValidArgsFunction: a.completeLogins(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := loginRef(args)
			if err != nil {
				return err
			}
			if o.device && o.noBrowser {
				return backend.Errorf(backend.CodeUsage, "--device and --no-browser exclude each other: a device's code needs no browser here")
			}
			ctx, s, done, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			b, err := s.keeper(ctx, ref)
			if err != nil {
				return err
			}
			if def := s.file.Provider(s.file.LoginStore()); def != nil && def.Kind == "memory" {
				return &backend.Error{
					Code: backend.CodeInvalidConfig, Reason: "logins.store is of kind memory, which ends with this command: nothing would be kept",
					Remedy: "name a store that lasts, or log in through the sidecar",
				}
			}
			entry, err := s.logIn(ctx, b, ref, o)
			if err != nil {
				return err
			}
			s.tellOfLogin(ctx, ref)
			info := s.newLoginInfo(entry)
			fmt.Fprintf(a.stderr, "credresolve: %s\n", printable(info.loggedIn()))
			if *output == outputJSON {
				return a.writeJSON(info)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&o.device, "device", false, "print a code to enter on another device")
	cmd.Flags().BoolVar(&o.noBrowser, "no-browser", false, "open no browser; ask for the address at which one ended elsewhere")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "standard input is a JSON object whose members are what the provider asks for")
	output = outputFlag(cmd)
	return cmd
}

type loginOptions struct{ device, noBrowser, asJSON bool }

// loginRef reads the arguments PROVIDER [ID]. A ref in their place is understood.
func loginRef(args []string) (credref.Ref, error) {
	if len(args) == 1 && strings.HasPrefix(args[0], credref.Scheme+"://") {
		ref, err := parseRef(args[0])
		return credref.Ref{Provider: ref.Provider, ID: ref.ID}, err
	}
	ref := credref.Ref{Provider: args[0], ID: loginhint.DefaultID}
	if len(args) == 2 {
		ref.ID = args[1]
	}
	if err := credref.ValidateProvider(ref.Provider); err != nil {
		return ref, backend.Errorf(backend.CodeUsage, "the name of a provider must match ^[a-z][a-z0-9_-]{0,63}$")
	}
	if err := ref.Validate(); err != nil {
		return ref, backend.Errorf(backend.CodeUsage, "%v", err)
	}
	return ref, nil
}

// keeper gives the backend of ref's provider that keeps what logins of nobody but this user gave.
func (s *session) keeper(ctx context.Context, ref credref.Ref) (*grants.Backend, error) {
	def := s.file.Provider(ref.Provider)
	if def != nil && strings.Contains(def.Text("id_template"), "{") && def.Scoped() {
		return nil, &backend.Error{
			Code:   backend.CodeUnsupported,
			Reason: ref.Provider + ": the provider has a login for each subject, which a command does not have",
			Remedy: "log in and out through the sidecar, with a token of the subject; " + endAll(ref.Provider),
		}
	}
	return s.keeperOfAll(ctx, ref.Provider)
}

// endAll says how the logins of all subjects end.
func endAll(provider string) string {
	return "credresolve logout --all " + provider + " ends the logins of all subjects"
}

// keeperOfAll is keeper of the logins of subjects too.
func (s *session) keeperOfAll(ctx context.Context, provider string) (*grants.Backend, error) {
	b, err := s.Backend(provider)
	if err != nil {
		return nil, err
	}
	if err := refusedForTrust(ctx, b); err != nil {
		return nil, fmt.Errorf("%s: %w", provider, err)
	}
	if g, ok := grants.As(b); ok {
		return g, nil
	}
	e := backend.Errorf(backend.CodeUnsupported, "%s: nobody logs in to this provider", provider)
	if def := s.file.Provider(provider); def != nil {
		e.Reason += fmt.Sprintf(" of kind %s: it uses what its settings say", def.Kind)
	}
	e.Remedy = "see that it works with: credresolve doctor " + provider
	return nil, e
}

// logIn takes a person through a login, and gives what is kept of it.
func (s *session) logIn(ctx context.Context, b *grants.Backend, ref credref.Ref, o loginOptions) (grants.Entry, error) {
	a, req := s.app, backend.Request{ID: ref.ID}
	fail := func(err error) (grants.Entry, error) {
		if stop := stopped(ctx); stop != nil {
			return grants.Entry{}, stop
		}
		return grants.Entry{}, fmt.Errorf("%s: %w", ref.Provider, late(ctx, err))
	}
	// Before a person is troubled: a store that is locked now could not keep what the login gives.
	was, err := b.Status(ctx, req)
	if err != nil && !errors.Is(err, backend.ErrNotFound) {
		return fail(err)
	}
	if err == nil && isLoggedIn(was.Status) {
		fmt.Fprintf(a.stderr, "credresolve: %s; the new login replaces that\n", printable(s.newLoginInfo(was).present()))
	}
	remote := !o.device && !o.noBrowser && a.remote()
	st, err := b.StartLogin(ctx, req, backend.LoginOptions{Device: o.device, NoRedirect: o.noBrowser || remote})
	if err != nil {
		return fail(err)
	}
	p := &pending{s: s, b: b, ref: ref, o: o, state: st, noRedirect: o.noBrowser || remote}
	if remote && pasted(st) {
		a.tell("this is a session of ssh without a browser; --device may be easier")
	}
	if err = p.run(ctx); err != nil {
		// Whatever the cause, nothing may come of it any more.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sidecarTime)
		defer cancel()
		if err := b.CancelLogin(ctx, st.State); err != nil {
			a.log.Debug("the login is not cancelled", "code", string(backend.CodeOf(err)))
		}
	}
	if err == nil {
		err = outcomeOf(p.state)
	}
	if err != nil {
		return fail(err)
	}
	entry, err := b.Status(ctx, req)
	if err != nil {
		return fail(err)
	}
	return entry, nil
}

// outcomeOf is the error of a login that ended without success.
func outcomeOf(st backend.LoginState) error {
	switch st.Status {
	case backend.LoginSuccess:
		return nil
	case backend.LoginExpired:
		return &backend.Error{Code: backend.CodeExpired, Reason: "the login was not finished in time; nothing was stored", Remedy: "begin it again"}
	case backend.LoginCancelled:
		return backend.Errorf(backend.CodeCanceled, "the login was cancelled; nothing was stored")
	case backend.LoginError:
		e := backend.Errorf(cmp.Or(st.Code, backend.CodeDenied), "the login failed; nothing was stored")
		if st.Message != "" {
			e.Reason = st.Message
		}
		return e
	}
	return backend.Errorf(backend.CodeInternal, "the login is in a state that this program does not know")
}

// tell says something on the way.
func (a *app) tell(format string, args ...any) {
	fmt.Fprintf(a.stderr, "credresolve: %s\n", printable(fmt.Sprintf(format, args...)))
}

// urlField is the name of the field that takes the address at which a browser ended.
const urlField = "url"

// pasted reports whether st takes the address at which the browser ended, and nothing else.
func pasted(st backend.LoginState) bool {
	return st.URL != "" && len(st.Fields) == 1 && st.Fields[0].Name == urlField
}

const (
	pollEvery  = 200 * time.Millisecond // where the backend names no interval: it costs nothing
	tellEvery  = 30 * time.Second
	mostTries  = 3
	patientFor = 2 * time.Second // with a browser that fails at once
)

// pending is a login under way.
type pending struct {
	s          *session
	b          *grants.Backend
	ref        credref.Ref
	o          loginOptions
	state      backend.LoginState
	noRedirect bool

	in      *bufio.Reader // standard input, where that is no terminal
	typing  *typist       // where it is one
	members map[string]backend.Secret
	tries   int
}

// run goes on until the login has ended.
func (p *pending) run(ctx context.Context) error {
	for p.state.Status == backend.LoginPending {
		var err error
		switch {
		case len(p.state.Fields) > 0 && !pasted(p.state):
			err = p.enter(ctx)
		default:
			err = p.wait(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// wait shows where to log in, and waits for the end of the login; the address at which the browser ended is taken meanwhile.
func (p *pending) wait(ctx context.Context) error {
	a := p.s.app
	var failed <-chan struct{}
	if p.state.URL != "" {
		address, err := webAddress(p.state.URL)
		if err != nil {
			return err
		}
		switch {
		case p.state.UserCode != "":
			a.tell("open this page on any device, and enter the code %s", p.state.UserCode)
		case p.noRedirect:
			a.tell("open this page in a browser")
		default:
			var ok bool
			if failed, ok = a.openBrowser(address); ok {
				a.tell("the browser opens this page; if it does not, open it yourself")
			} else {
				a.tell("no browser is found here; open this page in one")
			}
		}
		fmt.Fprintf(a.stderr, "\n  %s\n\n", address)
	}
	var lines <-chan line
	paste := pasted(p.state)
	if paste && isTerminal(a.stdin) {
		t, err := a.typing(false)
		if err != nil {
			return err
		}
		defer t.stop()
		p.typing = t
	}
	ask := func() {
		if isTerminal(a.stdin) {
			fmt.Fprint(a.stderr, "the address at which the browser ended: ")
		}
		lines = p.readLine()
	}
	if paste {
		if p.noRedirect {
			a.tell("then paste the address at which the browser ended, though it shows an error")
		} else if isTerminal(a.stdin) {
			a.tell("waiting; if the browser cannot come back to this machine, paste the address at which it ended")
		} else {
			a.tell("waiting for the browser to come back")
		}
		ask()
	} else {
		a.tell("waiting until %s; ^C ends it", p.state.Expires.Local().Format(time.TimeOnly))
	}
	poll := time.NewTimer(p.interval())
	defer poll.Stop()
	remind := time.NewTicker(tellEvery)
	defer remind.Stop()
	early := time.NewTimer(patientFor)
	defer early.Stop()
	for {
		select {
		case <-ctx.Done():
			p.leaveLine(lines)
			return context.Cause(ctx)
		case <-early.C:
			failed = nil // that of a browser which ran is nothing to tell of
		case <-failed:
			failed = nil
			p.leaveLine(lines)
			a.tell("the browser could not be opened; open the page yourself")
			if lines != nil && isTerminal(a.stdin) {
				fmt.Fprint(a.stderr, "the address at which the browser ended: ")
			}
		case got := <-lines:
			lines = nil
			switch err := p.paste(ctx, got); {
			case err == nil && p.state.Status != backend.LoginPending:
				return nil
			case err == nil:
				ask()
			case err == io.EOF:
				if p.noRedirect {
					return &backend.Error{
						Code: backend.CodeUsage, Reason: "standard input ended before the address was pasted; nothing was stored",
						Remedy: "paste it on a terminal, or use --device",
					}
				}
			default:
				if ctx.Err() != nil || !retryable(err) || p.noRedirect && !isTerminal(a.stdin) {
					return err
				}
				a.complain(err)
				ask()
			}
		case <-poll.C:
			st, err := p.b.PollLogin(ctx, p.state.State)
			if err != nil {
				p.leaveLine(lines)
				return err
			}
			p.state = st
			if st.Status != backend.LoginPending {
				p.leaveLine(lines)
				return nil
			}
			poll.Reset(p.interval())
		case <-remind.C:
			if !isTerminal(a.stdin) || !paste {
				a.tell("still waiting, until %s", p.state.Expires.Local().Format(time.TimeOnly))
			}
		}
	}
}

// retryable reports whether a person can mend what err says by entering something else.
func retryable(err error) bool {
	switch backend.CodeOf(err) {
	case backend.CodeUsage, backend.CodeDenied, backend.CodeInvalidID:
		return true
	}
	return backend.CodeOf(err).Retryable()
}

// leaveLine ends the line of a prompt that is not answered.
func (p *pending) leaveLine(asked <-chan line) {
	if asked != nil && isTerminal(p.s.app.stdin) {
		fmt.Fprintln(p.s.app.stderr)
	}
}

func (p *pending) interval() time.Duration {
	if p.state.Interval > 0 {
		return p.state.Interval
	}
	return pollEvery
}

// paste submits what was pasted. An empty line is none.
func (p *pending) paste(ctx context.Context, got line) error {
	defer clear(got.text)
	if len(got.text) == 0 {
		return got.err
	}
	st, err := p.b.SubmitLogin(ctx, p.state.State, map[string]backend.Secret{urlField: backend.NewSecret(got.text)})
	if err == nil {
		p.state = st
	}
	return err
}

// line is a line of standard input without its end. err is io.EOF when there is none.
type line struct {
	text []byte
	err  error
}

// readLine reads a line in the background; a read that nobody waits for any more ends with the process.
func (p *pending) readLine() <-chan line {
	ch := make(chan line, 1)
	if t := p.typing; t != nil {
		go func() {
			text, err := t.line()
			ch <- line{text, err}
		}()
		return ch
	}
	if p.in == nil {
		p.in = bufio.NewReaderSize(p.s.app.stdin, 4096)
	}
	go func() { ch <- nextLine(p.in) }()
	return ch
}

func nextLine(in *bufio.Reader) line {
	var out []byte
	for {
		part, err := in.ReadSlice('\n')
		out = append(out, part...)
		if len(out) > maxLine {
			return line{err: errLongLine}
		}
		if err == nil || len(out) > 0 && err != bufio.ErrBufferFull {
			return line{text: bytes.TrimRight(out, "\r\n")}
		}
		if err != bufio.ErrBufferFull {
			return line{err: io.EOF} // also of a terminal that is gone
		}
	}
}

// enter asks for what the provider takes, and submits it. On a terminal what is refused is asked for again.
func (p *pending) enter(ctx context.Context) error {
	a := p.s.app
	ctx, cancel := context.WithDeadlineCause(ctx, p.end(), &backend.Error{
		Code: backend.CodeExpired, Reason: "the login was not finished in time; nothing was stored", Remedy: "begin it again",
	})
	defer cancel()
	input, err := p.fields(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	st, err := p.b.SubmitLogin(ctx, p.state.State, input)
	if err == nil {
		p.state = st
		return nil
	}
	if p.tries++; ctx.Err() != nil || !isTerminal(a.stdin) || p.tries >= mostTries || !retryable(err) {
		return err
	}
	a.complain(err)
	return nil
}

func (p *pending) end() time.Time {
	if p.state.Expires.IsZero() {
		return time.Now().Add(24 * time.Hour)
	}
	return p.state.Expires
}

// fields reads a value for each field that is asked for.
func (p *pending) fields(ctx context.Context) (map[string]backend.Secret, error) {
	a, fields := p.s.app, p.state.Fields
	input := make(map[string]backend.Secret, len(fields))
	if p.o.asJSON {
		return p.fromJSON(ctx)
	}
	if !isTerminal(a.stdin) {
		for _, f := range fields {
			text, err := p.fromInput(ctx, len(fields) == 1)
			if err != nil {
				return nil, err
			}
			switch {
			case len(text) > 0:
				input[f.Name] = backend.NewSecret(text)
				clear(text)
			case !f.Optional:
				return nil, &backend.Error{
					Code: backend.CodeUsage, Reason: "standard input has no value for " + label(f) + "; nothing was stored",
					Remedy: "give it there, or log in on a terminal",
				}
			}
		}
		if p.in != nil {
			if rest, _ := p.in.Peek(p.in.Buffered()); len(bytes.TrimSpace(rest)) > 0 {
				return nil, &backend.Error{
					Code: backend.CodeUsage, Reason: "standard input has more lines than fields are asked for; nothing was stored",
					Remedy: "give a value of several lines with --json",
				}
			}
		}
		return input, nil
	}
	for _, f := range fields {
		if f.Help != "" {
			a.tell("%s: %s", label(f), f.Help)
		}
		if f.URL != "" {
			a.tell("see %s", f.URL)
		}
		for tries := 1; ; tries++ {
			text, err := a.promptField(ctx, f)
			if err != nil {
				return nil, err
			}
			if len(text) > 0 {
				input[f.Name] = backend.NewSecret(text)
				clear(text)
			} else if !f.Optional {
				if tries < mostTries {
					a.tell("%s is needed", label(f))
					continue
				}
				return nil, backend.Errorf(backend.CodeUsage, "%s was not given; nothing was stored", label(f))
			}
			break
		}
	}
	return input, nil
}

func label(f backend.LoginField) string {
	if f.Label != "" {
		return f.Label
	}
	return f.Name
}

// fromInput reads one value from standard input: a line of it, or all.
func (p *pending) fromInput(ctx context.Context, all bool) ([]byte, error) {
	if all {
		text, err := readAll(ctx, p.s.app.stdin, maxLine, "standard input")
		return bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r")), err
	}
	select {
	case got := <-p.readLine():
		if got.err == io.EOF {
			return nil, nil
		}
		return got.text, got.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// fromJSON reads the values of all fields from standard input, once.
func (p *pending) fromJSON(ctx context.Context) (map[string]backend.Secret, error) {
	if p.members == nil {
		text, err := readAll(ctx, p.s.app.stdin, 16*maxLine, "standard input")
		if err != nil {
			return nil, err
		}
		defer clear(text)
		members, ok := backend.FieldsFromJSON(text)
		if !ok {
			return nil, backend.Errorf(backend.CodeUsage, "standard input is not one JSON object; nothing was stored")
		}
		p.members = members
	}
	input := map[string]backend.Secret{}
	for _, f := range p.state.Fields {
		v, ok := p.members[f.Name]
		if ok && v.Len() > 0 {
			input[f.Name] = v
		} else if !f.Optional {
			return nil, backend.Errorf(backend.CodeUsage, "the JSON object has no member %s; nothing was stored", f.Name)
		}
		delete(p.members, f.Name)
	}
	if len(p.members) > 0 { // which may be a secret in the wrong place, and is not repeated
		var names []string
		for _, f := range p.state.Fields {
			names = append(names, f.Name)
		}
		return nil, backend.Errorf(backend.CodeUsage, "the JSON object has a member that is not asked for; nothing was stored; those are: %s", strings.Join(names, ", "))
	}
	return input, nil
}

// promptField asks for one field on the terminal.
func (a *app) promptField(ctx context.Context, f backend.LoginField) ([]byte, error) {
	prompt := label(f)
	if f.Optional {
		prompt += " (may be left empty)"
	}
	text, err := a.prompt(ctx, prompt+": ", f.Secret)
	if err != nil && err != error(errLongLine) && ctx.Err() == nil {
		err = backend.Errorf(backend.CodeUsage, "%s was not given; nothing was stored", label(f))
	}
	return text, err
}
