package keychain

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// passHome makes a home directory with a gpg key, protected by passphrase unless that is empty, and a password store.
func passHome(t testing.TB, passphrase string) map[string]string {
	t.Helper()
	for _, program := range []string{"pass", "gpg"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs pass and gnupg: run make test")
		}
	}
	home, err := os.MkdirTemp("", "pass") // the agent's socket needs a short name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	env := map[string]string{"PATH": os.Getenv("PATH"), "HOME": home, "GNUPGHOME": filepath.Join(home, "gpg")}
	if err := os.Mkdir(env["GNUPGHOME"], 0o700); err != nil {
		t.Fatal(err)
	}
	// A pinentry that tells when it is asked.
	pinentry := filepath.Join(home, "pinentry")
	if err := os.WriteFile(pinentry, []byte("#!/bin/sh\ntouch '"+home+"/asked'\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(env["GNUPGHOME"], "gpg-agent.conf"), []byte("pinentry-program "+pinentry+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { runIn(t, env, "", "gpgconf", "--kill", "all") })
	runIn(t, env, "", "gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", passphrase, "--quick-gen-key", "t@example.test", "future-default", "default", "never")
	runIn(t, env, "", "pass", "init", "t@example.test")
	return env
}

func runIn(t testing.TB, env map[string]string, stdin, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v", program, args[0], err)
	}
	return string(out)
}

func TestPass(t *testing.T) {
	t.Parallel()
	env := passHome(t, "")
	b := open(t, Config{Backend: "pass", Service: "app"}, backend.Host{LookupEnv: lookup(env), StateDir: state(t)})
	if got := ids(t, b, ""); len(got) != 0 {
		t.Errorf("a new store lists %q", got)
	}
	testStore(t, b, 0, true)
	testDone(t, b)

	runIn(t, env, canary+"\n", "pass", "insert", "--echo", "app/single")
	runIn(t, env, canary+"\nuser: u\nurl: x\n", "pass", "insert", "--multiline", "app/lines")
	runIn(t, env, "outside\n", "pass", "insert", "--echo", "outside")
	sealed, err := wrap("sealed", []byte(canary+"\x00"))
	if err != nil {
		t.Fatal(err)
	}
	runIn(t, env, string(sealed), "pass", "insert", "--multiline", "app/sealed")
	for id, want := range map[string]string{"single": canary, "lines": canary + "\nuser: u\nurl: x", "sealed": canary + "\x00"} {
		if got := get(t, b, id); got != want {
			t.Errorf("%s is %q", id, got)
		}
	}
	put(t, b, "ours", canary, backend.Condition{})
	if got := runIn(t, env, "", "pass", "show", "app/ours"); got != canary+"\n" {
		t.Errorf("pass shows %q", got)
	}
	if slices.Contains(ids(t, b, ""), "outside") {
		t.Error("an entry outside of the prefix is listed")
	}

	first := open(t, Config{Backend: "pass", PassPrefix: "/", PassFirstLine: true}, backend.Host{LookupEnv: lookup(env)})
	for id, want := range map[string]string{"app/single": canary, "app/lines": canary, "outside": "outside"} {
		if got := get(t, first, id); got != want {
			t.Errorf("%s is %q", id, got)
		}
	}
	wantCode(t, putError(t, first, "app/lines", canary, backend.Condition{}), backend.CodeUnsupported)
	wantCode(t, putError(t, first, "app/single", "a\nb", backend.Condition{}), backend.CodeUnsupported)
	put(t, first, "app/single", canary+"2", backend.Condition{})
	if got := get(t, b, "single"); got != canary+"2" {
		t.Errorf("%q", got)
	}

	for _, id := range []string{"../outside", "a/../../outside", "/outside", "a//b", "-x", "a/", ".gpg-id", "?a=b"} {
		wantCode(t, getError(t, b, id), backend.CodeInvalidID)
		wantCode(t, putError(t, b, id, canary, backend.Condition{}), backend.CodeInvalidID)
		wantCode(t, b.Delete(t.Context(), backend.Request{ID: id}, backend.Condition{}), backend.CodeInvalidID)
	}
	if err := os.WriteFile(filepath.Join(env["HOME"], ".password-store", "app", "garbage.gpg"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantCode(t, getError(t, b, "garbage"), backend.CodeInternal)
	if d := b.Describe(); !d.CallerBound || d.Detail != "pass, as configured: folder /app of "+env["HOME"]+"/.password-store" {
		t.Errorf("%+v", d)
	}
	auto := open(t, Config{}, backend.Host{LookupEnv: lookup(env)})
	if err := auto.Probe(t.Context()); err != nil || !strings.HasPrefix(auto.Describe().Detail, "pass, chosen as ") {
		t.Errorf("%v %q", err, auto.Describe().Detail)
	}
}

func TestPassLocked(t *testing.T) {
	t.Parallel()
	env := passHome(t, "the key's passphrase")
	b := open(t, Config{Backend: "pass", Service: "app"}, backend.Host{LookupEnv: lookup(env)})
	put(t, b, "a", canary, backend.Condition{})
	runIn(t, env, "", "gpgconf", "--kill", "gpg-agent")
	err := getError(t, b, "a")
	wantCode(t, err, backend.CodeLocked)
	if err == nil || !strings.Contains(err.Error(), "pass show") {
		t.Errorf("%v does not say what to do", err)
	}
	if _, err := os.Stat(filepath.Join(env["HOME"], "asked")); err == nil {
		t.Error("somebody was asked for the passphrase")
	}
	// Once the agent has the passphrase, the store is open.
	runIn(t, env, "", "gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "the key's passphrase", "--decrypt", filepath.Join(env["HOME"], ".password-store/app/a.gpg"))
	if got := get(t, b, "a"); got != canary {
		t.Errorf("%q", got)
	}
	runIn(t, env, "", "gpgconf", "--kill", "gpg-agent")
	asking := open(t, Config{Backend: "pass", Service: "app"}, backend.Host{LookupEnv: lookup(env), Interactive: true})
	wantCode(t, getError(t, asking, "a"), backend.CodeLocked)
	if _, err := os.Stat(filepath.Join(env["HOME"], "asked")); err != nil {
		t.Error("nobody was asked for the passphrase, though that was allowed")
	}

	if err := os.Rename(filepath.Join(env["GNUPGHOME"], "private-keys-v1.d"), filepath.Join(env["HOME"], "gone")); err != nil {
		t.Fatal(err)
	}
	runIn(t, env, "", "gpgconf", "--kill", "gpg-agent")
	wantCode(t, getError(t, b, "a"), backend.CodeAuthRequired)
}

func TestPassHangs(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, "store", "app"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"store/.gpg-id": "x", "store/app/a.gpg": "x", "pass": "#!/bin/sh\nsleep 60 & sleep 60\n"} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	b := open(t, Config{Backend: "pass", Service: "app", PassDir: "store"}, backend.Host{Dir: home, LookupEnv: lookup(map[string]string{"PATH": home + ":/bin:/usr/bin"})})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := b.Get(ctx, backend.Request{ID: "a"})
	wantCode(t, err, backend.CodeTimeout)
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	if d := b.Describe(); d.CallerBound {
		t.Error("a configured directory depends on no caller")
	}
}

func TestPassMissing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, Config{Backend: "pass", PassDir: dir}, backend.Host{LookupEnv: lookup(map[string]string{"PATH": dir})})
	err := b.Probe(t.Context())
	wantCode(t, err, backend.CodeUnavailable)
	if err == nil || !strings.Contains(err.Error(), "$PATH") {
		t.Errorf("%v does not say what is missing", err)
	}
	err = getError(t, b, "a")
	wantCode(t, err, backend.CodeUnavailable)
	if err == nil || !strings.Contains(err.Error(), "pass init") {
		t.Errorf("%v does not say what to do", err)
	}
}
