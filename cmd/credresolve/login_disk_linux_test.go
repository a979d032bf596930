package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// On a full disk a login that is there stays good, one that cannot be kept is none, and what was begun leaves nothing behind.
func TestLoginOnAFullDisk(t *testing.T) {
	t.Parallel()
	d := newDesk(t, formConfig)
	disk := filepath.Join(d.dir, "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skip("needs root to mount a tmpfs: run it as root")
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	config, err := os.ReadFile(filepath.Join(d.dir, "credresolve.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	d.write("disk/credresolve.yaml", strings.ReplaceAll(string(config), "path: key.password", `path: "`+d.dir+`/key.password"`))
	d.env = append(d.env, "XDG_STATE_HOME="+filepath.Join(disk, "state"), "CREDRESOLVE_CONFIG="+filepath.Join(disk, "credresolve.yaml"))
	d.run(0, "first-c4nary", "login", "form")
	filler := filepath.Join(disk, "filler")
	_ = os.WriteFile(filler, make([]byte, 64<<10), 0o600) // as much as there is room for
	before, err := filepath.Glob(filepath.Join(disk, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"login", "form"}, {"login", "form", "other"}} {
		if _, said := d.run(6, "second-c4nary", args...); !strings.Contains(said, "is not kept") || !strings.Contains(said, "no space left") || strings.Contains(said, "c4nary") {
			t.Errorf("%v said %s", args, said)
		}
	}
	if out, said := d.run(1, "", "provider", "add", "gh", "--template", "github", "--client-id", "x"); out != "" || !strings.Contains(said, "is as it was: no space left") {
		t.Errorf("adding a provider said %s", said)
	}
	if out, _ := d.run(2, "", "doctor", "form"); !strings.Contains(out, "cannot be written: no space left") {
		t.Errorf("doctor prints %s", out)
	}
	if got, _ := d.run(0, "", "get", "cred://form/default"); got != "first-c4nary" {
		t.Errorf("get prints %q", got)
	}
	if _, said := d.run(8, "", "get", "cred://form/other"); !strings.Contains(said, "nobody has logged in") {
		t.Errorf("get of the other said %s", said)
	}
	if after, err := filepath.Glob(filepath.Join(disk, "*", "*")); err != nil || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("there is now %v, and was %v: %v", after, before, err)
	}
	if _, said := d.run(0, "", "logout", "form"); !strings.Contains(said, "logged out of form") { // which needs no room
		t.Errorf("logout said %s", said)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	d.run(0, "third-c4nary", "login", "form")
	if got, _ := d.run(0, "", "get", "cred://form/default"); got != "third-c4nary" {
		t.Errorf("with room again get prints %q", got)
	}
}

// Who logs in at the same time leaves one login, whole, and one line of it.
func TestLoginsAtOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t, formConfig)
	var all []*command
	for i := range 6 {
		r := d.start("login", "form")
		r.enter(fmt.Sprintf("key-c4nary-%d", i))
		_ = r.stdin.Close()
		all = append(all, r)
	}
	for _, r := range all {
		r.ends(0)
	}
	if got, _ := d.run(0, "", "get", "cred://form/default"); len(got) != len("key-c4nary-0") || !strings.HasPrefix(got, "key-c4nary-") {
		t.Errorf("get prints %q", got)
	}
	if out, _ := d.run(0, "", "whoami"); strings.Count(out, "form") != 1 {
		t.Errorf("whoami prints %s", out)
	}
}

// A command that is killed while it asks, or has nothing to write to, harms nothing.
func TestLoginThatIsKilledOrMute(t *testing.T) {
	t.Parallel()
	d := newDesk(t, formConfig)
	d.run(0, "first-c4nary", "login", "form")
	r := d.start("login", "form")
	r.expect("the new login replaces that")
	r.enter("half-c4n") // which does not end
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.ends(-1)
	r = d.start("login", "form", "mute")
	_ = r.stdin.Close()
	r.ends(2)
	if got, _ := d.run(0, "", "get", "cred://form/default"); got != "first-c4nary" {
		t.Errorf("get prints %q", got)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, args := range [][]string{{"whoami"}, {"whoami", "form"}, {"explain", "cred://form/default"}, {"doctor", "form"}, {"get", "cred://form/default"}, {"requirements", "r.yaml"}} {
		d.write("r.yaml", "- {env: KEY, provider: form}\n")
		r := d.prepare(args...)
		r.cmd.Stdout = full
		r.begin()
		r.ends(1)
		if !strings.Contains(r.said(), "standard output cannot be written: no space left") || strings.Contains(r.said(), "c4nary") {
			t.Errorf("%v said %s", args, r.said())
		}
	}
}
