package backend

import (
	"context"
	"errors"
)

// Writer is a Backend that can change its store.
type Writer interface {
	Backend
	// Put stores v under req.ID, and gives the new version, empty where the store has none. It returns ErrConflict,
	// and changes nothing, when cond does not hold; ErrUnsupported for a value or a condition that the store cannot
	// hold: no value is truncated or altered. req.Version must be empty, else ErrUnsupported.
	Put(ctx context.Context, req Request, v Value, cond Condition) (version string, err error)
	// Delete removes the secret. It returns ErrNotFound when there is none, ErrConflict when cond does not hold.
	Delete(ctx context.Context, req Request, cond Condition) error
	// Strength says who compares when a Condition is given; never more than is true.
	Strength() Strength
}

// Value is what Put stores: a plain secret, or the fields of a structured one, never both.
type Value struct {
	Secret Secret
	Fields map[string]Secret
}

// Condition is what must hold for a write to happen. The zero Condition always holds.
type Condition struct {
	Absent  bool   // the secret does not exist
	Version string // the secret's current version is this
}

// Strength is how far a Condition can be relied on.
type Strength string

// The strengths of a Condition.
const (
	StrengthStore Strength = "store" // the store compares: safe against every other writer
	StrengthHost  Strength = "host"  // re-read and compared under a lock of this host: safe against us on this host
	StrengthNone  Strength = "none"  // no comparison: a Condition answers ErrUnsupported
)

// AsWriter gives b as a Writer, or errors.ErrUnsupported.
func AsWriter(b Backend) (Writer, error) {
	if w, ok := b.(Writer); ok {
		return w, nil
	}
	return nil, unsupported("store secrets")
}

// PutField stores one field of a structured secret and keeps its other fields: it reads the secret, and writes it back
// if it is still at the version that was read. With cond.Absent the field, not the secret, must be missing.
// A plain secret whose text is a JSON object counts as structured; another plain secret is never overwritten by a
// field: that is ErrConflict.
func PutField(ctx context.Context, w Writer, req Request, field string, s Secret, cond Condition) (version string, err error) {
	have, err := w.Get(ctx, req)
	switch {
	case errors.Is(err, ErrNotFound):
		if cond.Version != "" {
			return "", Errorf(CodeConflict, "the secret does not exist")
		}
		return w.Put(ctx, req, Value{Fields: map[string]Secret{field: s}}, absentIfAble(w))
	case err != nil:
		return "", err
	case have.Fields == nil:
		return "", Errorf(CodeConflict, "the secret is a plain one without fields")
	}
	if _, exists := have.Fields[field]; exists && cond.Absent {
		return "", Errorf(CodeConflict, "the field exists already")
	}
	if cond.Version != "" && cond.Version != have.Version {
		return "", Errorf(CodeConflict, "the secret has changed since that version")
	}
	fields := make(map[string]Secret, len(have.Fields)+1)
	for name, f := range have.Fields {
		fields[name] = f
	}
	fields[field] = s
	guard := Condition{Version: have.Version}
	if w.Strength() == StrengthNone {
		guard = Condition{}
	}
	return w.Put(ctx, req, Value{Fields: fields}, guard)
}

func absentIfAble(w Writer) Condition { return Condition{Absent: w.Strength() != StrengthNone} }
