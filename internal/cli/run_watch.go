package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// watchFlags say what run does when a value changes.
type watchFlags struct {
	on     bool
	action onChange
	grace  time.Duration
}

func (f *watchFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.on, "watch", false, "act when a value that the command has changes: --on-change")
	f.action = onChange{how: changeRestart}
	cmd.Flags().Var(&f.action, "on-change", "what to do then: restart the command, send it a signal, or end it")
	_ = cmd.RegisterFlagCompletionFunc("on-change", cobra.FixedCompletions([]string{changeRestart, changeExit, "signal:HUP", "signal:USR1", "signal:USR2"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().DurationVar(&f.grace, "grace", 10*time.Second, "`time` that the command has to end, of a restart or an end, before it is killed")
	_ = cmd.RegisterFlagCompletionFunc("grace", cobra.NoFileCompletions)
}

// onChange is what is done with a child whose values changed; a flag.
type onChange struct {
	how    string
	name   string // of sig
	signal os.Signal
}

const (
	changeRestart = "restart"
	changeSignal  = "signal"
	changeExit    = "exit"
)

func (o *onChange) String() string {
	if o.how == changeSignal {
		return o.how + ":" + o.name
	}
	return o.how
}

func (o *onChange) Type() string { return "restart|exit|signal:NAME" }

// Known is for the error of a value that is none.
func (o *onChange) Known() []string {
	return []string{changeRestart, changeExit, "signal:NAME, as in signal:HUP"}
}

// Set reads restart, exit, or signal: and the name of a signal that this system has.
func (o *onChange) Set(text string) error {
	how, name, named := strings.Cut(text, ":")
	switch {
	case !named && (how == changeRestart || how == changeExit):
		*o = onChange{how: how}
		return nil
	case named && how == changeSignal:
		name = strings.TrimPrefix(strings.ToUpper(name), "SIG")
		if sig := signalNamed(name); sig != nil {
			*o = onChange{changeSignal, name, sig}
			return nil
		}
	}
	return errors.New("unknown")
}

const (
	// settling is how long further changes are awaited after a first: two secrets that rotate together are one change.
	settling = 250 * time.Millisecond
	// resolving is how long the new values may take to come.
	resolving = time.Minute
	// The pauses between two tries to get them.
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// watched is the environment of a child, followed as its values change.
type watched struct {
	changes chan *environment // the last one that nobody took
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// stop ends what watchEnvironment began.
func (w *watched) stop() {
	w.cancel()
	w.done.Wait()
}

// watchEnvironment follows vars, of which env was made, until stop is called.
func (s *session) watchEnvironment(ctx context.Context, vars []variable, env *environment) *watched {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // --timeout is for the first values
	w := &watched{changes: make(chan *environment, 1), cancel: cancel}
	f := &follower{session: s, vars: vars, env: env, known: map[credref.Ref]string{}, told: map[credref.Ref]string{}, to: w.changes}
	for _, o := range env.outcomes {
		if o.value != nil {
			f.known[o.used] = o.value.Revision()
		}
	}
	events, release := s.events(ctx, refsOf(vars), &w.done)
	w.done.Go(func() {
		defer release()
		f.follow(ctx, events)
	})
	return w
}

// events gives the events of refs from who answers for each, which keeps them fresh meanwhile.
func (s *session) events(ctx context.Context, refs []credref.Ref, running *sync.WaitGroup) (_ <-chan resolver.Event, release func()) {
	var theirs, ours []credref.Ref
	with := s.answering(ctx)
	for _, ref := range refs {
		if with.has(ref) {
			theirs = append(theirs, ref)
		} else {
			ours = append(ours, ref)
		}
	}
	out := make(chan resolver.Event)
	pass := func(from <-chan resolver.Event) {
		running.Go(func() {
			for ev := range from {
				select {
				case out <- ev:
				case <-ctx.Done():
				}
			}
		})
	}
	if len(theirs) > 0 {
		pass(with.Watch(ctx, theirs...))
	}
	var handles []*resolver.Handle
	if len(ours) > 0 {
		view := s.For(s.subject)
		pass(view.Watch(ctx, ours...))
		for _, ref := range ours {
			handles = append(handles, view.Handle(ref))
		}
		running.Go(func() {
			for _, h := range handles {
				_, _ = h.Get(ctx) // how it went is an event
			}
		})
	}
	return out, func() {
		for _, h := range handles {
			_ = h.Close()
		}
	}
}

// follower makes a new environment when the values of one change.
type follower struct {
	*session
	vars  []variable
	env   *environment
	known map[credref.Ref]string // the revision of each ref that was seen last
	told  map[credref.Ref]string // what was said last of each ref
	to    chan *environment
}

func (f *follower) follow(ctx context.Context, events <-chan resolver.Event) {
	var due <-chan time.Time
	pause, rest := firstRetry, firstRetry
	again := time.After(rest)
	for {
		select {
		case ev := <-events:
			troubles := len(f.told)
			if f.changed(ev) && due == nil {
				due = time.After(settling)
			}
			if len(f.told) > troubles { // a new one, which may be over soon
				rest = firstRetry
				again = time.After(rest)
			}
		case <-again:
			if refs := f.lacking(); len(refs) > 0 {
				bounded, cancel := context.WithTimeout(ctx, resolving)
				f.resolve(bounded, refs) // how it went is an event
				cancel()
			}
			rest = min(2*rest, lastRetry)
			again = time.After(rest)
		case <-due:
			due = nil
			if f.renew(ctx) {
				pause = firstRetry
				continue
			}
			if ctx.Err() != nil {
				return
			}
			due = time.After(pause)
			pause = min(2*pause, lastRetry)
		case <-ctx.Done():
			return
		}
	}
}

// lacking gives the refs that nobody keeps fresh, since their last fetch gave nothing: what was lost, and what others stand in
// for.
func (f *follower) lacking() []credref.Ref {
	refs := slices.Collect(maps.Keys(f.told))
	outcomes := f.env.outcomes
	for _, v := range f.vars {
		if v.Site == nil {
			continue
		}
		o := outcomes[0]
		if outcomes = outcomes[1:]; v.Site.Foreign != nil || v.lacks != nil {
			continue
		}
		for _, ref := range append([]credref.Ref{v.Site.Ref}, v.Site.Fallback...) {
			if o.value != nil && o.used == ref {
				break
			}
			refs = append(refs, ref)
		}
	}
	return refs
}

// changed reports whether ev tells of another content than was seen. What tells of trouble is said once, and changes nothing.
func (f *follower) changed(ev resolver.Event) bool {
	switch ev.Kind {
	case resolver.EventStale, resolver.EventFailed, resolver.EventAuthRequired, resolver.EventRevoked:
		what := string(ev.Kind)
		if f.known[ev.Ref] == "" || f.told[ev.Ref] == what { // it never had a value: another stands in
			return false
		}
		f.told[ev.Ref] = what
		text := fmt.Sprintf("%s: %s", ev.Ref, what)
		if ev.Err != nil {
			text = ev.Err.Error()
		}
		f.app.warn("%s; the command goes on with the value that it has", text)
		return false
	}
	switch ev.Kind {
	case resolver.EventResolved, resolver.EventRefreshed, resolver.EventRotated:
		delete(f.told, ev.Ref)
	}
	if ev.Revision == "" || ev.Revision == f.known[ev.Ref] {
		return false
	}
	f.known[ev.Ref] = ev.Revision
	return true
}

// renew resolves everything again, and hands out the environment if it is another. It reports false when that failed.
func (f *follower) renew(ctx context.Context) bool {
	bounded, cancel := context.WithTimeout(ctx, resolving)
	defer cancel()
	if f.with != nil {
		f.with.gone = false // it has just told us something
		for _, ref := range refsOf(f.vars) {
			if f.with.has(ref) {
				f.Forget(ref) // what we fetched in its place is not newer than what it tells of
			}
		}
	}
	env, err := f.environment(bounded, f.vars)
	if err != nil {
		if ctx.Err() == nil {
			f.app.warn("a value changed and cannot be had; the command goes on with what it has: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
		}
		return false
	}
	if slices.Equal(env.list, f.env.list) {
		return true
	}
	env.changed = differing(f.env.list, env.list)
	f.env = env
	select {
	case old := <-f.to: // not taken yet
		for _, name := range old.changed {
			if !slices.Contains(env.changed, name) {
				env.changed = append(env.changed, name)
			}
		}
	default:
	}
	f.to <- env
	return true
}

// differing gives the names of the variables that are not the same in both.
func differing(one, two []string) (names []string) {
	for _, kv := range append(slices.Clone(two), one...) {
		if slices.Contains(one, kv) && slices.Contains(two, kv) {
			continue
		}
		if name, _, _ := strings.Cut(kv, "="); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// The restarts of a child that fails at once after one: the service that it logs in to may know the new value a little later.
const (
	atOnce    = 2 * time.Second
	maxTries  = 5
	firstWait = time.Second
)

// runAll runs the child, again for each restart, and gives the status of the last.
func (c *child) runAll(ctx context.Context) (int, error) {
	tries, wait := 0, firstWait
	for restarted := false; ; restarted = true {
		began := time.Now()
		c.asked = false
		status, err := c.run(ctx)
		switch {
		case c.ended:
			return status, err
		case c.next != nil:
			tries, wait = 0, firstWait
		case restarted && status != 0 && !c.asked && time.Since(began) < atOnce && tries < maxTries:
			tries++
			c.tell("the command ended with status %d at once after its restart: it is started again in %v", status, wait)
			if sig := c.pause(wait); sig != nil {
				return statusOf(sig), nil
			}
			wait *= 2
		default:
			return status, err
		}
		if c.next != nil {
			c.env, c.next = c.next.list, nil
		}
	}
}

// pause waits for that time, or until a value changes. A signal that ends a command ends it too, and is given.
func (c *child) pause(d time.Duration) os.Signal {
	over := time.After(d)
	for {
		select {
		case sig := <-c.signals:
			if slices.Contains(ending, sig) {
				return sig
			}
		case env := <-c.changes:
			c.take(env)
			c.next = env
			return nil
		case <-over:
			return nil
		}
	}
}

// take makes the values of env masked too.
func (c *child) take(env *environment) {
	if c.learn != nil {
		c.redact = c.learn(env)
	}
}

// change does what is to be done with a running child whose environment should be env. kill is when it is to be killed.
func (c *child) change(p *os.Process, env *environment, out *filter) (kill <-chan time.Time) {
	c.take(env)
	if out != nil {
		out.mask(c.redact)
	}
	what := "the values of " + strings.Join(env.changed, ", ") + " changed"
	if len(env.changed) == 1 {
		what = "the value of " + env.changed[0] + " changed"
	}
	switch c.onChange.how {
	case changeSignal:
		c.tell("%s: the command gets the signal %s", what, c.onChange.name)
		_ = p.Signal(c.onChange.signal)
		return nil
	case changeExit:
		c.tell("%s: the command is ended", what)
		c.ended = true
	default:
		c.tell("%s: the command is restarted", what)
		c.next = env
	}
	if out != nil && out.typed { // the terminal is raw
		_, _ = c.stderr.WriteString("\r")
	}
	endGently(p)
	return time.After(c.grace)
}

// note says something that is no warning.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.stderr, "credresolve: %s\n", printable(fmt.Sprintf(format, args...)))
}
