package server

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/adapters/keychain"
	"github.com/credresolve/credresolve/adapters/vault"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/vaulttest"
)

// What a plugin keeps is the same in stores that people use, with names that such a store would write alike or not at all.
func TestPluginSecretsInRealStores(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string]func(t *testing.T) (provider, prefix string){
		"a keychain": func(t *testing.T) (string, string) {
			dir := t.TempDir()
			return fmt.Sprintf(`{kind: keychain, backend: file, path: %q, password: {provider: m, id: plain}}`, dir), "plugins"
		},
		"a Vault server": func(t *testing.T) (string, string) {
			s := vaulttest.Start(t)
			mount := s.Mount(t, "kv", map[string]string{"version": "2"})
			return fmt.Sprintf(`{kind: vault, address: %q, auth: {method: token, token: {provider: m, id: token}}}`, s.Addr), mount + "/plugins"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			provider, prefix := settings(t)
			token := ""
			if strings.Contains(provider, "kind: vault") {
				token = vaulttest.Start(t).Token
			}
			sc := &sidecar{t: t, dir: t.TempDir(), logs: &buffer{}, kinds: testKinds(keychain.Kind(), vault.Kind())}
			sc.socket = filepath.Join(sc.dir, "run", "sock")
			sc.configure("\n  m: {kind: memory, values: {plain: \"plain-c4nary\", token: \""+token+"\"}}\n  kept: "+provider+"\n", "  plugins: {store: kept, prefix: "+prefix+"}\n")
			sc.open()
			ctx, owner := t.Context(), sc.client("")
			for _, plugin := range []string{"acme/mail", "Acme/Mail", "..", "a=2fb", "ö"} {
				one := sc.session(fmt.Sprintf(`{"consumer":"host","allow":[],"secrets":["read","write"],"subject":{"plugin":%q}}`, plugin))
				secrets := sc.client(one.Token).Plugin()
				keys := []string{"API_KEY", "api_key", ".hidden", "a-b.c"}
				for _, key := range keys {
					if there, err := secrets.Has(ctx, key); there || err != nil {
						t.Errorf("%s: %s is there before, or %v", plugin, key, err)
					}
					for _, value := range []string{"first-c4nary", plugin + key + "\n{\"c4nary\":1}"} {
						if err := secrets.Set(ctx, key, backend.NewSecretString(value)); err != nil {
							t.Fatal(err)
						}
						if got, err := secrets.Get(ctx, key); err != nil || string(got.Reveal()) != value {
							t.Errorf("%s: %s is another value, or %v", plugin, key, err)
						}
					}
				}
				if err := secrets.Delete(ctx, keys[0]); err != nil {
					t.Error(err)
				}
				if there, err := secrets.Has(ctx, keys[1]); !there || err != nil {
					t.Errorf("%s: one key took another with it, or %v", plugin, err)
				}
				inside, err := sc.server.secretsOf(sc.server.state.Load(), plugin)
				if err != nil {
					t.Fatal(err)
				}
				if err := owner.EndPlugin(ctx, plugin); err != nil {
					t.Fatal(err)
				}
				for _, key := range keys {
					if _, err := inside.get(ctx, key); !errors.Is(err, backend.ErrNotFound) {
						t.Errorf("%s: %s is left: %v", plugin, key, err)
					}
				}
				if err := inside.set(ctx, keys[0], backend.NewSecretString("again-c4nary")); err != nil {
					t.Errorf("%s: after its end: %v", plugin, err)
				}
			}
		})
	}
}
