package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/safefile"
)

var (
	_ backend.BatchGetter = (*Backend)(nil)
	_ backend.Prober      = (*Backend)(nil)
	_ backend.Checker     = (*Backend)(nil)
	_ backend.Lister      = (*Backend)(nil)
	_ backend.Describer   = (*Backend)(nil)
)

// wholeFile is the id of a file as a whole.
const wholeFile = "value"

// Backend reads secrets from one file or one mounted directory. It is safe for concurrent use.
type Backend struct {
	config Config
	policy safefile.Policy
	path   string // may be relative to the working directory
	found  found
}

// found remembers which ids were in the file when it was last read: their names, not their values. With it CurrentVersion
// need not read a file that has not changed.
type found struct {
	mu      sync.Mutex
	version string
	ids     map[string]struct{}
}

// New gives a Backend for the file that c names. A relative path is below host.Dir, or else the working directory of each
// call.
func New(c Config, host backend.Host) (*Backend, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	b := &Backend{config: c, policy: c.policy(), path: c.Path}
	if !filepath.IsAbs(b.path) && host.Dir != "" {
		b.path = filepath.Join(host.Dir, b.path)
	}
	return b, nil
}

// Describe implements backend.Describer.
func (b *Backend) Describe() backend.Description {
	return backend.Description{
		Detail:      fmt.Sprintf("%s, %s, %s", b.path, b.config.Mode, b.config.Layout),
		Fields:      true,
		MaxValue:    b.config.MaxBytes,
		CallerBound: !filepath.IsAbs(b.path),
	}
}

// Get implements backend.Backend.
func (b *Backend) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	results, err := b.GetBatch(ctx, []backend.Request{req})
	if err != nil {
		return nil, err
	}
	return results[0].Credential, results[0].Err
}

// GetBatch implements backend.BatchGetter. It reads each file once.
func (b *Backend) GetBatch(ctx context.Context, reqs []backend.Request) ([]backend.Result, error) {
	path, dir, err := b.locate(ctx)
	if err != nil {
		return nil, err
	}
	results := make([]backend.Result, len(reqs))
	pending := 0
	for i, req := range reqs {
		if results[i].Err = b.checkRequest(req, dir); results[i].Err == nil {
			pending++
		}
	}
	switch {
	case pending == 0:
	case dir:
		err = b.fromDirectory(ctx, path, reqs, results)
	default:
		err = b.fromFile(ctx, path, reqs, results)
	}
	if err != nil {
		return nil, err
	}
	return results, nil
}

// locate gives the absolute path, and whether it is a directory of secrets.
func (b *Backend) locate(ctx context.Context) (path string, dir bool, err error) {
	if err := ctx.Err(); err != nil {
		return "", false, err
	}
	path, err = filepath.Abs(b.path)
	if err != nil {
		return "", false, backend.Errorf(backend.CodeUnavailable, "the working directory cannot be found")
	}
	if b.config.Mode == modeRaw && b.config.Layout != layoutStrict {
		// This decides how ids are read, no more: who could replace the directory is looked at when a file is opened.
		dir, err = safefile.Await(ctx, func() (bool, error) {
			info, err := os.Stat(path)
			return err == nil && info.IsDir(), nil
		}, nil)
	}
	return path, dir, err
}

func (b *Backend) checkRequest(req backend.Request, dir bool) error {
	id := req.ID
	switch {
	case req.Version != "":
		return errVersion
	case dir:
		if id == "" || id == "." || strings.HasPrefix(id, "..") || strings.ContainsAny(id, "/\\\x00") {
			return errName
		}
	case b.config.Mode == modeRaw && id != wholeFile:
		return errRawID
	case strings.HasPrefix(id, "/") && !validPointer(id):
		return errPointer
	}
	return nil
}

func (b *Backend) fromFile(ctx context.Context, path string, reqs []backend.Request, results []backend.Result) error {
	content, stamp, err := safefile.Read(ctx, path, b.policy)
	defer clear(content)
	var doc *document
	if err != nil {
		err = b.fileError(err)
	} else if b.config.Mode != modeRaw {
		doc, err = parse(b.config.Mode, content, b.config.MaxBytes)
		if err != nil {
			err = errSyntax(path, b.config.Mode, err)
		} else {
			defer doc.close()
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	version := stamp.Version()
	for i, req := range reqs {
		r := &results[i]
		switch {
		case r.Err != nil:
			continue
		case err != nil:
			r.Err = err
			continue
		case req.ID == wholeFile:
			r.Credential = b.whole(content, doc)
		default:
			var n *node
			if n, r.Err = doc.find(req.ID); r.Err != nil {
				continue
			}
			r.Credential = doc.credential(n)
		}
		r.Credential.Version = version
	}
	if err == nil {
		b.found.add(version, reqs, results)
	}
	return nil
}

// whole gives the file as one secret. The fields of a document are those of its top.
func (b *Backend) whole(content []byte, doc *document) *backend.Credential {
	if b.config.TrimNewline {
		content = trimNewline(content)
	}
	c := &backend.Credential{Secret: backend.NewSecret(content)}
	if doc == nil {
		c.Fields, _ = backend.FieldsFromJSON(content)
	} else {
		c.Fields, _ = backend.FieldsFromJSON(doc.text)
	}
	return c
}

func trimNewline(content []byte) []byte {
	if rest, ok := bytes.CutSuffix(content, []byte("\n")); ok {
		return bytes.TrimSuffix(rest, []byte("\r"))
	}
	return content
}

// snapshotAttempts is how often a mounted directory is read that changes while it is read.
const snapshotAttempts = 3

// fromDirectory reads one file for each distinct id. Where the kubelet exchanges them all at once, all are of one version.
func (b *Backend) fromDirectory(ctx context.Context, path string, reqs []backend.Request, results []backend.Result) error {
	for range snapshotAttempts {
		before, err := b.data(ctx, path)
		if err != nil {
			return err
		}
		read := make(map[string]backend.Result, len(reqs))
		for i, req := range reqs {
			if b.checkRequest(req, true) != nil {
				continue
			}
			r, ok := read[req.ID]
			if !ok {
				r = b.fromEntry(ctx, filepath.Join(path, req.ID))
				read[req.ID] = r
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			results[i] = r
		}
		if after, err := b.data(ctx, path); err != nil || after == before {
			return err
		}
	}
	return errKeys
}

// data gives where the kubelet's link in the directory at path leads to, nothing where there is none.
func (b *Backend) data(ctx context.Context, path string) (string, error) {
	return safefile.Await(ctx, func() (string, error) {
		to, _ := os.Readlink(filepath.Join(path, "..data"))
		return to, nil
	}, nil)
}

func (b *Backend) fromEntry(ctx context.Context, path string) backend.Result {
	content, stamp, err := safefile.Read(ctx, path, b.policy)
	if err != nil {
		return backend.Result{Err: b.fileError(err)}
	}
	defer clear(content)
	c := b.whole(content, nil)
	c.Version = stamp.Version()
	return backend.Result{Credential: c}
}

// Probe implements backend.Prober. It opens the file, or lists the directory, and reads no content.
func (b *Backend) Probe(ctx context.Context) error {
	path, dir, err := b.locate(ctx)
	if err != nil {
		return err
	}
	if dir {
		_, err := b.names(ctx, path)
		return err
	}
	_, err = b.stamp(ctx, path)
	return err
}

func (b *Backend) stamp(ctx context.Context, path string) (safefile.Stamp, error) {
	stamp, err := safefile.Await(ctx, func() (safefile.Stamp, error) {
		f, err := safefile.Open(path, b.policy)
		if err != nil {
			return safefile.Stamp{}, err
		}
		return f.Stamp(), f.Close()
	}, nil)
	return stamp, b.fileError(err)
}

func (b *Backend) names(ctx context.Context, path string) ([]string, error) {
	names, err := safefile.Await(ctx, func() ([]string, error) { return safefile.Names(path, b.policy) }, nil)
	return names, b.fileError(err)
}

// CurrentVersion implements backend.Checker. It reads a document only when the document has changed since the id was last
// found in it.
func (b *Backend) CurrentVersion(ctx context.Context, req backend.Request) (string, error) {
	path, dir, err := b.locate(ctx)
	if err != nil {
		return "", err
	}
	if err := b.checkRequest(req, dir); err != nil {
		return "", err
	}
	if dir {
		path = filepath.Join(path, req.ID)
	}
	stamp, err := b.stamp(ctx, path)
	if err != nil {
		return "", err
	}
	version := stamp.Version()
	if dir || b.config.Mode == modeRaw || b.found.has(version, req.ID) {
		return version, nil
	}
	c, err := b.Get(ctx, req)
	if err != nil {
		return "", err
	}
	return c.Version, nil
}

func (f *found) has(version, id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.ids[id]
	return ok && f.version == version
}

// add remembers the ids that were found among reqs.
func (f *found) add(version string, reqs []backend.Request, results []backend.Result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.version != version || f.ids == nil {
		f.version, f.ids = version, make(map[string]struct{}, len(reqs))
	}
	for i, req := range reqs {
		if results[i].Err == nil {
			f.ids[req.ID] = struct{}{}
		}
	}
}

// List implements backend.Lister. It yields the keys at the top of a document, the files of a directory, or the one id of a
// raw file.
func (b *Backend) List(ctx context.Context, prefix string) iter.Seq2[backend.Entry, error] {
	return func(yield func(backend.Entry, error) bool) {
		entries, err := b.entries(ctx)
		if err != nil {
			yield(backend.Entry{}, err)
			return
		}
		for _, e := range entries {
			if strings.HasPrefix(e.ID, prefix) && !yield(e, nil) {
				return
			}
		}
	}
}

func (b *Backend) entries(ctx context.Context) ([]backend.Entry, error) {
	path, dir, err := b.locate(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case dir:
		names, err := b.names(ctx, path)
		if err != nil {
			return nil, err
		}
		var entries []backend.Entry
		for _, name := range names {
			if b.checkRequest(backend.Request{ID: name}, true) != nil {
				continue // the kubelet's own
			}
			stamp, err := b.stamp(ctx, filepath.Join(path, name))
			var e *backend.Error
			switch {
			case err == nil:
				entries = append(entries, backend.Entry{ID: name, Version: stamp.Version(), Modified: stamp.Modified})
			case errors.As(err, &e) && (e.Code == backend.CodeInvalidConfig || e.Code == backend.CodeNotFound):
				// A directory, or gone since.
			default:
				return nil, err
			}
		}
		return entries, nil
	case b.config.Mode == modeRaw:
		stamp, err := b.stamp(ctx, path)
		if err != nil {
			return nil, err
		}
		return []backend.Entry{{ID: wholeFile, Version: stamp.Version(), Modified: stamp.Modified}}, nil
	}
	content, stamp, err := safefile.Read(ctx, path, b.policy)
	if err != nil {
		return nil, b.fileError(err)
	}
	defer clear(content)
	doc, err := parse(b.config.Mode, content, b.config.MaxBytes)
	if err != nil {
		return nil, errSyntax(path, b.config.Mode, err)
	}
	defer doc.close()
	var entries []backend.Entry
	for _, id := range doc.ids() {
		entries = append(entries, backend.Entry{ID: id, Version: stamp.Version(), Modified: stamp.Modified})
	}
	return entries, nil
}
