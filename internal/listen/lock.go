package listen

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"time"

	"github.com/gofrs/flock"
)

// lock is held by one process of a host. The file goes away with it.
type lock struct{ file *flock.Flock }

var errHeld = errors.New("another process holds the lock")

// take takes the lock path, which lies in a directory that nobody else can write to. It is errHeld when another process, or
// another lock of this one, has held it for the time patience.
func take(path string, patience time.Duration) (*lock, error) {
	const pause = 5 * time.Millisecond
	for end := time.Now().Add(patience); ; {
		file := flock.New(path, flock.SetFlag(os.O_RDWR|os.O_CREATE|noFollow), flock.SetPermissions(0o600))
		got, err := file.TryLock()
		if got {
			// Who held it before may have removed the file after we opened it. Then the lock is one of nothing.
			ours, failed := file.Stat()
			named, missing := os.Lstat(path)
			if failed == nil && missing == nil && os.SameFile(ours, named) {
				return &lock{file}, nil
			}
			err = failed
			if missing != nil && !errors.Is(missing, fs.ErrNotExist) {
				err = errors.Join(err, missing)
			}
		}
		_ = file.Close()
		switch {
		case err != nil:
			return nil, err
		case got:
		case !time.Now().Before(end):
			return nil, errHeld
		default:
			time.Sleep(pause)
		}
	}
}

// release gives the lock up.
func (l *lock) release() {
	if runtime.GOOS == "windows" { // which removes no file that is open
		_ = l.file.Close()
		_ = os.Remove(l.file.Path())
		return
	}
	_ = os.Remove(l.file.Path())
	_ = l.file.Close()
}
