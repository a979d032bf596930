package secretref

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/credresolve/credresolve/internal/safefile"
)

// pathCheck holds OpenClaw's rules for one file of a provider, and what it calls the file.
type pathCheck struct {
	label     string // "secrets.providers.vault.command"
	owner     int    // who is named as the owner that it should have
	owners    []int
	whose     string      // "effective" or "current"
	deny      fs.FileMode // 0o022 for a program, 0o066 for a secret
	hardLinks bool        // accepted
	dirs      []string    // lexical; empty: anywhere
	maxBytes  int64
	sizeLast  bool // the size is found when the file is read, after owner and mode
	insecure  bool // accepts every owner and mode
}

// expand gives the absolute path that a configured one means: white space is taken off, "~" is the home directory, and a
// relative path starts at h.Dir.
func (h Host) expand(path string) (string, error) {
	path = trim(path)
	if path == "~" || strings.HasPrefix(path, "~/") || strings.HasPrefix(path, `~\`) {
		if h.Home == "" {
			return "", errors.New("no home directory")
		}
		path = h.Home + path[1:]
	}
	if !filepath.IsAbs(path) {
		dir := h.Dir
		if dir == "" {
			var err error
			if dir, err = os.Getwd(); err != nil {
				return "", err
			}
		}
		path = filepath.Join(dir, path)
	}
	return filepath.Clean(path), nil
}

// setOwners says who may own the file: the host's owners, else the user uid.
func (c *pathCheck) setOwners(h Host, uid int, whose string) {
	c.owners, c.whose = h.Owners, whose
	if len(c.owners) == 0 {
		c.owners = []int{uid}
	}
	c.owner = c.owners[0]
}

// base are the rules that come first: the path leads to a regular file, and is not a link itself.
var base = safefile.Policy{Links: safefile.LinksAbove, OpenParents: true, HardLinks: true}

// policy has all rules at once.
func (c *pathCheck) policy() safefile.Policy {
	p := base
	p.HardLinks, p.MaxBytes = c.hardLinks, c.maxBytes
	if !c.insecure {
		p.Deny, p.Owners = c.deny, c.owners
	}
	return p
}

// verifiable reports whether owner and mode say who else may use a file. On Windows access lists do.
const verifiable = runtime.GOOS != "windows"

// explain puts err, why policy refused the file at path, in OpenClaw's words. Of several faults OpenClaw names the first in
// its order, which is not safefile's, so the rules are tried one by one.
func (c *pathCheck) explain(g *group, path string, err error) *Error {
	rules := []safefile.Policy{base}
	if !c.hardLinks {
		p := base
		p.HardLinks = false
		rules = append(rules, p)
	}
	sized, closed, owned := base, base, base
	sized.MaxBytes, closed.Deny, owned.Owners = c.maxBytes, c.deny, c.owners
	if !c.sizeLast {
		rules = append(rules, sized)
	}
	if !c.insecure {
		rules = append(rules, closed, owned)
	}
	if c.sizeLast {
		rules = append(rules, sized)
	}
	var fault *safefile.Error
	for _, rule := range rules {
		f, failed := safefile.Open(path, rule)
		if failed == nil {
			_ = f.Close()
		} else if errors.As(failed, &fault) {
			break
		}
	}
	if fault == nil && !errors.As(err, &fault) {
		return g.failf(ProviderUnavailable, "%s is not readable: %s", c.label, visible(path))
	}
	at := visible(path)
	switch fault.Problem {
	case safefile.Symlink:
		return g.failf(ProviderUnavailable, "%s must not be a symlink: %s", c.label, at)
	case safefile.Directory, safefile.Special:
		return g.failf(ProviderUnavailable, "%s must be a file: %s", c.label, at)
	case safefile.HardLink:
		return g.failf(ProviderUnavailable, "%s must not be hardlinked: %s", c.label, at)
	case safefile.TooBig:
		if c.sizeLast {
			return g.failf(ProviderUnavailable, "File provider %q exceeded maxBytes (%d).", g.provider, c.maxBytes)
		}
		return g.failf(ProviderUnavailable, "%s exceeded maxBytes (%d).", c.label, c.maxBytes)
	case safefile.Mode:
		return g.failf(ProviderUnavailable, "%s permissions are too open: %s", c.label, visible(fault.Path))
	case safefile.Owner:
		return g.failf(ProviderUnavailable, "%s must be owned by the %s user (uid=%d): %s", c.label, c.whose, c.owner, visible(fault.Path))
	case safefile.Changed:
		return g.failf(ProviderUnavailable, "%s changed while it was used: %s", c.label, at)
	}
	return g.failf(ProviderUnavailable, "%s is not readable: %s", c.label, at)
}

// unverifiable says that owner and mode tell nothing here.
func (c *pathCheck) unverifiable(g *group, path, remedy string) *Error {
	return g.failf(PathUnverifiable, "%s ACL verification unavailable on Windows for %s. %s", c.label, visible(path), remedy)
}

// inside reports whether path lies in one of c's directories, by its text.
func (c *pathCheck) inside(h Host, path string) bool {
	if len(c.dirs) == 0 {
		return true
	}
	for _, dir := range c.dirs {
		if dir, err := h.expand(dir); err == nil {
			if rel, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(rel) {
				return true
			}
		}
	}
	return false
}
