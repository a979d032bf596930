// Package statedir keeps what must outlive a process in a directory of one user: random keys, and locks between the
// processes of a host. Nothing in it is a secret of a store.
package statedir

import (
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"
)

// KeySize is the size of a key in bytes.
const KeySize = 32

// Path gives the state directory of this program for the user whose environment lookupEnv is: $XDG_STATE_HOME/credresolve
// or ~/.local/state/credresolve on Unix (XDG Base Directory Specification), the local application data on Windows, the
// application support directory on macOS.
func Path(lookupEnv func(string) (string, bool)) (string, error) {
	if dir, ok := lookupEnv("XDG_STATE_HOME"); ok && filepath.IsAbs(dir) {
		return filepath.Join(dir, "credresolve"), nil
	}
	name, under := "HOME", []string{".local", "state"}
	switch runtime.GOOS {
	case "windows":
		name, under = "LocalAppData", nil
	case "darwin":
		under = []string{"Library", "Application Support"}
	}
	home, ok := lookupEnv(name)
	if !ok || !filepath.IsAbs(home) {
		return "", fmt.Errorf("no directory for state: $%s is not set to an absolute path", name)
	}
	return filepath.Join(append(append([]string{home}, under...), "credresolve")...), nil
}

// Ensure makes dir with mode 0700, its parents with 0755 less umask, and refuses a dir that is a link, or that others may
// enter or write.
func Ensure(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the state directory: %w", err)
	}
	return Check(dir)
}

// Check is Ensure that makes nothing: fs.ErrNotExist where there is no dir.
func Check(dir string) error {
	st, err := os.Lstat(dir)
	switch {
	case err != nil:
		return fmt.Errorf("look at the state directory: %w", err)
	case !st.IsDir():
		return fmt.Errorf("the state directory %s is not a directory", dir)
	case runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("the state directory %s is open to others; run: chmod 700 %s", dir, dir)
	}
	return ownedByUs(dir, st)
}

// Key gives the random key of that name in dir, and makes it at the first call; concurrent processes get the same key.
func Key(dir, name string) ([]byte, error) {
	if err := Ensure(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, name+".key")
	if key, err := readKey(path); !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	tmp, err := os.CreateTemp(dir, "."+name+"-*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("make the key %s: %w", name, err)
	}
	defer os.Remove(tmp.Name())
	key := make([]byte, KeySize)
	_, _ = cryptorand.Read(key) // never fails, as its documentation says
	_, err = tmp.Write(key)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return nil, fmt.Errorf("write the key %s: %w", name, err)
	}
	// A link fails where the key exists by now, which a rename would replace.
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("keep the key %s: %w", name, err)
	}
	return readKey(path)
}

func readKey(path string) ([]byte, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() != KeySize || runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s is not a key file of %d bytes and mode 0600; remove it to get a new one", path, KeySize)
	}
	return os.ReadFile(path)
}

// Lock takes the lock of that name among all processes and goroutines of this host that use dir, waiting until ctx ends.
// unlock gives it back; the lock file stays.
func Lock(ctx context.Context, dir, name string) (unlock func(), err error) {
	if err := Ensure(dir); err != nil {
		return nil, err
	}
	l := flock.New(filepath.Join(dir, name+".lock"), flock.SetPermissions(0o600))
	if _, err := l.TryLockContext(ctx, 2*time.Millisecond); err != nil {
		_ = l.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("take the lock %s: %w", name, err)
	}
	return func() { _ = l.Close() }, nil
}

// LockUnless is Lock that gives up when done says so, which it asks before each try: unlock is then nil. It tries ever less
// often, so that many processes can wait.
func LockUnless(ctx context.Context, dir, name string, done func() bool) (unlock func(), err error) {
	if err := Ensure(dir); err != nil {
		return nil, err
	}
	l := flock.New(filepath.Join(dir, name+".lock"), flock.SetPermissions(0o600))
	for pause := 4 * time.Millisecond; ; pause = min(pause*3/2, 200*time.Millisecond) {
		if done() {
			_ = l.Close()
			return nil, nil
		}
		locked, err := l.TryLock()
		if locked {
			return func() { _ = l.Close() }, nil
		}
		if err != nil {
			_ = l.Close()
			return nil, fmt.Errorf("take the lock %s: %w", name, err)
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			_ = l.Close()
			return nil, ctx.Err()
		}
	}
}
