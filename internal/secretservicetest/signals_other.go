//go:build !unix

package secretservicetest

import "syscall"

// There is no Secret Service to stop.
const (
	stopSignal     = syscall.Signal(0)
	continueSignal = syscall.Signal(0)
)
