package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
	"github.com/credresolve/credresolve/conformance/execs"
)

// programFile is the name of the description of a program, beside it, where --config names none.
const programFile = "conformance.json"

// mostProgramFile bounds the description of a program, in bytes.
const mostProgramFile = 16 << 20

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
			p, description, err := a.describedProgram(program)
			if err != nil {
				return err
			}
			files, err := reportFiles([]string{p.Command, description}, asJSON, asJUnit)
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
			if err := a.report(ctx, report, filepath.Base(p.Command), *output, files); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
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

// describedProgram reads what is known of the program at path, and names the file that says it.
func (a *app) describedProgram(path string) (_ execs.Program, description string, _ error) {
	command, err := filepath.Abs(path)
	var st fs.FileInfo
	if err == nil {
		st, err = os.Stat(command)
	}
	switch {
	case err != nil:
		return execs.Program{}, "", backend.Errorf(backend.CodeUsage, "the program %s cannot be tried: %s", path, reason(err))
	case !st.Mode().IsRegular():
		return execs.Program{}, "", backend.Errorf(backend.CodeUsage, "the program %s cannot be tried: it is not a regular file", path)
	}
	candidates := []string{a.configPath}
	if a.configPath == "" {
		dir := filepath.Dir(command)
		candidates = []string{filepath.Join(dir, programFile), filepath.Join(filepath.Dir(dir), programFile)}
	}
	for _, name := range candidates {
		st, err := os.Stat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist) && a.configPath == "":
			continue
		case err == nil && !st.Mode().IsRegular(): // opening a named pipe would wait for its writer
			return execs.Program{}, "", backend.Errorf(backend.CodeUsage, "%s cannot be read: it is not a regular file", name)
		case err == nil && st.Size() > mostProgramFile:
			return execs.Program{}, "", backend.Errorf(backend.CodeUsage, "%s cannot be read: it is larger than %d MiB", name, mostProgramFile>>20)
		}
		f, err := os.Open(name)
		if err != nil {
			return execs.Program{}, "", backend.Errorf(backend.CodeUsage, "%s cannot be read: %s", name, reason(err))
		}
		defer f.Close()
		p, err := execs.Read(io.LimitReader(f, mostProgramFile), command)
		return p, name, err
	}
	e := backend.Errorf(backend.CodeUsage, "nothing is known of the program's secrets: looked for %s and %s", candidates[0], candidates[1])
	e.Remedy = `write one such as {"known": {"present": {"id": "db/password", "value": "test value"}}}`
	return execs.Program{}, "", e
}

// reportFiles checks, before the program is tried, the files that the report goes to: as JSON and as JUnit XML; nil for an
// empty name. None may be among sources, nor may both be one file.
func reportFiles(sources []string, asJSON, asJUnit string) (files [2]*outFile, err error) {
	for i, path := range []string{asJSON, asJUnit} {
		if path == "" {
			continue
		}
		if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
			return files, backend.Errorf(backend.CodeUsage, "%s is not a regular file and cannot be replaced by the report", path)
		}
		if st, err := os.Stat(filepath.Dir(path)); err != nil {
			return files, backend.Errorf(backend.CodeUsage, "%s cannot be written: %s", path, reason(err))
		} else if !st.IsDir() {
			return files, backend.Errorf(backend.CodeUsage, "%s cannot be written: its parent is not a directory", path)
		}
		if slices.ContainsFunc(sources, func(source string) bool { return sameFile(path, source) }) {
			return files, backend.Errorf(backend.CodeUsage, "%s is the program or its description: the report would replace it", path)
		}
		if files[i], err = newOutFile(path, ""); err != nil {
			return files, err
		}
	}
	if asJSON != "" && asJUnit != "" && sameFile(asJSON, asJUnit) {
		return files, backend.Errorf(backend.CodeUsage, "--json and --junit name the same file")
	}
	return files, nil
}

// sameFile reports whether two names are those of one file, which need not exist.
func sameFile(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	if err1 == nil && err2 == nil {
		return os.SameFile(x, y)
	}
	a, err1 = filepath.Abs(a)
	b, err2 = filepath.Abs(b)
	return err1 == nil && err2 == nil && a == b
}

// report prints the report, and writes it to the files that are asked for. It is printed also where a file cannot be written,
// or ctx has ended: it says how far the run came.
func (a *app) report(ctx context.Context, r conformance.Report, name, output string, files [2]*outFile) error {
	var table, js, junit bytes.Buffer
	if err := errors.Join(r.WriteTable(&table), r.WriteJSON(&js), r.WriteJUnit(&junit, name)); err != nil {
		return backend.Errorf(backend.CodeInternal, "the report cannot be written: %v", err)
	}
	shown := table.Bytes()
	if output == outputJSON {
		shown = js.Bytes()
	}
	if err := a.write(shown); err != nil {
		return err
	}
	for i, content := range [][]byte{js.Bytes(), junit.Bytes()} {
		if files[i] == nil {
			continue
		}
		if err := files[i].write(context.WithoutCancel(ctx), content); err != nil {
			return err
		}
	}
	return nil
}
