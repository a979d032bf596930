package authstore

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/json5"
	"github.com/credresolve/credresolve/internal/safefile"
	"github.com/credresolve/credresolve/internal/staged"
)

// Entry is a profile that is written.
type Entry struct {
	Type     string // TypeAPIKey or TypeToken
	Provider string
	// Secret is a text; zero where Ref is set.
	Secret backend.Secret
	// Ref is the SecretRef that stands in place of a secret.
	Ref *Ref
	// Expires is the end of a token; zero: none.
	Expires time.Time
	// Metadata stands beside. Mark makes the metadata of a profile that is ours.
	Metadata map[string]string
}

// Mark is the metadata of a profile that this project wrote: what it was resolved from, and which revision that was, where
// they are known.
func Mark(ref, revision string) map[string]string {
	m := map[string]string{"managedBy": ManagedBy}
	if ref != "" {
		m["ref"] = ref
	}
	if revision != "" {
		m["revision"] = revision
	}
	return m
}

// The secrets that no profile holds.
var (
	errText   = backend.Errorf(backend.CodeUnsupported, "an auth profile holds texts in UTF-8 alone")
	errBlank  = backend.Errorf(backend.CodeUnsupported, "an auth profile holds no empty secret")
	errMasked = backend.Errorf(backend.CodeUnsupported, "the value is what a redaction leaves of a secret, which OpenClaw refuses")
)

// CheckSecret fails for what OpenClaw would not take as a secret, or JSON cannot hold.
func CheckSecret(s backend.Secret) error {
	valid := false
	_ = s.Use(func(text []byte) error {
		valid = utf8.Valid(text)
		return nil
	})
	p := Profile{Secret: s}
	switch {
	case !valid:
		return errText
	case blank(s):
		return errBlank
	case p.Masked():
		return errMasked
	}
	return nil
}

// ref is a Ref as JSON has it.
type ref struct {
	Source   string `json:"source"`
	Provider string `json:"provider"`
	ID       string `json:"id"`
}

// profile is an Entry as JSON has it, in the order that OpenClaw writes.
type profile struct {
	Type     string            `json:"type"`
	Provider string            `json:"provider"`
	Key      *string           `json:"key,omitempty"`
	KeyRef   *ref              `json:"keyRef,omitempty"`
	Token    *string           `json:"token,omitempty"`
	TokenRef *ref              `json:"tokenRef,omitempty"`
	Expires  int64             `json:"expires,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// Set gives the edits that make e the profile id.
func Set(id string, e Entry) []json5.Edit {
	p := profile{Type: e.Type, Provider: e.Provider, Metadata: e.Metadata}
	secret, at := &p.Key, &p.KeyRef
	if e.Type == TypeToken {
		secret, at = &p.Token, &p.TokenRef
		if !e.Expires.IsZero() {
			p.Expires = e.Expires.UnixMilli()
		}
	}
	if e.Ref != nil {
		*at = (*ref)(e.Ref)
	} else {
		t := text(e.Secret)
		*secret = &t
	}
	return []json5.Edit{{Path: []string{"profiles", id}, Value: p}}
}

// Delegate gives the edits that let the existing profile p take its secret from r, and leave no other secret in it. A mark of
// ours goes, since what is there is no longer a copy.
func Delegate(id string, p *Profile, r Ref) []json5.Edit {
	at := []string{"profiles", id}
	in := func(name string) []string { return append(slices.Clone(at), name) }
	name, others := "keyRef", []string{"key", "apiKey"}
	if p.Type == TypeToken {
		name, others = "tokenRef", []string{"token"}
	}
	edits := []json5.Edit{{Path: in(name), Value: ref(r)}}
	for _, other := range others {
		edits = append(edits, json5.Edit{Path: in(other), Delete: true})
	}
	if p.Managed() {
		for _, key := range []string{"managedBy", "ref", "revision"} {
			edits = append(edits, json5.Edit{Path: append(in("metadata"), key), Delete: true})
		}
	}
	return edits
}

// Remove gives the edits that take the profile id out, and what else of f names it: its place in an order, its use.
func Remove(f *json5.File, id string) []json5.Edit {
	edits := []json5.Edit{{Path: []string{"profiles", id}, Delete: true}}
	root := f.Root()
	if order := root.Get("order"); order != nil {
		for _, m := range order.Members {
			list, _ := m.Value.Value().([]any)
			rest := slices.DeleteFunc(slices.Clone(list), func(v any) bool { return v == id })
			switch at := []string{"order", m.Key}; {
			case len(rest) == len(list):
			case len(rest) == 0: // an empty order would mean: none of the provider's
				edits = append(edits, json5.Edit{Path: at, Delete: true})
			default:
				edits = append(edits, json5.Edit{Path: at, Value: rest})
			}
		}
	}
	if good := root.Get("lastGood"); good != nil {
		for _, m := range good.Members {
			if m.Value.Value() == id {
				edits = append(edits, json5.Edit{Path: []string{"lastGood", m.Key}, Delete: true})
			}
		}
	}
	if root.Get("usageStats", id) != nil {
		edits = append(edits, json5.Edit{Path: []string{"usageStats", id}, Delete: true})
	}
	return edits
}

const emptyStore = "{\n  \"version\": 1,\n  \"profiles\": {}\n}\n"

// Update edits the agent's auth-profiles.json. Under the lock it reads the file, or starts an empty one, asks change for edits,
// and exchanges the file as a whole, unless somebody wrote it meanwhile who does not keep to the lock: that is a conflict, and
// tried again twice. No edits: nothing is written. It gives the Stores' version then. A home that keeps profiles in a database
// is unsupported; the caller says what to do instead. Where there is neither file nor database only h.Path makes a new file.
//
// change may be called several times. stores are what Read gives.
func (h Home) Update(ctx context.Context, change func(stores *Stores, f *json5.File) ([]json5.Edit, error)) (version string, err error) {
	switch database, err := h.KeptInDatabase(ctx); {
	case err != nil:
		return "", err
	case database != "":
		return "", &DatabaseError{database}
	}
	path := h.FilePath()
	dir := filepath.Dir(path)
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real // where OpenClaw puts the lock
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if h.Path == "" {
			return "", &backend.Error{
				Code: backend.CodeUnsupported, Reason: "there is no " + path + " yet, and newer releases of OpenClaw do not look at one",
				Remedy: "let OpenClaw make its store first",
			}
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", writeError(dir, err)
		}
	}
	unlock, err := lock(ctx, filepath.Join(dir, FileName+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	for attempt := 1; ; attempt++ {
		err := h.exchange(ctx, path, change)
		if attempt < 3 && backend.CodeOf(err) == backend.CodeConflict && errors.Is(err, errMeanwhile) {
			continue
		}
		if err != nil {
			return "", err
		}
		return h.Version(ctx)
	}
}

// DatabaseError tells that profiles are kept in the database at Path, and are not written there.
type DatabaseError struct{ Path string }

func (e *DatabaseError) Error() string {
	return "auth profiles are kept in the database " + e.Path + ", which is read alone"
}

var errMeanwhile = backend.Errorf(backend.CodeConflict, "the auth profiles were changed meanwhile")

func (h Home) exchange(ctx context.Context, path string, change func(*Stores, *json5.File) ([]json5.Edit, error)) error {
	stores, err := h.Read(ctx)
	if err != nil {
		return err
	}
	content, stamp, err := safefile.Read(ctx, path, h.policy())
	defer clear(content)
	fresh := missing(err)
	switch {
	case fresh:
		content = []byte(emptyStore)
	case err != nil:
		return storeError(err)
	}
	if !fresh && stores.Own.version != stamp.Version() {
		return errMeanwhile
	}
	f, err := json5.Parse(content)
	if err != nil || !json.Valid(content) {
		return backend.Errorf(backend.CodeUnavailable, "%s is not valid JSON", path)
	}
	edits, err := change(stores, f)
	if err != nil || len(edits) == 0 {
		return err
	}
	next, err := f.Apply(edits)
	if err != nil {
		return backend.Errorf(backend.CodeConflict, "%s cannot be edited: %v", path, err)
	}
	defer clear(next)
	if !json.Valid(next) {
		return backend.Errorf(backend.CodeInternal, "%s would not be JSON any more", path)
	}
	if int64(len(next)) > h.maxBytes() {
		return backend.Errorf(backend.CodeUnsupported, "%s would be larger than the %d bytes that are read of it", path, h.maxBytes())
	}
	return replace(path, next, func() error {
		f, err := safefile.Open(path, h.policy())
		switch {
		case fresh && missing(err):
			return nil
		case fresh && err == nil, missing(err):
			if f != nil {
				_ = f.Close()
			}
			return errMeanwhile
		case err != nil:
			return storeError(err)
		}
		defer f.Close()
		if !f.Stamp().Equal(stamp) {
			return errMeanwhile
		}
		return nil
	})
}

// replace puts content in the place of the file at path in one step, if check, the last thing before, allows it.
func replace(path string, content []byte, check func() error) error {
	f, err := staged.New(path)
	if err != nil {
		return writeError(path, err)
	}
	defer f.Drop()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync()); err != nil {
		return writeError(path, err)
	}
	if err := check(); err != nil {
		return err
	}
	if err := f.Place(); err != nil {
		return writeError(path, err)
	}
	return nil
}

func writeError(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return backend.Errorf(backend.CodeDenied, "%s cannot be written by this user", path)
	}
	var wrapped *fs.PathError
	var linked *os.LinkError
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	} else if errors.As(err, &linked) {
		err = linked.Err
	}
	return backend.Errorf(backend.CodeUnavailable, "%s cannot be written: %v", path, err)
}
