package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/staged"
)

// outFile is a file that is replaced in one step: whoever reads it finds the old content or the new one, whole.
type outFile struct{ path string }

// newOutFile checks what can be checked before there is something to write. source is what the content is made from, which
// must not be replaced by it.
func newOutFile(path, source string) (*outFile, error) {
	st, err := os.Stat(path)
	switch {
	case path == "":
		return nil, backend.Errorf(backend.CodeUsage, "--out needs the name of a file")
	case errors.Is(err, fs.ErrNotExist):
		return &outFile{path}, nil
	case err != nil:
		return nil, backend.Errorf(backend.CodeUsage, "%s cannot be written: %s", path, reason(err))
	case !st.Mode().IsRegular():
		e := backend.Errorf(backend.CodeUsage, "%s is not a regular file and cannot be replaced", path)
		e.Remedy = "leave --out away and redirect standard output"
		return nil, e
	}
	if src, err := os.Stat(source); err == nil && os.SameFile(src, st) {
		return nil, backend.Errorf(backend.CodeUsage, "%s is the document itself: its references would be lost", path)
	}
	return &outFile{path}, nil
}

// is reports whether the file is the one behind f: /dev/stdout is a name of whatever standard output was redirected to.
func (o *outFile) is(f *os.File) bool {
	mine, err := os.Stat(o.path)
	if err != nil {
		return false
	}
	other, err := f.Stat()
	return err == nil && os.SameFile(mine, other)
}

// write puts content in the place of the file, with mode 0600. When it fails, or ctx ends before it is done, the file is as
// it was, and nothing else is left behind; where files can be without a name, not by a kill either.
func (o *outFile) write(ctx context.Context, content []byte) error {
	path := o.path
	if real, err := filepath.EvalSymlinks(path); err == nil { // the file behind a link, not the link
		path = real
	}
	f, err := staged.New(path)
	if err != nil {
		return o.failed(err)
	}
	defer f.Drop()
	if _, err := f.Write(content); err != nil {
		return o.failed(err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := f.Place(); err != nil {
		return o.failed(err)
	}
	return nil
}

func (o *outFile) failed(err error) error {
	return backend.Errorf(backend.CodeInternal, "%s cannot be written and is as it was: %s", o.path, reason(err))
}
