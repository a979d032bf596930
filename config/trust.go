package config

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/statedir"
)

// harmless reports whether def touches nothing but files below the directory of the configuration, links resolved, and
// needs no provider that touches more. known holds what was found out before: providers may share much of their chains.
func (f *File) harmless(def *Provider, known map[*Provider]bool) bool {
	is, done := known[def]
	if done {
		return is
	}
	is = def.Known
	for _, r := range def.Reach {
		is = is && r.What == backend.ReachFile && f.below(r.Value)
	}
	for _, ref := range def.Chain {
		next := f.Provider(ref.Provider)
		is = is && next != nil && f.harmless(next, known)
	}
	known[def] = is
	return is
}

func (f *File) below(path string) bool { return below(f.Dir(), path) }

// below reports whether path, which starts at dir when it is relative, lies below dir, links resolved.
func below(dir, path string) bool {
	if strings.HasPrefix(path, "~") { // a home directory to some kinds
		return false
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	// Of what does not exist yet, the nearest directory that does decides. A link that leads nowhere is something, and leads
	// perhaps somewhere by the time when it is followed.
	resolved, rest := "", ""
	for at := filepath.Clean(path); ; at, rest = filepath.Dir(at), filepath.Join(filepath.Base(at), rest) {
		resolved, err = filepath.EvalSymlinks(at)
		if !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			break
		}
		if _, there := os.Lstat(at); !errors.Is(there, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return false
	}
	rel, err := filepath.Rel(dir, filepath.Join(resolved, rest))
	return err == nil && filepath.IsLocal(rel)
}

// NeedsTrust lists, one line each, what the file's providers touch beyond files below its own directory: executables and what
// is handed to them, addresses, environment variables, files outside, and refs to other providers. It is empty when nothing
// needs trust.
func (f *File) NeedsTrust() []string {
	var lines []string
	known := make(map[*Provider]bool)
	for _, def := range f.providers {
		if f.harmless(def, known) {
			continue
		}
		who := fmt.Sprintf("%s (%s)", def.Name, def.Kind)
		if !def.Known {
			lines = append(lines, fmt.Sprintf("%s: anything: this kind does not tell what it touches", who))
		}
		for _, r := range def.Reach {
			if r.What != backend.ReachFile || !f.below(r.Value) {
				lines = append(lines, fmt.Sprintf("%s: %s %s", who, r.What, r.Value))
			}
		}
		for _, ref := range def.Chain {
			lines = append(lines, fmt.Sprintf("%s: a secret of its own from %s", who, ref))
		}
	}
	lines = append(lines, f.secretRefsNeedTrust()...)
	lines = append(lines, f.eventsNeedTrust()...)
	if f.root.get("serve") != nil {
		lines = append(lines, "serve: where a sidecar listens, whom it answers, and what it keeps on disk")
	}
	return lines
}

// TrustStore remembers which configuration files, in which state, their user has read and trusts. Files in Dir are made at
// the first Add. It is safe for concurrent use, also by several processes.
type TrustStore struct {
	Dir string // a directory of this user, mode 0700
}

const trustFile = "trusted.json"

// Trusted reports whether f is trusted as it is now.
func (s TrustStore) Trusted(f *File) (bool, error) {
	known, err := s.List()
	return known[trustKey(f.path)] == f.SHA256(), err
}

// Add trusts f as it is now.
func (s TrustStore) Add(ctx context.Context, f *File) error {
	return s.change(ctx, func(known map[string]string) { known[trustKey(f.path)] = f.SHA256() })
}

// Remove ends the trust in the file at path; one that is not trusted is ErrNotFound.
func (s TrustStore) Remove(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	removed := false
	err = s.change(ctx, func(known map[string]string) {
		for _, key := range []string{path, trustKey(path)} {
			if _, ok := known[key]; ok {
				delete(known, key)
				removed = true
			}
		}
	})
	if err == nil && !removed {
		return backend.Errorf(backend.CodeNotFound, "%s is not trusted", path)
	}
	return err
}

// List gives the SHA-256 of each trusted file by its path.
func (s TrustStore) List() (map[string]string, error) {
	known := make(map[string]string)
	if s.Dir == "" {
		return known, nil
	}
	src, err := os.ReadFile(filepath.Join(s.Dir, trustFile))
	if errors.Is(err, fs.ErrNotExist) {
		return known, nil
	}
	if err == nil {
		err = statedir.Ensure(s.Dir) // nobody else may write what is trusted
	}
	if err == nil {
		err = json.Unmarshal(src, &known)
	}
	if err != nil {
		e := backend.Errorf(backend.CodeInternal, "the list of trusted files in %s cannot be read: %s", s.Dir, pathReason(err))
		e.Remedy = fmt.Sprintf("mend or remove %s; what was trusted needs trust again then", filepath.Join(s.Dir, trustFile))
		return map[string]string{}, e
	}
	return known, nil
}

func (s TrustStore) change(ctx context.Context, with func(map[string]string)) error {
	if s.Dir == "" {
		return backend.Errorf(backend.CodeInvalidConfig, "there is no directory to keep trust in: set $HOME or $XDG_STATE_HOME")
	}
	unlock, err := statedir.Lock(ctx, s.Dir, "trust")
	if err != nil {
		return err
	}
	defer unlock()
	known, err := s.List()
	if err != nil {
		return err
	}
	with(known)
	return writeFile(filepath.Join(s.Dir, trustFile), known)
}

func writeFile(path string, content map[string]string) error {
	out, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".trusted-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write the list of trusted files: %s", pathReason(err))
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(append(out, '\n'))
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write the list of trusted files: %s", pathReason(err))
	}
	return nil
}

// trustKey is the place of the file at path: its directory without links, to which relative paths in the file belong, and its
// name. The name may be a link: what it leads to is trusted here alone, where it cannot mean other files than were shown.
func trustKey(path string) string {
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}

// TrustedPaths lists the trusted files in order.
func (s TrustStore) TrustedPaths() ([]string, error) {
	known, err := s.List()
	return slices.Sorted(maps.Keys(known)), err
}

func compareText(a, b *node) int { return strings.Compare(a.text, b.text) }
