package cli

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/term"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/redact"
)

// The exit statuses of run that are not the child's; 126 and 127 are those of a shell.
const (
	statusNotRun     = 125 // nothing was run: the refs, the configuration or the flags are at fault
	statusNotStarted = 126 // the command exists and could not be started
	statusNoCommand  = 127 // there is no such command
)

// linger is how long the output of a child that has ended is still awaited while nothing comes: its own children may hold
// the other end for as long as they live.
const linger = 500 * time.Millisecond

// child is a program that runs in the place of this one: with its terminal, its process group and its signals.
//
// It is in our process group, so that the job control of a shell, and whoever ends the whole group, mean both. What the
// terminal sends to the group the child has got already, and it is not sent again. Only behind a terminal of its own, see
// redact, the child has its own session.
type child struct {
	argv                  []string
	env                   []string
	stdin, stdout, stderr *os.File
	signals               <-chan os.Signal // to pass on
	redact                *redact.Redactor // nil: the child writes to stdout and stderr itself
	masked                []*environment   // what redact masks

	// Of a child whose values are watched.
	changes  <-chan *environment // nil: none come
	onChange onChange
	grace    time.Duration                       // that it has to end
	learn    func(*environment) *redact.Redactor // masks further values; nil: nothing is masked
	tell     func(format string, args ...any)    // of what is done with it
	next     *environment                        // that of its restart, which is under way; nil: none is
	ended    bool                                // it is not to be restarted: somebody else asked it to end
	asked    bool                                // a signal that may end it was passed on
	typing   typing
}

// run starts the child, waits for its end and gives its exit status, 128+n when signal n ended it. The error is of a child
// that did not start, or of output that could not be written.
func (c *child) run(ctx context.Context) (int, error) {
	cmd := exec.Command(c.argv[0], c.argv[1:]...)
	cmd.Env = c.env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdin, c.stdout, c.stderr
	var out *filter
	if c.redact != nil {
		var err error
		if out, err = newFilter(c, cmd); err != nil {
			return statusNotStarted, err
		}
		defer out.restore()
	}
	defer dieWithParent(cmd)()
	if err := context.Cause(ctx); err != nil { // a signal came before there was a child to have it
		return statusNotRun, err
	}
	if err := cmd.Start(); err != nil {
		if out != nil {
			out.abandon()
		}
		return startError(c.argv[0], err)
	}
	if out != nil {
		defer outliveReader()()
		out.start()
	}
	done := make(chan struct{})
	var forwarding sync.WaitGroup
	forwarding.Go(func() {
		var kill, later <-chan time.Time
		var waiting *environment // for later
		var asked time.Time      // when a signal that may end it was passed on
		for {
			select {
			case env := <-c.changes:
				switch left := c.grace - time.Since(asked); {
				case kill != nil: // it is ending already
					if c.take(env); c.next != nil {
						c.next = env
					}
				case left > 0 && c.onChange.how != changeSignal: // it may be ending
					later, waiting = time.After(left), env
				default:
					kill = c.change(cmd.Process, env, out)
				}
			case <-later:
				kill = c.change(cmd.Process, waiting, out)
			case <-kill:
				kill = make(chan time.Time) // once
				_ = cmd.Process.Kill()
			case sig := <-c.signals:
				if slices.Contains(ending, sig) {
					asked, c.asked = time.Now(), true
					c.ended = c.ended || c.next != nil
				}
				if out != nil {
					out.resize(sig)
				}
				if out != nil && out.ownSession || !sentByTerminal(sig) {
					_ = cmd.Process.Signal(sig)
				}
			case <-done:
				return
			}
		}
	})
	waited := cmd.Wait()
	close(done)
	forwarding.Wait()
	var err error
	if out != nil {
		err = out.finish(c.signals, &c.ended)
	}
	var exit *exec.ExitError
	if waited != nil && !errors.As(waited, &exit) {
		err = errors.Join(err, backend.Errorf(backend.CodeInternal, "the command could not be waited for: %s", reason(waited)))
	}
	return exitStatus(cmd.ProcessState), err
}

// startError gives status and error of a command that did not start. The system's reason is passed on, argv and
// environment are not.
func startError(name string, err error) (int, error) {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return statusNoCommand, backend.Errorf(backend.CodeNotFound, "%s: command not found", name)
	}
	if errors.Is(err, exec.ErrDot) {
		e := backend.Errorf(backend.CodeDenied, "%s: found in the working directory alone, by way of $PATH", name)
		e.Remedy = "run it as ./" + name
		return statusNotStarted, e
	}
	return statusNotStarted, backend.Errorf(backend.CodeDenied, "%s: cannot be started: %s", name, reason(err))
}

// filter stands between the outputs of a child and ours.
type filter struct {
	stdin      *os.File
	streams    []*stream
	master     *os.File   // our end of the child's terminal, nil when it has none
	ours       []*os.File // to be closed at the end
	childs     []*os.File // ends of the child, to be closed once it has started
	terminal   *os.File   // whose size the child's terminal has
	typed      bool       // what is typed here goes to the child's terminal
	typing     *typing
	ownSession bool // the child's terminal controls it
	saved      *term.State
	once       sync.Once

	copying sync.WaitGroup
	last    atomic.Int64 // when something came, in nanoseconds since began
	began   time.Time
}

// stream is one output of the child on its way.
type stream struct {
	from *os.File
	ours *os.File
	to   *redact.Writer
	next atomic.Pointer[redact.Redactor] // to go on with
	err  error
}

// typing passes what is typed on to the terminal of one child after another.
type typing struct {
	mu     sync.Mutex
	moved  *sync.Cond
	master *os.File // nil: what comes waits
}

// to has what is typed go to master from now on.
func (t *typing) to(master, stdin *os.File) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.master = master
	if t.moved != nil {
		t.moved.Broadcast()
	} else if stdin != nil {
		t.moved = sync.NewCond(&t.mu)
		go t.copy(stdin) // ends with the process: nothing interrupts a read
	}
}

func (t *typing) copy(stdin *os.File) {
	buf := make([]byte, 4096)
	for {
		n, err := stdin.Read(buf)
		for text := buf[:n]; len(text) > 0; {
			t.mu.Lock()
			for t.master == nil {
				t.moved.Wait()
			}
			master := t.master
			t.mu.Unlock()
			written, err := master.Write(text)
			text = text[written:]
			if err != nil {
				t.mu.Lock()
				if t.master == master { // it is gone
					t.master = nil
				}
				t.mu.Unlock()
			}
		}
		if err != nil {
			return
		}
	}
}

// mask makes f mask by r what it reads from now on.
func (f *filter) mask(r *redact.Redactor) {
	for _, s := range f.streams {
		s.next.Store(r)
	}
}

// newFilter connects cmd. An output that is a terminal here is a terminal for the child too.
func newFilter(c *child, cmd *exec.Cmd) (*filter, error) {
	f := &filter{stdin: c.stdin, typing: &c.typing, began: time.Now()}
	var slave *os.File
	for _, out := range []struct {
		ours   *os.File
		childs *io.Writer
	}{{c.stdout, &cmd.Stdout}, {c.stderr, &cmd.Stderr}} {
		if slave != nil && isTerminal(out.ours) { // both are one terminal, as they are here
			*out.childs = slave
			continue
		}
		var from, to *os.File
		var err error
		if isTerminal(out.ours) {
			from, to, err = openTerminal()
		}
		switch {
		case err == nil && from != nil:
			slave, f.master, f.terminal = to, from, out.ours
		default: // also where the system has no such terminals
			if from, to, err = os.Pipe(); err != nil {
				f.abandon()
				return nil, backend.Errorf(backend.CodeInternal, "no pipe for the output of the command: %s", reason(err))
			}
		}
		*out.childs = to
		f.ours, f.childs = append(f.ours, from), append(f.childs, to)
		f.streams = append(f.streams, &stream{from: from, ours: out.ours, to: c.redact.Writer(out.ours)})
	}
	if f.master == nil {
		return f, nil
	}
	f.resize(nil)
	// A child that reads from our terminal gets all of its own. When only its output is a terminal, ours goes on to do what
	// terminals do to a line end.
	if f.terminal == c.stdout && isTerminal(c.stdin) && inForeground() {
		copySettings(c.stdin, slave)
		cmd.Stdin, f.typed, f.ownSession = slave, true, true
		controlledBy(cmd)
	} else {
		_, _ = term.MakeRaw(int(slave.Fd()))
	}
	return f, nil
}

// start begins to copy, after the child has started.
func (f *filter) start() {
	closeAll(f.childs)
	if f.typed {
		// Raw: what is typed is the child's, ^C included, which its own terminal makes a signal of.
		f.saved, _ = term.MakeRaw(int(f.stdin.Fd()))
		f.typing.to(f.master, f.stdin)
	}
	for _, s := range f.streams {
		f.copying.Go(func() { f.copy(s) })
	}
}

func (f *filter) copy(s *stream) {
	buf := make([]byte, 32<<10)
	for {
		n, err := s.from.Read(buf)
		f.last.Store(int64(time.Since(f.began)))
		if r := s.next.Swap(nil); r != nil {
			_ = s.to.Close() // an error comes again with the next write
			s.to = r.Writer(s.ours)
		}
		if n > 0 {
			if _, s.err = s.to.Write(buf[:n]); s.err != nil {
				// Nobody reads: the child is to learn it from its next write.
				_ = s.from.Close()
				break
			}
		}
		if err != nil { // the end, which a terminal tells as an error
			break
		}
	}
	clear(buf)
	if err := s.to.Close(); s.err == nil {
		s.err = err
	}
}

// finish waits for the rest of the output after the child's end: until nothing has come for a while, or one of signals asks
// to end, of which asked tells then.
func (f *filter) finish(signals <-chan os.Signal, asked *bool) error {
	copied := make(chan struct{})
	go func() { f.copying.Wait(); close(copied) }()
	for ended := time.Since(f.began); ; {
		quiet := time.Since(f.began) - max(ended, time.Duration(f.last.Load()))
		if quiet >= linger {
			break
		}
		select {
		case <-copied:
		case sig := <-signals:
			if !slices.Contains(ending, sig) {
				continue
			}
			*asked = true
		case <-time.After(linger - quiet):
			continue
		}
		break
	}
	if f.typed {
		f.typing.to(nil, nil)
	}
	closeAll(f.ours) // ends the reads
	<-copied
	f.restore()
	for _, s := range f.streams {
		if s.err != nil && !isBrokenPipe(s.err) {
			return backend.Errorf(backend.CodeInternal, "the output of the command cannot be written: %s", reason(s.err))
		}
	}
	return nil
}

// abandon is finish for a child that did not start.
func (f *filter) abandon() {
	closeAll(f.childs)
	closeAll(f.ours)
}

// restore gives the terminal its settings back. It may be called twice.
func (f *filter) restore() {
	f.once.Do(func() {
		if f.saved != nil {
			_ = term.Restore(int(f.stdin.Fd()), f.saved)
		}
	})
}

func closeAll(files []*os.File) {
	for _, file := range files {
		_ = file.Close()
	}
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
