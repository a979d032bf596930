package keychain

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf16"

	"github.com/99designs/keyring"

	"github.com/credresolve/credresolve/backend"
)

// system is a store that the operating system has and the keyring library reads: the macOS Keychain, the Windows
// Credential Manager, or a keyring of the Linux kernel. Its calls cannot be ended, and some must not overlap, so there is
// one at a time, beside its caller: a call that hangs keeps the next ones waiting, not their callers beyond their time.
type system struct {
	kind        keyring.BackendType
	config      keyring.Config
	scope       string // of keyctl
	interactive bool
	line        line
	shut        atomic.Bool
}

// The limits of the stores, in bytes. Windows: CRED_MAX_CREDENTIAL_BLOB_SIZE of wincred.h. Kernel: user_preparse in
// security/keys/user_defined.c, which refuses the empty value too.
const (
	maxWincred = 5 * 512
	maxKeyctl  = 32767
)

// keyctlPermissions lets the user's other processes use a key too, beside those that possess its keyring. Without them a
// key in the user's keyring could not be read back by its own writer.
const keyctlPermissions = 0x3f3f0000

func newSystem(name string, c Config, interactive bool) *system {
	s := &system{
		kind: keyring.BackendType(name),
		config: keyring.Config{
			AllowedBackends: []keyring.BackendType{keyring.BackendType(name)},
			ServiceName:     c.Service,
			KeychainName:    c.Collection, KeychainTrustApplication: true,
			WinCredPrefix: c.WincredPrefix,
			KeyCtlScope:   c.KeyctlScope,
		},
		interactive: interactive,
		line:        newLine(1),
	}
	if name == keyctlName {
		s.scope = c.KeyctlScope
		if s.scope == "user" || s.scope == "usersession" {
			s.config.KeyCtlPerm = keyctlPermissions
		}
	}
	return s
}

func (s *system) name() string { return string(s.kind) }

func (s *system) close() { s.shut.Store(true) }

func (s *system) describe() backend.Description {
	var d backend.Description
	switch s.kind {
	case macName:
		d.Detail = "service " + s.config.ServiceName + " in the user's keychain"
		if s.config.KeychainName != "" {
			d.Detail = "service " + s.config.ServiceName + " in the keychain " + s.config.KeychainName
		}
	case wincredName:
		d.Detail = "targets " + s.target("*")
		d.MaxValue = maxWincred
	case keyctlName:
		d.Detail = "keyring " + s.config.ServiceName + " in the kernel's " + s.scope + " keyring, until the system restarts"
		d.MaxValue = maxKeyctl
		d.CallerBound = s.scope == "session"
	}
	if err := s.missing(); err != nil {
		d.Detail = reason(err)
	}
	return d
}

func (s *system) target(id string) string {
	return s.config.WinCredPrefix + ":" + s.config.ServiceName + ":" + id
}

// missing fails when this program cannot have the store at all.
func (s *system) missing() error {
	if slices.Contains(keyring.AvailableBackends(), s.kind) {
		return nil
	}
	if s.kind == macName && runtime.GOOS == "darwin" {
		return &backend.Error{
			Code: backend.CodeUnavailable, Reason: "this build has no access to the macOS Keychain, which needs cgo",
			Remedy: "install a build made with CGO_ENABLED=1",
		}
	}
	return backend.Errorf(backend.CodeUnavailable, "%s is not to be had on %s", s.kind, runtime.GOOS)
}

func (s *system) works(context.Context) (string, error) {
	if err := s.missing(); err != nil {
		return "", err
	}
	return "the operating system's own", nil
}

// check refuses ids that the store, or its library, would take for others.
func (s *system) check(id string) error {
	switch {
	case isQuery(id):
		return errQueryHere
	case s.kind == keyctlName && strings.Contains(id, ";"): // the kernel's separator where it describes a key
		return errName
	}
	return nil
}

// call opens the store and calls f with it, doing something for which it finds words.
func call[T any](ctx context.Context, s *system, doing string, f func(keyring.Keyring) (T, error)) (T, error) {
	return inLine(ctx, s.line, func() (result T, err error) {
		if s.shut.Load() {
			return result, errClosed
		}
		if err := s.missing(); err != nil {
			return result, err
		}
		allowInteraction(s.interactive)
		if s.kind == keyctlName {
			if err := enterKeyrings(s.scope); err != nil {
				return result, osError(doing+" "+string(s.kind), err)
			}
		}
		ring, err := keyring.Open(s.config)
		if err == nil {
			result, err = f(ring)
		}
		return result, osError(doing+" "+string(s.kind), err)
	})
}

func (s *system) get(ctx context.Context, id string) ([]byte, error) {
	if err := s.check(id); err != nil {
		return nil, err
	}
	return call(ctx, s, "read from", func(ring keyring.Keyring) ([]byte, error) { return s.read(ring, id) })
}

func (s *system) read(ring keyring.Keyring, id string) ([]byte, error) {
	it, err := ring.Get(id)
	if err != nil {
		return nil, err
	}
	if s.kind == wincredName {
		if text, ok := fromUTF16(it.Data); ok {
			clear(it.Data)
			return text, nil
		}
	}
	if it.Data == nil {
		return []byte{}, nil
	}
	return it.Data, nil
}

func (s *system) put(ctx context.Context, id string, value []byte) error {
	if err := s.check(id); err != nil {
		return err
	}
	if limit := s.describe().MaxValue; limit > 0 && int64(len(value)) > limit {
		return errTooLarge(string(s.kind), int(limit))
	}
	if s.kind == keyctlName && len(value) == 0 {
		return errEmpty
	}
	if _, looks := fromUTF16(value); s.kind == wincredName && looks {
		return errMangled16
	}
	value = bytes.Clone(value) // the call may outlive ctx, and the caller
	_, err := call(ctx, s, "write to", func(ring keyring.Keyring) (struct{}, error) {
		defer clear(value)
		if err := ring.Set(keyring.Item{Key: id, Data: value, Label: s.config.ServiceName + "/" + id, Description: "credresolve"}); err != nil {
			return struct{}{}, err
		}
		if s.kind == macName { // to read might need the user's leave
			return struct{}{}, nil
		}
		stored, err := s.read(ring, id)
		defer clear(stored)
		if err == nil && !bytes.Equal(stored, value) {
			return struct{}{}, errors.Join(errAltered, ring.Remove(id))
		}
		return struct{}{}, err
	})
	return err
}

func (s *system) remove(ctx context.Context, id string) error {
	if err := s.check(id); err != nil {
		return err
	}
	_, err := call(ctx, s, "remove from", func(ring keyring.Keyring) (struct{}, error) { return struct{}{}, ring.Remove(id) })
	return err
}

func (s *system) list(ctx context.Context, prefix string) ([]backend.Entry, error) {
	return call(ctx, s, "list", func(ring keyring.Keyring) ([]backend.Entry, error) {
		ids, err := ring.Keys()
		if errors.Is(err, keyring.ErrKeyNotFound) {
			return nil, nil
		}
		slices.Sort(ids)
		var entries []backend.Entry
		for _, id := range slices.Compact(ids) {
			if strings.HasPrefix(id, prefix) && checkID(id) == nil && s.check(id) == nil {
				entries = append(entries, backend.Entry{ID: id})
			}
		}
		return entries, err
	})
}

// probe opens the store, which tells of a kernel that forbids keyrings. Whether the macOS Keychain is locked shows only
// when an item is read.
func (s *system) probe(ctx context.Context) error {
	_, err := call(ctx, s, "open", func(keyring.Keyring) (struct{}, error) { return struct{}{}, nil })
	return err
}

// fromUTF16 gives the text of a credential that cmdkey or the Control Panel of Windows made: those write UTF-16. It takes
// for one only what no UTF-8 text is, ASCII characters each followed by a zero byte.
func fromUTF16(b []byte) ([]byte, bool) {
	if len(b) == 0 || len(b)%2 != 0 {
		return nil, false
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = uint16(b[2*i]) | uint16(b[2*i+1])<<8
		if units[i] == 0 || units[i] > 0x7e {
			return nil, false
		}
	}
	return []byte(string(utf16.Decode(units))), true
}
