package listen

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/safefile"
)

// What a token is.
const (
	tokenBits = 256 // of one that we make
	minToken  = 16  // bytes
	maxToken  = 4096
)

// tokenPatience is how long another process may take to make a token.
const tokenPatience = 5 * time.Second

// Token gives the token in the file at path, which must be absolute, and makes one of 256 random bits at the first call;
// concurrent processes get the same. The file is regular, has one name, is this user's, and nobody else may read it; it holds
// 16 to 4,096 bytes of printable ASCII without spaces, and at most one line end after them. The caller owns the bytes. Any
// error but that the system failed has code invalid_config.
func Token(path string) ([]byte, error) {
	if !filepath.IsAbs(path) {
		return nil, &backend.Error{Code: backend.CodeInvalidConfig, Reason: "the path of a token file is not absolute", Remedy: "write it from the root directory on"}
	}
	path = filepath.Clean(path)
	token, err := readToken(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	if err := makeToken(path); err != nil {
		return nil, err
	}
	if token, err = readToken(path); errors.Is(err, fs.ErrNotExist) {
		return nil, backend.Errorf(backend.CodeUnavailable, "the token file %s was removed as soon as it was made", path)
	}
	return token, err
}

// Equal reports whether two tokens are the same, in a time that tells nothing of either, not even of their lengths beyond that
// of hashing them.
func Equal(a, b []byte) bool {
	x, y := sha256.Sum256(a), sha256.Sum256(b)
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// readToken gives fs.ErrNotExist, and no other error of that kind, where there is no file.
func readToken(path string) ([]byte, error) {
	switch st, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fs.ErrNotExist
	case err == nil && st.Mode().Type() == fs.ModeSymlink:
		return nil, &backend.Error{Code: backend.CodeInvalidConfig, Reason: "the token file " + path + " is a symbolic link", Remedy: "name the file that it leads to"}
	}
	p := trusted()
	p.Deny, p.MaxBytes = 0o077, maxToken+2
	content, _, err := safefile.Read(context.Background(), path, p)
	if e, ok := errors.AsType[*safefile.Error](err); ok && e.Problem == safefile.NotFound {
		return nil, fs.ErrNotExist
	} else if err != nil {
		return nil, refused(err)
	}
	token, ok := trim(content)
	if !ok {
		clear(content)
		return nil, &backend.Error{
			Code:   backend.CodeInvalidConfig,
			Reason: fmt.Sprintf("the token file %s does not hold one line of %d to %d printable ASCII characters without spaces", path, minToken, maxToken),
			Remedy: "remove it to get a new random one",
		}
	}
	return token, nil
}

// trim takes one line end off content, and reports whether what is left can be a token.
func trim(content []byte) (token []byte, ok bool) {
	token = content
	if n := len(token); n > 0 && token[n-1] == '\n' {
		token = token[:n-1]
		if n := len(token); n > 0 && token[n-1] == '\r' {
			token = token[:n-1]
		}
	}
	for _, c := range token {
		if c <= ' ' || c > '~' {
			return nil, false
		}
	}
	return token, minToken <= len(token) && len(token) <= maxToken
}

// makeToken makes the file at path, unless it is there by now.
func makeToken(path string) (err error) {
	dir := filepath.Dir(path)
	made, err := makeDirs(dir)
	defer func() {
		if err != nil {
			unmake(made)
		}
	}()
	if err != nil {
		return err
	}
	if err := checkWay(path); err != nil {
		return err
	}
	// In a sticky directory such as /tmp anybody could lay a file of theirs where ours is to be.
	if st, err := os.Stat(dir); err != nil {
		return failed(err, "cannot look at %s", dir)
	} else if runtime.GOOS != "windows" && st.Mode().Perm()&0o022 != 0 {
		return &backend.Error{
			Code: backend.CodeInvalidConfig, Reason: fmt.Sprintf("no token is made in %s, which others can write to (mode %04o)", dir, st.Mode().Perm()),
			Remedy: "set token_file to a file in a directory of its own, which is made if it does not exist",
		}
	}
	l, err := take(path+".lock", tokenPatience)
	switch {
	case errors.Is(err, errHeld):
		return backend.Errorf(backend.CodeUnavailable, "another process has been making the token file %s for %v", path, tokenPatience)
	case err != nil:
		return failed(err, "cannot lock %s.lock", path)
	}
	defer l.release()
	if _, err := os.Lstat(path); err == nil {
		return nil // another process was first
	}
	// Written aside and renamed: nobody reads half of it, and it never has two names, as with a link. The name is always the
	// same, so that what a killed process left is overwritten.
	aside := path + ".new"
	_ = os.Remove(aside)
	f, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return failed(err, "cannot make the token file %s", path)
	}
	random := make([]byte, tokenBits/8)
	_, _ = rand.Read(random)                                // never fails, as its documentation says
	line := base64.RawURLEncoding.AppendEncode(nil, random) // without a line end: AWS SDKs refuse one
	defer clear(line)
	clear(random)
	for _, step := range []func() error{
		func() error { return f.Chmod(0o600) }, // whatever the file mode creation mask took away
		func() error { _, err := f.Write(line); return err },
		f.Sync,
	} {
		if err = step(); err != nil {
			break
		}
	}
	if failed := f.Close(); err == nil {
		err = failed
	}
	if err == nil {
		err = os.Rename(aside, path)
	}
	if err != nil {
		_ = os.Remove(aside)
		return failed(err, "cannot write the token file %s", path)
	}
	return nil
}
