//go:build unix

package execs

import (
	"os/exec"
	"syscall"
	"time"
)

// canSignal: a program can be asked to end.
const canSignal = true

// group is a process group of its own.
type group struct{ cmd *exec.Cmd }

func ownGroup(cmd *exec.Cmd) group {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return group{cmd}
}

func (g group) kill() error      { return syscall.Kill(-g.cmd.Process.Pid, syscall.SIGKILL) }
func (g group) terminate() error { return syscall.Kill(-g.cmd.Process.Pid, syscall.SIGTERM) }

// remains reports whether something of the group is there after limit, when its leader has ended.
func (g group) remains(limit time.Duration) bool {
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		if syscall.Kill(-g.cmd.Process.Pid, 0) != nil {
			return false
		}
		if time.Now().After(end) {
			return true
		}
	}
}
