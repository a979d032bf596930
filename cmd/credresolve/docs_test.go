package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	osexec "os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/adapters/authprofiles"
	"github.com/credresolve/credresolve/adapters/awssm"
	"github.com/credresolve/credresolve/adapters/env"
	"github.com/credresolve/credresolve/adapters/exec"
	"github.com/credresolve/credresolve/adapters/file"
	"github.com/credresolve/credresolve/adapters/keychain"
	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/adapters/sidecar"
	"github.com/credresolve/credresolve/adapters/static"
	"github.com/credresolve/credresolve/adapters/sts"
	"github.com/credresolve/credresolve/adapters/vault"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/credref/document"
)

// root is the folder of the repository, to which the names of pages belong.
const root = "../.."

// page is a page for people, in Markdown.
type page struct {
	name  string // as in docs/cli.md
	lines []string
}

// fence is a fenced block of a page.
type fence struct {
	line     int // of its first line of text
	section  string
	language string
	text     string
}

// pages gives every page, by patterns since a checkout may hold more than the repository does.
func pages(t *testing.T) []page {
	t.Helper()
	names := []string{"README.md", "CONTRIBUTING.md", "SECURITY.md"}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md", "examples/*/*.md", "conformance/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("no page matches %s: %v", pattern, err)
		}
		for _, path := range found {
			names = append(names, filepath.ToSlash(path[len(root)+1:]))
		}
	}
	out := make([]page, 0, len(names))
	for _, name := range names {
		out = append(out, read(t, name))
	}
	return out
}

func read(t *testing.T, name string) page {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return page{name, strings.Split(string(text), "\n")}
}

// fences gives the fenced blocks of p, and outside its lines without them, where a fence leaves an empty line.
func (p page) fences(t *testing.T) (blocks []fence, outside []string) {
	t.Helper()
	var section string
	var open *fence
	for i, line := range p.lines {
		mark, isMark := strings.CutPrefix(line, "```")
		switch {
		case isMark && open == nil:
			open = &fence{line: i + 2, section: section, language: mark}
		case isMark:
			if mark != "" {
				t.Errorf("%s:%d: a fence ends with a language", p.name, i+1)
			}
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		case strings.HasPrefix(line, "#"):
			section = strings.TrimSpace(strings.TrimLeft(line, "#"))
		}
		if isMark || open != nil {
			line = ""
		}
		outside = append(outside, line)
	}
	if open != nil {
		t.Errorf("%s:%d: a fence does not end", p.name, open.line)
	}
	return blocks, outside
}

// cells gives the rows of the first table in a section of p whose first head is that, or any where head is empty; without
// the rule between head and body. The section without a name is what comes before the first.
func (p page) cells(t *testing.T, section, head string) (rows [][]string) {
	t.Helper()
	_, outside := p.fences(t)
	in := section == ""
	for _, line := range outside {
		if heading, is := strings.CutPrefix(line, "## "); is {
			in = heading == section
		}
		if !in || !strings.HasPrefix(line, "|") {
			if len(rows) > 0 && (head == "" || rows[0][0] == head) {
				break
			}
			rows = nil
			continue
		}
		if strings.HasPrefix(line, "|--") {
			continue
		}
		row := strings.Split(strings.Trim(line, "|"), "|")
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		rows = append(rows, row)
	}
	if len(rows) < 2 {
		t.Fatalf("%s has no table %q in the section %q", p.name, head, section)
	}
	return rows
}

var code = regexp.MustCompile("`([^`]+)`")

// keys gives what stands as code in the first cells of rows.
func keys(rows [][]string) (names []string) {
	for _, row := range rows {
		for _, m := range code.FindAllStringSubmatch(row[0], -1) {
			names = append(names, m[1])
		}
	}
	slices.Sort(names)
	return names
}

func TestDocsMarkEachFence(t *testing.T) {
	t.Parallel()
	known := []string{"sh", "bash", "console", "yaml", "json", "toml", "env", "text", "go"}
	for _, p := range pages(t) {
		blocks, _ := p.fences(t)
		for _, b := range blocks {
			if !slices.Contains(known, b.language) {
				t.Errorf("%s:%d: a fence has the language %q, known are %v", p.name, b.line, b.language, known)
			}
		}
	}
}

// Every configuration shown is one that the program takes, and every document one whose refs it finds.
func TestDocsShowWhatCanBeRead(t *testing.T) {
	t.Parallel()
	var configurations, documents int
	for _, p := range pages(t) {
		blocks, _ := p.fences(t)
		for _, b := range blocks {
			where := fmt.Sprintf("%s:%d", p.name, b.line)
			switch {
			case b.language == "yaml" && strings.Contains(b.text, "providers:"):
				configurations++
				openExample(t, where, b.text)
			case slices.Contains([]string{"yaml", "json", "toml", "env"}, b.language):
				documents++
				if _, err := document.Parse(where, []byte(b.text), document.Format(b.language), document.Options{}); err != nil {
					t.Error(err)
				}
			}
			if b.language == "json" && !json.Valid([]byte(b.text)) {
				t.Errorf("%s: no JSON", where)
			}
		}
	}
	if configurations < 10 || documents < 5 {
		t.Errorf("found %d configurations and %d documents: the pages are not read", configurations, documents)
	}
}

func openExample(t *testing.T, where, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credresolve.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := config.Load(path, kinds())
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	if w := f.Warnings(); len(w) > 0 {
		t.Errorf("%s: %v", where, w)
	}
	r, err := f.Open(config.Options{LookupEnv: func(string) (string, bool) { return "", false }})
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	if err := r.Close(); err != nil {
		t.Errorf("%s: %v", where, err)
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	unnamed = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchor gives the name that GitHub gives to a heading.
func anchor(heading string) string {
	return strings.ReplaceAll(unnamed.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

func TestDocsLinkToWhatThereIs(t *testing.T) {
	t.Parallel()
	linked := make(map[string]bool)
	for _, p := range pages(t) {
		_, outside := p.fences(t)
		for i, line := range outside {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				if strings.Contains(m[1], "://") {
					continue
				}
				path, fragment, _ := strings.Cut(m[1], "#")
				target := p.name
				if path != "" {
					target = filepath.ToSlash(filepath.Join(filepath.Dir(p.name), filepath.FromSlash(path)))
				}
				if p.name == "README.md" {
					linked[target] = true
				}
				if _, err := os.Stat(filepath.Join(root, target)); err != nil {
					t.Errorf("%s:%d: %s is not there", p.name, i+1, target)
				} else if fragment != "" {
					_, lines := read(t, target).fences(t)
					if !slices.ContainsFunc(lines, func(l string) bool {
						return strings.HasPrefix(l, "#") && anchor(strings.TrimLeft(l, "# ")) == fragment
					}) {
						t.Errorf("%s:%d: %s has no heading %q", p.name, i+1, target, fragment)
					}
				}
			}
		}
	}
	for _, p := range pages(t) {
		if p.name != "README.md" && !linked[p.name] {
			t.Errorf("README.md does not link to %s", p.name)
		}
	}
}

// Every kind has a page of the same form, whose table of settings is that of its Config.
func TestDocsOfEveryKind(t *testing.T) {
	t.Parallel()
	want := []string{"Ids", "Configuration", "Permissions", "Errors", "Limits", "Example"}
	names := kinds().Names()
	for _, name := range names {
		p := read(t, "docs/adapters/"+name+".md")
		_, outside := p.fences(t)
		var got []string
		for _, line := range outside {
			if heading, is := strings.CutPrefix(line, "## "); is {
				got = append(got, heading)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s has the sections %v, want %v", p.name, got, want)
		}
		k, err := kinds().Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		if documented, settings := keys(p.cells(t, "Configuration", "key")[1:]), leaves("", reflect.TypeOf(k.NewConfig()).Elem()); !slices.Equal(documented, settings) {
			t.Errorf("%s documents %v, the settings are %v", p.name, documented, settings)
		}
		for _, row := range p.cells(t, "Errors", "")[1:] {
			m := code.FindStringSubmatch(row[1])
			if m == nil || !isCode(m[1]) {
				t.Errorf("%s: %q is no code of an error", p.name, row[1])
			}
		}
	}
	list := code.FindAllStringSubmatch(read(t, "docs/configuration.md").cells(t, "Every provider", "key")[1][2], -1)
	documented := make([]string, 0, len(list))
	for _, m := range list {
		documented = append(documented, m[1])
	}
	if slices.Sort(documented); !slices.Equal(documented, names) {
		t.Errorf("docs/configuration.md lists the kinds %v, there are %v", documented, names)
	}
}

func isCode(s string) bool {
	c := backend.Code(s)
	return c == backend.CodeInternal || c.ExitStatus() != backend.CodeInternal.ExitStatus()
}

// leaves gives the settings of t as a page names them: auth.method. A map has any keys and is one setting.
func leaves(path string, t reflect.Type) (names []string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[backend.Source]() || t == reflect.TypeFor[credref.Ref]() {
		return []string{path}
	}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if path != "" {
			name = path + "." + name
		}
		names = append(names, leaves(name, t.Field(i).Type)...)
	}
	slices.Sort(names)
	return names
}

// A table of the settings that all providers share may name a group of them, such as cache, in the place of each.
func TestDocsNameEverySharedSetting(t *testing.T) {
	t.Parallel()
	file, common := config.Types()
	for _, table := range []struct {
		page, section, path string
		typ                 reflect.Type
	}{
		{"docs/configuration.md", "Top level", "", file},
		{"docs/configuration.md", "Every provider", "", common},
		{"docs/sidecar.md", "Settings", "serve", reflect.TypeFor[config.Serve]()},
	} {
		p, section := read(t, table.page), table.section
		documented, settings := keys(p.cells(t, section, "key")[1:]), leaves(table.path, table.typ)
		for _, s := range settings {
			if !slices.ContainsFunc(documented, func(d string) bool { return s == d || strings.HasPrefix(s, d+".") }) {
				t.Errorf("%s, %s: %s is missing", p.name, section, s)
			}
		}
		for _, d := range documented {
			if !slices.ContainsFunc(settings, func(s string) bool { return s == d || strings.HasPrefix(s, d+".") }) {
				t.Errorf("%s, %s: there is no %s", p.name, section, d)
			}
		}
	}
}

func TestDocsNameEveryExitStatus(t *testing.T) {
	t.Parallel()
	codes := make(map[string]string)
	for _, row := range read(t, "docs/cli.md").cells(t, "For every command", "status") {
		for _, m := range code.FindAllStringSubmatch(row[1], -1) {
			codes[m[1]] = row[0]
		}
	}
	for _, c := range []backend.Code{
		backend.CodeInternal, backend.CodeUsage, backend.CodeInvalidConfig, backend.CodeNotFound, backend.CodeDenied, backend.CodeInvalidID,
		backend.CodeFieldRequired, backend.CodeUnsupported, backend.CodeUnavailable, backend.CodeThrottled, backend.CodeLocked,
		backend.CodeAuthRequired, backend.CodeExpired, backend.CodeConflict, backend.CodeTimeout, backend.CodeCanceled,
	} {
		if got := codes[string(c)]; got != fmt.Sprint(c.ExitStatus()) {
			t.Errorf("docs/cli.md gives %s the status %q, it is %d", c, got, c.ExitStatus())
		}
	}
}

// The table of kinds in the README is what the adapters can do.
func TestReadmeTableOfKinds(t *testing.T) {
	t.Parallel()
	host := backend.Host{StateDir: t.TempDir(), LookupEnv: func(string) (string, bool) { return "", false }}
	secret := backend.Literal(backend.NewSecretString("x"))
	stores := map[string]func() (backend.Backend, error){
		"authprofiles": func() (backend.Backend, error) { return authprofiles.New(authprofiles.Config{}, host) },
		"awssm":        func() (backend.Backend, error) { return awssm.New(awssm.Config{Region: "eu-west-1"}, host) },
		"env":          func() (backend.Backend, error) { return env.New(env.Config{Allow: []string{"A"}}, host) },
		"exec": func() (backend.Backend, error) {
			return exec.New(exec.Config{Command: filepath.Join(t.TempDir(), "x")}, host)
		},
		"file": func() (backend.Backend, error) { return file.New(file.Config{Path: "x"}, host) },
		"keychain": func() (backend.Backend, error) {
			return keychain.New(keychain.Config{Backend: "file", Path: t.TempDir(), Password: secret}, host)
		},
		"oauth2": func() (backend.Backend, error) {
			return oauth2.New(oauth2.Config{Issuer: "https://login.example", ClientID: "c1"}, host)
		},
		"memory":  func() (backend.Backend, error) { return memory.New(memory.Config{}) },
		"sidecar": func() (backend.Backend, error) { return sidecar.New(sidecar.Config{}, host) },
		"static":  func() (backend.Backend, error) { return static.New(static.Config{}, host) },
		"sts":     func() (backend.Backend, error) { return sts.New(sts.Config{Region: "eu-west-1"}, host) },
		"vault": func() (backend.Backend, error) {
			return vault.New(vault.Config{Address: "http://127.0.0.1:1", Auth: vault.Auth{Token: secret}}, host)
		},
	}
	rows := read(t, "README.md").cells(t, "Kinds of stores", "kind")
	head := rows[0]
	listed := make([]string, 0, len(rows))
	for _, row := range rows[1:] {
		name := code.FindStringSubmatch(row[0])[1]
		listed = append(listed, name)
		if stores[name] == nil {
			t.Errorf("the kind %s of the table is not tested", name)
			continue
		}
		b, err := stores[name]()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		caps := backend.Capabilities(b)
		can := map[string]bool{"leases": slices.Contains(caps, "renew") && slices.Contains(caps, "revoke"), "versions": backend.Describe(b).Versions}
		for _, c := range []string{"batch", "check", "write", "list"} {
			can[c] = slices.Contains(caps, c)
		}
		for i, column := range head[2:] {
			is, known := can[column]
			if cell := row[i+2]; !known || (cell != "") != is {
				t.Errorf("%s, %s: the table says %q, the adapter %v", name, column, cell, is)
			}
			if w, err := backend.AsWriter(b); err == nil && column == "write" {
				want := map[backend.Strength]string{backend.StrengthStore: "compare-and-swap", backend.StrengthHost: "compare under a host lock"}[w.Strength()]
				if row[i+2] != want {
					t.Errorf("%s: the table says %q of writing, the adapter %q", name, row[i+2], w.Strength())
				}
			}
		}
		if c, ok := b.(io.Closer); ok {
			if err := c.Close(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if slices.Sort(listed); !slices.Equal(listed, kinds().Names()) || !slices.Equal(listed, slices.Sorted(maps.Keys(stores))) {
		t.Errorf("the table lists %v, the kinds are %v", listed, kinds().Names())
	}
}

// completed gives what the shell would offer to complete args with.
func completed(t *testing.T, args ...string) (words []string) {
	t.Helper()
	cmd := osexec.CommandContext(t.Context(), "credresolve", append([]string{"__complete"}, args...)...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if word, _, found := strings.Cut(line, "\t"); found {
			words = append(words, word)
		}
	}
	return words
}

func TestDocsNameEveryCommandAndFlag(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for _, name := range []string{"docs/cli.md", "docs/run.md", "docs/requirements.md", "docs/configuration.md", "docs/sidecar.md", "docs/openclaw.md", "docs/auth-profiles.md", "docs/secretref.md"} {
		text.WriteString(strings.Join(read(t, name).lines, "\n"))
	}
	var documented []string
	for _, row := range read(t, "docs/cli.md").cells(t, "", "command") {
		for _, m := range code.FindAllStringSubmatch(row[0], -1) {
			documented = append(documented, strings.Fields(m[1])[0])
		}
	}
	slices.Sort(documented)
	commands := completed(t, "")
	if got := slices.Compact(documented); len(commands) < 10 || !slices.Equal(got, slices.Sorted(slices.Values(commands))) {
		t.Errorf("docs/cli.md lists the commands %v, there are %v", got, commands)
	}
	lines := [][]string{{}, {"config", "check"}, {"config", "path"}, {"config", "schema"}, {"policy", "test"}, {"provider", "add"}, {"secretref", "install"}, {"secretref", "audit"}, {"secretref", "explain"}, {"secretref", "reload"},
		{"secretref", "configure"}, {"secretref", "apply"}, {"secretref", "migrate"}}
	for _, c := range commands {
		lines = append(lines, []string{c})
	}
	for _, line := range lines {
		for _, flag := range completed(t, append(line, "--")...) {
			named := regexp.MustCompile("[` ]" + flag + "[` ,]")
			if flag != "--help" && !named.MatchString(text.String()) {
				t.Errorf("no page names %s of credresolve %s", flag, strings.Join(line, " "))
			}
		}
	}
}

// The page of benchmarks lists the rows that have a limit, and the limit.
func TestDocsNameEveryBenchmark(t *testing.T) {
	t.Parallel()
	var want [][]string
	files, err := filepath.Glob(filepath.Join(root, "bench/*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no benchmarks: %v", err)
	}
	for _, path := range files {
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?:lookup\(|\{)"([^"]+)", ([0-9.]+), `).FindAllStringSubmatch(string(src), -1) {
			if m[2] != "0" {
				want = append(want, []string{"`" + m[1] + "`", m[2]})
			}
		}
	}
	got := read(t, "docs/benchmarks.md").cells(t, "", "row")[1:]
	for i := range got {
		got[i] = got[i][:2]
	}
	slices.SortFunc(got, slices.Compare)
	slices.SortFunc(want, slices.Compare)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("docs/benchmarks.md has the rows\n%v\nbench has\n%v", got, want)
	}
}
