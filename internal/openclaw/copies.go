package openclaw

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/authstore"
	"github.com/credresolve/credresolve/internal/json5"
	"github.com/credresolve/credresolve/internal/statedir"
)

// Copies are the auth profiles into which secrets were written through, remembered in a state directory: where they are and
// what they were resolved from, no secret. They end with the credential. It is safe for concurrent use, by several processes.
type Copies struct {
	// Dir is the state directory.
	Dir string
}

// Copy is an auth profile that holds a copy of a secret.
type Copy struct {
	Path    string `json:"path"` // of the auth-profiles.json
	Profile string `json:"profile"`
	Ref     string `json:"ref"` // short form
}

type copiesFile struct {
	Version int    `json:"version"`
	Copies  []Copy `json:"copies"`
}

const (
	copiesName = "profile-copies.json"
	copiesLock = "profile-copies"
	maxCopies  = 10_000
)

// List gives all copies.
func (c Copies) List() ([]Copy, error) {
	content, err := os.ReadFile(filepath.Join(c.Dir, copiesName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var f copiesFile
	if err == nil {
		err = json.Unmarshal(content, &f)
	}
	if err != nil || f.Version != 1 {
		return nil, backend.Errorf(backend.CodeUnavailable, "%s in the state directory cannot be read", copiesName)
	}
	return f.Copies, nil
}

// Write writes e as the profile of the agent that h names, marked with ref and revision, and remembers it. A profile that
// somebody else made is denied. Where profiles are kept in a database the error is an authstore.DatabaseError.
func (c Copies) Write(ctx context.Context, h authstore.Home, profile string, e authstore.Entry, ref credref.Ref, revision string) error {
	if err := authstore.CheckSecret(e.Secret); err != nil {
		return err
	}
	e.Metadata = authstore.Mark(ref.String(), revision)
	path := h.FilePath()
	if path == "" {
		return &authstore.DatabaseError{Path: h.Path}
	}
	// First of all it is remembered, since a copy that nobody knows of would not end.
	one := Copy{path, profile, ref.String()}
	known := false
	err := c.change(ctx, func(all []Copy) ([]Copy, error) {
		if known = slices.Contains(all, one); known {
			return all, nil
		}
		if len(all) >= maxCopies {
			return nil, backend.Errorf(backend.CodeUnavailable, "there are %d copies already", len(all))
		}
		return append(all, one), nil
	})
	if err != nil {
		return err
	}
	_, err = h.Update(ctx, func(stores *authstore.Stores, f *json5.File) ([]json5.Edit, error) {
		if err := stores.Writable(f, profile); err != nil {
			return nil, err
		}
		return authstore.Set(profile, e), nil
	})
	if err == nil {
		err = c.change(ctx, func(all []Copy) ([]Copy, error) {
			return slices.DeleteFunc(all, func(o Copy) bool { return o.Path == path && o.Profile == profile && o != one }), nil
		})
	} else if !known {
		err = errors.Join(err, c.change(ctx, func(all []Copy) ([]Copy, error) {
			return slices.DeleteFunc(all, func(o Copy) bool { return o == one }), nil
		}))
	}
	return err
}

// Remove removes the profile of the agent that h names, if we wrote it.
func (c Copies) Remove(ctx context.Context, h authstore.Home, profile string) error {
	err := c.remove(ctx, h, profile, func(p *authstore.Profile) error {
		if p == nil {
			return backend.Errorf(backend.CodeNotFound, "there is no such auth profile of the agent's own")
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.change(ctx, func(all []Copy) ([]Copy, error) {
		return slices.DeleteFunc(all, func(o Copy) bool { return o.Path == h.FilePath() && o.Profile == profile }), nil
	})
}

// remove takes a profile out that has our mark, if check of what is there, which may be nil, allows it.
func (c Copies) remove(ctx context.Context, h authstore.Home, profile string, check func(*authstore.Profile) error) error {
	_, err := h.Update(ctx, func(stores *authstore.Stores, f *json5.File) ([]json5.Edit, error) {
		p := stores.Own.Profiles[profile]
		if err := check(p); err != nil || p == nil {
			return nil, err
		}
		if err := stores.Writable(f, profile); err != nil {
			return nil, err
		}
		return authstore.Remove(f, profile), nil
	})
	return err
}

// End removes every copy of the secret of ref, whichever of its fields it is of: the secret was revoked or deleted. A profile
// that somebody changed since into one of their own stays. What could not be removed is still remembered, and the error names
// it; the next End tries again.
func (c Copies) End(ctx context.Context, ref credref.Ref) error {
	all, err := c.List()
	if err != nil {
		return err
	}
	var errs []error
	for _, one := range all {
		of, err := credref.Parse(one.Ref)
		if err != nil || of.Provider != ref.Provider || of.ID != ref.ID || ref.Version != "" && of.Version != ref.Version {
			continue
		}
		switch err := c.end(ctx, one); {
		case err != nil:
			errs = append(errs, fmt.Errorf("the copy of %s in the auth profile %s: %w", one.Ref, one.Profile, err))
		default:
			errs = append(errs, c.change(ctx, func(all []Copy) ([]Copy, error) {
				return slices.DeleteFunc(all, func(o Copy) bool { return o == one }), nil
			}))
		}
	}
	return errors.Join(errs...)
}

// end removes one copy.
func (c Copies) end(ctx context.Context, one Copy) error {
	h := authstore.Home{Path: one.Path}
	database, err := h.KeptInDatabase(ctx)
	if err != nil {
		return err
	}
	if database != "" { // a newer release took the file over, and the copy with it
		stores, err := authstore.Home{Path: database}.Read(ctx)
		if err != nil {
			return err
		}
		if p := stores.Own.Profiles[one.Profile]; p == nil || !p.Managed() || p.Metadata["ref"] != one.Ref {
			return nil
		}
		return &backend.Error{
			Code: backend.CodeUnsupported, Reason: "OpenClaw moved it to the database " + database + ", which is read alone",
			Remedy: "remove it there: openclaw models auth logout " + one.Profile,
		}
	}
	if _, err := os.Lstat(one.Path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err = c.remove(ctx, h, one.Profile, func(p *authstore.Profile) error {
		if p != nil && (!p.Managed() || p.Metadata["ref"] != one.Ref) {
			return errTheirs
		}
		return nil
	})
	if errors.Is(err, errTheirs) {
		return nil
	}
	return err
}

var errTheirs = errors.New("the profile is no copy any more")

// change rewrites what is remembered, under a lock.
func (c Copies) change(ctx context.Context, change func([]Copy) ([]Copy, error)) error {
	unlock, err := statedir.Lock(ctx, c.Dir, copiesLock)
	if err != nil {
		return err
	}
	defer unlock()
	all, err := c.List()
	if err != nil {
		return err
	}
	next, err := change(slices.Clone(all))
	if err != nil || slices.Equal(next, all) {
		return err
	}
	text, err := json.MarshalIndent(copiesFile{1, next}, "", "  ")
	if err != nil {
		return fmt.Errorf("remember the copies: %w", err)
	}
	tmp, err := os.CreateTemp(c.Dir, "."+copiesName+"-*") // mode 0600
	if err != nil {
		return fmt.Errorf("remember the copies: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(append(text, '\n'))
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), filepath.Join(c.Dir, copiesName))
	}
	if err != nil {
		return fmt.Errorf("remember the copies: %w", err)
	}
	return nil
}
