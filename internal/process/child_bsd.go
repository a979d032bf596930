//go:build unix && !linux

package process

import (
	"os"
	"os/exec"
	"syscall"
)

// child is a running program and its process group.
type child struct {
	cmd   *exec.Cmd
	state *os.ProcessState
	err   error
}

// attributes gives the program a session, which has a process group of its own and no terminal.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// awaitEnd returns when the program has ended. Its process id is free then; the group keeps the number for as long as it has
// members, so that a kill which comes at once hits it or nobody.
func (c *child) awaitEnd() { c.state, c.err = c.cmd.Process.Wait() }

// reap gives the outcome.
func (c *child) reap() (*os.ProcessState, error) { return c.state, c.err }
