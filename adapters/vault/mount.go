package vault

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// mountTrust is how long a mount is believed in when a path is not found there. A mount that was moved, replaced or
// upgraded is noticed by the first miss after that.
const mountTrust = time.Minute

// mount is one secrets engine.
type mount struct {
	path    string // with a slash at its end; empty: not known
	engine  string // kv, database, …; generic is kv's old name
	version int    // of a key-value engine; 0 for another, or an unknown one
	seen    time.Time
}

// mounts is the table of the mounts that were seen. It is safe for concurrent use.
type mounts struct {
	mu   sync.RWMutex
	list []mount
}

// find gives the innermost mount that holds path.
func (t *mounts) find(path string) (mount, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	best := -1
	for i, m := range t.list {
		if strings.HasPrefix(path, m.path) && (best < 0 || len(m.path) > len(t.list[best].path)) {
			best = i
		}
	}
	if best < 0 {
		return mount{}, false
	}
	return t.list[best], true
}

func (t *mounts) put(m mount) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.list {
		if t.list[i].path == m.path {
			t.list[i] = m
			return
		}
	}
	t.list = append(t.list, m)
}

// maxID is the greatest length of an id in bytes, as for every ref. The server is slow to refuse much longer paths.
const maxID = 2048

// place is where an id is: the path of the secret below its mount.
type place struct {
	mount
	id   string // as the caller wrote it, for errors
	rest string // below the mount; the whole path when the mount is not known
}

// full is the path of an id as the server takes it, and whether the id is one.
func (b *Backend) full(id string) (string, bool) {
	if len(id) > maxID || !validPath(id) {
		return "", false
	}
	if b.settings.Mount != "" {
		return b.settings.Mount + "/" + id, true
	}
	return id, true
}

// locate finds the mount of id, in the table or else at the server.
func (b *Backend) locate(ctx context.Context, id string) (place, error) {
	path, ok := b.full(id)
	if !ok {
		return place{}, errInvalidID
	}
	if v := b.settings.KVVersion; v != 0 {
		return place{mount{path: b.settings.Mount + "/", engine: "kv", version: v}, id, strings.TrimPrefix(path, b.settings.Mount+"/")}, nil
	}
	m, ok := b.mounts.find(path)
	if !ok {
		var err error
		if m, err = b.detect(ctx, path, false); err != nil {
			return place{}, err
		}
	}
	return place{m, id, strings.TrimPrefix(path, m.path)}, nil
}

// locateToWrite is locate with a mount that is surely what it was: a write through the wrong version of an engine would
// land somewhere else.
func (b *Backend) locateToWrite(ctx context.Context, id string) (place, error) {
	p, err := b.locate(ctx, id)
	if err == nil {
		if moved, ok := b.relocate(ctx, p, false); ok {
			return moved, nil
		}
	}
	return p, err
}

// relocate asks the server again for the mount of an id that was not found, and reports whether the answer is news. What
// was learned of late is believed, unless it is surely wrong.
func (b *Backend) relocate(ctx context.Context, old place, surely bool) (place, bool) {
	if b.settings.KVVersion != 0 || old.path == "" || !surely && time.Since(old.seen) < mountTrust {
		return place{}, false
	}
	path, _ := b.full(old.id)
	m, err := b.detect(ctx, path, true)
	if err != nil || m.path == old.path && m.engine == old.engine && m.version == old.version {
		return place{}, false
	}
	return place{m, old.id, strings.TrimPrefix(path, m.path)}, true
}

// detect asks the server for the mount of path, as the vault command does before it reads. One question at a time is
// under way for all paths with the same first segment, since most are in one mount.
func (b *Backend) detect(ctx context.Context, path string, again bool) (mount, error) {
	first, _, _ := strings.Cut(path, "/")
	for key := "mount " + first; ; key = "mount of " + path {
		asked := ""
		v, err := b.fly(ctx, key, func(ctx context.Context) (any, error) {
			asked = path
			return b.askMount(ctx, path)
		})
		if err != nil {
			return mount{}, err
		}
		m := v.(mount)
		if asked == path || !again && m.path != "" && strings.HasPrefix(path, m.path) {
			return m, nil
		}
		// The flight was another path's, and that is elsewhere: ask for this one, unless the table knows by now.
		if m, ok := b.mounts.find(path); ok && !again {
			return m, nil
		}
	}
}

// askMount asks the server for the mount of path. The zero mount is one that the login may know nothing about, or that
// does not exist: reading there will tell.
func (b *Backend) askMount(ctx context.Context, path string) (mount, error) {
	a, err := b.do(ctx, call{method: http.MethodGet, path: "sys/internal/ui/mounts/" + path})
	if err != nil {
		return mount{}, err
	}
	switch a.status {
	case http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		return mount{}, nil
	}
	if err := b.failure(a, path); err != nil {
		return mount{}, err
	}
	var info mountInfo
	if json.Unmarshal(a.Data, &info) != nil {
		return mount{}, b.garbled("sys/internal/ui/mounts")
	}
	if info.Path == "" || !strings.HasPrefix(path+"/", info.Path) {
		return mount{}, nil // an auth method's path is told without auth/
	}
	m := info.mount(info.Path)
	b.mounts.put(m)
	return m, nil
}

// mountInfo is what the server tells of a mount.
type mountInfo struct {
	Path    string `json:"path"`
	Type    string `json:"type"`
	Options struct {
		Version string `json:"version"`
	} `json:"options"`
}

func (i mountInfo) mount(path string) mount {
	m := mount{path: path, engine: i.Type, seen: time.Now()}
	if i.Type == "kv" || i.Type == "generic" {
		m.version = 1
		if i.Options.Version == "2" {
			m.version = 2
		}
	}
	return m
}

// visible gives the mounts that the login has a policy for.
func (b *Backend) visible(ctx context.Context) ([]mount, error) {
	a, err := b.do(ctx, call{method: http.MethodGet, path: "sys/internal/ui/mounts"})
	if err != nil {
		return nil, err
	}
	if err := b.failure(a, "sys/internal/ui/mounts"); err != nil {
		return nil, err
	}
	var data struct {
		Secret map[string]mountInfo `json:"secret"`
	}
	if json.Unmarshal(a.Data, &data) != nil {
		return nil, b.garbled("sys/internal/ui/mounts")
	}
	var list []mount
	for path, info := range data.Secret {
		list = append(list, info.mount(path))
	}
	return list, nil
}

// garbled is the error of an answer of the right status that lacks what it must have.
func (b *Backend) garbled(about string) error {
	return backend.Errorf(backend.CodeUnavailable, "%s: the answer about %s is not as Vault's", b.target, about)
}
