// Command vals evaluates a YAML document from standard input with helmfile/vals, for a comparison. It is a module of its
// own, since vals depends on the SDKs of every cloud.
package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/helmfile/vals"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "vals:", err)
		os.Exit(1)
	}
}

// run prints how long the evaluation took, in nanoseconds, and how many values it gave.
func run() error {
	src, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	start := time.Now()
	var doc map[string]any
	if err := yaml.Unmarshal(src, &doc); err != nil {
		return err
	}
	runtime, err := vals.New(vals.Options{LogOutput: io.Discard})
	if err != nil {
		return err
	}
	out, err := runtime.Eval(doc)
	if err != nil {
		return err
	}
	fmt.Println(time.Since(start).Nanoseconds(), len(out))
	return nil
}
