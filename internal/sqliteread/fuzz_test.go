package sqliteread

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzDatabase holds that no bytes of a database or its log make a read panic, go on forever, or want memory without end.
func FuzzDatabase(f *testing.F) {
	db, err := os.ReadFile("testdata/small.sqlite")
	if err != nil {
		f.Fatal(err)
	}
	log, err := os.ReadFile("testdata/small.sqlite-wal")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(db, log)
	f.Add(db, []byte{})
	f.Add(db[:512], log)
	f.Fuzz(func(t *testing.T, db, log []byte) {
		if len(db) > 1<<20 || len(log) > 1<<20 {
			t.Skip()
		}
		dir := t.TempDir()
		open := func(name string, content []byte) *os.File {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			file, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = file.Close() })
			return file
		}
		d := &database{ctx: t.Context(), path: "db", file: open("db", db), limit: 1 << 20}
		if d.readHeader() != nil || d.readLog(open("log", log), int64(len(log))) != nil {
			return
		}
		cell, err := d.find(Query{"auth_profile_store", "store_key", "primary", "store_json"})
		if err != nil && cell.Bytes != nil {
			t.Error("an answer beside an error")
		}
	})
}
