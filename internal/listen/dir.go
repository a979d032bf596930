package listen

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/safefile"
)

// trusted is what must hold of the directories on the way to a socket or a token: they are ours or root's, and nobody else can
// replace one, nor a link on the way.
func trusted() safefile.Policy {
	return safefile.Policy{Owners: []int{os.Geteuid(), 0}, Links: safefile.LinksTrusted}
}

// checkWay checks the directories on the way to path, whose own directory exists.
func checkWay(path string) error {
	f, err := safefile.Open(path, trusted())
	if err == nil {
		return f.Close()
	}
	// What is at the end of the way, and whether anything is, does not matter here.
	if e, ok := errors.AsType[*safefile.Error](err); ok {
		switch e.Problem {
		case safefile.NotFound, safefile.Directory, safefile.Special, safefile.HardLink:
			return nil
		}
	}
	return refused(err)
}

// makeDirs makes dir with mode 0700, and what misses above it with mode 0755 less umask, where nobody else can interfere. It
// gives what it made, the innermost last, also with an error.
func makeDirs(dir string) (made []string, err error) {
	var missing []string
	for at := dir; ; at = filepath.Dir(at) {
		_, err := os.Lstat(at)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			return nil, failed(err, "cannot look at %s", at)
		}
		missing = append(missing, at)
	}
	if len(missing) == 0 {
		return nil, nil
	}
	if err := checkWay(missing[len(missing)-1]); err != nil {
		return nil, err
	}
	for _, at := range slices.Backward(missing) {
		mode := fs.FileMode(0o755)
		if at == dir {
			mode = 0o700
		}
		switch err := os.Mkdir(at, mode); {
		case err == nil:
			made = append(made, at)
		case !errors.Is(err, fs.ErrExist): // somebody else starts too
			return made, failed(err, "cannot make the directory %s", at)
		}
	}
	return made, nil
}

// unmake takes away the directories that makeDirs made, as far as they are empty.
func unmake(made []string) {
	for _, dir := range slices.Backward(made) {
		if os.Remove(dir) != nil {
			return
		}
	}
}

// refused gives an error of safefile as one of ours.
func refused(err error) error {
	e, ok := errors.AsType[*safefile.Error](err)
	if !ok {
		return backend.Errorf(backend.CodeInternal, "%v", err)
	}
	return &backend.Error{Code: backend.CodeInvalidConfig, Reason: e.Path + " " + e.Reason, Remedy: cmp.Or(e.Remedy, "choose another path")}
}

// failed says what could not be done, and why the system did not do it.
func failed(err error, format string, args ...any) error {
	for next := err; next != nil; next = errors.Unwrap(next) {
		err = next // without the operation and the path around it
	}
	return backend.Errorf(backend.CodeUnavailable, "%s: %v", fmt.Sprintf(format, args...), err)
}
