package secretref

import (
	"slices"

	"github.com/credresolve/credresolve/backend"
)

// EnvProvider reads environment variables. A variable that is blank is missing.
type EnvProvider struct {
	// Allowlist are the names that may be read. Nil: all; empty: none.
	Allowlist []string
}

func (p *EnvProvider) resolve(g *group, h Host) []answer {
	answers := make([]answer, len(g.ids))
	for i, name := range g.ids {
		value, _ := h.lookup(name)
		switch {
		case p.Allowlist != nil && !slices.Contains(p.Allowlist, name):
			answers[i].err = g.refuse(RefPolicyDenied, name, "Environment variable %q is not allowlisted in secrets.providers.%s.allowlist.", name, g.provider)
		case trim(value) == "":
			answers[i].err = g.refuse(RefNotFound, name, "Environment variable %q is missing or empty.", name)
		default:
			answers[i].value = backend.NewSecretString(value)
		}
	}
	return answers
}
