package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
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
