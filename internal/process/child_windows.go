package process

import (
	"io"
	"os"
	"os/exec"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

const textBusy = windows.ERROR_SHARING_VIOLATION

// child is a running program and the job object that it is in.
type child struct {
	cmd   *exec.Cmd
	job   windows.Handle
	state *os.ProcessState
	err   error
}

func startChild(cmd *exec.Cmd) (*child, error) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return nil, err
	}
	limits := windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION{
		BasicLimitInformation: windows.JOBOBJECT_BASIC_LIMIT_INFORMATION{LimitFlags: windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE},
	}
	if _, err := windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits))); err != nil {
		_ = windows.CloseHandle(job)
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		CreationFlags: windows.CREATE_NEW_PROCESS_GROUP | windows.CREATE_NO_WINDOW,
		HideWindow:    true,
	}
	if err := cmd.Start(); err != nil {
		_ = windows.CloseHandle(job)
		return nil, err
	}
	c := &child{cmd: cmd, job: job}
	// Where the program has ended already, or a job around ours forbids it, the program alone is killed at the end.
	if process, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(cmd.Process.Pid)); err == nil {
		_ = windows.AssignProcessToJobObject(job, process)
		_ = windows.CloseHandle(process)
	}
	return c, nil
}

// terminate does nothing: a program without a window and a console cannot be asked.
func (c *child) terminate() {}

// kill ends what is left in the job.
func (c *child) kill() {
	_ = windows.TerminateJobObject(c.job, 1)
	_ = c.cmd.Process.Kill()
}

// awaitEnd returns when the program has ended.
func (c *child) awaitEnd() { c.state, c.err = c.cmd.Process.Wait() }

// reap gives the outcome.
func (c *child) reap() (*os.ProcessState, error) {
	_ = windows.CloseHandle(c.job)
	return c.state, c.err
}

// endOf gives the Error of a program that did not end with status 0.
func endOf(state *os.ProcessState) error { return &Error{Failure: Exit, Status: state.ExitCode()} }

// waiting would read what is in a pipe already. Reads of a pipe have no deadline here, and end when it is closed alone.
type waiting struct{ pipe *os.File }

func (waiting) Read([]byte) (int, error) { return 0, io.EOF }
