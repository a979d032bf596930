package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
	"github.com/credresolve/credresolve/conformance/execs"
)

// programFile is the name of the description of a program, beside it, where --config names none.
const programFile = "conformance.json"

func (a *app) conformance() *cobra.Command {
	var output *string
	var program, asJSON, asJUnit string
	cmd := &cobra.Command{
		Use:   "conformance --exec PROGRAM",
		Short: "Hold an executable to the rules of the protocol that the kind exec speaks",
		Long: `Hold an executable to the rules of the protocol that the kind exec speaks: what it answers, how it fails, and how it
behaves as a process. One line is printed for each rule: pass, fail, skip or blocked, and why. The status is 1 when
one fails.

What is known of the program's secrets stands in a JSON file, --config, or conformance.json beside the program or in the
directory above: "known" names an id that is there with its value ("present"), one that is missing, and others; "args"
and "env" are the program's. The values are for the test alone and are not shown.`,
		Example: `  credresolve conformance --exec ./adapter.py
  credresolve conformance --exec ./adapter.py --config known.json --json report.json --junit report.xml`,
		Args: exactly(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if program == "" {
				return backend.Errorf(backend.CodeUsage, "--exec names no program")
			}
			p, err := a.describedProgram(program)
			if err != nil {
				return err
			}
			ctx, cancel := a.bounded(cmd.Context())
			defer cancel()
			fmt.Fprintf(a.stderr, "credresolve: trying %s; this takes some seconds\n", printable(p.Command))
			report, err := execs.Check(ctx, p)
			if err != nil {
				return err
			}
			if err := a.report(ctx, report, filepath.Base(p.Command), *output, asJSON, asJUnit); err != nil {
				return err
			}
			if stop := stopped(ctx); stop != nil {
				return stop
			}
			if report.Failed() {
				return backend.Errorf(backend.CodeInternal, "%d of %d rules are broken", report.Count(conformance.Fail), len(report.Results))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&program, "exec", "", "the `program` to try")
	cmd.Flags().StringVar(&asJSON, "json", "", "write the report as JSON to this `file`")
	cmd.Flags().StringVar(&asJUnit, "junit", "", "write the report as JUnit XML to this `file`")
	output = outputFlag(cmd)
	return cmd
}

// describedProgram reads what is known of the program at path.
func (a *app) describedProgram(path string) (execs.Program, error) {
	command, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(command)
	}
	if err != nil {
		return execs.Program{}, backend.Errorf(backend.CodeUsage, "the program %s cannot be tried: %s", path, reason(err))
	}
	candidates := []string{a.configPath}
	if a.configPath == "" {
		dir := filepath.Dir(command)
		candidates = []string{filepath.Join(dir, programFile), filepath.Join(filepath.Dir(dir), programFile)}
	}
	for _, name := range candidates {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) && a.configPath == "" {
			continue
		}
		if err != nil {
			return execs.Program{}, backend.Errorf(backend.CodeUsage, "%s cannot be read: %s", name, reason(err))
		}
		defer f.Close()
		return execs.Read(f, command)
	}
	e := backend.Errorf(backend.CodeUsage, "nothing is known of the program's secrets: looked for %s and %s", candidates[0], candidates[1])
	e.Remedy = `write one such as {"known": {"present": {"id": "db/password", "value": "test value"}}}`
	return execs.Program{}, e
}

// report prints the report, and writes it to the files that are asked for.
func (a *app) report(ctx context.Context, r conformance.Report, name, output, asJSON, asJUnit string) error {
	var table, js, junit bytes.Buffer
	if err := errors.Join(r.WriteTable(&table), r.WriteJSON(&js), r.WriteJUnit(&junit, name)); err != nil {
		return backend.Errorf(backend.CodeInternal, "the report cannot be written: %v", err)
	}
	for path, content := range map[string][]byte{asJSON: js.Bytes(), asJUnit: junit.Bytes()} {
		if path == "" {
			continue
		}
		out, err := newOutFile(path, "")
		if err != nil {
			return err
		}
		if err := out.write(ctx, content); err != nil {
			return err
		}
	}
	if output == outputJSON {
		return a.write(js.Bytes())
	}
	return a.write(table.Bytes())
}
