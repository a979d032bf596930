package keychain

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"strconv"
	"strings"
	"syscall"

	"github.com/99designs/keyring"
	"github.com/godbus/dbus/v5"

	"github.com/credresolve/credresolve/backend"
)

// The errors of this adapter that need no detail.
var (
	errNoItem       = backend.Errorf(backend.CodeNotFound, "the item does not exist")
	errGone         = backend.Errorf(backend.CodeConflict, "the item does not exist any more")
	errExists       = backend.Errorf(backend.CodeConflict, "the item exists already")
	errChanged      = backend.Errorf(backend.CodeConflict, "the item has changed since that version")
	errVersions     = backend.Errorf(backend.CodeUnsupported, "a keychain keeps no versions: leave the version out")
	errNoConditions = backend.Errorf(backend.CodeUnsupported, "a conditional write needs a state directory for its lock")
	errClosed       = backend.Errorf(backend.CodeUnavailable, "the keychain is closed")
	errID           = backend.Errorf(backend.CodeInvalidID, "an id is 1 to 2048 bytes of UTF-8 without control characters")
	errQuery        = backend.Errorf(backend.CodeInvalidID, "an id that starts with ? has the form ?attribute=value&attribute=value, percent-encoded, no attribute twice")
	errQueryHere    = backend.Errorf(backend.CodeInvalidID, "queries over attributes, ids that start with ?, need the Secret Service")
	errName         = backend.Errorf(backend.CodeInvalidID, "this store cannot hold an item of that name")
	errFields       = backend.Errorf(backend.CodeUnsupported, "the fields cannot be written as one JSON object")
	errNoValue      = backend.Errorf(backend.CodeUsage, "there is no value to store")
	errEmpty        = backend.Errorf(backend.CodeUnsupported, "this store cannot hold an empty value")
	errMangled      = backend.Errorf(backend.CodeUnsupported, "the store gives back another value than was stored, and the former state was restored; encode it, say as base64")
	errPassword     = &backend.Error{Code: backend.CodeAuthRequired, Reason: "the password does not open the encrypted files, or an item is damaged", Remedy: "check the provider's password"}
	errNoPassword   = &backend.Error{Code: backend.CodeAuthRequired, Reason: "the password of the encrypted files is empty", Remedy: "set the provider's password"}
	errLostPassword = &backend.Error{Code: backend.CodeAuthRequired, Reason: "the password of the encrypted files is not where the provider's password points", Remedy: "store it there, or correct the setting"}
	errDamaged      = backend.Errorf(backend.CodeInternal, "the item's file is damaged, or not of this store")
	errCollides     = backend.Errorf(backend.CodeUnsupported, "the file system does not tell the item's name from that of another item")
	errGarbage      = backend.Errorf(backend.CodeUnavailable, "the store's answer makes no sense")
	errCrashed      = backend.Errorf(backend.CodeInternal, "the library that reads the store failed")
	errMangled16    = backend.Errorf(backend.CodeUnsupported, "the value looks like a text in UTF-16, which is how other programs write here, and would be read as one; encode it, say as base64")
	errAltered      = backend.Errorf(backend.CodeUnsupported, "the store gave back another value than was stored, and the item was removed")
	errFirstLine    = backend.Errorf(backend.CodeUnsupported, "the entry has several lines, of which pass_first_line shows one: edit it with pass")
)

func errTooLarge(store string, limit int) error {
	if store == auto {
		return backend.Errorf(backend.CodeUnsupported, "the value is larger than %d bytes", limit)
	}
	return backend.Errorf(backend.CodeUnsupported, "the value is larger than the %d bytes that %s holds", limit, store)
}

func errAmbiguous(n int) error {
	return &backend.Error{
		Code: backend.CodeInvalidID, Reason: strconv.Itoa(n) + " items match the id, and it must be exactly one",
		Remedy: "name more attributes: ?attribute=value&attribute=value",
	}
}

func errLocked(what, remedy string) error {
	return &backend.Error{Code: backend.CodeLocked, Reason: what + " is locked", Remedy: remedy}
}

// busErrors is what the names of D-Bus errors mean here. The text that comes with them is not shown.
var busErrors = map[string]struct {
	code   backend.Code
	reason string
}{
	"org.freedesktop.Secret.Error.IsLocked":             {backend.CodeLocked, "the keychain is locked"},
	"org.freedesktop.Secret.Error.NoSession":            {backend.CodeUnavailable, "the session with the Secret Service ended"},
	"org.freedesktop.Secret.Error.NoSuchObject":         {backend.CodeNotFound, "the item does not exist"},
	"org.freedesktop.DBus.Error.UnknownObject":          {backend.CodeUnavailable, "the service on the session bus is not the store that it should be"},
	"org.freedesktop.DBus.Error.UnknownMethod":          {backend.CodeUnavailable, "the service on the session bus is not the store that it should be"},
	"org.freedesktop.DBus.Error.AccessDenied":           {backend.CodeDenied, "the store refuses access"},
	"org.freedesktop.DBus.Error.AuthFailed":             {backend.CodeDenied, "the session bus refuses this user"},
	"org.freedesktop.DBus.Error.NotSupported":           {backend.CodeUnsupported, "the store does not support this"},
	"org.freedesktop.DBus.Error.LimitsExceeded":         {backend.CodeThrottled, "the session bus is at its limits"},
	"org.freedesktop.DBus.Error.ServiceUnknown":         {backend.CodeUnavailable, "no such service runs on the session bus"},
	"org.freedesktop.DBus.Error.NameHasNoOwner":         {backend.CodeUnavailable, "no such service runs on the session bus"},
	"org.freedesktop.DBus.Error.NoReply":                {backend.CodeUnavailable, "the store did not answer"},
	"org.freedesktop.DBus.Error.Timeout":                {backend.CodeUnavailable, "the store did not answer in time"},
	"org.freedesktop.DBus.Error.TimedOut":               {backend.CodeUnavailable, "the store did not answer in time"},
	"org.freedesktop.DBus.Error.Disconnected":           {backend.CodeUnavailable, "the connection to the session bus ended"},
	"org.freedesktop.DBus.Error.Spawn.ExecFailed":       {backend.CodeUnavailable, "the service of the store could not be started"},
	"org.freedesktop.DBus.Error.Spawn.ChildExited":      {backend.CodeUnavailable, "the service of the store could not be started"},
	"org.freedesktop.DBus.Error.Spawn.ServiceNotFound":  {backend.CodeUnavailable, "no such service runs on the session bus"},
	"org.freedesktop.DBus.Error.Spawn.PermissionsError": {backend.CodeUnavailable, "the service of the store could not be started"},
}

// busError gives err, of a call over D-Bus, as it may be shown.
func busError(ctx context.Context, err error) error {
	var (
		known  *backend.Error
		remote dbus.Error
	)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &known):
		return known
	case errors.As(err, &remote):
		if e, ok := busErrors[remote.Name]; ok {
			return backend.Errorf(e.code, "%s", e.reason)
		}
		return backend.Errorf(backend.CodeUnavailable, "the store failed with the D-Bus error %s", printable(remote.Name))
	case lost(err):
		return backend.Errorf(backend.CodeUnavailable, "the connection to the session bus ended")
	}
	return errGarbage
}

// itemError gives errNoItem for err of a call to an item that is gone. GNOME Keyring then knows no method any more.
func itemError(err error) error {
	var remote dbus.Error
	if errors.As(err, &remote) {
		switch remote.Name {
		case "org.freedesktop.Secret.Error.NoSuchObject", "org.freedesktop.DBus.Error.UnknownObject", "org.freedesktop.DBus.Error.UnknownMethod":
			return errNoItem
		}
	}
	return err
}

// lost reports whether err means that a connection to the bus is of no use any more.
func lost(err error) bool {
	for _, e := range []error{dbus.ErrClosed, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// osErr is what an error means here.
type osErr struct {
	err    error
	code   backend.Code
	reason string
}

// osErrors is what the errors of the operating system, and of the keyring library, mean here, after those of
// platformErrors.
var osErrors = []osErr{
	{keyring.ErrKeyNotFound, backend.CodeNotFound, "the item does not exist"},
	{keyring.ErrNoAvailImpl, backend.CodeUnavailable, "this system or build has no such store, or refuses to open it"},
	{fs.ErrNotExist, backend.CodeNotFound, "the item does not exist"},
	{fs.ErrPermission, backend.CodeDenied, "permission denied"},
	{syscall.EDQUOT, backend.CodeUnavailable, "the user's quota is exhausted"},
	{syscall.ENOSPC, backend.CodeUnavailable, "no space left"},
	{syscall.EROFS, backend.CodeDenied, "the file system is read-only"},
	{syscall.ENAMETOOLONG, backend.CodeInvalidID, "the name is too long for this store"},
	{syscall.ENOTDIR, backend.CodeInvalidConfig, "a part of the path is not a directory"},
	{syscall.EISDIR, backend.CodeInvalidID, "there is a directory where the item should be"},
	{syscall.ENOSYS, backend.CodeUnavailable, "the kernel or the sandbox does not allow this"},
}

// osError gives err, of the operating system or the keyring library, as it may be shown. doing begins its text.
func osError(doing string, err error) error {
	var known *backend.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return known
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	for _, e := range append(platformErrors(), osErrors...) {
		// The library drops the cause of some errors and keeps its text.
		if errors.Is(err, e.err) || strings.HasSuffix(err.Error(), ": "+e.err.Error()) {
			if e.code == backend.CodeNotFound {
				return errNoItem
			}
			return backend.Errorf(e.code, "%s: %s", doing, e.reason)
		}
	}
	return backend.Errorf(backend.CodeUnavailable, "%s: the store failed", doing)
}

// reason gives the text of err without what it holds of inputs.
func reason(err error) string {
	var known *backend.Error
	if errors.As(err, &known) {
		return known.Reason
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return "it failed"
}
