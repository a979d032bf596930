package process

import (
	"errors"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// child is a running program and its process group.
type child struct{ cmd *exec.Cmd }

// attributes gives the program a session, which has a process group of its own and no terminal, and ends it should we be
// killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}

// awaitEnd returns when the program has ended. It leaves its process id taken, so that the group, which has the same number,
// can be killed and no other is hit.
func (c *child) awaitEnd() {
	for {
		err := unix.Waitid(unix.P_PID, c.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// reap frees the process id.
func (c *child) reap() (*os.ProcessState, error) { return c.cmd.Process.Wait() }
