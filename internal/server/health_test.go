package server

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/credresolve/credresolve/adapters/exec"
	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/internal/oidctest"
)

// healthSidecar runs a sidecar with providers that are well, one that is not, and one that runs a program, which leaves the file ran.
func healthSidecar(t *testing.T, settings, more string) *sidecar {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("needs a POSIX shell: run it on Linux or macOS")
	}
	sc := &sidecar{t: t, dir: t.TempDir(), logs: &buffer{}, kinds: testKinds(exec.Kind(), oauth2.Kind())}
	sc.socket = filepath.Join(sc.dir, "run", "sock")
	sc.write("conf.json", `{"a": "a-c4nary"}`)
	sc.write("program", "#!/bin/sh\ncat > /dev/null\ntouch "+sc.dir+"/ran\necho '{\"protocolVersion\": 1, \"values\": {\"x\": \"x-c4nary\"}}'\n")
	if err := os.Chmod(filepath.Join(sc.dir, "program"), 0o700); err != nil {
		t.Fatal(err)
	}
	sc.configure(`
  m: {kind: memory, values: {plain: "plain-c4nary"}}
  vessel: {kind: memory}
  conf: {kind: file, path: conf.json}
  gone: {kind: file, path: gone.json}
  corp: {kind: exec, command: `+sc.dir+`/program}
  above: {kind: oauth2, issuer: "http://127.0.0.1:1", client_id: x, client_secret: {provider: corp, id: x}, grant: client_credentials}
`+more+`
logins: {store: vessel}
`, settings+`
  consumers:
    - {name: watch, token: watch, may: [status, metrics], allow: [{provider: m, id: plain}]}
  tokens: {watch: watch.token}
`)
	sc.write("watch.token", tokenOf("watch"))
	sc.open()
	return sc
}

func (sc *sidecar) ran() bool {
	_, err := os.Stat(filepath.Join(sc.dir, "ran"))
	return err == nil
}

func codes(a client.HealthAnswer) map[string]backend.Code {
	out := map[string]backend.Code{}
	for _, p := range a.Providers {
		out[p.Name] = p.Code
	}
	for _, c := range a.Credentials {
		out[c.Ref.String()] = c.Code
	}
	return out
}

func TestHealthOnDemand(t *testing.T) {
	t.Parallel()
	sc := healthSidecar(t, "  health: {refs: [cred://m/plain, cred://m/none, cred://gone//x, cred://corp/x]}", "")
	ctx, owner := t.Context(), sc.client("")
	before, err := owner.Health(ctx, false)
	if err != nil || len(before.Providers) != 0 || len(before.Credentials) != 0 {
		t.Errorf("before any look: %+v, %v", before, err)
	}
	got, err := owner.Health(ctx, true)
	if err != nil {
		t.Fatal(err)
	}
	found := codes(got)
	for name, want := range map[string]backend.Code{"m": backend.CodeOK, "conf": backend.CodeOK, "cred://m/plain": backend.CodeOK, "cred://m/none": backend.CodeNotFound} {
		if found[name] != want {
			t.Errorf("%s: %q, want %s", name, found[name], want)
		}
	}
	if code := found["gone"]; code == "" || code == backend.CodeOK || code == backend.CodeUnsupported {
		t.Errorf("a file that is not there: %q", code)
	}
	for _, p := range got.Providers {
		if p.CheckedAt.IsZero() || p.Kind == "" || (p.Code != backend.CodeOK) != (p.Message != "") {
			t.Errorf("%+v", p)
		}
	}
	for _, name := range []string{"corp", "cred://corp/x", "above"} { // the last needs the program for its secret
		if code, looked := found[name]; looked {
			t.Errorf("%s was looked at: %s", name, code)
		}
	}
	if sc.ran() {
		t.Fatal("a program was started")
	}
	status, err := owner.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range status.Providers {
		if looked := p.Name != "corp" && p.Name != "above"; looked != (p.Health != nil) {
			t.Errorf("the status of %s: %+v", p.Name, p.Health)
		}
	}
	text := sc.do("GET", "/metrics", "").body
	for _, want := range []string{`credresolve_provider_healthy{provider="m"} 1`, `credresolve_provider_healthy{provider="gone"} 0`, `credresolve_credentials_unhealthy{provider="m"} 1`} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if strings.Contains(text, `="plain`) || strings.Contains(text, `provider_healthy{provider="corp"}`) {
		t.Error("an id, or what was not looked at, is in the metrics")
	}
	if got := sc.do("GET", "/v1/health?now=1&executables=1", ""); got.status != http.StatusOK || !strings.Contains(got.body, `"name":"corp"`) {
		t.Errorf("with programs: status %d: %s", got.status, got.body)
	}
	if !sc.ran() {
		t.Error("no program was started, though that was asked for")
	}
	for query, want := range map[string]int{"?now=2": 400, "?executables=1": 400, "?c4nary=1": 400, "?now=1&now=1": 400} {
		if got := sc.do("GET", "/v1/health"+query, ""); got.status != want || strings.Contains(got.body, canary) {
			t.Errorf("%s: status %d", query, got.status)
		}
	}
}

// Who may know the status is told of its own, and makes nothing be asked.
func TestHealthForOthers(t *testing.T) {
	t.Parallel()
	sc := healthSidecar(t, "  health: {refs: [cred://m/plain, cred://conf//a]}", "")
	ctx, watch := t.Context(), sc.client(tokenOf("watch"))
	if _, err := watch.Health(ctx, true); backend.CodeOf(err) != backend.CodeDenied {
		t.Errorf("it looks now: %v", err)
	}
	if _, err := sc.client("").Health(ctx, true); err != nil {
		t.Fatal(err)
	}
	got, err := watch.Health(ctx, false)
	if err != nil || len(got.Credentials) != 1 || got.Credentials[0].Ref != refOf("cred://m/plain") || len(got.Providers) == 0 {
		t.Errorf("it is told %+v, %v", got, err)
	}
}

func TestHealthOnASchedule(t *testing.T) {
	t.Parallel()
	sc := healthSidecar(t, "  health: {interval: 1s, refs: [cred://m/plain, cred://corp/x]}", "")
	ctx, owner := t.Context(), sc.client("")
	look := func(what string, is func(client.HealthAnswer) bool) {
		t.Helper()
		eventually(t, what, func() bool {
			got, err := owner.Health(ctx, false)
			if err != nil {
				t.Fatal(err)
			}
			return is(got)
		})
	}
	look("it is looked at by itself", func(a client.HealthAnswer) bool { return codes(a)["m"] == backend.CodeOK && codes(a)["gone"] != "" })
	sc.write("gone.json", `{}`)
	look("what is mended is seen", func(a client.HealthAnswer) bool { return codes(a)["gone"] == backend.CodeOK })
	if sc.ran() {
		t.Error("a program was started by itself")
	}
	// A reload makes it another schedule.
	text, err := os.ReadFile(filepath.Join(sc.dir, "credresolve.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	sc.write("credresolve.yaml", strings.Replace(string(text), "interval: 1s", "interval: 1s, executables: true", 1))
	if got := sc.do("POST", "/v1/reload", ""); got.status != http.StatusOK {
		t.Fatalf("status %d: %s", got.status, got.body)
	}
	eventually(t, "programs are started where the configuration says so", sc.ran)
}

// A login is looked at without being refreshed, and one that needs a person is told of.
func TestHealthOfLogins(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	p := oidctest.Start(t, oidctest.Options{Before: func(w http.ResponseWriter, r *http.Request) bool {
		if broken.Load() && r.URL.Path == "/oauth/token" {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"invalid_grant"}`)
			return true
		}
		return false
	}})
	sc := healthSidecar(t, "  health: {}", `  hub: {kind: oauth2, client_id: desk, scopes: [openid, offline_access, profile], issuer: "`+p.Issuer+`"}`)
	ctx, owner := t.Context(), sc.client("")
	logIn(t, p, owner, "hub", "me")
	asked := p.Calls("/oauth/token")
	got, err := owner.Health(ctx, true)
	if err != nil || codes(got)["hub"] != backend.CodeOK || codes(got)["cred://hub/me"] != backend.CodeOK {
		t.Errorf("a login that is good: %+v, %v", got, err)
	}
	if p.Calls("/oauth/token") != asked {
		t.Error("it was refreshed for a look")
	}
	broken.Store(true)
	if _, err := owner.Refresh(ctx, refOf("cred://hub/me")); backend.CodeOf(err) != backend.CodeAuthRequired {
		t.Fatalf("a refresh that is refused: %v", err)
	}
	got, err = owner.Health(ctx, true)
	if err != nil || codes(got)["cred://hub/me"] != backend.CodeAuthRequired {
		t.Errorf("a login that needs a person: %+v, %v", got, err)
	}
	if !strings.Contains(sc.do("GET", "/metrics", "").body, `credresolve_credentials_unhealthy{provider="hub"} 1`) {
		t.Error("the metrics lack it")
	}
}
