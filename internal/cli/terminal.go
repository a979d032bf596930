package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
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
	answer, err := a.prompt(ctx, question+" [y/N] ", false)
	if err != nil {
		return err
	}
	switch strings.ToLower(string(bytes.TrimSpace(answer))) {
	case "y", "yes":
		return nil
	}
	return backend.Errorf(backend.CodeCanceled, "nothing was changed")
}

// prompt asks for a line on the terminal, and shows what is typed unless hide; io.EOF when there is none.
func (a *app) prompt(ctx context.Context, text string, hide bool) ([]byte, error) {
	t, err := a.typing(hide)
	if err != nil {
		return nil, err
	}
	defer t.stop() // a signal ends the wait, not the read
	fmt.Fprint(a.stderr, printable(text))
	line, err := await(ctx, t.line)
	if hide || err != nil {
		fmt.Fprintln(a.stderr)
	}
	return line, err
}

// maxLine is how much of a line is read, in bytes.
const maxLine = 64 << 10

var errLongLine = &backend.Error{Code: backend.CodeUsage, Reason: "a line is longer than 65536 bytes"}

// editing are the bytes that a terminal's keys send to edit a line; 0: none does.
type editing struct{ erase, word, kill, end byte }

// typist reads lines of a terminal that hands on every byte at once: a line that it collects itself it cuts, at 4,095 bytes
// on Linux (termios(3)). Signals are its affair as ever.
type typist struct {
	in   io.Reader
	echo io.Writer
	keys editing

	mu    sync.Mutex
	over  bool
	setUp func() error
	reset func()
}

// typing begins to read lines of the terminal; stop gives it back as it was.
func (a *app) typing(hide bool) (*typist, error) {
	fd := int(a.stdin.Fd())
	saved, err := term.GetState(fd)
	if err != nil {
		return nil, backend.Errorf(backend.CodeInternal, "the terminal cannot be read: %s", reason(err))
	}
	t := &typist{in: a.stdin, echo: io.Discard, keys: editingKeys(fd)}
	ours := !hide && t.keys != (editing{}) && isTerminal(a.stderr) // where we can take back what we show
	if ours {
		t.echo = a.stderr
	}
	t.setUp = func() error { return unedited(fd, hide || ours) }
	if err := t.setUp(); err != nil {
		_ = term.Restore(fd, saved)
		return nil, backend.Errorf(backend.CodeInternal, "the terminal cannot be told how to take what is typed: %s", reason(err))
	}
	unwatch := onContinue(t.resume)
	t.reset = func() { unwatch(); _ = term.Restore(fd, saved) }
	return t, nil
}

// resume sets the terminal up again, which a shell that had it meanwhile did in its own way.
func (t *typist) resume() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		_ = t.setUp()
	}
}

// stop restores the terminal. A read that goes on shows nothing from now on.
func (t *typist) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	t.reset()
}

func (t *typist) show(text []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		_, _ = t.echo.Write(text)
	}
}

// line reads a line without its end.
func (t *typist) line() ([]byte, error) {
	line := make([]byte, 0, maxLine) // so that no copy of it stays behind
	long := false
	back := func(from int) { // takes back what is typed behind from
		for _, c := range line[from:] {
			t.show(bytes.Repeat([]byte("\b \b"), len(look(c))-trailing(c)))
		}
		clear(line[from:])
		line, long = line[:from], long && from > 0 // of a line that is too long the middle is lost
	}
	for b := make([]byte, 1); ; {
		n, err := t.in.Read(b)
		c := b[0]
		switch {
		case n == 0 && err == nil:
		case n == 0 && (err != io.EOF || len(line) == 0):
			clear(line)
			return nil, io.EOF // also of a terminal that is gone
		case n == 0, c == '\n', c == t.keys.end && c != 0:
			t.show([]byte("\n"))
			switch {
			case long:
				clear(line)
				return nil, errLongLine
			case n == 1 && c != '\n' && len(line) == 0:
				return nil, io.EOF
			}
			return bytes.TrimSuffix(line, []byte("\r")), nil
		case c == t.keys.erase && c != 0:
			_, size := utf8.DecodeLastRune(line)
			back(len(line) - size)
		case c == t.keys.word && c != 0:
			back(bytes.LastIndexByte(bytes.TrimRight(line, " "), ' ') + 1)
		case c == t.keys.kill && c != 0:
			back(0)
		case len(line) == maxLine:
			long = true // the rest of it is not left to the shell
		default:
			line = append(line, c)
			t.show(look(c))
		}
	}
}

// look is how a terminal shows the byte c that was typed.
func look(c byte) []byte {
	if c < ' ' || c == 0x7f {
		return []byte{'^', c ^ 0x40}
	}
	return []byte{c}
}

// trailing is 1 for a byte that takes no place of its own: a further one of a character in UTF-8.
func trailing(c byte) int {
	if utf8.RuneStart(c) {
		return 0
	}
	return 1
}

// promptSecret reads a value twice without showing it.
func (a *app) promptSecret(ctx context.Context, what string) ([]byte, error) {
	ask := func(prompt string) ([]byte, error) {
		b, err := a.prompt(ctx, prompt+": ", true)
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
