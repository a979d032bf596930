package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	execadapter "github.com/credresolve/credresolve/adapters/exec"
	"github.com/credresolve/credresolve/backend"
)

func commandWorks() []work {
	in := func(f func(*meter, *tb) (result, error)) func(*meter) (result, error) {
		return func(m *meter) (result, error) {
			return withTB(func(t *tb) (result, error) { return f(m, t) })
		}
	}
	return []work{
		{"credresolve get from a file: wall time", 1.5, in(measureStart)},
		{"credresolve get from a file: memory", 1.5, in(measureMemory)},
		{"credresolve render, 1,000 file refs: wall time", 2, in(measureRender)},
		{"exec, batch of 1,000: µs a ref beyond the process", 1, in(measureExec)},
	}
}

// build builds a package and gives the path of its program.
func build(t *tb, dir, pkg string) string {
	out := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", "build", "-o", out, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", pkg, err, msg)
	}
	return out
}

// runOnce runs a program, which must print want, and gives how long that took and what it told on standard error.
func runOnce(t *tb, dir, want string, argv ...string) (wall float64, messages string) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "PATH=/usr/bin:/bin"}
	var out, msgs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msgs
	wall = timed(func() {
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v: %s", filepath.Base(argv[0]), err, msgs.Bytes())
		}
	})
	if !bytes.Contains(out.Bytes(), []byte(want)) {
		t.Fatalf("%s did not print %q", filepath.Base(argv[0]), want)
	}
	return wall, msgs.String()
}

// project makes a folder with a configuration, a file of n secrets and documents with one and with n refs.
func project(t *tb, n int) string {
	dir := t.TempDir()
	var secrets, doc bytes.Buffer
	secrets.WriteString("{")
	for i := range n {
		if i > 0 {
			secrets.WriteString(",")
		}
		fmt.Fprintf(&secrets, "%q: %q", fmt.Sprintf("k%d", i), "value")
		fmt.Fprintf(&doc, "k%d: {provider: conf, id: /k%d}\n", i, i)
	}
	secrets.WriteString("}")
	for name, content := range map[string]string{
		"credresolve.yaml": "version: 1\nproviders:\n  conf: {kind: file, path: secrets.json, mode: json}\n",
		"secrets.json":     secrets.String(),
		"one.yaml":         "k0: {provider: conf, id: /k0}\n",
		"many.yaml":        doc.String(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const floor = "the same SDKs, doing nothing"

func measureStart(m *meter, t *tb) (result, error) {
	ours, linked, dir := build(t, "..", "./cmd/credresolve"), build(t, ".", "./linked"), project(t, 1)
	var a, b []float64
	for range max(40, m.rounds/2) {
		wall, _ := runOnce(t, dir, "value", ours, "get", "cred://conf//k0")
		a = append(a, wall)
		wall, _ = runOnce(t, dir, "", linked)
		b = append(b, wall)
	}
	return result{ours: least(a), baseline: least(b), ratio: least(a) / least(b), format: milliseconds, against: floor}, nil
}

func measureMemory(_ *meter, t *tb) (result, error) {
	ours, linked, peak, dir := build(t, "..", "./cmd/credresolve"), build(t, ".", "./linked"), build(t, ".", "./peak"), project(t, 1)
	kib := func(want string, argv ...string) float64 {
		_, messages := runOnce(t, dir, want, append([]string{peak}, argv...)...)
		lines := strings.Fields(messages)
		n, err := strconv.ParseFloat(lines[len(lines)-1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var a, b []float64
	for range 15 {
		a = append(a, kib("value", ours, "get", "cred://conf//k0"))
		b = append(b, kib("", linked))
	}
	mib := func(kib float64) string { return fmt.Sprintf("%.1f MiB", kib/1024) }
	return result{ours: least(a), baseline: least(b), ratio: least(a) / least(b), format: mib, against: floor}, nil
}

func measureRender(m *meter, t *tb) (result, error) {
	ours, dir := build(t, "..", "./cmd/credresolve"), project(t, 1000)
	var a, b []float64
	for range max(40, m.rounds/4) {
		wall, _ := runOnce(t, dir, "k999: ", ours, "render", "many.yaml")
		a = append(a, wall)
		wall, _ = runOnce(t, dir, "k0: ", ours, "render", "one.yaml")
		b = append(b, wall)
	}
	return result{ours: least(a), baseline: least(b), ratio: least(a) / least(b), format: milliseconds, against: "render of one ref"}, nil
}

func milliseconds(ns float64) string { return fmt.Sprintf("%.1f ms", ns/1e6) }

func measureExec(m *meter, t *tb) (result, error) {
	const refs = 1000
	program := build(t, ".", "./answer")
	store, err := execadapter.New(execadapter.Config{Command: program}, backend.Host{})
	if err != nil {
		return result{}, err
	}
	reqs := make([]backend.Request, refs)
	var question bytes.Buffer
	question.WriteString(`{"protocolVersion":1,"provider":"corp","ids":[`)
	for i := range reqs {
		reqs[i].ID = fmt.Sprintf("id-%d", i)
		if i > 0 {
			question.WriteString(",")
		}
		fmt.Fprintf(&question, "%q", reqs[i].ID)
	}
	question.WriteString("]}")
	var ours, bare []float64
	for range max(20, m.rounds/4) {
		ours = append(ours, timed(func() {
			results, err := store.GetBatch(t.Context(), reqs)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range results {
				if r.Err != nil || r.Credential.Secret.Len() != len(reqs[i].ID) {
					t.Fatalf("id %d: %v", i, r.Err)
				}
			}
		}))
		bare = append(bare, timed(func() {
			cmd := exec.Command(program)
			cmd.Stdin = bytes.NewReader(question.Bytes())
			if out, err := cmd.Output(); err != nil || len(out) == 0 {
				t.Fatalf("the bare process: %v", err)
			}
		}))
	}
	const allowed = 5e3 // ns
	each := (least(ours) - least(bare)) / refs
	return result{ours: each, baseline: allowed, ratio: each / allowed, format: func(x float64) string { return fmt.Sprintf("%.1f µs", x/1e3) }, against: "what is allowed"}, nil
}
