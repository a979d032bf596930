package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/staged"
	"github.com/credresolve/credresolve/internal/statedir"
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
scopes: [read:user]
endpoints:
  device: https://github.com/login/device/code
  token: https://github.com/login/oauth/access_token
`, nil, "https://github.com/settings/developers: an app with the device flow enabled"},
		{"gitlab", `kind: oauth2
issuer: https://gitlab.com
client_id: {client_id}
scopes: [openid, email, read_api]
redirect_port: 8765
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
scopes: [users:read]
redirect_host: localhost
redirect_port: 8765
endpoints:
  authorization: https://slack.com/oauth/v2_user/authorize
  token: https://slack.com/api/oauth.v2.user.access
`, nil, "https://api.slack.com/apps: an app with PKCE enabled, redirect URL http://localhost:8765/callback"},
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

func (a *app) providerAdd() *cobra.Command {
	var name, client string
	var set []string
	var dry bool
	cmd := &cobra.Command{
		Use:   "add [NAME]",
		Short: "Write a provider for a known service into the configuration",
		Long: `Write a provider for a known service into the configuration, whose other lines stay as they are. Without --template the
templates are listed, with what is registered at the service first.

The id of the client is that which the service gave. A secret is not taken from the arguments: name where it is kept, as in
--set client_secret=cred://desk/google-client.`,
		Example: `  credresolve provider add
  credresolve provider add github --template github --client-id Iv1.0123456789abcdef
  credresolve provider add work --template microsoft --client-id 11111111-2222 --set tenant=33333333-4444 --dry-run`,
		Args: between(0, 1, "the name of the new provider"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if name == "" {
				var out strings.Builder
				for _, t := range templates() {
					fmt.Fprintf(&out, "%-10s %s\n", t.name, t.register)
				}
				return a.write([]byte(out.String()))
			}
			if len(args) == 0 || credref.ValidateProvider(args[0]) != nil {
				return backend.Errorf(backend.CodeUsage, "a provider needs a name that matches ^[a-z][a-z0-9_-]{0,63}$")
			}
			entry, t, err := fill(name, client, set)
			if err != nil {
				return err
			}
			path, err := a.locate(nil)
			if err != nil {
				return err
			}
			ctx, cancel := a.bounded(cmd.Context())
			defer cancel()
			if err := a.addProvider(ctx, path, args[0], entry, dry); err != nil || dry {
				return err
			}
			a.tell("%s: added %s; what the service needs: %s", shown(path), args[0], t.register)
			a.tell("then log in: credresolve login %s", args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "template", "", "the service: github, gitlab, google, microsoft or slack")
	cmd.Flags().StringVar(&client, "client-id", "", "the client's id at the service")
	cmd.Flags().StringArrayVar(&set, "set", nil, "what else the template needs, as name=value")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print the provider, and write nothing")
	_ = cmd.RegisterFlagCompletionFunc("template", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for _, t := range templates() {
			names = append(names, t.name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

// fill gives the settings of a template with its values in their places.
func fill(name, client string, set []string) (string, template, error) {
	all := templates()
	i := slices.IndexFunc(all, func(t template) bool { return t.name == name })
	if i < 0 {
		return "", template{}, &backend.Error{Code: backend.CodeUsage, Reason: "there is no such template", Remedy: "see: credresolve provider add"}
	}
	t := all[i]
	values := map[string]string{"client_id": client}
	for _, one := range set {
		key, value, ok := strings.Cut(one, "=")
		if !ok || !slices.Contains(t.needs, key) {
			return "", t, backend.Errorf(backend.CodeUsage, "--set takes name=value, and the template %s takes: %s", t.name, strings.Join(t.needs, ", "))
		}
		values[key] = value
	}
	var places []string
	for _, key := range append([]string{"client_id"}, t.needs...) {
		v := values[key]
		switch {
		case v == "" && key == "client_id":
			return "", t, &backend.Error{Code: backend.CodeUsage, Reason: "the template needs --client-id", Remedy: "register at " + t.register}
		case v == "":
			return "", t, &backend.Error{Code: backend.CodeUsage, Reason: "the template needs --set " + key + "=…", Remedy: "register at " + t.register}
		case key == "client_id" && strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }): // RFC 6749, appendix A.1
			return "", t, backend.Errorf(backend.CodeUsage, "the id of a client has printable characters of ASCII alone")
		case key == "client_secret" && !strings.HasPrefix(v, credref.Scheme+"://"):
			return "", t, &backend.Error{Code: backend.CodeUsage, Reason: "a secret is not taken from the arguments",
				Remedy: "store it with: credresolve put cred://PROVIDER/ID, and give that reference"}
		case key == "tenant" && strings.ContainsFunc(v, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF-", r) }):
			return "", t, backend.Errorf(backend.CodeUsage, "tenant is the directory's id, a UUID")
		}
		if key != "tenant" {
			quoted, err := json.Marshal(v)
			if err != nil {
				return "", t, backend.Errorf(backend.CodeUsage, "%s is not text", key)
			}
			v = string(quoted)
		}
		places = append(places, "{"+key+"}", v)
	}
	return strings.NewReplacer(places...).Replace(t.text), t, nil
}

// addProvider writes a provider into the file at path, or prints it.
func (a *app) addProvider(ctx context.Context, path, name, entry string, dry bool) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if state := a.stateDir(); state != "" { // without, what another wrote meanwhile is only nearly always seen
		unlock, err := statedir.Lock(ctx, state, "config")
		if err != nil {
			return err
		}
		defer unlock()
	}
	file, err := config.Load(path, a.kinds)
	if err != nil {
		return err
	}
	if file.Provider(name) != nil {
		return &backend.Error{Code: backend.CodeConflict, Reason: shown(path) + " has a provider " + name + " already", Remedy: "choose another name, or remove it first"}
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return backend.Errorf(backend.CodeInvalidConfig, "%s: %s", shown(path), reason(err))
	}
	changed, added, ok := insertProvider(string(old), name, entry)
	next, err := config.Parse(path, []byte(changed), a.kinds)
	if !ok || err == nil && (len(next.Providers()) != len(file.Providers())+1 || next.Provider(name) == nil) {
		return &backend.Error{Code: backend.CodeUnsupported, Reason: shown(path) + ": its providers are not written as one block, so that none can be added",
			Remedy: "write each provider on lines of its own below providers:"}
	}
	if err == nil {
		err = a.openable(next)
	}
	if err != nil {
		return fmt.Errorf("with the new provider: %w", err)
	}
	if dry {
		return a.write([]byte(added))
	}
	info, err := os.Stat(path)
	if err != nil {
		return backend.Errorf(backend.CodeInternal, "%s: %s", shown(path), reason(err))
	}
	f, err := staged.New(path)
	if err == nil {
		defer f.Drop()
		if err = f.Like(info); err == nil {
			_, err = f.WriteString(changed)
		}
	}
	if now, again := os.ReadFile(path); err == nil && (again != nil || !bytes.Equal(now, old)) {
		return backend.Errorf(backend.CodeConflict, "%s was changed by another meanwhile, and is left so; try again", shown(path))
	}
	if err == nil {
		err = f.Place()
	}
	if err != nil {
		return backend.Errorf(backend.CodeInternal, "%s cannot be written and is as it was: %s", shown(path), reason(err))
	}
	return nil
}

// insertProvider puts a provider at the end of the block of providers, before the blank lines and comments that lead to what
// follows. ok is false where there is no such block.
func insertProvider(src, name, entry string) (changed, added string, ok bool) {
	end := "\n"
	if strings.Contains(src, "\r\n") {
		end = "\r\n"
	}
	lines := strings.SplitAfter(src, "\n")
	if last := len(lines) - 1; lines[last] == "" {
		lines = lines[:last]
	}
	start := slices.IndexFunc(lines, func(l string) bool {
		rest, is := strings.CutPrefix(l, "providers:")
		rest = strings.TrimSpace(rest)
		return is && (rest == "" || strings.HasPrefix(rest, "#"))
	})
	if start < 0 {
		return src, "", false
	}
	at, indent := start+1, ""
	for i := start + 1; i < len(lines); i++ {
		text := strings.TrimRight(lines[i], "\r\n")
		body := strings.TrimLeft(text, " ")
		if body == "" || body[0] == '#' {
			continue
		}
		if len(body) == len(text) { // the next part of the file
			break
		}
		if indent == "" {
			indent = text[:len(text)-len(body)]
		}
		at = i + 1
	}
	if indent == "" {
		indent = "  "
	}
	added = indent + name + ":" + end
	for line := range strings.Lines(entry) {
		added += indent + "  " + strings.TrimRight(line, "\n") + end
	}
	if before := lines[at-1]; !strings.HasSuffix(before, "\n") {
		lines[at-1] = before + end
	}
	return strings.Join(lines[:at], "") + added + strings.Join(lines[at:], ""), added, true
}
