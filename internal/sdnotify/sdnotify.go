// Package sdnotify tells the service manager how far a service has come, as sd_notify(3) describes. Without a manager that
// asks to be told (NOTIFY_SOCKET) everything in it does nothing.
package sdnotify

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// sendTime bounds how long a message may take to be sent, where the manager does not read.
const sendTime = 5 * time.Second

// maxStatus is the greatest length of a status in bytes.
const maxStatus = 512

// Notifier tells the service manager. A nil Notifier tells nobody. Its methods are safe for concurrent use; an error means
// that the manager was not told, and nothing worse.
type Notifier struct {
	address  string
	interval time.Duration
}

// New gives the Notifier of the service whose environment lookupEnv gives; nil: that of this process. It does no I/O.
func New(lookupEnv func(string) (string, bool)) *Notifier {
	if lookupEnv == nil {
		lookupEnv = os.LookupEnv
	}
	address, _ := lookupEnv("NOTIFY_SOCKET")
	if address == "" {
		return nil
	}
	n := &Notifier{address: address}
	if pid, set := lookupEnv("WATCHDOG_PID"); !set || pid == strconv.Itoa(os.Getpid()) {
		limit, _ := lookupEnv("WATCHDOG_USEC")
		if us, err := strconv.ParseInt(limit, 10, 64); err == nil && us > 0 && us <= int64(time.Duration(1<<63-1)/time.Microsecond) {
			n.interval = time.Duration(us) * time.Microsecond / 2
		}
	}
	return n
}

// Ready tells that the service is up, or that reloading has ended.
func (n *Notifier) Ready() error { return n.send("READY=1") }

// Reloading tells that the service reloads its configuration. Ready must follow, however the reload ends.
func (n *Notifier) Reloading() error {
	state := "RELOADING=1"
	if us := monotonic(); us > 0 { // Type=notify-reload wants to know which of its requests this is
		state += "\nMONOTONIC_USEC=" + strconv.FormatInt(us, 10)
	}
	return n.send(state)
}

// Stopping tells that the service ends.
func (n *Notifier) Stopping() error { return n.send("STOPPING=1") }

// Status tells people what the service does, in one line of up to 512 bytes; what is more is cut off. It must hold no secret:
// it is shown to every user.
func (n *Notifier) Status(text string) error {
	text = strings.ToValidUTF8(text, "?")
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f { // a line feed would begin another message
			return ' '
		}
		return c
	}, text)
	if len(text) > maxStatus {
		text = strings.ToValidUTF8(text[:maxStatus], "")
	}
	return n.send("STATUS=" + text)
}

// Alive tells that the service is not stuck.
func (n *Notifier) Alive() error { return n.send("WATCHDOG=1") }

// Interval is how often the manager wants to hear Alive: half the time after which it takes the service for stuck. Zero: it
// does not watch.
func (n *Notifier) Interval() time.Duration {
	if n == nil {
		return 0
	}
	return n.interval
}

// Watchdog says Alive at once and at every Interval until ctx ends. It returns at once where the manager does not watch.
func (n *Notifier) Watchdog(ctx context.Context) {
	if n.Interval() == 0 {
		return
	}
	tick := time.NewTicker(n.Interval())
	defer tick.Stop()
	for {
		_ = n.Alive() // a manager that does not hear it acts
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// send sends one message, over a connection of its own: a manager that was restarted has another socket at the same address.
func (n *Notifier) send(state string) error {
	if n == nil {
		return nil
	}
	if !filepath.IsAbs(n.address) && (len(n.address) < 2 || n.address[0] != '@') { // @ is an abstract one
		return &backend.Error{
			Code: backend.CodeUnsupported, Reason: "the service manager wants to be told at an address that is neither a path nor an abstract socket",
			Remedy: "unset NOTIFY_SOCKET",
		}
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.address, Net: "unixgram"})
	if err != nil {
		return untold("dial", err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return untold("dial", err)
	}
	if _, err := c.Write([]byte(state)); err != nil {
		return untold("write", err)
	}
	return nil
}

func untold(what string, err error) error {
	for next := err; next != nil; next = errors.Unwrap(next) {
		err = next // without the address
	}
	return backend.Errorf(backend.CodeUnavailable, "the service manager cannot be told: %s: %v", what, err)
}
