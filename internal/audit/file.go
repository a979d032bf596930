package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
)

const (
	leaseTime    = 20 * time.Millisecond // how long the lock is kept while nobody else writes
	lockPatience = time.Second           // how long another process may have the lock: it may have been stopped
	lockPause    = 10 * time.Second      // how long the lock is then done without
	lookEvery    = time.Second
	syncEvery    = time.Second
	rotatePause  = time.Minute // after a rotation that failed
)

// file is a file that several processes may append to.
type file struct {
	path string
	max  int64
	keep int
	warn func(string)

	unlocker, syncer *time.Timer
	background       sync.WaitGroup

	mu       sync.Mutex // guards what follows
	f        *os.File
	closed   bool
	size     int64 // where the last write ended; -1: not known
	locked   bool
	leased   bool // locked, and unlocker will end that
	alone    bool // nobody else wrote since the last write
	torn     bool // what the file ends with is no whole line
	unsynced bool
	looked   time.Time // when path was last compared with f
	unlocked time.Time // until then the lock is done without
	rotateAt time.Time // not before
}

func openFile(s Settings) (sink, error) {
	f, err := openAppend(s.Path)
	if err != nil {
		return nil, err
	}
	out := &file{path: s.Path, max: s.MaxBytes, keep: *s.Keep, warn: s.Warn, f: f, size: -1}
	out.unlocker = stopped(out.endLease)
	out.syncer = stopped(out.sync)
	return out, nil
}

// stopped gives a timer that does not run yet.
func stopped(f func()) *time.Timer {
	t := time.AfterFunc(time.Hour, f)
	t.Stop()
	return t
}

func (s *file) write(b []byte, ends []int) (done int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.take(); err != nil {
		return 0, err
	}
	defer s.give()
	if s.size > 0 && s.size+int64(len(b)) > s.max {
		if err := s.rotate(); err != nil {
			return 0, err
		}
	}
	if s.torn {
		n, err := s.f.Write([]byte("\n"))
		s.size += int64(n)
		if err != nil {
			return 0, err
		}
		s.torn = false
	}
	n, err := s.f.Write(b) // a short write is repeated until all is there or the system says why not
	s.size += int64(n)
	if n > 0 && !s.unsynced {
		s.unsynced = true
		s.syncer.Reset(syncEvery)
	}
	if err == nil {
		return len(ends), nil
	}
	whole := 0
	for _, end := range ends {
		if end > n {
			break
		}
		whole = end
		done++
	}
	if n > whole {
		s.cut(int64(n - whole))
	}
	return done, err
}

// cut takes the last n bytes off, if they are still the last; else the line that they end with is ended by the next write.
func (s *file) cut(n int64) {
	if info, err := s.f.Stat(); err == nil && info.Size() == s.size && s.f.Truncate(s.size-n) == nil {
		s.size -= n
		return
	}
	s.torn = true
}

// take locks the file, and sees to it that it is the one that path names. Called with s.mu held.
func (s *file) take() error {
	if s.locked {
		return nil
	}
	if s.closed {
		return errors.New("it is closed")
	}
	now := time.Now()
	for range 5 {
		s.lock(now)
		info, err := s.f.Stat()
		if err == nil && (now.Sub(s.looked) >= lookEvery || removed(info)) {
			var named fs.FileInfo
			if named, err = os.Lstat(s.path); err == nil && !os.SameFile(named, info) {
				err = fs.ErrNotExist
			}
			s.looked = now
		}
		if err != nil { // it was moved away or removed
			if err := s.reopen(); err != nil {
				s.unlock()
				s.looked = time.Time{} // the next write tries again
				return err
			}
			continue
		}
		size := info.Size()
		if s.alone = size == s.size; !s.alone {
			var last [1]byte
			s.torn = false
			if size > 0 {
				_, err := s.f.ReadAt(last[:], size-1)
				s.torn = err == nil && last[0] != '\n'
			}
			s.size = size
		}
		return nil
	}
	s.unlock()
	return errors.New("it is moved away again and again")
}

// give ends the lock, or leaves that to the timer. Called with s.mu held.
func (s *file) give() {
	switch {
	case !s.locked || s.leased:
	case s.alone:
		s.leased = true
		s.unlocker.Reset(leaseTime)
	default:
		s.unlock()
	}
}

func (s *file) endLease() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leased {
		s.unlock()
	}
}

// lock takes the lock of all processes that write to the file, if it can be had in time: without it lines still come whole,
// since each is one write, unless the disk is full or a process is killed at that moment.
func (s *file) lock(now time.Time) {
	if s.locked || now.Before(s.unlocked) {
		return
	}
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 2*time.Millisecond) {
		busy, err := tryLock(s.f)
		if err == nil && !busy {
			s.locked = true
			return
		}
		if err != nil || time.Since(now) > lockPatience {
			s.unlocked = now.Add(lockPause)
			return
		}
		time.Sleep(pause)
	}
}

func (s *file) unlock() {
	if s.locked {
		unlock(s.f)
	}
	s.locked, s.leased = false, false
}

// reopen opens what path names now. Called with s.mu held.
func (s *file) reopen() error {
	next, err := openAppend(s.path)
	if err != nil {
		return err
	}
	s.unlock()
	old := s.f
	s.background.Go(func() { _ = errors.Join(old.Sync(), old.Close()) })
	s.f, s.size, s.torn = next, -1, false
	return nil
}

// rotate begins a new file. Called with s.mu held, after take; so it ends.
func (s *file) rotate() error {
	now := time.Now()
	if now.Before(s.rotateAt) {
		return nil
	}
	info, err := s.f.Stat()
	if err != nil {
		return err
	}
	// Another process may have done it already.
	if named, err := os.Lstat(s.path); err == nil && os.SameFile(named, info) {
		if runtime.GOOS == "windows" { // what is open cannot be renamed there
			_ = s.f.Close()
		}
		if err := s.shift(); err != nil {
			s.rotateAt = now.Add(rotatePause)
			s.warn("the audit log is not rotated: " + systemReason(err))
			if runtime.GOOS != "windows" {
				return nil
			}
		}
	}
	if err := s.reopen(); err != nil {
		return err
	}
	return s.take()
}

// shift makes room at path.
func (s *file) shift() error {
	if s.keep == 0 {
		return os.Remove(s.path)
	}
	name := func(n int) string { return s.path + "." + strconv.Itoa(n) }
	for n := s.keep - 1; n > 0; n-- {
		if err := os.Rename(name(n), name(n+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Rename(s.path, name(1))
}

func (s *file) sync() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.unsynced = false
	f := s.f
	s.background.Add(1)
	s.mu.Unlock()
	defer s.background.Done()
	if err := f.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		s.warn("the audit log cannot be synced, and may lack lines after a power failure: " + systemReason(err))
	}
}

func (s *file) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unlock()
	s.looked, s.unlocked, s.rotateAt = time.Time{}, time.Time{}, time.Time{}
}

func (s *file) close() error {
	s.unlocker.Stop()
	s.syncer.Stop()
	s.mu.Lock()
	s.closed = true
	s.unlock()
	s.mu.Unlock()
	s.background.Wait()
	return errors.Join(s.f.Sync(), s.f.Close())
}

// openAppend opens the file at path for appending, made with mode 0600 if it is not there. It must be a plain file of this
// user with one name, that others can neither read nor write.
func openAppend(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|openFlags, 0o600)
	if err == nil {
		if err = check(f); err == nil {
			return f, nil
		}
		_ = f.Close()
	}
	var own *backend.Error
	switch {
	case errors.As(err, &own):
	case errors.Is(err, fs.ErrNotExist):
		own = backend.Errorf(backend.CodeInvalidConfig, "its directory does not exist")
	case isLink(err):
		own = backend.Errorf(backend.CodeInvalidConfig, "it is a symbolic link")
	case errors.Is(err, fs.ErrPermission):
		own = backend.Errorf(backend.CodeInvalidConfig, "%s", systemReason(err))
	default:
		own = backend.Errorf(backend.CodeUnavailable, "%s", systemReason(err))
	}
	own.Reason = fmt.Sprintf("the audit log %s cannot be opened: %s", path, own.Reason)
	return nil, own
}
