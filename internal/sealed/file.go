package sealed

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/safefile"
	"github.com/credresolve/credresolve/internal/statedir"
	"github.com/credresolve/credresolve/resolver"
)

const (
	maxFile = 128 << 20 // bytes; the cache has 64 MiB unless configured otherwise
	minKey  = 32        // bytes
	// workFactor is the exponent of scrypt's cost: 1 MiB and some milliseconds for each write, read and guess.
	workFactor = 10
	purpose    = "credresolve sealed copy, version 1"
	patient    = time.Second // for the lock of a predecessor that is about to end
	impatient  = 50 * time.Millisecond
)

// place is where the file is: its directory, and the lock on it.
type place struct {
	path   string
	unlock func() // nil: not held
}

// prepare checks the directory, takes the lock if it is not held, and removes what a writer that was killed left behind.
func (p *place) prepare(wait time.Duration) error {
	if !filepath.IsAbs(p.path) {
		return &backend.Error{Code: backend.CodeInvalidConfig, Reason: "the path of the sealed copy is not absolute"}
	}
	dir, name := filepath.Split(filepath.Clean(p.path))
	dir = filepath.Clean(dir)
	if err := statedir.Ensure(dir); err != nil {
		return &backend.Error{
			Code: backend.CodeInvalidConfig, Reason: "the sealed copy has no safe place: " + why(err),
			Remedy: "give it a directory of its own with mode 0700",
		}
	}
	if p.unlock != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	unlock, err := statedir.Lock(ctx, dir, name)
	if err != nil {
		return &backend.Error{
			Code: backend.CodeConflict, Reason: "another process keeps its values in " + p.path, Remedy: "give each sidecar a path of its own",
		}
	}
	p.unlock = unlock
	left, err := filepath.Glob(filepath.Join(escape(dir), "."+escape(name)+".*"+tempSuffix))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	if err != nil {
		return backend.Errorf(backend.CodeInternal, "what was left of the sealed copy cannot be removed: %s", why(err))
	}
	return nil
}

func (p *place) release() {
	if p.unlock != nil {
		p.unlock()
		p.unlock = nil
	}
}

const tempSuffix = ".sealing"

// escape makes path mean itself in a pattern of filepath.Glob.
func escape(path string) string {
	if runtime.GOOS == "windows" { // where there are no escapes, and no such names
		return path
	}
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// read gives what the file holds, nothing where there is none. Its errors say why the file is not used.
func (k *Keeper) read(ctx context.Context) ([]resolver.Remembered, error) {
	if err := k.place.prepare(patient); err != nil {
		return nil, err
	}
	policy := safefile.Policy{Owners: owners(), Deny: 0o077, Links: safefile.LinksTrusted, MaxBytes: k.limit}
	content, _, err := safefile.Read(ctx, k.o.Path, policy)
	var refused *safefile.Error
	switch {
	case err == nil:
	case errors.As(err, &refused) && refused.Problem == safefile.NotFound:
		return nil, nil
	case errors.As(err, &refused):
		return nil, &backend.Error{Code: backend.CodeInvalidConfig, Reason: "the sealed copy is not used: " + refused.Path + " " + refused.Reason, Remedy: refused.Remedy}
	default:
		return nil, err
	}
	passphrase, err := k.passphrase(ctx)
	if err != nil {
		return nil, err
	}
	identity, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, k.notUsed("it cannot be decrypted")
	}
	identity.SetMaxWorkFactor(workFactor) // else a foreign file could make us work for minutes
	opened, err := age.Decrypt(bytes.NewReader(content), identity)
	var foreign *age.NoIdentityMatchError
	switch {
	case errors.As(err, &foreign):
		return nil, k.notUsed("it was sealed with another key, or was altered")
	case err != nil:
		return nil, k.notUsed("it is damaged, or no sealed copy")
	}
	plain := make([]byte, len(content)) // never less than what is in it
	defer clear(plain)
	n, err := fill(plain, opened)
	if err != nil {
		return nil, k.notUsed("it is cut off or was altered")
	}
	rem, err := decode(plain[:n])
	switch {
	case errors.Is(err, errVersion):
		return nil, k.notUsed("it is of another version of credresolve")
	case err != nil:
		return nil, k.notUsed("it is malformed")
	}
	return rem, nil
}

// fill reads all of r into b, which must be greater. io.ReadFull would not tell an authentic end from a missing one, and
// io.ReadAll leaves copies behind.
func fill(b []byte, r io.Reader) (n int, err error) {
	for n < len(b) && err == nil {
		var got int
		got, err = r.Read(b[n:])
		n += got
	}
	if err == io.EOF {
		return n, nil
	}
	return n, errors.Join(err, io.ErrShortBuffer)
}

func (k *Keeper) notUsed(reason string) error {
	return &backend.Error{Code: backend.CodeInternal, Reason: fmt.Sprintf("the sealed copy %s is not used: %s", k.o.Path, reason), Remedy: "nothing is to be done: it is replaced at the next write"}
}

// passphrase gives what the file is encrypted with.
func (k *Keeper) passphrase(ctx context.Context) (string, error) {
	key, err := k.o.Key(ctx)
	if err != nil {
		code := backend.CodeOf(err)
		return "", &backend.Error{Code: code, Reason: "the key of the sealed copy is not to be had (" + strings.ReplaceAll(string(code), "_", " ") + ")"}
	}
	var derived []byte
	_ = key.Use(func(b []byte) error {
		if len(b) >= minKey {
			derived, err = hkdf.Key(sha256.New, b, nil, purpose, 32)
		}
		return nil
	})
	defer clear(derived)
	switch {
	case err != nil:
		return "", backend.Errorf(backend.CodeInternal, "the key of the sealed copy cannot be used")
	case derived == nil:
		return "", &backend.Error{
			Code: backend.CodeInvalidConfig, Reason: fmt.Sprintf("the key of the sealed copy is shorter than %d characters", minKey),
			Remedy: "use a random one, as serve.sealed.key_file makes it, or as from: openssl rand -base64 32",
		}
	}
	return base64.RawStdEncoding.EncodeToString(derived), nil
}

// write replaces the file by one of rem.
func (k *Keeper) write(ctx context.Context, rem []resolver.Remembered) (err error) {
	if err := k.place.prepare(impatient); err != nil {
		return err
	}
	passphrase, err := k.passphrase(ctx)
	if err != nil {
		return err
	}
	recipient, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return backend.Errorf(backend.CodeInternal, "the key of the sealed copy cannot be used")
	}
	recipient.SetWorkFactor(workFactor)
	dir, name := filepath.Split(k.o.Path)
	temp := filepath.Join(dir, "."+name+"."+rand.Text()+tempSuffix)
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return k.notWritten(err)
	}
	defer func() {
		if err != nil {
			_ = file.Close() // a second time it does nothing
			_ = os.Remove(temp)
			err = k.notWritten(err)
		}
	}()
	if err := file.Chmod(0o600); err != nil && runtime.GOOS != "windows" { // whatever umask takes away
		return err
	}
	plain, n := encode(rem, k.limit-k.limit/1024-4096) // what encryption adds is less
	defer clear(plain)
	if n < len(rem) {
		k.o.Warn(backend.Errorf(backend.CodeInternal, "the sealed copy has no room for %d of %d secrets", len(rem)-n, len(rem)))
	}
	out := bufio.NewWriterSize(file, 256<<10)
	seal, err := age.Encrypt(out, recipient)
	if err != nil {
		return err
	}
	if _, err := seal.Write(plain); err != nil {
		return err
	}
	if err := errors.Join(seal.Close(), out.Flush(), file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, k.o.Path); err != nil {
		return err
	}
	return syncDir(dir)
}

func (k *Keeper) notWritten(err error) error {
	return backend.Errorf(backend.CodeUnavailable, "the sealed copy %s cannot be written: %s", k.o.Path, why(err))
}

// remove takes the file away, if there is one.
func (k *Keeper) remove() error {
	if err := k.place.prepare(impatient); err != nil {
		return err
	}
	err := os.Remove(k.o.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(filepath.Dir(k.o.Path))
	}
	if err != nil {
		return backend.Errorf(backend.CodeUnavailable, "the sealed copy %s cannot be removed: %s", k.o.Path, why(err))
	}
	return nil
}

// syncDir makes a rename or removal last.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" { // where directories cannot be synced, and need not be
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// owners are who may own the file.
func owners() []int {
	if runtime.GOOS == "windows" {
		return nil
	}
	return []int{os.Geteuid()}
}

// why gives what the system says, without the path of a temporary file.
func why(err error) string {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err.Error()
	case errors.As(err, &link):
		return link.Err.Error()
	}
	return err.Error()
}
