package server

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/credresolve/credresolve/adapters/keychain"
	"github.com/credresolve/credresolve/adapters/vault"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
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

// meddler is a store in which somebody else does something between two calls.
type meddler struct {
	backend.Writer
	after func(id string) // a value was deleted
}

func (m *meddler) Delete(ctx context.Context, req backend.Request, cond backend.Condition) error {
	err := m.Writer.Delete(ctx, req, cond)
	if do := m.after; do != nil {
		m.after = nil
		do(req.ID)
	}
	return err
}

// What one sidecar sets while another deletes it, or ends the plugin, is in the list as long as it is there.
func TestPluginKeyIsSetWhileItIsDeleted(t *testing.T) {
	t.Parallel()
	sc, _ := pluginSidecar(t)
	ctx := t.Context()
	other, err := sc.server.secretsOf(sc.server.state.Load(), "weather")
	if err != nil {
		t.Fatal(err)
	}
	store := &meddler{Writer: other.store}
	one := &pluginSecrets{store: store, provider: other.provider, dir: other.dir}
	value := backend.NewSecretString("v-c4nary")
	for name, end := range map[string]func() error{
		"delete": func() error { return one.remove(ctx, "k") },
		"end":    func() error { _, err := one.end(ctx); return err },
	} {
		if err := other.set(ctx, "k", value); err != nil {
			t.Fatal(err)
		}
		store.after = func(string) {
			if err := other.set(ctx, "k", value); err != nil {
				t.Error(err)
			}
		}
		if err := end(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := other.get(ctx, "k"); err != nil {
			t.Errorf("%s: what was set after it is gone: %v", name, err)
		}
		if keys, _, err := other.index(ctx); err != nil || !slices.Equal(keys, []string{"k"}) {
			t.Errorf("%s: the list is %v, %v", name, keys, err)
		}
	}
}

// Two sidecars of one store, each with a state of its own, set, delete and end at the same moment.
func TestPluginSecretsOfTwoSidecars(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	mount := s.Mount(t, "kv", map[string]string{"version": "2"})
	var both [2]*sidecar
	var plugins [2]client.Plugin
	for i := range both {
		sc := &sidecar{t: t, dir: t.TempDir(), logs: &buffer{}, kinds: testKinds(vault.Kind())}
		sc.socket = filepath.Join(sc.dir, "run", "sock")
		sc.configure(fmt.Sprintf("\n  m: {kind: memory, values: {token: %q}}\n  kept: {kind: vault, address: %q, auth: {method: token, token: {provider: m, id: token}}}\n", s.Token, s.Addr),
			"  plugins: {store: kept, prefix: "+mount+"/plugins}\n")
		sc.open()
		both[i] = sc
		plugins[i] = sc.client(sc.session(`{"consumer":"host","allow":[],"secrets":["read","write"],"subject":{"plugin":"p"}}`).Token).Plugin()
	}
	inside, err := both[0].server.secretsOf(both[0].server.state.Load(), "p")
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for round := range 40 {
		var all sync.WaitGroup
		try := func(do func() error) {
			all.Go(func() {
				if err := do(); err != nil && !errors.Is(err, backend.ErrConflict) {
					t.Error(err)
				}
			})
		}
		try(func() error { return plugins[0].Set(ctx, "k", backend.NewSecretString("v-c4nary")) })
		if round%4 == 3 {
			try(func() error { _, err := inside.end(ctx); return err })
		}
		try(func() error { return plugins[1].Delete(ctx, "k") })
		all.Wait()
		_, gone := inside.get(ctx, "k")
		keys, _, err := inside.index(ctx)
		if err != nil || gone == nil != slices.Contains(keys, "k") {
			t.Fatalf("round %d: the list is %v, %v, and the value: %v", round, keys, err, gone)
		}
	}
}
