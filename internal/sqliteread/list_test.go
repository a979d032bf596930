package sqliteread_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/internal/safefile"
	"github.com/credresolve/credresolve/internal/sqliteread"
)

func TestListGivesEveryRow(t *testing.T) {
	t.Parallel()
	path, err := filepath.Abs(filepath.Join("testdata", "small.sqlite"))
	must(t, err)
	p := safefile.Policy{Links: safefile.LinksTrusted, HardLinks: true, OpenParents: true}
	rows, err := sqliteread.List(context.Background(), path, p, "auth_profile_store", "store_key", "UPDATED_AT", "store_json")
	must(t, err)
	if len(rows) != 2 || string(rows[0][0].Bytes) != "other" || rows[0][1].Int != 1 ||
		string(rows[1][0].Bytes) != "primary" || rows[1][1].Int != 3 || string(rows[1][2].Bytes) != strings.Repeat("y", 900) {
		t.Errorf("the rows are %v", rows)
	}
	if rows, err := sqliteread.List(context.Background(), path, p, "another", "a"); err != nil || len(rows) != 0 {
		t.Errorf("%v: a table that is not there has %v", err, rows)
	}
	if _, err := sqliteread.List(context.Background(), path, p, "auth_profile_store", "nothing"); err == nil {
		t.Error("a column that is not there was read")
	}
	p.MaxBytes = 900
	if _, err := sqliteread.List(context.Background(), path, p, "auth_profile_store", "store_key", "store_json"); err == nil {
		t.Error("more was read than is allowed")
	}
}
