package config

import (
	"maps"
	"slices"
	"strings"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// OpenClaw is what ids mean that come from OpenClaw, in a request to an exec provider.
type OpenClaw struct {
	// Aliases are refs by the id that stands for them, of the form ^[A-Za-z0-9][A-Za-z0-9._:/#-]{0,255}$. Empty: none.
	Aliases map[string]credref.Ref `yaml:"aliases"`
	// VaultIDs names, for a provider of OpenClaw, ours whose secrets the ids <path>/<field> are, as those of OpenClaw's own
	// resolver for Vault: a provider, or provider/mount where its ids begin with the mount. Empty: there are none.
	VaultIDs map[string]string `yaml:"vault_ids"`
}

// OpenClaw is the setting openclaw.
func (f *File) OpenClaw() OpenClaw {
	o := f.settings.OpenClaw
	return OpenClaw{Aliases: maps.Clone(o.Aliases), VaultIDs: maps.Clone(o.VaultIDs)}
}

// checkOpenClaw checks that OpenClaw can send the aliases, and that what ids stand for is there.
func (f *File) checkOpenClaw(p *problems) {
	section := f.root.get("openclaw")
	if section == nil || section.kind != kindMapping {
		return
	}
	names := make([]string, 0, len(f.providers))
	for _, def := range f.providers {
		names = append(names, def.Name)
	}
	slices.Sort(names)
	known := func(n *node, path, provider string) {
		if f.Provider(provider) != nil {
			return
		}
		hint := "known providers: " + strings.Join(names, ", ")
		if near := backend.Nearest(provider, names); near != "" {
			hint = "did you mean " + near + "?"
		}
		p.add(n, path, "it names a provider that is not configured; %s", hint)
	}
	if aliases := section.get("aliases"); aliases != nil && aliases.kind == kindMapping {
		for _, pr := range aliases.pairs {
			path := join("openclaw.aliases", pr.key.text)
			if !openClawID(pr.key.text) {
				p.add(pr.key, path, `OpenClaw cannot send such an id: it must match ^[A-Za-z0-9][A-Za-z0-9._:/#-]{0,255}$ and have no segment "." or ".."`)
			}
			if ref, ok := f.settings.OpenClaw.Aliases[pr.key.text]; ok && ref.Provider != "" {
				known(pr.value, path, ref.Provider)
			}
		}
	}
	if ids := section.get("vault_ids"); ids != nil && ids.kind == kindMapping {
		for _, pr := range ids.pairs {
			provider, _, _ := strings.Cut(pr.value.text, "/")
			known(pr.value, join("openclaw.vault_ids", pr.key.text), provider)
		}
	}
}

// openClawID reports whether id is one of an exec provider, by the rules of OpenClaw 2026.9.6.
func openClawID(id string) bool {
	for i, c := range []byte(id) {
		word := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !word && (i == 0 || strings.IndexByte("._:/#-", c) < 0) {
			return false
		}
	}
	segments := strings.Split(id, "/")
	return id != "" && len(id) <= 256 && !slices.Contains(segments, ".") && !slices.Contains(segments, "..")
}
