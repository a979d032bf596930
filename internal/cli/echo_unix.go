//go:build unix

package cli

import "golang.org/x/sys/unix"

// echoOff makes the terminal fd show nothing of what is typed, before a prompt invites to type.
func echoOff(fd int) error {
	t, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return err
	}
	t.Lflag &^= unix.ECHO
	return unix.IoctlSetTermios(fd, setTermios, t)
}
