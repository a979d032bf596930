package cli

import (
	"os"
	"strings"
	"testing"
)

// The page shows the templates as they are.
func TestTemplatesAreThoseOfThePage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/adapters/oauth2.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range templates() {
		block := "```yaml\n" + one.name + ":\n"
		for line := range strings.Lines(one.text) {
			block += "  " + line
		}
		if !strings.Contains(string(page), block+"```\n") || !strings.Contains(string(page), "| `"+one.name+"` | "+one.register+" |\n") {
			t.Errorf("docs/adapters/oauth2.md does not show the template %s as it is", one.name)
		}
	}
}

func TestInsertProviderKeepsLineEndsAndWhatFollows(t *testing.T) {
	t.Parallel()
	for src, want := range map[string]string{
		"providers:\r\n    a: {}\r\n\r\n# next\r\nserve: {}\r\n": "providers:\r\n    a: {}\r\n    n:\r\n      kind: x\r\n\r\n# next\r\nserve: {}\r\n",
		"providers:\n  a: {}": "providers:\n  a: {}\n  n:\n    kind: x\n",
		"providers:\n":        "providers:\n  n:\n    kind: x\n",
	} {
		if got, _, ok := insertProvider(src, "n", "kind: x\n"); !ok || got != want {
			t.Errorf("%q became %q", src, got)
		}
	}
	if _, _, ok := insertProvider("providers: {a: {}}\n", "n", "kind: x\n"); ok {
		t.Error("a provider is put into a flow mapping")
	}
}
