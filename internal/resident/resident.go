// Package resident gives memory back that a process needed for its start alone.
package resident

import "runtime/debug"

// Release gives back what the start of this process left: freed memory of the heap, and on Linux the pages of the program's
// own file, most of which initialised packages that nothing uses again. The kernel maps a page anew, from its cache of the
// file, when it is used after all. It is for a process that goes on for long, once, after its start. It is safe at any time.
func Release() {
	debug.FreeOSMemory()
	dropProgram()
}
