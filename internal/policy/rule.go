package policy

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
)

// unescape undoes the escapes of RFC 6901. A Replacer looks at each place once, so that ~01 becomes ~1 and no /.
var unescape = strings.NewReplacer("~1", "/", "~0", "~")

// rule allows refs.
type rule struct {
	label     string // where it stands: "consumers[1] web allow[0]"
	providers []string
	id        pattern
	version   string     // the only version, if there is one
	fields    [][]string // paths of the only fields, if there are any
	whole     bool       // with fields: the whole secret too
	login     bool       // to log in too
}

// newRule reads a rule of the configuration. providers are the names that there are.
func newRule(label string, r config.AllowRule, providers []string) (rule, error) {
	out := rule{label: label, whole: r.Whole, login: r.Login}
	if _, err := path.Match(r.Provider, ""); err != nil || r.Provider == "" {
		return rule{}, errors.New("the pattern of the provider is empty or malformed")
	}
	for _, name := range providers {
		if ok, _ := path.Match(r.Provider, name); ok {
			out.providers = append(out.providers, name)
		}
	}
	var err error
	if out.id, err = compile(r.ID); err != nil {
		return rule{}, fmt.Errorf("id: %w", err)
	}
	for _, field := range r.Fields {
		if field == "" {
			return rule{}, errors.New("a field is empty; whole: true allows the whole secret")
		}
		if err := (credref.Ref{Provider: "p", ID: "i", Field: field}).Validate(); err != nil {
			return rule{}, errors.New("a field is neither a key nor a JSON Pointer")
		}
		out.fields = append(out.fields, fieldPath(field))
	}
	return out, nil
}

// exactly gives the rule that allows ref, which is valid: what it names, and with a field no more than that.
func exactly(label string, ref credref.Ref) rule {
	r := rule{label: label, providers: []string{ref.Provider}, id: literally(ref.ID), version: ref.Version}
	if ref.Field != "" {
		r.fields = [][]string{fieldPath(ref.Field)}
	}
	return r
}

// Reasons why a rule for the secret does not allow a ref to it.
const (
	reasonFields    = "other fields of the secret are allowed, this one is not"
	reasonWhole     = "fields of the secret are allowed, the whole secret is not"
	reasonVersion   = "another version of the secret is allowed, this one is not"
	reasonAmbiguous = "the id has a segment . or .., an empty segment, a backslash or a percent-escape, which a rule must name literally"
	reasonLogin     = "the rule allows to resolve it, and not to log in for it"
	reasonNone      = "no rule allows it"
)

// decide gives the first of rules that allows ref, else the reason that comes nearest.
func decide(rules []rule, ref *credref.Ref) Decision {
	denied := Decision{Rule: ByDefault, Reason: reasonNone}
	ambiguous := isAmbiguous(ref.ID)
	if ambiguous {
		denied.Reason = reasonAmbiguous
	}
	var field []string
	if ref.Field != "" {
		field = fieldPath(ref.Field)
	}
	for i := range rules {
		r := &rules[i]
		switch {
		case !slices.Contains(r.providers, ref.Provider) || !r.id.matches(ref.ID, ambiguous):
		case r.version != "" && r.version != ref.Version:
			denied.Reason = reasonVersion
		case r.fields == nil,
			field == nil && r.whole,
			field != nil && slices.ContainsFunc(r.fields, func(of []string) bool { return within(field, of) }):
			return Decision{Allowed: true, Rule: r.label}
		case field == nil:
			denied.Reason = reasonWhole
		default:
			denied.Reason = reasonFields
		}
	}
	return denied
}
