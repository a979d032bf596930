package safefile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// File is an open regular file that a Policy accepts. The caller closes it.
type File struct {
	file   *os.File
	path   string
	policy Policy
	stamp  Stamp
	place  place // what Unchanged needs to find the file by its name again
}

// Stamp is the state of a file: two equal Stamps are of the same content, unless somebody set clocks back.
type Stamp struct {
	Device, Inode uint64
	Size          int64
	Modified      time.Time
	Touched       time.Time // when owner, mode, names or content last changed; zero on Windows
}

// Equal reports whether s and t are the same state of the same file.
func (s Stamp) Equal(t Stamp) bool {
	return s.Device == t.Device && s.Inode == t.Inode && s.Size == t.Size && s.Modified.Equal(t.Modified) && s.Touched.Equal(t.Touched)
}

// Version gives s as an opaque text of 32 hexadecimal digits.
func (s Stamp) Version() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d %d %d %d", s.Device, s.Inode, s.Size, s.Modified.UnixNano(), s.Touched.UnixNano()))
	return hex.EncodeToString(sum[:16])
}

// Open opens the file at path, which must be absolute, if p accepts it. It never waits for a FIFO or a device.
func Open(path string, p Policy) (*File, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	return open(filepath.Clean(path), p)
}

// Path is where the file is after links were followed.
func (f *File) Path() string { return f.path }

// Descriptor is the open file itself, which stays f's.
func (f *File) Descriptor() *os.File { return f.file }

// Stamp is the file's state when it was opened.
func (f *File) Stamp() Stamp { return f.stamp }

// Unchanged fails when the file was written, replaced or given to somebody else since it was opened.
func (f *File) Unchanged() error {
	now, err := f.current()
	if err != nil {
		return err
	}
	if !now.Equal(f.stamp) {
		return &Error{Changed, f.path, "changed while it was used", ""}
	}
	return nil
}

// Close closes the file.
func (f *File) Close() error { return errors.Join(f.file.Close(), f.place.close()) }

// checkInterval is how much is read between two looks at the context.
const checkInterval = 1 << 20

// SHA256 gives the checksum of the content in hexadecimal.
func (f *File) SHA256(ctx context.Context) (string, error) {
	h := sha256.New()
	r := io.NewSectionReader(f.file, 0, 1<<62)
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		switch _, err := io.CopyN(h, r, checkInterval); {
		case err == io.EOF:
			return hex.EncodeToString(h.Sum(nil)), nil
		case err != nil:
			return "", broken(f.path, err)
		}
	}
}

// read gives the content. The caller zeroes it, also after an error.
func (f *File) read(ctx context.Context) ([]byte, error) {
	// One byte more than the size finds the end without growing; a file that grew is read again as a whole.
	content := make([]byte, f.stamp.Size+1)
	n := 0
	for {
		if err := ctx.Err(); err != nil {
			return content[:n], err
		}
		got, err := f.file.Read(content[n:min(len(content), n+checkInterval)])
		n += got
		switch {
		case err == io.EOF:
			return content[:n], f.Unchanged()
		case err != nil:
			return content[:n], broken(f.path, err)
		case n == len(content):
			return content[:n], &Error{Changed, f.path, "changed while it was used", ""}
		}
	}
}

// attempts is how often a file is read that changes while it is read.
const attempts = 3

// Read gives the content of the file at path, which must be absolute, if p accepts it, and the file's state. The caller owns
// the content and should zero it. Read returns when ctx is done, even while the file system does not answer. A file that
// keeps changing while it is read is Changed.
func Read(ctx context.Context, path string, p Policy) ([]byte, Stamp, error) {
	type result struct {
		content []byte
		stamp   Stamp
	}
	once := func() (r result, err error) {
		f, err := Open(path, p)
		if err != nil {
			return result{}, err
		}
		r.stamp = f.Stamp()
		r.content, err = f.read(ctx)
		if failed := f.Close(); err == nil && failed != nil {
			err = broken(path, failed)
		}
		if err != nil {
			clear(r.content)
			r.content = nil
		}
		return r, err
	}
	r, err := Await(ctx, func() (r result, err error) {
		for range attempts {
			var e *Error
			if r, err = once(); !errors.As(err, &e) || e.Problem != Changed {
				break
			}
		}
		return r, err
	}, func(r result) { clear(r.content) })
	return r.content, r.stamp, err
}

// Await gives what call gives, or ctx's error when ctx is done before. call asks a file system, which may never answer: then
// it goes on by itself, and what it gives without an error after all is given to drop, which may be nil.
func Await[T any](ctx context.Context, call func() (T, error), drop func(T)) (T, error) {
	if ctx.Done() == nil {
		return call()
	}
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome)
	go func() {
		value, err := call()
		select {
		case done <- outcome{value, err}:
		case <-ctx.Done():
			if err == nil && drop != nil {
				drop(value)
			}
		}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// Names lists what is in the directory at path, in order, if p accepts it as a directory above a file.
func Names(path string, p Policy) ([]string, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	names, err := names(filepath.Clean(path), p)
	slices.Sort(names)
	return names, err
}

func checkPath(path string) error {
	switch {
	case strings.HasPrefix(path, "~"):
		return &Error{BadPath, path, "starts with ~, which only a shell expands", "write the home directory out"}
	case !filepath.IsAbs(path):
		return &Error{BadPath, path, "is not an absolute path", "start it at the root directory"}
	case strings.ContainsRune(path, 0):
		return &Error{BadPath, "a path", "holds a NUL byte", ""}
	}
	return nil
}

// checkDirs tells whether path, after links were followed, is in one of dirs.
func checkDirs(path string, dirs []string) error {
	if len(dirs) == 0 {
		return nil
	}
	for _, dir := range dirs {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			dir = real
		}
		if rel, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(rel) && rel != "." {
			return nil
		}
	}
	return &Error{Outside, path, "is in none of the allowed directories", "allow its directory or use another file"}
}

func checkSize(path string, size int64, p Policy) error {
	if p.MaxBytes > 0 && size > p.MaxBytes {
		return &Error{TooBig, path, fmt.Sprintf("has %d bytes, more than the %d allowed", size, p.MaxBytes), ""}
	}
	return nil
}

// broken gives the Error of an operating system's err about path.
func broken(path string, err error) error {
	var number error = err
	var wrapped *fs.PathError
	if errors.As(err, &wrapped) {
		number = wrapped.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &Error{NotFound, path, "does not exist", ""}
	case errors.Is(err, fs.ErrPermission):
		return &Error{NoAccess, path, "cannot be read by this user", "give this user access to it"}
	}
	return &Error{Broken, path, fmt.Sprintf("cannot be read: %v", number), ""}
}

// quote gives path as a shell takes it.
func quote(path string) string {
	if !strings.ContainsFunc(path, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("/._-+@%,:=", c))
	}) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
