package backend

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// Fields of one secret are never of two versions of it, and no source is asked twice without need.
func TestGetAll(t *testing.T) {
	version, asked, changes := 0, 0, 0 // of the secret; it changes with each of the next so many reads
	field := func(name string) Source {
		return NewSource(func(context.Context) (Secret, string, error) {
			asked++
			if changes > 0 {
				changes--
				version++
			}
			return NewSecretString(fmt.Sprint(name, version)), fmt.Sprint("r", version), nil
		}, nil)
	}
	other := NewSource(func(context.Context) (Secret, string, error) { return NewSecretString("other"), "x", nil }, nil)
	for _, tt := range []struct {
		changes, asked int
		want           string
		err            error
	}{
		{0, 2, "a0b0", nil}, {1, 2, "a1b1", nil}, {2, 4, "a3b3", nil}, {3, 4, "a6b6", nil}, {100, 10, "", ErrUnavailable},
	} {
		asked, changes = 0, tt.changes
		secrets, revisions, _, err := GetAll(t.Context(), field("a").Of("s"), other, field("b").Of("s"), Source{})
		if !errors.Is(err, tt.err) || asked != tt.asked {
			t.Errorf("%d changes: %v, asked %d times", tt.changes, err, asked)
		}
		if err == nil && (string(secrets[0].Reveal())+string(secrets[2].Reveal()) != tt.want || revisions[0] != revisions[2] || revisions[1] != "x") {
			t.Errorf("%d changes: %s%s, %v", tt.changes, secrets[0].Reveal(), secrets[2].Reveal(), revisions)
		}
	}
	failing := NewSource(func(context.Context) (Secret, string, error) { return Secret{}, "", ErrLocked }, nil)
	if _, _, at, err := GetAll(t.Context(), other, failing); at != 1 || !errors.Is(err, ErrLocked) {
		t.Errorf("%v at %d", err, at)
	}
}
