package vault_test

import (
	"testing"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/vaulttest"
)

func TestGetRotation(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := s.Mount(t, "kv", map[string]string{"version": "2"})
	old := s.Mount(t, "kv", map[string]string{"version": "1"})
	b := open(t, s.Addr, s.Token)
	put := func(value string) {
		s.Write(t, m+"/data/db", map[string]any{"data": map[string]any{"password": value}})
	}
	req := backend.Request{ID: m + "/db"}
	beside := func(want string) {
		t.Helper()
		others, err := b.GetRotation(t.Context(), req, get(t, b, req.ID, ""))
		if err != nil || (want != "") != (len(others) == 1) {
			t.Fatalf("%d versions, %v; want %q", len(others), err, want)
		}
		if want != "" && field(t, others[0], "password") != want {
			t.Errorf("it is %q, want %q", field(t, others[0], "password"), want)
		}
	}
	put("one-c4nary")
	beside("")
	put("two-c4nary")
	beside("one-c4nary")
	put("three-c4nary")
	beside("two-c4nary")
	s.Write(t, m+"/delete/db", map[string]any{"versions": []int{2}})
	beside("")
	s.Write(t, old+"/db", map[string]any{"password": "c4nary"})
	if others, err := b.GetRotation(t.Context(), backend.Request{ID: old + "/db"}, get(t, b, old+"/db", "")); err != nil || others != nil {
		t.Errorf("without versions: %v, %v", others, err)
	}
}
