package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

func openClawWorks() []work {
	in := func(f func(*meter, *tb) (result, error)) func(*meter) (result, error) {
		return func(m *meter) (result, error) {
			return withTB(func(t *tb) (result, error) { return f(m, t) })
		}
	}
	return []work{
		{"openclaw-exec, 500 refs in a Vault 5 ms away: wall time", 1, in(measureOpenClaw)},
		{"openclaw-exec, 500 refs that a sidecar has: wall time", 0.25, in(measureOpenClawSidecar)},
	}
}

const openClawRefs = 500

// openClaw is a home with a configuration for a distant Vault that has a secret for each id of a request.
type openClaw struct {
	vault   *distantVault
	program string
	dir     string
	request []byte
}

func newOpenClaw(t *tb) *openClaw {
	o := &openClaw{vault: newDistantVault(t), program: build(t, "..", "./cmd/credresolve"), dir: t.TempDir()}
	client := o.vault.server.Client(t)
	ids := make([]string, openClawRefs)
	for i := range ids {
		if _, err := client.KVv2("secret").Put(t.Context(), fmt.Sprintf("openclaw-%d", i), map[string]any{"key": fmt.Sprintf("value-%d", i)}); err != nil {
			t.Fatal(err)
		}
		ids[i] = fmt.Sprintf("app/openclaw-%d#key", i)
	}
	request, err := json.Marshal(map[string]any{"protocolVersion": 1, "provider": "credresolve", "ids": ids})
	if err != nil {
		t.Fatal(err)
	}
	o.request = request
	for name, content := range map[string]string{
		"credresolve.yaml": fmt.Sprintf("version: 1\nproviders:\n  app: {kind: vault, address: %q, mount: secret, kv_version: 2, auth: {method: token_file, token_file: token}}\n", o.vault.url),
		"token":            o.vault.server.Token,
	} {
		if err := os.WriteFile(filepath.Join(o.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// command is the program with the environment of this home.
func (o *openClaw) command(args ...string) *exec.Cmd {
	cmd := exec.Command(o.program, append([]string{"--config", filepath.Join(o.dir, "credresolve.yaml")}, args...)...)
	cmd.Dir, cmd.Env = o.dir, []string{"HOME=" + o.dir, "CREDRESOLVE_SOCKET=" + filepath.Join(o.dir, "run", "sock")}
	return cmd
}

// start answers the request once and gives how long that took.
func (o *openClaw) start(t *tb) float64 {
	cmd := o.command("openclaw-exec")
	cmd.Stdin = bytes.NewReader(o.request)
	var out []byte
	took := timed(func() {
		var err error
		if out, err = cmd.Output(); err != nil {
			t.Fatalf("openclaw-exec: %v", err)
		}
	})
	if n := bytes.Count(out, []byte(`"value-`)); n != openClawRefs {
		t.Fatalf("%d values of %d", n, openClawRefs)
	}
	return took
}

func measureOpenClaw(m *meter, t *tb) (result, error) {
	o := newOpenClaw(t)
	var ours []float64
	for range max(5, m.rounds/40) {
		ours = append(ours, o.start(t))
	}
	return ofASecond(least(ours)), nil
}

func measureOpenClawSidecar(m *meter, t *tb) (result, error) {
	o := newOpenClaw(t)
	sidecar := o.command("serve", "--audit", "off")
	if err := sidecar.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sidecar.Process.Signal(os.Interrupt)
		_ = sidecar.Wait()
	})
	for range 500 {
		if o.command("status").Run() == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	o.start(t)
	before := o.vault.reads.Load()
	var ours []float64
	for range max(20, m.rounds/8) {
		ours = append(ours, o.start(t))
	}
	if n := o.vault.reads.Load() - before; n != 0 {
		t.Fatalf("%d reads of the store, though the sidecar has what is asked for", n)
	}
	return ofASecond(least(ours)), nil
}

// ofASecond compares with one second, which is what a gateway may be kept waiting.
func ofASecond(ns float64) result {
	second := float64(time.Second)
	return result{ours: ns, baseline: second, ratio: ns / second, format: milliseconds, against: "one second"}
}
