package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
)

// Settings say where lines go.
type Settings struct {
	config.AuditSettings
	// Dir is where the file is whose path is not set: it is audit.jsonl there.
	Dir string
	// Stdout is where lines go for "stdout". It stays the caller's.
	Stdout *os.File
	// Warn is told, in one line without a full stop, that lines cannot be written, that they can again, and what else somebody
	// should see to. It must not write to the log. Nil: nobody is told.
	Warn func(string)
}

// Defaults of the settings that are not set.
const (
	FileName        = "audit.jsonl"
	defaultMaxBytes = 100 << 20
	defaultKeep     = 5
)

// sink is a place for lines.
type sink interface {
	// write writes b, which is whole lines. What of it belongs together ends at one of ends; done is how many of these parts
	// are there as a whole. Of the others there is nothing in a file, and elsewhere perhaps a beginning. Without an error all
	// are there. Calls do not overlap.
	write(b []byte, ends []int) (done int, err error)
	// look is told at a reload: what may have changed around the sink is looked at.
	look()
	close() error
}

// Log is an audit log. It is safe for concurrent use.
type Log struct {
	off  atomic.Bool
	lost atomic.Uint64
	pool sync.Pool // *batch

	mu   sync.Mutex
	next *batch // what calls may still join

	writing  sync.Mutex // one batch at a time; guards what follows
	settings Settings
	sink     sink // nil: closed, or off
	closed   bool
	failing  bool
	missed   uint64 // lines, since failing
}

// batch is what one write takes: the lines of the call that made it, and of those that came while it waited for its turn.
type batch struct {
	buf  []byte
	ends []int    // where the lines of each call end
	told *outcome // what those that wait are told; nil until somebody does
}

// outcome is what became of a batch.
type outcome struct {
	done chan struct{} // closed when the rest is set
	ok   int           // how many calls have their lines written
	err  error         // of the others; nil when the log fails open
}

const (
	maxBatch = 1 << 20  // a batch of so many bytes takes no more calls
	maxKept  = 64 << 10 // a larger buffer is not kept for another batch
)

// Open opens a log. The error has the code invalid_config where something is wrong with the place, unsupported where the
// system has no such place, else unavailable.
func Open(s Settings) (*Log, error) {
	s, err := s.complete()
	if err != nil {
		return nil, err
	}
	l := &Log{settings: s}
	if l.sink, err = s.open(); err != nil {
		return nil, err
	}
	l.pool.New = func() any { return new(batch) }
	l.off.Store(s.To == "off")
	return l, nil
}

// complete gives s with what is not set, checked.
func (s Settings) complete() (Settings, error) {
	if s.To == "" {
		s.To = "file"
	}
	if s.Path == "" {
		s.Path = filepath.Join(s.Dir, FileName)
	}
	if s.MaxBytes <= 0 {
		s.MaxBytes = defaultMaxBytes
	}
	if s.Keep == nil {
		keep := defaultKeep
		s.Keep = &keep
	}
	if s.Warn == nil {
		s.Warn = func(string) {}
	}
	switch {
	case s.To != "file" && s.To != "stdout" && s.To != "syslog" && s.To != "off":
		return s, backend.Errorf(backend.CodeInvalidConfig, "the audit log can go to file, stdout, syslog or off")
	case s.OnFailure != "" && s.OnFailure != "deny" && s.OnFailure != "allow":
		return s, backend.Errorf(backend.CodeInvalidConfig, "when the audit log fails, requests can be denied (deny) or answered (allow)")
	case s.To == "file" && !filepath.IsAbs(s.Path):
		return s, backend.Errorf(backend.CodeInvalidConfig, "the path of the audit log is not absolute")
	case s.To == "stdout" && s.Stdout == nil:
		return s, backend.Errorf(backend.CodeInvalidConfig, "there is no standard output for the audit log")
	}
	return s, nil
}

func (s Settings) open() (sink, error) {
	switch s.To {
	case "file":
		return openFile(s)
	case "stdout":
		return openStream(s.Stdout)
	case "syslog":
		return openSyslog()
	}
	return nil, nil
}

// same reports whether the same sink serves s and t.
func (s Settings) same(t Settings) bool {
	return s.To == t.To && (s.To != "file" || s.Path == t.Path && s.MaxBytes == t.MaxBytes && *s.Keep == *t.Keep) &&
		(s.To != "stdout" || s.Stdout == t.Stdout)
}

// Off reports whether nothing is written, so that no record need be made.
func (l *Log) Off() bool { return l.off.Load() }

// Lost is how many lines were given to a log that fails open and are not written.
func (l *Log) Lost() uint64 { return l.lost.Load() }

// Write writes a line for each of recs, and returns when they are with the operating system. The lines of one call are
// written together or not at all; calls that wait at the same time share a write. recs is not kept. Of a log that fails
// closed the error is a *backend.Error of code unavailable.
func (l *Log) Write(recs []Record) error {
	if len(recs) == 0 || l.off.Load() {
		return nil
	}
	mine := l.pool.Get().(*batch)
	for i := range recs {
		mine.buf = appendRecord(mine.buf, &recs[i])
	}
	l.mu.Lock()
	if b := l.next; b != nil && len(b.buf)+len(mine.buf) <= maxBatch {
		b.buf = append(b.buf, mine.buf...)
		turn := len(b.ends)
		b.ends = append(b.ends, len(b.buf))
		if b.told == nil {
			b.told = &outcome{done: make(chan struct{})}
		}
		told := b.told
		l.mu.Unlock()
		l.put(mine)
		<-told.done
		return l.answer(turn < told.ok, len(recs), told.err)
	}
	mine.ends = append(mine.ends, len(mine.buf))
	l.next = mine
	l.mu.Unlock()

	l.writing.Lock()
	l.mu.Lock()
	if l.next == mine {
		l.next = nil
	}
	l.mu.Unlock()
	ok, err := l.write(mine)
	l.writing.Unlock()
	if told := mine.told; told != nil {
		told.ok, told.err = ok, err
		close(told.done)
	}
	l.put(mine)
	return l.answer(ok > 0, len(recs), err)
}

// answer is what the caller of n lines is told.
func (l *Log) answer(written bool, n int, err error) error {
	if written {
		return nil
	}
	if err == nil {
		l.lost.Add(uint64(n))
	}
	return err
}

func (l *Log) put(b *batch) {
	if cap(b.buf) > maxKept {
		return
	}
	*b = batch{buf: b.buf[:0], ends: b.ends[:0]}
	l.pool.Put(b)
}

// write writes b; done and err are for its calls. Called with l.writing held.
func (l *Log) write(b *batch) (done int, err error) {
	switch {
	case l.closed:
		return 0, unavailable(errors.New("it is closed"))
	case l.sink == nil: // turned off meanwhile
		return len(b.ends), nil
	}
	done, err = l.sink.write(b.buf, b.ends)
	if err == nil {
		if l.failing {
			l.failing = false
			l.settings.Warn(fmt.Sprintf("the audit log is written again; requests without their lines: %d", l.missed))
		}
		return done, nil
	}
	err = unavailable(err)
	open := l.settings.OnFailure == "allow"
	if !l.failing {
		l.failing, l.missed = true, 0
		effect := "; requests are denied until it can"
		if open {
			effect = "; requests are answered without their lines until it can"
		}
		l.settings.Warn(err.Error() + effect)
	}
	l.missed += uint64(len(b.ends) - done)
	if open {
		err = nil
	}
	return done, err
}

// Apply takes over other settings, and looks at the file again: one that was moved away is left at once. When it fails, all
// stays as it was.
func (l *Log) Apply(s Settings) error {
	s, err := s.complete()
	if err != nil {
		return err
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.closed {
		return unavailable(errors.New("it is closed"))
	}
	if !l.settings.same(s) {
		next, err := s.open()
		if err != nil {
			return err
		}
		if l.sink != nil {
			if err := l.sink.close(); err != nil {
				s.Warn("the audit log that was in use until now cannot be closed: " + systemReason(err))
			}
		}
		l.sink = next
	}
	if l.sink != nil {
		l.sink.look()
	}
	l.settings = s
	l.off.Store(s.To == "off")
	return nil
}

// Close ends the log, after what is being written is, and syncs a file. Later calls of Write fail, but for those of a log that is
// off.
func (l *Log) Close() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if l.sink == nil {
		return nil
	}
	if err := l.sink.close(); err != nil {
		return unavailable(err)
	}
	return nil
}

func unavailable(err error) error {
	var own *backend.Error
	if errors.As(err, &own) {
		return own
	}
	return backend.Errorf(backend.CodeUnavailable, "the audit log cannot be written: %s", systemReason(err))
}

// systemReason is what the operating system says, without the paths that the errors of package os repeat.
func systemReason(err error) string {
	var number syscall.Errno
	switch {
	case errors.As(err, &number):
		return number.Error()
	case errors.Is(err, fs.ErrNotExist):
		return "it does not exist"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "whoever reads it does not"
	}
	return err.Error()
}
