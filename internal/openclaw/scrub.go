package openclaw

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/credresolve/credresolve/internal/authstore"
	"github.com/credresolve/credresolve/internal/json5"
	"github.com/credresolve/credresolve/secretref"
)

// leastTelling is the length from which a value counts as a secret's wherever it stands; a shorter one may be there by chance.
const leastTelling = 8

// managedMarker is what OpenClaw writes into models.json in the place of a secret that a ref gives.
const managedMarker = "secretref-managed"

// scrub finds what else holds the secrets that move. Stores come first, since profiles of a provider that has a ref now add
// secrets to those that move.
func (a *applying) scrub(config *fileChange) error {
	if a.plan.Options.ScrubAuthProfiles && len(a.migrated) > 0 {
		if err := a.scrubStores(); err != nil {
			return err
		}
	}
	var late []*fileChange
	if a.plan.Options.ScrubLegacyAuth && a.State != "" {
		for _, agent := range a.Agents {
			if err := a.scrubFile(filepath.Join(agent.Dir, "auth.json"), a.legacyEdits, &late); err != nil {
				return err
			}
		}
	}
	if a.plan.Options.ScrubEnv && len(a.moved)+len(a.names) > 0 {
		used := a.usedNames()
		for _, path := range a.EnvFiles {
			if err := a.scrubEnv(path, used); err != nil {
				return err
			}
		}
		for _, path := range a.modelsFiles() {
			if err := a.scrubFile(path, a.modelsEdits, &late); err != nil {
				return err
			}
		}
		for _, path := range a.backups() {
			if err := a.scrubFile(path, a.backupEdits, &late); err != nil {
				return err
			}
		}
	}
	a.changes = append(a.changes, late...)
	for _, path := range slices.Sorted(mapKeys(a.stores)) {
		s := a.stores[path]
		if len(s.edits) == 0 {
			continue
		}
		after, err := s.file.Apply(s.edits)
		if err != nil {
			return fmt.Errorf("%s cannot be changed and keep what is in it: %w", path, err)
		}
		if s.after = after; !bytes.Equal(s.before, after) {
			a.changes = append(a.changes, s.fileChange)
			a.remains(path, after)
		}
	}
	a.remains(config.path, config.after)
	return nil
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// scrubStores takes the secrets of profiles out whose provider has a ref in the configuration now.
func (a *applying) scrubStores() error {
	for _, s := range a.ProfileStores(a.ctx) {
		if s.Kind == StoreFile || s.Root == nil {
			continue
		}
		for _, c := range credentials(s.Root) {
			switch {
			case !a.migrated[providerID(c.provider)]:
			case c.oauth:
				a.warnOAuth(c, s.Path)
			case a.plain(c.value):
				return fmt.Errorf("%s holds a secret of provider %s in plain text, which OpenClaw alone can take out; nothing was changed: run openclaw secrets apply with this plan, or set its options.scrubAuthProfilesForProviderTargets to false",
					s.Path, c.provider)
			}
		}
	}
	for _, agent := range a.Agents {
		path := filepath.Join(agent.Dir, authstore.FileName)
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		s, err := a.store(path, agent.ID)
		if err != nil {
			return err
		}
		root, _ := s.file.Root().Value().(map[string]any)
		for _, c := range credentials(root) {
			if !a.migrated[providerID(c.provider)] || a.targeted(agent.ID, c) {
				continue
			}
			if c.oauth {
				a.warnOAuth(c, path)
			}
			if c.field == "" {
				continue
			}
			in := func(key string) []string { return []string{"profiles", c.id, key} }
			if a.plain(c.value) {
				a.leaves(c.value)
				s.edits = append(s.edits, json5.Edit{Path: in(c.field), Delete: true})
			}
			if _, ok := a.Grammar.FromValue(c.ref); c.ref != nil && !ok {
				s.edits = append(s.edits, json5.Edit{Path: in(c.field + "Ref"), Delete: true})
			}
		}
	}
	return nil
}

func (a *applying) warnOAuth(c credential, path string) {
	a.warn("provider %s has OAuth credentials in %s: they take precedence of the reference, and stay", c.provider, path)
}

// targeted reports whether a target of the plan is the profile c.
func (a *applying) targeted(agent string, c credential) bool {
	return slices.ContainsFunc(a.plan.Targets, func(t PlanTarget) bool { return t.surface.Profile && t.Agent == agent && t.Path[1] == c.id })
}

// plain reports whether v is a secret in plain text.
func (a *applying) plain(v any) bool {
	_, ref := a.Grammar.FromValue(v)
	return !ref && filled(v, secretref.String)
}

// usedNames are the variables that something reads after the plan: refs and texts of the configuration, programs, and refs of
// profiles.
func (a *applying) usedNames() map[string]bool {
	used := map[string]bool{}
	var walk func(any)
	walk = func(v any) {
		if ref, ok := a.next.Grammar.FromValue(v); ok {
			if ref.Source == secretref.Env {
				used[ref.ID] = true
			}
			return
		}
		switch v := v.(type) {
		case string:
			for _, m := range variableInText().FindAllStringSubmatch(v, -1) {
				used[m[1]] = true
			}
		case []any:
			for _, item := range v {
				walk(item)
			}
		case map[string]any:
			for key, value := range v {
				if list, ok := value.([]any); ok && key == "passEnv" {
					for _, name := range list {
						used[text(name)] = true
					}
				}
				walk(value)
			}
		}
	}
	walk(a.next.Value)
	for _, s := range a.ProfileStores(a.ctx) {
		walk(s.Root)
	}
	for _, s := range a.stores {
		if s.file != nil {
			walk(s.file.Root().Value())
		}
	}
	for _, t := range a.plan.Targets {
		if t.Ref.Source == secretref.Env {
			used[strings.TrimSpace(t.Ref.ID)] = true
		}
	}
	return used
}

// scrubEnv takes the lines out of an .env file whose value moved. A variable that something reads stays.
func (a *applying) scrubEnv(path string, used map[string]bool) error {
	content, err := readFile(path, mostEnv)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w; nothing was changed", path, err)
	}
	defer clear(content)
	var after []byte
	for line := range bytes.Lines(content) {
		m := envAssignment().FindSubmatch(bytes.TrimRight(line, "\r\n"))
		if m == nil {
			after = append(after, line...)
			continue
		}
		name, value := string(m[1]), strings.TrimSpace(unquoted(string(m[2])))
		moves := a.names[name] || a.moved[value] && (SecretVariable(name) || len(value) >= leastTelling)
		switch {
		case moves && used[name]:
			a.warn("%s: %s stays, since something still reads it", path, name)
			fallthrough
		case !moves:
			after = append(after, line...)
		}
	}
	if bytes.Equal(content, after) {
		clear(after)
		return nil
	}
	c, err := openChange(a.ctx, path)
	if err != nil {
		clear(after)
		return err
	}
	c.after = after
	a.changes = append(a.changes, c)
	if !bytes.Equal(c.before, content) {
		return fmt.Errorf("%s was changed meanwhile by another program; run the command again", path)
	}
	a.remains(path, after)
	return nil
}

// scrubFile edits a file beside the configuration; one that does not exist, or that is no JSON, is left as it is.
func (a *applying) scrubFile(path string, edits func(*json5.File) []json5.Edit, to *[]*fileChange) error {
	content, err := readFile(path, json5.MaxBytes)
	if err != nil {
		return nil // nothing to scrub, or nothing that this user could
	}
	defer clear(content)
	file, err := json5.Parse(content)
	if err != nil {
		a.remains(path, content)
		return nil // said by remains, if it matters
	}
	wanted := edits(file)
	if len(wanted) == 0 {
		a.remains(path, content)
		return nil
	}
	after, err := file.Apply(wanted)
	if err != nil {
		return fmt.Errorf("%s cannot be changed and keep what is in it: %w", path, err)
	}
	c, err := openChange(a.ctx, path)
	if err != nil {
		clear(after)
		return err
	}
	c.after = after
	*to = append(*to, c)
	if !bytes.Equal(c.before, content) {
		return fmt.Errorf("%s was changed meanwhile by another program; run the command again", path)
	}
	a.remains(path, after)
	return nil
}

// legacyEdits take the keys out of an auth.json that moved, or whose provider has a ref now.
func (a *applying) legacyEdits(f *json5.File) []json5.Edit {
	var edits []json5.Edit
	root, _ := f.Root().Value().(map[string]any)
	for _, provider := range slices.Sorted(mapKeys(root)) {
		entry := object(root[provider])
		key := strings.TrimSpace(text(entry["key"]))
		if text(entry["type"]) == "api_key" && key != "" && (a.moved[key] || a.migrated[providerID(provider)]) {
			a.leaves(key)
			edits = append(edits, json5.Edit{Path: []string{provider}, Delete: true})
		}
	}
	return edits
}

// modelsEdits put OpenClaw's own marker in the place of secrets that moved.
func (a *applying) modelsEdits(f *json5.File) []json5.Edit {
	var edits []json5.Edit
	providers := f.Root().Get("providers")
	if providers == nil {
		return nil
	}
	for _, m := range providers.Members {
		if key := m.Value.Get("apiKey"); key != nil && key.Kind == json5.String && a.moved[strings.TrimSpace(key.Text)] {
			edits = append(edits, json5.Edit{Path: []string{"providers", m.Key, "apiKey"}, Value: managedMarker})
		}
		if headers := m.Value.Get("headers"); headers != nil {
			for _, h := range headers.Members {
				if h.Value.Kind == json5.String && a.moved[strings.TrimSpace(h.Value.Text)] {
					edits = append(edits, json5.Edit{Path: []string{"providers", m.Key, "headers", h.Key}, Value: managedMarker})
				}
			}
		}
	}
	return edits
}

// backups are the copies of the configuration that OpenClaw keeps beside it.
func (a *applying) backups() []string {
	if a.State == "" {
		return nil // what is beside another document is not known
	}
	entries, err := os.ReadDir(filepath.Dir(a.Config))
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(a.Config)+".") && e.Type().IsRegular() {
			out = append(out, filepath.Join(filepath.Dir(a.Config), e.Name()))
		}
	}
	return out
}

// backupEdits put the plan's refs in the place of secrets that moved.
func (a *applying) backupEdits(f *json5.File) []json5.Edit {
	var edits []json5.Edit
	for _, t := range a.plan.Targets {
		if t.surface.Profile {
			continue
		}
		if there := f.Root().Get(t.Path...); there != nil && there.Kind == json5.String && a.moved[strings.TrimSpace(there.Text)] {
			edits = append(edits, json5.Edit{Path: t.Path, Value: refJSON(t.Ref)})
		}
	}
	return edits
}

// remains warns of secrets that moved and are still in a file, where the plan does not reach.
func (a *applying) remains(path string, content []byte) {
	for secret := range a.moved {
		at := bytes.Index(content, []byte(secret))
		if len(secret) < leastTelling || at < 0 {
			continue
		}
		a.warn("%s:%d still holds a secret that moved", path, 1+bytes.Count(content[:at], []byte("\n")))
	}
}
