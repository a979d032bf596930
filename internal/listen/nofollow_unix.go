//go:build unix

package listen

import "syscall"

const noFollow = syscall.O_NOFOLLOW
