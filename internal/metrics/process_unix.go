//go:build unix

package metrics

import "golang.org/x/sys/unix"

func (x *exposition) processorTime() {
	var used unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &used) != nil {
		return
	}
	seconds := float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
	x.own("process_cpu_seconds_total", "counter", "Processor time of the process.", seconds)
}
