package config_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/config"
)

// TestHostileFilesAreRefusedSoon has files of at most 1 MiB that a parser takes long for, or that unfold to much more.
func TestHostileFilesAreRefusedSoon(t *testing.T) {
	t.Parallel()
	numbered := func(format string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	for name, content := range map[string]string{
		"keys":               numbered("k%d: 1\n", 80_000),
		"indented keys":      "providers:\n" + numbered("  k%d: {}\n", 60_000),
		"keys with a mark":   numbered("? k%d\n", 80_000),
		"keys in one line":   "{" + numbered("k%d: 1, ", 80_000) + "}",
		"a list in one line": "[" + strings.Repeat("1,", 500_000) + "]",
		"comments":           strings.Repeat("#\n", 500_000),
		"aliases": "version: 1\nproviders:\n  p: &x {kind: box, names: [" + strings.Repeat("a,", 10_000) + "a]}\n" +
			numbered("  p%d: *x\n", 5_000),
		"aliases of aliases": "a0: &a0 [x, x]\n" + func() string {
			var b strings.Builder
			for i := range 60 {
				fmt.Fprintf(&b, "a%d: &a%d [*a%d, *a%d]\n", i+1, i+1, i, i)
			}
			return b.String()
		}(),
		"merges": "a: &x {" + numbered("k%d: 1, ", 10_000) + "}\n" + numbered("b%d: {<<: *x}\n", 5_000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if len(content) > 1<<20 {
				t.Fatalf("the file has %d bytes", len(content))
			}
			path := write(t, content)
			start := time.Now()
			_, err := config.Load(path, registry(nil))
			if err == nil || !strings.Contains(err.Error(), "too large") {
				t.Errorf("%.200v", err)
			}
			// Under 1 s on a quiet machine; the race detector and other programs make it twenty. Without the limits it is minutes.
			if took := time.Since(start); took > time.Minute {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestManyProvidersAreTakenSoon(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("version: 1\nproviders:\n")
	for i := range 2000 {
		fmt.Fprintf(&b, "  p%d:\n    kind: box\n    address: a\n    timeout: 5s\n    names: [a, b]\n", i)
	}
	f := load(t, b.String())
	if n := len(f.Providers()); n != 2000 {
		t.Errorf("%d providers", n)
	}
}

// TestSharedChainsAreFollowedOnce has 2^40 ways from the first provider to the last.
func TestSharedChainsAreFollowedOnce(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("version: 1\nproviders:\n  p40: {kind: box, path: x}\n")
	for i := range 40 {
		fmt.Fprintf(&b, "  p%d: {kind: box, path: x, password: {provider: p%d, id: a}, deep: {token: {provider: p%d, id: b}}}\n", i, i+1, i+1)
	}
	f := load(t, b.String())
	if lines := f.NeedsTrust(); len(lines) > 0 {
		t.Errorf("needs trust: %v", lines)
	}
	r, err := f.Open(config.Options{Untrusted: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
