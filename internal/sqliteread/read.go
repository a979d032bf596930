package sqliteread

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"time"

	"github.com/credresolve/credresolve/internal/safefile"
)

// Query asks for one column of the row of Table whose column Key is the text Is.
type Query struct {
	Table, Key, Is, Column string
}

// Cell answers a Query. A text or blob is Bytes, an integer Int; a NULL is Found and neither.
type Cell struct {
	Table bool   // the table exists
	Found bool   // and so does the row
	Bytes []byte // the caller's, to be zeroed
	Int   int64
}

const (
	// attempts is how often a database is read that changes meanwhile, pause how long to wait between two.
	attempts = 8
	pause    = 25 * time.Millisecond
	// settled is the age of a file's last change from which on a further one shows in its times: more than a tick of the
	// coarse clock by which file systems set them.
	settled = 20 * time.Millisecond
)

// Read answers queries, all from one committed state of the database at path, which must be absolute. p holds for the
// database and its log; p.MaxBytes is the most that a row may have, zero: 256 MiB. A database that does not exist is safefile's
// NotFound. Read returns when ctx is done. It is safe for concurrent use.
func Read(ctx context.Context, path string, p safefile.Policy, queries ...Query) ([]Cell, error) {
	return read(ctx, path, p, func(d *database) ([]Cell, error) {
		cells := make([]Cell, len(queries))
		for i, q := range queries {
			var err error
			if cells[i], err = d.find(q); err != nil {
				return cells, err
			}
		}
		return cells, nil
	})
}

// List gives columns of every row of a table, in the order of the rowids; none when there is no such table. All else is as
// for Read; p.MaxBytes bounds what is given altogether.
func List(ctx context.Context, path string, p safefile.Policy, table string, columns ...string) ([][]Cell, error) {
	cells, err := read(ctx, path, p, func(d *database) ([]Cell, error) { return d.list(table, columns) })
	if err != nil {
		return nil, err
	}
	return slices.Collect(slices.Chunk(cells, len(columns))), nil
}

// read lets look find cells in one committed state of the database.
func read(ctx context.Context, path string, p safefile.Policy, look func(*database) ([]Cell, error)) ([]Cell, error) {
	limit := p.MaxBytes
	if limit == 0 {
		limit = 256 << 20
	}
	p.MaxBytes = 0 // a database holds more than what is asked for
	for attempt := 1; ; attempt++ {
		cells, err := safefile.Await(ctx, func() ([]Cell, error) { return once(ctx, path, p, limit, look) }, wipe)
		if !passing(err) || attempt == attempts {
			return cells, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// passing reports whether err may be gone at the next attempt.
func passing(err error) bool {
	var own *Error
	var file *safefile.Error
	return errors.As(err, &own) && own.Problem == Busy || errors.As(err, &file) && file.Problem == safefile.Changed
}

func wipe(cells []Cell) {
	for _, c := range cells {
		clear(c.Bytes)
	}
}

// once reads, and then looks whether anybody wrote what was read.
func once(ctx context.Context, path string, p safefile.Policy, limit int64, look func(*database) ([]Cell, error)) (cells []Cell, err error) {
	f, err := safefile.Open(path, p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d := &database{ctx: ctx, path: path, file: f.Descriptor(), limit: limit}
	busy := &Error{Busy, path, "is being written"}
	if age := time.Since(f.Stamp().Modified); -settled < age && age < settled {
		return nil, busy // a further write might not show
	}
	if err := d.readHeader(); err != nil {
		return nil, err
	}
	if !d.logged && journal(path) {
		return nil, &Error{Busy, path, "is being written, or was left in the middle of a transaction, which its owner must take back"}
	}
	var log *safefile.File
	if d.logged {
		switch log, err = safefile.Open(path+"-wal", p); {
		case err == nil:
			defer log.Close()
			if err := d.readLog(log.Descriptor(), log.Stamp().Size); err != nil {
				return nil, err
			}
		case !missing(err):
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			wipe(cells)
			cells = nil
		}
	}()
	cells, err = look(d)
	// What was torn may look malformed, so that this comes before such an error.
	if changed := f.Unchanged(); changed != nil {
		return cells, changed
	}
	if log != nil && !d.sameLog(log.Descriptor()) || !d.logged && journal(path) {
		return cells, busy
	}
	return cells, err
}

func missing(err error) bool {
	var e *safefile.Error
	return errors.As(err, &e) && e.Problem == safefile.NotFound
}

// journal reports whether a rollback journal tells that a transaction is not over. One that ended left none, an empty one,
// or one whose header is zeros.
func journal(path string) bool {
	path += "-journal"
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() { // opening a FIFO would wait
		return !errors.Is(err, os.ErrNotExist)
	}
	f, err := os.Open(path)
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	defer f.Close()
	var head [8]byte
	n, err := io.ReadFull(f, head[:])
	return err == nil && n == len(head) && !bytes.Equal(head[:], make([]byte, len(head)))
}
