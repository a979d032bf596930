package cli

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// passedOn is caught so that we outlive the child; the console sends it to every process on it, the child too.
var passedOn = []os.Signal{os.Interrupt}

var ending = []os.Signal{os.Interrupt, syscall.SIGTERM}

func notify(ch chan<- os.Signal, signals []os.Signal) { signal.Notify(ch, signals...) }

func statusOf(sig os.Signal) int {
	if sig == os.Interrupt {
		return 130
	}
	return 143
}

func exitStatus(state *os.ProcessState) int { return state.ExitCode() }

func sentByTerminal(os.Signal) bool { return true }

func inForeground() bool { return true }

func openTerminal() (master, slave *os.File, err error) { return nil, nil, errors.ErrUnsupported }

func (f *filter) resize(os.Signal) {}

func copySettings(from, to *os.File) {}

func controlledBy(*exec.Cmd) {}

func outliveReader() (stop func()) { return func() {} }

// errNoData is ERROR_NO_DATA, what a write to a pipe gives that nobody reads.
const errNoData = syscall.Errno(232)

func isBrokenPipe(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ERROR_BROKEN_PIPE) || errors.Is(err, errNoData)
}

// isHangup: there is no such signal; POST /v1/reload does the same.
func isHangup(os.Signal) bool { return false }

// signalNamed: there are none that a child could be sent.
func signalNamed(string) os.Signal { return nil }

// endGently ends a child: nothing asks it to.
func endGently(p *os.Process) { _ = p.Kill() }

// detach lets cmd run in a process group of its own, which ^C does not reach.
func detach(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
