// Command credresolve turns references to credentials in configuration files into the credentials they point at.
package main

import (
	"os"

	"github.com/credresolve/credresolve/internal/cli"
)

func main() { os.Exit(run(os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)) }

func run(args, environ []string, stdin, stdout, stderr *os.File) int {
	return cli.Run(cli.Program{
		Args: args, Environ: environ, Stdin: stdin, Stdout: stdout, Stderr: stderr, Kinds: kinds(),
	})
}
