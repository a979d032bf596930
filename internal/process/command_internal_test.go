//go:build unix

package process

import (
	"bytes"
	"os"
	"testing"
	"time"
)

// What a program wrote is read although nobody came to read it in time, and although a descendant holds its output open.
func TestNothingThatWasWrittenIsCutOff(t *testing.T) {
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	defer to.Close()
	text := bytes.Repeat([]byte("0123456789abcdef"), 2000)
	if _, err := to.Write(text[:1000]); err != nil {
		t.Fatal(err)
	}
	r := &run{activity: make(chan struct{}, 1), flooded: make(chan struct{})}
	s := &stream{from: from, keep: true, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		r.read(s, s.from)
	}()
	for r.written.Load() < 1000 {
		time.Sleep(time.Millisecond)
	}
	if err := from.SetReadDeadline(time.Now()); err != nil { // the reader sleeps from here on
		t.Fatal(err)
	}
	<-s.done
	if _, err := to.Write(text[1000:]); err != nil {
		t.Fatal(err)
	}
	r.cut(s)
	if s.err != nil || !bytes.Equal(s.out, text) {
		t.Errorf("of %d bytes %d were read (%v)", len(text), len(s.out), s.err)
	}
}
