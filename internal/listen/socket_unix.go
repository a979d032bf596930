//go:build unix

package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/peer"
	"golang.org/x/sys/unix"
)

// maxPath is how long the path of a socket may be, in bytes: 107 on Linux, 103 elsewhere.
const maxPath = len(unix.RawSockaddrUnix{}.Path) - 1

// answerTime is how long another process may take to take a connection.
const answerTime = time.Second

func openUnix(path string, o Options) (s *Socket, err error) {
	if !filepath.IsAbs(path) {
		return nil, &backend.Error{Code: backend.CodeInvalidConfig, Reason: "the path of the socket is not absolute", Remedy: "write serve.socket.path from the root directory on"}
	}
	path = filepath.Clean(path)
	if len(path) > maxPath {
		return nil, tooLong(path, len(path))
	}
	group, err := groupID(o.Group)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	made, err := makeDirs(dir)
	defer func() {
		if err != nil {
			unmake(made)
		}
	}()
	if err != nil {
		return nil, err
	}
	if len(made) > 0 && made[len(made)-1] == dir {
		if err := openDir(dir, group); err != nil {
			return nil, err
		}
	}
	if err := checkWay(path); err != nil {
		return nil, err
	}
	if err := checkDir(dir, group); err != nil {
		return nil, err
	}

	l, err := take(path+".lock", 0)
	switch {
	case errors.Is(err, errHeld):
		return nil, served(path)
	case err != nil:
		return nil, failed(err, "cannot lock %s.lock", path)
	}
	defer func() {
		if err != nil {
			l.release()
		}
	}()
	if err := clearStale(path); err != nil {
		return nil, err
	}
	listener, err := bind(path)
	if err != nil {
		return nil, err
	}
	s = &Socket{path: path, listener: listener, lock: l}
	if s.inode, err = os.Lstat(path); err == nil {
		err = s.protect(group)
	} else {
		err = failed(err, "cannot look at the socket %s", path)
	}
	if err != nil {
		if s.inode != nil {
			removeIf(path, s.inode)
		}
		_ = listener.Close()
		return nil, err
	}
	return s, nil
}

func tooLong(path string, length int) error {
	return &backend.Error{
		Code:   backend.CodeInvalidConfig,
		Reason: fmt.Sprintf("the path of the socket needs %d bytes, and the system allows %d: %s", length, maxPath, path),
		Remedy: "set serve.socket.path (for clients: CREDRESOLVE_SOCKET) to a shorter path, such as one in /run",
	}
}

// groupID gives the number of a group, -1 for none.
func groupID(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	number := name
	if g, err := user.LookupGroup(name); err == nil {
		number = g.Gid
	}
	id, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return 0, &backend.Error{
			Code: backend.CodeInvalidConfig, Reason: fmt.Sprintf("there is no group %q", name),
			Remedy: "make the group, or set serve.socket.group to another",
		}
	}
	return int(id), nil
}

// dirMode is the mode of a socket's directory.
func dirMode(group int) fs.FileMode {
	if group >= 0 {
		return 0o710
	}
	return 0o700
}

// openDir gives a directory that was just made its mode and group.
func openDir(dir string, group int) error {
	if group >= 0 {
		if err := os.Lchown(dir, -1, group); err != nil {
			return noMember(dir, group, err)
		}
	}
	if err := os.Chmod(dir, dirMode(group)); err != nil {
		return failed(err, "cannot set the mode of %s", dir)
	}
	return nil
}

func noMember(path string, group int, err error) error {
	e := failed(err, "cannot give %s to the group %d", path, group)
	if errors.Is(err, fs.ErrPermission) {
		e.(*backend.Error).Remedy = "make the user of this process a member of the group"
	}
	return e
}

// checkDir checks the socket's own directory, the way to which is known to be safe.
func checkDir(dir string, group int) error {
	st, err := os.Stat(dir)
	if err != nil {
		return failed(err, "cannot look at %s", dir)
	}
	bad := func(remedy, format string, args ...any) error {
		return &backend.Error{Code: backend.CodeInvalidConfig, Reason: "the directory of the socket, " + dir + ", " + fmt.Sprintf(format, args...), Remedy: remedy}
	}
	sys := st.Sys().(*syscall.Stat_t)
	mode, want := st.Mode().Perm(), dirMode(group)
	switch {
	case !st.IsDir():
		return bad("remove it or set serve.socket.path", "is not a directory")
	case int(sys.Uid) != os.Geteuid():
		return bad("set serve.socket.path to a directory of its own, which is made if it does not exist", "belongs to user %d, not to user %d", sys.Uid, os.Geteuid())
	case mode == want && (group < 0 || int(sys.Gid) == group):
		return nil
	case group < 0 && mode == 0o710:
		return bad(fmt.Sprintf("set serve.socket.group to %d, or run: chmod 700 %s", sys.Gid, dir), "has mode 0710, not 0700")
	case group < 0:
		return bad("run: chmod 700 "+dir, "has mode %04o, not 0700", mode)
	}
	// It may hold what the group must not reach, so that a person has to decide.
	return bad(fmt.Sprintf("if the group may reach all that is in it, run: chgrp %d %s && chmod 710 %[2]s", group, dir),
		"has mode %04o and group %d, which does not let in group %d alone", mode, sys.Gid, group)
}

// clearStale takes away a socket that nobody serves. The lock is held, so that nobody of us begins to.
func clearStale(path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return failed(err, "cannot look at %s", path)
	case st.Mode().Type() != fs.ModeSocket:
		return &backend.Error{
			Code: backend.CodeInvalidConfig, Reason: path + " is not a socket, and is not removed",
			Remedy: "move it away or set serve.socket.path",
		}
	}
	c, err := net.DialTimeout("unix", path, answerTime)
	switch {
	case err == nil:
		_ = c.Close()
		return served(path)
	case errors.Is(err, unix.ECONNREFUSED):
		if err := os.Remove(path); err != nil {
			return failed(err, "cannot remove the socket %s, which nobody serves", path)
		}
		return nil
	}
	// A socket of another sort, or one whose queue is full.
	return &backend.Error{
		Code: backend.CodeUnavailable, Reason: fmt.Sprintf("%s is a socket of another process", path),
		Remedy: "end that process, or set serve.socket.path",
	}
}

// served says who serves the socket at path.
func served(path string) error {
	who := "another process, which is just starting or ending there"
	if c, err := net.DialTimeout("unix", path, answerTime); err == nil {
		who = "another process"
		if p, err := peer.Of(c.(*net.UnixConn)); err == nil {
			if p.PID != 0 {
				who = fmt.Sprintf("process %d", p.PID)
			}
			_ = p.Close()
		}
		_ = c.Close()
	}
	return &backend.Error{
		Code: backend.CodeUnavailable, Reason: fmt.Sprintf("the socket %s is served by %s", path, who),
		Remedy: "use that one, end it, or set serve.socket.path to another path",
	}
}

// bindAside makes the socket in a directory that nobody else can enter, gives it mode 0600, and moves it to path.
func bindAside(path string) (*net.UnixListener, error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".") // mode 0700
	if err != nil {
		return nil, failed(err, "cannot make a directory in %s", filepath.Dir(path))
	}
	defer os.Remove(dir)
	aside := filepath.Join(dir, "s")
	if len(aside) > maxPath {
		return nil, tooLong(path, len(aside))
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: aside, Net: "unix"})
	if err != nil {
		return nil, failed(err, "cannot make the socket %s", path)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(aside, 0o600); err == nil {
		err = os.Rename(aside, path)
	}
	if err != nil {
		_ = os.Remove(aside)
		_ = l.Close()
		return nil, failed(err, "cannot make the socket %s", path)
	}
	return l, nil
}

// protect gives the socket its group, and checks that it is what it is to be.
func (s *Socket) protect(group int) error {
	want := fs.FileMode(0o600)
	if group >= 0 {
		want = 0o660
		// Before the mode: until then nobody but us may connect.
		if err := os.Lchown(s.path, -1, group); err != nil {
			return noMember(s.path, group, err)
		}
	}
	// The file mode creation mask may have taken bits away.
	if err := os.Chmod(s.path, want); err != nil {
		return failed(err, "cannot set the mode of the socket %s", s.path)
	}
	st, err := os.Lstat(s.path)
	if err != nil {
		return failed(err, "cannot look at the socket %s", s.path)
	}
	sys := st.Sys().(*syscall.Stat_t)
	if !os.SameFile(st, s.inode) || st.Mode() != fs.ModeSocket|want || int(sys.Uid) != os.Geteuid() || group >= 0 && int(sys.Gid) != group {
		return &backend.Error{
			Code: backend.CodeUnavailable,
			Reason: fmt.Sprintf("the socket %s came out as %v of user %d and group %d, and not with mode %04o of user %d",
				s.path, st.Mode(), sys.Uid, sys.Gid, want, os.Geteuid()),
			Remedy: "set serve.socket.path to a file system that keeps owners and modes",
		}
	}
	return nil
}
