package openclaw

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/credresolve/credresolve/internal/safefile"
	"github.com/credresolve/credresolve/internal/staged"
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

// ReplaceFile puts after in the place of before, the content of the file at path, in one step: owner and mode stay, and a file
// that is not before any more stays as it is.
func ReplaceFile(ctx context.Context, path string, before, after []byte) error {
	full, err := filepath.Abs(path)
	if err != nil {
		return plainly(err)
	}
	c, err := openChange(ctx, full)
	if err != nil {
		return err
	}
	if c.fresh || !bytes.Equal(c.before, before) {
		return fmt.Errorf("%s was changed meanwhile; nothing was written", path)
	}
	c.after = after
	return exchange(ctx, []*fileChange{c}, nil)
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

// stagedChange is a fileChange whose new content is written, and not yet in its place.
type stagedChange struct {
	*fileChange
	content *staged.File
}

// stage writes content beside path, with the owner and the mode of info, where it has either.
func (c *fileChange) stage(content []byte) (_ *stagedChange, err error) {
	if c.fresh {
		if err := os.MkdirAll(filepath.Dir(c.path), 0o700); err != nil {
			return nil, plainly(err)
		}
	}
	f, err := staged.New(c.path)
	if err != nil {
		return nil, plainly(err)
	}
	defer func() {
		if err != nil {
			f.Drop()
		}
	}()
	if _, err := f.Write(content); err != nil {
		return nil, plainly(err)
	}
	if c.info != nil {
		if err := f.Like(c.info); err != nil {
			return nil, fmt.Errorf("its owner and mode cannot be kept: %w", plainly(err))
		}
	}
	return &stagedChange{c, f}, plainly(f.Sync())
}

// exchange puts all changes in place, in their order, or none: every content is written before the first is put in place, and
// a failure puts back those that are there already. step, which may be nil, is told of each step before it; its error is a
// failure of that step.
func exchange(ctx context.Context, changes []*fileChange, step func(string) error) error {
	if step == nil {
		step = func(string) error { return nil }
	}
	var all []*stagedChange
	defer func() {
		for _, s := range all {
			s.content.Drop()
		}
	}()
	for _, c := range changes {
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
			if err = s.content.Place(); err != nil {
				err = fmt.Errorf("%s cannot be replaced: %w", s.path, plainly(err))
			}
		}
		if err != nil {
			return putBack(context.WithoutCancel(ctx), changes[:i], err)
		}
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
	defer s.content.Drop()
	return plainly(s.content.Place())
}
