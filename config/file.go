package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/lazyregexp"
	"github.com/credresolve/credresolve/secretref"
)

// File is a configuration that was read and found valid. It is immutable and safe for concurrent use.
type File struct {
	path      string
	shown     string // path as it was given, for messages
	sum       [sha256.Size]byte
	root      *node
	kinds     *backend.Registry
	settings  settingsOfFile
	providers []*Provider
	warnings  []string

	secretRefs secretref.Config
}

// Provider is a configured instance of a kind.
type Provider struct {
	Name string
	Kind string
	Line int // where it begins in the file
	// Reach is what the provider touches outside of the process; Known is false when its kind does not tell.
	Reach []backend.Reach
	Known bool
	// Chain are the refs in its settings, in the order of the file.
	Chain []credref.Ref

	kind    backend.Kind
	common  providerSettings
	types   []typeRule
	node    *node
	sources []*chained
}

// Scoped reports whether what the provider gives depends on for whom it is.
func (def *Provider) Scoped() bool { return len(def.common.Scope) > 0 }

// Scope names the parts of a subject that tell the provider's credentials apart.
func (def *Provider) Scope() []string { return slices.Clone(def.common.Scope) }

// Text gives a setting of the provider as the file has it, empty where that is not set or not a scalar.
func (def *Provider) Text(key string) string {
	if n := def.node.get(key); n != nil {
		return n.text
	}
	return ""
}

// settingsOfFile is the whole file but for the providers, which are decoded by kind.
type settingsOfFile struct {
	// Version is the version of this file's form: 1.
	Version int `yaml:"version"`
	// Providers are the configured instances by name: ^[a-z][a-z0-9_-]{0,63}$.
	Providers map[string]rawProvider `yaml:"providers"`
	// Cache bounds what the process keeps.
	Cache cacheLimits `yaml:"cache"`
	// Limits are the limits of every provider that does not say otherwise.
	Limits limitSettings `yaml:"limits"`
	// Refs says what counts as a ref in a document: any (a map with provider and id, or a cred:// text) or short (a
	// cred:// text alone). Empty: any.
	Refs string `yaml:"refs" jsonschema:"enum=any,enum=short"`
	// Ignore are patterns of paths in documents where nothing counts as a ref. Empty: none.
	Ignore []string `yaml:"ignore"`
	// Serve is how the sidecar listens, whom it answers and what it keeps.
	Serve Serve `yaml:"serve"`
	// OpenClaw is what ids of OpenClaw's exec provider mean beside <provider>/<id>.
	OpenClaw OpenClaw `yaml:"openclaw"`
	// SecretRef is where SecretRefs in documents lead: OpenClaw's static references {source, provider, id}.
	SecretRef secretRefSettings `yaml:"secretref"`
	// Events is who is told of the steps in the life of credentials, while a sidecar runs.
	Events Events `yaml:"events"`
	// Logins is where what logins gave is kept.
	Logins loginSettings `yaml:"logins"`
}

// rawProvider stands in the place of a provider's settings, whose type depends on its kind.
type rawProvider struct{}

type cacheLimits struct {
	// Entries is how many secrets are kept. Zero: 10,000.
	Entries int `yaml:"entries" jsonschema:"minimum=0"`
	// Bytes is how many bytes of secrets are kept. Zero: 64 MiB.
	Bytes int64 `yaml:"bytes" jsonschema:"minimum=0"`
}

// providerSettings are the settings that a provider of any kind has.
type providerSettings struct {
	// Kind is the kind of store.
	Kind string `yaml:"kind"`
	// Cache says how long what this provider gave is kept.
	Cache cacheSettings `yaml:"cache"`
	// Limits are the limits of calls to this provider.
	Limits limitSettings `yaml:"limits"`
	// Scope names the parts of a subject that tell this provider's credentials apart. Empty: they are for everybody.
	Scope []string `yaml:"scope" jsonschema:"enum=session,enum=end_user,enum=tenant,enum=plugin"`
	// IDTemplate makes the store's id of a ref's id and the subject, as in "users/{end_user}/{id}". Empty: the ref's id.
	IDTemplate string `yaml:"id_template"`
	// Types gives the type of the credentials whose id matches a pattern; the first that matches wins. Empty: what the
	// store says, or user_value.
	Types map[string]string `yaml:"types"`
}

type cacheSettings struct {
	// TTL is how long a secret is served without a look at the store. Not set: 5m. 0: not at all.
	TTL *time.Duration `yaml:"ttl"`
	// MaxStale is how long after that it is still served while the store is unavailable. Not set or 0: not at all.
	MaxStale *time.Duration `yaml:"max_stale"`
	// NegativeTTL is how long it is remembered that a secret does not exist. Not set: a few seconds. 0: not at all.
	NegativeTTL *time.Duration `yaml:"negative_ttl"`
	// Idle is how long after its last use a secret is still refreshed in the background. Not set or 0: it is refreshed if it was
	// used since it was fetched.
	Idle *time.Duration `yaml:"idle"`
	// Check is how often a secret that is used is looked at for a new version, at least 1s, where the store tells of that without
	// reading it. Not set or 0: not at all.
	Check *time.Duration `yaml:"check"`
}

type limitSettings struct {
	// Concurrency is how many calls may be under way at once. Zero: 32.
	Concurrency int `yaml:"concurrency" jsonschema:"minimum=0"`
	// Timeout ends a call. Zero: 30s.
	Timeout time.Duration `yaml:"timeout"`
	// Retries is how often a call is repeated that failed for a passing reason. Not set: 2.
	Retries *int `yaml:"retries" jsonschema:"minimum=0"`
	// Budget is how many calls a time may cost.
	Budget budgetSettings `yaml:"budget"`
	// Breaker says when a failing store is left alone for a while.
	Breaker breakerSettings `yaml:"breaker"`
}

type budgetSettings struct {
	// Calls is how many calls are made. Zero: no limit.
	Calls int `yaml:"calls" jsonschema:"minimum=0"`
	// Per is the time in which they are made. Zero: 1m.
	Per time.Duration `yaml:"per"`
}

type breakerSettings struct {
	// Failures in a row open the breaker. Not set: 5. 0: it never opens.
	Failures *int `yaml:"failures" jsonschema:"minimum=0"`
	// Open is how long it stays open, at most 1m, before one call tries again. Zero: 10s.
	Open time.Duration `yaml:"open"`
}

// or gives l with what it does not say taken from other.
func (l limitSettings) or(other limitSettings) limitSettings {
	l.Concurrency = cmp.Or(l.Concurrency, other.Concurrency)
	l.Timeout = cmp.Or(l.Timeout, other.Timeout)
	l.Retries = cmp.Or(l.Retries, other.Retries)
	l.Budget = cmp.Or(l.Budget, other.Budget)
	l.Breaker.Failures = cmp.Or(l.Breaker.Failures, other.Breaker.Failures)
	l.Breaker.Open = cmp.Or(l.Breaker.Open, other.Breaker.Open)
	return l
}

// secretName matches names of variables whose value is likely a secret; the value of another may stand in plain text, as
// that of LOG_LEVEL does.
var secretName = lazyregexp.New(`(?i)pass|pwd|secret|token|key|cred|auth|private|dsn`)

type typeRule struct {
	pattern string
	is      backend.Type
}

// invalid is what is wrong with a configuration: one line each.
type invalid struct{ problems []error }

func (e *invalid) Error() string { return errors.Join(e.problems...).Error() }

// Is makes errors.Is and backend.CodeOf see an invalid configuration.
func (e *invalid) Is(target error) bool { return target == backend.ErrInvalidConfig }

// As gives the kind of e to backend.CodeOf.
func (e *invalid) As(target any) bool {
	if t, ok := target.(**backend.Error); ok {
		*t = backend.Errorf(backend.CodeInvalidConfig, "%s", e.Error())
		return true
	}
	return false
}

// Load reads the configuration at path, whose providers are of kinds. The error is ErrInvalidConfig and tells every
// problem, each in a line of its own with file, line and column; no line holds a value of the file.
func Load(path string, kinds *backend.Registry) (*File, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, backend.Errorf(backend.CodeInvalidConfig, "%s: %s", path, pathReason(err))
	}
	src, err := readLimited(absolute)
	if err != nil {
		return nil, err
	}
	return load(absolute, path, src, kinds)
}

// Parse is Load of what is no file: src stands for a file at path, an absolute path that need not exist and to whose directory
// relative paths belong.
func Parse(path string, src []byte, kinds *backend.Registry) (*File, error) {
	return load(path, path, src, kinds)
}

func readLimited(path string) ([]byte, error) {
	// A FIFO that nobody writes to must not make us wait.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, backend.Errorf(backend.CodeInvalidConfig, "the configuration %s cannot be read: %s", path, pathReason(err))
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, backend.Errorf(backend.CodeInvalidConfig, "the configuration %s cannot be read: %s", path, pathReason(err))
	}
	if len(src) > maxFileSize {
		return nil, backend.Errorf(backend.CodeInvalidConfig, "the configuration %s is larger than %d bytes", path, maxFileSize)
	}
	return src, nil
}

// pathReason is the system's reason without the path, which the caller names once.
func pathReason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

func load(path, shown string, src []byte, kinds *backend.Registry) (*File, error) {
	p := &problems{file: shown}
	f := &File{path: path, shown: shown, sum: sha256.Sum256(src), kinds: kinds}
	root := parse(p, src)
	if root == nil || p.err() != nil {
		return nil, p.err()
	}
	f.root = root
	d := &decoder{problems: p}
	d.decode(root, "", reflect.ValueOf(&f.settings).Elem())
	if root.kind != kindMapping {
		return nil, p.err()
	}
	switch v := root.get("version"); {
	case v == nil:
		p.add(root, "version", "it is missing; write: version: 1")
	case f.settings.Version != 1:
		p.add(v, "version", "this program knows version 1 alone")
	}
	if refs := f.settings.Refs; refs != "" && refs != "any" && refs != "short" {
		p.add(root.get("refs"), "refs", "expected any or short")
	}
	checkLimits(p, root.get("limits"), "limits", f.settings.Limits)
	if providers := root.get("providers"); providers != nil && providers.kind == kindMapping {
		for _, pair := range providers.pairs {
			f.addProvider(p, pair.key, pair.value, kinds)
		}
	}
	f.checkChain(p)
	f.checkServe(p)
	f.checkOpenClaw(p)
	f.checkSecretRefs(p)
	f.checkLogins(p)
	f.checkEvents(p)
	slices.SortFunc(f.providers, func(a, b *Provider) int { return strings.Compare(a.Name, b.Name) })
	return f, p.err()
}

func (f *File) addProvider(p *problems, name, n *node, kinds *backend.Registry) {
	path := join("providers", name.text)
	if err := credref.ValidateProvider(name.text); err != nil {
		p.add(name, path, "the name of a provider must match ^[a-z][a-z0-9_-]{0,63}$")
		return
	}
	if n.kind != kindMapping {
		p.add(n, path, "expected %s, found %s", kindMapping, n.kind)
		return
	}
	kind := n.get("kind")
	if kind == nil {
		p.add(name, path, "kind is missing; known kinds: %s", strings.Join(kinds.Names(), ", "))
		return
	}
	k, err := kinds.Lookup(kind.text)
	if err != nil {
		p.add(kind, path+".kind", "%v", err)
		return
	}
	def := &Provider{Name: name.text, Kind: k.Name, Line: name.line, kind: k, node: n}
	var opened struct {
		Common providerSettings `yaml:",inline"`
		Kind   any
	}
	config := k.NewConfig()
	def.decodeInto(p, path, &opened.Common, config)
	def.common = opened.Common
	def.checkCommon(p, path, n)
	if r, ok := config.(backend.Reacher); ok {
		def.Reach, def.Known = r.Reach(), true
	}
	for _, s := range def.sources {
		if s.ref != nil {
			def.Chain = append(def.Chain, *s.ref)
		} else if !s.fine {
			f.warnings = append(f.warnings, fmt.Sprintf("%s:%d:%d: %s is a secret in plain text; put it into a store and write a ref: {provider, id}",
				p.file, s.at.line, s.at.column, s.path))
		}
	}
	f.providers = append(f.providers, def)
}

// decodeInto fills the common settings and those of the kind from the provider's map, and notes the sources in it. It is
// called once to check the file, and again for each Open, whose sources belong to its own resolver.
func (def *Provider) decodeInto(p *problems, path string, common *providerSettings, config any) {
	def.sources = nil
	d := &decoder{problems: p}
	d.source = func(n *node, path string, ref *credref.Ref) backend.Source {
		s := &chained{at: n, path: path, ref: ref, fine: d.entry != "" && !secretName().MatchString(d.entry)}
		def.sources = append(def.sources, s)
		return s.source()
	}
	merged := settings(reflect.ValueOf(common).Elem())
	for name, field := range settings(reflect.ValueOf(config).Elem()) {
		if _, taken := merged[name]; taken {
			panic(fmt.Sprintf("config: kind %s has a setting %q, which every provider has", def.Kind, name))
		}
		merged[name] = field
	}
	for _, pr := range def.node.pairs {
		field, known := merged[pr.key.text]
		if !known {
			d.unknownKey(pr.key, path, merged)
		} else if pr.value.kind != kindNull {
			d.decode(pr.value, join(path, pr.key.text), field)
		}
	}
}

func (def *Provider) checkCommon(p *problems, path string, n *node) {
	checkLimits(p, n.get("limits"), path+".limits", def.common.Limits)
	known := []string{"session", "end_user", "tenant", "plugin"}
	for _, s := range def.common.Scope {
		if !slices.Contains(known, s) {
			p.add(n.get("scope"), path+".scope", "unknown scope; known: %s", strings.Join(known, ", "))
		}
	}
	types := n.get("types")
	if types == nil {
		return
	}
	for _, pr := range types.pairs {
		is := backend.Type(pr.value.text)
		if !slices.Contains(backend.Types(), is) {
			p.add(pr.value, path+".types", "unknown type; known: %v", backend.Types())
		}
		def.types = append(def.types, typeRule{pr.key.text, is})
	}
}

func checkLimits(p *problems, n *node, path string, l limitSettings) {
	negative := func(n *int) bool { return n != nil && *n < 0 }
	if l.Concurrency < 0 || l.Budget.Calls < 0 || negative(l.Retries) || negative(l.Breaker.Failures) {
		p.add(n, path, "a limit cannot be negative")
	}
}

// Path is the absolute path of the file.
func (f *File) Path() string { return f.path }

// Dir is the directory to which relative paths in the file belong.
func (f *File) Dir() string { return filepath.Dir(f.path) }

// SHA256 is the digest of the file's bytes, in hexadecimal.
func (f *File) SHA256() string { return hex.EncodeToString(f.sum[:]) }

// Warnings are lines about what is not wrong but should be otherwise, such as a secret in plain text.
func (f *File) Warnings() []string { return slices.Clone(f.warnings) }

// Providers are the configured providers by name.
func (f *File) Providers() []*Provider { return slices.Clone(f.providers) }

// Provider gives the provider of that name, nil when there is none.
func (f *File) Provider(name string) *Provider {
	for _, p := range f.providers {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// ShortRefsOnly reports the setting refs: short.
func (f *File) ShortRefsOnly() bool { return f.settings.Refs == "short" }

// Ignore is the setting ignore: patterns of paths in documents where nothing counts as a ref.
func (f *File) Ignore() []string { return slices.Clone(f.settings.Ignore) }

// Types gives the Go types of a file and of the settings that providers of all kinds share, from which the JSON Schema is
// made.
func Types() (file, common reflect.Type) {
	return reflect.TypeFor[settingsOfFile](), reflect.TypeFor[providerSettings]()
}
