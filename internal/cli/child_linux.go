package cli

import (
	"os/exec"
	"runtime"
	"syscall"
)

// dieWithParent has the kernel end the child when this process is killed in a way that it cannot pass on. The kernel
// watches the thread that starts the child, so the caller stays on it until the child has ended and done is called.
func dieWithParent(cmd *exec.Cmd) (done func()) {
	runtime.LockOSThread()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	return runtime.UnlockOSThread
}
