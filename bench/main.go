// Command bench measures what credresolve promises to be fast at, each beside a baseline or a peer, in one run on one
// machine, and prints a table. What is promised are ratios; times are shown for orientation.
//
//	go run .                 every row
//	go run . -run Resolve    rows whose name matches
//	go run . -check          exit with 1 when a limit is exceeded
//	go run . -quick          fewer rounds and runs, for a first look
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// work is one row of the table.
type work struct {
	name string
	// limit is the greatest ratio of ours to the baseline; zero: the row is for orientation alone.
	limit float64
	// measure gives both in the same unit.
	measure func(*meter) (result, error)
}

// result is what one work took.
type result struct {
	ours, baseline, ratio float64
	format                func(float64) string
	against               string // what the baseline is
}

// works lists every row; one func per file.
func works() []work {
	return slices.Concat(resolverWorks(), refreshWorks(), storeWorks(), commandWorks(), openClawWorks(), sidecarWorks())
}

func main() {
	run := flag.String("run", "", "only rows whose name matches this regular expression")
	check := flag.Bool("check", false, "exit with 1 when a limit is exceeded")
	quick := flag.Bool("quick", false, "fewer rounds and runs")
	slack := flag.Float64("slack", 0.1, "what -check forgives a noisy machine, as a part of the limit")
	flag.Parse()
	os.Exit(table(*run, *check, *quick, *slack))
}

func table(run string, check, quick bool, slack float64) int {
	want, err := regexp.Compile(run)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 2
	}
	// Measurements are shorter than a scheduler's slice, so that most of them are not interrupted by another program.
	m := &meter{rounds: 401, each: 2 * time.Millisecond, runs: 1000}
	if quick {
		m = &meter{rounds: 101, each: 2 * time.Millisecond, runs: 50}
	}
	fmt.Printf("%s %s/%s, %d processors\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "work\tours\tbaseline\t\tratio\tlimit\t")
	status := 0
	for _, w := range works() {
		if !want.MatchString(w.name) {
			continue
		}
		res, err := w.measure(m)
		switch {
		case err != nil:
			fmt.Fprintf(out, "%s\tfailed: %v\t\t\t\t\t\n", w.name, err)
			status = 1
			continue
		case w.limit == 0:
			fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%.2f\t\t\n", w.name, res.format(res.ours), res.format(res.baseline), res.against, res.ratio)
			continue
		}
		verdict := "ok"
		switch {
		case res.ratio > w.limit*(1+slack):
			verdict = "TOO SLOW"
			if check {
				status = 1
			}
		case res.ratio > w.limit:
			verdict = "ok within the noise"
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%.2f\t%.2f\t%s\n", w.name, res.format(res.ours), res.format(res.baseline), res.against, res.ratio, w.limit, verdict)
	}
	if err := out.Flush(); err != nil {
		return 1
	}
	return status
}

// meter measures by turns: what disturbs the machine for a while disturbs all that are compared.
type meter struct {
	rounds int
	each   time.Duration // of one measurement
	runs   int           // of works that are counted, not timed
}

// compare gives the time of one of ours and of one of baseline. Each func does its work n times. Other programs can only add
// to a time, so that of all rounds those count that were disturbed least.
func (m *meter) compare(ours, baseline func(n int)) result {
	n := [2]int{m.calibrate(ours), m.calibrate(baseline)}
	var times [2][]float64
	for round := range m.rounds {
		for turn := range 2 {
			which := (turn + round) % 2
			f := ours
			if which == 1 {
				f = baseline
			}
			start := time.Now()
			f(n[which])
			times[which] = append(times[which], float64(time.Since(start))/float64(n[which]))
		}
	}
	a, b := least(times[0]), least(times[1])
	return result{ours: a, baseline: b, ratio: a / b, format: nanoseconds}
}

// calibrate gives how often f can do its work in the time of one measurement.
func (m *meter) calibrate(f func(n int)) int {
	for n := 1; ; n *= 4 {
		start := time.Now()
		f(n)
		if took := time.Since(start); took > m.each/8 {
			return max(1, int(float64(n)*float64(m.each)/float64(took)))
		}
	}
}

// least gives the tenth percentile.
func least(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/10]
}

func nanoseconds(x float64) string { return fmt.Sprintf("%.1f ns", x) }

func duration(x float64) string { return time.Duration(x).Round(100 * time.Microsecond).String() }

func count(x float64) string { return fmt.Sprintf("%.0f", x) }
