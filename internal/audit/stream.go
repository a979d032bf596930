package audit

import (
	"bytes"
	"errors"
	"os"
	"time"
)

// patience is how long a reader of standard output, or a syslog daemon, may take for a few lines.
const patience = 5 * time.Second

// pipeBuf is what a pipe that can be written to has room for, so that a write does not wait; nor is it mixed with others'.
const pipeBuf = 4096

// stream is standard output.
type stream struct {
	f     *os.File
	given *os.File // what f is a duplicate of, if it is one
	torn  bool     // it ended in the middle of a line
	stuck bool     // its reader did not read in time
}

func openStream(f *os.File) (sink, error) {
	own, err := duplicate(f)
	if err != nil {
		return nil, unavailable(err)
	}
	return &stream{f: own, given: f}, nil
}

func (s *stream) write(b []byte, ends []int) (done int, err error) {
	if s.torn {
		if _, err := s.put([]byte("\n")); err != nil {
			return 0, err
		}
		s.torn = false
	}
	at := 0
	for at < len(b) && err == nil {
		next := b[at:min(len(b), at+pipeBuf)]
		if end := bytes.LastIndexByte(next, '\n'); end >= 0 {
			next = next[:end+1]
		}
		var n int
		n, err = s.put(next)
		at += n
	}
	for _, end := range ends {
		if end <= at {
			done++
		}
	}
	s.torn = err != nil && (s.torn || at > 0 && b[at-1] != '\n')
	return done, err
}

// put writes at most pipeBuf bytes. A reader that let one write wait in vain is not waited for again until it reads.
func (s *stream) put(b []byte) (int, error) {
	wait := patience
	if s.stuck {
		wait = 0
	}
	err := awaitWritable(s.f, wait)
	if s.stuck = errors.Is(err, os.ErrDeadlineExceeded); err != nil {
		return 0, err
	}
	return s.f.Write(b)
}

func (s *stream) look() {}

func (s *stream) close() error {
	if s.f == s.given {
		return nil
	}
	return s.f.Close()
}
