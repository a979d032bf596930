//go:build unix

package process

import (
	"os"
	"os/exec"
	"syscall"

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
