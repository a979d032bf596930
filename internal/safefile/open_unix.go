//go:build unix

package safefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// place is a name in an open directory.
type place struct {
	dir  int
	name string
}

func (pl place) close() error { return unix.Close(pl.dir) }

// walk opens the directory that holds the last component of path. It follows links as p says; resolved is the path without
// them, and stat tells of the last component, which is no link.
func walk(path string, p Policy) (pl place, resolved string, stat unix.Stat_t, err error) {
	resolved = path
	mount := "" // the one directory whose links LinksMount follows
	for range maxLinks {
		var target string
		pl, stat, target, mount, err = step(resolved, p, mount)
		if err != nil || target == "" {
			return pl, resolved, stat, err
		}
		resolved = target
	}
	return pl, "", stat, &Error{Symlink, path, fmt.Sprintf("leads through more than %d symbolic links", maxLinks), ""}
}

// step walks path to its end, or to the first link: then target is the path that the link leads to.
func step(path string, p Policy, mount string) (pl place, stat unix.Stat_t, target, mounted string, err error) {
	fail := func(err error) (place, unix.Stat_t, string, string, error) {
		return place{}, unix.Stat_t{}, "", "", err
	}
	dir, err := openDir(unix.AT_FDCWD, "/", "/", p)
	if err != nil {
		return fail(err)
	}
	defer func() {
		if err != nil || target != "" {
			_ = unix.Close(dir)
		}
	}()
	at := "/"
	rest := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, name := range rest {
		if name == "" { // path is "/"
			return fail(&Error{Directory, path, "is a directory", ""})
		}
		here := filepath.Join(at, name)
		if err := retry(func() error { return unix.Fstatat(dir, name, &stat, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
			return fail(broken(here, err))
		}
		last := i == len(rest)-1
		if stat.Mode&unix.S_IFMT == unix.S_IFLNK {
			target, mount, err = follow(dir, at, name, &stat, last, p, mount)
			if err != nil {
				return fail(err)
			}
			return place{}, stat, filepath.Join(append([]string{target}, rest[i+1:]...)...), mount, nil
		}
		if last {
			return place{dir, name}, stat, "", mount, nil
		}
		next, err := openDir(dir, name, here, p)
		if err != nil {
			return fail(err)
		}
		_ = unix.Close(dir)
		dir, at = next, here
	}
	panic("unreachable: the last component returns")
}

// follow gives the path that the link name in the directory at leads to, if p follows it.
func follow(dir int, at, name string, stat *unix.Stat_t, last bool, p Policy, mount string) (target, mounted string, err error) {
	here := filepath.Join(at, name)
	text, err := readLink(dir, name)
	if err != nil {
		return "", "", broken(here, err)
	}
	target = text
	if !filepath.IsAbs(text) {
		target = filepath.Join(at, text)
	}
	system := stat.Uid == 0 && (at == "/" || at == "/var")
	refuse := func(reason, remedy string) (string, string, error) {
		return "", "", &Error{Symlink, here, reason, remedy}
	}
	switch {
	case p.Links == LinksAbove && !last, p.Links != LinksAbove && system:
		return target, mount, nil
	case p.Links == LinksTrusted:
		if !owned(stat, p) {
			return "", "", &Error{Owner, here, fmt.Sprintf("is a symbolic link of user %d, who is neither this user nor root", stat.Uid),
				"name the file that it leads to: " + target}
		}
		return target, mount, nil
	case p.Links == LinksMount:
		inside := mount == "" || mount == at
		version := name == "..data" && strings.HasPrefix(text, "..") && text != ".." && !strings.Contains(text, "/")
		if inside && owned(stat, p) && (version || text == "..data/"+name) {
			return target, at, nil
		}
		return refuse("is a symbolic link that does not lead to ..data of its own directory", "name a file of the mounted directory")
	}
	return refuse("is a symbolic link", "name the file that it leads to: "+target)
}

func owned(stat *unix.Stat_t, p Policy) bool {
	return len(p.Owners) == 0 || slices.Contains(p.Owners, int(stat.Uid))
}

// openDir opens the directory name in dir, called path, if p accepts it on the way to a file.
func openDir(dir int, name, path string, p Policy) (int, error) {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Openat(dir, name, searchOnly|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	switch {
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return -1, &Error{NotADirectory, path, "is not a directory", ""}
	case err != nil:
		return -1, broken(path, err)
	}
	var stat unix.Stat_t
	if err = retry(func() error { return unix.Fstat(fd, &stat) }); err != nil {
		err = broken(path, err)
	} else {
		err = checkDir(path, &stat, p)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func checkDir(path string, stat *unix.Stat_t, p Policy) error {
	if p.OpenParents {
		return nil
	}
	if stat.Uid != 0 && !owned(stat, p) {
		return &Error{Parent, path, fmt.Sprintf("is a directory of user %d, who could replace what is in it", stat.Uid),
			"move the file or run: chown " + wanted(p) + " " + quote(path)}
	}
	if mode := uint32(stat.Mode); mode&0o022 != 0 && mode&unix.S_ISVTX == 0 {
		return &Error{Parent, path, fmt.Sprintf("is a directory that others can write to (mode %04o)", mode&0o7777),
			"run: chmod go-w " + quote(path)}
	}
	return nil
}

func checkFile(path string, stat *unix.Stat_t, p Policy) error {
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		return &Error{Directory, path, "is a directory", ""}
	case unix.S_IFLNK:
		return &Error{Symlink, path, "is a symbolic link", "name the file that it leads to"}
	default:
		return &Error{Special, path, "is not a regular file", "use a regular file"}
	}
	if !owned(stat, p) {
		return &Error{Owner, path, fmt.Sprintf("belongs to user %d, not to %s", stat.Uid, trusted(p)),
			"run: chown " + wanted(p) + " " + quote(path)}
	}
	deny := p.Deny
	if p.Mounted && (stat.Uid == 0 || stat.Mode&0o222 == 0) {
		deny &= 0o222
	}
	if mode := fs.FileMode(stat.Mode) & fs.ModePerm; mode&deny != 0 {
		return &Error{Mode, path, fmt.Sprintf("can be %s by others (mode %04o)", opened(mode&deny), mode), "run: chmod " + chmod(p, deny) + " " + quote(path)}
	}
	if p.Executable && stat.Mode&0o111 == 0 {
		return &Error{NotExecutable, path, fmt.Sprintf("is not executable (mode %04o)", stat.Mode&0o777), "run: chmod u+x " + quote(path)}
	}
	if !p.HardLinks && stat.Nlink > 1 {
		return &Error{HardLink, path, fmt.Sprintf("has %d names (hard links)", stat.Nlink), "copy it to a file of its own"}
	}
	return checkSize(path, stat.Size, p)
}

// opened says what the permission bits allow.
func opened(bits fs.FileMode) string {
	switch read, write := bits&0o444 != 0, bits&0o222 != 0; {
	case read && write:
		return "read and written"
	case write:
		return "written"
	case read:
		return "read"
	}
	return "executed"
}

func chmod(p Policy, deny fs.FileMode) string {
	switch {
	case deny&0o044 == 0:
		return "go-w"
	case p.Executable:
		return "go="
	}
	return "600"
}

// wanted is the user to whom a file should be given.
func wanted(p Policy) string {
	if len(p.Owners) == 0 {
		return "0"
	}
	return fmt.Sprint(p.Owners[0])
}

func trusted(p Policy) string {
	self := fmt.Sprintf("user %d", p.Owners[0])
	if p.Owners[0] != 0 && slices.Contains(p.Owners, 0) {
		self += " or root"
	}
	return self
}

func open(path string, p Policy) (*File, error) {
	pl, resolved, before, err := walk(path, p)
	if err != nil {
		return nil, err
	}
	f, err := openAt(pl, resolved, &before, p)
	if err != nil {
		_ = pl.close()
		return nil, err
	}
	return f, nil
}

func openAt(pl place, path string, before *unix.Stat_t, p Policy) (*File, error) {
	// A device may act when it is opened, so what it is must be known before.
	if err := checkFile(path, before, p); err != nil {
		return nil, err
	}
	if err := checkDirs(path, p.Dirs); err != nil {
		return nil, err
	}
	var fd int
	// O_NONBLOCK: a FIFO that took the file's place must not make us wait.
	if err := retry(func() (err error) {
		fd, err = unix.Openat(pl.dir, pl.name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		return err
	}); err != nil {
		if errors.Is(err, unix.ELOOP) {
			return nil, &Error{Changed, path, "changed while it was used", ""}
		}
		return nil, broken(path, err)
	}
	f := &File{file: os.NewFile(uintptr(fd), path), path: path, policy: p, place: pl}
	var stat unix.Stat_t
	err := retry(func() error { return unix.Fstat(fd, &stat) })
	switch {
	case err != nil:
		err = broken(path, err)
	case !stampOf(&stat).Equal(stampOf(before)):
		err = &Error{Changed, path, "changed while it was used", ""}
	default:
		err = checkFile(path, &stat, p)
	}
	if err != nil {
		_ = f.file.Close()
		return nil, err
	}
	f.stamp = stampOf(&stat)
	return f, nil
}

// current looks at the file by its descriptor and by its name.
func (f *File) current() (Stamp, error) {
	var byName, byDescriptor unix.Stat_t
	if err := retry(func() error {
		return unix.Fstatat(f.place.dir, f.place.name, &byName, unix.AT_SYMLINK_NOFOLLOW)
	}); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return Stamp{}, &Error{Changed, f.path, "was removed while it was used", ""}
		}
		return Stamp{}, broken(f.path, err)
	}
	if err := retry(func() error { return unix.Fstat(int(f.file.Fd()), &byDescriptor) }); err != nil {
		return Stamp{}, broken(f.path, err)
	}
	if !stampOf(&byName).Equal(stampOf(&byDescriptor)) {
		return Stamp{}, &Error{Changed, f.path, "was replaced while it was used", ""}
	}
	return stampOf(&byDescriptor), checkFile(f.path, &byDescriptor, f.policy)
}

func names(path string, p Policy) ([]string, error) {
	pl, resolved, stat, err := walk(path, p)
	if err != nil {
		return nil, err
	}
	defer func() { _ = pl.close() }()
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, &Error{NotADirectory, resolved, "is not a directory", ""}
	}
	var fd int
	if err := retry(func() (err error) {
		fd, err = unix.Openat(pl.dir, pl.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	}); err != nil {
		return nil, broken(resolved, err)
	}
	dir := os.NewFile(uintptr(fd), resolved)
	defer func() { _ = dir.Close() }()
	if err := retry(func() error { return unix.Fstat(fd, &stat) }); err != nil {
		return nil, broken(resolved, err)
	}
	if err := checkDir(resolved, &stat, p); err != nil {
		return nil, err
	}
	found, err := dir.Readdirnames(-1)
	if err != nil && err != io.EOF {
		return nil, broken(resolved, err)
	}
	return found, nil
}

func readLink(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	var n int
	if err := retry(func() (err error) { n, err = unix.Readlinkat(dir, name, buf); return err }); err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func stampOf(s *unix.Stat_t) Stamp {
	return Stamp{
		Device: uint64(s.Dev), Inode: uint64(s.Ino), Size: s.Size, //nolint:unconvert // the widths differ by system
		Modified: time.Unix(s.Mtim.Unix()), Touched: time.Unix(s.Ctim.Unix()),
	}
}
