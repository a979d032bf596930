//go:build unix

package cli

import (
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// editingKeys gives the keys that edit a line on the terminal fd.
func editingKeys(fd int) editing {
	t, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil || t.Lflag&unix.ICANON == 0 {
		return editing{}
	}
	key := func(at int) byte {
		if t.Cc[at] == 0xff { // _POSIX_VDISABLE of BSD; it is 0 on Linux
			return 0
		}
		return t.Cc[at]
	}
	return editing{erase: key(unix.VERASE), word: key(unix.VWERASE), kill: key(unix.VKILL), end: key(unix.VEOF)}
}

// unedited makes the terminal fd hand on each byte at once; quiet: it shows nothing of what is typed.
func unedited(fd int, quiet bool) error {
	t, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return err
	}
	t.Lflag &^= unix.ICANON
	if quiet {
		t.Lflag &^= unix.ECHO
	}
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(fd, setTermios, t)
}

// onContinue calls do whenever this process goes on after it was stopped, until it is told to end that.
func onContinue(do func()) (end func()) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGCONT)
	go func() {
		for range ch {
			do()
		}
	}()
	return sync.OnceFunc(func() { signal.Stop(ch); close(ch) })
}
