package openclaw

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/credresolve/credresolve/internal/json5"
	"github.com/credresolve/credresolve/internal/lazyregexp"
	"github.com/credresolve/credresolve/internal/safefile"
	"github.com/credresolve/credresolve/internal/sqliteread"
	"github.com/credresolve/credresolve/secretref"
)

// Home is where an OpenClaw gateway has its configuration and its state, or a document that stands for itself.
type Home struct {
	// State is the state directory; empty for a document by itself.
	State string
	// Config is the configuration. The file need not exist.
	Config string
	// Compat is the release whose rules hold.
	Compat secretref.Compat

	env      func(string) (string, bool)
	userHome string // what ~ stands for: $OPENCLAW_HOME, or the user's
}

// Names in a home.
const (
	configName       = "openclaw.json"
	legacyConfigName = "clawdbot.json"
	stateName        = ".openclaw"
	legacyStateName  = ".clawdbot"
	implicitAgent    = "main"
)

// Find gives the home that the openclaw command would use in an environment: $OPENCLAW_STATE_DIR, else .openclaw below
// $OPENCLAW_HOME or the user's home; $OPENCLAW_CONFIG_PATH, else openclaw.json there. userHome is what the system calls the
// user's home, for where neither $HOME nor $USERPROFILE say. Nothing needs to exist.
func Find(env func(string) (string, bool), userHome string) (Home, error) {
	h := Home{env: env}
	if err := h.findUser(userHome); err != nil {
		return Home{}, err
	}
	state, given := h.variable("OPENCLAW_STATE_DIR")
	if given {
		h.State = h.Path(state)
	} else {
		h.State = h.defaultState()
	}
	if path, ok := h.variable("OPENCLAW_CONFIG_PATH"); ok {
		h.Config = h.Path(path)
		return h, nil
	}
	candidates := []string{filepath.Join(h.State, configName), filepath.Join(h.State, legacyConfigName)}
	if !given {
		for _, dir := range []string{stateName, legacyStateName} {
			for _, name := range []string{configName, legacyConfigName} {
				candidates = append(candidates, filepath.Join(h.userHome, dir, name))
			}
		}
	}
	h.Config = firstThere(candidates)
	return h, nil
}

// DirHome gives the home whose state directory is dir, wherever the environment says that the home is.
func DirHome(dir string, env func(string) (string, bool), userHome string) (Home, error) {
	h := Home{env: env}
	if err := h.findUser(userHome); err != nil {
		return Home{}, err
	}
	h.State = h.Path(dir)
	h.Config = firstThere([]string{filepath.Join(h.State, configName), filepath.Join(h.State, legacyConfigName)})
	return h, nil
}

// FileHome gives the home of a document by itself, with no state, in an environment without variables.
func FileHome(path string) Home {
	return FileHomeIn(path, func(string) (string, bool) { return "", false }, "")
}

// FileHomeIn is FileHome in an environment.
func FileHomeIn(path string, env func(string) (string, bool), userHome string) Home {
	h := Home{env: env}
	_ = h.findUser(userHome) // without a home ~ is left as it is
	h.Config = absolute(path)
	return h
}

// firstThere gives the first path that exists, else the first.
func firstThere(paths []string) string {
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return paths[0]
}

// variable gives a variable of the environment unless it is blank.
func (h Home) variable(name string) (string, bool) {
	value, _ := h.env(name)
	value = strings.TrimSpace(value)
	return value, value != ""
}

// findUser finds what ~ stands for.
func (h *Home) findUser(userHome string) error {
	real := func(value string) bool { return value != "" && value != "undefined" && value != "null" }
	system := strings.TrimSpace(userHome)
	for _, name := range []string{"USERPROFILE", "HOME"} {
		if value, _ := h.variable(name); real(value) {
			system = value
		}
	}
	own, _ := h.variable("OPENCLAW_HOME")
	if !real(own) {
		own = system
	} else if rest, ok := tilde(own); ok && real(system) {
		own = filepath.Join(system, rest)
	}
	if !real(own) {
		return errors.New("no home of OpenClaw can be found: set OPENCLAW_HOME or HOME, or name a file or a directory")
	}
	h.userHome = absolute(own)
	return nil
}

// tilde gives what follows ~ in a path.
func tilde(path string) (string, bool) {
	if path == "~" || strings.HasPrefix(path, "~/") || strings.HasPrefix(path, `~\`) {
		return path[1:], true
	}
	return "", false
}

// Path makes a path of an OpenClaw configuration absolute: ~ is the home of OpenClaw's user, and what is relative starts at
// the working directory.
func (h Home) Path(path string) string {
	path = strings.TrimSpace(path)
	if rest, ok := tilde(path); ok && h.userHome != "" {
		path = filepath.Join(h.userHome, rest)
	}
	return absolute(path)
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

func (h Home) defaultState() string {
	return firstThere([]string{filepath.Join(h.userHome, stateName), filepath.Join(h.userHome, legacyStateName)})
}

// Document is a configuration that was read, with what belongs to it. It is for one goroutine.
type Document struct {
	Home
	// File is the configuration as it is written; nil when there is none.
	File *json5.File
	// Value is the configuration with what it includes, decoded. It is never nil.
	Value map[string]any
	// Included are the files that it includes.
	Included []string
	// Secrets is its section "secrets".
	Secrets secretref.Config
	// Grammar is that of its refs.
	Grammar secretref.Grammar
	// Agents are its agents, of the state directory and of the configuration.
	Agents []Agent
	// EnvFiles are where variables may be beside the environment: .env of the state directory and of the configuration's.
	// They need not exist.
	EnvFiles []string

	extra map[string]string // variables of files and of the configuration
}

// Agent is an agent of a home.
type Agent struct {
	ID  string
	Dir string // where it has its credentials and models.json; need not exist
}

// Load reads the configuration. A file that does not exist is an empty one. When it is there and cannot be used, the error
// comes with a Document of what could be read: its place, the agents' directories, the .env files.
func (h Home) Load() (*Document, error) {
	d := &Document{Home: h, Value: map[string]any{}, extra: map[string]string{}}
	d.Grammar = secretref.Grammar{Compat: h.Compat, Shorthands: true}
	d.Secrets = secretref.Config{Compat: h.Compat}
	err := d.read()
	if err != nil {
		d.Value = map[string]any{}
	}
	d.findEnvFiles()
	d.gatherVariables()
	if err == nil {
		err = d.decode()
	}
	d.findAgents()
	return d, err
}

// mostInclude and mostDepth bound what a configuration includes.
const (
	mostInclude = 2 << 20 // bytes of a file
	mostDepth   = 10
)

func (d *Document) read() error {
	text, err := readFile(d.Config, json5.MaxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.Config, err)
	}
	if d.File, err = json5.Parse(text); err != nil {
		return fmt.Errorf("%s:%w", d.Config, err)
	}
	value, err := d.include(d.File.Root().Value(), d.Config, 0, []string{d.Config})
	if err != nil {
		return err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("%s: the configuration is no object; write it as { … }", d.Config)
	}
	d.Value = object
	return nil
}

// readFile reads a regular file of at most that many bytes.
func readFile(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, plainly(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, plainly(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, plainly(err)
	}
	if int64(len(text)) > most {
		return nil, fmt.Errorf("it has more than %d bytes", most)
	}
	return text, nil
}

// plainly takes the path off an error of package os, since whoever gets it names the file.
func plainly(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	var link *os.LinkError
	if errors.As(err, &link) {
		return link.Err
	}
	return err
}

// include replaces every {"$include": "./file"} within v, which is of the file at path, by what the file holds.
func (d *Document) include(v any, path string, depth int, chain []string) (any, error) {
	switch v := v.(type) {
	case []any:
		for i := range v {
			item, err := d.include(v[i], path, depth, chain)
			if err != nil {
				return nil, err
			}
			v[i] = item
		}
	case map[string]any:
		names, includes := v["$include"]
		rest := make(map[string]any, len(v))
		for key, value := range v {
			if key == "$include" {
				continue
			}
			value, err := d.include(value, path, depth, chain)
			if err != nil {
				return nil, err
			}
			rest[key] = value
		}
		if !includes {
			return rest, nil
		}
		var included any
		switch names := names.(type) {
		case string:
			one, err := d.includeFile(names, path, depth, chain)
			if err != nil {
				return nil, err
			}
			included = one
		case []any:
			included = map[string]any{}
			for _, name := range names {
				one, err := d.includeFile(text(name), path, depth, chain)
				if err != nil {
					return nil, err
				}
				included = merge(included, one)
			}
		default:
			return nil, fmt.Errorf("%s: $include takes a path or a list of paths", path)
		}
		if len(rest) == 0 {
			return included, nil
		}
		if _, ok := included.(map[string]any); !ok {
			return nil, fmt.Errorf("%s: $include beside other keys takes files that hold an object", path)
		}
		return merge(included, rest), nil
	}
	return v, nil
}

// includeFile reads a file that the one at path includes. It must be below the configuration's directory, or a directory
// that $OPENCLAW_INCLUDE_ROOTS allows, links followed.
func (d *Document) includeFile(name, path string, depth int, chain []string) (any, error) {
	fail := func(reason string) error { return fmt.Errorf("%s: $include %q: %s", path, name, reason) }
	if name == "" || strings.ContainsRune(name, 0) {
		return nil, fail("it is no path")
	}
	if depth >= mostDepth {
		return nil, fail(fmt.Sprintf("more than %d files deep", mostDepth))
	}
	full := name
	if !filepath.IsAbs(full) {
		full = filepath.Join(filepath.Dir(path), full)
	}
	full = filepath.Clean(full)
	roots := []string{filepath.Dir(d.Config)}
	if allowed, ok := d.variable("OPENCLAW_INCLUDE_ROOTS"); ok {
		for _, root := range filepath.SplitList(allowed) {
			if strings.TrimSpace(root) != "" {
				roots = append(roots, d.Path(root))
			}
		}
	}
	real := full
	if target, err := filepath.EvalSymlinks(full); err == nil {
		real = target
	}
	inside := slices.ContainsFunc(roots, func(root string) bool {
		realRoot := root
		if target, err := filepath.EvalSymlinks(root); err == nil {
			realRoot = target
		}
		return below(root, full) && below(realRoot, real)
	})
	if !inside {
		return nil, fail("it is outside of the configuration's directory")
	}
	if slices.Contains(chain, full) {
		return nil, fail("it includes itself")
	}
	content, err := readFile(full, mostInclude)
	if err != nil {
		return nil, fail(err.Error())
	}
	file, err := json5.Parse(content)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", full, err)
	}
	d.Included = append(d.Included, full)
	return d.include(file.Root().Value(), full, depth+1, append(slices.Clip(chain), full))
}

func below(dir, path string) bool {
	rest, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rest)
}

// merge adds b to a: objects member by member, lists one behind the other; of all else b counts.
func merge(a, b any) any {
	switch x := a.(type) {
	case map[string]any:
		if y, ok := b.(map[string]any); ok {
			out := maps.Clone(x)
			for key, value := range y {
				if before, ok := out[key]; ok {
					value = merge(before, value)
				}
				out[key] = value
			}
			return out
		}
	case []any:
		if y, ok := b.([]any); ok {
			return append(slices.Clone(x), y...)
		}
	}
	return b
}

// decode reads the section "secrets", in which variables are replaced as everywhere in a configuration.
func (d *Document) decode() error {
	secrets, err := secretref.DecodeConfig(d.substitute(d.Value["secrets"]), d.Compat)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Config, err)
	}
	d.Secrets = secrets
	d.Grammar.Defaults = secrets.Defaults
	return nil
}

var variableInText = lazyregexp.New(`\$?\$\{([A-Z_][A-Z0-9_]*)\}`)

// substitute gives a copy of v in which the variables of texts are replaced; one that is not set stays as it is written.
func (d *Document) substitute(v any) any {
	switch v := v.(type) {
	case string:
		return variableInText().ReplaceAllStringFunc(v, func(found string) string {
			if strings.HasPrefix(found, "$$") {
				return found[1:]
			}
			if value, ok := d.LookupEnv(found[2 : len(found)-1]); ok && value != "" {
				return value
			}
			return found
		})
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = d.substitute(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, value := range v {
			out[key] = d.substitute(value)
		}
		return out
	}
	return v
}

// findEnvFiles names the .env files.
func (d *Document) findEnvFiles() {
	if d.State != "" {
		d.EnvFiles = append(d.EnvFiles, filepath.Join(d.State, ".env"))
	}
	if beside := filepath.Join(filepath.Dir(d.Config), ".env"); !slices.Contains(d.EnvFiles, beside) {
		d.EnvFiles = append(d.EnvFiles, beside)
	}
}

// mostEnv is how many bytes of an .env file are read, and mostModels those of a models.json.
const (
	mostEnv    = 1 << 20
	mostModels = 5 << 20
)

var (
	envLine      = lazyregexp.New("(?m)^\\s*(?:export\\s+)?([\\w.-]+)(?:\\s*=\\s*?|:\\s+?)(\\s*'(?:\\\\'|[^'])*'|\\s*\"(?:\\\\\"|[^\"])*\"|\\s*`(?:\\\\`|[^`])*`|[^#\\r\\n]+)?[^\\S\\n]*(?:#.*)?$")
	variableName = lazyregexp.New(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// gatherVariables reads what OpenClaw adds to its environment: .env of the state directory, gateway.env of the default one,
// and env of the configuration, the first of them that has a name. The .env of the working directory, which OpenClaw's
// command reads too, is left out: whose it is depends on where one stands.
func (d *Document) gatherVariables() {
	add := func(name, value string) {
		if _, there := d.extra[name]; !there && variableName().MatchString(name) {
			d.extra[name] = value
		}
	}
	var files []string
	if d.State != "" {
		files = append(files, filepath.Join(d.State, ".env"))
		if _, given := d.variable("OPENCLAW_STATE_DIR"); !given || d.State == filepath.Join(d.userHome, stateName) {
			files = append(files, filepath.Join(d.userHome, ".config", "openclaw", "gateway.env"))
		}
	}
	for _, path := range files {
		content, err := readFile(path, mostEnv)
		if err != nil {
			continue
		}
		own := map[string]string{}
		for _, m := range envLine().FindAllStringSubmatch(string(content), -1) {
			own[m[1]] = envValue(m[2])
		}
		for name, value := range own {
			add(name, value)
		}
		clear(content)
	}
	section := object(d.Value["env"])
	for _, vars := range []map[string]any{section, member(section, "vars")} {
		for name, value := range vars {
			if s := text(value); name != "vars" && name != "shellEnv" && strings.TrimSpace(s) != "" && !strings.Contains(s, "${") {
				add(name, s)
			}
		}
	}
}

// envValue is what a value in an .env file says.
func envValue(raw string) string {
	value := strings.TrimSpace(raw)
	if len(value) < 2 || !strings.ContainsRune("'\"`", rune(value[0])) || value[len(value)-1] != value[0] {
		return value
	}
	inner := value[1 : len(value)-1]
	if value[0] == '"' {
		inner = strings.NewReplacer(`\n`, "\n", `\r`, "\r").Replace(inner)
	}
	return inner
}

// LookupEnv finds a variable as OpenClaw's processes see it: of the environment, else of the .env files and of the
// configuration's env.
func (d *Document) LookupEnv(name string) (string, bool) {
	if value, ok := d.env(name); ok {
		return value, true
	}
	value, ok := d.extra[name]
	return value, ok
}

// Host is what resolving the document's refs sees of the machine.
func (d *Document) Host() secretref.Host {
	return secretref.Host{LookupEnv: d.LookupEnv, Home: d.userHome, Dir: absolute("")}
}

// findAgents lists the agents: main, those with a directory, those of the configuration.
func (d *Document) findAgents() {
	if d.State == "" {
		return
	}
	seen := map[string]bool{}
	add := func(id, dir string) {
		if !seen[dir] {
			seen[dir] = true
			d.Agents = append(d.Agents, Agent{id, dir})
		}
	}
	root := filepath.Join(d.State, "agents")
	add(implicitAgent, filepath.Join(root, implicitAgent, "agent"))
	entries, _ := os.ReadDir(root) // none: there are no agents yet
	for _, e := range entries {
		if e.IsDir() {
			add(e.Name(), filepath.Join(root, e.Name(), "agent"))
		}
	}
	for _, a := range d.configuredAgents() {
		dir := filepath.Join(root, a.id, "agent")
		if own := strings.TrimSpace(text(a.entry["agentDir"])); own != "" {
			dir = d.Path(own)
		}
		add(a.id, dir)
	}
}

func (d *Document) configuredAgents() []agent {
	var out []agent
	section := object(d.Value["agents"])
	if entries, ok := section["entries"]; ok {
		for _, id := range slices.Sorted(maps.Keys(object(entries))) {
			if e, ok := object(entries)[id].(map[string]any); ok {
				out = append(out, agent{normalID(id, implicitAgent), e})
			}
		}
		return out
	}
	list, _ := section["list"].([]any)
	for _, item := range list {
		if e, ok := item.(map[string]any); ok {
			out = append(out, agent{normalID(text(e["id"]), implicitAgent), e})
		}
	}
	return out
}

// modelsFiles names the models.json files that OpenClaw may have written credentials into.
func (d *Document) modelsFiles() []string {
	var out []string
	for _, a := range d.Agents {
		out = append(out, filepath.Join(a.Dir, "models.json"))
	}
	for _, name := range []string{"OPENCLAW_AGENT_DIR", "PI_CODING_AGENT_DIR"} {
		if dir, ok := d.variable(name); ok && d.State != "" {
			if path := filepath.Join(d.Path(dir), "models.json"); !slices.Contains(out, path) {
				out = append(out, path)
			}
			break
		}
	}
	return out
}

// StoreKind says how auth profiles are kept.
type StoreKind string

// The kinds.
const (
	StoreFile   StoreKind = "file"   // auth-profiles.json, up to 2026.6
	StoreAgent  StoreKind = "agent"  // a row of an agent's openclaw-agent.sqlite
	StoreShared StoreKind = "shared" // a row of the state directory's openclaw.sqlite
)

// ProfileStore is where auth profiles are.
type ProfileStore struct {
	Kind  StoreKind
	Path  string
	Agent string // whose it is; empty for StoreShared
	// Root is the decoded {version, profiles}; nil when there is no store, or when it cannot be read.
	Root map[string]any
	Err  error
}

// ProfileStores reads the stores of auth profiles that exist: SQLite databases by the newest rules, read-only; JSON files by
// those of 2026.3.2. A store that cannot be read has its Err.
func (d *Document) ProfileStores(ctx context.Context) []ProfileStore {
	var out []ProfileStore
	add := func(s ProfileStore) {
		if s.Err == nil && s.Root == nil {
			return
		}
		out = append(out, s)
	}
	if d.Compat == secretref.V2026_3_2 {
		for _, a := range d.Agents {
			add(d.fileStore(a))
		}
		return out
	}
	if d.State != "" {
		shared := filepath.Join(d.State, "state", "openclaw.sqlite")
		if root, err := readCell(ctx, shared, "config_machine_state", "state_key", "auth.sharedStore", "value_json"); err == nil && text(root["location"]) == "state-db" {
			root, err := readCell(ctx, shared, "config_machine_state", "state_key", "authProfiles.store", "value_json")
			add(ProfileStore{Kind: StoreShared, Path: shared, Root: root, Err: err})
		} else if err != nil {
			add(ProfileStore{Kind: StoreShared, Path: shared, Err: err})
		}
	}
	for _, a := range d.Agents {
		path := filepath.Join(a.Dir, "openclaw-agent.sqlite")
		root, err := readCell(ctx, path, "auth_profile_store", "store_key", "primary", "store_json")
		add(ProfileStore{Kind: StoreAgent, Path: path, Agent: a.ID, Root: root, Err: err})
	}
	return out
}

func (d *Document) fileStore(a Agent) ProfileStore {
	s := ProfileStore{Kind: StoreFile, Path: filepath.Join(a.Dir, "auth-profiles.json"), Agent: a.ID}
	content, err := readFile(s.Path, json5.MaxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return s
	}
	defer clear(content)
	if err == nil {
		s.Root, err = decodeObject(content)
	}
	s.Err = err
	return s
}

// databasePolicy takes a database wherever it is and whoever wrote it: what is in it is looked at, and never run or trusted.
var databasePolicy = safefile.Policy{Links: safefile.LinksTrusted, HardLinks: true, OpenParents: true, MaxBytes: 64 << 20}

// readCell reads an object out of a database; nil when there is none.
func readCell(ctx context.Context, path, table, key, is, column string) (map[string]any, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	cells, err := sqliteread.Read(ctx, path, databasePolicy, sqliteread.Query{Table: table, Key: key, Is: is, Column: column})
	if err != nil {
		return nil, err
	}
	defer clear(cells[0].Bytes)
	if !cells[0].Found || len(cells[0].Bytes) == 0 {
		return nil, nil
	}
	return decodeObject(cells[0].Bytes)
}

// decodeObject decodes strict JSON, without showing any of it in the error.
func decodeObject(content []byte) (map[string]any, error) {
	var root any
	if err := json.Unmarshal(content, &root); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("it is no JSON, at byte %d", cmp.Or(syntax.Offset, 1))
		}
		return nil, errors.New("it is no JSON")
	}
	object, ok := root.(map[string]any)
	if !ok {
		return nil, errors.New("it is no object")
	}
	return object, nil
}
