package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

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
		{"credresolve get from a file: wall time", 1.5, in(measureStart(wallTime))},
		{"credresolve get from a file: memory", 1.5, in(measureStart(memory))},
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

// used is what one run of a program took.
type used struct{ wall, memory float64 }

func wallTime(u used) float64 { return u.wall }
func memory(u used) float64   { return u.memory }

func runOnce(t *tb, dir string, want string, argv ...string) used {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "PATH=/usr/bin:/bin"}
	var out, msgs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msgs
	wall := timed(func() {
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v: %s", filepath.Base(argv[0]), err, msgs.Bytes())
		}
	})
	if !bytes.Contains(out.Bytes(), []byte(want)) {
		t.Fatalf("%s did not print %q", filepath.Base(argv[0]), want)
	}
	rusage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return used{wall: wall, memory: float64(rusage.Maxrss)}
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

func measureStart(of func(used) float64) func(*meter, *tb) (result, error) {
	return func(m *meter, t *tb) (result, error) {
		ours, floor, dir := build(t, "..", "./cmd/credresolve"), build(t, ".", "./linked"), project(t, 1)
		var a, b []float64
		for range max(20, m.rounds/2) {
			a = append(a, of(runOnce(t, dir, "value", ours, "get", "cred://conf//k0")))
			b = append(b, of(runOnce(t, dir, "", floor)))
		}
		res := result{ours: least(a), baseline: least(b), ratio: least(a) / least(b), format: duration, against: "the same SDKs, doing nothing"}
		if res.ours < 1e6 {
			res.format = func(kib float64) string { return fmt.Sprintf("%.1f MiB", kib/1024) }
		}
		return res, nil
	}
}

func measureRender(m *meter, t *tb) (result, error) {
	ours, dir := build(t, "..", "./cmd/credresolve"), project(t, 1000)
	var a, b []float64
	for range max(20, m.rounds/4) {
		a = append(a, runOnce(t, dir, "k999: ", ours, "render", "many.yaml").wall)
		b = append(b, runOnce(t, dir, "k0: ", ours, "render", "one.yaml").wall)
	}
	return result{ours: least(a), baseline: least(b), ratio: least(a) / least(b), format: duration, against: "render of one ref"}, nil
}

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
