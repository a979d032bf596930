package execs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// mostOutput bounds what is kept of both streams together; more ends the program.
	mostOutput = 16 << 20
	// drainTime is how long output is read after the program has ended: what it started may hold it open.
	drainTime = 200 * time.Millisecond
	// signalAfter is how long after the start a signal is sent.
	signalAfter = 100 * time.Millisecond
	// goneTime is how long what the program started may take to be gone after it.
	goneTime = 200 * time.Millisecond
)

// order is what a process is given.
type order struct {
	command   string
	args, env []string
	stdin     []byte
	hold      bool // keep standard input open and send nothing
	terminate bool
	alone     bool // look for what the program leaves
	limit     time.Duration
}

// outcome is what a process did.
type outcome struct {
	notStarted error
	timedOut   bool
	flooded    bool
	exit       int // -1: by a signal
	stdout     []byte
	stderr     []byte
	took       time.Duration // from the start, or from the signal if one was sent
	left       bool          // others of its group were there after its end
}

// run runs the program once, and leaves nothing of it behind.
func (o order) run(ctx context.Context) outcome {
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, o.command, o.args...)
	cmd.Env = o.env
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	cmd.Dir = filepath.Dir(o.command)
	cmd.WaitDelay = drainTime
	group := ownGroup(cmd)
	cmd.Cancel = group.kill
	out := outcome{}
	limit := &limit{over: func() { _ = group.kill() }}
	stdout, stderr := &stream{limit: limit}, &stream{limit: limit}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	var held io.Closer
	if o.hold {
		held, out.notStarted = cmd.StdinPipe()
	} else {
		cmd.Stdin = bytes.NewReader(o.stdin)
	}
	start := time.Now()
	if out.notStarted == nil {
		out.notStarted = cmd.Start()
	}
	if out.notStarted != nil {
		return out
	}
	var signaled atomic.Int64
	if o.terminate {
		t := time.AfterFunc(signalAfter, func() {
			signaled.Store(int64(time.Since(start)))
			_ = group.terminate()
		})
		defer t.Stop()
	}
	err := cmd.Wait()
	out.took = time.Since(start) - time.Duration(signaled.Load())
	out.left = o.alone && group.remains(goneTime)
	_ = group.kill()
	if held != nil {
		_ = held.Close()
	}
	var ended *exec.ExitError
	switch {
	case ctx.Err() != nil:
		out.timedOut = true
	case errors.As(err, &ended):
		out.exit = ended.ExitCode()
	}
	out.flooded = limit.written.Load() > mostOutput
	out.stdout, out.stderr = stdout.take(), stderr.take()
	return out
}

func (o outcome) wipe() {
	clear(o.stdout)
	clear(o.stderr)
}

// limit bounds what is kept of the streams of a process together.
type limit struct {
	written atomic.Int64
	once    sync.Once
	over    func()
}

// stream keeps what a process writes, up to its limit.
type stream struct {
	limit *limit
	mu    sync.Mutex
	kept  bytes.Buffer
}

func (s *stream) Write(p []byte) (int, error) {
	if s.limit.written.Add(int64(len(p))) > mostOutput {
		s.limit.once.Do(s.limit.over)
		return len(p), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.Write(p)
}

func (s *stream) take() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.Bytes()
}
