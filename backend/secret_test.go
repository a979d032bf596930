package backend_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/credresolve/credresolve/backend"
)

const canary = "c4nary-of-a-secret"

// holder is what a careless program might print: a Secret in fields of every kind.
type holder struct {
	Exported   backend.Secret
	unexported backend.Secret
	pointer    *backend.Secret
	list       []backend.Secret
	byName     map[string]backend.Secret
	deep       struct{ s backend.Secret }
	any        any
}

func newHolder() holder {
	s := backend.NewSecretString(canary)
	h := holder{Exported: s, unexported: s, pointer: &s, list: []backend.Secret{s}, byName: map[string]backend.Secret{"a": s}, any: s}
	h.deep.s = s
	return h
}

func TestSecretShowsUnderNoVerb(t *testing.T) {
	t.Parallel()
	h := newHolder()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%o", "%t", "%c", "%U", "%e", "%p", "%T", "% x", "%08d"} {
		for _, v := range []any{h, &h, h.Exported, &h.Exported, []any{h}, map[string]any{"h": h}} {
			out := fmt.Sprintf(verb, v)
			for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), fmt.Sprint([]byte(canary))[1:20]} {
				if strings.Contains(out, form) {
					t.Errorf("%s of %T shows the secret: %s", verb, v, out)
				}
			}
		}
	}
	if got := fmt.Sprint(h.Exported); got != backend.Redacted {
		t.Errorf("Sprint = %q", got)
	}
}

func TestSecretShowsInNoLog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	h := newHolder()
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		l := slog.New(handler)
		l.Info("x", "secret", h.Exported, "holder", h, "pointer", &h)
		l.With("secret", h.Exported).WithGroup("g").Info("y", slog.Any("list", h.list))
	}
	if strings.Contains(out.String(), canary) {
		t.Errorf("the log holds the secret: %s", out.String())
	}
	if !strings.Contains(out.String(), backend.Redacted) {
		t.Errorf("the log does not say %s: %s", backend.Redacted, out.String())
	}
}

func TestSecretCannotBeMarshalled(t *testing.T) {
	t.Parallel()
	s := backend.NewSecretString(canary)
	if _, err := json.Marshal(map[string]any{"a": s}); !errors.Is(err, backend.ErrSecretMarshal) {
		t.Errorf("json: %v", err)
	}
	if _, err := xml.Marshal(s); !errors.Is(err, backend.ErrSecretMarshal) {
		t.Errorf("xml: %v", err)
	}
	if err := gob.NewEncoder(new(bytes.Buffer)).Encode(s); !errors.Is(err, backend.ErrSecretMarshal) {
		t.Errorf("gob: %v", err)
	}
}

func TestSecretKeepsItsOwnBytes(t *testing.T) {
	t.Parallel()
	in := []byte(canary)
	s := backend.NewSecret(in)
	clear(in)
	out := s.Reveal()
	if string(out) != canary {
		t.Fatalf("Reveal = %q", out)
	}
	clear(out)
	if string(s.Reveal()) != canary {
		t.Error("overwriting what Reveal gave changed the secret")
	}
	if s.Len() != len(canary) {
		t.Errorf("Len = %d", s.Len())
	}
}

func TestEmptyAndZeroSecretsDiffer(t *testing.T) {
	t.Parallel()
	var zero backend.Secret
	empty := backend.NewSecret(nil)
	if !zero.IsZero() || zero.Reveal() != nil || zero.Len() != 0 {
		t.Error("the zero Secret holds something")
	}
	if empty.IsZero() || empty.Reveal() == nil || empty.Len() != 0 {
		t.Error("the empty secret is no value")
	}
	if zero.Equal(empty) || !zero.Equal(backend.Secret{}) || !empty.Equal(backend.NewSecretString("")) {
		t.Error("Equal mixes up the zero and the empty secret")
	}
	if backend.NewSecretString("1").Equal(backend.NewJSONSecret([]byte("1"))) {
		t.Error("the text 1 equals the number 1")
	}
}

// The bytes are read after the last holder is gone, through a pointer that the collector does not see as one of ours.
func TestSecretIsZeroedWhenItsLastHolderIsGone(t *testing.T) {
	s := backend.NewSecretString(canary)
	var bytesOf []byte
	_ = s.Use(func(b []byte) error { bytesOf = unsafe.Slice(unsafe.SliceData(b), len(b)); return nil })
	runtime.GC()
	time.Sleep(10 * time.Millisecond)
	if string(bytesOf) != canary {
		t.Fatal("zeroed under a holder")
	}
	runtime.KeepAlive(s)
	s = backend.Secret{}
	for range 100 {
		runtime.GC()
		time.Sleep(time.Millisecond)
		if string(bytesOf) == strings.Repeat("\x00", len(canary)) {
			return
		}
	}
	t.Error("the bytes are still there after the last holder is gone")
}
