package execs

import (
	"os/exec"
	"time"
)

// canSignal: a program cannot be asked to end.
const canSignal = false

// group is the process alone: without a job object its descendants are not known.
type group struct{ cmd *exec.Cmd }

func ownGroup(cmd *exec.Cmd) group { return group{cmd} }

func (g group) kill() error                { return g.cmd.Process.Kill() }
func (g group) terminate() error           { return g.cmd.Process.Kill() }
func (g group) remains(time.Duration) bool { return false }
