package metrics

import (
	"runtime"
	"time"
)

// process writes what the runtime and the system know of the process, under the names that Prometheus's own clients use.
// Package runtime/metrics would tell more, but builds its tables when the program starts, at the cost of every command.
func (x *exposition) process(began time.Time) {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	x.own("go_goroutines", "gauge", "Goroutines.", float64(runtime.NumGoroutine()))
	x.own("go_memstats_heap_alloc_bytes", "gauge", "Heap in use, with what is not collected yet.", float64(mem.HeapAlloc))
	x.own("go_memstats_sys_bytes", "gauge", "Memory that the runtime has from the system.", float64(mem.Sys))
	x.own("go_memstats_alloc_bytes_total", "counter", "Bytes that were allocated.", float64(mem.TotalAlloc))
	x.own("go_gc_cycles_total", "counter", "Garbage collections.", float64(mem.NumGC))
	x.own("go_gc_pause_seconds_total", "counter", "Time that all goroutines stood still for a collection.", float64(mem.PauseTotalNs)/1e9)
	x.own("process_start_time_seconds", "gauge", "When the process started, since the epoch.", float64(began.UnixMilli())/1e3)
	x.system()
}

func (x *exposition) own(name, kind, help string, v float64) {
	x.foreign(name, kind, help)
	x.name(name, nil)
	x.float(v)
	x.out = append(x.out, '\n')
}
