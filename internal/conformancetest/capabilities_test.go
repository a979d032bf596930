package conformancetest

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/conformance"
	"github.com/credresolve/credresolve/conformance/vectors"
)

//go:generate go test -count=1 -run ^TestCapabilities$ -update .

var update = flag.Bool("update", false, "write docs/capabilities.md")

// column is a report, by its name, and what stands above it. Where is the page of its kind.
type column struct{ name, head, where string }

var backends = []column{
	{"memory", "memory", "adapters/memory.md"},
	{"env", "env", "adapters/env.md"},
	{"file-directory", "file: directory", "adapters/file.md"},
	{"file-document", "file: document", "adapters/file.md"},
	{"exec", "exec", "adapters/exec.md"},
	{"vault-kv1", "vault: KV 1", "adapters/vault.md"},
	{"vault-kv2", "vault: KV 2, database", "adapters/vault.md"},
	{"awssm", "awssm", "adapters/awssm.md"},
	{"keychain-file", "keychain: file", "adapters/keychain.md"},
	{"keychain-secret-service", "keychain: Secret Service", "adapters/keychain.md"},
	{"keychain-pass", "keychain: pass", "adapters/keychain.md"},
	{"authprofiles-file", "authprofiles: file", "adapters/authprofiles.md"},
	{"authprofiles-database", "authprofiles: database", "adapters/authprofiles.md"},
	{"oauth2", "oauth2", "adapters/oauth2.md"},
	{"sidecar", "sidecar", "adapters/sidecar.md"},
	{"static", "static", "adapters/static.md"},
	{"sts", "sts", "adapters/sts.md"},
}

var executables = []column{
	{"exec-python", "Python", "../examples/adapters/README.md"},
	{"exec-shell", "shell", "../examples/adapters/README.md"},
	{"exec-node", "Node.js", "../examples/adapters/README.md"},
}

// TestCapabilities holds docs/capabilities.md to the reports, and the reports to the cases and vectors that there are.
func TestCapabilities(t *testing.T) {
	t.Parallel()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "docs/conformance")
	var cases, rules []conformance.Result
	for _, c := range conformance.Cases() {
		cases = append(cases, conformance.Result{Name: c.Name, Rule: c.Rule, Capability: c.Capability})
	}
	vs, err := vectors.Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vs {
		rules = append(rules, conformance.Result{Name: v.Name, Rule: v.Rule, Capability: v.Capability})
	}
	var out bytes.Buffer
	out.WriteString(preface)
	out.WriteString("\n## Backends\n\n")
	table(&out, backends, reports(t, dir, backends, cases))
	out.WriteString("\n## Executables\n\nThe [examples](../examples/adapters/README.md), held to the [vectors](../conformance/vectors/README.md).\n\n")
	table(&out, executables, reports(t, dir, executables, rules))
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != len(backends)+len(executables) {
		t.Errorf("%d files in docs/conformance for %d columns, %v", len(files), len(backends)+len(executables), err)
	}
	path := filepath.Join(root, "docs/capabilities.md")
	if *update {
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(path); err != nil || !bytes.Equal(have, out.Bytes()) {
		t.Errorf("docs/capabilities.md is not what the reports in docs/conformance say (%v): run make generate", err)
	}
}

const preface = `# What each kind of store keeps

Made by ` + "`make generate`" + ` from the reports in [conformance](conformance), which ` + "`scripts/capabilities.sh`" + ` writes: those of the
[suite](writing-an-adapter.md) over every adapter and its real store. A test fails when this page is stale, or an adapter
does otherwise than its report says.

✓ every rule of the group is kept. 3/5: three of five are kept, the others do not apply to this store, or its test cannot bring
them about; the reasons stand below the table. Empty: none applies. No rule is broken.
`

// reports reads the reports of columns, and holds each to want: the names, rules and capabilities of a whole run, none failed.
func reports(t *testing.T, dir string, columns []column, want []conformance.Result) []conformance.Report {
	t.Helper()
	out := make([]conformance.Report, len(columns))
	for i, c := range columns {
		r, err := Read(filepath.Join(dir, c.name+".json"))
		if err != nil {
			t.Fatalf("%v: run scripts/capabilities.sh", err)
		}
		if !slices.EqualFunc(r.Results, want, func(a, b conformance.Result) bool {
			return a.Name == b.Name && a.Rule == b.Rule && a.Capability == b.Capability
		}) || r.Version != conformance.ReportVersion {
			t.Errorf("docs/conformance/%s.json is not of the rules that there are now: run scripts/capabilities.sh", c.name)
		}
		if r.Count(conformance.Fail)+r.Count(conformance.Blocked) > 0 {
			t.Errorf("docs/conformance/%s.json has rules that are broken", c.name)
		}
		out[i] = r
	}
	return out
}

func table(out *bytes.Buffer, columns []column, rs []conformance.Report) {
	group := func(x conformance.Result) string {
		subject, _, _ := strings.Cut(x.Name, "/")
		if x.Capability != "" && x.Capability != subject {
			return subject + ": " + x.Capability
		}
		return subject
	}
	var groups []string
	for _, x := range rs[0].Results {
		if g := group(x); !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	out.WriteString("| rules |")
	for _, c := range columns {
		fmt.Fprintf(out, " [%s](%s) |", c.head, c.where)
	}
	out.WriteString("\n|" + strings.Repeat("---|", len(columns)+1) + "\n")
	for _, g := range groups {
		fmt.Fprintf(out, "| %s |", g)
		for _, r := range rs {
			passed, all := 0, 0
			for _, x := range r.Results {
				if group(x) == g {
					all++
					if x.Outcome == conformance.Pass {
						passed++
					}
				}
			}
			switch passed {
			case 0:
				out.WriteString(" |")
			case all:
				out.WriteString(" ✓ |")
			default:
				fmt.Fprintf(out, " %d/%d |", passed, all)
			}
		}
		out.WriteString("\n")
	}
	for i, r := range rs {
		fmt.Fprintf(out, "\n### %s\n\n%d of %d rules apply, and are kept.", columns[i].head, r.Count(conformance.Pass), len(r.Results))
		names := make(map[string][]string)
		var reasons []string
		for _, x := range r.Results {
			if x.Outcome == conformance.Skip {
				reason := strings.Join(x.Reasons, "; ")
				if names[reason] == nil {
					reasons = append(reasons, reason)
				}
				names[reason] = append(names[reason], "`"+x.Name+"`")
			}
		}
		if len(reasons) > 0 {
			out.WriteString(" The others:\n\n| why not | rules |\n|---|---|\n")
		} else {
			out.WriteString("\n")
		}
		for _, reason := range reasons {
			fmt.Fprintf(out, "| %s | %s |\n", strings.ReplaceAll(reason, "|", "\\|"), strings.Join(names[reason], ", "))
		}
	}
}
