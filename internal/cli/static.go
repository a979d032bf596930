package cli

import (
	"context"
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref/document"
	"github.com/credresolve/credresolve/internal/json5"
	"github.com/credresolve/credresolve/internal/openclaw"
	"github.com/credresolve/credresolve/secretref"
)

// statics resolves the SecretRefs of an OpenClaw document, or of all other documents.
type statics struct {
	grammar secretref.Grammar
	config  secretref.Config
	host    secretref.Host
	// refuse gives why a provider may not be asked; nil for one that may.
	refuse func(name string, p secretref.Provider) error
	// err is why none of them resolves, nil when they may.
	err error
	// expected is what places take that take more than strings.
	expected map[string]secretref.Expected
}

// static is a SecretRef in a document.
type static struct {
	secretref.Ref
	of *statics
}

// staticRef is the SecretRef at a site, if it is one.
func staticRef(site *document.Site) (secretref.Ref, bool) {
	s, ok := site.Foreign.(static)
	return s.Ref, ok
}

// label is how messages call the ref whose value a site has.
func (o settled) label(site *document.Site) string {
	if ref, ok := staticRef(site); ok {
		return ref.Key()
	}
	return o.used.String()
}

// foreign has a document of a format find the refs that st resolves.
func (st *statics) foreign(format document.Format) *document.Foreign {
	f := &document.Foreign{
		Keys: []string{"source", "provider", "id"},
		Map: func(members map[string]string) (any, bool) {
			ref, ok := st.grammar.FromObject(members, false)
			return static{ref, st}, ok
		},
	}
	if st.grammar.Shorthands && format != document.Env {
		f.Text = func(text string) (any, bool) {
			if !strings.Contains(text, "$") {
				return nil, false
			}
			ref, ok := st.grammar.FromString(text)
			return static{ref, st}, ok
		}
	}
	return f
}

// ownHome is the OpenClaw home of this user.
func (a *app) ownHome() (openclaw.Home, error) {
	return openclaw.Find(a.lookupEnv, systemHome())
}

func systemHome() string {
	if u, err := user.Current(); err == nil {
		return u.HomeDir
	}
	return ""
}

// isOwnHome reports whether path is the configuration of this user's OpenClaw home.
func (a *app) isOwnHome(path string) bool {
	home, err := a.ownHome()
	if err != nil {
		return false
	}
	one, err := os.Stat(path)
	if err != nil {
		return false
	}
	two, err := os.Stat(home.Config)
	return err == nil && os.SameFile(one, two)
}

// isOpenClaw reports whether the document at path is one of OpenClaw, where shorthands are SecretRefs too.
func (a *app) isOpenClaw(path string, f documentFlags) bool {
	return f.openClaw || path != "-" && (filepath.Base(path) == "openclaw.json" || a.isOwnHome(path))
}

// staticsOf finds what resolves the SecretRefs of a document: for one of OpenClaw its own section secrets, for another the
// section secretref of the configuration.
func (s *session) staticsOf(path string, src []byte, format document.Format, f documentFlags) *statics {
	compat := s.file.SecretRefs().Compat
	if f.compat != "" {
		compat = secretref.Compat(f.compat)
	}
	isOpenClaw := s.app.isOpenClaw(path, f)
	if isOpenClaw && (format == document.JSON || format == document.JSON5) {
		return s.app.openClawStatics(path, src, compat, f)
	}
	if s.others == nil {
		c := s.file.SecretRefs()
		c.Compat = compat
		home, _ := s.app.lookupEnv("HOME")
		s.others = &statics{
			grammar: secretref.Grammar{Compat: compat, Defaults: c.Defaults}, config: c,
			host: secretref.Host{LookupEnv: s.app.lookupEnv, Home: home, Dir: s.file.Dir()},
			refuse: func(name string, _ secretref.Provider) error {
				if s.untrusted {
					return s.file.UntrustedSecretRefs(name)
				}
				return nil
			},
		}
	}
	if !isOpenClaw {
		return s.others
	}
	short := *s.others
	short.grammar.Shorthands = true
	return &short
}

// openClawStatics is staticsOf for a document of OpenClaw.
func (a *app) openClawStatics(path string, src []byte, compat secretref.Compat, f documentFlags) *statics {
	own := path != "-" && a.isOwnHome(path)
	home := openclaw.FileHomeIn(path, a.lookupEnv, systemHome())
	if own {
		home, _ = a.ownHome()
	}
	home.Compat = compat
	st := &statics{grammar: secretref.Grammar{Compat: compat, Shorthands: true}, config: secretref.Config{Compat: compat}}
	dir := filepath.Dir(home.Config)
	if path == "-" {
		file, err := json5.Parse(src)
		if err != nil {
			return st // the document's own reader says what is wrong with it
		}
		secrets := file.Root().Get("secrets")
		if secrets != nil {
			if st.config, err = secretref.DecodeConfig(secrets.Value(), compat); err != nil {
				st.err = backend.Errorf(backend.CodeInvalidConfig, "%v", err)
				return st
			}
		}
		dir, _ = os.Getwd()
		st.host = secretref.Host{LookupEnv: a.lookupEnv, Home: systemHome(), Dir: dir}
	} else {
		d, err := home.Load()
		if err != nil {
			if _, broken := json5.Parse(src); broken != nil {
				return st // the same
			}
			st.err = backend.Errorf(backend.CodeInvalidConfig, "%v", err)
			return st
		}
		st.config, st.host = d.Secrets, d.Host()
		if !own {
			st.host.Dir = dir // where refuse looks, wherever this process was started
		}
		targets, err := openclaw.TargetsIn(d.Value, d.Grammar, d.LookupEnv)
		if err != nil {
			st.err = backend.Errorf(backend.CodeInvalidConfig, "%s: %v", path, err)
			return st
		}
		st.expected = make(map[string]secretref.Expected)
		for _, target := range targets {
			if target.Expected != secretref.String {
				st.expected[target.Path] = target.Expected
			}
		}
	}
	st.grammar.Defaults = st.config.Defaults
	if !own && !f.allowExec {
		st.refuse = func(name string, p secretref.Provider) error {
			if config.HarmlessSecretRefs(p, dir) {
				return nil
			}
			what := "runs a program"
			if p.File != nil {
				what = "reads a file outside of the document's directory"
			}
			return &backend.Error{
				Code:   backend.CodeDenied,
				Reason: "the provider " + name + " of this document " + what + ", and the document is not the configuration of your OpenClaw home",
				Remedy: "read its section secrets, and allow it with --allow-exec",
			}
		}
	}
	return st
}

// settleStatic resolves the SecretRefs among sites that which tells, all of one section together: each provider is asked once.
func (s *session) settleStatic(ctx context.Context, sites []*document.Site, which []int, out []settled) {
	groups := make(map[*statics][]int)
	var order []*statics
	for _, i := range which {
		of := sites[i].Foreign.(static).of
		if groups[of] == nil {
			order = append(order, of)
		}
		groups[of] = append(groups[of], i)
	}
	for _, of := range order {
		var refs []secretref.Ref
		var asked []int
		for _, i := range groups[of] {
			ref, _ := staticRef(sites[i])
			if of.err != nil {
				out[i] = settled{how: howFailed, err: of.err}
				continue
			}
			if p, ok := of.config.Providers[ref.Provider]; ok && p.Source == ref.Source && of.refuse != nil {
				if err := of.refuse(ref.Provider, p); err != nil {
					out[i] = settled{how: howFailed, err: err}
					continue
				}
			}
			refs, asked = append(refs, ref), append(asked, i)
		}
		for k, o := range secretref.Resolve(ctx, of.config, of.host, refs) {
			i := asked[k]
			if o.Err == nil {
				expected := of.expected[sites[i].Path]
				if expected == "" {
					expected = secretref.String
				}
				o.Err = secretref.CheckValue(sites[i].Path, o.Value, expected)
			}
			if o.Err != nil {
				out[i] = settled{how: howFailed, err: staticError(ctx, o.Err)}
				continue
			}
			out[i] = settled{how: howRef, static: o.Value}
			s.app.log.Debug("resolved", "ref", o.Ref.Key())
		}
	}
}

// staticCodes are our codes for OpenClaw's.
var staticCodes = map[secretref.Code]backend.Code{
	secretref.ProviderNotConfigured: backend.CodeInvalidConfig,
	secretref.ProviderInvalid:       backend.CodeInvalidConfig,
	secretref.ProviderUnavailable:   backend.CodeUnavailable,
	secretref.PathUnverifiable:      backend.CodeUnsupported,
	secretref.RefNotFound:           backend.CodeNotFound,
	secretref.RefInvalid:            backend.CodeInvalidID,
	secretref.RefPolicyDenied:       backend.CodeDenied,
	secretref.RefProviderError:      backend.CodeUnavailable,
	secretref.RefProviderContract:   backend.CodeUnsupported,
	secretref.RefRedactedValue:      backend.CodeUnsupported,
}

// staticError gives the failure of a SecretRef a code of ours; OpenClaw's sentence stays.
func staticError(ctx context.Context, err error) error {
	if stop := stopped(ctx); stop != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return stop
	}
	if late := late(ctx, err); late != err {
		return late
	}
	code := backend.CodeUnsupported // values that nobody takes, and refs that lead into OpenClaw's own store
	var wrong *secretref.Error
	var malformed *secretref.RefError
	switch {
	case errors.As(err, &wrong):
		code = staticCodes[wrong.Code]
	case errors.As(err, &malformed):
		code = backend.CodeInvalidID
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return err
	}
	return backend.Errorf(code, "%s", strings.TrimSuffix(err.Error(), "."))
}
