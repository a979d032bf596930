package openclaw

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/credresolve/credresolve/internal/safefile"
)

// fileChange is a file and what it is to hold. before and after hold secrets; wipe clears them.
type fileChange struct {
	path          string
	before, after []byte
	fresh         bool // there is no file yet
	stamp         safefile.Stamp
	info          fs.FileInfo
}

// changePolicy takes a file that an exchange leaves as it was but for its content: under a second name, or behind a link, the
// old content would stay.
var changePolicy = safefile.Policy{Links: safefile.LinksAbove, OpenParents: true, MaxBytes: 64 << 20}

// openChange reads the file at path to change it. A file that does not exist is fresh.
func openChange(ctx context.Context, path string) (*fileChange, error) {
	c := &fileChange{path: path}
	content, stamp, err := safefile.Read(ctx, path, changePolicy)
	var refused *safefile.Error
	switch {
	case errors.As(err, &refused) && refused.Problem == safefile.NotFound:
		c.fresh = true
		return c, nil
	case errors.As(err, &refused) && refused.Problem == safefile.Symlink:
		target, err := filepath.EvalSymlinks(path)
		if err != nil {
			return nil, fmt.Errorf("%s is a symbolic link that leads nowhere; nothing was changed", path)
		}
		return nil, fmt.Errorf("%s is a symbolic link to %s, which would be replaced by a file; nothing was changed: name the file itself, with OPENCLAW_CONFIG_PATH where it is the configuration", path, target)
	case errors.As(err, &refused) && refused.Problem == safefile.HardLink:
		return nil, fmt.Errorf("%s has a second name (a hard link), under which its secrets would stay; nothing was changed: remove the other name", path)
	case err != nil:
		return nil, fmt.Errorf("%w; nothing was changed", err)
	}
	if c.info, err = os.Lstat(path); err != nil {
		return nil, fmt.Errorf("%s: %w", path, plainly(err))
	}
	c.before, c.stamp = content, stamp
	return c, nil
}

func (c *fileChange) wipe() {
	clear(c.before)
	clear(c.after)
}

// unchanged fails when the file is not what it was when it was read.
func (c *fileChange) unchanged(ctx context.Context) error {
	now, stamp, err := safefile.Read(ctx, c.path, changePolicy)
	defer clear(now)
	var refused *safefile.Error
	if errors.As(err, &refused) && refused.Problem == safefile.NotFound && c.fresh {
		return nil
	}
	if err != nil || c.fresh || !stamp.Equal(c.stamp) || !bytes.Equal(now, c.before) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%s was changed meanwhile by another program; run the command again", c.path)
	}
	return nil
}

// staged is a change whose content is written, and not yet in its place.
type staged struct {
	*fileChange
	temp *os.File
	name string // empty: the file has no name yet
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

// stage writes content beside path, with the owner and the mode of info, where it has either.
func (c *fileChange) stage(content []byte) (_ *staged, err error) {
	dir := filepath.Dir(c.path)
	if c.fresh {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, plainly(err)
		}
	}
	s := &staged{fileChange: c}
	if s.temp = unnamed(dir); s.temp == nil {
		if s.temp, err = os.CreateTemp(dir, leftover(c.path)+"*"); err != nil { // mode 0600
			return nil, plainly(err)
		}
		s.name = s.temp.Name()
	}
	defer func() {
		if err != nil {
			s.drop()
		}
	}()
	if err := lockTemp(s.temp); err != nil {
		return nil, plainly(err)
	}
	if _, err := s.temp.Write(content); err != nil {
		return nil, plainly(err)
	}
	if c.info != nil {
		if err := keepOwner(s.temp, c.info); err != nil {
			return nil, fmt.Errorf("its owner cannot be kept: %w", plainly(err))
		}
		if err := s.temp.Chmod(c.info.Mode().Perm()); err != nil {
			return nil, plainly(err)
		}
	}
	return s, plainly(s.temp.Sync())
}

// place puts the staged content where it belongs.
func (s *staged) place() error {
	if s.name == "" {
		name, err := giveName(s.temp, filepath.Join(filepath.Dir(s.path), leftover(s.path)))
		if err != nil {
			return plainly(err)
		}
		s.name = name
	}
	if runtime.GOOS == "windows" {
		_ = s.temp.Close() // it was synced; an open file has no other name there
	}
	if err := os.Rename(s.name, s.path); err != nil {
		var link *os.LinkError
		if errors.As(err, &link) {
			return link.Err
		}
		return err
	}
	s.name = ""
	return nil
}

// drop gives the staged content up, or what placing it left open.
func (s *staged) drop() {
	if s.name != "" {
		_ = os.Remove(s.name)
	}
	_ = s.temp.Close()
}

// exchange puts all changes in place, in their order, or none: every content is written before the first is put in place, and
// a failure puts back those that are there already. step, which may be nil, is told of each step before it; its error is a
// failure of that step.
func exchange(ctx context.Context, changes []*fileChange, step func(string) error) error {
	if step == nil {
		step = func(string) error { return nil }
	}
	var all []*staged
	defer func() {
		for _, s := range all {
			s.drop()
		}
	}()
	for _, c := range changes {
		sweep(c.path)
		if err := step("stage " + filepath.Base(c.path)); err != nil {
			return err
		}
		s, err := c.stage(c.after)
		if err != nil {
			return fmt.Errorf("%s cannot be written: %w; nothing was changed", c.path, err)
		}
		all = append(all, s)
	}
	for i, s := range all {
		err := step("place " + filepath.Base(s.path))
		if err == nil {
			err = s.unchanged(ctx)
		}
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			if err = s.place(); err != nil {
				err = fmt.Errorf("%s cannot be replaced: %w", s.path, err)
			}
		}
		if err != nil {
			return putBack(context.WithoutCancel(ctx), changes[:i], err)
		}
		syncDir(s.path)
	}
	return step("done")
}

// putBack gives files their old content again. What somebody changed since stays.
func putBack(ctx context.Context, done []*fileChange, cause error) error {
	if len(done) == 0 {
		return fmt.Errorf("%w; nothing was changed", cause)
	}
	var kept []string
	for _, c := range done {
		if err := c.restore(ctx); err != nil {
			kept = append(kept, fmt.Sprintf("%s (%v)", c.path, err))
		}
	}
	if len(kept) > 0 {
		return fmt.Errorf("%w; changed and not put back: %s", cause, strings.Join(kept, ", "))
	}
	return fmt.Errorf("%w; the files that had been changed are as they were", cause)
}

func (c *fileChange) restore(ctx context.Context) error {
	now, _, err := safefile.Read(ctx, c.path, changePolicy)
	defer clear(now)
	if err != nil || !bytes.Equal(now, c.after) {
		return errors.New("another program changed it since")
	}
	if c.fresh {
		return plainly(os.Remove(c.path))
	}
	s, err := c.stage(c.before)
	if err != nil {
		return err
	}
	defer s.drop()
	if err := s.place(); err != nil {
		return err
	}
	syncDir(c.path)
	return nil
}

// syncDir makes a new name last. Where a directory cannot be synced the name is there all the same.
func syncDir(path string) {
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
}
