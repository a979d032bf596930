package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/mototest"
	"github.com/credresolve/credresolve/internal/vaulttest"
	"github.com/credresolve/credresolve/resolver"
)

// follow gives the events of ref, which a handle holds.
func follow(t *testing.T, r *resolver.Resolver, ref credref.Ref) (*resolver.Handle, func(...resolver.EventKind) resolver.Event) {
	t.Helper()
	h := r.Handle(ref)
	t.Cleanup(func() { _ = h.Close() })
	if _, err := h.Get(t.Context()); err != nil {
		t.Fatal(err)
	}
	events := r.Watch(t.Context(), ref)
	return h, func(kinds ...resolver.EventKind) resolver.Event {
		t.Helper()
		late := time.After(time.Minute)
		for {
			select {
			case ev := <-events:
				for _, kind := range kinds {
					if ev.Kind == kind {
						return ev
					}
				}
			case <-late:
				t.Fatalf("no event of %v", kinds)
			}
		}
	}
}

func wantText(t *testing.T, h *resolver.Handle, want string) {
	t.Helper()
	v, err := h.Get(t.Context())
	if err != nil || string(v.Secret().Reveal()) != want {
		t.Fatalf("another value, or %v", err)
	}
}

// A new version in Vault is noticed by its metadata, and nothing is read before.
func TestChecksOfVault(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	p, kv := s.Proxy(t), s.Mount(t, "kv", map[string]string{"version": "2"})
	put := func(password string) {
		s.Write(t, kv+"/data/db", map[string]any{"data": map[string]any{"password": password}})
	}
	put("first-c4nary")
	// One login may read metadata, the other may not.
	dir := t.TempDir()
	for name, rules := range map[string]string{"may": `path "*" { capabilities = ["read"] }`, "maynot": `path "` + kv + `/data/*" { capabilities = ["read"] }`} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(s.NewToken(t, map[string]any{"policies": []string{s.Policy(t, rules)}})), 0o600))
	}
	r := openText(t, dir, fmt.Sprintf(`version: 1
providers:
  may: {kind: file, path: may, mode: raw}
  maynot: {kind: file, path: maynot, mode: raw}
  app: {kind: vault, address: %[1]q, auth: {method: token, token: {provider: may, id: value}}, cache: {ttl: 24h, check: 1s}}
  blind: {kind: vault, address: %[1]q, mount: %[2]s, kv_version: 2, auth: {method: token, token: {provider: maynot, id: value}}, cache: {ttl: 24h, check: 1s}}
`, p.URL, kv))
	reads, checks := "/v1/"+kv+"/data/", "/v1/"+kv+"/metadata/"
	blind := r.Handle(credref.Ref{Provider: "blind", ID: "db", Field: "password"})
	defer blind.Close()
	wantText(t, blind, "first-c4nary")
	for len(p.Calls(checks)) == 0 {
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(3 * time.Second)
	if n := len(p.Calls(checks)); n != 1 {
		t.Errorf("a login that may not look at versions looked %d times", n)
	}
	wantText(t, blind, "first-c4nary")

	h, next := follow(t, r, credref.Ref{Provider: "app", ID: kv + "/db", Field: "password"})
	before := len(p.Calls(checks))
	for len(p.Calls(checks)) < before+3 {
		time.Sleep(50 * time.Millisecond)
	}
	if n := len(p.Calls(reads)); n != 2 {
		t.Errorf("read %d times by two logins", n)
	}
	put("second-c4nary")
	next(resolver.EventRotated)
	wantText(t, h, "second-c4nary")
	if n := len(p.Calls(reads)); n != 3 {
		t.Errorf("read %d times, of two versions", n)
	}
	undo := p.Fail(checks, -1, vaulttest.Answer(500, `{"errors":["c4nary"]}`))
	before = len(p.Calls(checks))
	for len(p.Calls(checks)) < before+2 {
		time.Sleep(50 * time.Millisecond)
	}
	wantText(t, h, "second-c4nary")
	undo()
	if _, err := s.Client(t).Logical().Delete(kv + "/data/db"); err != nil {
		t.Fatal(err)
	}
	if ev := next(resolver.EventFailed); ev.Err == nil || strings.Contains(ev.Err.Error(), "c4nary") {
		t.Errorf("it was deleted: %v", ev.Err)
	}
}

// A new version at AWS is noticed by DescribeSecret, and nothing is read before.
func TestChecksOfAWS(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	sdk := secretsmanager.New(secretsmanager.Options{
		Region: mototest.Region, BaseEndpoint: aws.String(p.Direct), Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
	_, err := sdk.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String("app/db"), SecretString: aws.String("first-c4nary")})
	must(t, err)
	r := openText(t, t.TempDir(), fmt.Sprintf(`version: 1
providers:
  m: {kind: memory, values: {key: test}}
  aws:
    kind: awssm
    region: %s
    endpoint: %q
    access_key_id: {provider: m, id: key}
    secret_access_key: {provider: m, id: key}
    cache: {ttl: 24h, check: 1s}
`, mototest.Region, p.URL))
	h, next := follow(t, r, credref.Ref{Provider: "aws", ID: "app/db"})
	for len(p.Calls("DescribeSecret")) < 3 {
		time.Sleep(50 * time.Millisecond)
	}
	if n := len(p.Calls("GetSecretValue")); n != 1 {
		t.Errorf("read %d times", n)
	}
	_, err = sdk.PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{SecretId: aws.String("app/db"), SecretString: aws.String("second-c4nary")})
	must(t, err)
	next(resolver.EventRotated)
	wantText(t, h, "second-c4nary")
	if n := len(p.Calls("GetSecretValue")); n != 2 {
		t.Errorf("read %d times, of two versions", n)
	}
}

// Who holds a secret of a file hears of each change by the file's events, long before its time.
func TestEventsOfAFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "s.json")
	write := func(text string) {
		must(t, os.WriteFile(path+".next", []byte(text), 0o600))
		must(t, os.Rename(path+".next", path))
	}
	write(`{"a": "first-c4nary"}`)
	r := openText(t, dir, "version: 1\nproviders:\n  f: {kind: file, path: s.json, cache: {ttl: 24h}}\n")
	h, next := follow(t, r, credref.Ref{Provider: "f", ID: "a"})
	next(resolver.EventResolved)
	for i := range 5 {
		text := fmt.Sprintf("text-%d-c4nary", i)
		write(fmt.Sprintf(`{"a": %q}`, text))
		next(resolver.EventRotated)
		wantText(t, h, text)
	}
	must(t, os.Remove(path))
	next(resolver.EventFailed)
	write(`{"a": "again-c4nary"}`)
	next(resolver.EventResolved)
	wantText(t, h, "again-c4nary")
}

// A command is restarted for a file that changed, by way of a sidecar and without one, and only for a value that it has.
func TestRunFollowsAFile(t *testing.T) {
	t.Parallel()
	needsPOSIX(t)
	for _, through := range []string{"a sidecar", "this process"} {
		t.Run(through, func(t *testing.T) {
			t.Parallel()
			p := &process{user: newUser(t)}
			p.write("credresolve.yaml", "version: 1\nproviders:\n  f: {kind: file, path: s.json, cache: {ttl: 24h}}\n")
			p.env = append(p.env, "CREDRESOLVE_CONFIG="+filepath.Join(p.dir, "credresolve.yaml"))
			p.write("s.json", `{"pw": "first-c4nary", "user": "u"}`)
			if through == "a sidecar" {
				p.start()
			}
			r := p.background("run", "--watch", "--env", "PW=cred://f/pw", "--", "sh", "-c", steady)
			r.until(&r.out, "start first-c4nary\n")
			time.Sleep(2 * time.Second) // it is watched
			p.write("s.json", `{"user": "another", "pw": "first-c4nary"}`)
			time.Sleep(time.Second)
			if got := r.out.String(); got != "start first-c4nary\n" {
				t.Errorf("the command was restarted for what it does not have:\n%s", got)
			}
			p.write("s.json", `{"pw": "second-c4nary"}`)
			r.until(&r.out, "term\nstart second-c4nary\n")
			must(t, os.Remove(filepath.Join(p.dir, "s.json")))
			r.until(&r.errors, "the command goes on with the value that it has")
			p.write("s.json", `{"pw": "third-c4nary"}`)
			r.until(&r.out, "term\nstart third-c4nary\n")
			_ = r.cmd.Process.Signal(syscall.SIGTERM)
			if got := r.wait(); got != 3 {
				t.Errorf("status %d, want that of the command", got)
			}
		})
	}
}

// POST /v1/invalidate wakes who watches, and a command that runs.
func TestInvalidationWakesAll(t *testing.T) {
	t.Parallel()
	needsPOSIX(t)
	p := newProcess(t, ", cache: {ttl: 24h}", "")
	p.start()
	events := p.client().Watch(t.Context(), p.password())
	if ev := <-events; ev.Kind != resolver.EventResolving && ev.Kind != resolver.EventResolved {
		t.Fatalf("first came %s", ev.Kind)
	}
	r := p.background("run", "--watch", "--env", "PW="+p.password().String(), "--", "sh", "-c", steady)
	r.until(&r.out, "start first-c4nary\n")
	revision := ""
	until := func(what string, is func(resolver.Event) bool) {
		t.Helper()
		late := time.After(time.Minute)
		for {
			select {
			case ev := <-events:
				if ev.Revision != "" && is(ev) {
					revision = ev.Revision
					return
				}
			case <-late:
				t.Fatal(what)
			}
		}
	}
	if v, err := p.client().Resolve(t.Context(), p.password()); err != nil {
		t.Fatal(err)
	} else {
		revision = v.Revision()
	}
	p.put("second-c4nary")
	if err := p.client().Forget(t.Context(), credref.Ref{Provider: "app", ID: p.kv + "/db"}); err != nil {
		t.Fatal(err)
	}
	until("the watch hears nothing", func(ev resolver.Event) bool { return ev.Revision != revision })
	r.until(&r.out, "term\nstart second-c4nary\n")
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	r.wait()
}

// Logins that Vault makes, and ends after their greatest life, under callers who ask without pause: nobody sees an error or a
// login that is over, and each is valid until after its successor is there.
func TestLeasesPastTheirEnd(t *testing.T) {
	t.Parallel()
	const ttl, life, long = 2 * time.Second, 4 * time.Second, 24 * time.Second
	s := vaulttest.Start(t)
	db := s.Mount(t, "database", nil)
	s.Write(t, db+"/config/d", map[string]any{"plugin_name": "memdb-database-plugin", "allowed_roles": "*"})
	s.Write(t, db+"/roles/app", map[string]any{"db_name": "d", "default_ttl": ttl.String(), "max_ttl": life.String(), "creation_statements": "x"})
	r := openText(t, t.TempDir(), fmt.Sprintf(`version: 1
providers:
  m: {kind: memory, values: {token: %s}}
  app: {kind: vault, address: %q, auth: {method: token, token: {provider: m, id: token}}}
`, s.Token, s.Addr))
	ref := credref.Ref{Provider: "app", ID: db + "/creds/app", Field: "username"}

	var calls, failed, over atomic.Int64
	stop := time.Now().Add(long)
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			h := r.Handle(ref)
			defer h.Close()
			for time.Now().Before(stop) {
				var v *resolver.Value
				var err error
				if i%2 == 0 {
					v, err = h.Get(t.Context())
				} else {
					v, err = r.Resolve(t.Context(), ref)
				}
				calls.Add(1)
				switch {
				case err != nil:
					failed.Add(1)
					t.Logf("a caller got %v", err)
				case v.Stale():
					over.Add(1)
				}
				runtime.Gosched()
			}
		})
	}
	var last *resolver.Value
	logins, overlaps := 0, 0
	for time.Now().Before(stop) {
		v, err := r.Resolve(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if last != nil && v.Revision() != last.Revision() {
			logins++
			if !last.Expires().After(v.Fetched()) {
				t.Errorf("a login was over %v before its successor was there", v.Fetched().Sub(last.Expires()))
			}
			list, err := s.Client(t).Logical().List("sys/leases/lookup/" + db + "/creds/app")
			if err != nil || list == nil {
				t.Fatal(err)
			}
			keys, _ := list.Data["keys"].([]any)
			switch asked := time.Now(); {
			case !asked.Before(last.Expires()): // this machine is too slow to tell
			case len(keys) < 2:
				t.Errorf("Vault has %d logins as the successor is handed out", len(keys))
			default:
				overlaps++
			}
		}
		last = v
		time.Sleep(5 * time.Millisecond)
	}
	all.Wait()
	if failed.Load() > 0 || over.Load() > 0 {
		t.Errorf("of %d calls %d failed, and %d got a login past its time", calls.Load(), failed.Load(), over.Load())
	}
	if most := int(long/ttl) * 2; logins < 3 || logins > most {
		t.Errorf("%d logins in %v, want 3 to %d", logins, long, most)
	}
	t.Logf("%d calls, %d logins, %d seen beside their successor", calls.Load(), logins, overlaps)
}
