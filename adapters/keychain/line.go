package keychain

import "context"

// line lets a number of calls run at once that cannot be ended, and others wait. A caller leaves when its context ends; its
// call then ends by itself, and its place is free after that alone, so that hung calls do not add up.
type line chan struct{}

func newLine(atOnce int) line { return make(line, atOnce) }

// inLine calls f when there is a place. f must not use what its caller may change after it has left.
func inLine[T any](ctx context.Context, l line, f func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	select {
	case l <- struct{}{}:
	case <-ctx.Done():
		return none, ctx.Err()
	}
	done := make(chan outcome, 1)
	go func() {
		defer func() { <-l }()
		out := outcome{err: errCrashed}
		defer func() {
			_ = recover() // libraries of encrypted files have panicked on damaged ones
			done <- out
		}()
		value, err := f()
		out = outcome{value, err}
	}()
	select {
	case out := <-done:
		return out.value, out.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}
