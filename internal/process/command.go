package process

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Command is a program to run once.
type Command struct {
	// Path is the absolute path of the program's file.
	Path string
	// Executable is the open file to execute instead of what is at Path by then. Linux only, and not for scripts, whose
	// interpreter opens them by name. Nil: Path.
	Executable *os.File
	// Args is everything in argv: Args[0] is the name under which the program sees itself. Empty: Path alone.
	Args []string
	// Env is the whole environment, "NAME=value" each. Empty: no environment, but for SYSTEMROOT on Windows.
	Env []string
	// Dir is the working directory. Empty: the caller's.
	Dir string
	// Stdin is written to the program, which need not read it, and then closed.
	Stdin []byte
	// Timeout bounds the run. Zero: only the context does.
	Timeout time.Duration
	// Silence bounds the time without output on either stream. Zero: it may be silent.
	Silence time.Duration
	// MaxOutput bounds standard output and standard error together, in bytes. Zero: no limit.
	MaxOutput int64
	// Grace is how long the program may take to end after it was asked to. Zero: DefaultGrace. After the context is done it
	// is at most cancelGrace.
	Grace time.Duration
}

// DefaultGrace is the time between SIGTERM and SIGKILL.
const DefaultGrace = 300 * time.Millisecond

const (
	// cancelGrace is short, because the caller waits for us and wants to be gone.
	cancelGrace = 50 * time.Millisecond
	// drainTime is how long the end of the output is awaited after the program and its group have ended. Only a descendant that
	// left the group can hold it open.
	drainTime = 100 * time.Millisecond
	// pipeSize is the most that a pipe holds (pipe-max-size, pipe(7)).
	pipeSize = 1 << 20
	// killTime is how long a killed program may take to be gone.
	killTime = 500 * time.Millisecond
	// A program that somebody is just writing cannot be executed (ETXTBSY), also when that is merely a fork elsewhere in this
	// process that has yet to close its descriptors.
	busyAttempts, busyWait = 20, 5 * time.Millisecond
)

// Run runs c to its end and gives what it wrote to standard output, which the caller owns and should zero. Nothing comes
// with an error. It is safe for concurrent use, and returns soon after ctx is done, with ctx's error.
func Run(ctx context.Context, c Command) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r := &run{Command: c, activity: make(chan struct{}, 1), flooded: make(chan struct{})}
	out, err := r.run(ctx)
	if err != nil {
		clear(out)
		return nil, err
	}
	return out, nil
}

var errUnkillable = errors.New("it does not end when it is killed")

type run struct {
	Command
	written  atomic.Int64  // both streams together
	activity chan struct{} // holds a token when something was written
	flood    sync.Once
	flooded  chan struct{} // closed when MaxOutput was exceeded
}

// stream is one of the program's outputs.
type stream struct {
	from *os.File
	keep bool
	out  []byte // its buffer; what was read, once done is closed
	err  error
	done chan struct{}
}

func (r *run) run(ctx context.Context) ([]byte, error) {
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	pipe := func() (from, to *os.File, err error) {
		from, to, err = os.Pipe()
		if err == nil {
			files = append(files, from, to)
		}
		return from, to, err
	}
	stdinR, stdinW, err1 := pipe()
	stdoutR, stdoutW, err2 := pipe()
	stderrR, stderrW, err3 := pipe()
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, &Error{Failure: NoStart, Name: systemText(err)}
	}
	var child *child
	var notStarted error
	started, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		// Linux ends the program with the thread that started it (PR_SET_PDEATHSIG), so this one waits for its end and serves
		// nobody else who might end it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		child, notStarted = r.start(ctx, stdinR, stdoutW, stderrW)
		close(started)
		if notStarted == nil {
			child.awaitEnd()
		}
	}()
	<-started
	// The program alone must hold its ends, or we would never see the end of its output.
	for _, f := range []*os.File{stdinR, stdoutW, stderrW} {
		_ = f.Close()
	}
	if notStarted != nil {
		return nil, notStarted
	}

	stdout := &stream{from: stdoutR, keep: true, done: make(chan struct{})}
	stderr := &stream{from: stderrR, done: make(chan struct{})}
	for _, s := range []*stream{stdout, stderr} {
		go func() {
			defer close(s.done)
			r.read(s, s.from)
		}()
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		// A program that does not read, or ends before it has read all (EPIPE), is not at fault.
		_, _ = stdinW.Write(r.Stdin)
		_ = stdinW.Close()
	}()

	failure := r.watch(ctx, ended)
	if failure != nil {
		child.terminate()
		r.allowGrace(ctx, ended)
	}
	child.kill()
	var state *os.ProcessState
	var err error
	select {
	case <-ended:
		state, err = child.reap()
	case <-time.After(killTime):
		// It waits for a device or a network file system, or is another user's (setuid). It is reaped whenever it ends.
		err = errUnkillable
		go func() { <-ended; _, _ = child.reap() }()
	}

	_ = stdinW.Close()
	<-written
	drained := time.NewTimer(drainTime)
	defer drained.Stop()
	for _, s := range []*stream{stdout, stderr} {
		select {
		case <-s.done:
		case <-drained.C:
			drained.Reset(0)
			r.cut(s)
		}
	}
	switch {
	case failure != nil:
	case errors.Is(err, errUnkillable):
		failure = &Error{Failure: Broken, Name: err.Error()}
	case err != nil:
		failure = &Error{Failure: Broken, Name: systemText(err)}
	case !state.Success():
		failure = endOf(state)
	case r.over():
		failure = &Error{Failure: Flood, Max: r.MaxOutput}
	case stdout.err != nil:
		failure = &Error{Failure: Broken, Name: systemText(stdout.err)}
	}
	return stdout.out, failure
}

func (r *run) start(ctx context.Context, stdin, stdout, stderr *os.File) (*child, error) {
	args := r.Args
	if len(args) == 0 {
		args = []string{r.Path}
	}
	env := r.Env
	if env == nil {
		env = []string{} // nil would mean ours
	}
	for attempt := 1; ; attempt++ {
		cmd := &exec.Cmd{Path: r.Path, Args: args, Env: env, Dir: r.Dir, Stdin: stdin, Stdout: stdout, Stderr: stderr}
		if r.Executable != nil {
			// A descriptor that the child is given has a number that does not depend on ours.
			cmd.Path, cmd.ExtraFiles = "/proc/self/fd/3", []*os.File{r.Executable}
		}
		c, err := startChild(cmd)
		switch {
		case err == nil:
			return c, nil
		case errors.Is(err, textBusy) && attempt < busyAttempts:
			select {
			case <-time.After(busyWait):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		case errors.Is(err, fs.ErrNotExist):
			return nil, &Error{Failure: NotFound}
		case errors.Is(err, fs.ErrPermission):
			return nil, &Error{Failure: NoAccess}
		case errors.Is(err, syscall.ENOEXEC):
			return nil, &Error{Failure: NotAProgram}
		default:
			return nil, &Error{Failure: NoStart, Name: systemText(err)}
		}
	}
}

// allowGrace waits for a program that was asked to end.
func (r *run) allowGrace(ctx context.Context, ended <-chan struct{}) {
	grace := r.Grace
	if grace == 0 {
		grace = DefaultGrace
	}
	if ctx.Err() == nil {
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-ended:
			return
		case <-t.C:
			return
		case <-ctx.Done():
		}
	}
	t := time.NewTimer(min(grace, cancelGrace))
	defer t.Stop()
	select {
	case <-ended:
	case <-t.C:
	}
}

// watch returns nil when the program ended by itself, else why it must end.
func (r *run) watch(ctx context.Context, ended <-chan struct{}) error {
	var timeout, silence <-chan time.Time
	if r.Timeout > 0 {
		t := time.NewTimer(r.Timeout)
		defer t.Stop()
		timeout = t.C
	}
	var silent *time.Timer
	if r.Silence > 0 {
		silent = time.NewTimer(r.Silence)
		defer silent.Stop()
		silence = silent.C
	}
	for {
		select {
		case <-ended:
			return nil
		case <-r.activity:
			if silent != nil {
				silent.Reset(r.Silence)
			}
		case <-r.flooded:
			return &Error{Failure: Flood, Max: r.MaxOutput}
		case <-timeout:
			return &Error{Failure: Timeout, Limit: r.Timeout}
		case <-silence:
			return &Error{Failure: Silence, Limit: r.Silence}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *run) over() bool { return r.MaxOutput > 0 && r.written.Load() > r.MaxOutput }

// firstBuffer is the size at which a stream's buffer starts; it doubles.
const firstBuffer = 4096

// read reads from to its end, and appends it to s if it is to be kept. It reads on after a flood, so that a program is not
// blocked in a write while it is asked to end, but keeps nothing of that.
func (r *run) read(s *stream, from io.Reader) {
	n := len(s.out)
	buf := s.out[:cap(s.out)]
	for {
		if n == len(buf) {
			bigger := make([]byte, max(2*len(buf), firstBuffer))
			copy(bigger, buf)
			clear(buf)
			buf = bigger
		}
		got, err := from.Read(buf[n:])
		if got > 0 {
			r.written.Add(int64(got))
			select {
			case r.activity <- struct{}{}:
			default:
			}
			if r.over() {
				r.flood.Do(func() { close(r.flooded) })
			}
			if s.keep && !r.over() {
				n += got
			} else {
				clear(buf[n : n+got])
			}
		}
		if err != nil {
			if err != io.EOF && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, os.ErrClosed) {
				s.err = err
			}
			s.out = buf[:n]
			return
		}
	}
}

// cut ends the reading of s without waiting for its end. What the program wrote is in the pipe, and is read: on a machine that
// is busy nobody may have come to it in drainTime, and a secret that is cut off would pass for a whole one.
func (r *run) cut(s *stream) {
	_ = s.from.SetReadDeadline(time.Now()) // ends a read under way, where closing would wait for it
	at := time.NewTimer(drainTime)
	defer at.Stop()
	select {
	case <-s.done:
		r.read(s, io.LimitReader(waiting{s.from}, pipeSize))
	case <-at.C: // a system without deadlines
		_ = s.from.Close()
		<-s.done
	}
}

// systemText is the text of the system's error in err, without the paths and arguments around it.
func systemText(err error) string {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number.Error()
	}
	return "unexpected error"
}
