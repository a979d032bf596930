package grants_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/resolver/grants"
)

var record = backend.Request{ID: "credresolve/desk/me"}

// What an exchange gave is not lost when the token store fails just then, and not given before it is kept.
func TestStoreFailsAfterTheExchange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{ttl: time.Hour}
		w := &faulty{Writer: vessel(t)}
		b := entered(t, w, i)
		time.Sleep(time.Hour)
		w.set(nil, func(n int) error { // the marker is written, what comes after is not
			if n == 1 {
				return nil
			}
			return backend.Errorf(backend.CodeUnavailable, "the disk is full")
		})
		_, err := b.Get(t.Context(), me)
		fails(t, err, backend.ErrUnavailable, "was refreshed", "the disk is full", "desk/me")
		for range 10 {
			time.Sleep(20 * time.Second)
			_, err := b.Get(t.Context(), me)
			fails(t, err, backend.ErrUnavailable, "the disk is full")
		}
		w.set(nil, nil)
		time.Sleep(time.Minute) // it is written without anybody asking
		if c, err := w.Get(t.Context(), record); err != nil || !strings.Contains(string(c.Secret.Reveal()), "refresh-c4nary-2") {
			t.Error("it was not written", err)
		}
		want(t, b, "access-c4nary-2")
		if i.count() != 1 {
			t.Errorf("%d exchanges, want one", i.count())
		}
	})
}

func TestStoreIsBackAtClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{ttl: time.Hour}
		w := &faulty{Writer: vessel(t)}
		b := inMemory(t, w, i, grants.Config{})
		enter(t, b, i, me)
		w.set(nil, func(n int) error {
			if n == 1 {
				return nil
			}
			return backend.ErrUnavailable
		})
		fails(t, b.Refresh(t.Context(), me), backend.ErrUnavailable)
		w.set(nil, nil)
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		again := inMemory(t, w, i, grants.Config{})
		defer again.Close()
		want(t, again, "access-c4nary-2")
	})
}

// A write of which nobody knows whether it was made is looked for.
func TestAnswerOfTheStoreIsLost(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2} { // of the marker, of the new grant
		synctest.Test(t, func(t *testing.T) {
			i := &issuer{ttl: time.Hour}
			w := &lossy{faulty: &faulty{Writer: vessel(t)}}
			b := entered(t, w, i)
			time.Sleep(time.Hour)
			w.lose(n)
			if _, err := b.Get(t.Context(), me); err != nil {
				fails(t, err, backend.ErrUnavailable)
			}
			want(t, b, "access-c4nary-2")
			if i.count() != 1 {
				t.Errorf("write %d: %d exchanges, want one", n, i.count())
			}
		})
	}
}

// lossy makes a write, and tells that it failed.
type lossy struct {
	*faulty
	at int
}

func (l *lossy) lose(n int) { l.at, l.puts = n, 0 }

func (l *lossy) Put(ctx context.Context, req backend.Request, v backend.Value, cond backend.Condition) (string, error) {
	version, err := l.faulty.Put(ctx, req, v, cond)
	if err == nil && l.puts == l.at {
		return "", backend.Errorf(backend.CodeUnavailable, "the connection broke")
	}
	return version, err
}

// Where nothing can be written, nothing is spent.
func TestStoreIsReadOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{ttl: time.Hour}
		w := &faulty{Writer: vessel(t)}
		b := entered(t, w, i)
		w.set(nil, func(int) error { return backend.Errorf(backend.CodeDenied, "read-only") })
		time.Sleep(56 * time.Minute)
		if c := want(t, b, "access-c4nary-1"); c.Metadata[grants.Warning] != "denied" {
			t.Errorf("%v", c.Metadata)
		}
		time.Sleep(4 * time.Minute)
		_, err := b.Get(t.Context(), me)
		fails(t, err, backend.ErrDenied, "write to the token store: read-only")
		if i.count() != 0 {
			t.Errorf("%d exchanges, want none", i.count())
		}
		if s, err := b.StartLogin(t.Context(), me, backend.LoginOptions{}); err != nil {
			t.Error(err)
		} else {
			i.finish(s.State)
			s, err = b.PollLogin(t.Context(), s.State)
			fails(t, err, backend.ErrDenied, "the login succeeded, but what it gave is not kept", "read-only")
			if s.Status != backend.LoginPending {
				t.Errorf("%+v", s)
			}
			w.set(nil, nil) // the grant waits for that
			if s, err = b.PollLogin(t.Context(), s.State); err != nil || s.Status != backend.LoginSuccess {
				t.Errorf("%+v %v", s, err)
			}
		}
		want(t, b, "access-c4nary-2")
	})
}

func TestStoreIsLocked(t *testing.T) {
	t.Parallel()
	i := &issuer{}
	w, dir := &faulty{Writer: vessel(t)}, t.TempDir()+"/state"
	b := open(t, w, i, grants.Config{StateDir: dir})
	enter(t, b, i, me)
	locked := &backend.Error{Code: backend.CodeLocked, Reason: "the keychain is locked", Remedy: "unlock it"}
	w.set(locked, func(int) error { return locked })
	for range 3 {
		_, err := b.Get(t.Context(), me)
		fails(t, err, backend.ErrLocked, "the keychain is locked", "unlock it")
	}
	_, err := b.StartLogin(t.Context(), me, backend.LoginOptions{})
	fails(t, err, backend.ErrLocked) // at once, not after the person has logged in
	_, err = b.Logout(t.Context(), me)
	fails(t, err, backend.ErrLocked)
	fails(t, b.Refresh(t.Context(), me), backend.ErrLocked)
	if logins, err := grants.NewStore(grants.Config{StateDir: dir}).Logins(); err != nil || len(logins) != 1 || logins[0].Status != grants.StatusActive {
		t.Error(logins, err)
	}
	w.set(nil, nil)
	want(t, b, "access-c4nary-1")
}

func TestTooLargeForTheStore(t *testing.T) {
	t.Parallel()
	i := &issuer{}
	w := &faulty{Writer: vessel(t)}
	b := open(t, w, i, grants.Config{})
	w.set(nil, func(int) error {
		return backend.Errorf(backend.CodeUnsupported, "the value is larger than the 2560 bytes that wincred holds")
	})
	s, err := b.StartLogin(t.Context(), me, backend.LoginOptions{})
	if err != nil {
		t.Fatal(err)
	}
	i.finish(s.State)
	s, err = b.PollLogin(t.Context(), s.State)
	if err != nil || s.Status != backend.LoginError || !strings.Contains(s.Message, "2560 bytes") || !strings.Contains(s.Message, "the login takes") {
		t.Errorf("%+v %v", s, err)
	}
	_, err = b.Get(t.Context(), me)
	fails(t, err, backend.ErrAuthRequired) // it is not in memory either
}

// What cannot be read is told from what is not there, and is not overwritten.
func TestDamagedRecord(t *testing.T) {
	t.Parallel()
	i := &issuer{ttl: time.Hour}
	w := vessel(t)
	b := open(t, w, i, grants.Config{})
	enter(t, b, i, me)
	c, err := w.Get(t.Context(), record)
	if err != nil {
		t.Fatal(err)
	}
	whole := string(c.Secret.Reveal())
	for name, text := range map[string]string{
		"a token in plain text": "ghp_c4nary",
		"nothing":               "",
		"another JSON text":     `{"access_token":"c4nary"}`,
		"half of it":            whole[:len(whole)/2],
		"of a later program":    strings.Replace(whole, `"credresolve_login":1`, `"credresolve_login":2`, 1),
		"of another id":         strings.Replace(whole, `"id":"me"`, `"id":"you"`, 1),
		"without a credential":  strings.NewReplacer(`"secret"`, `"s"`, `"fields"`, `"f"`).Replace(whole),
		"of a state unheard of": strings.Replace(whole, `"state":"active"`, `"state":"odd"`, 1),
	} {
		if text == whole {
			t.Fatalf("%s: the document has another form than this test knows", name)
		}
		put := backend.Value{Secret: backend.NewSecretString(text)}
		if _, err := w.Put(t.Context(), record, put, backend.Condition{}); err != nil {
			t.Fatal(err)
		}
		_, err := b.Get(t.Context(), me)
		if code := backend.CodeOf(err); code != backend.CodeInternal || !strings.Contains(err.Error(), "credresolve logout desk me") || strings.Contains(err.Error(), "c4nary") {
			t.Errorf("%s: %v", name, err)
		}
		if err := b.Refresh(t.Context(), me); backend.CodeOf(err) != backend.CodeInternal {
			t.Errorf("%s: refresh: %v", name, err)
		}
		if _, err := b.StartLogin(t.Context(), me, backend.LoginOptions{}); backend.CodeOf(err) != backend.CodeInternal {
			t.Errorf("%s: login: %v", name, err)
		}
		if c, err := w.Get(t.Context(), record); err != nil || string(c.Secret.Reveal()) != text {
			t.Errorf("%s: it was overwritten", name)
		}
	}
	if revoked, err := b.Logout(t.Context(), me); err != nil || revoked {
		t.Error(revoked, err)
	}
	enter(t, b, i, me)
	want(t, b, "access-c4nary-2")
	if i.count() != 0 {
		t.Error("something was exchanged")
	}
}

// Two writes in a row that another is faster with.
func TestStoreConflicts(t *testing.T) {
	t.Parallel()
	i := &issuer{ttl: time.Hour}
	w := &faulty{Writer: vessel(t)}
	b := open(t, w, i, grants.Config{})
	enter(t, b, i, me)
	w.set(nil, func(n int) error {
		if n <= 2 {
			return backend.Errorf(backend.CodeConflict, "changed")
		}
		return nil
	})
	if err := b.Refresh(t.Context(), me); err != nil {
		t.Error(err)
	}
	want(t, b, "access-c4nary-2")
	w.set(nil, func(int) error { return backend.Errorf(backend.CodeConflict, "changed") })
	err := b.Refresh(t.Context(), me)
	fails(t, err, backend.ErrUnavailable, "changes all the time")
	if i.count() != 1 {
		t.Errorf("%d exchanges", i.count())
	}
}

// A project's file may give its provider the name of another's.
func TestLoginOfAnotherServer(t *testing.T) {
	t.Parallel()
	i, evil, w := &issuer{ttl: time.Minute}, &issuer{}, vessel(t)
	b := inMemory(t, w, i, grants.Config{})
	defer b.Close()
	b.Bind("oauth2 https://login.example")
	enter(t, b, i, me)
	other := inMemory(t, w, evil, grants.Config{})
	defer other.Close()
	other.Bind("oauth2 https://evil.example")
	_, err := other.Get(t.Context(), me)
	fails(t, err, backend.ErrAuthRequired, "made at another server")
	fails(t, other.Refresh(t.Context(), me), backend.ErrAuthRequired, "made at another server")
	if revoked, err := other.Logout(t.Context(), me); err != nil || revoked || len(evil.revoked) != 0 || evil.count() != 0 {
		t.Error("the token was sent to another server", revoked, err)
	}
}

// Ids in the token store are readable, apart from each other, and stay below the prefix.
func TestIDs(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	long := strings.Repeat("x", 300)
	for _, req := range []backend.Request{
		{ID: "me"}, {ID: "Me"}, {ID: "ME"}, {ID: "_ume"}, {ID: "m_e"}, {ID: "m__e"}, {ID: "m/e"}, {ID: "m_2fe"}, {ID: ".."}, {ID: "."}, {ID: "../desk2/me"},
		{ID: "me@example.com"}, {ID: "me+tenant=acme"}, {ID: "me", Subject: backend.Subject{Tenant: "acme"}}, {ID: "me", Subject: backend.Subject{EndUser: "acme"}},
		{ID: "me", Subject: backend.Subject{Tenant: "acme+end_user=bob"}}, {ID: "me", Subject: backend.Subject{Tenant: "acme", EndUser: "bob"}},
		{ID: "ü"}, {ID: "\xff"}, {ID: "a b\n"}, {ID: long}, {ID: long + "y"}, {ID: strings.ToUpper(long)}, {ID: "nul\x00"}, {ID: `c:\x`}, {ID: "me "},
	} {
		i, w := &issuer{}, vessel(t)
		b := inMemory(t, w, i, grants.Config{Prefix: "kv/logins"})
		enter(t, b, i, req)
		for e, err := range w.List(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			rest, ok := strings.CutPrefix(e.ID, "kv/logins/desk/")
			if !ok || strings.Contains(rest, "/") || strings.HasPrefix(rest, ".") || len(rest) > 250 || strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz0123456789_+=.@-") != "" {
				t.Errorf("%q is kept as %q", req, e.ID)
			}
			if was, twice := seen[e.ID]; twice {
				t.Errorf("%q and %q are both kept as %q", was, req.ID, e.ID)
			}
			seen[e.ID] = req.ID
		}
		b.Close()
	}
	for _, readable := range []string{"kv/logins/desk/me", "kv/logins/desk/me@example.com", "kv/logins/desk/me+tenant=acme", "kv/logins/desk/_ume"} {
		if _, ok := seen[readable]; !ok {
			t.Errorf("%q is none of them", readable)
		}
	}
}

// A credential of any form comes back as it was.
func TestRecordIsFaithful(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*backend.Credential{
		"a text":        {Type: backend.TypeAPIKey, Secret: backend.NewSecretString("p\"ä\n")},
		"an empty text": {Secret: backend.NewSecretString("")},
		"bytes":         {Secret: backend.NewSecret([]byte{0, 0xff, 0xfe})},
		"fields":        {Type: backend.TypeAWS, Fields: map[string]backend.Secret{"a": backend.NewSecretString("1"), "a_base64": backend.NewSecret([]byte{0xff}), "fields": backend.NewJSONSecret([]byte(`{"x":1}`))}},
		"no fields":     {Fields: map[string]backend.Secret{}, Secret: backend.NewSecretString("x")},
		"facts":         {Type: backend.TypeBasic, Secret: backend.NewSecretString("x"), Version: "v7", Expires: time.Now().Add(time.Hour).Round(0), Metadata: map[string]string{"a": "b"}},
		"a JSON secret": {Secret: backend.NewJSONSecret([]byte(`12`))},
		"one twice":     {Secret: backend.NewSecretString("x"), Fields: map[string]backend.Secret{"a": backend.NewSecretString("x"), "b": backend.NewSecretString("y")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := &fixed{issuer{}, &backend.Grant{Credential: c}}
			b := open(t, vessel(t), i, grants.Config{})
			s, err := b.StartLogin(t.Context(), me, backend.LoginOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if s, err = b.PollLogin(t.Context(), s.State); err != nil || s.Status != backend.LoginSuccess {
				t.Fatalf("%+v %v", s, err)
			}
			got, err := b.Get(t.Context(), me)
			if err != nil {
				t.Fatal(err)
			}
			if got.Type != c.Type || !got.Secret.Equal(c.Secret) || got.Version != c.Version || !got.Expires.Equal(c.Expires) || len(got.Fields) != len(c.Fields) ||
				(got.Fields == nil) != (c.Fields == nil) || got.Metadata["a"] != c.Metadata["a"] {
				t.Errorf("got %+v, want %+v", got, c)
			}
			for name, f := range c.Fields {
				if !got.Fields[name].Equal(f) {
					t.Errorf("field %q is another", name)
				}
			}
		})
	}
}

// fixed gives one grant.
type fixed struct {
	issuer
	g *backend.Grant
}

func (f *fixed) PollLogin(context.Context, string) (backend.LoginState, error) {
	return backend.LoginState{Status: backend.LoginSuccess, Grant: f.g}, nil
}

// Nothing beside the token store holds a secret, and no error does.
func TestNoSecretElsewhere(t *testing.T) {
	t.Parallel()
	i := &issuer{ttl: time.Hour}
	w, dir := &faulty{Writer: vessel(t)}, t.TempDir()+"/state"
	b := open(t, w, i, grants.Config{StateDir: dir})
	enter(t, b, i, me)
	errs := []error{b.Refresh(t.Context(), me)}
	i.failing(backend.Errorf(backend.CodeUnavailable, "away"))
	errs = append(errs, b.Refresh(t.Context(), me))
	w.set(nil, func(n int) error { return backend.ErrDenied })
	errs = append(errs, b.Refresh(t.Context(), me))
	w.set(nil, nil)
	i.failing(backend.ErrAuthRequired)
	errs = append(errs, b.Refresh(t.Context(), me))
	_, err := b.Get(t.Context(), backend.Request{ID: "other"})
	errs = append(errs, err)
	for n, err := range errs {
		if (err == nil) != (n == 0) || err != nil && strings.Contains(err.Error(), "c4nary") {
			t.Errorf("%d: %v", n, err)
		}
	}
	files := 0
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if info, _ := d.Info(); info != nil && info.Mode().Perm() != 0o700 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
			return err
		}
		files++
		info, err := d.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte("c4nary")) {
			t.Errorf("%s holds a token", path)
		}
		return err
	}); err != nil || files < 2 {
		t.Error(files, err)
	}
}

// One file of the index that is damaged hides none of the others.
func TestDamagedIndex(t *testing.T) {
	t.Parallel()
	i, dir := &issuer{}, t.TempDir()+"/state"
	b := open(t, vessel(t), i, grants.Config{StateDir: dir})
	enter(t, b, i, me)
	enter(t, b, i, backend.Request{ID: "you"})
	if err := os.WriteFile(dir+"/logins/login-x.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	logins, err := grants.NewStore(grants.Config{StateDir: dir}).Logins()
	if err != nil || len(logins) != 3 || logins[0].Status != grants.StatusUnknown || logins[1].ID != "me" || logins[2].ID != "you" {
		t.Error(logins, err)
	}
}

// A login that the list does not have is listed when it is used, and when somebody asks how it stands.
func TestListedWhenUsed(t *testing.T) {
	t.Parallel()
	i, dir := &issuer{}, t.TempDir()+"/state"
	b := open(t, vessel(t), i, grants.Config{StateDir: dir})
	enter(t, b, i, me)
	for name, use := range map[string]func(){
		"get":    func() { want(t, b, "access-c4nary-1") },
		"status": func() { _, _ = b.Status(t.Context(), me) },
	} {
		if err := os.RemoveAll(dir + "/logins"); err != nil {
			t.Fatal(err)
		}
		use()
		logins, err := grants.NewStore(grants.Config{StateDir: dir}).Logins()
		if err != nil || len(logins) != 1 || logins[0].ID != "me" || logins[0].Status != grants.StatusActive {
			t.Errorf("after %s: %v %v", name, logins, err)
		}
	}
}

func TestSuits(t *testing.T) {
	t.Parallel()
	w := vessel(t)
	if err := grants.Suits(w, true); err != nil {
		t.Error(err)
	}
	fails(t, grants.Suits(weak{w}, true), backend.ErrInvalidConfig, "compares and swaps", "strength none")
	if err := grants.Suits(weak{w}, false); err != nil {
		t.Error(err)
	}
	fails(t, grants.Suits(struct{ backend.Backend }{w}, false), backend.ErrInvalidConfig, "can only be read")
	fails(t, grants.Suits(loggedIn{w}, false), backend.ErrInvalidConfig, "needs a login")
}

type loggedIn struct{ backend.Writer }

func (loggedIn) Describe() backend.Description { return backend.Description{Login: true} }

// A panic of an adapter ends neither the process nor the login.
func TestAdapterPanics(t *testing.T) {
	t.Parallel()
	i := &panics{issuer{}}
	b := open(t, vessel(t), i, grants.Config{})
	enter(t, b, &i.issuer, me)
	if err := b.Refresh(t.Context(), me); backend.CodeOf(err) != backend.CodeInternal || strings.Contains(err.Error(), "c4nary") {
		t.Error(err)
	}
	want(t, b, "access-c4nary-1")
}

type panics struct{ issuer }

func (*panics) Refresh(_ context.Context, _ backend.Request, have *backend.Grant) (*backend.Grant, error) {
	panic(string(have.Refresh.Reveal()))
}

// Close waits for an exchange that is under way, whose token would be lost.
func TestCloseDuringAnExchange(t *testing.T) {
	t.Parallel()
	i := &issuer{hold: make(chan struct{}), entered: make(chan struct{}, 1)}
	w := vessel(t)
	b := open(t, w, i, grants.Config{})
	enterNow(t, b, i)
	var wg sync.WaitGroup
	wg.Go(func() {
		ctx, cancel := context.WithCancel(context.Background())
		go func() { <-i.entered; cancel(); close(i.hold) }()
		if err := b.Refresh(ctx, me); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	wg.Wait()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	want(t, open(t, w, i, grants.Config{}), "access-c4nary-2")
}

// Whoever removes the file of a lock makes two at work at once. They end with the same token, and none is lost.
func TestLockIsLost(t *testing.T) {
	t.Parallel()
	for _, first := range []bool{true, false} { // the one that was at it first is done first
		i, w, dir := &issuer{ttl: time.Hour}, vessel(t), t.TempDir()+"/state"
		a := open(t, w, i, grants.Config{StateDir: dir})
		enter(t, a, i, me)
		slow := &slow{i, make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})}
		b := open(t, w, slow, grants.Config{StateDir: dir})
		done := make(chan error)
		go func() { done <- b.Refresh(context.Background(), me) }()
		<-slow.entered
		if first {
			close(slow.spend)
			<-slow.spent
		}
		locks, err := filepath.Glob(dir + "/login-*.lock")
		if err != nil || len(locks) != 1 {
			t.Fatal(locks, err)
		}
		if err := os.Remove(locks[0]); err != nil {
			t.Fatal(err)
		}
		err = a.Refresh(t.Context(), me)
		if first {
			fails(t, err, backend.ErrAuthRequired, "interrupted")
		} else if err != nil {
			t.Error(err)
		}
		if !first {
			close(slow.spend)
		}
		close(slow.finish)
		if err := <-done; err != nil {
			t.Error(err)
		}
		for _, b := range []*grants.Backend{a, b} {
			want(t, b, "access-c4nary-2")
		}
	}
}

// slow is an issuer whose exchange takes long before it spends the token, and after.
type slow struct {
	*issuer
	entered, spend, spent, finish chan struct{}
}

func (s *slow) Refresh(ctx context.Context, req backend.Request, have *backend.Grant) (*backend.Grant, error) {
	close(s.entered)
	<-s.spend
	g, err := s.issuer.Refresh(ctx, req, have)
	close(s.spent)
	<-s.finish
	return g, err
}

// A process that waits for another ends at once.
func TestCloseWhileAnotherIsAtWork(t *testing.T) {
	t.Parallel()
	i := &issuer{ttl: time.Hour, hold: make(chan struct{}), entered: make(chan struct{}, 1)}
	w, dir := vessel(t), t.TempDir()+"/state"
	a, b := open(t, w, i, grants.Config{StateDir: dir}), open(t, w, i, grants.Config{StateDir: dir})
	enterNow(t, a, i)
	done := make(chan error)
	go func() { done <- a.Refresh(context.Background(), me) }()
	<-i.entered
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	fails(t, b.Refresh(ctx, me), context.DeadlineExceeded)
	began := time.Now()
	if err := b.Close(); err != nil || time.Since(began) > 8*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	close(i.hold)
	if err := <-done; err != nil {
		t.Error(err)
	}
	want(t, a, "access-c4nary-2")
	if i.count() != 1 {
		t.Errorf("%d exchanges", i.count())
	}
}

// An id that would write to a terminal is quoted wherever it is shown.
func TestIDOnATerminal(t *testing.T) {
	t.Parallel()
	b := open(t, vessel(t), &issuer{}, grants.Config{})
	_, err := b.Get(t.Context(), backend.Request{ID: "a\x1b[2Jb"})
	fails(t, err, backend.ErrAuthRequired, `desk/"a\x1b[2Jb"`)
	if strings.Contains(err.Error(), "\x1b") {
		t.Errorf("%q", err)
	}
}

// crash has b refresh, and end with the token that this gave: as far as others see, it was killed.
func crash(t testing.TB, b *grants.Backend, w *faulty) {
	t.Helper()
	w.set(nil, func(n int) error {
		if n == 1 { // that an exchange begins
			return nil
		}
		return backend.Errorf(backend.CodeUnavailable, "gone")
	})
	fails(t, b.Refresh(context.Background(), me), backend.ErrUnavailable)
	_ = b.Close()
}

// A server that takes a spent token once more within a grace period makes an interrupted refresh good.
func TestInterruptedWithGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i, w := &issuer{ttl: time.Hour, grace: true}, vessel(t)
		dying := &faulty{Writer: w}
		a := inMemory(t, dying, i, grants.Config{})
		enter(t, a, i, me)
		crash(t, a, dying)
		b := inMemory(t, w, i, grants.Config{})
		defer b.Close()
		if s, err := b.Status(t.Context(), me); err != nil || s.Status != grants.StatusRefreshing { // of another host, as it seems
			t.Errorf("%+v %v", s, err)
		}
		want(t, b, "access-c4nary-1") // good for an hour
		time.Sleep(3 * time.Minute)   // the lease is over
		if s, err := b.Status(t.Context(), me); err != nil || s.Status != grants.StatusInterrupted || !strings.Contains(s.Reason, "is not known") {
			t.Errorf("%+v %v", s, err)
		}
		time.Sleep(time.Hour)
		want(t, b, "access-c4nary-3")
		if s, err := b.Status(t.Context(), me); err != nil || s.Status != grants.StatusActive || !strings.Contains(s.Reason, "was interrupted; the next one succeeded") {
			t.Errorf("%+v %v", s, err)
		}
		if i.count() != 2 {
			t.Errorf("%d exchanges, want the lost one and one more", i.count())
		}
	})
}

// The lease of a host that is gone is waited for by the clock of who waits, however wrong the clock of the other was.
func TestLeaseIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i, w := &issuer{ttl: time.Minute, grace: true}, vessel(t)
		dying := &faulty{Writer: w}
		a := inMemory(t, dying, i, grants.Config{})
		enter(t, a, i, me)
		time.Sleep(time.Minute)
		crash(t, a, dying)
		// As a host writes it whose clock is a day ahead.
		alter(t, w, "credresolve", `"until":"[^"]*"`, `"until":"`+time.Now().Add(24*time.Hour).UTC().Format(time.RFC3339)+`"`)
		b := inMemory(t, w, i, grants.Config{})
		defer b.Close()
		began := time.Now()
		want(t, b, "access-c4nary-3")
		if waited := time.Since(began); waited < 90*time.Second || waited > 2*time.Minute {
			t.Errorf("it waited %v for the lease of 90 seconds", waited)
		}
	})
}

// A store that is away for a moment costs nobody a login.
func TestStoreIsAwayDuringALogin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		w := &faulty{Writer: vessel(t)}
		b := inMemory(t, w, i, grants.Config{})
		w.set(nil, func(n int) error {
			if n < 3 {
				return backend.ErrUnavailable
			}
			return nil
		})
		enter(t, b, i, me)
		want(t, b, "access-c4nary-1")
		s, err := b.StartLogin(t.Context(), me, backend.LoginOptions{})
		if err != nil {
			t.Fatal(err)
		}
		w.set(nil, func(int) error { return backend.ErrUnavailable })
		i.finish(s.State)
		time.Sleep(time.Minute)
		w.set(nil, nil)
		if err := b.Close(); err != nil { // the last chance
			t.Error(err)
		}
		again := inMemory(t, w, i, grants.Config{})
		defer again.Close()
		want(t, again, "access-c4nary-2")
	})
}

// Where neither a lock nor the store keeps processes apart, none spends a refresh token.
func TestNothingKeepsProcessesApart(t *testing.T) {
	t.Parallel()
	w, i := weak{vessel(t)}, &issuer{ttl: time.Hour}
	enter(t, open(t, w, i, grants.Config{}), i, me)
	b := inMemory(t, w, i, grants.Config{})
	defer b.Close()
	want(t, b, "access-c4nary-1") // it is good still
	fails(t, b.Refresh(t.Context(), me), backend.ErrInvalidConfig, "no directory for state", "credresolve doctor")
	_, err := b.StartLogin(t.Context(), me, backend.LoginOptions{})
	fails(t, err, backend.ErrInvalidConfig, "no directory for state")
	if n := i.count(); n != 0 {
		t.Errorf("%d exchanges", n)
	}
}
