package keychain

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"
	"testing"
	"unicode/utf16"

	"github.com/godbus/dbus/v5"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/secretservicetest"
)

// wallets answers as KDE's daemon does, which needs a desktop: the methods and signatures are those of org.kde.KWallet.xml
// of KDE Frameworks.
type wallets struct {
	mu      sync.Mutex
	open    bool
	refuses bool // to open a wallet
	entries map[string]walletEntry
}

type walletEntry struct {
	kind  int32
	value []byte
}

const walletHandle = 42

func (w *wallets) methods() map[string]any {
	locked := func(f func()) { w.mu.Lock(); defer w.mu.Unlock(); f() }
	key := func(handle int32, folder, key, app string) string {
		if handle != walletHandle || app != kwalletApp {
			return "" // no entry
		}
		return folder + "/" + key
	}
	return map[string]any{
		"isEnabled":     func() (bool, *dbus.Error) { return true, nil },
		"networkWallet": func() (string, *dbus.Error) { return "kdewallet", nil },
		"isOpen": func(name string) (open bool, e *dbus.Error) {
			locked(func() { open = w.open && name == "kdewallet" })
			return open, nil
		},
		"open": func(string, int64, string) (handle int32, e *dbus.Error) {
			locked(func() {
				handle = walletHandle
				if w.refuses {
					handle = -1
				} else {
					w.open = true
				}
			})
			return handle, nil
		},
		"createFolder": func(int32, string, string) (bool, *dbus.Error) { return true, nil },
		"hasEntry": func(h int32, f, k, a string) (has bool, e *dbus.Error) {
			locked(func() { _, has = w.entries[key(h, f, k, a)] })
			return has, nil
		},
		"entryType": func(h int32, f, k, a string) (kind int32, e *dbus.Error) {
			locked(func() { kind = w.entries[key(h, f, k, a)].kind })
			return kind, nil
		},
		"readPassword": func(h int32, f, k, a string) (text string, e *dbus.Error) {
			locked(func() { text = string(w.entries[key(h, f, k, a)].value) })
			return text, nil
		},
		"readEntry": func(h int32, f, k, a string) (value []byte, e *dbus.Error) {
			locked(func() { value = bytes.Clone(w.entries[key(h, f, k, a)].value) })
			return value, nil
		},
		"writePassword": func(h int32, f, k, value, a string) (status int32, e *dbus.Error) {
			locked(func() { w.entries[key(h, f, k, a)] = walletEntry{entryPassword, []byte(value)} })
			return 0, nil
		},
		"writeEntry": func(h int32, f, k string, value []byte, kind int32, a string) (status int32, e *dbus.Error) {
			locked(func() { w.entries[key(h, f, k, a)] = walletEntry{kind, bytes.Clone(value)} })
			return 0, nil
		},
		"removeEntry": func(h int32, f, k, a string) (status int32, e *dbus.Error) {
			locked(func() { delete(w.entries, key(h, f, k, a)) })
			return 0, nil
		},
		"entryList": func(_ int32, folder, _ string) (ids []string, e *dbus.Error) {
			locked(func() {
				for k := range w.entries {
					if id, ok := bytes.CutPrefix([]byte(k), []byte(folder+"/")); ok {
						ids = append(ids, string(id))
					}
				}
			})
			return ids, nil
		},
	}
}

func startWallets(t *testing.T, w *wallets, frameworks string) (address string) {
	t.Helper()
	address = secretservicetest.StartBus(t)
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.ExportMethodTable(w.methods(), dbus.ObjectPath("/modules/kwalletd"+frameworks), kwalletIface); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName("org.kde.kwalletd"+frameworks, 0); err != nil {
		t.Fatal(err)
	}
	return address
}

// qMap gives pairs as Qt writes a QMap<QString, QString>.
func qMap(pairs ...string) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(pairs)/2))
	for _, s := range pairs {
		units := utf16.Encode([]rune(s))
		out = binary.BigEndian.AppendUint32(out, uint32(2*len(units)))
		for _, u := range units {
			out = binary.BigEndian.AppendUint16(out, u)
		}
	}
	return out
}

func TestKWallet(t *testing.T) {
	t.Parallel()
	sealed, err := wrap("envelope", []byte(canary))
	if err != nil {
		t.Fatal(err)
	}
	for _, frameworks := range []string{"5", "6"} {
		t.Run(frameworks, func(t *testing.T) {
			t.Parallel()
			w := &wallets{open: true, entries: map[string]walletEntry{
				"app/map":      {entryMap, qMap("user", "ü", "password", canary)},
				"app/envelope": {entryStream, sealed},
				"other/x":      {entryPassword, []byte("not ours")},
			}}
			env := lookup(map[string]string{busVariable: startWallets(t, w, frameworks)})
			b := open(t, Config{Backend: "kwallet", Service: "app"}, backend.Host{LookupEnv: env, StateDir: state(t)})
			testStore(t, b, 0, true)
			testDone(t, b)
			c, err := b.Get(t.Context(), backend.Request{ID: "map"})
			if err != nil || string(c.Fields["password"].Reveal()) != canary || string(c.Fields["user"].Reveal()) != "ü" {
				t.Errorf("the map came as %d fields, %v", len(c.Fields), err)
			}
			if got := get(t, b, "envelope"); got != canary {
				t.Errorf("%q", got)
			}
			put(t, b, "envelope", canary+"2", backend.Condition{})
			w.mu.Lock()
			kept := w.entries["app/envelope"]
			w.mu.Unlock()
			if _, value, ok := openEnvelope(kept.value); !ok || kept.kind != entryStream || string(value) != canary+"2" {
				t.Error("the envelope is lost")
			}
			if got := get(t, b, "envelope"); got != canary+"2" {
				t.Errorf("%q", got)
			}
			if slices.Contains(ids(t, b, ""), "x") {
				t.Error("another folder's entry is listed")
			}
			wantCode(t, getError(t, b, "?a=b"), backend.CodeInvalidID)

			auto := open(t, Config{Service: "app"}, backend.Host{LookupEnv: env})
			if err := auto.Probe(t.Context()); err != nil {
				t.Error(err)
			}
			if d := auto.Describe(); d.Detail != "kwallet, chosen as org.kde.kwalletd"+frameworks+" answers on the session bus: folder app of wallet kdewallet, or the one named for network passwords; passed over: secret-service: no such service runs on the session bus" {
				t.Errorf("%q", d.Detail)
			}
		})
	}
}

func TestKWalletLocked(t *testing.T) {
	t.Parallel()
	w := &wallets{entries: map[string]walletEntry{"app/a": {entryPassword, []byte(canary)}}}
	env := lookup(map[string]string{busVariable: startWallets(t, w, "6")})
	b := open(t, Config{Backend: "kwallet", Service: "app"}, backend.Host{LookupEnv: env})
	wantCode(t, getError(t, b, "a"), backend.CodeLocked)
	wantCode(t, b.Probe(t.Context()), backend.CodeLocked)
	asking := open(t, Config{Backend: "kwallet", Service: "app"}, backend.Host{LookupEnv: env, Interactive: true})
	if got := get(t, asking, "a"); got != canary {
		t.Errorf("%q", got)
	}
	w.mu.Lock()
	w.refuses = true
	w.mu.Unlock()
	wantCode(t, getError(t, asking, "a"), backend.CodeLocked)
}

func FuzzMap(f *testing.F) {
	seeds := map[string]bool{
		string(qMap()): true, string(qMap("user", "ü", "password", canary)): true, "\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff": true,
		"": false, "\x00\x00\x00\x01": false, "\xff\xff\xff\xff\x00\x00\x00\x00": false, string(qMap("a", "b")) + "x": false,
	}
	for seed, good := range seeds {
		if _, err := mapToJSON([]byte(seed)); (err == nil) != good {
			f.Errorf("%q: %v", seed, err)
		}
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		text, err := mapToJSON(raw)
		if err != nil {
			wantCode(t, err, backend.CodeUnavailable)
			return
		}
		if _, ok := backend.FieldsFromJSON(text); !ok {
			t.Errorf("%q is no JSON object", text)
		}
	})
}

func FuzzQuery(f *testing.F) {
	seeds := map[string]bool{"?a=b": true, "?a=b&c=d%20e": true, "?a=": true, "?a=%26%3D": true, "?": false, "?a": false, "?=b": false, "?a=b&a=c": false, "?a=%zz": false, "?a=%00": false, "?a=%ff": false}
	for seed, good := range seeds {
		if _, err := parseQuery(seed); (err == nil) != good {
			f.Errorf("%q: %v", seed, err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, id string) {
		attributes, err := parseQuery(id)
		if err != nil {
			wantCode(t, err, backend.CodeInvalidID)
			return
		}
		if len(attributes) == 0 || attributes[""] != "" {
			t.Errorf("%q gives %q", id, attributes)
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	sealed, err := wrap("k", []byte("v"))
	if err != nil {
		f.Fatal(err)
	}
	for seed, good := range map[string]bool{string(sealed): true, "{}": false, `{"Key":"k","Data":"Zm9v"}`: false, "null": false} {
		if _, _, ok := openEnvelope([]byte(seed)); ok != good {
			f.Errorf("%q: %v", seed, ok)
		}
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, value, ok := openEnvelope(raw)
		if !ok {
			return
		}
		again, err := rewrap(raw, value)
		if err != nil {
			t.Fatal(err)
		}
		if _, got, ok := openEnvelope(again); !ok || !bytes.Equal(got, value) {
			t.Errorf("%q became %q", value, got)
		}
	})
}

func FuzzToken(f *testing.F) {
	const good = "eyJhbGciOiJQQkVTMi1IUzI1NitBMTI4S1ciLCJlbmMiOiJBMjU2R0NNIn0.AA.AA.AA.AAAAAAAAAAAAAAAAAAAAAA"
	for seed, fine := range map[string]bool{good: true, good + "A": false, "": false, "a.b.c": false, "eyJhbGciOiJub25lIn0.AA.AA.AA.AAAAAAAAAAAAAAAAAAAAAA": false} {
		if err := checkToken([]byte(seed)); (err == nil) != fine {
			f.Errorf("%q: %v", seed, err)
		}
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, token []byte) {
		if err := checkToken(token); err != nil {
			wantCode(t, err, backend.CodeInternal)
		}
	})
}
