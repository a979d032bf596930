package authstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/credresolve/credresolve/backend"
)

const (
	staleAfter = 30 * time.Second // when OpenClaw takes a lock for left behind
	lockWait   = 10 * time.Second // how long to wait for one at most
	lockPause  = 20 * time.Millisecond
)

// holder is what a lock file says.
type holder struct {
	PID       int    `json:"pid"`
	CreatedAt string `json:"createdAt"`
}

// Lock takes the lock of the auth-profiles.json in dir, for a caller that exchanges the file itself. unlock gives it back.
func Lock(ctx context.Context, dir string) (unlock func(), err error) {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real // where OpenClaw puts the lock
	}
	return lock(ctx, filepath.Join(dir, FileName+".lock"))
}

// lock takes the lock file at path, as OpenClaw does: it exists while somebody holds it. One of a process that is gone, or
// older than staleAfter, is taken away.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	own, err := json.MarshalIndent(holder{os.Getpid(), time.Now().UTC().Format("2006-01-02T15:04:05.000Z")}, "", "  ")
	if err != nil {
		return nil, err
	}
	for until := time.Now().Add(lockWait); ; {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			_, err = f.Write(own)
			if err = errors.Join(err, f.Close()); err != nil {
				_ = os.Remove(path)
				return nil, backend.Errorf(backend.CodeUnavailable, "the lock %s cannot be written", path)
			}
			return func() {
				if has, err := os.ReadFile(path); err == nil && bytes.Equal(has, own) {
					_ = os.Remove(path)
				}
			}, nil
		}
		removing := runtime.GOOS == "windows" && errors.Is(err, fs.ErrPermission)
		if !errors.Is(err, fs.ErrExist) && !removing {
			return nil, writeError(path, err)
		}
		if takeStale(path) {
			continue
		}
		if time.Now().After(until) {
			return nil, &backend.Error{Code: backend.CodeUnavailable, Reason: "the lock " + path + " is held by another program", Remedy: "try again, or remove the file if no OpenClaw runs"}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockPause):
		}
	}
}

// takeStale removes the lock at path if it is left behind. Between the look and the removal another process may have done the
// same and hold a new one: that is put back.
func takeStale(path string) bool {
	seen, stale := look(path)
	if !stale {
		return false
	}
	aside := path + "." + rand.Text()
	if os.Rename(path, aside) != nil {
		return true // gone
	}
	defer os.Remove(aside)
	if has, err := os.ReadFile(aside); err == nil && !bytes.Equal(has, seen) {
		_ = os.Link(aside, path)
		return false
	}
	return true
}

func look(path string) (content []byte, stale bool) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > 4096 {
		return nil, false
	}
	old := func(t time.Time) bool { return time.Since(t) > staleAfter }
	if content, err = os.ReadFile(path); err != nil {
		return nil, false
	}
	var h holder
	if json.Unmarshal(content, &h) != nil || h.PID <= 0 {
		return content, old(info.ModTime()) // just being written, or by somebody else
	}
	at, err := time.Parse(time.RFC3339, h.CreatedAt)
	return content, gone(h.PID) || err == nil && old(at) || old(info.ModTime())
}
