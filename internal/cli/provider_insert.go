package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/internal/staged"
	"github.com/credresolve/credresolve/internal/statedir"
	"github.com/credresolve/credresolve/resolver/grants"
)

// changing is a configuration that is to be changed.
type changing struct {
	path string
	old  []byte
	made bool // it is a new one
	home bool // its directory is the user's for it, and made with it
}

// toChange gives the configuration that a provider is to be added to; a new one where there is none.
func (a *app) toChange() (changing, error) {
	path, err := a.locate(nil)
	if err != nil {
		dir, wdErr := os.Getwd()
		if wdErr != nil {
			return changing{}, err
		}
		fresh, named := config.NewPath(a.configPath, a.lookupEnv, dir)
		if fresh == "" {
			return changing{}, err
		}
		return changing{fresh, []byte("version: 1\n"), true, !named}, nil
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return changing{}, backend.Errorf(backend.CodeInvalidConfig, "%s: %s", shown(path), reason(err))
	}
	return changing{path: path, old: old}, nil
}

// addProvider writes a provider into the configuration, unless dry.
func (a *app) addProvider(ctx context.Context, name, text string, dry bool) (*addedProvider, error) {
	if state := a.stateDir(); state != "" { // without, what another wrote meanwhile is only nearly always seen
		unlock, err := statedir.Lock(ctx, state, "config")
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	c, err := a.toChange()
	if err != nil {
		return nil, err
	}
	path, old := c.path, c.old
	file, err := config.Parse(path, old, a.kinds)
	if err != nil {
		return nil, err
	}
	if file.Provider(name) != nil {
		return nil, &backend.Error{Code: backend.CodeConflict, Reason: shown(path) + " has a provider " + name + " already", Remedy: "choose another name, or remove it first"}
	}
	if json.Valid(old) {
		return nil, &backend.Error{Code: backend.CodeUnsupported, Reason: shown(path) + " is JSON, into which nothing is written", Remedy: "see what to add with --dry-run --config of another file, or write the configuration in YAML"}
	}
	changed, added, ok := insertProvider(string(old), name, text)
	next, err := config.Parse(path, []byte(changed), a.kinds)
	if !ok || err == nil && (len(next.Providers()) != len(file.Providers())+1 || next.Provider(name) == nil) {
		return nil, &backend.Error{Code: backend.CodeUnsupported, Reason: shown(path) + ": its providers are neither lines of their own below providers: nor in braces behind it, so that none can be added",
			Remedy: "write each provider on lines of its own below providers:"}
	}
	if err == nil && len(next.Warnings()) > len(file.Warnings()) {
		return nil, &backend.Error{Code: backend.CodeUsage, Reason: "a secret is not taken from the arguments",
			Remedy: "store it with: credresolve put cred://PROVIDER/ID, and give that reference"}
	}
	out := &addedProvider{Path: path, Created: c.made && !dry, Written: !dry, Provider: name, YAML: added}
	if err == nil {
		out.Login, err = a.wantsLogin(next, name)
	}
	if err != nil {
		return nil, fmt.Errorf("with the new provider: %w", err)
	}
	out.Kind = next.Provider(name).Kind
	if dry {
		return out, nil
	}
	return out, c.replace(changed)
}

// wantsLogin tells what the kinds find wrong with the settings, and whether somebody has to log in to the provider.
func (a *app) wantsLogin(file *config.File, name string) (bool, error) {
	r, err := file.Open(config.Options{LookupEnv: a.lookupEnv})
	if err != nil {
		return false, err
	}
	defer r.Close()
	b, err := r.Backend(name)
	if err != nil {
		return false, err
	}
	_, login := grants.As(b)
	return login, nil
}

// replace writes a configuration in one step, unless it is no longer what it was.
func (c changing) replace(changed string) error {
	if c.home {
		if err := os.MkdirAll(filepath.Dir(c.path), 0o700); err != nil {
			return backend.Errorf(backend.CodeInvalidConfig, "%s cannot be made: %s", shown(filepath.Dir(c.path)), reason(err))
		}
	}
	f, err := staged.New(c.path) // for this user alone
	if err == nil {
		defer f.Drop()
		if !c.made {
			var info fs.FileInfo
			if info, err = os.Stat(c.path); err == nil {
				err = f.Like(info)
			}
		}
	}
	if err == nil {
		_, err = f.WriteString(changed)
	}
	now, again := os.ReadFile(c.path)
	same := again == nil && bytes.Equal(now, c.old)
	if c.made {
		same = errors.Is(again, fs.ErrNotExist)
	}
	if err == nil && !same {
		return backend.Errorf(backend.CodeConflict, "%s was changed by another meanwhile, and is left so; try again", shown(c.path))
	}
	if err == nil {
		err = f.Place()
	}
	if err != nil {
		return backend.Errorf(backend.CodeInternal, "%s cannot be written and is as it was: %s", shown(c.path), reason(err))
	}
	return nil
}

// insertProvider puts a provider at the end of the block of providers, before the blank lines and comments that lead to what
// follows; or in front of the others in their braces; or, where there are none, into a block of its own at the end. ok is false where
// none of these can be.
func insertProvider(src, name, text string) (changed, added string, ok bool) {
	end := "\n"
	if strings.Contains(src, "\r\n") {
		end = "\r\n"
	}
	lines := strings.SplitAfter(src, "\n")
	if last := len(lines) - 1; lines[last] == "" {
		lines = lines[:last]
	}
	root, err := config.ParseDocument("", 1, []byte(src))
	if err != nil || root == nil || !root.IsMap() {
		return src, "", false
	}
	one := name + ": " + flow(parseSettings(text))
	providers := root.Get("providers")
	if providers != nil {
		if changed, ok = openBrace(lines, providers, one); ok {
			return changed, one + end, true
		}
	} else if changed, ok = openBrace(lines, root, "providers: {"+one+"}"); ok && !slices.Contains(root.Keys(), "providers") {
		return changed, one + end, true
	}
	start := slices.IndexFunc(lines, func(l string) bool {
		rest, is := strings.CutPrefix(l, "providers:")
		rest = strings.TrimSpace(rest)
		return is && (rest == "" || strings.HasPrefix(rest, "#"))
	})
	if start < 0 && slices.Contains(root.Keys(), "providers") {
		return src, "", false
	}
	if start < 0 {
		start = len(lines)
		lines = append(lines, "providers:"+end)
		if start > 0 && !strings.HasSuffix(lines[start-1], "\n") {
			lines[start-1] += end
		}
	}
	at, indent := start+1, ""
	for i := start + 1; i < len(lines); i++ {
		line := strings.TrimRight(lines[i], "\r\n")
		body := strings.TrimLeft(line, " ")
		if body == "" || body[0] == '#' {
			continue
		}
		if len(body) == len(line) { // the next part of the file
			break
		}
		if indent == "" {
			indent = line[:len(line)-len(body)]
		}
		at = i + 1
	}
	if indent == "" {
		indent = "  "
	}
	added = indent + name + ":" + end
	for line := range strings.Lines(text) {
		added += indent + "  " + strings.TrimRight(line, "\n") + end
	}
	if before := lines[at-1]; !strings.HasSuffix(before, "\n") {
		lines[at-1] = before + end
	}
	return strings.Join(lines[:at], "") + added + strings.Join(lines[at:], ""), added, true
}

// openBrace puts one before all that stands in a map in braces; ok is false where the map has none.
func openBrace(lines []string, in *config.Node, one string) (changed string, ok bool) {
	line, column := in.Place() // of its first key, or of the brace where it is empty
	if line < 1 || line > len(lines) || column < 1 || column > utf8.RuneCountInString(lines[line-1]) {
		return "", false
	}
	text := []rune(lines[line-1])
	before, after := string(text[:column-1]), string(text[column-1:])
	if len(in.Keys()) == 0 {
		after, ok = strings.CutPrefix(after, "{")
		before += "{"
	} else {
		one += ", "
		rest := before
		for at := line - 1; strings.TrimSpace(rest) == "" && at > 0; at-- { // the brace is on a line above
			rest, _, _ = strings.Cut(lines[at-1], "#")
		}
		ok = strings.HasSuffix(strings.TrimSpace(rest), "{")
	}
	return strings.Join(lines[:line-1], "") + before + one + after + strings.Join(lines[line:], ""), ok
}
