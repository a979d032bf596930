// Command credresolve turns references to credentials in configuration files into the credentials they point at.
package main

import (
	_ "embed"
	"os"

	"github.com/credresolve/credresolve/internal/cli"
)

// configSchema is the JSON Schema of a configuration. A test makes it from the Go types; linking what makes it would cost
// every start.
//
//go:generate go test -count=1 -run ^TestSchemaIsOfTheTypes$ -update .
//go:embed credresolve.schema.json
var configSchema []byte

func main() { os.Exit(run(os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)) }

func run(args, environ []string, stdin, stdout, stderr *os.File) int {
	return cli.Run(cli.Program{
		Args: args, Environ: environ, Stdin: stdin, Stdout: stdout, Stderr: stderr, Kinds: kinds(), Schema: configSchema,
	})
}
