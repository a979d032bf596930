package resident

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// dropProgram unmaps the pages of the program's file that this process has not changed, and unlocks them: they hold nothing
// but the program. Whatever fails leaves them where they are.
func dropProgram() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	mappings, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	// Each mapping is a line with its range, mode and file, and then lines of the form "Name:   1 kB":
	//	00400000-00bcf000 r-xp 00000000 fe:00 1234    /usr/bin/credresolve
	var start, end uint64
	for line := range strings.Lines(string(mappings)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		if from, to, ok := strings.Cut(fields[0], "-"); ok {
			start, end = 0, 0
			if strings.HasSuffix(line, " "+program+"\n") && (fields[1] == "r-xp" || fields[1] == "r--p") {
				start, _ = strconv.ParseUint(from, 16, 64)
				end, _ = strconv.ParseUint(to, 16, 64)
			}
			continue
		}
		// What the loader relocated and then made read-only is not in the file: such a mapping has pages of its own.
		if fields[0] == "Anonymous:" && fields[1] == "0" && start < end {
			_, _, _ = unix.Syscall(unix.SYS_MUNLOCK, uintptr(start), uintptr(end-start), 0)
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(start), uintptr(end-start), unix.MADV_DONTNEED)
		}
	}
}
