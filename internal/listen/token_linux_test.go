package listen

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/credresolve/credresolve/backend"
)

func TestTokenIsMadeOnce(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	path := filepath.Join(dir, "a", "tokens", "owner")
	tokens := make([][]byte, 24)
	var all sync.WaitGroup
	for i := range tokens {
		all.Go(func() {
			if i%8 == 0 { // another process
				_, a, end := start(t, "token", path, nil)
				end()
				if tokens[i] = []byte(a.Heard); a.Error != "" {
					t.Error(a.Error)
				}
				return
			}
			var err error
			if tokens[i], err = Token(path); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if random, err := base64.RawURLEncoding.DecodeString(string(tokens[0])); err != nil || len(random) != tokenBits/8 {
		t.Fatalf("a token of %d bytes, %v", len(random), err)
	}
	for _, token := range tokens {
		if !Equal(token, tokens[0]) {
			t.Fatal("two tokens")
		}
	}
	wantMode(t, path, 0o600)
	wantMode(t, filepath.Dir(path), fs.ModeDir|0o700)
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v, %v; want the token alone", entries, err)
	}
	other, err := Token(filepath.Join(dir, "a", "tokens", "other"))
	must(t, err)
	if Equal(other, tokens[0]) {
		t.Error("two files with the same token")
	}
}

func TestTokenAfterAKilledMaker(t *testing.T) {
	t.Parallel()
	path := filepath.Join(tempDir(t), "token")
	must(t, errors.Join(os.WriteFile(path+".new", []byte("half"), 0o600), os.WriteFile(path+".lock", nil, 0o600)))
	if _, err := Token(path); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v, %v; want the token alone", entries, err)
	}
}

func TestTokenFiles(t *testing.T) {
	t.Parallel()
	good := canary + "-0123456789"
	write := func(content string, mode fs.FileMode) func(string) error {
		return func(path string) error {
			return errors.Join(os.WriteFile(path, []byte(content), mode), os.Chmod(path, mode))
		}
	}
	for _, c := range []struct {
		name    string
		prepare func(path string) error
		root    bool
		want    string // empty: refused
		says    string
	}{
		{name: "a line", prepare: write(good+"\n", 0o600), want: good},
		{name: "no line end", prepare: write(good, 0o600), want: good},
		{name: "a line end of Windows", prepare: write(good+"\r\n", 0o600), want: good},
		{name: "that we may only read", prepare: write(good+"\n", 0o400), want: good},
		{name: "the shortest", prepare: write(strings.Repeat("a", 16), 0o600), want: strings.Repeat("a", 16)},
		{name: "the longest", prepare: write(strings.Repeat("~", 4096)+"\n", 0o600), want: strings.Repeat("~", 4096)},
		{name: "too short", prepare: write("c4nary-89012345\n", 0o600), says: "16 to 4096"},
		{name: "too long", prepare: write(strings.Repeat("c4nary--", 512)+"x\n", 0o600), says: "16 to 4096"},
		{name: "far too long", prepare: write(strings.Repeat("c4nary--", 5000), 0o600), says: "bytes"},
		{name: "empty", prepare: write("", 0o600), says: "16 to 4096"},
		{name: "two line ends", prepare: write(good+"\n\n", 0o600), says: "one line"},
		{name: "two lines", prepare: write(good+"\n"+good+"\n", 0o600), says: "one line"},
		{name: "a space", prepare: write(good+" "+good, 0o600), says: "without spaces"},
		{name: "a tab at the end", prepare: write(good+"\t\n", 0o600), says: "without spaces"},
		{name: "a NUL", prepare: write(good+"\x00", 0o600), says: "printable"},
		{name: "not ASCII", prepare: write(good+"é", 0o600), says: "printable"},
		{name: "that the group can read", prepare: write(good, 0o640), says: "mode 0640"},
		{name: "that others can read", prepare: write(good, 0o604), says: "chmod 600"},
		{name: "that others can write", prepare: write(good, 0o602), says: "written by others"},
		{name: "a link", says: "symbolic link",
			prepare: func(path string) error {
				return errors.Join(write(good, 0o600)(path+".real"), os.Symlink("token.real", path))
			}},
		{name: "a link that leads nowhere", says: "symbolic link",
			prepare: func(path string) error { return os.Symlink("nowhere", path) }},
		{name: "two names", says: "hard links",
			prepare: func(path string) error { return errors.Join(write(good, 0o600)(path), os.Link(path, path+".too")) }},
		{name: "a directory", says: "is a directory", prepare: func(path string) error { return os.Mkdir(path, 0o700) }},
		{name: "a pipe", says: "not a regular file", prepare: func(path string) error { return syscall.Mkfifo(path, 0o600) }},
		{name: "of another user", root: true, says: "user 65534",
			prepare: func(path string) error { return errors.Join(write(good, 0o600)(path), os.Chown(path, nobody, nobody)) }},
		{name: "in a directory that others can write to", says: "others can write",
			prepare: func(path string) error {
				return errors.Join(write(good, 0o600)(path), os.Chmod(filepath.Dir(path), 0o777))
			}},
		{name: "to be made in a directory that others can write to", says: "others can write",
			prepare: func(path string) error { return os.Chmod(filepath.Dir(path), 0o777) }},
		{name: "to be made in a sticky directory", says: "others can write",
			prepare: func(path string) error { return os.Chmod(filepath.Dir(path), 0o777|fs.ModeSticky) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.root {
				asRoot(t, "give files away")
			}
			path := filepath.Join(tempDir(t), "token")
			must(t, c.prepare(path))
			before := tree(t, filepath.Dir(path))
			token, err := Token(path)
			if after := tree(t, filepath.Dir(path)); after != before {
				t.Errorf("it left\n%sof\n%s", after, before)
			}
			if c.want != "" {
				if err != nil || !bytes.Equal(token, []byte(c.want)) {
					t.Errorf("another token, of %d bytes: %v", len(token), err)
				}
				return
			}
			if token != nil {
				t.Error("it gave a token")
			}
			if e, ok := errors.AsType[*backend.Error](err); !ok || e.Code != backend.CodeInvalidConfig || e.Remedy == "" || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v; want invalid_config, %q and a remedy", backend.CodeOf(err), err, c.says)
			}
			if err != nil && strings.Contains(err.Error(), "c4nary") {
				t.Error("the error holds the token")
			}
		})
	}
	if _, err := Token("token"); backend.CodeOf(err) != backend.CodeInvalidConfig {
		t.Errorf("a relative path: %v", err)
	}
}

func TestEqual(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"", "", true}, {"a", "a", true}, {canary, canary, true},
		{"a", "b", false}, {"a", "", false}, {"", "a", false}, {"a", "aa", false}, {canary, canary + "x", false}, {"a", "a\x00", false},
	} {
		if got := Equal([]byte(c.a), []byte(c.b)); got != c.want {
			t.Errorf("of %d and %d bytes: %v, want %v", len(c.a), len(c.b), got, c.want)
		}
	}
	if !Equal(nil, []byte{}) {
		t.Error("nil and empty differ")
	}
}
