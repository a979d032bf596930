package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// Where the daemons of the systems listen.
var syslogSockets = []string{"/dev/log", "/var/run/syslog", "/var/run/log"}

// authprivInfo is the priority of each line: the facility for what not everybody may read, at the level of information.
const authprivInfo = 10<<3 | 6

// syslog is the system's log daemon, spoken to as the C library does (RFC 3164 without a host). The daemon may cut a long
// line; what it acknowledges is that it has one.
type syslog struct {
	sockets []string
	conn    net.Conn // nil: not connected
	stream  bool     // a line feed ends a message
	stuck   bool     // the daemon did not read in time
	buf     []byte
}

func openSyslog() (sink, error) {
	if runtime.GOOS == "windows" {
		return nil, backend.Errorf(backend.CodeUnsupported, "there is no syslog on Windows")
	}
	return openSyslogAt(syslogSockets)
}

func openSyslogAt(sockets []string) (sink, error) {
	s := &syslog{sockets: sockets}
	if err := s.dial(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *syslog) dial() error {
	reason := backend.Errorf(backend.CodeUnsupported, "this system has no syslog: there is no %s", s.sockets[0])
	for _, path := range s.sockets {
		for _, network := range []string{"unixgram", "unix"} {
			conn, err := net.DialTimeout(network, path, patience)
			if err == nil {
				s.conn, s.stream = conn, network == "unix"
				return nil
			}
			if !errors.Is(err, fs.ErrNotExist) {
				reason = backend.Errorf(backend.CodeUnavailable, "the syslog daemon at %s does not answer: %s", path, systemReason(err))
			}
		}
	}
	return reason
}

func (s *syslog) write(b []byte, ends []int) (done int, err error) {
	at := 0
	for at < len(b) && err == nil {
		end := at + bytes.IndexByte(b[at:], '\n') + 1
		if err = s.send(b[at : end-1]); err == nil {
			at = end
		}
	}
	for _, end := range ends {
		if end <= at {
			done++
		}
	}
	return done, err
}

// send sends one line. A daemon that was restarted since the last one is connected to again, once.
func (s *syslog) send(line []byte) error {
	s.buf = fmt.Appendf(s.buf[:0], "<%d>%s credresolve[%d]: ", authprivInfo, time.Now().Format(time.Stamp), os.Getpid())
	s.buf = append(s.buf, line...)
	for fresh := false; ; fresh = true {
		if s.conn == nil {
			if err := s.dial(); err != nil {
				return unavailable(errors.New(err.Error()))
			}
			fresh = true
		}
		text := s.buf
		if s.stream {
			text = append(text, '\n')
		}
		wait := patience
		if s.stuck { // not waited for again until it reads
			wait = 10 * time.Millisecond
		}
		err := s.conn.SetWriteDeadline(time.Now().Add(wait))
		if err == nil {
			_, err = s.conn.Write(text)
		}
		if s.stuck = errors.Is(err, os.ErrDeadlineExceeded); err == nil {
			return nil
		}
		_ = s.conn.Close()
		s.conn = nil
		if fresh || s.stuck {
			return err
		}
	}
}

func (s *syslog) look() {}

func (s *syslog) close() error {
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}
