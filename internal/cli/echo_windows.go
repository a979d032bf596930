package cli

import "golang.org/x/sys/windows"

// echoOff makes the console fd show nothing of what is typed, before a prompt invites to type.
func echoOff(fd int) error {
	var mode uint32
	if err := windows.GetConsoleMode(windows.Handle(fd), &mode); err != nil {
		return err
	}
	return windows.SetConsoleMode(windows.Handle(fd), mode&^windows.ENABLE_ECHO_INPUT)
}
