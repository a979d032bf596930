//go:build unix

package safefile_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/credresolve/credresolve/internal/safefile"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

const canary = "hunter2-c4nary"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tempDir gives a directory that is reached without links and that nobody else can write to.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, content string, mode fs.FileMode) string {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), mode))
	must(t, os.Chmod(path, mode))
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to give files away: run the tests as root")
	}
}

func secret() safefile.Policy {
	return safefile.Policy{Owners: []int{os.Geteuid(), 0}, Deny: 0o077, MaxBytes: 1 << 20}
}

func mounted(links safefile.Links) safefile.Policy {
	p := secret()
	p.Mounted, p.Links = true, links
	return p
}

func program() safefile.Policy {
	return safefile.Policy{Owners: []int{os.Geteuid(), 0}, Deny: 0o022, Executable: true, HardLinks: true, Links: safefile.LinksTrusted}
}

func problem(err error) safefile.Problem {
	var e *safefile.Error
	if errors.As(err, &e) {
		return e.Problem
	}
	return ""
}

func TestRead(t *testing.T) {
	t.Parallel()
	const foreign = 54321
	type make func(t *testing.T, dir string) string // gives the path to read
	file := func(mode fs.FileMode) make {
		return func(t *testing.T, dir string) string { return write(t, filepath.Join(dir, "f"), canary, mode) }
	}
	given := func(mode fs.FileMode, uid int) make {
		return func(t *testing.T, dir string) string {
			asRoot(t)
			path := file(mode)(t, dir)
			must(t, os.Chown(path, uid, uid))
			return path
		}
	}
	kubelet := func(names ...string) make {
		return func(t *testing.T, dir string) string {
			for _, name := range names {
				write(t, filepath.Join(dir, "..2024_01", name), canary, 0o444)
			}
			must(t, os.Symlink("..2024_01", filepath.Join(dir, "..data")))
			first, _, _ := strings.Cut(names[0], "/")
			must(t, os.Symlink("..data/"+first, filepath.Join(dir, first)))
			return filepath.Join(dir, names[0])
		}
	}
	// linked is a kubelet's directory with one link changed.
	linked := func(link, target string) make {
		return func(t *testing.T, dir string) string {
			dir = filepath.Join(dir, "mount")
			path := kubelet("key")(t, dir)
			write(t, filepath.Join(dir, "../outside/key"), canary, 0o444)
			link := filepath.Join(dir, link)
			must(t, os.Remove(link))
			must(t, os.Symlink(target, link))
			return path
		}
	}
	selfOnly := func() safefile.Policy { p := secret(); p.Owners = []int{foreign}; return p }()
	for _, tt := range []struct {
		name   string
		make   make
		policy safefile.Policy
		want   safefile.Problem
	}{
		{"mode 0600", file(0o600), secret(), ""},
		{"mode 0400", file(0o400), secret(), ""},
		{"mode 0700", file(0o700), secret(), ""},
		{"mode 0640", file(0o640), secret(), safefile.Mode},
		{"mode 0644", file(0o644), secret(), safefile.Mode},
		{"mode 0602", file(0o602), secret(), safefile.Mode},
		{"mode 0610", file(0o610), secret(), safefile.Mode},
		{"any mode when none is denied", file(0o666), safefile.Policy{}, ""},
		{"of another user", given(0o600, foreign), secret(), safefile.Owner},
		{"of root where only another user may own it", given(0o600, 0), selfOnly, safefile.Owner},
		{"of the one who may own it", func(t *testing.T, dir string) string {
			path := given(0o600, foreign)(t, dir)
			return path
		}, selfOnly, ""},
		{"mounted: root's, read-only", given(0o444, 0), mounted(safefile.LinksNone), ""},
		{"mounted: root's, writable by root", given(0o644, 0), mounted(safefile.LinksNone), ""},
		{"mounted: root's, for a group", given(0o440, 0), mounted(safefile.LinksNone), ""},
		{"mounted: writable by a group", given(0o664, 0), mounted(safefile.LinksNone), safefile.Mode},
		{"mounted: writable by others", file(0o606), mounted(safefile.LinksNone), safefile.Mode},
		{"mounted: of another user", given(0o444, foreign), mounted(safefile.LinksNone), safefile.Owner},
		{"mounted: a user's own, read-only", given(0o440, foreign), func() safefile.Policy {
			p := mounted(safefile.LinksNone)
			p.Owners = []int{foreign, 0}
			return p
		}(), ""},
		{"mounted: a user's own that others read", given(0o644, foreign), func() safefile.Policy {
			p := mounted(safefile.LinksNone)
			p.Owners = []int{foreign, 0}
			return p
		}(), safefile.Mode},
		{"missing", func(_ *testing.T, dir string) string { return filepath.Join(dir, "none") }, secret(), safefile.NotFound},
		{"missing directory", func(_ *testing.T, dir string) string { return filepath.Join(dir, "none", "f") }, secret(), safefile.NotFound},
		{"through a file", func(t *testing.T, dir string) string { return file(0o600)(t, dir) + "/f" }, secret(), safefile.NotADirectory},
		{"relative", func(*testing.T, string) string { return "f" }, secret(), safefile.BadPath},
		{"a home directory", func(*testing.T, string) string { return "~/f" }, secret(), safefile.BadPath},
		{"a NUL", func(*testing.T, string) string { return "/f\x00" }, secret(), safefile.BadPath},
		{"the root directory", func(*testing.T, string) string { return "/" }, secret(), safefile.Directory},
		{"a directory", func(_ *testing.T, dir string) string { return dir }, secret(), safefile.Directory},
		{"a FIFO", func(t *testing.T, dir string) string {
			must(t, unix.Mkfifo(filepath.Join(dir, "f"), 0o600))
			return filepath.Join(dir, "f")
		}, secret(), safefile.Special},
		{"a socket", func(t *testing.T, dir string) string {
			short, err := os.MkdirTemp("", "s")
			must(t, err)
			t.Cleanup(func() { _ = os.RemoveAll(short) })
			l, err := net.Listen("unix", filepath.Join(short, "s"))
			must(t, err)
			t.Cleanup(func() { _ = l.Close() })
			path, err := filepath.EvalSymlinks(short)
			must(t, err)
			return filepath.Join(path, "s")
		}, secret(), safefile.Special},
		{"a device", func(*testing.T, string) string { return "/dev/null" }, safefile.Policy{}, safefile.Special},
		{"a link", func(t *testing.T, dir string) string {
			must(t, os.Symlink(file(0o600)(t, dir), filepath.Join(dir, "link")))
			return filepath.Join(dir, "link")
		}, secret(), safefile.Symlink},
		{"a dangling link", func(t *testing.T, dir string) string {
			must(t, os.Symlink("none", filepath.Join(dir, "link")))
			return filepath.Join(dir, "link")
		}, secret(), safefile.Symlink},
		{"a link on the way", func(t *testing.T, dir string) string {
			write(t, filepath.Join(dir, "real/f"), canary, 0o600)
			must(t, os.Symlink("real", filepath.Join(dir, "link")))
			return filepath.Join(dir, "link/f")
		}, secret(), safefile.Symlink},
		{"a link on the way, where only the last component counts", func(t *testing.T, dir string) string {
			write(t, filepath.Join(dir, "real/f"), canary, 0o600)
			must(t, os.Symlink("real", filepath.Join(dir, "link")))
			return filepath.Join(dir, "link/f")
		}, safefile.Policy{Links: safefile.LinksAbove, OpenParents: true}, ""},
		{"a link, where only the last component counts", func(t *testing.T, dir string) string {
			must(t, os.Symlink(file(0o600)(t, dir), filepath.Join(dir, "link")))
			return filepath.Join(dir, "link")
		}, safefile.Policy{Links: safefile.LinksAbove, OpenParents: true}, safefile.Symlink},
		{"trusted links", func(t *testing.T, dir string) string {
			write(t, filepath.Join(dir, "opt/v1/bin/f"), canary, 0o700)
			must(t, os.Symlink("v1", filepath.Join(dir, "opt/current")))
			must(t, os.Symlink("opt/current/bin/f", filepath.Join(dir, "f")))
			return filepath.Join(dir, "f")
		}, program(), ""},
		{"a trusted link of another user", func(t *testing.T, dir string) string {
			asRoot(t)
			must(t, os.Symlink(file(0o700)(t, dir), filepath.Join(dir, "link")))
			must(t, os.Lchown(filepath.Join(dir, "link"), foreign, foreign))
			return filepath.Join(dir, "link")
		}, program(), safefile.Owner},
		{"a circle of links", func(t *testing.T, dir string) string {
			must(t, os.Symlink("b", filepath.Join(dir, "a")))
			must(t, os.Symlink("a", filepath.Join(dir, "b")))
			return filepath.Join(dir, "a")
		}, program(), safefile.Symlink},
		{"a hard link", func(t *testing.T, dir string) string {
			must(t, os.Link(file(0o600)(t, dir), filepath.Join(dir, "g")))
			return filepath.Join(dir, "f")
		}, secret(), safefile.HardLink},
		{"a hard link where that is accepted", func(t *testing.T, dir string) string {
			must(t, os.Link(file(0o700)(t, dir), filepath.Join(dir, "g")))
			return filepath.Join(dir, "f")
		}, program(), ""},
		{"below a directory that others can write to", func(t *testing.T, dir string) string {
			path := write(t, filepath.Join(dir, "open/sub/f"), canary, 0o600)
			must(t, os.Chmod(filepath.Join(dir, "open"), 0o777))
			return path
		}, secret(), safefile.Parent},
		{"below a directory that a group can write to", func(t *testing.T, dir string) string {
			path := write(t, filepath.Join(dir, "open/f"), canary, 0o600)
			must(t, os.Chmod(filepath.Join(dir, "open"), 0o770))
			return path
		}, secret(), safefile.Parent},
		{"below a sticky directory", func(t *testing.T, dir string) string {
			path := write(t, filepath.Join(dir, "open/f"), canary, 0o600)
			must(t, os.Chmod(filepath.Join(dir, "open"), 0o777|fs.ModeSticky))
			return path
		}, secret(), ""},
		{"below another user's directory", func(t *testing.T, dir string) string {
			asRoot(t)
			path := write(t, filepath.Join(dir, "theirs/f"), canary, 0o600)
			must(t, os.Chown(filepath.Join(dir, "theirs"), foreign, foreign))
			return path
		}, secret(), safefile.Parent},
		{"below an open directory where that is accepted", func(t *testing.T, dir string) string {
			path := write(t, filepath.Join(dir, "open/f"), canary, 0o600)
			must(t, os.Chmod(filepath.Join(dir, "open"), 0o777))
			return path
		}, safefile.Policy{OpenParents: true}, ""},
		{"as big as allowed", func(t *testing.T, dir string) string {
			return write(t, filepath.Join(dir, "f"), canary+strings.Repeat(" ", 1<<20-len(canary)), 0o600)
		}, secret(), ""},
		{"too big", func(t *testing.T, dir string) string {
			return write(t, filepath.Join(dir, "f"), canary+strings.Repeat(" ", 1<<20), 0o600)
		}, secret(), safefile.TooBig},
		{"a program", file(0o755), program(), ""},
		{"a program that a group can write", file(0o775), program(), safefile.Mode},
		{"a program that is none", file(0o644), program(), safefile.NotExecutable},
		{"kubelet", kubelet("key"), mounted(safefile.LinksMount), ""},
		{"kubelet, in a directory", kubelet("sub/key"), mounted(safefile.LinksMount), ""},
		{"kubelet, where links are refused", kubelet("key"), mounted(safefile.LinksNone), safefile.Symlink},
		{"kubelet: ..data leads out", linked("..data", "../outside"), mounted(safefile.LinksMount), safefile.Symlink},
		{"kubelet: ..data is absolute", linked("..data", "/etc"), mounted(safefile.LinksMount), safefile.Symlink},
		{"kubelet: ..data is the parent", linked("..data", ".."), mounted(safefile.LinksMount), safefile.Symlink},
		{"kubelet: ..data is a plain directory's name", linked("..data", "key"), mounted(safefile.LinksMount), safefile.Symlink},
		{"kubelet: the key leads out", linked("key", "../outside/key"), mounted(safefile.LinksMount), safefile.Symlink},
		{"kubelet: the key leads out by way of ..data", linked("key", "..data/../../outside/key"), mounted(safefile.LinksMount), safefile.Symlink},
		{"kubelet: the key leads to another key", linked("key", "..data/other"), mounted(safefile.LinksMount), safefile.Symlink},
		{"kubelet: a link in the version", func(t *testing.T, dir string) string {
			path := kubelet("key")(t, dir)
			must(t, os.Remove(filepath.Join(dir, "..2024_01/key")))
			must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "..2024_01/key")))
			return path
		}, mounted(safefile.LinksMount), safefile.Symlink},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, stamp, err := safefile.Read(t.Context(), tt.make(t, tempDir(t)), tt.policy)
			if problem(err) != tt.want || (err == nil) != (tt.want == "") {
				t.Fatalf("got %v, want the problem %q", err, tt.want)
			}
			if err != nil {
				if got != nil {
					t.Error("an error came with content")
				}
				if strings.Contains(err.Error(), canary) {
					t.Errorf("the error holds the content: %v", err)
				}
				return
			}
			if strings.TrimSpace(string(got)) != canary || stamp.Size != int64(len(got)) {
				t.Errorf("read %d bytes, stamp %+v", len(got), stamp)
			}
		})
	}
}

func TestErrorSaysWhatMends(t *testing.T) {
	t.Parallel()
	path := write(t, filepath.Join(tempDir(t), "it's"), canary, 0o644)
	_, _, err := safefile.Read(t.Context(), path, secret())
	want := path + " can be read by others (mode 0644); run: chmod 600 '" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestNoAccess(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("needs a user other than root, whom modes do not stop: run the tests as one")
	}
	path := write(t, filepath.Join(tempDir(t), "f"), canary, 0)
	if _, _, err := safefile.Read(t.Context(), path, secret()); problem(err) != safefile.NoAccess {
		t.Errorf("got %v, want no access", err)
	}
}

// The operating system's own links, such as /bin on Debian and /tmp on macOS.
func TestSystemLink(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/bin/sh", "/tmp"} {
		dir, err := os.Lstat(filepath.Dir(path))
		if err != nil || filepath.Dir(path) == "/" || dir.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		f, err := safefile.Open(path, program())
		must(t, err)
		defer func() { must(t, f.Close()) }()
		if strings.HasPrefix(f.Path(), "/bin/") {
			t.Errorf("%s is at %s, the link was not followed", path, f.Path())
		}
		return
	}
	t.Skip("needs a system where /bin is a link: run the tests on Debian")
}

func TestDirs(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	path := write(t, filepath.Join(dir, "a/b/f"), canary, 0o700)
	out := filepath.Join(dir, "a/out")
	must(t, os.Symlink(write(t, filepath.Join(dir, "c/f"), canary, 0o700), out))
	link := filepath.Join(dir, "link")
	must(t, os.Symlink("a", link))
	for _, tt := range []struct {
		name, path, dir string
		want            safefile.Problem
	}{
		{"in it", path, dir + "/a/b", ""},
		{"below it", path, dir + "/a", ""},
		{"a directory spelt with a link", path, link, ""},
		{"elsewhere", path, dir + "/c", safefile.Outside},
		{"a name that starts alike", path, dir + "/a/bb", safefile.Outside},
		{"the file itself", path, path, safefile.Outside},
		{"a link that leads out", out, dir + "/a", safefile.Outside},
	} {
		p := program()
		p.Dirs = []string{tt.dir}
		f, err := safefile.Open(tt.path, p)
		if problem(err) != tt.want || (err == nil) != (tt.want == "") {
			t.Errorf("%s: got %v, want the problem %q", tt.name, err, tt.want)
		}
		if err == nil {
			must(t, f.Close())
		}
	}
}

func TestUnchanged(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, path string){
		"written":  func(t *testing.T, path string) { write(t, path, "other", 0o700) },
		"replaced": func(t *testing.T, path string) { must(t, os.Rename(write(t, path+".new", canary, 0o700), path)) },
		"removed":  func(t *testing.T, path string) { must(t, os.Remove(path)) },
		"opened to others": func(t *testing.T, path string) {
			must(t, os.Chmod(path, 0o777))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := write(t, filepath.Join(tempDir(t), "f"), canary, 0o700)
			f, err := safefile.Open(path, program())
			must(t, err)
			defer func() { must(t, f.Close()) }()
			must(t, f.Unchanged())
			time.Sleep(20 * time.Millisecond) // file times tick coarsely
			change(t, path)
			if p := problem(f.Unchanged()); p != safefile.Changed && p != safefile.Mode {
				t.Errorf("the change went unnoticed: %q", p)
			}
		})
	}
}

func TestSHA256(t *testing.T) {
	t.Parallel()
	content := strings.Repeat(canary, 200_000)
	f, err := safefile.Open(write(t, filepath.Join(tempDir(t), "f"), content, 0o700), program())
	must(t, err)
	defer func() { must(t, f.Close()) }()
	sum := sha256.Sum256([]byte(content))
	for range 2 { // the second time starts at the front again
		if got, err := f.SHA256(t.Context()); err != nil || got != hex.EncodeToString(sum[:]) {
			t.Errorf("SHA256 = %s, %v", got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.SHA256(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancel: %v", err)
	}
}

func TestReadHeedsContext(t *testing.T) {
	t.Parallel()
	path := write(t, filepath.Join(tempDir(t), "f"), canary, 0o600)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, _, err := safefile.Read(ctx, path, secret()); !errors.Is(err, context.Canceled) || got != nil {
		t.Errorf("got %d bytes, %v; want the context's error", len(got), err)
	}
	if got, _, err := safefile.Read(context.Background(), path, secret()); err != nil || string(got) != canary {
		t.Errorf("without a deadline: %d bytes, %v", len(got), err)
	}
}

// A reader sees one whole content or the other, never a mixture, while a writer replaces and rewrites the file.
func TestReadIsNeverTorn(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	path := filepath.Join(dir, "f")
	contents := []string{strings.Repeat("a", 100_000), strings.Repeat("b", 150_000)}
	write(t, path, contents[0], 0o600)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			next := filepath.Join(dir, "next")
			if os.WriteFile(next, []byte(contents[i%2]), 0o600) != nil || os.Rename(next, path) != nil {
				t.Error("cannot write")
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	whole := 0
	for range 200 {
		got, _, err := safefile.Read(t.Context(), path, secret())
		switch {
		case problem(err) == safefile.Changed:
		case err != nil:
			t.Error(err)
		case !slices.Contains(contents, string(got)):
			t.Fatal("read a mixture")
		default:
			whole++
		}
	}
	close(stop)
	wg.Wait()
	if whole == 0 {
		t.Error("no read came through")
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	write(t, filepath.Join(dir, "d/b"), canary, 0o600)
	write(t, filepath.Join(dir, "d/a"), canary, 0o600)
	got, err := safefile.Names(filepath.Join(dir, "d"), secret())
	if err != nil || !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("Names = %q, %v", got, err)
	}
	if _, err := safefile.Names(filepath.Join(dir, "d/a"), secret()); problem(err) != safefile.NotADirectory {
		t.Errorf("of a file: %v", err)
	}
	must(t, os.Chmod(filepath.Join(dir, "d"), 0o777))
	if _, err := safefile.Names(filepath.Join(dir, "d"), secret()); problem(err) != safefile.Parent {
		t.Errorf("of an open directory: %v", err)
	}
}

func TestStampTellsContentsApart(t *testing.T) {
	t.Parallel()
	path := write(t, filepath.Join(tempDir(t), "f"), canary, 0o600)
	_, a, err := safefile.Read(t.Context(), path, secret())
	must(t, err)
	_, b, err := safefile.Read(t.Context(), path, secret())
	must(t, err)
	if a.Version() != b.Version() || len(a.Version()) != 32 {
		t.Errorf("the same file has versions %q and %q", a.Version(), b.Version())
	}
	must(t, os.Rename(write(t, path+".new", canary, 0o600), path))
	_, c, err := safefile.Read(t.Context(), path, secret())
	must(t, err)
	if a.Version() == c.Version() {
		t.Error("another file has the same version")
	}
}

func TestNoDescriptorIsLeft(t *testing.T) {
	// Not parallel: descriptors belong to the whole process.
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("needs /proc: run the tests on Linux")
		}
		return len(entries)
	}
	dir := tempDir(t)
	good, bad := write(t, filepath.Join(dir, "a"), "x", 0o600), write(t, filepath.Join(dir, "b"), "x", 0o644)
	must(t, os.Symlink("a", filepath.Join(dir, "c")))
	before := open()
	for range 20 {
		for _, path := range []string{good, bad, filepath.Join(dir, "c"), dir, dir + "/none/x"} {
			_, _, _ = safefile.Read(t.Context(), path, secret())
			_, _ = safefile.Names(path, secret())
		}
	}
	if after := open(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func BenchmarkRead(b *testing.B) {
	path := filepath.Join(b.TempDir(), "f")
	if err := os.WriteFile(path, []byte(canary), 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := safefile.Read(b.Context(), path, secret()); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAwaitLeavesWhatNeverAnswers(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	answer, dropped := make(chan int), make(chan int, 1)
	call := func() (int, error) {
		cancel()
		return <-answer, nil
	}
	if got, err := safefile.Await(ctx, call, func(n int) { dropped <- n }); got != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d, %v", got, err)
	}
	answer <- 5
	if got := <-dropped; got != 5 {
		t.Errorf("%d was dropped", got)
	}
	if _, err := safefile.Await(ctx, call, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
	for name, ctx := range map[string]context.Context{"background": context.Background(), "live": t.Context()} {
		if got, err := safefile.Await(ctx, func() (int, error) { return 7, io.EOF }, nil); got != 7 || err != io.EOF {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
}
