package cli

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// A line that is too long stays so when its end is taken back: its middle is lost.
func TestLongLineThatIsTakenBack(t *testing.T) {
	t.Parallel()
	keys := editing{erase: 0x7f, kill: 0x15}
	long := strings.Repeat("x", maxLine+10)
	for typed, want := range map[string]string{"ab\x7fc\n": "ac", long + "\x7fy\n": "", long + "\x15y\n": "y"} {
		one := &typist{in: strings.NewReader(typed), echo: io.Discard, keys: keys}
		got, err := one.line()
		if string(got) != want || (want == "") != errors.Is(err, errLongLine) {
			t.Errorf("of %d bytes came %d, %v; want %q", len(typed), len(got), err, want)
		}
	}
}
