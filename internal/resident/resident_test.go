package resident

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// ofFiles is how much of files this process has mapped, in KiB.
func ofFiles(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "RssFile:"); ok {
			n, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Skip("needs a kernel that tells RssFile: Linux 4.5")
	return 0
}

func TestRelease(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux")
	}
	before := ofFiles(t)
	Release()
	after := ofFiles(t)
	if after >= before*3/4 {
		t.Errorf("%d KiB of files were mapped, %d are", before, after)
	}
	t.Logf("%d KiB of files were mapped, %d are", before, after) // and the process goes on
}
