package keychain

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/99designs/keyring"

	"github.com/credresolve/credresolve/backend"
)

// files keeps each item in an encrypted file of its own, in the form of the keyring library: a JSON Web Encryption in
// compact form, whose key comes from the password by PBKDF2.
type files struct {
	dir      string // empty: not configured
	password backend.Source
	line     line
	shut     atomic.Bool
}

const (
	// filesAtOnce bounds the derivations of keys under way, which cost a few milliseconds of processor time each.
	filesAtOnce = 4
	// staging begins the name of a directory in which a file is written before it takes the place of another.
	staging = ".credresolve-staging-"
	// stagingLife is after how long such a directory is what a killed process left.
	stagingLife = time.Hour
)

func newFiles(c Config, base string, env env) *files {
	f := &files{password: c.Password, line: newLine(filesAtOnce)}
	if c.Path != "" {
		f.dir = env.path(base, c.Path)
	}
	return f
}

func (f *files) name() string { return fileName }

func (f *files) close() { f.shut.Store(true) }

func (f *files) describe() backend.Description {
	return backend.Description{Detail: "encrypted files in " + f.dir, MaxValue: maxValue}
}

func (f *files) works(context.Context) (string, error) {
	if f.dir == "" || f.password.IsZero() {
		return "", backend.Errorf(backend.CodeInvalidConfig, "it needs the settings path and password")
	}
	return "path and password are set, and nothing before it works", nil
}

// file gives the name of the file of id: id itself, its slashes and percent signs escaped.
func (f *files) file(id string) (string, error) {
	if isQuery(id) {
		return "", errQueryHere
	}
	const longest = 255 // of every usual file system
	name := strings.ReplaceAll(strings.ReplaceAll(id, "%", "%25"), "/", "%2F")
	if len(name) > longest || strings.HasPrefix(name, staging) || !filepath.IsLocal(name) || name == "." || strings.ContainsRune(name, filepath.Separator) {
		return "", errName
	}
	return filepath.Join(f.dir, name), nil
}

func (f *files) get(ctx context.Context, id string) ([]byte, error) {
	file, err := f.file(id)
	if err != nil {
		return nil, err
	}
	it, _, err := f.read(ctx, file, id)
	if err != nil {
		return nil, err
	}
	if it.Key != id { // the file system does not tell upper from lower case
		clear(it.Data)
		return nil, errNoItem
	}
	if it.Data == nil {
		return []byte{}, nil
	}
	return it.Data, nil
}

// read decrypts a file, and gives the password that did it. When the password is refused, and there is a newer one, it
// tries that too.
func (f *files) read(ctx context.Context, file, id string) (it keyring.Item, password string, err error) {
	_, err = inLine(ctx, f.line, func() (struct{}, error) {
		if f.shut.Load() {
			return struct{}{}, errClosed
		}
		return struct{}{}, checkFile(file)
	})
	refused := ""
	for attempt := 0; err == nil; attempt++ {
		var revision string
		if password, revision, err = f.askPassword(ctx); err != nil {
			break
		}
		if attempt > 0 && revision == refused {
			return keyring.Item{}, "", errPassword
		}
		it, err = inLine(ctx, f.line, func() (keyring.Item, error) {
			ring, err := openFiles(f.dir, password)
			if err != nil {
				return keyring.Item{}, err
			}
			return ring.Get(id)
		})
		var system *fs.PathError
		switch {
		case err == nil:
			return it, password, nil
		case ctx.Err() != nil, errors.As(err, &system), errors.Is(err, keyring.ErrKeyNotFound), errors.Is(err, errCrashed):
			// It is not the password.
		default: // the library has no error of its own for a wrong password
			f.password.Reject(revision)
			if attempt > 0 {
				return keyring.Item{}, "", errPassword
			}
			refused, err = revision, nil
		}
	}
	return keyring.Item{}, "", osError("read the encrypted file", err)
}

func (f *files) askPassword(ctx context.Context) (password, revision string, err error) {
	secret, revision, err := f.password.Get(ctx)
	if errors.Is(err, backend.ErrNotFound) {
		return "", "", errLostPassword // not "not found", which the document's fallbacks and defaults would hide
	}
	if err != nil {
		return "", "", err
	}
	if secret.Len() == 0 {
		return "", "", errNoPassword
	}
	b := secret.Reveal()
	defer clear(b)
	return string(b), revision, nil
}

func openFiles(dir, password string) (keyring.Keyring, error) {
	return keyring.Open(keyring.Config{
		AllowedBackends: []keyring.BackendType{keyring.FileBackend}, FileDir: dir, FilePasswordFunc: keyring.FixedStringPrompt(password),
	})
}

// checkFile fails unless file has the form in which items are kept, so that a truncated file is not held for a wrong
// password, and the library decrypts nothing else.
func checkFile(file string) error {
	const largest = 3 * maxValue // base64 twice, and more
	st, err := os.Stat(file)
	switch {
	case err != nil:
		return osError("look at the encrypted file", err)
	case !st.Mode().IsRegular():
		return errName
	case st.Size() > largest:
		return errDamaged
	}
	token, err := os.ReadFile(file)
	if err != nil {
		return osError("read the encrypted file", err)
	}
	return checkToken(token)
}

func checkToken(token []byte) error {
	parts := bytes.Split(token, []byte("."))
	if len(parts) != 5 {
		return errDamaged
	}
	for i, p := range parts {
		decoded := make([]byte, base64.RawURLEncoding.DecodedLen(len(p)))
		n, err := base64.RawURLEncoding.Decode(decoded, p)
		if err != nil {
			return errDamaged
		}
		const header, tag, tagSize = 0, 4, 16
		switch i {
		case tag:
			if n != tagSize {
				return errDamaged
			}
		case header:
			var h struct{ Alg, Enc, Zip string }
			if json.Unmarshal(decoded[:n], &h) != nil || h.Alg != "PBES2-HS256+A128KW" || h.Enc != "A256GCM" || h.Zip != "" {
				return errDamaged
			}
		}
	}
	return nil
}

func (f *files) put(ctx context.Context, id string, value []byte) error {
	file, err := f.file(id)
	if err != nil {
		return err
	}
	password, err := f.writingPassword(ctx, file, id)
	if err != nil {
		return err
	}
	value = bytes.Clone(value) // the call may outlive ctx, and the caller
	_, err = inLine(ctx, f.line, func() (struct{}, error) {
		defer clear(value)
		return struct{}{}, osError("write the encrypted file", f.write(file, keyring.Item{Key: id, Data: value}, password))
	})
	return err
}

// writingPassword gives the password under which an item is to be written: one that opens the items that are there, so that
// a mistyped one does not make a second store of the first.
func (f *files) writingPassword(ctx context.Context, file, id string) (string, error) {
	it, password, err := f.read(ctx, file, id)
	clear(it.Data)
	switch {
	case err == nil && it.Key != id:
		return "", errCollides
	case err == nil:
		return password, nil
	case !errors.Is(err, backend.ErrNotFound) && !errors.Is(err, errDamaged): // a damaged item may be replaced
		return "", err
	}
	entries, err := f.list(ctx, "")
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		other, err := f.file(e.ID)
		if err != nil || other == file {
			continue
		}
		it, password, err := f.read(ctx, other, e.ID)
		clear(it.Data)
		if errors.Is(err, backend.ErrNotFound) || errors.Is(err, errDamaged) || errors.Is(err, errName) {
			continue
		}
		return password, err
	}
	password, _, err = f.askPassword(ctx)
	return password, err
}

// write encrypts an item into a new file and puts that in the place of the old one. The library would write over the old
// one, and lose both when it is interrupted or the disk is full.
func (f *files) write(file string, it keyring.Item, password string) error {
	if f.shut.Load() {
		return errClosed
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	f.sweep()
	stage, err := os.MkdirTemp(f.dir, staging)
	if err != nil {
		return err
	}
	defer os.RemoveAll(stage)
	ring, err := openFiles(stage, password)
	if err != nil {
		return err
	}
	if err := ring.Set(it); err != nil {
		return err
	}
	staged := filepath.Join(stage, filepath.Base(file))
	if err := flush(staged); err != nil {
		return err
	}
	if err := os.Rename(staged, file); err != nil {
		return err
	}
	_ = flush(f.dir) // not every system flushes directories
	return nil
}

// flush makes what was written to a file outlive a power cut.
func flush(path string) error {
	h, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		if h, err = os.Open(path); err != nil { // a directory
			return err
		}
	}
	return errors.Join(h.Sync(), h.Close())
}

// sweep removes what killed processes left.
func (f *files) sweep() {
	names, _ := os.ReadDir(f.dir)
	for _, d := range names {
		if !d.IsDir() || !strings.HasPrefix(d.Name(), staging) {
			continue
		}
		if st, err := d.Info(); err == nil && time.Since(st.ModTime()) > stagingLife {
			_ = os.RemoveAll(filepath.Join(f.dir, d.Name()))
		}
	}
}

func (f *files) remove(ctx context.Context, id string) error {
	file, err := f.file(id)
	if err != nil {
		return err
	}
	_, err = inLine(ctx, f.line, func() (struct{}, error) {
		if f.shut.Load() {
			return struct{}{}, errClosed
		}
		names, err := os.ReadDir(f.dir)
		if err != nil {
			return struct{}{}, osError("list the encrypted files", err)
		}
		for _, d := range names {
			if d.Name() == filepath.Base(file) { // exactly, also where the file system does not tell upper from lower case
				return struct{}{}, osError("remove the encrypted file", os.Remove(file))
			}
		}
		return struct{}{}, errNoItem
	})
	return err
}

func (f *files) list(ctx context.Context, prefix string) ([]backend.Entry, error) {
	return inLine(ctx, f.line, func() ([]backend.Entry, error) {
		if f.shut.Load() {
			return nil, errClosed
		}
		names, err := os.ReadDir(f.dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil // nothing was written yet
		}
		if err != nil {
			return nil, osError("list the encrypted files", err)
		}
		var entries []backend.Entry
		for _, d := range names {
			id, err := url.PathUnescape(d.Name())
			if err != nil || !d.Type().IsRegular() || !strings.HasPrefix(id, prefix) || checkID(id) != nil {
				continue
			}
			if file, err := f.file(id); err != nil || filepath.Base(file) != d.Name() {
				continue
			}
			e := backend.Entry{ID: id}
			if info, err := d.Info(); err == nil {
				e.Modified = info.ModTime()
			}
			entries = append(entries, e)
		}
		return entries, nil
	})
}

// probe checks that the directory can be read, or made, and that there is a password. It decrypts nothing.
func (f *files) probe(ctx context.Context) error {
	if _, err := f.list(ctx, ""); err != nil {
		return err
	}
	_, _, err := f.askPassword(ctx)
	return err
}
