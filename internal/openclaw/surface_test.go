package openclaw

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/internal/openclawtest"
	"github.com/credresolve/credresolve/secretref"
)

// installed is the folder of the OpenClaw that the tests install; the test skips visibly where there is none.
// TestSurfacesAreThoseOfOpenClaw compares the table with the list that the client is published with.
func TestSurfacesAreThoseOfOpenClaw(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join(openclawtest.Install(t), "node_modules", "openclaw", "docs", "reference", "secretref-user-supplied-credentials-matrix.json"))
	if err != nil {
		t.Fatal(err)
	}
	var matrix struct {
		Excluded []string `json:"excludedMutableOrRuntimeManaged"`
		Entries  []struct {
			ID, ConfigFile, Path, RefPath string
			When                          struct{ Type string }
		}
	}
	if err := json.Unmarshal(b, &matrix); err != nil {
		t.Fatal(err)
	}
	theirs := make(map[string]bool)
	for _, e := range matrix.Entries {
		theirs[e.ID] = true
		i := slices.IndexFunc(surfaces(), func(s Surface) bool { return s.ID() == e.ID && !s.RuntimeOnly })
		if i < 0 {
			t.Errorf("%s is missing from the table", e.ID)
			continue
		}
		s := surfaces()[i]
		if s.Profile != (e.ConfigFile == "auth-profile-store") || s.ProfileType != e.When.Type ||
			s.Profile && (s.Pattern != e.RefPath || s.Literal != e.Path) || !s.Profile && s.Pattern != e.Path {
			t.Errorf("%s: %+v, want %+v", e.ID, s, e)
		}
	}
	for _, s := range surfaces() {
		if !s.RuntimeOnly && !theirs[s.ID()] {
			t.Errorf("%s is in the table and not in the list of the client", s.ID())
		}
		if s.RuntimeOnly && theirs[s.ID()] {
			t.Errorf("%s is in the list of the client, and the table says it is not", s.ID())
		}
	}
	for _, pattern := range matrix.Excluded {
		if pattern == "auth-profiles.oauth.*" {
			continue
		}
		if !slices.ContainsFunc(unsupported, func(u Unsupported) bool { return u.Pattern == pattern }) {
			t.Errorf("%s takes no ref, and the table does not say so", pattern)
		}
	}
}

// TestSurfaces holds what must be true of the table by itself.
func TestSurfaces(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	listed := 0
	for _, s := range Surfaces() {
		if seen[s.Pattern] {
			t.Errorf("%s stands twice", s.Pattern)
		}
		seen[s.Pattern] = true
		if !s.RuntimeOnly {
			listed++
		}
		if (s.Kind == "" || s.Kind == secretref.OwnerGateway) != s.Strict {
			t.Errorf("%s: kind %q, strict %v", s.Pattern, s.Kind, s.Strict)
		}
		path := slices.Clone(s.Segments())
		for i, step := range path {
			switch step {
			case "*":
				path[i] = "x.y"
			case "[]":
				path[i] = "12"
			}
		}
		find := SurfaceAt
		if s.Profile {
			find = ProfileSurfaceAt
		}
		if got, ok := find(path); !ok || got.Pattern != s.Pattern {
			t.Errorf("%q is found as %q", path, got.Pattern)
		}
		if s.ProviderAt != 0 && s.Segments()[s.ProviderAt] != "*" {
			t.Errorf("%s: segment %d is no provider", s.Pattern, s.ProviderAt)
		}
		if _, ok := UnsupportedAt(path); ok {
			t.Errorf("%s is supported and not", s.Pattern)
		}
	}
	if listed != 118 {
		t.Errorf("%d surfaces are listed, want the 118 of 2026.9.6", listed)
	}
	for path, want := range map[string]bool{
		"models.providers.a.apiKey": true, "models.providers.a.b.apiKey": false, "models.providers..apiKey": false,
		"tools.media.models.0.request.auth.token": true, "tools.media.models.01.request.auth.token": false,
		"tools.media.models.x.request.auth.token": false, "models.providers.*.apiKey": true,
	} {
		if _, ok := SurfaceAt(strings.Split(path, ".")); ok != want {
			t.Errorf("%s is a surface: %v", path, ok)
		}
	}
}
