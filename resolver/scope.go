package resolver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unique"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// validateScope checks what p says about subjects.
func validateScope(name string, p Provider) error {
	for _, s := range p.Scope {
		switch s {
		case ScopeSession, ScopeEndUser, ScopeTenant, ScopePlugin:
		default:
			return backend.Errorf(backend.CodeInvalidConfig, "provider %s: unknown scope %q; known: session, end_user, tenant, plugin", name, s)
		}
	}
	if p.IDTemplate == "" {
		return nil
	}
	hasID := false
	last, apart := "", true // the name before, and whether the text since then keeps it apart from the next
	for part, isName := range templateParts(p.IDTemplate) {
		if isName {
			if !apart && (last != "id" || part != "id") {
				return &backend.Error{
					Code:   backend.CodeInvalidConfig,
					Reason: fmt.Sprintf("provider %s: in the id_template {%s} and {%s} are not kept apart, so that two subjects could have one id", name, last, part),
					Remedy: "write a / between them",
				}
			}
			last, apart = part, false
		}
		switch {
		case !isName:
			apart = apart || strings.ContainsFunc(part, func(c rune) bool { return c != '%' && !unescaped(c, false) })
			if strings.ContainsAny(part, "{}") {
				return backend.Errorf(backend.CodeInvalidConfig, "provider %s: the id_template has a brace without its pair", name)
			}
		case part == "id":
			hasID = true
		case !slices.Contains(p.Scope, Scope(part)):
			return backend.Errorf(backend.CodeInvalidConfig, "provider %s: the id_template names {%s}, which is not in the provider's scope", name, part)
		}
	}
	if !hasID {
		return backend.Errorf(backend.CodeInvalidConfig, "provider %s: the id_template lacks {id}", name)
	}
	return nil
}

// templateParts yields the texts of t, and the names in braces between them.
func templateParts(t string) func(yield func(part string, isName bool) bool) {
	return func(yield func(string, bool) bool) {
		for t != "" {
			text, rest, found := strings.Cut(t, "{")
			if text != "" && !yield(text, false) {
				return
			}
			if !found {
				return
			}
			name, after, closed := strings.Cut(rest, "}")
			if !closed {
				yield("{", false)
				return
			}
			if !yield(name, true) {
				return
			}
			t = after
		}
	}
}

// target is one place where a ref may be found: an entry of the cache, and the id that the store is asked for. It never
// changes.
type target struct {
	key key
	id  string
}

func (t *target) request() backend.Request {
	return backend.Request{ID: t.id, Version: t.key.version, Subject: backend.Subject(t.key.whom())}
}

// whom is the subject of k.
func (k key) whom() credref.Subject {
	if k.subject == (unique.Handle[credref.Subject]{}) {
		return credref.Subject{}
	}
	return k.subject.Value()
}

// targets gives the places in which ref is looked for, for subject, in their order: session, end user, tenant, everybody.
// A provider without scope has one.
func (p *provider) targets(ref credref.Ref, subject credref.Subject) ([]target, error) {
	k := key{provider: p.name, id: ref.ID, version: ref.Version}
	if len(p.Scope) == 0 {
		return []target{{k, ref.ID}}, nil
	}
	if p.IDTemplate != "" && climbs(ref.ID) {
		return nil, backend.Errorf(backend.CodeInvalidID, "an id of a scoped provider may not have . or .. as a part")
	}
	var out []target
	for _, s := range levels(p.Scope, subject) {
		k.subject = unique.Handle[credref.Subject]{}
		if s != (credref.Subject{}) {
			k.subject = unique.Make(s)
		}
		at := ref.ID
		if p.IDTemplate != "" {
			id, ok := fill(p.IDTemplate, ref.ID, s)
			// Two levels with the same id are the same secret of the store.
			if !ok || slices.ContainsFunc(out, func(t target) bool { return t.id == id }) {
				continue
			}
			at = id
		}
		out = append(out, target{k, at})
	}
	if len(out) == 0 {
		return nil, &backend.Error{
			Code:   backend.CodeDenied,
			Reason: "the provider's id_template names a part that the caller's subject lacks",
			Remedy: "resolve it for a subject that has it",
		}
	}
	return out, nil
}

// levels gives the subjects under which a credential for s may be kept, the narrowest first. A plugin has no share in
// another's or everybody's: it is a part of each of them.
func levels(scope []Scope, s credref.Subject) []credref.Subject {
	has := func(want Scope) bool { return slices.Contains(scope, want) }
	level := credref.Subject{}
	if has(ScopePlugin) {
		level.Plugin = s.Plugin
	}
	out := []credref.Subject{level}
	add := func(part Scope, value string, set func()) {
		if has(part) && value != "" {
			set()
			out = append(out, level)
		}
	}
	add(ScopeTenant, s.Tenant, func() { level.Tenant = s.Tenant })
	add(ScopeEndUser, s.EndUser, func() { level.EndUser = s.EndUser })
	add(ScopeSession, s.Session, func() { level.Session = s.Session })
	slices.Reverse(out)
	return out
}

// fill makes an id of template; it reports false when s lacks a part that the template names.
func fill(template, id string, s credref.Subject) (string, bool) {
	var b strings.Builder
	for part, isName := range templateParts(template) {
		if !isName {
			b.WriteString(part)
			continue
		}
		value := ""
		switch Scope(part) {
		case ScopeSession:
			value = s.Session
		case ScopeEndUser:
			value = s.EndUser
		case ScopeTenant:
			value = s.Tenant
		case ScopePlugin:
			value = s.Plugin
		default:
			b.WriteString(id)
			continue
		}
		if value == "" {
			return "", false
		}
		escapePart(&b, value)
	}
	return b.String(), true
}

// unescaped reports whether escapePart writes c as it is; dots: all of the part are.
func unescaped(c rune, dots bool) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '_' || c == '@' || c == '+' || c == '.' && !dots
}

// escapePart writes s so that it is one part of any store's path, and no two texts are written alike.
func escapePart(b *strings.Builder, s string) {
	const upperHex = "0123456789ABCDEF"
	dots := strings.Trim(s, ".") == ""
	for i := range len(s) {
		c := s[i]
		if unescaped(rune(c), dots) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(upperHex[c>>4])
		b.WriteByte(upperHex[c&15])
	}
}

func climbs(id string) bool {
	for part := range strings.SplitSeq(id, "/") {
		if part == "." || part == ".." {
			return true
		}
	}
	return false
}

// nobody is the error of a ref for which no target has anything; errs are those of targets. Where somebody can log in, it is that
// of the narrowest for whom that is so, with a login if the provider begins one.
func (p *provider) nobody(ctx context.Context, targets []target, errs []error) error {
	for i, err := range errs {
		if backend.CodeOf(err) != backend.CodeAuthRequired {
			continue
		}
		if b, ok := p.Backend.(backend.LoginBeginner); ok && len(p.Scope) > 0 {
			return b.BeginLogin(ctx, targets[i].request())
		}
		return err
	}
	return errs[len(errs)-1]
}
