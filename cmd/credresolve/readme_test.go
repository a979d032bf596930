package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// section gives what stands in README.md in the fenced block between the comments <!-- name --> and <!-- /… -->.
func section(t *testing.T, name string) string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(readme), "<!-- "+name+" -->")
	between, _, closed := strings.Cut(after, "<!-- /")
	block := regexp.MustCompile("(?s)```[a-z]*\n(.*)```").FindStringSubmatch(between)
	if !found || !closed || block == nil {
		t.Fatalf("README.md has no section %q with a fenced block", name)
	}
	return block[1]
}

func TestReadmeShowsWhatTheDemonstrationPrints(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("needs bash: apt-get install bash")
	}
	out, err := exec.Command("bash", "../../examples/demo/run.sh").CombinedOutput()
	if err != nil {
		t.Fatalf("the demonstration: %v\n%s", err, out)
	}
	// The version of what put stored differs each time.
	got := regexp.MustCompile(`(?m)^[0-9a-f]{32}$`).ReplaceAllString(strings.TrimSpace(string(out)), "fe581585b7fbb1c0ee9b574768f18243") + "\n"
	if want := section(t, "demo"); got != want {
		t.Errorf("the demonstration prints\n%s\nREADME.md shows\n%s", got, want)
	}
}

func TestReadmeShowsTheExampleOfTheLibrary(t *testing.T) {
	t.Parallel()
	src, err := os.ReadFile("../../examples/library/example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, body, found := strings.Cut(string(src), "func Example() {\n")
	body, _, closed := strings.Cut(body, "\t// Output:")
	if !found || !closed {
		t.Fatal("example_test.go has no Example with an Output")
	}
	if got := regexp.MustCompile(`(?m)^\t`).ReplaceAllString(body, ""); got != section(t, "go example_test.go") {
		t.Errorf("the example is\n%s\nREADME.md shows\n%s", got, section(t, "go example_test.go"))
	}
	if lines := strings.Count(body, "\n"); lines >= 10 {
		t.Errorf("the example has %d lines", lines)
	}
}
