package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
)

// signals ends a command's context at the first signal that asks for it; the second finds the system's own handling and
// ends the process at once. After handOver they are somebody else's.
type signals struct {
	ch   chan os.Signal
	stop chan struct{}
	done sync.WaitGroup
}

// interrupted is the cause of a context that a signal ended.
type interrupted struct{ sig os.Signal }

func (i interrupted) Error() string { return fmt.Sprintf("stopped by a signal: %v", i.sig) }

// Is makes the code canceled of it.
func (i interrupted) Is(target error) bool { return target == context.Canceled }

func listen(ctx context.Context) (context.Context, *signals) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &signals{ch: make(chan os.Signal, 16), stop: make(chan struct{})}
	notify(s.ch, ending)
	s.done.Go(func() {
		select {
		case sig := <-s.ch:
			signal.Stop(s.ch)
			cancel(interrupted{sig})
		case <-s.stop:
		}
	})
	return ctx, s
}

// handOver gives the channel on which signals arrive from now on, those that a child is to get among them. A signal that
// came before has ended the context.
func (s *signals) handOver() <-chan os.Signal {
	s.end()
	notify(s.ch, passedOn)
	return s.ch
}

func (s *signals) end() {
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	s.done.Wait()
}

// close leaves signals to the system.
func (s *signals) close() {
	s.end()
	signal.Stop(s.ch)
}
