package authprofiles

import (
	"context"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/authstore"
	"github.com/credresolve/credresolve/internal/json5"
)

// writable is a Backend whose profiles may be in a file.
type writable struct{ *Backend }

// Strength implements backend.Writer.
func (b *writable) Strength() backend.Strength { return backend.StrengthHost }

// Put implements backend.Writer. It writes a profile of the type that the configuration says, with our mark; fields are
// written as one JSON text. A profile that somebody else made is not replaced.
func (b *writable) Put(ctx context.Context, req backend.Request, v backend.Value, cond backend.Condition) (string, error) {
	provider, err := checkWrite(ctx, req)
	if err != nil {
		return "", err
	}
	secret := v.Secret
	if v.Fields != nil {
		text, err := backend.FieldsToJSON(v.Fields)
		if err != nil {
			return "", errFields
		}
		defer clear(text)
		secret = backend.NewSecret(text)
	} else if secret.IsJSON() {
		text := secret.Reveal()
		defer clear(text)
		secret = backend.NewSecret(text)
	}
	if err := authstore.CheckSecret(secret); err != nil {
		return "", err
	}
	entry := authstore.Entry{Type: b.config.WriteAs, Provider: provider, Secret: secret, Metadata: authstore.Mark("", "")}
	return b.update(ctx, func(stores *authstore.Stores, f *json5.File) ([]json5.Edit, error) {
		if err := stores.Writable(f, req.ID); err != nil {
			return nil, err
		}
		if err := holds(stores, req.ID, cond); err != nil {
			return nil, err
		}
		return authstore.Set(req.ID, entry), nil
	})
}

// Delete implements backend.Writer. It deletes a profile with our mark alone, and of the agent's own.
func (b *writable) Delete(ctx context.Context, req backend.Request, cond backend.Condition) error {
	if _, err := checkWrite(ctx, req); err != nil {
		return err
	}
	_, err := b.update(ctx, func(stores *authstore.Stores, f *json5.File) ([]json5.Edit, error) {
		if stores.Own.Profiles[req.ID] == nil {
			return nil, errNoID
		}
		if err := stores.Writable(f, req.ID); err != nil {
			return nil, err
		}
		if err := holds(stores, req.ID, cond); err != nil {
			return nil, err
		}
		return authstore.Remove(f, req.ID), nil
	})
	return err
}

func (b *writable) update(ctx context.Context, change func(*authstore.Stores, *json5.File) ([]json5.Edit, error)) (string, error) {
	h, err := b.locate()
	if err != nil {
		return "", err
	}
	version, err := h.Update(ctx, change)
	var database *authstore.DatabaseError
	if errors.As(err, &database) {
		return "", errDatabase(database.Path)
	}
	return version, err
}

// checkWrite gives the provider that the profile of req is for.
func checkWrite(ctx context.Context, req backend.Request) (provider string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if req.Version != "" {
		return "", errPinned
	}
	provider, ok := authstore.ProviderOf(req.ID)
	if !ok || !utf8.ValidString(req.ID) || strings.ContainsFunc(req.ID, unicode.IsControl) {
		return "", errWriteID
	}
	return provider, nil
}

func holds(stores *authstore.Stores, id string, cond backend.Condition) error {
	exists := stores.Own.Profiles[id] != nil
	switch {
	case cond.Absent && exists:
		return errExists
	case cond.Version != "" && !exists:
		return errNone
	case cond.Version != "" && cond.Version != stores.Version:
		return errChanged
	}
	return nil
}
