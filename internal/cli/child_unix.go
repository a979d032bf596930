//go:build unix

package cli

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// passedOn are the signals that a child gets, beside those that end any command. Not among them: what concerns this
// process alone (SIGCHLD, SIGPIPE, SIGURG) and what stops it, which a terminal sends to the child too.
var passedOn = []os.Signal{
	syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
	syscall.SIGALRM, syscall.SIGWINCH,
}

// ending are the signals that end a command.
var ending = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}

// isHangup reports whether sig asks a server to read its configuration again.
func isHangup(sig os.Signal) bool { return sig == syscall.SIGHUP }

// notify has the signals sent to ch, but for those that whoever started us wants to be ignored, as nohup does.
func notify(ch chan<- os.Signal, signals []os.Signal) {
	for _, sig := range signals {
		if !signal.Ignored(sig) {
			signal.Notify(ch, sig)
		}
	}
}

// signalNamed gives the signal of that name, without SIG; nil when there is none.
func signalNamed(name string) os.Signal {
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig
	}
	return nil
}

// endGently asks a child to end.
func endGently(p *os.Process) { _ = p.Signal(syscall.SIGTERM) }

// statusOf is the exit status of a command that sig ended.
func statusOf(sig os.Signal) int {
	if s, ok := sig.(syscall.Signal); ok {
		return 128 + int(s)
	}
	return 1
}

func exitStatus(state *os.ProcessState) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}

// sentByTerminal reports whether sig came to our whole process group, the child in it: while we are in the foreground
// that is where these signals come from.
func sentByTerminal(sig os.Signal) bool {
	switch sig {
	case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGWINCH:
		return inForeground()
	}
	return false
}

// inForeground reports whether our process group is the one that the terminal listens to.
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// openTerminal makes a terminal. A read of master ends when master is closed, whoever still holds slave; that of the file
// which the library gives would not, since it blocks in the kernel.
func openTerminal() (master, slave *os.File, err error) {
	blocking, slave, err := pty.Open()
	if err != nil {
		return nil, nil, err
	}
	defer blocking.Close()
	fd, err := unix.FcntlInt(blocking.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		_ = slave.Close()
		return nil, nil, err
	}
	return os.NewFile(uintptr(fd), blocking.Name()), slave, nil
}

// resize gives the child's terminal the size of ours, at the start and when that changes.
func (f *filter) resize(sig os.Signal) {
	if f.master == nil || sig != nil && sig != syscall.SIGWINCH {
		return
	}
	size, err := unix.IoctlGetWinsize(int(f.terminal.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return
	}
	if conn, err := f.master.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) })
	}
}

// copySettings makes the terminal to behave as from does: erase characters, echo and the like.
func copySettings(from, to *os.File) {
	if state, err := term.GetState(int(from.Fd())); err == nil {
		_ = term.Restore(int(to.Fd()), state)
	}
}

func controlledBy(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	cmd.SysProcAttr.Setctty = true
	cmd.SysProcAttr.Ctty = 0 // its standard input
}

// outliveReader keeps a write to a pipe that nobody reads from ending this process, until stop: the child is to learn of it
// and to end as it likes.
func outliveReader() (stop func()) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGPIPE)
	return func() { signal.Stop(ch) }
}

func isBrokenPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }

// detach lets cmd run in a process group of its own, which the terminal's signals do not reach.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
