// Command peak runs a command and prints on the last line of standard error the greatest memory that it had, in KiB. It is
// small itself, since the kernel counts for a new program also what its parent had when it was started.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

func main() {
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "\n%d\n", cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
}
