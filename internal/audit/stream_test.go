//go:build unix

package audit

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/backend"
)

func toStdout(t *testing.T, f *os.File, onFailure string) (*Log, *warnings) {
	w := new(warnings)
	s := Settings{Stdout: f, Warn: w.add}
	s.To, s.OnFailure = "stdout", onFailure
	return open(t, s), w
}

func TestDeviceThatIsFull(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("needs /dev/full: %v", err)
	}
	defer full.Close()
	rec := []Record{{Event: EventReveal}, {Event: EventReveal}}
	l, w := toStdout(t, full, "")
	for range 3 {
		if err := l.Write(rec); !errors.Is(err, backend.ErrUnavailable) || err.Error() != "the audit log cannot be written: no space left on device" {
			t.Error(err)
		}
	}
	if told := w.take(); len(told) != 1 || told[0] != "the audit log cannot be written: no space left on device; requests are denied until it can" {
		t.Errorf("told: %q", told)
	}
	if l.Lost() != 0 {
		t.Errorf("%d lost", l.Lost())
	}
	l, w = toStdout(t, full, "allow")
	for range 3 {
		if err := l.Write(rec); err != nil {
			t.Error(err)
		}
	}
	if told := w.take(); len(told) != 1 || told[0] != "the audit log cannot be written: no space left on device; requests are answered without their lines until it can" {
		t.Errorf("told: %q", told)
	}
	if l.Lost() != 6 {
		t.Errorf("%d lost", l.Lost())
	}
}

func TestPipe(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	l, told := toStdout(t, w, "")
	read := make(chan []byte)
	go func() {
		text, _ := io.ReadAll(io.LimitReader(r, 500<<10))
		read <- text
	}()
	recs := make([]Record, 4000) // more than a pipe holds
	for i := range recs {
		recs[i] = Record{Event: EventReveal, Reason: strings.Repeat("x", 200)}
	}
	recs[7].Reason = strings.Repeat("y", maxText)
	recs[7].Tool = strings.Repeat("z", maxText) // longer than what is written at once
	done := make(chan error)
	go func() { done <- l.Write(recs) }()
	text := <-read
	_ = r.Close() // in the middle of the lines
	if err := <-done; !errors.Is(err, backend.ErrUnavailable) || err.Error() != "the audit log cannot be written: broken pipe" {
		t.Errorf("%v", err)
	}
	for line := range bytes.Lines(text) {
		if len(line) < 200 && line[len(line)-1] == '\n' || bytes.Count(line, []byte(`"time"`)) > 1 {
			t.Fatalf("%s", line)
		}
	}
	if texts := told.take(); len(texts) != 1 {
		t.Errorf("told: %q", texts)
	}
}

func TestPipeThatNobodyReads(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	l, _ := toStdout(t, w, "")
	l.sink.(*stream).stuck = true // as after the first line that waited its time
	long := []Record{{Event: EventReveal, Reason: strings.Repeat("x", 3000)}}
	for range 1000 {
		if err = l.Write(long); err != nil {
			break
		}
		l.sink.(*stream).stuck = true
	}
	if err == nil || err.Error() != "the audit log cannot be written: whoever reads it does not" {
		t.Fatalf("%v", err)
	}
	go func() { _, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20)) }()
	for err != nil {
		err = l.Write(long)
	}
}

func TestSyslog(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"unixgram", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "log")
			got := make(chan string, 100)
			start := func() io.Closer {
				t.Helper()
				if network == "unixgram" {
					c, err := net.ListenUnixgram(network, &net.UnixAddr{Name: path, Net: network})
					if err != nil {
						t.Fatal(err)
					}
					go func() {
						buf := make([]byte, 64<<10)
						for {
							n, err := c.Read(buf)
							if err != nil {
								return
							}
							got <- string(buf[:n]) + "\n"
						}
					}()
					return c
				}
				ln, err := net.Listen(network, path)
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					defer c.Close()
					_ = ln.Close() // and with it the name, as a restart does
					buf := make([]byte, 64<<10)
					for {
						n, err := c.Read(buf)
						if err != nil {
							return
						}
						for line := range strings.Lines(string(buf[:n])) {
							got <- line
						}
						if strings.Contains(string(buf[:n]), "bye") {
							return
						}
					}
				}()
				return ln
			}
			daemon := start()
			s, err := openSyslogAt([]string{path + "-none", path})
			if err != nil {
				t.Fatal(err)
			}
			l := &Log{sink: s, settings: Settings{Warn: func(string) {}}}
			l.pool.New = func() any { return new(batch) }
			defer l.Close()
			line := func(want string) {
				t.Helper()
				text := <-got
				if !strings.HasPrefix(text, "<86>") || !strings.Contains(text, " credresolve[") || !strings.HasSuffix(text, `,"reason":"`+want+"\"}\n") {
					t.Errorf("%q", text)
				}
			}
			if err := l.Write([]Record{{Event: EventReveal, Reason: "1"}, {Event: EventReveal, Reason: "bye"}}); err != nil {
				t.Error(err)
			}
			line("1")
			line("bye")
			_ = daemon.Close()
			_ = os.Remove(path)
			for err == nil { // a stream takes a little more before it tells
				err = l.Write([]Record{{Event: EventReveal, Reason: "lost"}})
			}
			if !errors.Is(err, backend.ErrUnavailable) || !strings.HasPrefix(err.Error(), "the audit log cannot be written: ") {
				t.Error(err)
			}
			daemon = start()
			defer daemon.Close()
			say(t, l, "again")
			line("again")
		})
	}
	if _, err := openSyslogAt([]string{filepath.Join(t.TempDir(), "log")}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("no daemon: %v", err)
	}
	dead := filepath.Join(t.TempDir(), "log")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dead, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if _, err := openSyslogAt([]string{dead}); !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("a dead daemon: %v", err)
	}
}
