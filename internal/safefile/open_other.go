//go:build !unix

package safefile

import (
	"io/fs"
	"os"
	"path/filepath"
)

// place is nothing where a file is found again by its path.
type place struct{}

func (place) close() error { return nil }

// check finds the file at path, and links on the way. Junctions are ModeIrregular.
func check(path string, p Policy) (fs.FileInfo, error) {
	for at := path; p.Links == LinksNone || p.Links == LinksMount; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err != nil {
			return nil, broken(at, err)
		}
		if info.Mode()&(fs.ModeSymlink|fs.ModeIrregular) != 0 {
			return nil, &Error{Symlink, at, "is a symbolic link or junction", "name the file that it leads to"}
		}
		if at == filepath.Dir(at) {
			break
		}
	}
	look := os.Lstat
	if p.Links == LinksTrusted {
		look = os.Stat
	}
	info, err := look(path)
	if err != nil {
		return nil, broken(path, err)
	}
	return info, nil
}

func checkFile(path string, info fs.FileInfo, p Policy) error {
	switch mode := info.Mode(); {
	case mode.IsDir():
		return &Error{Directory, path, "is a directory", ""}
	case mode&(fs.ModeSymlink|fs.ModeIrregular) != 0:
		return &Error{Symlink, path, "is a symbolic link", "name the file that it leads to"}
	case !mode.IsRegular():
		return &Error{Special, path, "is not a regular file", "use a regular file"}
	}
	return checkSize(path, info.Size(), p)
}

func open(path string, p Policy) (*File, error) {
	resolved := path
	if p.Links == LinksTrusted {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			resolved = real
		}
	}
	before, err := check(resolved, p)
	if err != nil {
		return nil, err
	}
	if err := checkFile(resolved, before, p); err != nil {
		return nil, err
	}
	if err := checkDirs(resolved, p.Dirs); err != nil {
		return nil, err
	}
	file, err := os.Open(resolved)
	if err != nil {
		return nil, broken(resolved, err)
	}
	info, err := file.Stat()
	switch {
	case err != nil:
		err = broken(resolved, err)
	case !os.SameFile(before, info):
		err = &Error{Changed, resolved, "changed while it was used", ""}
	default:
		err = checkFile(resolved, info, p)
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &File{file: file, path: resolved, policy: p, stamp: stampOf(info)}, nil
}

func (f *File) current() (Stamp, error) {
	byName, err := os.Lstat(f.path)
	if err != nil {
		return Stamp{}, broken(f.path, err)
	}
	info, err := f.file.Stat()
	if err != nil {
		return Stamp{}, broken(f.path, err)
	}
	if !os.SameFile(byName, info) {
		return Stamp{}, &Error{Changed, f.path, "was replaced while it was used", ""}
	}
	return stampOf(info), checkFile(f.path, info, f.policy)
}

func names(path string, p Policy) ([]string, error) {
	if _, err := check(path, p); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, broken(path, err)
	}
	found := make([]string, len(entries))
	for i, e := range entries {
		found[i] = e.Name()
	}
	return found, nil
}

func stampOf(info fs.FileInfo) Stamp { return Stamp{Size: info.Size(), Modified: info.ModTime()} }
