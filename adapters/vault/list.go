package vault

import (
	"cmp"
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/credresolve/credresolve/backend"
)

// List implements backend.Lister: it walks the directories of the key-value engines that may hold ids with that prefix,
// one request per directory, as the caller asks for more.
func (b *Backend) List(ctx context.Context, prefix string) iter.Seq2[backend.Entry, error] {
	return func(yield func(backend.Entry, error) bool) {
		found, err := b.listable(ctx, prefix)
		if err != nil {
			yield(backend.Entry{}, err)
			return
		}
		for _, m := range found {
			if !b.walk(ctx, m, prefix, yield) {
				return
			}
		}
	}
}

// strip makes an id of a full path.
func (b *Backend) strip(path string) string {
	if b.settings.Mount != "" {
		return strings.TrimPrefix(path, b.settings.Mount+"/")
	}
	return path
}

// listable gives the key-value engines that may hold ids with that prefix.
func (b *Backend) listable(ctx context.Context, prefix string) ([]mount, error) {
	if b.settings.Mount != "" {
		m := mount{path: b.settings.Mount + "/", engine: "kv", version: b.settings.KVVersion}
		if m.version == 0 {
			var ok bool
			var err error
			if m, ok = b.mounts.find(b.settings.Mount + "/"); !ok {
				if m, err = b.detect(ctx, b.settings.Mount, false); err != nil {
					return nil, err
				}
			}
		}
		switch {
		case m.path == "":
			return nil, backend.Errorf(backend.CodeDenied, "no policy of the login is for %s, or no secrets engine is mounted there", b.settings.Mount)
		case m.version == 0:
			return nil, backend.Errorf(backend.CodeUnsupported, "only key-value engines can be listed")
		}
		return []mount{m}, nil
	}
	all, err := b.visible(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(m mount) bool { return m.version == 0 || !related(m.path, prefix) })
	slices.SortFunc(all, func(a, b mount) int { return cmp.Compare(a.path, b.path) })
	return all, nil
}

// related reports whether ids with that prefix may be below dir.
func related(dir, prefix string) bool {
	return strings.HasPrefix(dir, prefix) || strings.HasPrefix(prefix, dir)
}

// walk yields the ids of one mount; false when the caller has enough, or after an error.
func (b *Backend) walk(ctx context.Context, m mount, prefix string, yield func(backend.Entry, error) bool) bool {
	start := m.path // as a full path, with a slash at its end
	if b.settings.Mount != "" {
		start = b.settings.Mount + "/"
	}
	// Directories that the prefix names as a whole need not be looked for.
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		if dir, ok := b.full(prefix[:i]); ok && len(dir)+1 > len(start) && strings.HasPrefix(dir+"/", start) {
			start = dir + "/"
		}
	}
	for open := []string{start}; len(open) > 0; {
		dir := open[len(open)-1]
		open = open[:len(open)-1]
		keys, err := b.keys(ctx, m, dir)
		if err != nil {
			yield(backend.Entry{}, err)
			return false
		}
		for _, key := range slices.Backward(keys) { // the last to be opened is the next to be read
			if strings.HasSuffix(key, "/") && related(b.strip(dir+key), prefix) {
				open = append(open, dir+key)
			}
		}
		for _, key := range keys {
			id := b.strip(dir + key)
			if !strings.HasSuffix(key, "/") && strings.HasPrefix(id, prefix) && !yield(backend.Entry{ID: id}, nil) {
				return false
			}
		}
	}
	return true
}

// keys lists one directory. What no id can name is left out: a key such as "a//b" would lead round in circles.
func (b *Backend) keys(ctx context.Context, m mount, dir string) ([]string, error) {
	path := dir
	if m.version == 2 {
		path = m.path + "metadata/" + strings.TrimPrefix(dir, m.path)
	}
	a, err := b.do(ctx, call{method: http.MethodGet, path: strings.TrimSuffix(path, "/"), query: url.Values{"list": {"true"}}})
	if err != nil {
		return nil, err
	}
	if a.status == http.StatusNotFound && !a.says("no handler for route") {
		return nil, nil
	}
	if err := b.failure(a, b.strip(dir)); err != nil {
		return nil, err
	}
	var data struct {
		Keys []string `json:"keys"`
	}
	if json.Unmarshal(a.Data, &data) != nil {
		return nil, b.garbled(dir)
	}
	return slices.DeleteFunc(data.Keys, func(key string) bool { return !validPath(strings.TrimSuffix(key, "/")) }), nil
}
