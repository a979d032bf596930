// Package requirements reads what credentials a skill or a plugin declares that it needs, and judges whether they are there.
//
// They stand under the key credentials in the YAML front matter of a SKILL.md (https://agentskills.io/specification), or in a
// YAML or JSON file. Whoever wrote the file is not the user: it names variables and credentials, and no more. Variables that
// decide what code runs are refused, and the user's configuration decides what a provider is.
package requirements

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/loginhint"
)

// maxRequirements is how many a file may declare.
const maxRequirements = 256

// Requirement is a credential that somebody needs in a variable of the environment.
type Requirement struct {
	// Env is the variable that takes the value.
	Env string
	// Ref is where the value comes from. Its Provider is empty where the file names none: then the user maps Env, or has set it.
	Ref credref.Ref
	// Type is what the credential must be; empty: anything.
	Type backend.Type
	// Scopes are what an OAuth 2.0 credential must be allowed.
	Scopes []string
	// Optional says that the program runs without it.
	Optional bool
	// Description and Help are the author's words: what it is for, and how to get one.
	Description, Help string

	// File, Line and Column are where it is declared; Line is from 1.
	File         string
	Line, Column int
}

// Place is where r is declared, as file:line:column.
func (r *Requirement) Place() string { return fmt.Sprintf("%s:%d:%d", r.File, r.Line, r.Column) }

// entry is a requirement as it is written. Name and required are the words of a proposed field of the specification
// (https://github.com/agentskills/agentskills/pull/172).
type entry struct {
	Env         string   `yaml:"env"`
	Name        string   `yaml:"name"`
	Provider    string   `yaml:"provider"`
	ID          string   `yaml:"id"`
	Field       string   `yaml:"field"`
	Type        string   `yaml:"type"`
	Scopes      []string `yaml:"scopes"`
	Optional    bool     `yaml:"optional"`
	Required    *bool    `yaml:"required"`
	Description string   `yaml:"description"`
	Help        string   `yaml:"help"`
}

// Parse reads a file: the front matter where src begins with a line "---" and has another one, or where name ends in .md, else
// YAML or JSON. The error is ErrInvalidConfig and has a line for each problem, with file, line and column; it holds no value of
// the file but names.
func Parse(name string, src []byte) ([]Requirement, error) {
	src = bytes.TrimPrefix(src, []byte("\ufeff"))
	markdown := strings.HasSuffix(strings.ToLower(name), ".md")
	front, line, err := frontMatter(src)
	switch {
	case err == nil:
		src, markdown = front, true
	case markdown:
		return nil, backend.Errorf(backend.CodeInvalidConfig, "%s: %v", name, err)
	default:
		line = 1
	}
	if len(bytes.TrimSpace(src)) == 0 {
		return nil, backend.Errorf(backend.CodeInvalidConfig, "%s: it is empty, where requirements must be", name)
	}
	root, err := config.ParseDocument(name, line, src)
	if err != nil {
		return nil, err
	}
	p := parser{file: name}
	p.document(root, markdown)
	if err := root.Err(); err != nil {
		return nil, err
	}
	return p.found, nil
}

// frontMatter gives the YAML between the first line "---" and the next, and the number of its first line.
func frontMatter(src []byte) (front []byte, line int, err error) {
	first, rest, _ := bytes.Cut(src, []byte("\n"))
	if string(bytes.TrimRight(first, " \t\r")) != "---" {
		return nil, 0, fmt.Errorf("it has no front matter; its first line must be ---")
	}
	for at := 0; at < len(rest); {
		end := len(rest)
		if n := bytes.IndexByte(rest[at:], '\n'); n >= 0 {
			end = at + n + 1
		}
		if string(bytes.TrimRight(rest[at:end], " \t\r\n")) == "---" {
			return rest[:at], 2, nil
		}
		at = end
	}
	return nil, 0, fmt.Errorf("its front matter has no end; a line --- must stand behind it")
}

type parser struct {
	file  string
	found []Requirement
}

// document reads the whole: a list, a map with the key credentials beside others, or, where it is no front matter, a map by
// variables.
func (p *parser) document(root *config.Node, front bool) {
	switch {
	case root.IsList() && !front:
		p.all(root)
	case !root.IsMap():
		root.Fail(`expected a map with the key "credentials"`)
	case root.Get(key) != nil:
		p.all(root.Get(key))
	case slices.Contains(root.Keys(), key): // nothing stands behind it
	case !front && !slices.ContainsFunc(root.Keys(), func(name string) bool { return root.Get(name) == nil || !root.Get(name).IsMap() }):
		p.all(root)
	case front && p.openClaw(root.Get("metadata")):
	default:
		for _, name := range root.Keys() {
			if near := backend.Nearest(name, []string{key}); near != "" {
				root.FailKey(name, "unknown key; did you mean %q?", near)
				return
			}
		}
		if !front {
			root.Fail(`expected a list of requirements, or a map with the key "credentials"`)
		}
	}
}

// key is where requirements stand among other things.
const key = "credentials"

// openClaw reads what OpenClaw's skills declare (https://docs.openclaw.ai/clawhub/skill-format): variables, and nothing of where
// they come from. It reports false where metadata, which may be nil, has nothing of that.
func (p *parser) openClaw(metadata *config.Node) bool {
	if metadata == nil || !metadata.IsMap() {
		return false
	}
	for _, name := range []string{"openclaw", "clawdbot", "clawdis"} {
		own := metadata.Get(name)
		if own == nil || !own.IsMap() {
			continue
		}
		described := make(map[string]bool)
		if list := own.Get("envVars"); list != nil {
			for _, item := range list.Items() {
				before := len(p.found)
				if p.one(item, ""); len(p.found) > before {
					described[p.found[before].Env] = true
				}
			}
		}
		requires := own.Get("requires")
		if requires == nil || !requires.IsMap() || requires.Get("env") == nil {
			return len(described) > 0
		}
		for _, item := range requires.Get("env").Items() {
			if env, _ := item.Text(); !described[env] { // else envVars says more of it
				p.one(item, "")
			}
		}
		return true
	}
	return false
}

// all reads a list of requirements, or a map of them by variables.
func (p *parser) all(n *config.Node) {
	switch {
	case n.IsList():
		for _, item := range n.Items() {
			p.one(item, "")
		}
	case n.IsMap():
		for _, name := range n.Keys() {
			if v := n.Get(name); v != nil {
				p.one(v, name)
			} else {
				n.FailKey(name, "nothing stands here; write a map with the key provider")
			}
		}
	default:
		n.Fail("expected a list of requirements, or a map of them by variables")
	}
}

// one reads a requirement, whose variable is env where that is not empty. A text alone names the variable.
func (p *parser) one(n *config.Node, env string) {
	var e entry
	if name, ok := n.Text(); ok && env == "" {
		e.Env = name
	} else if !n.Decode(&e) {
		return
	}
	if len(p.found) == maxRequirements {
		n.Fail("there are more than %d requirements", maxRequirements)
		return
	}
	r := Requirement{
		Type: backend.Type(e.Type), Scopes: e.Scopes, Optional: e.Optional, Description: oneLine(e.Description), Help: oneLine(e.Help), File: p.file,
	}
	r.Line, r.Column = n.Place()
	names := slices.DeleteFunc([]string{env, e.Env, e.Name}, func(s string) bool { return s == "" })
	switch {
	case len(names) == 0:
		n.Fail("the key env is missing: the name of the variable")
		return
	case len(slices.Compact(names)) > 1:
		n.Fail("env, name and the key of the map are one thing; write one of them")
		return
	}
	r.Env = names[0]
	if err := CheckEnv(r.Env); err != nil {
		n.Fail("%v", err)
		return
	}
	if i := slices.IndexFunc(p.found, func(other Requirement) bool { return strings.EqualFold(other.Env, r.Env) }); i >= 0 {
		n.Fail("the variable %s is declared twice; it is on line %d already", r.Env, p.found[i].Line)
		return
	}
	if e.Required != nil {
		if e.Optional && *e.Required {
			n.Fail("it cannot be optional and required")
			return
		}
		r.Optional = e.Optional || !*e.Required
	}
	if r.Type != "" && !slices.Contains(types(), e.Type) {
		hint := "known types: " + strings.Join(types(), ", ")
		if near := backend.Nearest(e.Type, types()); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		n.Fail("unknown type; %s", hint)
		return
	}
	if len(r.Scopes) > 0 && r.Type != "" && r.Type != backend.TypeOAuth2 {
		n.Fail("scopes are of type oauth2 alone")
		return
	}
	for _, scope := range r.Scopes {
		if !isScope(scope) {
			n.Fail("a scope is a text without spaces; write a list, one scope each")
			return
		}
	}
	if e.Provider == "" {
		if e.ID != "" || e.Field != "" {
			n.Fail("the key provider is missing")
			return
		}
		p.found = append(p.found, r)
		return
	}
	r.Ref = credref.Ref{Provider: e.Provider, ID: e.ID, Field: e.Field}
	if r.Ref.ID == "" {
		r.Ref.ID = loginhint.DefaultID
	}
	if err := r.Ref.Validate(); err != nil {
		n.Fail("%v", err)
		return
	}
	p.found = append(p.found, r)
}

func types() []string {
	return []string{
		string(backend.TypeAPIKey), string(backend.TypeOAuth2), string(backend.TypeToken), string(backend.TypeUserValue),
		string(backend.TypeBasic), string(backend.TypeAWS), string(backend.TypeCertificate),
	}
}

// isScope reports whether s is a scope-token of RFC 6749, section 3.3.
func isScope(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '"' || c == '\\' })
}

// maxWords is how much of an author's words is kept, in bytes.
const maxWords = 500

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxWords {
		s = strings.ToValidUTF8(s[:maxWords], "") + "…"
	}
	return s
}

// Map gives the requirements of several files together, with what the user maps: of a variable there, that ref is taken
// whatever the file says. Two that name the same variable are one if they mean the same credential, whose scopes are both's.
func Map(all []Requirement, mapped map[string]credref.Ref) ([]Requirement, error) {
	var out []Requirement
	at := map[string]int{}
	for _, r := range all {
		if ref, ok := mapped[r.Env]; ok {
			r.Ref = ref
		}
		i, twice := at[r.Env]
		if !twice {
			at[r.Env] = len(out)
			r.Scopes = slices.Clone(r.Scopes)
			out = append(out, r)
			continue
		}
		same := &out[i]
		if same.Ref != r.Ref || same.Type != r.Type {
			return nil, &backend.Error{
				Code:   backend.CodeInvalidConfig,
				Reason: fmt.Sprintf("%s: the variable %s is declared in %s already, for another credential", r.Place(), r.Env, same.Place()),
				Remedy: "run both apart from each other, or map it to one: --map " + r.Env + "=cred://provider/id",
			}
		}
		same.Optional = same.Optional && r.Optional
		for _, scope := range r.Scopes {
			if !slices.Contains(same.Scopes, scope) {
				same.Scopes = append(same.Scopes, scope)
			}
		}
	}
	for name := range mapped {
		if _, ok := at[name]; ok {
			continue
		}
		e := backend.Errorf(backend.CodeUsage, "--map %s: no file declares that variable", name)
		var names []string
		for _, r := range out {
			names = append(names, r.Env)
		}
		if near := backend.Nearest(name, names); near != "" {
			e.Remedy = fmt.Sprintf("did you mean %q?", near)
		}
		return nil, e
	}
	return out, nil
}
