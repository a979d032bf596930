package sqliteread_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/internal/safefile"
	"github.com/credresolve/credresolve/internal/sqliteread"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// python is SQLite itself, as the owner of the databases: a process that runs the Python statements of each line it gets, in
// which db is the connection to the database at path.
type python struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

const driver = `
import json, os, sqlite3, sys
path = sys.argv[1]
os.umask(0o077)
db = sqlite3.connect(path, isolation_level=None)
def do(*statements):
    for s in statements:
        last = db.execute(s).fetchall()
    return last
for line in sys.stdin:
    exec(json.loads(line))
    print("ok", flush=True)
`

func start(t *testing.T, path string) *python {
	t.Helper()
	interpreter, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3 with sqlite3, to make databases")
	}
	cmd := exec.Command(interpreter, "-c", driver, path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	p := &python{t, cmd, in, bufio.NewReader(out)}
	t.Cleanup(p.end)
	return p
}

// end lets the connection close as it should.
func (p *python) end() {
	_ = p.in.Close()
	_ = p.cmd.Wait()
}

func (p *python) do(code string) {
	p.t.Helper()
	p.send(code)
	if line, err := p.out.ReadString('\n'); err != nil || line != "ok\n" {
		p.t.Fatalf("python3 said %q, %v", line, err)
	}
}

func (p *python) send(code string) {
	p.t.Helper()
	line, err := json.Marshal(code)
	must(p.t, err)
	_, err = p.in.Write(append(line, '\n'))
	must(p.t, err)
}

func place(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	return filepath.Join(dir, "db.sqlite")
}

func policy() safefile.Policy { return safefile.Policy{Deny: 0o077} }

func read(t *testing.T, path string, q ...sqliteread.Query) []sqliteread.Cell {
	t.Helper()
	cells, err := sqliteread.Read(t.Context(), path, policy(), q...)
	if err != nil {
		t.Fatal(err)
	}
	return cells
}

var primary = sqliteread.Query{Table: "auth_profile_store", Key: "store_key", Is: "primary", Column: "store_json"}

const create = `do("CREATE TABLE auth_profile_store (store_key TEXT NOT NULL PRIMARY KEY, store_json TEXT NOT NULL, updated_at INTEGER NOT NULL)")` + "\n"

// files gives what is in the directory of path: names, sizes and times.
func files(t *testing.T, path string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	found := make(map[string]string)
	for _, e := range entries {
		info, err := e.Info()
		must(t, err)
		found[e.Name()] = fmt.Sprint(info.Size(), info.ModTime().UnixNano(), info.Mode())
	}
	return found
}

// A log holds what all of the database's tables got since the last checkpoint, which can be more than a row of one may have.
func TestReadsALogThatIsLargerThanARow(t *testing.T) {
	t.Parallel()
	path := place(t)
	p := start(t, path)
	p.do(`do("PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0")
` + create + `do("CREATE TABLE other (x BLOB)")
for i in range(40): do("INSERT INTO other VALUES (zeroblob(5000))")
do("INSERT INTO auth_profile_store VALUES ('primary', '{}', 7)")`)
	limited := policy()
	limited.MaxBytes = 64 << 10
	if info, err := os.Stat(path + "-wal"); err != nil || info.Size() <= limited.MaxBytes {
		t.Fatalf("the log is too small for this test: %v, %v", info, err)
	}
	cells, err := sqliteread.Read(t.Context(), path, limited, primary)
	if err != nil || !cells[0].Found || string(cells[0].Bytes) != "{}" {
		t.Errorf("got %+v, %v", cells, err)
	}
}

func TestReadsWhatSQLiteWrote(t *testing.T) {
	t.Parallel()
	sizes := []int{0, 1, 100, 470, 476, 477, 478, 480, 1000, 4000, 4055, 4060, 4061, 4062, 65500, 300000}
	for mode, pages := range map[string][]int{"DELETE": {512, 65536}, "TRUNCATE": {1024}, "PERSIST": {4096}, "WAL": {512, 1024, 4096, 65536}} {
		for _, page := range pages {
			t.Run(fmt.Sprint(mode, page), func(t *testing.T) {
				t.Parallel()
				path := place(t)
				py := start(t, path)
				py.do(fmt.Sprintf(`do("PRAGMA page_size=%d", "PRAGMA journal_mode=%s")`, page, mode) + "\n" + create + `
do("CREATE TABLE [other, table] (a TEXT DEFAULT 'x,)', b)", "CREATE VIEW v AS SELECT 1", "BEGIN")
for i in range(300): db.execute("INSERT INTO auth_profile_store VALUES (?, ?, ?)", ("row%d" % i, "v" * (i % 50), i - 100))
do("COMMIT")
do("BEGIN", "INSERT INTO auth_profile_store VALUES ('primary', '{}', 1234567890123)")
` + fmt.Sprintf(`for n in %s: db.execute("INSERT INTO auth_profile_store VALUES (?, ?, 0)", ("size%%d" %% n, ("aé" * n)[:n]))`,
					strings.ReplaceAll(fmt.Sprint(sizes), " ", ",")) + `
do("COMMIT")`)
				before := files(t, path)
				query := func(key, column string) sqliteread.Query {
					return sqliteread.Query{Table: primary.Table, Key: primary.Key, Is: key, Column: column}
				}
				none, view := primary, primary
				none.Table, view.Table = "none", "v"
				cells := read(t, path, primary, query("primary", "updated_at"), query("row7", "updated_at"), query("row299", "store_json"),
					query("none", "store_json"), none, view)
				if string(cells[0].Bytes) != "{}" || cells[1].Int != 1234567890123 || cells[2].Int != -93 || string(cells[3].Bytes) != strings.Repeat("v", 49) {
					t.Errorf("texts %q and %q, numbers %d and %d", cells[0].Bytes, cells[3].Bytes, cells[1].Int, cells[2].Int)
				}
				if cells[4].Found || cells[5].Found || cells[6].Found {
					t.Error("found what is not there")
				}
				for _, size := range sizes {
					want := string([]rune(strings.Repeat("aé", size))[:size])
					cells := read(t, path, query(fmt.Sprint("size", size), "store_json"))
					if got := string(cells[0].Bytes); got != want || !cells[0].Found {
						t.Errorf("the text of %d has %d bytes, want %d", size, len(got), len(want))
					}
				}
				if !maps.Equal(files(t, path), before) {
					t.Errorf("the files changed: %v, before %v", files(t, path), before)
				}
			})
		}
	}
}

func TestSeesWhatWasCommittedAlone(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"DELETE", "WAL"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			path := place(t)
			py := start(t, path)
			py.do(fmt.Sprintf(`do("PRAGMA journal_mode=%s", "PRAGMA cache_size=1")`, mode) + "\n" + create +
				`do("INSERT INTO auth_profile_store VALUES ('primary', 'old', 1)")`)
			py.do(`do("BEGIN IMMEDIATE", "UPDATE auth_profile_store SET store_json='new'")
for i in range(2000): db.execute("INSERT INTO auth_profile_store VALUES (?, ?, 1)", (str(i), "x" * 500))`)
			cells, err := sqliteread.Read(t.Context(), path, policy(), primary)
			var e *sqliteread.Error
			switch {
			case mode == "WAL" && (err != nil || string(cells[0].Bytes) != "old"):
				t.Errorf("within a transaction: %v", err)
			case mode == "DELETE" && (!errors.As(err, &e) || e.Problem != sqliteread.Busy):
				t.Errorf("within a transaction that reached the file: %v", err)
			}
			py.do(`do("COMMIT")`)
			if got := string(read(t, path, primary)[0].Bytes); got != "new" {
				t.Errorf("after the commit: %q", got)
			}
			py.do(`do("BEGIN IMMEDIATE", "UPDATE auth_profile_store SET store_json='newer'", "ROLLBACK")`)
			if got := string(read(t, path, primary)[0].Bytes); got != "new" {
				t.Errorf("after a rollback: %q", got)
			}
		})
	}
}

// A program that was killed leaves its log, and nobody has it open: SQLite would recover, and write, where this only reads.
func TestReadsTheLogOfAProgramThatWasKilled(t *testing.T) {
	t.Parallel()
	path := place(t)
	py := start(t, path)
	py.do(`do("PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0")` + "\n" + create + `
do("INSERT INTO auth_profile_store VALUES ('primary', 'one', 1)", "PRAGMA wal_checkpoint(RESTART)")
do("UPDATE auth_profile_store SET store_json='two'", "BEGIN IMMEDIATE", "UPDATE auth_profile_store SET store_json='three'")`)
	must(t, py.cmd.Process.Kill())
	_ = py.cmd.Wait()
	must(t, os.Remove(path+"-shm"))
	before := files(t, path)
	if got := string(read(t, path, primary)[0].Bytes); got != "two" {
		t.Errorf("read %q", got)
	}
	if after := files(t, path); !maps.Equal(after, before) {
		t.Errorf("the files changed: %v, before %v", after, before)
	}
	// What the disk lost of the log is as if it had not been committed.
	log, err := os.ReadFile(path + "-wal")
	must(t, err)
	must(t, os.WriteFile(path+"-wal", log[:40], 0o600))
	if got := string(read(t, path, primary)[0].Bytes); got != "one" {
		t.Errorf("read %q of a log that was cut", got)
	}
}

func TestAnEndedProgramLeavesNoLog(t *testing.T) {
	t.Parallel()
	path := place(t)
	py := start(t, path)
	py.do(`do("PRAGMA journal_mode=WAL")` + "\n" + create + `do("INSERT INTO auth_profile_store VALUES ('primary', 'one', 1)")`)
	py.end()
	before := files(t, path)
	if got := string(read(t, path, primary)[0].Bytes); got != "one" {
		t.Errorf("read %q", got)
	}
	if after := files(t, path); !maps.Equal(after, before) || len(after) != 1 {
		t.Errorf("the files changed: %v, before %v", after, before)
	}
}

// Every read is of one commit, while the owner writes and checkpoints as fast as it can.
func TestReadsWhileTheOwnerWrites(t *testing.T) {
	t.Parallel()
	path := place(t)
	py := start(t, path)
	py.do(`do("PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=5", "PRAGMA synchronous=OFF")` + "\n" + create + `
do("INSERT INTO auth_profile_store VALUES ('primary', '0', 1), ('second', '0', 1)")`)
	py.send(`
import time
until = time.time() + 2
n = 0
while time.time() < until:
    n += 1
    db.execute("UPDATE auth_profile_store SET store_json=?", (str(n) + "." * (n % 30000),))
    if n % 40 == 0: time.sleep(0.04)`)
	second := primary
	second.Is = "second"
	reads, busy := 0, 0
	for until := time.Now().Add(2 * time.Second); time.Now().Before(until); {
		cells, err := sqliteread.Read(t.Context(), path, policy(), primary, second)
		var e *sqliteread.Error
		var file *safefile.Error
		switch {
		case err == nil:
			if reads++; string(cells[0].Bytes) != string(cells[1].Bytes) || len(cells[0].Bytes) == 0 {
				t.Fatalf("two commits in one read: %d and %d bytes", len(cells[0].Bytes), len(cells[1].Bytes))
			}
		case errors.As(err, &e) && e.Problem == sqliteread.Busy, errors.As(err, &file) && file.Problem == safefile.Changed:
			busy++
		default:
			t.Fatal(err)
		}
	}
	t.Logf("%d reads, %d times busy", reads, busy)
	if reads == 0 {
		t.Error("no read succeeded")
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, code string
		problem    sqliteread.Problem
	}{
		{"UTF-16", `do("PRAGMA encoding='UTF-16le'")` + "\n" + create, sqliteread.Foreign},
		{"no rowid", `do("CREATE TABLE auth_profile_store (store_key TEXT PRIMARY KEY, store_json TEXT) WITHOUT ROWID", "INSERT INTO auth_profile_store VALUES ('primary', '')")`, sqliteread.Foreign},
		{"another layout", `do("CREATE TABLE auth_profile_store (a TEXT)")`, sqliteread.Foreign},
		{"empty", `pass`, sqliteread.Busy},
		{"no database", `open(path, "w").write("{}" * 100)`, sqliteread.Malformed},
		{"cut", create + `
do("INSERT INTO auth_profile_store VALUES ('primary', '" + "x" * 9000 + "', 1)")
os.truncate(path, 8192)`, sqliteread.Malformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := place(t)
			start(t, path).do(tt.code)
			_, err := sqliteread.Read(t.Context(), path, policy(), primary)
			var e *sqliteread.Error
			if !errors.As(err, &e) || e.Problem != tt.problem || !strings.HasPrefix(err.Error(), path) {
				t.Errorf("%v, want the problem %s", err, tt.problem)
			}
		})
	}
}

func TestHoldsTheFilesToThePolicy(t *testing.T) {
	t.Parallel()
	path := place(t)
	py := start(t, path)
	py.do(`do("PRAGMA journal_mode=WAL")` + "\n" + create + `do("INSERT INTO auth_profile_store VALUES ('primary', 'one', 1)")`)
	for _, name := range []string{path, path + "-wal"} {
		must(t, os.Chmod(name, 0o644))
		_, err := sqliteread.Read(t.Context(), path, policy(), primary)
		var e *safefile.Error
		if !errors.As(err, &e) || e.Problem != safefile.Mode || e.Path != name {
			t.Errorf("open to others: %v", err)
		}
		must(t, os.Chmod(name, 0o600))
	}
	if _, err := sqliteread.Read(t.Context(), path+"x", policy(), primary); !errors.As(err, new(*safefile.Error)) {
		t.Errorf("a missing database: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sqliteread.Read(ctx, path, policy(), primary); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that is done: %v", err)
	}
}

func TestSeeds(t *testing.T) {
	t.Parallel()
	path := place(t)
	for _, end := range []string{"", "-wal"} {
		content, err := os.ReadFile("testdata/small.sqlite" + end)
		must(t, err)
		must(t, os.WriteFile(path+end, content, 0o600))
	}
	if got := read(t, path, primary); !slices.Equal(got[0].Bytes, []byte(strings.Repeat("y", 900))) {
		t.Errorf("with the log: %d bytes", len(got[0].Bytes))
	}
	must(t, os.Remove(path+"-wal"))
	if got := read(t, path, primary); string(got[0].Bytes) != strings.Repeat("x", 1200) {
		t.Errorf("without the log: %d bytes", len(got[0].Bytes))
	}
}
