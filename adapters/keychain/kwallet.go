package keychain

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/godbus/dbus/v5"

	"github.com/credresolve/credresolve/backend"
)

// kwallet is a client of KDE's wallet over its own interface, org.kde.KWallet, of Frameworks 5 and 6. Items are entries of
// the folder that has the service's name.
type kwallet struct {
	bus         *bus
	service     string
	wallet      string // empty: the one that KDE names for network passwords
	interactive bool
}

const (
	kwalletIface = "org.kde.KWallet"
	kwalletApp   = "credresolve" // under which the user grants access
)

// The types of entries (KWallet::Wallet::EntryType).
const (
	entryPassword = 1
	entryStream   = 2
	entryMap      = 3
)

func newKWallet(c Config, env env, interactive bool) *kwallet {
	return &kwallet{bus: newBus(env), service: c.Service, wallet: c.Collection, interactive: interactive}
}

func (k *kwallet) name() string { return kwalletName }

func (k *kwallet) describe() backend.Description {
	return backend.Description{Detail: "folder " + k.service + " of wallet " + cmp.Or(k.wallet, "kdewallet, or the one named for network passwords")}
}

func (k *kwallet) close() { k.bus.close() }

func (k *kwallet) works(ctx context.Context) (string, error) {
	d, err := k.daemon(ctx)
	if err != nil {
		return "", err
	}
	var enabled bool
	if err := d.call(ctx, "isEnabled", nil, &enabled); err != nil {
		return "", busError(ctx, err)
	}
	if !enabled {
		return "", backend.Errorf(backend.CodeUnavailable, "KWallet is turned off")
	}
	return d.name + " answers on the session bus", nil
}

// daemon is the process that keeps the wallets.
type daemon struct {
	conn *busConn
	name string
	path dbus.ObjectPath
}

func (d *daemon) call(ctx context.Context, method string, args []any, results ...any) error {
	return d.conn.call(ctx, d.name, d.path, kwalletIface+"."+method, args, results...)
}

func (k *kwallet) daemon(ctx context.Context) (*daemon, error) {
	conn, err := k.bus.connect(ctx)
	if err != nil {
		return nil, err
	}
	name, _, err := conn.offers(ctx, "org.kde.kwalletd6", "org.kde.kwalletd5")
	switch {
	case err != nil:
		if lost(err) {
			k.bus.drop(conn)
		}
		return nil, busError(ctx, err)
	case name == "":
		return nil, backend.Errorf(backend.CodeUnavailable, "KWallet is not on the session bus")
	}
	return &daemon{conn, name, dbus.ObjectPath("/modules/" + strings.TrimPrefix(name, "org.kde."))}, nil
}

// wallet is an open wallet.
type wallet struct {
	*daemon
	handle int32
}

// with calls f with the open wallet. Opening asks for a password unless the wallet is open already, so without leave to ask
// a closed wallet is ErrLocked.
func (k *kwallet) with(ctx context.Context, f func(*wallet) error) error {
	d, err := k.daemon(ctx)
	if err != nil {
		return err
	}
	err = func() error {
		name := k.wallet
		if name == "" {
			if err := d.call(ctx, "networkWallet", nil, &name); err != nil {
				return err
			}
		}
		var isOpen bool
		if err := d.call(ctx, "isOpen", []any{name}, &isOpen); err != nil {
			return err
		}
		locked := errLocked("the wallet "+printable(name), "open it in KWalletManager, or use --interactive")
		if !isOpen && !k.interactive {
			return locked
		}
		w := &wallet{daemon: d}
		if err := d.call(ctx, "open", []any{name, int64(0), kwalletApp}, &w.handle); err != nil {
			return err
		}
		if w.handle < 0 { // the user, or the wallet's settings, said no
			return locked
		}
		return f(w)
	}()
	if lost(err) {
		k.bus.drop(d.conn)
	}
	return busError(ctx, err)
}

func (k *kwallet) get(ctx context.Context, id string) ([]byte, error) {
	if isQuery(id) {
		return nil, errQueryHere
	}
	var value []byte
	err := k.with(ctx, func(w *wallet) (err error) {
		value, _, err = k.read(ctx, w, id)
		return err
	})
	return value, err
}

// read gives the value of an entry, and, of an entry that the keyring library wrote, the envelope around it.
func (k *kwallet) read(ctx context.Context, w *wallet, id string) (value, outer []byte, err error) {
	entry := []any{w.handle, k.service, id, kwalletApp}
	var exists bool
	if err := w.call(ctx, "hasEntry", entry, &exists); err != nil {
		return nil, nil, err
	}
	if !exists {
		return nil, nil, errNoItem
	}
	var kind int32
	if err := w.call(ctx, "entryType", entry, &kind); err != nil {
		return nil, nil, err
	}
	if kind == entryPassword {
		var text string
		err := w.call(ctx, "readPassword", entry, &text)
		return []byte(text), nil, err
	}
	var raw []byte
	if err := w.call(ctx, "readEntry", entry, &raw); err != nil {
		return nil, nil, err
	}
	if kind == entryMap {
		defer clear(raw)
		value, err := mapToJSON(raw)
		return value, nil, err
	}
	if key, inner, ok := openEnvelope(raw); ok && key == id {
		return inner, raw, nil
	}
	return raw, nil, nil
}

func (k *kwallet) put(ctx context.Context, id string, value []byte) error {
	if isQuery(id) {
		return errQueryHere
	}
	return k.with(ctx, func(w *wallet) error {
		var made bool
		if err := w.call(ctx, "createFolder", []any{w.handle, k.service, kwalletApp}, &made); err != nil { // false: it is there
			return err
		}
		before, outer, err := k.read(ctx, w, id)
		defer clear(before)
		defer clear(outer)
		if err != nil && !errors.Is(err, backend.ErrNotFound) {
			return err
		}
		// Bytes that look like an envelope would be taken for one when they are read, so they are put into one.
		wrapped := value
		if key, _, looks := openEnvelope(value); outer != nil || looks && key == id {
			if wrapped, err = wrap(id, value); err != nil {
				return err
			}
			defer clear(wrapped)
		}
		if err := k.write(ctx, w, id, wrapped, outer == nil && bytes.Equal(wrapped, value)); err != nil {
			return err
		}
		stored, _, err := k.read(ctx, w, id)
		defer clear(stored)
		if err == nil && !bytes.Equal(stored, value) {
			return errMangled
		}
		return err
	})
}

// write stores an entry: as a password, which KWalletManager shows, where that keeps every byte, else as a stream.
func (k *kwallet) write(ctx context.Context, w *wallet, id string, value []byte, plain bool) error {
	var status int32
	var err error
	if plain && utf8.Valid(value) && !bytes.ContainsRune(value, 0) {
		err = w.call(ctx, "writePassword", []any{w.handle, k.service, id, string(value), kwalletApp}, &status)
	} else {
		err = w.call(ctx, "writeEntry", []any{w.handle, k.service, id, value, int32(entryStream), kwalletApp}, &status)
	}
	if err == nil && status != 0 {
		return backend.Errorf(backend.CodeUnavailable, "the wallet did not store the entry")
	}
	return err
}

func (k *kwallet) remove(ctx context.Context, id string) error {
	if isQuery(id) {
		return errQueryHere
	}
	return k.with(ctx, func(w *wallet) error {
		entry := []any{w.handle, k.service, id, kwalletApp}
		var exists bool
		if err := w.call(ctx, "hasEntry", entry, &exists); err != nil {
			return err
		}
		if !exists {
			return errNoItem
		}
		var status int32
		err := w.call(ctx, "removeEntry", entry, &status)
		if err == nil && status != 0 {
			return backend.Errorf(backend.CodeUnavailable, "the wallet did not remove the entry")
		}
		return err
	})
}

func (k *kwallet) list(ctx context.Context, prefix string) ([]backend.Entry, error) {
	var entries []backend.Entry
	err := k.with(ctx, func(w *wallet) error {
		var ids []string
		err := w.call(ctx, "entryList", []any{w.handle, k.service, kwalletApp}, &ids)
		slices.Sort(ids)
		for _, id := range slices.Compact(ids) {
			if strings.HasPrefix(id, prefix) && checkID(id) == nil && !isQuery(id) {
				entries = append(entries, backend.Entry{ID: id})
			}
		}
		return err
	})
	return entries, err
}

func (k *kwallet) probe(ctx context.Context) error {
	return k.with(ctx, func(*wallet) error { return nil })
}

// mapToJSON gives the entries of a QMap<QString, QString>, in the form of a QDataStream, as a JSON object.
func mapToJSON(raw []byte) ([]byte, error) {
	next := func() (uint32, bool) {
		if len(raw) < 4 {
			return 0, false
		}
		n := binary.BigEndian.Uint32(raw)
		raw = raw[4:]
		return n, true
	}
	text := func() (string, bool) {
		n, ok := next()
		if n == 0xffffffff { // a null string
			return "", ok
		}
		if !ok || n%2 != 0 || uint64(n) > uint64(len(raw)) {
			return "", false
		}
		units := make([]uint16, n/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(raw[2*i:])
		}
		raw = raw[n:]
		return string(utf16.Decode(units)), true
	}
	count, ok := next()
	if !ok {
		return nil, errGarbage
	}
	fields := make(map[string]backend.Secret)
	for range count {
		name, ok := text()
		if !ok {
			return nil, errGarbage
		}
		value, ok := text()
		if !ok {
			return nil, errGarbage
		}
		fields[name] = backend.NewSecretString(value)
	}
	if len(raw) > 0 {
		return nil, errGarbage
	}
	return backend.FieldsToJSON(fields)
}

// printable gives a name that came from outside as it may stand in a message.
func printable(s string) string {
	const longest = 80
	s = strings.Map(func(r rune) rune {
		if isControl(r) || r == utf8.RuneError {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), longest)]
}
