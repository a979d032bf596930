package vault

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/vaulttest"
)

// age makes the backend doubt what it knows of mounts.
func (b *Backend) age() {
	b.mounts.mu.Lock()
	defer b.mounts.mu.Unlock()
	for i := range b.mounts.list {
		b.mounts.list[i].seen = time.Now().Add(-2 * mountTrust)
	}
}

func TestMountThatChanges(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	root := s.Client(t)
	m := s.Mount(t, "kv", map[string]string{"version": "1"})
	p := s.Proxy(t)
	b, err := New(Config{Address: p.URL, Auth: Auth{Token: backend.Literal(backend.NewSecretString(s.Token))}},
		backend.Host{LookupEnv: func(string) (string, bool) { return "", false }})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	read := func(id string) error {
		_, err := b.Get(t.Context(), backend.Request{ID: id})
		return err
	}
	write := func(id string) error {
		_, err := b.Put(t.Context(), backend.Request{ID: id}, backend.Value{Secret: backend.NewSecretString("v")}, backend.Condition{})
		return err
	}
	if err := write(m + "/x"); err != nil {
		t.Fatal(err)
	}

	// Another version in its place.
	remount := func(version string) {
		t.Helper()
		if err := root.Sys().UnmountWithContext(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if err := root.Sys().MountWithContext(t.Context(), m, &api.MountInput{Type: "kv", Options: map[string]string{"version": version}}); err != nil {
			t.Fatal(err)
		}
		for range 100 { // version 2 is busy for a moment
			if _, err := root.Logical().ReadWithContext(t.Context(), m+"/config"); err == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	remount("2")
	if _, err := root.KVv2(m).Put(t.Context(), "x", map[string]any{"k": "v"}); err != nil {
		t.Fatal(err)
	}
	if err := read(m + "/x"); err != nil { // version 2 says so itself when it is read as version 1
		t.Errorf("after the upgrade: %v", err)
	}
	remount("1")
	if err := read(m + "/x"); backend.CodeOf(err) != backend.CodeNotFound {
		t.Errorf("a mount that changed a moment ago: %v", err)
	}
	b.age()
	if err := write(m + "/y"); err != nil {
		t.Fatal(err)
	}
	if got := s.Read(t, m+"/y"); got["value"] != "v" {
		t.Errorf("the write went elsewhere: %v", got)
	}

	// What is missing costs one question for the mount a minute, not one for each try.
	b.age()
	before := len(p.Calls("/v1/sys/internal/ui/mounts/"))
	for range 5 {
		if err := read(m + "/never"); backend.CodeOf(err) != backend.CodeNotFound {
			t.Errorf("missing: %v", err)
		}
	}
	if n := len(p.Calls("/v1/sys/internal/ui/mounts/")) - before; n != 1 {
		t.Errorf("%d questions for the mount", n)
	}
}

func TestMountTable(t *testing.T) {
	t.Parallel()
	var table mounts
	for _, path := range []string{"a/", "a/b/", "ab/"} {
		table.put(mount{path: path, engine: "kv"})
	}
	table.put(mount{path: "a/", engine: "database"})
	for path, want := range map[string]string{"a/x": "a/", "a/b/x": "a/b/", "a/bc": "a/", "ab/x": "ab/", "abc/x": "", "b": ""} {
		m, ok := table.find(path)
		if m.path != want || ok != (want != "") {
			t.Errorf("%s is in %q", path, m.path)
		}
	}
	if m, _ := table.find("a/x"); m.engine != "database" {
		t.Errorf("the table holds %+v", m)
	}
}
