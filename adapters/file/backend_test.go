//go:build unix

package file_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/file"
	"github.com/credresolve/credresolve/backend"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

const canary = "hunter2-c4nary"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	return dir
}

func write(t *testing.T, path, content string, mode fs.FileMode) string {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), mode))
	must(t, os.Chmod(path, mode))
	return path
}

func open(t *testing.T, c file.Config) *file.Backend {
	t.Helper()
	b, err := file.New(c, backend.Host{})
	must(t, err)
	return b
}

// holding gives a Backend for a file of that mode with that content.
func holding(t *testing.T, mode, content string) *file.Backend {
	t.Helper()
	return open(t, file.Config{Path: write(t, filepath.Join(tempDir(t), "f"), content, 0o600), Mode: mode})
}

// show gives all of c: JSON values between <>, fields after it.
func show(c *backend.Credential) string {
	one := func(s backend.Secret) string {
		if s.IsJSON() {
			return "<" + string(s.Reveal()) + ">"
		}
		return string(s.Reveal())
	}
	s := one(c.Secret)
	for _, name := range slices.Sorted(maps.Keys(c.Fields)) {
		s += " " + name + "=" + one(c.Fields[name])
	}
	return s
}

func ids(t *testing.T, b backend.Backend, prefix string) []string {
	t.Helper()
	var found []string
	for e, err := range backend.List(t.Context(), b, prefix) {
		must(t, err)
		if e.Version == "" || e.Modified.IsZero() {
			t.Errorf("the entry %q has no version or time", e.ID)
		}
		found = append(found, e.ID)
	}
	return found
}

const jsonDoc = "\ufeff" + `{
  "plain": "s3cret \u00fc\n", "empty": "", "n": 12345678901234567890.10, "t": true, "z": null,
  "db": {"user": "u", "port": 5432, "tls": {"ca": "x"}, "list": ["a", {"b": "c"}, []]},
  "a/b": "slash", "m~n": "tilde", "": "nothing", "value": "key", "q\"\\": "quote", "json": "{\"k\": \"v\"}", "/lead": "lead", "e": {}
}`

const yamlDoc = `# comment
plain: "s3cret ü\n"
empty: ""
n: 12345678901234567890.10
hex: 0x1F
under: 1_000
t: True
z: ~
none:
date: 2024-01-02
version: 1.10
folded: >
  two
  lines
literal: |
  two
  lines
base: &base {user: u, port: 5432}
db:
  <<: *base
  port: 6543
  list: [a, {b: c}, *base]
forced: !!str 007
1: one
? x
: y
html: <&>
`

const dotenvDoc = "\ufeff# comment\r\n" + `
export A=plain # comment
B = spaced out
C='single $A \n # no'
D="double \"q\" \$A \\ \n\t\x"
E=
F= # nothing
G=pa$$wo#rd
H="two
lines" # comment
I='{"k": "v", "n": 1.0}'
J=a=b
K.l-m=x
`

func TestGet(t *testing.T) {
	t.Parallel()
	docs := map[string]string{"json": jsonDoc, "yaml": yamlDoc, "dotenv": dotenvDoc}
	for _, tt := range []struct {
		mode, id, want string
		err            error
	}{
		{"json", "plain", "s3cret ü\n", nil},
		{"json", "/plain", "s3cret ü\n", nil},
		{"json", "empty", "", nil},
		{"json", "n", "<12345678901234567890.10>", nil},
		{"json", "t", "<true>", nil},
		{"json", "z", "<null>", nil},
		{"json", "db", `<{"user":"u","port":5432,"tls":{"ca":"x"},"list":["a",{"b":"c"},[]]}> list=<["a",{"b":"c"},[]]> port=<5432> tls=<{"ca":"x"}> user=u`, nil},
		{"json", "/db/user", "u", nil},
		{"json", "/db/tls", `<{"ca":"x"}> ca=x`, nil},
		{"json", "/db/list/0", "a", nil},
		{"json", "/db/list/1/b", "c", nil},
		{"json", "/db/list/2", "<[]>", nil},
		{"json", "e", "<{}>", nil},
		{"json", "a/b", "slash", nil},
		{"json", "/a~1b", "slash", nil},
		{"json", "/m~0n", "tilde", nil},
		{"json", "m~n", "tilde", nil},
		{"json", "/", "nothing", nil},
		{"json", "/value", "key", nil},
		{"json", "//lead", "", backend.ErrNotFound},
		{"json", "/~1lead", "lead", nil},
		{"json", `q"\`, "quote", nil},
		{"json", "json", `{"k": "v"} k=v`, nil},
		{"json", "none", "", backend.ErrNotFound},
		{"json", "db/user", "", backend.ErrNotFound},
		{"json", "/db/none", "", backend.ErrNotFound},
		{"json", "/db/user/x", "", backend.ErrNotFound},
		{"json", "/db/list/3", "", backend.ErrNotFound},
		{"json", "/db/list/-1", "", backend.ErrNotFound},
		{"json", "/db/list/00", "", backend.ErrNotFound},
		{"json", "/db/list/+0", "", backend.ErrNotFound},
		{"json", "/db/list/-", "", backend.ErrNotFound},
		{"json", "/db/list/2/0", "", backend.ErrNotFound},
		{"json", "/~", "", backend.ErrInvalidID},
		{"json", "/a~2", "", backend.ErrInvalidID},

		{"yaml", "plain", "s3cret ü\n", nil},
		{"yaml", "empty", "", nil},
		{"yaml", "n", "<12345678901234567890.10>", nil},
		{"yaml", "hex", "0x1F", nil},
		{"yaml", "under", "1_000", nil},
		{"yaml", "t", "<true>", nil},
		{"yaml", "z", "<null>", nil},
		{"yaml", "none", "<null>", nil},
		{"yaml", "date", "2024-01-02", nil},
		{"yaml", "version", "<1.10>", nil},
		{"yaml", "folded", "two lines\n", nil},
		{"yaml", "literal", "two\nlines\n", nil},
		{"yaml", "db", `<{"port":6543,"list":["a",{"b":"c"},{"user":"u","port":5432}],"user":"u"}> list=<["a",{"b":"c"},{"user":"u","port":5432}]> port=<6543> user=u`, nil},
		{"yaml", "/db/user", "u", nil},
		{"yaml", "/db/list/2/port", "<5432>", nil},
		{"yaml", "forced", "007", nil},
		{"yaml", "1", "one", nil},
		{"yaml", "x", "y", nil},
		{"yaml", "html", "<&>", nil},
		{"yaml", "missing", "", backend.ErrNotFound},

		{"dotenv", "A", "plain", nil},
		{"dotenv", "/A", "plain", nil},
		{"dotenv", "B", "spaced out", nil},
		{"dotenv", "C", `single $A \n # no`, nil},
		{"dotenv", "D", "double \"q\" $A \\ \n\t\\x", nil},
		{"dotenv", "E", "", nil},
		{"dotenv", "F", "", nil},
		{"dotenv", "G", "pa$$wo#rd", nil},
		{"dotenv", "H", "two\nlines", nil},
		{"dotenv", "I", `{"k": "v", "n": 1.0} k=v n=<1.0>`, nil},
		{"dotenv", "J", "a=b", nil},
		{"dotenv", "K.l-m", "x", nil},
		{"dotenv", "L", "", backend.ErrNotFound},

		{"raw", "plain", "", backend.ErrInvalidID},
		{"raw", "/value", "", backend.ErrInvalidID},
	} {
		t.Run(tt.mode+" "+tt.id, func(t *testing.T) {
			t.Parallel()
			c, err := holding(t, tt.mode, docs[tt.mode]).Get(t.Context(), backend.Request{ID: tt.id})
			if tt.err != nil {
				if !errors.Is(err, tt.err) || c != nil {
					t.Errorf("got %v, want %v", err, tt.err)
				}
				return
			}
			must(t, err)
			if got := show(c); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if c.Version == "" {
				t.Error("no version")
			}
		})
	}
}

func TestWholeFile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, mode, content string
		trim                bool
		want                string
	}{
		{"every byte", "raw", "\ufeffs3cret\n\n\x00\xff\n", false, "\ufeffs3cret\n\n\x00\xff\n"},
		{"one newline trimmed", "raw", "s3cret\n\n", true, "s3cret\n"},
		{"one Windows newline trimmed", "raw", "s3cret\r\n", true, "s3cret"},
		{"no newline to trim", "raw", "s3cret \r", true, "s3cret \r"},
		{"empty", "raw", "", true, ""},
		{"an object", "raw", `{"a": "b"}` + "\n", false, `{"a": "b"}` + "\n a=b"},
		{"a JSON document", "json", ` {"a": "b", "n": 1.0}`, false, ` {"a": "b", "n": 1.0} a=b n=<1.0>`},
		{"a JSON array", "json", "[1]", false, "[1]"},
		{"a YAML document", "yaml", "a: b\nc: {d: 1}\n", false, "a: b\nc: {d: 1}\n a=b c=<{\"d\":1}>"},
		{"an empty YAML document", "yaml", "# nothing\n", false, "# nothing\n"},
		{"a dotenv document", "dotenv", "A=b\n", true, "A=b A=b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := write(t, filepath.Join(tempDir(t), "f"), tt.content, 0o600)
			c, err := open(t, file.Config{Path: path, Mode: tt.mode, TrimNewline: tt.trim}).Get(t.Context(), backend.Request{ID: "value"})
			must(t, err)
			if got := show(c); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestBadContent(t *testing.T) {
	t.Parallel()
	laughs := "a0: &a0 [" + canary + "]\n"
	for i := 1; i < 30; i++ {
		laughs += fmt.Sprintf("a%d: &a%d [*a%d, *a%d, *a%d, *a%d]\n", i, i, i-1, i-1, i-1, i-1)
	}
	for _, tt := range []struct{ name, mode, content, want string }{
		{"empty", "json", "", "a mistake in line 1, column 1"},
		{"garbage", "json", "{\n  \"a\": " + canary + "}", "a mistake in line 2, column 8"},
		{"cut off", "json", `{"a": "` + canary, "a mistake in line 1, column 21"},
		{"two values", "json", "{}\n{}", "a mistake in line 2, column 1"},
		{"a comment", "json", "// " + canary + "\n{}", "a mistake in line 1, column 1"},
		{"twice", "json", `{"a": 1, "` + canary + `": 1,` + "\n" + ` "` + canary + `": 2}`, "the same key twice in line 2, column 2"},
		{"twice, spelt otherwise", "json", `{"ü": 1, "\u00fc": "` + canary + `"}`, "the same key twice in line 1, column 10"},
		{"twice, deep", "json", `{"a": [{"b": 1, "b": 2}]}`, "the same key twice in line 1, column 17"},
		{"not UTF-8", "json", "{\"a\":\n\"\xff" + canary + "\"}", "a byte that is not UTF-8 in line 2, column 2"},
		{"deep", "json", strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000), "a mistake in line 1"},
		{"garbage", "yaml", "a: [" + canary, "a mistake"},
		{"tab", "yaml", "a:\n\t- " + canary, "a mistake"},
		{"not UTF-8", "yaml", "a: \xff" + canary, "a byte that is not UTF-8 in line 1, column 4"},
		{"twice", "yaml", canary + ": 1\n" + canary + ": 2\n", "the same key twice in line 2, column 1"},
		{"twice, deep", "yaml", "a:\n  - {b: 1, b: 2}\n", "the same key twice in line 2, column 12"},
		{"two documents", "yaml", "a: " + canary + "\n---\nb: 1\n", "a second document in line 3"},
		{"an unknown alias", "yaml", "a: *" + "hunter2c4nary", "an alias without an anchor before it"},
		{"an alias of itself", "yaml", "a: &x [*x]", "an alias without an anchor before it"},
		{"a tag of one's own", "yaml", "a: !vault " + canary, "a tag that is not supported"},
		{"binary", "yaml", "a: !!binary aHVudGVyMg==", "a tag that is not supported"},
		{"a merge of a text", "yaml", "a:\n  <<: " + canary + "\n", "a merge of what is no mapping"},
		{"a billion laughs", "yaml", laughs, "aliases that make it more than can be taken in"},
		{"deep flow", "yaml", strings.Repeat("[", 100_000), "nesting that is too deep in line 1"},
		{"deep dashes", "yaml", strings.Repeat("- ", 100_000) + "x", "nesting that is too deep in line 1"},
		{"deep indentation", "yaml", deepYAML(300), "nesting that is too deep in line 201"},
		{"many keys", "yaml", "[" + strings.Repeat("{a: 1},", 20_000) + "]", "more than can be taken in"},
		{"many tags", "yaml", strings.Repeat("!!str ", 20_000) + "x", "more than can be taken in"},
		{"a line without =", "dotenv", "A=1\n" + canary + "\n", "a line without = in line 2, column 1"},
		{"no name", "dotenv", "=" + canary, "what is no variable's name in line 1, column 1"},
		{"a bad name", "dotenv", "1A=" + canary, "what is no variable's name in line 1, column 1"},
		{"a name with a space", "dotenv", canary + " b=x", "what is no variable's name in line 1, column 1"},
		{"an open quote", "dotenv", "A=1\nB='" + canary + "\n\n", "a quote that is not closed in line 2, column 3"},
		{"text after a quote", "dotenv", "A=\"x\" " + canary, "text after a closing quote in line 1, column 6"},
		{"twice", "dotenv", "A=1\nexport A=" + canary, "the same variable twice in line 2, column 1"},
		{"not UTF-8", "dotenv", "A=\xff", "a byte that is not UTF-8 in line 1, column 3"},
	} {
		t.Run(tt.mode+" "+tt.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			b := holding(t, tt.mode, tt.content)
			for _, id := range []string{"a", "value"} {
				c, err := b.Get(t.Context(), backend.Request{ID: id})
				if !errors.Is(err, backend.ErrUnavailable) || c != nil {
					t.Fatalf("%s: got %v, %v; want ErrUnavailable", id, c, err)
				}
				if !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %q in it", err, tt.want)
				}
				if strings.Contains(err.Error(), canary) {
					t.Errorf("the error holds the content: %v", err)
				}
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func deepYAML(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "k:\n")
	}
	return b.String()
}

func TestRefusedFiles(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		layout string
		make   func(t *testing.T, dir string) string
		code   backend.Code
		want   string
	}{
		{"missing", "", func(_ *testing.T, dir string) string { return dir + "/none" }, backend.CodeNotFound, "does not exist"},
		{"open to others", "", func(t *testing.T, dir string) string { return write(t, dir+"/f", canary, 0o644) }, backend.CodeDenied, "chmod 600"},
		{"open to a group", "", func(t *testing.T, dir string) string { return write(t, dir+"/f", canary, 0o640) }, backend.CodeDenied, "chmod 600"},
		{"writable, mounted", "docker", func(t *testing.T, dir string) string { return write(t, dir+"/f", canary, 0o666) }, backend.CodeDenied, "by others (mode 0666); run: chmod"},
		{"a link", "", func(t *testing.T, dir string) string {
			write(t, dir+"/f", canary, 0o600)
			must(t, os.Symlink("f", dir+"/link"))
			return dir + "/link"
		}, backend.CodeDenied, "symbolic link"},
		{"a link, mounted", "docker", func(t *testing.T, dir string) string {
			write(t, dir+"/f", canary, 0o600)
			must(t, os.Symlink("f", dir+"/link"))
			return dir + "/link"
		}, backend.CodeDenied, "symbolic link"},
		{"the kubelet's link", "", func(t *testing.T, dir string) string { return kubelet(t, dir) + "/key" }, backend.CodeDenied, "layout: kubernetes"},
		{"a hard link", "", func(t *testing.T, dir string) string {
			must(t, os.Link(write(t, dir+"/f", canary, 0o600), dir+"/g"))
			return dir + "/f"
		}, backend.CodeDenied, "hard links"},
		{"a FIFO", "", func(t *testing.T, dir string) string {
			must(t, unix.Mkfifo(dir+"/f", 0o600))
			return dir + "/f"
		}, backend.CodeDenied, "not a regular file"},
		{"a directory", "", func(_ *testing.T, dir string) string { return dir }, backend.CodeInvalidConfig, "layout: docker or kubernetes"},
		{"too big", "", func(t *testing.T, dir string) string { return write(t, dir+"/f", strings.Repeat("x", 1<<20+1), 0o600) }, backend.CodeInvalidConfig, "max_bytes"},
		{"another user's", "", func(t *testing.T, dir string) string {
			if os.Geteuid() != 0 {
				t.Skip("needs root to give files away: run the tests as root")
			}
			path := write(t, dir+"/f", canary, 0o600)
			must(t, os.Chown(path, 54321, 54321))
			return path
		}, backend.CodeDenied, "belongs to user 54321"},
		{"below an open directory", "", func(t *testing.T, dir string) string {
			path := write(t, dir+"/open/f", canary, 0o600)
			must(t, os.Chmod(dir+"/open", 0o777))
			return path
		}, backend.CodeDenied, "chmod go-w"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := open(t, file.Config{Path: tt.make(t, tempDir(t)), Layout: tt.layout})
			_, err := b.Get(t.Context(), backend.Request{ID: "value"})
			if backend.CodeOf(err) != tt.code || !strings.Contains(fmt.Sprint(err), tt.want) {
				t.Errorf("Get: %v; want %s and %q", err, tt.code, tt.want)
			}
			if err := b.Probe(t.Context()); backend.CodeOf(err) != tt.code {
				t.Errorf("Probe: %v; want %s", err, tt.code)
			}
			if _, err := b.CurrentVersion(t.Context(), backend.Request{ID: "value"}); backend.CodeOf(err) != tt.code {
				t.Errorf("CurrentVersion: %v; want %s", err, tt.code)
			}
			for _, err := range b.List(t.Context(), "") {
				if backend.CodeOf(err) != tt.code {
					t.Errorf("List: %v; want %s", err, tt.code)
				}
			}
		})
	}
}

// kubelet gives a directory as the kubelet mounts it, with the keys key and other.
func kubelet(t *testing.T, dir string) string {
	t.Helper()
	mount := filepath.Join(dir, "mount")
	kubeletUpdate(t, mount, "1")
	for _, key := range []string{"key", "other"} {
		must(t, os.Symlink("..data/"+key, filepath.Join(mount, key)))
	}
	must(t, os.Chmod(mount, 0o777|fs.ModeSticky))
	return mount
}

// kubeletUpdate exchanges all files at once, as the kubelet does.
func kubeletUpdate(t *testing.T, mount, version string) {
	t.Helper()
	write(t, filepath.Join(mount, "..v"+version, "key"), canary+version, 0o444)
	write(t, filepath.Join(mount, "..v"+version, "other"), canary+version, 0o444)
	must(t, os.Symlink("..v"+version, filepath.Join(mount, "..data_tmp")))
	must(t, os.Rename(filepath.Join(mount, "..data_tmp"), filepath.Join(mount, "..data")))
}

func TestKubernetes(t *testing.T) {
	t.Parallel()
	mount := kubelet(t, tempDir(t))
	b := open(t, file.Config{Path: mount, Layout: "kubernetes"})
	must(t, b.Probe(t.Context()))
	if got := ids(t, b, ""); !slices.Equal(got, []string{"key", "other"}) {
		t.Errorf("ids %q", got)
	}
	c, err := b.Get(t.Context(), backend.Request{ID: "key"})
	must(t, err)
	if show(c) != canary+"1" {
		t.Errorf("got %s", show(c))
	}
	for id, want := range map[string]error{
		"none": backend.ErrNotFound, "": backend.ErrInvalidID, "..": backend.ErrInvalidID, ".": backend.ErrInvalidID, "..data": backend.ErrInvalidID,
		"../key": backend.ErrInvalidID, "sub/key": backend.ErrInvalidID, "a\\b": backend.ErrInvalidID,
	} {
		if _, err := b.Get(t.Context(), backend.Request{ID: id}); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", id, err, want)
		}
	}
	kubeletUpdate(t, mount, "2")
	if v, err := b.CurrentVersion(t.Context(), backend.Request{ID: "key"}); err != nil || v == c.Version {
		t.Errorf("after an update: version %q, %v", v, err)
	}
	single := open(t, file.Config{Path: filepath.Join(mount, "key"), Layout: "kubernetes"})
	c, err = single.Get(t.Context(), backend.Request{ID: "value"})
	must(t, err)
	if show(c) != canary+"2" {
		t.Errorf("one file: %s", show(c))
	}

	// A batch is of one version, however fast they change.
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 3; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
				kubeletUpdate(t, mount, fmt.Sprint(i))
			}
		}
	})
	whole := 0
	for range 100 {
		results, err := b.GetBatch(t.Context(), []backend.Request{{ID: "key"}, {ID: "other"}})
		if err != nil {
			if !errors.Is(err, backend.ErrUnavailable) {
				t.Error(err)
			}
			continue
		}
		if results[0].Err != nil || results[1].Err != nil || show(results[0].Credential) != show(results[1].Credential) {
			t.Errorf("a batch of two versions: %v, %v", results[0], results[1])
		}
		whole++
	}
	close(stop)
	wg.Wait()
	if whole == 0 {
		t.Error("no batch came through")
	}
}

func TestDocker(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	write(t, dir+"/token", canary, 0o444)
	write(t, dir+"/wide", canary, 0o446)
	must(t, os.Mkdir(dir+"/sub", 0o755))
	b := open(t, file.Config{Path: dir, Layout: "docker"})
	results, err := b.GetBatch(t.Context(), []backend.Request{{ID: "token"}, {ID: "wide"}, {ID: "none"}, {ID: "token"}, {ID: "sub"}, {ID: "token", Version: "1"}})
	must(t, err)
	for i, want := range []error{nil, backend.ErrDenied, backend.ErrNotFound, nil, backend.ErrInvalidConfig, errors.ErrUnsupported} {
		r := results[i]
		if !errors.Is(r.Err, want) || (r.Err == nil) != (r.Credential != nil && show(r.Credential) == canary) {
			t.Errorf("result %d: %v, %v; want %v", i, r.Credential, r.Err, want)
		}
	}
	must(t, os.Remove(dir+"/wide"))
	if got := ids(t, b, "to"); !slices.Equal(got, []string{"token"}) {
		t.Errorf("ids %q", got)
	}
}

func TestBatch(t *testing.T) {
	t.Parallel()
	b := holding(t, "json", `{"a": "1", "b": {"c": "2"}}`)
	results, err := b.GetBatch(t.Context(), []backend.Request{{ID: "a"}, {ID: "/b/c"}, {ID: "none"}, {ID: "a"}, {ID: "a", Version: "1"}, {ID: "/~"}})
	must(t, err)
	for i, want := range []struct {
		value string
		err   error
	}{{"1", nil}, {"2", nil}, {"", backend.ErrNotFound}, {"1", nil}, {"", errors.ErrUnsupported}, {"", backend.ErrInvalidID}} {
		r := results[i]
		if !errors.Is(r.Err, want.err) || r.Err == nil && show(r.Credential) != want.value {
			t.Errorf("result %d: %v, %v; want %+v", i, r.Credential, r.Err, want)
		}
	}
	missing := open(t, file.Config{Path: tempDir(t) + "/none.json"})
	results, err = missing.GetBatch(t.Context(), []backend.Request{{ID: "a"}, {ID: "/~"}})
	if err != nil || !errors.Is(results[0].Err, backend.ErrNotFound) || !errors.Is(results[1].Err, backend.ErrInvalidID) {
		t.Errorf("a missing file: %v, %v", results, err)
	}
	if results, err := missing.GetBatch(t.Context(), nil); err != nil || len(results) != 0 {
		t.Errorf("no requests: %v, %v", results, err)
	}
}

func TestCurrentVersion(t *testing.T) {
	t.Parallel()
	path := write(t, filepath.Join(tempDir(t), "f.json"), `{"a": "1"}`, 0o600)
	b := open(t, file.Config{Path: path})
	version := func(id string) (string, error) { return b.CurrentVersion(t.Context(), backend.Request{ID: id}) }
	first, err := version("a")
	must(t, err)
	c, err := b.Get(t.Context(), backend.Request{ID: "a"})
	must(t, err)
	if c.Version != first {
		t.Errorf("Get has version %q, CurrentVersion %q", c.Version, first)
	}
	if again, err := version("a"); err != nil || again != first {
		t.Errorf("unchanged: %q, %v; want %q", again, err, first)
	}
	if _, err := version("b"); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("a missing key: %v", err)
	}
	must(t, os.Rename(write(t, path+".new", `{"b": "2"}`, 0o600), path))
	if _, err := version("a"); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("a key that is gone: %v", err)
	}
	if v, err := version("b"); err != nil || v == first {
		t.Errorf("a new file: %q, %v", v, err)
	}
	if _, err := b.CurrentVersion(t.Context(), backend.Request{ID: "b", Version: "1"}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a version: %v", err)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		mode, content, prefix string
		want                  []string
	}{
		{"json", jsonDoc, "", []string{"/", "/~1lead", "a/b", "db", "e", "empty", "json", "m~n", "n", "plain", `q"\`, "t", "/value", "z"}},
		{"json", jsonDoc, "e", []string{"e", "empty"}},
		{"json", "[1]", "", nil},
		{"yaml", "b: 1\na: {c: 2}\n", "", []string{"a", "b"}},
		{"dotenv", "B=1\nA=2\n", "", []string{"A", "B"}},
		{"raw", "x", "", []string{"value"}},
		{"raw", "x", "w", nil},
	} {
		b := holding(t, tt.mode, tt.content)
		got := ids(t, b, tt.prefix)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s %q: %q, want %q", tt.mode, tt.prefix, got, tt.want)
		}
		for _, id := range got {
			if _, err := b.Get(t.Context(), backend.Request{ID: id}); err != nil {
				t.Errorf("the listed id %q: %v", id, err)
			}
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []file.Config{
		{}, {Path: "~/f"}, {Path: "~"}, {Path: "a\x00"}, {Path: "f", Mode: "jsonn"}, {Path: "f", Mode: "JSON"}, {Path: "f", Layout: "kube"}, {Path: "f", MaxBytes: -1}, {Path: "f", MaxBytes: 1 << 40},
	} {
		if _, err := file.New(c, backend.Host{}); !errors.Is(err, backend.ErrInvalidConfig) {
			t.Errorf("%+v: %v, want ErrInvalidConfig", c, err)
		}
	}
	if _, err := file.New(file.Config{Path: "f", Mode: "jsonn"}, backend.Host{}); err == nil || !strings.Contains(err.Error(), `did you mean "json"`) {
		t.Errorf("no help: %v", err)
	}
	for path, want := range map[string]string{"/a.json": "json", "/a.YML": "yaml", "/a.yaml": "yaml", "/.env": "dotenv", "/prod.env": "dotenv", "/a": "raw", "/a.json/b": "raw"} {
		d := open(t, file.Config{Path: path}).Describe()
		if want := path + ", " + want + ", strict"; d.Detail != want || d.CallerBound {
			t.Errorf("%s: %+v, want %q", path, d, want)
		}
	}
	dir := tempDir(t)
	write(t, dir+"/sub/f", canary, 0o600)
	b, err := file.Kind().Open(&file.Config{Path: "sub/f"}, backend.Host{Dir: dir})
	must(t, err)
	if c, err := b.Get(t.Context(), backend.Request{ID: "value"}); err != nil || show(c) != canary {
		t.Errorf("a relative path: %v", err)
	}
	if backend.Describe(b).CallerBound {
		t.Error("a path below the configuration's directory is the same for every process")
	}
	if !open(t, file.Config{Path: "sub/f"}).Describe().CallerBound {
		t.Error("a path below the working directory differs between processes")
	}
	want := []backend.Reach{{What: backend.ReachFile, Value: "sub/f"}}
	if got := (file.Config{Path: "sub/f"}).Reach(); !slices.Equal(got, want) {
		t.Errorf("Reach = %v", got)
	}
}

func TestWorkingDirectory(t *testing.T) {
	dir := tempDir(t)
	write(t, dir+"/f", canary, 0o600)
	t.Chdir(dir)
	if c, err := open(t, file.Config{Path: "f"}).Get(t.Context(), backend.Request{ID: "value"}); err != nil || show(c) != canary {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	b := holding(t, "json", `{"a": "1"}`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Get(ctx, backend.Request{ID: "a"}); !errors.Is(err, context.Canceled) {
		t.Errorf("Get: %v", err)
	}
	if err := b.Probe(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Probe: %v", err)
	}
	for _, err := range b.List(ctx, "") {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("List: %v", err)
		}
	}
}

func BenchmarkGetBatch(b *testing.B) {
	var doc strings.Builder
	reqs := make([]backend.Request, 1000)
	for i := range reqs {
		reqs[i].ID = fmt.Sprintf("/app%d/password", i)
		fmt.Fprintf(&doc, "%c\"app%d\": {\"password\": \"%040d\"}\n", ",{"[min(1, 1-min(i, 1))], i, i)
	}
	path := filepath.Join(b.TempDir(), "f.json")
	if err := os.WriteFile(path, []byte(doc.String()+"}"), 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := file.New(file.Config{Path: path}, backend.Host{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		results, err := f.GetBatch(b.Context(), reqs)
		if err != nil || results[0].Err != nil {
			b.Fatal(err, results[0].Err)
		}
	}
}
