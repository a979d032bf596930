package safefile

import "golang.org/x/sys/unix"

// searchOnly opens a directory on the way, for which the right to pass through is enough.
const searchOnly = unix.O_PATH
