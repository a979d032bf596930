package conformance

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
)

// T is what the functions of a Harness report to. It is the part of *testing.T that also makes sense without go test.
type T interface {
	Helper()
	Name() string
	// Context ends when the time of the case is over, before the cleanups run.
	Context() context.Context
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Cleanup(func())
	TempDir() string
}

// recorder is the T of one case. When the case is over it is sealed: what a goroutine that was left behind reports then is
// dropped, and the goroutine of the case ends at its next step.
type recorder struct {
	name     string
	ctx      context.Context
	canaries *canaries

	mu       sync.Mutex
	sealed   bool
	failed   []string
	skipped  []string
	notes    []string
	cleanups []func()
	step     string // what the case does at the moment
}

func (r *recorder) Helper()                  {}
func (r *recorder) Name() string             { return r.name }
func (r *recorder) Context() context.Context { return r.ctx }

func (r *recorder) Logf(format string, args ...any) { r.record(&r.notes, format, args) }

func (r *recorder) Errorf(format string, args ...any) { r.record(&r.failed, format, args) }

func (r *recorder) Fatalf(format string, args ...any) {
	r.record(&r.failed, format, args)
	runtime.Goexit()
}

func (r *recorder) Skipf(format string, args ...any) {
	r.record(&r.skipped, format, args)
	runtime.Goexit()
}

func (r *recorder) record(to *[]string, format string, args []any) {
	text := fmt.Sprintf(format, args...)
	if name := r.canaries.find(text); name != "" {
		text = fmt.Sprintf("[text withheld: it holds a stored value, %s]", name)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.sealed {
		*to = append(*to, text)
	}
}

// Cleanup calls f when the case is over, the last given first.
func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	if !r.sealed {
		r.cleanups = append(r.cleanups, f)
		r.mu.Unlock()
		return
	}
	r.mu.Unlock()
	f()
}

// TempDir gives a new directory that is removed when the case is over.
func (r *recorder) TempDir() string {
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		r.Fatalf("making a temporary directory: %v", err)
	}
	r.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// at says what the case does from now on, for the report of one that does not end.
func (r *recorder) at(step string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sealed {
		runtime.Goexit()
	}
	r.step = step
}

// alive ends the calling goroutine when the case is over: one that a hostile backend keeps busy.
func (r *recorder) alive() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sealed {
		runtime.Goexit()
	}
}

// panicked records a panic of the case: what it said may be hostile, the place is not.
func (r *recorder) panicked(v any) {
	place := "an unknown place"
	frames := runtime.CallersFrames(callers())
	for past := false; ; {
		f, more := frames.Next()
		if past && !strings.HasPrefix(f.Function, "runtime.") {
			place = fmt.Sprintf("%s:%d", f.File, f.Line)
			break
		}
		past = past || f.Function == "runtime.gopanic"
		if !more {
			break
		}
	}
	text := r.panicText(v)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, fmt.Sprintf("while %s: expected no panic, saw one at %s: %s", r.step, place, text))
}

func (r *recorder) panicText(v any) (text string) {
	defer func() {
		if recover() != nil { // of a hostile Error method
			text = "a value that cannot be shown"
		}
	}()
	switch v := v.(type) {
	case string:
		return r.canaries.hide(v)
	case error:
		return r.canaries.hide(v.Error())
	}
	return fmt.Sprintf("a value of type %T", v)
}

func callers() []uintptr {
	pcs := make([]uintptr, 64)
	return pcs[:runtime.Callers(3, pcs)]
}

// seal ends the case and gives its cleanups in the order in which they were given.
func (r *recorder) seal() []func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sealed = true
	cleanups := r.cleanups
	r.cleanups = nil
	return cleanups
}
