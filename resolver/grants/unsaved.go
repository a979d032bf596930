package grants

import (
	"context"
	"sync"
	"time"
)

// unsaved is what an exchange gave and the token store did not take. The lock of the grant is held meanwhile: nobody else can
// do anything with the token that was spent.
type unsaved struct {
	rec    *record
	from   string
	unlock func()
	drop   func(context.Context) // ends rec at the server

	mu   sync.Mutex
	done bool
	end  chan struct{}
}

const mostUnsaved = 30 * time.Second // between two tries

// hold keeps u until it is written.
func (s *Store) hold(id string, u *unsaved) {
	u.end = make(chan struct{})
	s.mu.Lock()
	s.unsaved[id] = u
	s.mu.Unlock()
	go func() {
		for pause := time.Second; ; pause = min(2*pause, mostUnsaved) {
			select {
			case <-u.end:
				return
			case <-time.After(pause):
				ctx, cancel := context.WithTimeout(context.Background(), saveTime)
				_ = s.flush(ctx, id)
				cancel()
			}
		}
	}()
}

// flush writes what of the grant under id is not written yet.
func (s *Store) flush(ctx context.Context, id string) error {
	s.mu.Lock()
	u := s.unsaved[id]
	s.mu.Unlock()
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.done {
		return nil
	}
	kept, err := s.keep(ctx, u.rec, u.from)
	if err != nil {
		return unkept(u.rec.key, err)
	}
	s.release(id, u)
	if kept == nil { // logged out, or revoked, meanwhile
		u.drop(ctx)
		return nil
	}
	s.changed(u.rec.key)
	return nil
}

// release ends u, whose mutex is held.
func (s *Store) release(id string, u *unsaved) {
	u.done = true
	close(u.end)
	s.mu.Lock()
	delete(s.unsaved, id)
	s.mu.Unlock()
	u.unlock()
}

// giveUp ends what is not written of the grant under id, and gives it: a new login, or a logout, takes its place.
func (s *Store) giveUp(id string) *record {
	s.mu.Lock()
	u := s.unsaved[id]
	s.mu.Unlock()
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.done {
		return nil
	}
	s.release(id, u)
	return u.rec
}
