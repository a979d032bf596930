package staged

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// File is the content that a file is to have, on its way into its place. It is for one goroutine.
type File struct {
	*os.File        // to be written to
	path     string // its place
	name     string // what it is called until it is there; empty: it has no name
}

// New makes an empty file, of mode 0600, that can take the place of the one at path, in the same directory, which must exist;
// and removes what processes that were killed left there. The caller calls Place or Drop, or both in this order.
func New(path string) (*File, error) {
	sweep(path)
	f := &File{path: path}
	dir := filepath.Dir(path)
	if f.File = unnamed(dir); f.File == nil {
		var err error
		if f.File, err = os.CreateTemp(dir, leftover(path)+"*"); err != nil { // mode 0600
			return nil, err
		}
		f.name = f.Name()
	}
	if err := lockTemp(f.File); err != nil {
		f.Drop()
		return nil, err
	}
	return f, nil
}

// Like gives the file the owner, the group and the permissions of info.
func (f *File) Like(info fs.FileInfo) error {
	if err := keepOwner(f.File, info); err != nil {
		return err
	}
	return f.Chmod(info.Mode().Perm())
}

// Place puts the file into its place, for good: also when the system stops the moment after. Where a directory cannot be
// synced the name is there all the same.
func (f *File) Place() error {
	if err := f.Sync(); err != nil {
		return err
	}
	if f.name == "" {
		name, err := giveName(f.File, filepath.Join(filepath.Dir(f.path), leftover(f.path)))
		if err != nil {
			return err
		}
		f.name = name
	}
	if runtime.GOOS == "windows" {
		_ = f.Close() // it was synced; an open file gets no other name there
	}
	if err := os.Rename(f.name, f.path); err != nil {
		return err
	}
	f.name = ""
	_ = f.Close()
	if dir, err := os.Open(filepath.Dir(f.path)); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
	return nil
}

// Drop gives the content up, unless it is in its place.
func (f *File) Drop() {
	if f.name != "" {
		_ = os.Remove(f.name)
	}
	_ = f.Close()
}

// leftover is how the names of unfinished files begin.
func leftover(path string) string { return "." + filepath.Base(path) + ".credresolve-" }

// sweep removes what a process that was killed left beside path. A file in use is locked by who writes it.
func sweep(path string) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), leftover(path)) && e.Type().IsRegular() {
			removeUnused(filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
}
