package metrics

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// system writes what /proc and getrusage tell. What cannot be read is left out.
func (x *exposition) system() {
	x.processorTime()
	if n := openFiles("/proc/self/fd"); n >= 0 {
		x.own("process_open_fds", "gauge", "Open file descriptors.", float64(n))
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		x.own("process_max_fds", "gauge", "Most file descriptors that may be open.", float64(limit.Cur))
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return
	}
	for line := range bytes.Lines(status) {
		name, value, _ := strings.Cut(string(line), ":")
		kilobytes := 1024 * number(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch name {
		case "VmRSS":
			x.own("process_resident_memory_bytes", "gauge", "Resident memory.", kilobytes)
		case "VmHWM":
			x.own("process_resident_memory_max_bytes", "gauge", "The most resident memory so far.", kilobytes)
		case "VmSize":
			x.own("process_virtual_memory_bytes", "gauge", "Virtual memory.", kilobytes)
		case "VmLck":
			x.own("process_locked_memory_bytes", "gauge", "Memory that is not swapped.", kilobytes)
		case "VmSwap":
			x.own("process_swap_bytes", "gauge", "Memory that is swapped out.", kilobytes)
		case "Threads":
			x.own("process_threads", "gauge", "Threads.", number(strings.TrimSpace(value)))
		}
	}
}

// number reads a whole number that a file of the system holds at its end.
func number(s string) float64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return float64(n)
}

// openFiles counts the descriptors of the process; negative: not known.
func openFiles(dir string) int {
	d, err := os.Open(dir)
	if err != nil {
		return -1
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return -1
	}
	return len(names) - 1 // without our own look
}
