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
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/staged"
	"github.com/credresolve/credresolve/internal/statedir"
	"github.com/credresolve/credresolve/resolver/grants"
)

// template is a provider of kind oauth2 for a service. In its text {name} stands for a value that is given.
type template struct {
	name, text string
	needs      []string // beside client_id
	register   string   // what is registered at the service, and where
}

func templates() []template {
	return []template{
		{"github", `kind: oauth2
grant: device_code
client_id: {client_id}
scopes: ["read:user"]
endpoints:
  device: https://github.com/login/device/code
  token: https://github.com/login/oauth/access_token
`, nil, "https://github.com/settings/developers: an app with the device flow enabled"},
		{"gitlab", `kind: oauth2
issuer: https://gitlab.com
client_id: {client_id}
scopes: [openid, email, read_api]
redirect_port: 8765
endpoints:
  device: https://gitlab.com/oauth/authorize_device
`, nil, "https://gitlab.com/-/user_settings/applications: not confidential, redirect URI http://127.0.0.1:8765/callback"},
		{"google", `kind: oauth2
issuer: https://accounts.google.com
client_id: {client_id}
client_secret: {client_secret}
client_auth: post
scopes: [openid, email]
parameters: {access_type: offline, prompt: consent}
`, []string{"client_secret"}, "https://console.cloud.google.com/auth/clients: a client of type desktop app"},
		{"microsoft", `kind: oauth2
issuer: https://login.microsoftonline.com/{tenant}/v2.0
client_id: {client_id}
scopes: [openid, offline_access, User.Read]
redirect_host: localhost
`, []string{"tenant"}, "https://entra.microsoft.com: a mobile and desktop application, redirect URI http://localhost/callback; tenant is the directory's id, a UUID"},
		{"slack", `kind: oauth2
client_id: {client_id}
scopes: ["users:read"]
redirect_host: localhost
redirect_port: 8765
endpoints:
  authorization: https://slack.com/oauth/v2_user/authorize
  token: https://slack.com/api/oauth.v2.user.access
`, nil, "https://api.slack.com/apps: an app with PKCE and token rotation enabled, user scopes alone, redirect URL http://localhost:8765/callback"},
	}
}

func (a *app) provider() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "provider",
		Short:   "Add a provider to the configuration",
		Long:    "Add a provider to the configuration.",
		Example: "  credresolve provider add github --template github --client-id Iv1.0123456789abcdef",
		Args:    exactly(0, "one of: add"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.providerAdd())
	return cmd
}

// newProvider is what is asked of provider add.
type newProvider struct {
	template, kind, client string
	set                    []string
	dry                    bool
}

// addedProvider is the answer of provider add, for a program.
type addedProvider struct {
	Path     string `json:"path"`
	Created  bool   `json:"created"` // the file was not there before
	Written  bool   `json:"written"`
	Provider string `json:"provider"`
	Kind     string `json:"kind"`
	YAML     string `json:"yaml"` // what was added
	Register string `json:"register,omitempty"`
	Login    bool   `json:"login"` // somebody has to log in
}

func (a *app) providerAdd() *cobra.Command {
	var n newProvider
	var output *string
	cmd := &cobra.Command{
		Use:   "add [NAME]",
		Short: "Write a provider into the configuration",
		Long: `Write a provider into the configuration, whose other lines stay as they are: one for a known service with --template, or one of
any kind with --kind and its settings. Where there is no configuration it is made, for this user alone. NAME is that of the template
where it is not given. Without both the templates and kinds are listed, and with --kind the settings of the kind.

A setting is --set name=value, the name as in the kind's page: auth.method=approle. Given again, it adds to a list; a list or map can
also be given whole: scopes=[openid, email]. A secret is not taken from the arguments: name where it is kept, as in
--set client_secret=cred://desk/google-client.`,
		Example: `  credresolve provider add
  credresolve provider add github --template github --client-id Iv1.0123456789abcdef --set scopes=repo --set scopes=read:org
  credresolve provider add work --template microsoft --client-id 11111111-2222 --set tenant=33333333-4444 --dry-run
  credresolve provider add --kind vault
  credresolve provider add prod --kind vault --set address=https://vault.example:8200 --set auth.method=token --set auth.token=cred://desk/vault`,
		Args: between(0, 1, "the name of the new provider"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if n.template != "" && n.kind != "" {
				return backend.Errorf(backend.CodeUsage, "--template and --kind exclude each other: a template has its kind")
			}
			if len(args) == 0 && n.template != "" {
				args = []string{n.template}
			}
			if len(args) == 0 {
				return a.listAddable(n, *output == outputJSON)
			}
			if credref.ValidateProvider(args[0]) != nil {
				return backend.Errorf(backend.CodeUsage, "a provider needs a name that matches ^[a-z][a-z0-9_-]{0,63}$")
			}
			lines, t, err := a.fill(n)
			if err != nil {
				return err
			}
			ctx, cancel := a.bounded(cmd.Context())
			defer cancel()
			added, err := a.addProvider(ctx, args[0], lines, n.dry)
			if err != nil {
				return err
			}
			added.Register = t.register
			switch {
			case *output == outputJSON:
				return a.writeJSON(added)
			case n.dry:
				return a.write([]byte(added.YAML))
			}
			if added.Created {
				a.tell("%s: made, for this user alone", shown(added.Path))
			}
			if t.register == "" {
				a.tell("%s: added %s", shown(added.Path), args[0])
			} else {
				a.tell("%s: added %s; what the service needs: %s", shown(added.Path), args[0], t.register)
			}
			if added.Login {
				a.tell("then log in: credresolve login %s", args[0])
			} else {
				a.tell("whether it works tells: credresolve doctor %s", args[0])
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&n.template, "template", "", "the service: github, gitlab, google, microsoft or slack")
	cmd.Flags().StringVar(&n.kind, "kind", "", "the kind of the provider")
	cmd.Flags().StringVar(&n.client, "client-id", "", "the client's id at the service")
	cmd.Flags().StringArrayVar(&n.set, "set", nil, "a setting, as name=value")
	cmd.Flags().BoolVar(&n.dry, "dry-run", false, "print the provider, and write nothing")
	output = outputFlag(cmd)
	complete := func(flag string, known func() []string, how cobra.ShellCompDirective) {
		_ = cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { return known(), how })
	}
	complete("template", func() (names []string) {
		for _, t := range templates() {
			names = append(names, t.name)
		}
		return names
	}, cobra.ShellCompDirectiveNoFileComp)
	complete("kind", a.kinds.Names, cobra.ShellCompDirectiveNoFileComp)
	complete("set", func() (names []string) {
		if i := slices.IndexFunc(templates(), func(t template) bool { return t.name == n.template }); i >= 0 {
			n.kind = "oauth2"
			for _, need := range templates()[i].needs {
				names = append(names, need+"=")
			}
		}
		if k, err := a.kinds.Lookup(n.kind); err == nil {
			for _, f := range fieldsOf(k) {
				names = append(names, f.path+"=")
			}
		}
		return names
	}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace)
	return cmd
}

// listAddable tells what can be added.
func (a *app) listAddable(n newProvider, asJSON bool) error {
	type row struct {
		Name     string `json:"name"`
		Register string `json:"register,omitempty"`
		Summary  string `json:"summary,omitempty"`
		Type     string `json:"type,omitempty"`
	}
	answer := map[string][]row{}
	if n.kind != "" {
		k, err := a.kinds.Lookup(n.kind)
		if err != nil {
			return err
		}
		for _, f := range fieldsOf(k) {
			answer["settings"] = append(answer["settings"], row{Name: f.path, Type: f.word()})
		}
	} else {
		for _, t := range templates() {
			answer["templates"] = append(answer["templates"], row{Name: t.name, Register: t.register})
		}
		for _, name := range a.kinds.Names() {
			k, err := a.kinds.Lookup(name)
			if err != nil {
				return err
			}
			answer["kinds"] = append(answer["kinds"], row{Name: name, Summary: k.Summary})
		}
	}
	if asJSON {
		return a.writeJSON(answer)
	}
	var out strings.Builder
	for _, part := range []string{"templates", "kinds", "settings"} {
		for _, r := range answer[part] {
			flag := "--" + strings.TrimSuffix(part, "s")
			if part == "settings" {
				flag = "--set"
			}
			fmt.Fprintf(&out, "%-24s %s\n", flag+" "+r.Name, r.Register+r.Summary+r.Type)
		}
	}
	return a.write([]byte(out.String()))
}

// fill gives the settings of what n asks for, each on a line of its own.
func (a *app) fill(n newProvider) (lines string, t template, err error) {
	switch {
	case n.template != "":
		all := templates()
		i := slices.IndexFunc(all, func(t template) bool { return t.name == n.template })
		if i < 0 {
			return "", t, &backend.Error{Code: backend.CodeUsage, Reason: "there is no such template", Remedy: "see: credresolve provider add"}
		}
		t, n.kind = all[i], "oauth2"
	case n.kind != "":
		t.text = "kind: " + n.kind + "\n"
	default:
		return "", t, &backend.Error{Code: backend.CodeUsage, Reason: "a provider needs --template or --kind", Remedy: "see: credresolve provider add"}
	}
	k, err := a.kinds.Lookup(n.kind)
	if err != nil {
		return "", t, err
	}
	given := map[string][]string{}
	var order []string
	for _, one := range n.set {
		key, value, ok := strings.Cut(one, "=")
		if !ok || key == "" || key == "kind" || strings.ContainsFunc(one, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return "", t, &backend.Error{Code: backend.CodeUsage, Reason: "--set takes name=value, on one line", Remedy: "see: credresolve provider add --kind " + n.kind}
		}
		if given[key] == nil {
			order = append(order, key)
		}
		given[key] = append(given[key], value)
	}
	if n.client != "" {
		if given["client_id"] == nil {
			order = append([]string{"client_id"}, order...)
		}
		given["client_id"] = append(given["client_id"], n.client)
	}
	var needs, places []string
	if t.name != "" {
		needs = append([]string{"client_id"}, t.needs...)
	}
	for _, key := range needs {
		values := given[key]
		flag := "--set " + key + "=…"
		if key == "client_id" {
			flag = "--client-id"
		}
		switch {
		case len(values) == 0 || values[0] == "":
			return "", t, &backend.Error{Code: backend.CodeUsage, Reason: "the template needs " + flag, Remedy: "register at " + t.register}
		case key == "client_id" && strings.ContainsFunc(values[0], func(r rune) bool { return r < ' ' || r > '~' }): // RFC 6749, appendix A.1
			return "", t, backend.Errorf(backend.CodeUsage, "the id of a client has printable characters of ASCII alone")
		case key == "tenant" && strings.ContainsFunc(values[0], func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF-", r) }):
			return "", t, backend.Errorf(backend.CodeUsage, "tenant is the directory's id, a UUID")
		}
		value, err := values[0], error(nil)
		if key != "tenant" {
			if value, err = written(typeOf(k, key), key, values); err != nil {
				return "", t, err
			}
		}
		places = append(places, "{"+key+"}", value)
	}
	all := parseSettings(strings.NewReplacer(places...).Replace(t.text))
	for _, key := range order {
		if slices.Contains(needs, key) {
			continue
		}
		value, err := written(typeOf(k, key), key, given[key])
		if err != nil {
			return "", t, err
		}
		if all, err = put(all, strings.Split(key, "."), value); err != nil {
			return "", t, backend.Errorf(backend.CodeUsage, "--set %s: it is given whole, or it is given by its parts", key)
		}
	}
	return block(all, ""), t, nil
}

// field is a setting of a kind.
type field struct {
	path string
	t    reflect.Type
}

// fieldsOf lists the settings of a kind, beside those that all have, by their names in the configuration.
func fieldsOf(k backend.Kind) []field {
	_, common := config.Types()
	all := append(fieldsIn(reflect.TypeOf(k.NewConfig()), ""), fieldsIn(common, "")...)
	return slices.DeleteFunc(all, func(f field) bool { return f.path == "kind" })
}

func fieldsIn(t reflect.Type, path string) (all []field) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || isText(t) {
		return []field{{path, t}}
	}
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			all = append(all, fieldsIn(f.Type, path)...)
		case name != "" && name != "-":
			all = append(all, fieldsIn(f.Type, strings.TrimPrefix(path+"."+name, "."))...)
		}
	}
	return all
}

// isText reports whether a setting of type t is written as a text.
func isText(t reflect.Type) bool {
	return t.Kind() == reflect.String || slices.Contains([]reflect.Type{reflect.TypeFor[backend.Source](), reflect.TypeFor[credref.Ref](), reflect.TypeFor[time.Duration]()}, t)
}

// word says what f takes.
func (f field) word() string {
	switch {
	case f.t == reflect.TypeFor[backend.Source]():
		return "a secret, as cred://PROVIDER/ID"
	case f.t == reflect.TypeFor[credref.Ref]():
		return "a reference, cred://PROVIDER/ID"
	case f.t == reflect.TypeFor[time.Duration]():
		return "a duration, such as 10m"
	case f.t.Kind() == reflect.String:
		return "a text"
	case f.t.Kind() == reflect.Bool:
		return "true or false"
	case f.t.Kind() == reflect.Slice:
		return "a list"
	case f.t.Kind() == reflect.Map:
		return "a map: --set " + f.path + ".KEY=value"
	}
	return "a number"
}

// typeOf is the type of the setting at path; of one that there is not, a text's: reading the configuration tells of it.
func typeOf(k backend.Kind, path string) reflect.Type {
	for _, f := range fieldsOf(k) {
		if f.path == path {
			return f.t
		}
		if rest, is := strings.CutPrefix(path, f.path+"."); is && f.t.Kind() == reflect.Map && !strings.Contains(rest, ".") {
			return f.t.Elem()
		}
	}
	return reflect.TypeFor[string]()
}

// written writes the values that a setting of type t was given.
func written(t reflect.Type, key string, values []string) (string, error) {
	v := values[0]
	many := t.Kind() == reflect.Slice || t.Kind() == reflect.Map || t.Kind() == reflect.Struct && !isText(t)
	switch {
	case len(values) > 1 && t.Kind() != reflect.Slice:
		return "", backend.Errorf(backend.CodeUsage, "--set %s: it is no list, and takes one value", key)
	case many && len(values) == 1 && (strings.HasPrefix(v, "[") || strings.HasPrefix(v, "{")):
		n, err := config.ParseDocument("--set "+key, 1, []byte(v))
		if err != nil || n == nil || !n.IsList() && !n.IsMap() {
			return "", backend.Errorf(backend.CodeUsage, "--set %s: its value is no list or map in YAML or JSON", key)
		}
		return v, nil
	case t.Kind() == reflect.Slice:
		items := make([]string, 0, len(values))
		for _, one := range values {
			items = append(items, scalar(t.Elem(), one))
		}
		return "[" + strings.Join(items, ", ") + "]", nil
	case many:
		return "", backend.Errorf(backend.CodeUsage, "--set %s: it takes a map: --set %s.KEY=value, or {KEY: value}", key, key)
	}
	return scalar(t, v), nil
}

// scalar writes v: as it is where a number or truth value is wanted and may stand there, else in quotes.
func scalar(t reflect.Type, v string) string {
	plain := v != "" && !strings.ContainsFunc(v, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && r != '.' && r != '-' && r != '+'
	})
	if plain && !isText(t) {
		return v
	}
	return quoted(v)
}

func quoted(v string) string {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // a text always can be
	return strings.TrimSuffix(out.String(), "\n")
}

// entry is a line of a provider's settings, with those below it.
type entry struct {
	key, value string
	below      []*entry
}

// parseSettings reads lines as block writes them.
func parseSettings(text string) []*entry {
	root := &entry{}
	at := []*entry{root}
	for line := range strings.Lines(text) {
		body := strings.TrimLeft(line, " ")
		level := (len(line) - len(body)) / 2
		key, value, _ := strings.Cut(strings.TrimRight(body, "\n"), ":")
		s := &entry{key: key, value: strings.TrimSpace(value)}
		at[level].below = append(at[level].below, s)
		at = append(at[:level+1], s)
	}
	return root.below
}

// put sets the setting at path. It fails where one is both whole and by its parts.
func put(all []*entry, path []string, value string) ([]*entry, error) {
	key := path[0]
	if strings.ContainsFunc(key, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') }) || key == "" || key[0] < 'a' {
		key = quoted(key)
	}
	i := slices.IndexFunc(all, func(s *entry) bool { return s.key == key })
	if i < 0 {
		i, all = len(all), append(all, &entry{key: key})
	} else if (all[i].below == nil) != (len(path) == 1) {
		return all, errors.New("whole, and by its parts")
	}
	if len(path) == 1 {
		all[i].value = value
		return all, nil
	}
	var err error
	all[i].below, err = put(all[i].below, path[1:], value)
	return all, err
}

// block writes settings on lines of their own, and flow on one line.
func block(all []*entry, indent string) string {
	var out strings.Builder
	for _, s := range all {
		out.WriteString(strings.TrimRight(indent+s.key+": "+s.value, " ") + "\n" + block(s.below, indent+"  "))
	}
	return out.String()
}

func flow(all []*entry) string {
	parts := make([]string, 0, len(all))
	for _, s := range all {
		value := s.value
		switch {
		case s.below != nil:
			value = flow(s.below)
		case strings.Contains(value, ":") && !strings.ContainsAny(value[:1], `"[{`): // a URL
			value = quoted(value)
		}
		parts = append(parts, s.key+": "+value)
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

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
