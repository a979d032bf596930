package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/credresolve/credresolve/internal/mototest"
	"github.com/credresolve/credresolve/internal/secretservicetest"
	"github.com/credresolve/credresolve/internal/vaulttest"
)

// notRun are the commands on the pages that no test runs, each with the reason.
var notRun = map[string]string{
	"make bench\n": "it takes minutes, and an idle machine",
	"go test -tags soak -run TestSoak -v -timeout 30m ./cmd/credresolve -soak 10m\n": "it takes minutes",
	"make demo\n":                    "TestReadmeShowsWhatTheDemonstrationPrints does",
	"go test ./...\n":                "this is it",
	"credresolve secretref reload\n": "it needs a running gateway of OpenClaw",
	"go install github.com/credresolve/credresolve/cmd/credresolve@latest\n": "it needs a published version, and the network",
	"credresolve trust credresolve.yaml\n":                                   "it asks on a terminal; testdata/script/trust.txtar runs it",
	"secret-tool store --label=\"API key\" service credresolve account api-key\n" +
		"security add-generic-password -s credresolve -a api-key -w\n" +
		"cmdkey /generic:keyring:credresolve:api-key /user:me /pass\n" +
		"pass insert credresolve/api-key\n": "they ask on a terminal, on three operating systems",
}

// needs are the servers that the commands of a page reach, and what else there must be for them.
var needs = map[string][]string{
	"README.md":                 {"vault"},
	"docs/cli.md":               {"vault"},
	"docs/run.md":               {"vault"},
	"docs/drop-in.md":           {"ports"},
	"docs/adapters/awssm.md":    {"moto"},
	"docs/adapters/vault.md":    {"vault"},
	"docs/adapters/keychain.md": {"secret service"},
}

// programs are what the commands of the pages need beside credresolve and a shell, by what such a command holds, each with
// how to get it.
var programs = map[string][2]string{
	"openssl ":          {"openssl", "apt-get install openssl"},
	"make ":             {"make", "apt-get install make"},
	"dbus-run-session ": {"dbus-run-session", "apt-get install dbus"},
	"adapter.py":        {"python3", "apt-get install python3"},
	"adapter.sh":        {"jq", "apt-get install jq"},
	"adapter.js":        {"node", "apt-get install nodejs"},
	"go -C ":            {"go", "https://go.dev/dl"},
	"git apply ":        {"git", "apt-get install git"},
	"jq ":               {"jq", "apt-get install jq"},
	"curl ":             {"curl", "apt-get install curl"},
}

// Every command on the pages runs, and prints what is shown. A block of language sh or bash must succeed; in one of
// language console each line that starts with "$ " is a command, and what follows is its output, standard error included.
//
// The commands of a page run one after another in a directory, prepared by testdata/docs/setup.sh and, where there is one,
// by a script of the page's name. What a page names outside of it, such as /etc/app, is in the directory.
func TestDocsCommandsRun(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("needs a POSIX system: run it on Linux or macOS")
	}
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("needs bash: apt-get install bash")
	}
	unused := make(map[string]bool)
	for text := range notRun {
		unused[text] = true
	}
	for _, p := range pages(t) {
		blocks, _ := p.fences(t)
		blocks = slices.DeleteFunc(blocks, func(b fence) bool {
			delete(unused, b.text)
			return notRun[b.text] != "" || !slices.Contains([]string{"sh", "bash", "console"}, b.language)
		})
		if len(blocks) == 0 {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			for mark, program := range programs {
				used := slices.ContainsFunc(blocks, func(b fence) bool { return strings.Contains(b.text, mark) })
				if _, err := exec.LookPath(program[0]); err != nil && used {
					t.Skip("needs " + program[0] + ": " + program[1])
				}
			}
			m := newMachine(t, p)
			for _, b := range blocks {
				m.run(fmt.Sprintf("%s:%d", p.name, b.line), b)
			}
		})
	}
	for text := range unused {
		t.Errorf("notRun has a block that no page has: %q", text)
	}
}

// machine is where the commands of a page run.
type machine struct {
	t       *testing.T
	dir     string
	env     []string
	outside *strings.Replacer
}

func newMachine(t *testing.T, p page) *machine {
	t.Helper()
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	repository, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, dir: dir, env: []string{
		"REPOSITORY=" + repository,
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "CREDRESOLVE_CONFIG=" + filepath.Join(dir, "credresolve.yaml"), "LC_ALL=C",
		"GORACE=atexit_sleep_ms=0", // a second for each command otherwise
		"API_KEY=from-the-environment",
		"CREDRESOLVE_SOCKET=" + filepath.Join(dir, "run/user/1000/credresolve/sock"),
	}}
	for _, name := range []string{"GOCACHE", "GOMODCACHE"} { // those of an empty home would be filled first
		if out, err := exec.Command("go", "env", name).Output(); err == nil {
			m.env = append(m.env, name+"="+strings.TrimSpace(string(out)))
		}
	}
	outside := []string{"/etc/app/", dir + "/", "/opt/corp", dir + "/corp", "/run/", dir + "/run/"}
	for _, need := range needs[p.name] {
		switch need {
		case "ports": // those of the page may be in use
			for _, address := range []string{"127.0.0.1:2773", "127.0.0.1:8210", "127.0.0.1:8271"} {
				outside = append(outside, address, freeAddress(t))
			}
		case "vault":
			s := vaulttest.StartOwn(t)
			m.env = append(m.env, "VAULT_ADDR="+s.Addr, "VAULT_TOKEN="+s.Token, "SECRET_ID="+prepareVault(t, s))
			outside = append(outside, "https://vault.example:8200", s.Addr)
		case "moto":
			m.env = append(m.env, "AWS_ENDPOINT_URL_SECRETS_MANAGER="+mototest.New(t).URL, "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_EC2_METADATA_DISABLED=true")
		case "secret service":
			m.env = append(m.env, "DBUS_SESSION_BUS_ADDRESS="+secretservicetest.Start(t).Address)
		}
	}
	m.outside = strings.NewReplacer(outside...)
	for _, d := range []string{home, filepath.Join(dir, "run/app"), filepath.Join(dir, "run/keys"), filepath.Join(dir, "run/user/1000"), filepath.Join(dir, "corp")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// The configuration that the page ends with, for the script that prepares the page.
	blocks, _ := p.fences(t)
	for _, b := range slices.Backward(blocks) {
		if b.section == "Example" && strings.Contains(b.text, "providers:") {
			m.write("example.yaml", m.outside.Replace(b.text))
			break
		}
	}
	own := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(p.name, "docs/"), "adapters/"), ".md")
	for _, name := range []string{"setup", strings.ReplaceAll(own, "/", "-")} {
		script, err := os.ReadFile(filepath.Join("testdata/docs", name+".sh"))
		if os.IsNotExist(err) && name != "setup" {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if out, err := m.shell("bash", string(script)); err != nil {
			t.Fatalf("testdata/docs/%s.sh: %v\n%s", name, err, out)
		}
	}
	return m
}

// freeAddress gives a loopback address at which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// prepareVault mounts kv/ and lets the AppRole that docs/adapters/vault.md names log in; it gives the secret id.
func prepareVault(t *testing.T, s *vaulttest.Server) string {
	t.Helper()
	client := s.Client(t)
	if err := client.Sys().MountWithContext(t.Context(), "kv", &api.MountInput{Type: "kv", Options: map[string]string{"version": "2"}}); err != nil {
		t.Fatal(err)
	}
	for range 100 { // a new mount of version 2 upgrades itself for a moment, and answers 400
		resp, err := client.Logical().ReadRawWithContext(t.Context(), "kv/config")
		if resp != nil {
			resp.Body.Close()
		}
		if err == nil || resp != nil && resp.StatusCode != http.StatusBadRequest {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := client.Sys().PutPolicyWithContext(t.Context(), "app", `path "kv/*" { capabilities = ["read"] }`); err != nil {
		t.Fatal(err)
	}
	if err := client.Sys().EnableAuthWithOptionsWithContext(t.Context(), "approle", &api.EnableAuthOptions{Type: "approle"}); err != nil {
		t.Fatal(err)
	}
	s.Write(t, "auth/approle/role/app", map[string]any{"token_policies": "app"})
	s.Write(t, "auth/approle/role/app/role-id", map[string]any{"role_id": "59d6d1ca-47bb-4e7e-a40b-8be3bc5a0ba8"})
	secretID, _ := s.Write(t, "auth/approle/role/app/secret-id", nil)["secret_id"].(string)
	return secretID
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// shell runs text as a script of the machine and gives what it prints.
func (m *machine) shell(shell, text string) (string, error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, shell, "-eu", "-c", "umask 077\n"+text)
	cmd.Dir, cmd.Env = m.dir, m.env
	cmd.WaitDelay = time.Second // for what holds the pipe longer than the command runs
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m *machine) run(where string, b fence) {
	m.t.Helper()
	text := m.outside.Replace(b.text)
	if b.language != "console" {
		if out, err := m.shell(b.language, text); err != nil {
			m.t.Errorf("%s: %v\n%s\nprints\n%s", where, err, text, out)
		}
		return
	}
	first, rest, _ := strings.Cut(text, "$ ")
	if first != "" {
		m.t.Errorf("%s: a block of language console starts with \"$ \"", where)
	}
	for _, part := range strings.Split("\n"+rest, "\n$ ") {
		command, want, _ := strings.Cut(strings.TrimPrefix(part, "\n"), "\n")
		if got, err := m.shell("sh", command); !same(got, want) {
			m.t.Errorf("%s: %s\nprints (%v)\n%s\nthe page shows\n%s", where, command, err, got, want)
		}
	}
}

var (
	anyDigest = regexp.MustCompile(`\b[0-9a-f]{32}\b`)
	anyTime   = regexp.MustCompile(`\b20\d\d-\d\d-\d\dT[0-9:.]+Z`)
)

// same compares what a command prints with what the page shows: digests and times differ each time, and JSON is compared
// as such.
func same(got, want string) bool {
	for _, s := range []*string{&got, &want} {
		*s = strings.TrimSpace(anyTime.ReplaceAllString(anyDigest.ReplaceAllString(*s, "DIGEST"), "TIME"))
	}
	if got == want {
		return true
	}
	var a, b any
	return json.Unmarshal([]byte(got), &a) == nil && json.Unmarshal([]byte(want), &b) == nil && reflect.DeepEqual(a, b)
}
