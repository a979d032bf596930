// Command credresolve turns references to credentials in configuration files into the credentials they point at.
package main

import (
	_ "embed"
	"io"
	"log"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/credresolve/credresolve/internal/cli"
)

// configSchema is the JSON Schema of a configuration. A test makes it from the Go types; linking what makes it would cost
// every start.
//
//go:generate go test -count=1 -run ^TestSchemaIsOfTheTypes$ -update .
//go:embed credresolve.schema.json
var configSchema []byte

func main() {
	log.SetOutput(io.Discard) // where net/http shows what a server sends unasked
	os.Exit(run(collectLate(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// collectLate lets the first garbage collection wait until the heap has 16 MiB in place of 4, or for the two minutes after
// which the runtime collects anyway; from then on all is as usual. Most commands are done before: collecting beside them
// would take a third of their time. The func that it gives lets garbage be a quarter of what is in use at the most, for a
// sidecar: it is small and stays, and what its requests leave behind may be copies of secrets. What the environment says
// of it comes first.
func collectLate() (often func()) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return func() {}
	}
	usual := debug.SetGCPercent(400)
	first := new([4]uintptr) // garbage at once
	late := runtime.AddCleanup(first, func(percent int) { debug.SetGCPercent(percent) }, usual)
	return func() {
		late.Stop()
		debug.SetGCPercent(25)
	}
}

func run(collectOften func(), args, environ []string, stdin, stdout, stderr *os.File) int {
	return cli.Run(cli.Program{
		Args: args, Environ: environ, Stdin: stdin, Stdout: stdout, Stderr: stderr, Kinds: kinds(), Schema: configSchema,
		CollectOften: collectOften,
	})
}
