package document

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/json5"
)

// Limits of a document where Options leaves them zero.
const (
	MaxBytes = 16 << 20
	MaxDepth = 1000
	MaxNodes = 1_000_000 // keys and values
	MaxRefs  = 100_000
)

// RefStyle says which ways to write a ref are taken for one.
type RefStyle string

// The styles.
const (
	RefsAny   RefStyle = ""      // maps and strings
	RefsShort RefStyle = "short" // strings that start with cred:// alone
)

// Options say what is a ref. The zero Options take both forms, everywhere, of any provider.
type Options struct {
	Refs RefStyle
	// Ignore are patterns over the path of a value, written as a JSON Pointer: /metadata, /services/*/labels, /**/spec. In
	// a segment *, ? and [a-z] match as in package path, ** stands for any number of segments. What a pattern matches is
	// left alone with all that is in it.
	Ignore []string
	// Providers are the names of the known providers: a ref to another is an error. Nil takes any name.
	Providers []string
	// Foreign finds refs of another kind. Nil: there are none. RefsShort leaves them alone, and so does Ignore.
	Foreign *Foreign
	// MaxBytes, MaxDepth, MaxNodes and MaxRefs bound the document; zero takes the constant of the same name.
	MaxBytes, MaxDepth, MaxNodes, MaxRefs int
}

// Foreign finds refs of another kind beside CredentialRefs, of which this package knows no more than where they stand. Its
// functions are called in the order of the document, perhaps twice for one place, and must have no effect.
type Foreign struct {
	// Keys are the keys that a map may have to be such a ref. A map whose keys are all those of a CredentialRef is none.
	Keys []string
	// Map gives the ref that a map is whose members are strings, with none but Keys; false when it is none.
	Map func(members map[string]string) (any, bool)
	// Text gives the ref that a whole string is, which never starts with cred://. Nil: no string is one.
	Text func(text string) (any, bool)
}

type settings struct {
	foreign   *Foreign
	style     RefStyle
	ignore    []glob
	providers []string

	maxBytes, maxDepth, maxNodes, maxRefs int
}

func (o Options) settings() (*settings, error) {
	if o.Refs != RefsAny && o.Refs != RefsShort {
		return nil, backend.Errorf(backend.CodeUsage, "refs: %q is no style; leave it empty, or write short", string(o.Refs))
	}
	or := func(n, zero int) int {
		if n <= 0 {
			return zero
		}
		return n
	}
	s := &settings{
		style: o.Refs, providers: o.Providers,
		maxBytes: or(o.MaxBytes, MaxBytes), maxDepth: or(o.MaxDepth, MaxDepth), maxNodes: or(o.MaxNodes, MaxNodes), maxRefs: or(o.MaxRefs, MaxRefs),
	}
	if o.Foreign != nil && o.Refs != RefsShort {
		s.foreign = o.Foreign
	}
	for _, pattern := range o.Ignore {
		g, err := parseGlob(pattern)
		if err != nil {
			return nil, err
		}
		s.ignore = append(s.ignore, g)
	}
	return s, nil
}

// Document is a document whose refs were found. It is immutable and safe for concurrent use.
type Document struct {
	src    *source
	format Format
	opts   *settings
	sites  []*Site
	broken error // what Parse reported
}

// Parse finds the refs of src. name is what errors call the document. Everything that is wrong with it is reported at
// once, but for what stops the reading; see the package comment. Where the document could be read to its end the error
// comes with a Document: Refs gives the refs that nothing is wrong with, Render and Env give the error again.
func Parse(name string, src []byte, format Format, o Options) (*Document, error) {
	opts, err := o.settings()
	if err != nil {
		return nil, err
	}
	if len(src) > opts.maxBytes {
		return nil, backend.Errorf(backend.CodeUsage, "%s: the document has %d bytes, more than the limit of %d", name, len(src), opts.maxBytes)
	}
	d := &Document{src: &source{name: name, text: string(src)}, format: format, opts: opts}
	if !utf8.Valid(src) {
		at := 0
		for at < len(src) {
			char, size := utf8.DecodeRune(src[at:])
			if char == utf8.RuneError && size == 1 {
				break
			}
			at += size
		}
		return nil, d.src.report(fault{offset: at, reason: "the document is not UTF-8"})
	}
	f := newFinder(d.src, opts)
	d.broken = d.read(f)
	if d.broken != nil && !f.readAll {
		return nil, d.broken
	}
	d.sites = f.sites
	return d, d.broken
}

// read runs the reader of the format. A panic of a reader, which is a mistake of ours or of the TOML library, becomes an
// error: a document must not take down the process that reads it.
func (d *Document) read(f *finder) (err error) {
	defer func() {
		if recover() != nil {
			err = backend.Errorf(backend.CodeInternal, "%s: the %s reader failed on this document; please report it", d.src.name, d.format)
		}
	}()
	switch d.format {
	case YAML:
		err = readYAML(f)
	case JSON:
		err = readJSON(f, json5.JSON)
	case JSON5:
		err = readJSON(f, json5.JSON5)
	case TOML:
		err = readTOML(f)
	case Env:
		err = readEnv(f)
	default:
		return backend.Errorf(backend.CodeUsage, "%s: unknown format %q: it is yaml, json, json5, toml or env", d.src.name, string(d.format))
	}
	return f.finish(err)
}

// Refs gives every ref in the order of the document. A fallback is part of the Site of the ref it belongs to.
func (d *Document) Refs() []*Site { return append([]*Site(nil), d.sites...) }

// Source gives the document as it was parsed.
func (d *Document) Source() []byte { return []byte(d.src.text) }

// Env gives the variables that the document sets, in its order: the lines of a .env file, or the keys of a flat map,
// whose numbers and booleans are taken as they are written. A key with null sets nothing. A map that is not flat, or a
// stream of several YAML documents, is an error of code usage.
func (d *Document) Env() ([]Var, error) {
	if d.broken != nil {
		return nil, d.broken
	}
	vars := []Var{}
	f := newFinder(&source{name: d.src.name, text: d.src.text}, d.opts)
	f.vars = &vars
	if err := d.read(f); err != nil {
		return nil, err
	}
	if f.documents > 1 || f.notMap {
		return nil, backend.Errorf(backend.CodeUsage, "%s: variables come from one map of names and values, or from a .env file", d.src.name)
	}
	own := make(map[int]*Site, len(d.sites))
	for _, s := range d.sites {
		own[s.value.start] = s
	}
	for i := range vars {
		if vars[i].Site != nil {
			vars[i].Site = own[vars[i].Site.value.start]
		}
	}
	return vars, nil
}

// Render gives the document with each ref replaced by what resolve gives for it; resolve is called in the order of the
// document. Every error of resolve is reported, joined and wrapped with the place of its ref, and so is a value that the
// format cannot hold, which is errors.ErrUnsupported. Then there is no output. The bytes returned hold secrets and are
// the caller's to zero.
func (d *Document) Render(resolve func(*Site) (Replacement, error)) ([]byte, error) {
	if d.broken != nil {
		return nil, d.broken
	}
	e := editor{text: d.src.text, yaml: d.format == YAML, edits: make([]edit, 0, len(d.sites))}
	defer e.wipe()
	q := newQuoter(d.format, &e)
	var errs []error
	failed := 0
	fail := func(s *Site, err error) {
		if failed++; failed <= maxFaults {
			errs = append(errs, fmt.Errorf("%s: %w", s.place(), err))
		}
	}
	var removed []*Site
	for _, s := range d.sites {
		r, err := resolve(s)
		switch {
		case err != nil:
			fail(s, err)
		case r.Keep:
		case r.Remove && !s.Optional:
			fail(s, backend.Errorf(backend.CodeUsage, "the ref is not optional and cannot be removed"))
		case r.Remove && s.aliased:
			fail(s, backend.Errorf(backend.CodeUnsupported, "the optional ref has no value and cannot be removed, since an alias names its anchor"))
		case r.Remove && s.table != nil:
			e.replaceTable(s, nil)
		case r.Remove && s.entry == nil:
			e.replace(s, []byte("null"), true)
		case r.Remove:
			removed = append(removed, s)
		default:
			text, err := q.quote(r.Secret)
			if err != nil {
				fail(s, err)
				continue
			}
			if s.table != nil {
				e.replaceTable(s, text)
				continue
			}
			e.replace(s, text, r.Secret.IsJSON())
		}
	}
	if failed > maxFaults {
		errs = append(errs, backend.Errorf(backend.CodeUsage, "%s: and %d more errors", d.src.name, failed-maxFaults))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	e.remove(removed)
	return e.apply(), nil
}

func (s *Site) place() string {
	return fmt.Sprintf("%s:%d:%d: %s", s.File, s.Line, s.Column, s.Path)
}
