//go:build unix

package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/credresolve/credresolve/backend"
	"golang.org/x/sys/unix"
)

// firstHanded is the first descriptor that systemd hands over (SD_LISTEN_FDS_START).
const firstHanded = 3

func activated(lookupEnv func(string) (string, bool)) (handed []Inherited, err error) {
	pid, set := lookupEnv("LISTEN_PID")
	if !set {
		return nil, nil
	}
	// Another process's number is that of one whose environment we got.
	if n, err := strconv.Atoi(pid); err != nil {
		return nil, badHandover("LISTEN_PID is not a number", "")
	} else if n != os.Getpid() {
		return nil, nil
	}
	text, _ := lookupEnv("LISTEN_FDS")
	count, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, badHandover("LISTEN_FDS is not a number", "")
	}
	var names []string
	if text, _ := lookupEnv("LISTEN_FDNAMES"); text != "" {
		if names = strings.Split(text, ":"); len(names) != int(count) {
			return nil, badHandover(fmt.Sprintf("LISTEN_FDNAMES has %d names for %d sockets", len(names), count), "")
		}
	}
	// Programs that are started meanwhile must not get them, nor may one be left open that an error keeps us from looking at.
	files := make([]*os.File, count)
	for i := range files {
		fd := firstHanded + i
		if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil { // else it may be one of the runtime's
			unix.CloseOnExec(fd)
			files[i] = os.NewFile(uintptr(fd), "handed over")
		}
	}
	defer func() {
		for _, f := range files {
			_ = f.Close() // the listeners have duplicates
		}
		if err != nil {
			for _, l := range handed {
				_ = l.Close()
			}
			handed = nil
		}
	}()
	for i, f := range files {
		l, err := listenerOf(f, firstHanded+i)
		if err != nil {
			return handed, err
		}
		in := Inherited{Listener: l}
		if names != nil {
			in.Name = names[i]
		}
		handed = append(handed, in)
	}
	return handed, nil
}

func badHandover(what, remedy string) error {
	if remedy == "" {
		remedy = "look at the .socket unit"
	}
	return &backend.Error{Code: backend.CodeInvalidConfig, Reason: "the handover of sockets by the service manager is wrong: " + what, Remedy: remedy}
}

// listenerOf makes a listener of one descriptor, if it is one that we listen on.
func listenerOf(f *os.File, fd int) (net.Listener, error) {
	if f == nil {
		return nil, badHandover(fmt.Sprintf("descriptor %d is not a socket", fd), "use ListenStream= alone in the .socket unit")
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM {
		return nil, badHandover(fmt.Sprintf("descriptor %d is not a stream socket", fd), "use ListenStream= alone in the .socket unit")
	}
	if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens == 0 {
		return nil, badHandover(fmt.Sprintf("descriptor %d does not listen", fd), "set Accept=no in the .socket unit")
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, badHandover(fmt.Sprintf("descriptor %d is of no known kind", fd), "use paths and loopback addresses in ListenStream=")
	}
	switch a := l.Addr().(type) {
	case *net.UnixAddr:
		err = checkHanded(a.Name)
	case *net.TCPAddr:
		if err = checkLoopback(a); err != nil {
			err = badHandover(fmt.Sprintf("%s is not a loopback address", a), "write ListenStream=127.0.0.1:PORT in the .socket unit")
		}
	default:
		err = badHandover(fmt.Sprintf("descriptor %d is of no known kind", fd), "use paths and loopback addresses in ListenStream=")
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// checkHanded checks the file of a Unix socket that systemd made.
func checkHanded(path string) error {
	if !filepath.IsAbs(path) { // abstract, or without a name
		return badHandover("a Unix socket has no file, so that every user could connect", "write a path in ListenStream= of the .socket unit")
	}
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return badHandover(fmt.Sprintf("the socket %s is not there", path), "restart the .socket unit")
	case err != nil:
		return failed(err, "cannot look at the socket %s", path)
	case st.Mode().Type() != fs.ModeSocket:
		return badHandover(path+" is not a socket", "restart the .socket unit")
	}
	// Connecting needs the right to write.
	if mode := st.Mode().Perm(); mode&0o002 != 0 {
		return badHandover(fmt.Sprintf("the socket %s is open to every user (mode %04o)", path, mode),
			"set SocketMode=0600, or SocketMode=0660 and SocketGroup=, in the .socket unit")
	}
	if uid := int(st.Sys().(*syscall.Stat_t).Uid); uid != 0 && uid != os.Geteuid() {
		return badHandover(fmt.Sprintf("the socket %s belongs to user %d", path, uid), "set SocketUser= in the .socket unit to the user of the service")
	}
	return nil
}
