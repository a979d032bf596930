//go:build !linux

package cli

import "os/exec"

// dieWithParent does nothing: only Linux can tie a process to another's life.
func dieWithParent(*exec.Cmd) (done func()) { return func() {} }
