//go:build unix

package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// OpenClaw itself keeps a profile in its database, which the kind authprofiles reads without touching it; and carries out the
// plan that lets the profile point here, after which no plain secret is left.
func TestProfilesOfOpenClawItself(t *testing.T) {
	t.Parallel()
	program := os.Getenv("CREDRESOLVE_OPENCLAW") // as scripts/openclaw-setup.sh prints it
	if program == "" {
		t.Skip("SKIP: CREDRESOLVE_OPENCLAW names no OpenClaw, so its database of profiles is not read")
	}
	u := newUser(t)
	state := filepath.Join(u.dir, "claw")
	u.env = append(u.env, "OPENCLAW_STATE_DIR="+state, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"))
	u.write("claw/openclaw.json", `{secrets: {providers: {credresolve: {source: "exec", command: "`+u.dir+`/provider"}}}}`)
	u.write("credresolve.yaml", "version: 1\nproviders:\n  claw: {kind: authprofiles, state_dir: "+state+"}\n")
	u.write("provider", "#!/bin/sh\ncat >/dev/null\necho '{\"protocolVersion\": 1, \"values\": {\"app/key\": \"new-c4nary\"}}'\n")
	if err := os.Chmod(filepath.Join(u.dir, "provider"), 0o700); err != nil {
		t.Fatal(err)
	}
	openclaw := func(input string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Dir, cmd.Env, cmd.Stdin = u.dir, u.env, strings.NewReader(input)
		var msg strings.Builder
		cmd.Stderr = &msg
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("openclaw %s: %v\n%s%s", strings.Join(args, " "), err, out, msg.String())
		}
		return string(out)
	}
	openclaw("sk-old-c4nary-0123456789\n", "models", "auth", "paste-api-key", "--provider", "openai")
	got := u.run("get", "cred://claw/openai:manual")
	if strings.TrimSpace(got.stdout) != "sk-old-c4nary-0123456789" {
		t.Fatalf("the profile that OpenClaw keeps: status %d, %s", got.status, got.stderr)
	}
	for _, args := range [][]string{nil, {"--write-through"}} {
		got := u.run(append([]string{"secretref", "install", "--profile", "openai:manual", "--ref", "cred://claw/openai:other", "--unchecked"}, args...)...)
		if got.status != 1 || !strings.Contains(got.stderr, "keeps its auth profiles in the database") {
			t.Errorf("%v: status %d, %s", args, got.status, got.stderr)
		}
	}
	got = u.run("secretref", "install", "--profile", "openai:manual", "--ref", "app/key", "--plan-out", "plan.json", "--output", "json")
	var answer struct{ Way, Next string }
	if err := json.Unmarshal([]byte(got.stdout), &answer); err != nil || answer.Way != "planned" {
		t.Fatalf("status %d, %s%s", got.status, got.stdout, got.stderr)
	}
	for step := range strings.SplitSeq(answer.Next, " && ") {
		openclaw("", strings.Fields(step)[1:]...)
	}
	if report := openclaw("", "secrets", "audit", "--allow-exec", "--json"); !strings.Contains(report, `"status": "clean"`) || !strings.Contains(report, `"refsChecked": 1`) {
		t.Errorf("OpenClaw's audit says %s", report)
	}
	if got := u.run("get", "cred://claw/openai:manual"); !strings.Contains(got.stderr, "exec:credresolve:app/key") || got.status != 5 {
		t.Errorf("the profile that points here: status %d, %s", got.status, got.stderr)
	}
}
