package authprofiles

import (
	"sync"
	"time"
)

// found remembers which ids were there when the stores were last read, and until when they last: their names, not their
// secrets. With it CurrentVersion need not read a store that has not changed.
type found struct {
	mu      sync.Mutex
	version string
	expires map[string]time.Time // by id; zero: never
}

func (f *found) add(version, id string, expires time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.version != version || f.expires == nil {
		f.version, f.expires = version, make(map[string]time.Time)
	}
	f.expires[id] = expires
}

func (f *found) has(version, id string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	expires, ok := f.expires[id]
	return ok && f.version == version && (expires.IsZero() || expires.After(now))
}
