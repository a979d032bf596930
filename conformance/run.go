package conformance

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// Run runs the suite as subtests of t, one for each case. A case that is skipped or blocked is a skipped test that says why,
// and what the case would have shown. The Report has the cases that ran: -run may have left some out.
func Run(t *testing.T, h Harness) Report {
	s := newSuite(h)
	report := Report{Version: ReportVersion}
	for _, c := range h.cases() {
		t.Run(c.Name, func(t *testing.T) {
			r := s.run(t.Context(), c)
			report.Results = append(report.Results, r)
			for _, note := range r.Notes {
				t.Log(note)
			}
			switch reasons := strings.Join(r.Reasons, "\n"); r.Outcome {
			case Fail:
				t.Errorf("rule: %s\n%s", c.Rule, reasons)
			case Skip:
				t.Skip(reasons + r.shows())
			case Blocked:
				t.Skip("blocked: " + reasons)
			}
		})
	}
	return report
}

// Check runs the suite without go test. The Report is complete also when ctx ends, or a backend hangs or panics.
func Check(ctx context.Context, h Harness) Report {
	s := newSuite(h)
	report := Report{Version: ReportVersion}
	for _, c := range h.cases() {
		report.Results = append(report.Results, s.run(ctx, c))
	}
	return report
}

// suite is one run. It runs one case at a time.
type suite struct {
	h        Harness
	tag      string // tells ids and goroutines of this run from those of others
	outcomes map[string]Outcome
	cleaning time.Duration // how long the cleanups of a case may take
}

func newSuite(h Harness) *suite {
	return &suite{h: h, tag: strings.ToLower(rand.Text()[:8]), outcomes: make(map[string]Outcome), cleaning: 5 * time.Second}
}

// label is the key of the profiler label that marks the goroutines of a case, and those that they start.
const label = "conformance"

func (s *suite) run(ctx context.Context, c Case) Result {
	start := time.Now()
	r := Result{Name: c.Name, Rule: c.Rule, Capability: c.Capability}
	for _, need := range c.Needs {
		if o := s.outcomes[need]; o == Fail || o == Blocked {
			r.Reasons = append(r.Reasons, fmt.Sprintf("needs %s, which %s", need, map[Outcome]string{Fail: "failed", Blocked: "is blocked"}[o]))
		}
	}
	switch {
	case len(r.Reasons) > 0:
		r.Outcome = Blocked
	case s.h.Open == nil:
		r.Outcome, r.Reasons = Fail, []string{"expected a Harness with Open, saw none"}
	case ctx.Err() != nil:
		r.Outcome, r.Reasons = Skip, []string{"needs time: the run was ended from outside"}
	default:
		s.try(ctx, c, &r)
	}
	r.Elapsed = time.Since(start)
	s.outcomes[c.Name] = r.Outcome
	return r
}

// try runs c in a goroutine of its own, and leaves it behind when its time is over.
func (s *suite) try(ctx context.Context, c Case, r *Result) {
	ctx, cancel := context.WithTimeout(ctx, s.h.caseTime())
	defer cancel()
	rec := &recorder{name: c.Name, ctx: ctx, canaries: new(canaries), step: "starting"}
	rec.canaries.add(s.h.Secrets...)
	t := &trial{recorder: rec, h: s.h, tag: s.tag + "-" + strings.ReplaceAll(c.Name, "/", "-")}
	done := make(chan struct{})
	go pprof.Do(ctx, pprof.Labels(label, t.tag), func(context.Context) {
		defer close(done)
		defer func() {
			if v := recover(); v != nil {
				rec.panicked(v)
			}
		}()
		c.run(t)
	})
	ended := true
	select {
	case <-done:
	case <-ctx.Done():
		select { // a case that watches ctx itself may say more
		case <-done:
		case <-time.After(maxPause):
			ended = false
		}
	}
	s.clean(rec.seal())
	rec.mu.Lock()
	defer rec.mu.Unlock()
	r.Notes = rec.notes
	if !ended {
		rec.failed = append(rec.failed, fmt.Sprintf("expected the case to end within %v, saw it still %s", s.h.caseTime(), rec.step))
	}
	switch {
	case len(rec.failed) > 0:
		r.Outcome, r.Reasons = Fail, rec.failed
	case len(rec.skipped) > 0:
		r.Outcome, r.Reasons = Skip, rec.skipped
	default:
		r.Outcome = Pass
	}
}

// clean runs the cleanups of a case, the last first. A backend whose Close hangs or panics is judged by the cases about Close;
// here it is left behind, and the next ones are given less time.
func (s *suite) clean(cleanups []func()) {
	for i := len(cleanups) - 1; i >= 0; i-- {
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer func() { _ = recover() }()
			cleanups[i]()
		}()
		select {
		case <-done:
		case <-time.After(s.cleaning):
			s.cleaning = maxPause
		}
	}
}
