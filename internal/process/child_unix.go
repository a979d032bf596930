//go:build unix

package process

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const textBusy = syscall.ETXTBSY

func startChild(cmd *exec.Cmd) (*child, error) {
	cmd.SysProcAttr = attributes()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &child{cmd: cmd}, nil
}

// terminate asks the group to end.
func (c *child) terminate() { _ = unix.Kill(-c.cmd.Process.Pid, unix.SIGTERM) }

// kill ends what is left of the group.
func (c *child) kill() { _ = unix.Kill(-c.cmd.Process.Pid, unix.SIGKILL) }

// endOf gives the Error of a program that did not end with status 0.
func endOf(state *os.ProcessState) error {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return &Error{Failure: Signal, Status: int(status.Signal()), Name: unix.SignalName(status.Signal())}
	}
	return &Error{Failure: Exit, Status: state.ExitCode()}
}

// waiting reads what is in a pipe already; the pipe ends where it would have to wait.
type waiting struct{ pipe *os.File }

func (w waiting) Read(p []byte) (n int, err error) {
	_ = w.pipe.SetReadDeadline(time.Time{}) // one that has passed would let nothing be read
	conn, err := w.pipe.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = conn.Read(func(fd uintptr) bool {
		for {
			if n, failed = unix.Read(int(fd), p); !errors.Is(failed, unix.EINTR) {
				return true
			}
		}
	})
	switch err := errors.Join(err, failed); {
	case n > 0:
		return n, nil
	case err == nil || errors.Is(err, unix.EAGAIN):
		return 0, io.EOF
	default:
		return 0, err
	}
}
