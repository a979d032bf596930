package staged

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func write(t *testing.T, path, content string) *File {
	t.Helper()
	f, err := New(path)
	must(t, err)
	t.Cleanup(f.Drop)
	_, err = f.Write([]byte(content))
	must(t, err)
	return f
}

func TestPlaceReplacesTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(path, []byte("old"), 0o640))
	info, err := os.Stat(path)
	must(t, err)
	f := write(t, path, "new")
	must(t, f.Like(info))
	if content, err := os.ReadFile(path); err != nil || string(content) != "old" {
		t.Errorf("before it is placed: %q, %v", content, err)
	}
	must(t, f.Place())
	f.Drop()
	content, err := os.ReadFile(path)
	if err != nil || string(content) != "new" {
		t.Errorf("got %q, %v", content, err)
	}
	if now, err := os.Stat(path); err != nil || now.Mode() != info.Mode() {
		t.Errorf("the mode is %v, %v, want %v", now.Mode(), err, info.Mode())
	}
	if all := names(t, filepath.Dir(path)); !slices.Equal(all, []string{"f"}) {
		t.Errorf("there are %q", all)
	}
}

func TestDropLeavesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "new").Drop()
	if all := names(t, filepath.Dir(path)); len(all) > 0 {
		t.Errorf("there are %q", all)
	}
}

func TestNewRemovesWhatWasLeftAndNoBodysUses(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(path+".credresolve-other", nil, 0o600)) // not of our form
	must(t, os.WriteFile(filepath.Join(filepath.Dir(path), ".f.credresolve-left"), []byte("old"), 0o600))
	used, err := os.Create(filepath.Join(filepath.Dir(path), ".f.credresolve-used"))
	must(t, err)
	defer used.Close()
	must(t, lockTemp(used))
	write(t, path, "new").Drop()
	if all := names(t, filepath.Dir(path)); !slices.Equal(all, []string{".f.credresolve-used", "f.credresolve-other"}) {
		t.Errorf("there are %q", all)
	}
}
