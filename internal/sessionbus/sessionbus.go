package sessionbus

import "os"

// variable is where programs look for the address of the session bus (D-Bus specification, "Well-known message bus
// instances").
const variable = "DBUS_SESSION_BUS_ADDRESS"

// nowhere is an address of no known transport: dialling it fails at once, whereas without any address the library would
// try well-known sockets and at last start a bus by dbus-launch.
const nowhere = "disabled:"

// saved is the variable as the process got it. It is written while the program initialises and not changed after.
var saved struct {
	address string
	set     bool
}

// Restore puts the address of the session bus back into the environment, unless somebody has changed it since. It is to be
// called while packages are initialised; further calls do nothing.
func Restore() {
	if os.Getenv(variable) != nowhere {
		return
	}
	if saved.set {
		_ = os.Setenv(variable, saved.address)
		return
	}
	_ = os.Unsetenv(variable)
}
