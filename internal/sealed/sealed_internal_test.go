package sealed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

const canary = "c4nary-of-sealed"

func TestMain(m *testing.M) {
	if path := os.Getenv("SEALED_TEST_WRITER"); path != "" {
		writeForEver(path)
	}
	goleak.VerifyTestMain(m)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// shelf is a Snapshotter that holds what it is told to.
type shelf struct {
	mu       sync.Mutex
	have     []resolver.Remembered
	restored []resolver.Remembered
	looks    int
}

func (s *shelf) Snapshot() []resolver.Remembered {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	return slices.Clone(s.have)
}

func (s *shelf) Restore(rem []resolver.Remembered, _ time.Duration) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restored = append(s.restored, rem...)
	return len(rem)
}

func (s *shelf) put(rem ...resolver.Remembered) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have = rem
}

func remembered(id string) resolver.Remembered {
	return resolver.Remembered{
		Digest: "d1", Ref: credref.Ref{Provider: "app", ID: id}, Type: backend.TypeUserValue, Fetched: time.Now().Round(0),
		Credential: &backend.Credential{Secret: backend.NewSecretString(canary + "-" + id)},
	}
}

func key(text string) func(context.Context) (backend.Secret, error) {
	return func(context.Context) (backend.Secret, error) { return backend.NewSecretString(text), nil }
}

var goodKey = key(strings.Repeat("c4nary-k", 4))

func tempPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "state", "last[known]*good")
}

func keeper(t *testing.T, o Options) *Keeper {
	t.Helper()
	if o.Key == nil {
		o.Key = goodKey
	}
	if o.Warn == nil {
		o.Warn = func(err error) { t.Errorf("warned of %v", err) }
	}
	k := Open(o)
	t.Cleanup(func() { _ = k.Close(context.Background()) })
	return k
}

// abandon ends k as a kill does: nothing is written, and the lock is free.
func abandon(k *Keeper) {
	k.stop(errStopping)
	k.worker.Wait()
	k.turn <- struct{}{}
	k.closed = true
	k.place.release()
	<-k.turn
}

// load gives what a new process would restore.
func load(t *testing.T, o Options) ([]resolver.Remembered, error) {
	t.Helper()
	s := &shelf{}
	o.Source = s
	o.Warn = func(error) {}
	k := keeper(t, o)
	_, warning := k.Load(context.Background())
	abandon(k)
	if warning != nil && strings.Contains(warning.Error(), "c4nary") {
		t.Errorf("the warning holds a secret")
	}
	return s.restored, warning
}

func ids(rem []resolver.Remembered) string {
	var out []string
	for _, r := range rem {
		out = append(out, r.Ref.ID)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// clean looks for canaries in all that the directory of path holds, and for files that should not be there.
func clean(t *testing.T, path string, only bool) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(filepath.Dir(path), e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // a temporary file, renamed since
		}
		must(t, err)
		if bytes.Contains(content, []byte("c4nary")) {
			t.Fatalf("%s holds plain text", e.Name())
		}
		info, err := e.Info()
		if err == nil && runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
		if only && e.Name() != filepath.Base(path) && e.Name() != filepath.Base(path)+".lock" {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	now := time.Now().Round(0)
	full := resolver.Remembered{
		Digest: "d2", Ref: credref.Ref{Provider: "aws", ID: "prod/db", Version: "stage:AWSCURRENT"},
		Subject: credref.Subject{Tenant: "t", EndUser: "ü", Plugin: "p"}, Type: backend.TypeBasic,
		Fetched: now.Add(-time.Hour), Expires: now.Add(time.Hour),
		Credential: &backend.Credential{
			Type: backend.TypeBasic, Version: "v7", Expires: now.Add(2 * time.Hour), RefreshAfter: now.Add(time.Minute),
			Fields: map[string]backend.Secret{
				"password": backend.NewSecretString(canary), "port": backend.NewJSONSecret([]byte("5432")), "empty": backend.NewSecretString(""),
				"binary": backend.NewSecret([]byte{0, 255, '\n'}), "none": {},
			},
			Metadata: map[string]string{"owner": "ops", "": ""},
		},
	}
	big := remembered("big")
	big.Credential.Secret = backend.NewSecret(bytes.Repeat([]byte(canary), 10_000))
	path := tempPath(t)
	s := &shelf{}
	s.put(remembered("plain"), full, big)
	k := keeper(t, Options{Path: path, Source: s})
	if n, warning := k.Load(t.Context()); n != 0 || warning != nil {
		t.Fatalf("without a file: %d, %v", n, warning)
	}
	must(t, k.Flush(t.Context()))
	clean(t, path, true)
	abandon(k)
	got, warning := load(t, Options{Path: path})
	must(t, warning)
	if ids(got) != "big plain prod/db" {
		t.Fatalf("restored %s", ids(got))
	}
	for _, want := range s.have {
		i := slices.IndexFunc(got, func(r resolver.Remembered) bool { return r.Ref == want.Ref })
		have := got[i]
		a, b := *want.Credential, *have.Credential
		same := want.Digest == have.Digest && want.Subject == have.Subject && want.Type == have.Type && want.Fetched.Equal(have.Fetched) &&
			want.Expires.Equal(have.Expires) && a.Type == b.Type && a.Version == b.Version && a.Expires.Equal(b.Expires) &&
			a.RefreshAfter.Equal(b.RefreshAfter) && a.Secret.Equal(b.Secret) && maps.Equal(a.Metadata, b.Metadata) && b.Lease == nil &&
			maps.EqualFunc(a.Fields, b.Fields, backend.Secret.Equal)
		if !same {
			t.Errorf("%s changed on its way", want.Ref.ID)
		}
	}
}

// What a new process must not use is left out with a warning that says why, and the next write mends it.
func TestUnusable(t *testing.T) {
	t.Parallel()
	encrypted := func(t *testing.T, plain string, to ...age.Recipient) []byte {
		var out bytes.Buffer
		w, err := age.Encrypt(&out, to...)
		must(t, err)
		_, err = w.Write([]byte(plain))
		must(t, errors.Join(err, w.Close()))
		return out.Bytes()
	}
	byPassphrase := func(t *testing.T, factor int, plain string) []byte {
		passphrase, err := (&Keeper{o: Options{Key: goodKey}}).passphrase(t.Context())
		must(t, err)
		r, err := age.NewScryptRecipient(passphrase)
		must(t, err)
		r.SetWorkFactor(factor)
		return encrypted(t, plain, r)
	}
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, path string, content []byte) []byte // nil: the file is as it was written
		key   func(context.Context) (backend.Secret, error)
		limit int64
		why   string
	}{
		{"empty", func(*testing.T, string, []byte) []byte { return []byte{} }, nil, 0, "damaged"},
		{"noise", func(*testing.T, string, []byte) []byte { return bytes.Repeat([]byte{7}, 5000) }, nil, 0, "damaged"},
		{"cut off in the head", func(_ *testing.T, _ string, c []byte) []byte { return c[:60] }, nil, 0, "damaged"},
		{"cut off by a byte", func(_ *testing.T, _ string, c []byte) []byte { return c[:len(c)-1] }, nil, 0, "cut off"},
		{"cut off in the middle", func(_ *testing.T, _ string, c []byte) []byte { return c[:len(c)-70_000] }, nil, 0, "cut off"},
		{"cut off between two chunks", func(_ *testing.T, _ string, c []byte) []byte {
			head := bytes.Index(c, []byte("\n---")) + 1
			head += bytes.IndexByte(c[head:], '\n') + 1 + 16
			return c[:head+64*1024+16]
		}, nil, 0, "cut off"},
		{"a bit of the end", func(_ *testing.T, _ string, c []byte) []byte { c[len(c)-5] ^= 1; return c }, nil, 0, "altered"},
		{"a bit of the head", func(_ *testing.T, _ string, c []byte) []byte { c[120] ^= 1; return c }, nil, 0, ""},
		{"longer", func(_ *testing.T, _ string, c []byte) []byte { return append(c, c...) }, nil, 0, "altered"},
		{"another key", nil, key(strings.Repeat("c4nary-q", 4)), 0, "another key"},
		{"a short key", nil, key("c4nary"), 0, "shorter than 32"},
		{"no key", nil, func(context.Context) (backend.Secret, error) {
			return backend.Secret{}, backend.Errorf(backend.CodeLocked, "c4nary is locked")
		}, 0, "not to be had (locked)"},
		{"too large", nil, nil, 1000, "more than the 1000 allowed"},
		{"of a public key", func(t *testing.T, _ string, _ []byte) []byte {
			id, err := age.GenerateX25519Identity()
			must(t, err)
			return encrypted(t, header+"\x00", id.Recipient())
		}, nil, 0, "another key"},
		{"a work factor that takes minutes", func(t *testing.T, _ string, c []byte) []byte {
			return bytes.Replace(c, []byte(" 10\n"), []byte(" 22\n"), 1)
		}, nil, 0, "damaged"},
		{"of tomorrow", func(t *testing.T, _ string, _ []byte) []byte {
			return byPassphrase(t, workFactor, "credresolve sealed copy 2\n\x00")
		}, nil, 0, "another version"},
		{"malformed", func(t *testing.T, _ string, _ []byte) []byte { return byPassphrase(t, workFactor, header+"\x05abc") }, nil, 0, "malformed"},
		{"more than it says", func(t *testing.T, _ string, _ []byte) []byte { return byPassphrase(t, workFactor, header+"\x00abc") }, nil, 0, "malformed"},
		{"open to others", func(t *testing.T, path string, c []byte) []byte { must(t, os.Chmod(path, 0o640)); return nil }, nil, 0, "mode 0640"},
		{"a directory", func(t *testing.T, path string, c []byte) []byte {
			must(t, errors.Join(os.Remove(path), os.Mkdir(path, 0o700)))
			return nil
		}, nil, 0, "is a directory"},
		{"a FIFO", func(t *testing.T, path string, c []byte) []byte {
			must(t, os.Remove(path))
			mkfifo(t, path)
			return nil
		}, nil, 0, "not a regular file"},
		{"directory open to others", func(t *testing.T, path string, c []byte) []byte {
			must(t, os.Chmod(filepath.Dir(path), 0o755))
			return nil
		}, nil, 0, "open to others"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := tempPath(t)
			one, two := remembered("one"), remembered("two")
			one.Credential.Secret = backend.NewSecret(bytes.Repeat([]byte(canary), 10_000))
			s := &shelf{}
			s.put(one, two)
			k := keeper(t, Options{Path: path, Source: s})
			_, warning := k.Load(t.Context())
			must(t, warning)
			must(t, k.Flush(t.Context()))
			must(t, k.Close(t.Context()))
			if tt.spoil != nil {
				content, err := os.ReadFile(path)
				must(t, err)
				if content = tt.spoil(t, path, content); content != nil {
					must(t, os.WriteFile(path, content, 0o600))
				}
			}
			empty := &shelf{}
			again := keeper(t, Options{Path: path, Source: empty, Key: tt.key, Warn: func(error) {}})
			if tt.limit > 0 {
				again.limit = tt.limit
			}
			began := time.Now()
			n, warning := again.Load(t.Context())
			if n != 0 || len(empty.restored) > 0 || warning == nil || !strings.Contains(warning.Error(), tt.why) {
				t.Fatalf("restored %d, warning %v; want one of %q", n, warning, tt.why)
			}
			if strings.Contains(warning.Error(), "c4nary") || strings.Contains(warning.Error(), "\n") {
				t.Errorf("the warning is %q", warning)
			}
			var known *backend.Error
			if !errors.As(warning, &known) {
				t.Errorf("the warning is a %T", warning)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// A file that could not be used is left for the next process, until there is something to write or something ended.
func TestUnusableIsReplaced(t *testing.T) {
	t.Parallel()
	path := tempPath(t)
	s := &shelf{}
	s.put(remembered("old"))
	k := keeper(t, Options{Path: path, Source: s})
	_, _ = k.Load(t.Context())
	must(t, k.Close(t.Context()))

	s = &shelf{}
	wrong := Options{Path: path, Source: s, Key: key(strings.Repeat("c4nary-w", 4)), Warn: func(error) {}}
	k = keeper(t, wrong)
	if _, warning := k.Load(t.Context()); warning == nil {
		t.Fatal("no warning")
	}
	must(t, k.Close(t.Context()))
	if got, warning := load(t, Options{Path: path}); ids(got) != "old" {
		t.Fatalf("%s, %v", ids(got), warning)
	}
	k = keeper(t, wrong)
	_, _ = k.Load(t.Context())
	s.put(remembered("new"))
	must(t, k.Close(t.Context()))
	if got, warning := load(t, Options{Path: path, Key: wrong.Key}); ids(got) != "new" {
		t.Errorf("%s, %v", ids(got), warning)
	}
	k = keeper(t, Options{Path: path, Source: &shelf{}, Warn: func(error) {}})
	if _, warning := k.Load(t.Context()); warning == nil {
		t.Fatal("no warning")
	}
	must(t, k.Flush(t.Context())) // a revocation
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestWhatIsNotKept(t *testing.T) {
	t.Parallel()
	now := time.Now()
	change := func(id string, f func(*resolver.Remembered)) resolver.Remembered {
		r := remembered(id)
		f(&r)
		return r
	}
	all := []resolver.Remembered{
		remembered("good"),
		change("aged", func(r *resolver.Remembered) { r.Fetched = now.Add(-50 * time.Minute) }),
		change("too-old", func(r *resolver.Remembered) { r.Fetched = now.Add(-time.Hour) }),
		change("future", func(r *resolver.Remembered) { r.Fetched = now.Add(time.Minute) }),
		change("expired", func(r *resolver.Remembered) { r.Expires = now.Add(-time.Second) }),
		change("expired-in-store", func(r *resolver.Remembered) { r.Credential.Expires = now.Add(-time.Second) }),
		change("leased", func(r *resolver.Remembered) { r.Credential.Lease = &backend.Lease{ID: "l"} }),
		change("session", func(r *resolver.Remembered) { r.Subject.Session = "s" }),
		change("no-digest", func(r *resolver.Remembered) { r.Digest = "" }),
		change("empty", func(r *resolver.Remembered) { r.Credential = nil }),
		remembered("the-key"),
	}
	path := tempPath(t)
	s := &shelf{}
	s.put(all...)
	o := Options{Path: path, Source: s, MaxAge: time.Hour, KeyRef: credref.Ref{Provider: "app", ID: "the-key", Field: "f"}}
	k := keeper(t, o)
	_, _ = k.Load(t.Context())
	must(t, k.Flush(t.Context()))
	abandon(k)
	if got, warning := load(t, Options{Path: path, MaxAge: 1000 * time.Hour}); ids(got) != "aged good" || warning != nil {
		t.Errorf("kept %s, %v", ids(got), warning)
	}
	for _, tt := range []struct {
		name    string
		now     time.Duration
		maxAge  time.Duration
		want    string
		warning bool
	}{
		{"later", 30 * time.Minute, time.Hour, "good", false},
		{"a lesser age", 0, 30 * time.Minute, "good", false},
		{"too late", 2 * time.Hour, time.Hour, "", true},
		{"clock set back", -2 * time.Hour, time.Hour, "", true},
		{"clock set back a little", -40 * time.Minute, time.Hour, "aged", false},
	} {
		r := &shelf{}
		again := keeper(t, Options{Path: path, Source: r, MaxAge: tt.maxAge, Warn: func(error) {}})
		again.now = func() time.Time { return time.Now().Add(tt.now) }
		_, warning := again.Load(t.Context())
		if ids(r.restored) != tt.want || (warning != nil) != tt.warning {
			t.Errorf("%s: %q, %v", tt.name, ids(r.restored), warning)
		}
		abandon(again)
	}
}

// A file has no more than its bound, and the newest come first.
func TestBound(t *testing.T) {
	t.Parallel()
	var all []resolver.Remembered
	for i := range 100 {
		r := remembered(fmt.Sprint("id", i))
		r.Fetched = r.Fetched.Add(-time.Duration(i) * time.Second)
		r.Credential.Secret = backend.NewSecret(bytes.Repeat([]byte(canary), 200))
		all = append(all, r)
	}
	path := tempPath(t)
	s := &shelf{}
	s.put(all...)
	var warned atomic.Int32
	k := keeper(t, Options{Path: path, Source: s, Warn: func(error) { warned.Add(1) }})
	k.limit = 100_000
	_, _ = k.Load(t.Context())
	must(t, k.Flush(t.Context()))
	abandon(k)
	st, err := os.Stat(path)
	must(t, err)
	got, warning := load(t, Options{Path: path})
	must(t, warning)
	if st.Size() > 100_000 || len(got) < 20 || len(got) > 40 || warned.Load() != 1 {
		t.Errorf("%d bytes, %d secrets, %d warnings", st.Size(), len(got), warned.Load())
	}
	for _, r := range got {
		if time.Since(r.Fetched) > 60*time.Second {
			t.Errorf("%s is not among the newest", r.Ref.ID)
		}
	}
}

// Many values that come together take one write; one that ends is written at once.
func TestWhenItWrites(t *testing.T) {
	t.Parallel()
	path := tempPath(t)
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{}
		s.put(remembered("a"))
		k := Open(Options{Path: path, Source: s, Key: goodKey})
		_, warning := k.Load(t.Context())
		must(t, warning)
		looks := func(want int, after string) {
			t.Helper()
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.looks != want {
				t.Errorf("after %s: %d writes, want %d", after, s.looks, want)
			}
		}
		for range 100 {
			k.Changed(resolver.ChangeKept)
			time.Sleep(10 * time.Millisecond)
		}
		looks(0, "a second of changes")
		time.Sleep(keptDelay)
		looks(1, "the delay")
		time.Sleep(time.Hour)
		looks(1, "an hour")
		k.Changed(resolver.ChangeKept)
		k.Changed(resolver.ChangeEnded)
		looks(2, "an end")
		time.Sleep(time.Hour)
		if s.looks > 3 {
			t.Errorf("%d writes", s.looks)
		}
		must(t, k.Close(t.Context()))
		k.Changed(resolver.ChangeEnded)
		must(t, k.Close(t.Context()))
		must(t, k.Flush(t.Context()))
	})
}

// A write that fails is tried again; where something ended, the file goes.
func TestKeyIsLost(t *testing.T) {
	t.Parallel()
	path := tempPath(t)
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{}
		s.put(remembered("a"))
		var lost atomic.Bool
		var warned atomic.Int32
		k := Open(Options{
			Path: path, Source: s, Warn: func(error) { warned.Add(1) },
			Key: func(ctx context.Context) (backend.Secret, error) {
				if lost.Load() {
					return backend.Secret{}, backend.ErrUnavailable
				}
				return goodKey(ctx)
			},
		})
		_, _ = k.Load(t.Context())
		must(t, k.Flush(t.Context()))
		there := func() bool { _, err := os.Stat(path); return err == nil }
		lost.Store(true)
		k.Changed(resolver.ChangeKept)
		time.Sleep(keptDelay + time.Millisecond)
		if synctest.Wait(); warned.Load() != 1 || !there() {
			t.Errorf("%d warnings, file there: %v", warned.Load(), there())
		}
		must(t, k.Flush(t.Context()))
		if warned.Load() != 2 || there() {
			t.Errorf("after an end: %d warnings, file there: %v", warned.Load(), there())
		}
		lost.Store(false)
		time.Sleep(retryDelay + time.Millisecond)
		if synctest.Wait(); !there() {
			t.Error("it was not written again")
		}
		must(t, k.Close(t.Context()))
	})
}

// What ends before the file was read is not restored.
func TestEndBeforeLoad(t *testing.T) {
	t.Parallel()
	path := tempPath(t)
	s := &shelf{}
	s.put(remembered("a"))
	k := keeper(t, Options{Path: path, Source: s})
	_, _ = k.Load(t.Context())
	must(t, k.Close(t.Context()))

	k = keeper(t, Options{Path: path, Source: s}) // ended before it could load: the file stays
	must(t, k.Close(t.Context()))
	if got, _ := load(t, Options{Path: path}); ids(got) != "a" {
		t.Fatalf("restored %q", ids(got))
	}
	k = keeper(t, Options{Path: path, Source: s})
	must(t, k.Flush(t.Context()))
	if n, warning := k.Load(t.Context()); n != 0 || warning == nil {
		t.Errorf("restored %d, %v", n, warning)
	}
}

func TestConcurrentFlushesShareWrites(t *testing.T) {
	t.Parallel()
	path := tempPath(t)
	s := &shelf{}
	s.put(remembered("a"))
	k := keeper(t, Options{Path: path, Source: s})
	_, _ = k.Load(t.Context())
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if err := k.Flush(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s.looks > 100 {
		t.Errorf("200 flushes took %d writes", s.looks)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k.turn <- struct{}{}
	if err := k.Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancel: %v", err)
	}
	<-k.turn
}

// Two keepers of one file would bring back what the other removed.
func TestSecondKeeperIsRefused(t *testing.T) {
	t.Parallel()
	path := tempPath(t)
	s := &shelf{}
	s.put(remembered("a"))
	first := keeper(t, Options{Path: path, Source: s})
	_, _ = first.Load(t.Context())
	must(t, first.Flush(t.Context()))
	second := keeper(t, Options{Path: path, Source: s, Warn: func(error) {}})
	if _, warning := second.Load(t.Context()); !errors.Is(warning, backend.ErrConflict) {
		t.Errorf("Load: %v", warning)
	}
	if err := second.Flush(t.Context()); !errors.Is(err, backend.ErrConflict) {
		t.Errorf("Flush: %v", err)
	}
	must(t, first.Close(t.Context()))
	must(t, second.Flush(t.Context()))
}

// A full disk: the directory of the temporary file takes no new one.
func TestDiskRefuses(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 && runtime.GOOS != "linux" {
		t.Skip("needs a user other than root, whom modes do not stop: run the tests as one")
	}
	path := tempPath(t)
	s := &shelf{}
	s.put(remembered("a"))
	k := keeper(t, Options{Path: path, Source: s, Warn: func(error) {}})
	_, _ = k.Load(t.Context())
	// What stands where the file should go cannot be replaced by a rename.
	must(t, os.MkdirAll(filepath.Join(path, "in the way"), 0o700))
	err := k.Flush(t.Context())
	if !errors.Is(err, backend.ErrUnavailable) || strings.Contains(err.Error(), tempSuffix) {
		t.Errorf("Flush: %v", err)
	}
	clean2, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(path)), "*", ".*"))
	if err != nil || len(clean2) > 0 {
		t.Errorf("left behind: %v, %v", clean2, err)
	}
	must(t, os.RemoveAll(path))
	must(t, k.Flush(t.Context()))
}

func TestRelativePath(t *testing.T) {
	t.Parallel()
	k := keeper(t, Options{Path: "sealed", Source: &shelf{}, Warn: func(error) {}})
	if _, warning := k.Load(t.Context()); !errors.Is(warning, backend.ErrInvalidConfig) {
		t.Errorf("Load: %v", warning)
	}
}

// writeForEver writes until it is killed.
func writeForEver(path string) {
	s := &shelf{}
	for i := range 2000 {
		r := remembered(fmt.Sprint("id", i))
		r.Credential.Secret = backend.NewSecret(bytes.Repeat([]byte(canary), 100))
		s.have = append(s.have, r)
	}
	k := Open(Options{Path: path, Source: s, Key: goodKey})
	if _, err := k.Load(context.Background()); err != nil {
		fmt.Println("load:", err)
	}
	for {
		if err := k.Flush(context.Background()); err != nil {
			fmt.Println("flush:", err)
			os.Exit(1)
		}
	}
}

// A process that is killed at any point leaves a whole file, no plain text, and nothing that the next one does not remove.
func TestKill(t *testing.T) {
	t.Parallel()
	path := tempPath(t)
	left := 0
	for i := range 8 {
		cmd := exec.Command(os.Args[0])
		var out bytes.Buffer
		cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), "SEALED_TEST_WRITER="+path), &out, &out
		must(t, cmd.Start())
		for began := time.Now(); i == 0 && time.Since(began) < 10*time.Second; { // the first gets so far that there is a file
			if _, err := os.Stat(path); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		for end := time.Now().Add(time.Duration(60+17*i) * time.Millisecond); time.Now().Before(end); {
			if _, err := os.Stat(filepath.Dir(path)); err == nil {
				clean(t, path, false)
			}
		}
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		if out.Len() > 0 {
			t.Fatalf("the writer said %d bytes", out.Len())
		}
		entries, err := os.ReadDir(filepath.Dir(path))
		must(t, err)
		if len(entries) > 2 {
			left++
		}
		got, warning := load(t, Options{Path: path})
		if len(got) != 2000 || warning != nil {
			t.Fatalf("restored %d, %v", len(got), warning)
		}
		clean(t, path, true)
	}
	t.Logf("%d of 8 left a temporary file", left)
}

func FuzzDecode(f *testing.F) {
	seed, _ := encode([]resolver.Remembered{remembered("a"), remembered("b")}, maxFile)
	f.Add(seed)
	f.Add([]byte(header + "\x00"))
	f.Add([]byte(header + "\xff\xff\xff\xff\x0f"))
	f.Add([]byte(header + "\x01\x00"))
	f.Fuzz(func(t *testing.T, plain []byte) {
		rem, err := decode(plain)
		if err != nil {
			if rem != nil {
				t.Error("an error came with entries")
			}
			return
		}
		again, n := encode(rem, maxFile)
		back, err := decode(again)
		if n != len(rem) || err != nil || ids(back) != ids(rem) {
			t.Errorf("%d entries became %d, %v", len(rem), len(back), err)
		}
	})
}

func BenchmarkFlush(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := &shelf{}
			for i := range n {
				s.have = append(s.have, remembered(fmt.Sprint("id", i)))
			}
			k := Open(Options{Path: filepath.Join(b.TempDir(), "s", "sealed"), Source: s, Key: goodKey})
			_, _ = k.Load(b.Context())
			b.ReportAllocs()
			for b.Loop() {
				if err := k.Flush(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			if err := k.Close(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}
