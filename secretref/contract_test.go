//go:build unix

package secretref_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/credresolve/credresolve/secretref"
)

// contractCase is one case of testdata/contract.json. What it holds decides which part of the package it is about: In a
// grammar, Checks refs, Config a section that cannot be read, Consume a value at its consumer, and otherwise a pass.
type contractCase struct {
	Name    string           `json:"name"`
	Section string           `json:"section"` // of the contract
	Compat  secretref.Compat `json:"compat"`

	// A grammar: In is a value of a document, Want the ref it is, or null.
	In         json.RawMessage     `json:"in"`
	Shorthands bool                `json:"shorthands"`
	Defaults   secretref.Defaults  `json:"defaults"`
	Ref        *secretref.Ref      `json:"ref"`
	Checks     []checkedRef        `json:"checks"`
	Config     json.RawMessage     `json:"config"`
	Path       string              `json:"path"` // of the fault in Config; empty: none
	Consume    json.RawMessage     `json:"consume"`
	Expected   secretref.Expected  `json:"expected"`
	Reasons    map[string]logEntry `json:"reasons"`

	// A pass.
	Secrets json.RawMessage   `json:"secrets"` // $DIR is the case's directory, $SELF this test's program
	Env     map[string]string `json:"env"`
	AllEnv  string            `json:"all_env"` // what every variable holds
	Files   []contractFile    `json:"files"`
	Refs    []secretref.Ref   `json:"refs"`
	Many    int               `json:"many"` // refs made of the first one, its id followed by a number
	Want    []contractWant    `json:"want"` // by ref; with Many one for all
	Starts  *int              `json:"starts"`
	Request string            `json:"request"` // what the program read
	Took    *span             `json:"took"`
	Skip    string            `json:"skip"` // "root": only root can set it up

	Error string `json:"error"` // of Config, Consume

	// Ours says where this package means to differ from OpenClaw, and why: in the texts of errors, or, when it starts with "all: ",
	// in the outcome.
	Ours string `json:"ours"`
}

type logEntry struct {
	Reason    string `json:"reason"`
	Retryable bool   `json:"retryable"`
}

type checkedRef struct {
	Ref   secretref.Ref `json:"ref"`
	Error string        `json:"error"` // empty: none
}

// span bounds a duration from below alone where a busy machine could exceed the upper one.
type span struct {
	AtLeast string `json:"at_least"`
}

type contractFile struct {
	Path     string   `json:"path"`
	Content  string   `json:"content"`
	Repeat   int      `json:"repeat"` // Content so often, between Head and Tail
	Head     string   `json:"head"`
	Tail     string   `json:"tail"`
	Mode     string   `json:"mode"` // octal; 0600
	UID      *int     `json:"uid"`
	Kind     string   `json:"kind"` // "dir", "fifo"; a regular file
	Symlink  string   `json:"symlink"`
	Hardlink string   `json:"hardlink"`
	Bytes    []byte   `json:"bytes"` // base64
	Steps    []action `json:"steps"` // a program's script
}

type contractWant struct {
	Value string           `json:"value"` // $ID is the ref's id
	Times int              `json:"times"` // Value so often
	Null  bool             `json:"empty"` // the value is the empty text
	JSON  string           `json:"json"`
	Code  secretref.Code   `json:"code"`
	Scope *secretref.Scope `json:"scope"`
	Error string           `json:"error"`
}

// action is one thing that the test's program does.
type action struct {
	Out    string `json:"out,omitempty"`
	Err    string `json:"err,omitempty"`
	Times  int    `json:"times,omitempty"` // Out and Err so often
	Bytes  []byte `json:"bytes,omitempty"` // to standard output
	Sleep  string `json:"sleep,omitempty"`
	Read   bool   `json:"read,omitempty"` // standard input, into the file "request"
	Answer bool   `json:"answer,omitempty"`
	Shape  string `json:"shape,omitempty"` // answers with the environment ("env"), the directory ("dir") or the arguments ("args")
	Deaf   bool   `json:"deaf,omitempty"`  // to SIGTERM
	Kill   bool   `json:"kill,omitempty"`  // by SIGKILL
	Exit   int    `json:"exit,omitempty"`
}

func readContract(t testing.TB) []contractCase {
	t.Helper()
	text, err := os.ReadFile("testdata/contract.json")
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var cases []contractCase
	if err := d.Decode(&cases); err != nil {
		t.Fatal(err)
	}
	return cases
}

func TestContract(t *testing.T) {
	t.Parallel()
	cases := readContract(t)
	const least = 200
	if len(cases) < least {
		t.Errorf("testdata/contract.json has %d cases, want at least %d", len(cases), least)
	}
	names := make(map[string]bool)
	for _, c := range cases {
		if c.Name == "" || names[c.Name] || !strings.HasPrefix(c.Section, "1.") {
			t.Errorf("case %q has a name that is taken, or no section of the contract", c.Name)
		}
		names[c.Name] = true
		t.Run(strings.ReplaceAll(c.Name, "/", "|"), func(t *testing.T) {
			t.Parallel()
			switch {
			case c.In != nil:
				c.grammar(t)
			case c.Checks != nil:
				c.check(t)
			case c.Config != nil:
				c.config(t)
			case c.Consume != nil:
				c.consume(t)
			case c.Reasons != nil:
				c.reasons(t)
			default:
				c.pass(t)
			}
			if t.Failed() {
				t.Logf("section %s of the contract", c.Section)
			}
		})
	}
}

func (c contractCase) grammar(t *testing.T) {
	var in any
	if err := json.Unmarshal(c.In, &in); err != nil {
		t.Fatal(err)
	}
	g := secretref.Grammar{Compat: c.Compat, Defaults: c.Defaults, Shorthands: c.Shorthands}
	got, ok := g.FromValue(in)
	switch {
	case ok != (c.Ref != nil):
		t.Errorf("FromValue(%s) = %v, %t", c.In, got, ok)
	case ok && got != *c.Ref:
		t.Errorf("FromValue(%s) = %v, want %v", c.In, got, *c.Ref)
	}
}

func (c contractCase) check(t *testing.T) {
	g := secretref.Grammar{Compat: c.Compat}
	for _, one := range c.Checks {
		sameText(t, "Check("+one.Ref.Key()+")", g.Check(one.Ref), one.Error)
	}
}

func sameText(t *testing.T, what string, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != want {
		t.Errorf("%s gives %q, want %q", what, got, want)
	}
}

func (c contractCase) config(t *testing.T) {
	var in any
	if err := json.Unmarshal(c.Config, &in); err != nil {
		t.Fatal(err)
	}
	_, err := secretref.DecodeConfig(in, c.Compat)
	var fault *secretref.ConfigError
	switch {
	case c.Path == "" && err != nil:
		t.Errorf("DecodeConfig gives %v", err)
	case c.Path == "":
	case !errors.As(err, &fault):
		t.Errorf("DecodeConfig gives no ConfigError but %v, want one at %s", err, c.Path)
	case fault.Path != c.Path || !strings.Contains(fault.Reason, c.Error):
		t.Errorf("DecodeConfig gives %v, want %q at %s", err, c.Error, c.Path)
	}
}

func (c contractCase) consume(t *testing.T) {
	value := secretFromJSON(c.Consume)
	sameText(t, "CheckValue", secretref.CheckValue("models.providers.x.apiKey", value, c.Expected), c.Error)
}

func (c contractCase) reasons(t *testing.T) {
	for code, want := range c.Reasons {
		e := &secretref.Error{Code: secretref.Code(code)}
		if e.LogReason() != want.Reason || e.Retryable() != want.Retryable {
			t.Errorf("%s: LogReason %q, Retryable %t, want %v", code, e.LogReason(), e.Retryable(), want)
		}
	}
}

func (c contractCase) pass(t *testing.T) {
	dir := caseDir(t)
	section, refs, expand := c.setUp(t, dir)
	config, err := secretref.DecodeConfig(section, c.Compat)
	if err != nil {
		t.Fatal(err)
	}
	host := secretref.Host{Home: filepath.Join(dir, "home"), Dir: dir, LookupEnv: func(name string) (string, bool) {
		if c.AllEnv != "" {
			return c.AllEnv, true
		}
		value, ok := c.Env[name]
		return value, ok
	}}
	began := time.Now()
	outcomes := secretref.Resolve(context.Background(), config, host, refs)
	took := time.Since(began)
	if len(outcomes) != len(refs) {
		t.Fatalf("%d outcomes of %d refs", len(outcomes), len(refs))
	}
	for i, o := range outcomes {
		want := c.Want[min(i, len(c.Want)-1)]
		if o.Ref != refs[i] {
			t.Errorf("outcome %d is of %v, want %v", i, o.Ref, refs[i])
		}
		compare(t, o, want, func(s string) string { return strings.ReplaceAll(expand(s), "$ID", o.Ref.ID) })
	}
	if c.Starts != nil {
		starts, _ := os.ReadFile(filepath.Join(dir, "starts"))
		if got := bytes.Count(starts, []byte("\n")); got != *c.Starts {
			t.Errorf("%d processes, want %d", got, *c.Starts)
		}
	}
	if c.Request != "" {
		if got, _ := os.ReadFile(filepath.Join(dir, "request")); string(got) != expand(c.Request) {
			t.Errorf("the program was sent %q, want %q", got, c.Request)
		}
	}
	if c.Took != nil {
		if least, err := time.ParseDuration(c.Took.AtLeast); err != nil || took < least {
			t.Errorf("it took %v, want at least %s", took, c.Took.AtLeast)
		}
	}
}

// caseDir is a directory of a case, by its path without links, which is the one that errors name.
func caseDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// setUp lays the case's files in dir, and gives its section and refs.
func (c contractCase) setUp(t *testing.T, dir string) (section any, refs []secretref.Ref, expand func(string) string) {
	t.Helper()
	if c.Skip == "root" && os.Geteuid() != 0 {
		t.Skip("needs root: only root can give files away")
	}
	c.lay(t, dir)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	expand = strings.NewReplacer("$DIR", dir, "$SELF", self, "$UID", fmt.Sprint(os.Geteuid())).Replace
	if c.Secrets != nil {
		if err := json.Unmarshal([]byte(expand(string(c.Secrets))), &section); err != nil {
			t.Fatal(err)
		}
	}
	refs = c.Refs
	if c.Many > 0 {
		refs = make([]secretref.Ref, c.Many)
		for i := range refs {
			refs[i] = c.Refs[0]
			refs[i].ID += fmt.Sprint(i)
		}
	}
	return section, refs, expand
}

func compare(t *testing.T, o secretref.Outcome, want contractWant, expand func(string) string) {
	t.Helper()
	if want.Error != "" || want.Code != "" {
		if o.Err == nil {
			t.Errorf("%s has a value, want error %s %q", o.Ref.Key(), want.Code, want.Error)
			return
		}
		var e *secretref.Error
		if errors.As(o.Err, &e); e == nil {
			e = &secretref.Error{}
		}
		if e.Code != want.Code {
			t.Errorf("%s: code %q, want %q (%v)", o.Ref.Key(), e.Code, want.Code, o.Err)
		}
		if want.Scope != nil && e.Scope != *want.Scope {
			t.Errorf("%s: scope %q, want %q", o.Ref.Key(), e.Scope, *want.Scope)
		}
		if got := o.Err.Error(); got != expand(want.Error) {
			t.Errorf("%s: error\n\t%s\nwant\n\t%s", o.Ref.Key(), got, expand(want.Error))
		}
		if !o.Value.IsZero() {
			t.Errorf("%s has both a value and an error", o.Ref.Key())
		}
		return
	}
	if o.Err != nil {
		t.Errorf("%s: %v", o.Ref.Key(), o.Err)
		return
	}
	text, isJSON := strings.Repeat(want.Value, max(want.Times, 1)), false
	if want.JSON != "" {
		text, isJSON = want.JSON, true
	}
	if got := string(o.Value.Reveal()); got != expand(text) || o.Value.IsJSON() != isJSON || text == "" && !want.Null {
		t.Errorf("%s is %q (JSON: %t), want %q (JSON: %t)", o.Ref.Key(), got, o.Value.IsJSON(), expand(text), isJSON)
	}
}

// lay makes the files of a case.
func (c contractCase) lay(t *testing.T, dir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range c.Files {
		path := filepath.Join(dir, f.Path)
		must(os.MkdirAll(filepath.Dir(path), 0o755))
		mode := os.FileMode(0o600)
		if f.Mode != "" {
			var bits uint32
			if _, err := fmt.Sscanf(f.Mode, "%o", &bits); err != nil {
				t.Fatal(err)
			}
			mode = os.FileMode(bits)
		}
		switch {
		case f.Symlink != "":
			must(os.Symlink(strings.ReplaceAll(f.Symlink, "$DIR", dir), path))
			continue
		case f.Hardlink != "":
			must(os.Link(filepath.Join(dir, f.Hardlink), path))
			continue
		case f.Kind == "dir":
			must(os.Mkdir(path, 0o755))
		case f.Kind == "fifo":
			must(syscall.Mkfifo(path, 0o600))
		case f.Steps != nil:
			script, err := json.Marshal(f.Steps)
			must(err)
			must(os.WriteFile(path, script, 0o600))
		case f.Bytes != nil:
			must(os.WriteFile(path, f.Bytes, 0o600))
		default:
			content := strings.ReplaceAll(f.Content, "$DIR", dir)
			must(os.WriteFile(path, []byte(f.Head+strings.Repeat(content, max(f.Repeat, 1))+f.Tail), 0o600))
		}
		must(os.Chmod(path, mode))
		if f.UID != nil {
			must(os.Chown(path, *f.UID, -1))
		}
	}
}
