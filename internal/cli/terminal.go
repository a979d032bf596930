package cli

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/credresolve/credresolve/backend"
)

// What a terminal shows: answers go to standard output, all else to standard error, so that a prompt appears though the
// answer is redirected. Text that came from elsewhere (a file, an id, a store) passes through printable first: no file
// that is looked at may move the cursor or hide a line.

// printable gives s with every character that a terminal acts on, or that changes the order of others, as an escape. Line
// feeds stay.
func printable(s string) string {
	if strings.IndexFunc(s, strange) < 0 {
		return s
	}
	var b strings.Builder
	for _, c := range s {
		if strange(c) {
			fmt.Fprintf(&b, `\u%04x`, c)
		} else {
			b.WriteRune(c)
		}
	}
	return b.String()
}

func strange(c rune) bool { return c != '\n' && !unicode.IsPrint(c) || c == unicode.ReplacementChar }

// printableJSON is printable of JSON text, which means the same after it.
func printableJSON(text []byte) []byte {
	if !bytes.ContainsFunc(text, strange) {
		return text
	}
	out := make([]byte, 0, 2*len(text))
	for len(text) > 0 {
		c, n := utf8.DecodeRune(text)
		if text = text[n:]; !strange(c) {
			out = utf8.AppendRune(out, c)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, c) {
			out = fmt.Appendf(out, `\u%04x`, unit)
		}
	}
	return out
}

// confirm asks a question that only y or yes affirms. It fails where there is nobody to ask; instead is what to do then.
func (a *app) confirm(ctx context.Context, question, instead string) error {
	if !isTerminal(a.stdin) {
		return &backend.Error{Code: backend.CodeUsage, Reason: "there is no terminal to ask on", Remedy: instead}
	}
	fmt.Fprintf(a.stderr, "%s [y/N] ", printable(question))
	line, err := await(ctx, func() (string, error) { return readLine(a.stdin) })
	if err != nil {
		fmt.Fprintln(a.stderr)
		return err
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return backend.Errorf(backend.CodeCanceled, "nothing was changed")
}

// promptHidden reads a line without showing it.
func (a *app) promptHidden(ctx context.Context, prompt string) ([]byte, error) {
	fd := int(a.stdin.Fd())
	saved, err := term.GetState(fd)
	if err != nil {
		return nil, backend.Errorf(backend.CodeInternal, "the terminal cannot be read: %s", reason(err))
	}
	// A signal ends the wait, not the read: the terminal must show what is typed again all the same.
	defer func() { _ = term.Restore(fd, saved) }()
	if err := echoOff(fd); err != nil {
		return nil, backend.Errorf(backend.CodeInternal, "the terminal cannot be told to hide what is typed: %s", reason(err))
	}
	fmt.Fprintf(a.stderr, "%s: ", printable(prompt))
	b, err := await(ctx, func() ([]byte, error) { return readHidden(a.stdin) })
	fmt.Fprintln(a.stderr)
	return b, err
}

// readHidden reads a line without its end; io.EOF when there is none, which term.ReadPassword reads over.
func readHidden(in io.Reader) ([]byte, error) {
	line := make([]byte, 0, 4096) // a terminal's longest, so that no copy of it stays behind
	for b := make([]byte, 1); ; {
		switch n, err := in.Read(b); {
		case n == 1 && b[0] == '\n', err == io.EOF && len(line) > 0:
			return bytes.TrimSuffix(line, []byte("\r")), nil
		case n == 1:
			line = append(line, b[0])
		case err != nil:
			clear(line)
			return nil, err
		}
	}
}

// promptSecret reads a value twice without showing it.
func (a *app) promptSecret(ctx context.Context, what string) ([]byte, error) {
	ask := func(prompt string) ([]byte, error) {
		b, err := a.promptHidden(ctx, prompt)
		if err == io.EOF || err == nil && len(b) == 0 {
			err = backend.Errorf(backend.CodeUsage, "no value was given; nothing was stored")
		}
		return b, err
	}
	first, err := ask("value of " + what)
	if err != nil {
		return nil, err
	}
	second, err := ask("again")
	defer clear(second)
	if err == nil && string(first) != string(second) {
		err = backend.Errorf(backend.CodeUsage, "the two values differ; nothing was stored")
	}
	if err != nil {
		clear(first)
		return nil, err
	}
	return first, nil
}

// readAll reads in to its end, but no more than limit bytes.
func readAll(ctx context.Context, in *os.File, limit int64, what string) ([]byte, error) {
	b, err := await(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(in, limit+1)) })
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, err
	case err != nil:
		return nil, backend.Errorf(backend.CodeUsage, "%s cannot be read: %s", what, reason(err))
	case int64(len(b)) > limit:
		clear(b)
		return nil, backend.Errorf(backend.CodeUsage, "%s is larger than %d bytes", what, limit)
	}
	return b, nil
}

func readLine(in io.Reader) (string, error) { return bufio.NewReader(in).ReadString('\n') }

// await gives what read gives, or the cause of ctx's end if that is earlier: nothing else interrupts the read of a terminal
// or a pipe, which then goes on until the process ends.
func await[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	ch := make(chan result, 1)
	go func() {
		v, err := read()
		ch <- result{v, err}
	}()
	select {
	case r := <-ch:
		return r.v, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}
