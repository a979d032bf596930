package cli

import "golang.org/x/sys/windows"

// editingKeys gives none: a console edits its lines itself.
func editingKeys(int) editing { return editing{} }

// unedited makes the console fd show nothing of what is typed if quiet.
func unedited(fd int, quiet bool) error {
	var mode uint32
	if err := windows.GetConsoleMode(windows.Handle(fd), &mode); err != nil || !quiet {
		return err
	}
	return windows.SetConsoleMode(windows.Handle(fd), mode&^windows.ENABLE_ECHO_INPUT)
}

// onContinue: no console stops a process.
func onContinue(func()) (end func()) { return func() {} }
