package resolver

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"

	"github.com/credresolve/credresolve/backend"
)

// guard keeps calls away from a store that is failing, that asked for a pause, or whose budget is used up.
//
// The breaker counts outages of this process. The hold is what goes beyond that: a pause that the store asked for,
// refused logins, which could lock an account, and what other processes remembered. Neither lasts more than a minute at
// a time.
type guard struct {
	digest  string
	memory  *FailureMemory // nil: none
	ignore  bool           // what other processes remember does not count
	logins  bool           // people log in: a login that is missing is one person's, and no failure of the provider
	limits  Breaker
	budget  Budget
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}] // nil: never opens
	limiter *rate.Limiter                              // nil: no budget

	mu       sync.Mutex
	loaded   bool
	failures int // in a row, other processes' included
	code     backend.Code
	reason   string // of the last failure
	until    time.Time
	opened   time.Time // when the breaker opened
}

func newGuard(p Provider, memory *FailureMemory, ignore bool) *guard {
	g := &guard{digest: p.Digest, limits: p.Breaker, budget: p.Budget, ignore: ignore, logins: backend.Describe(p.Backend).Login}
	if p.Digest != "" {
		g.memory = memory
	}
	if p.Breaker.Failures > 0 {
		g.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
			Timeout:      p.Breaker.Open,
			ReadyToTrip:  func(c gobreaker.Counts) bool { return int(c.ConsecutiveFailures) >= p.Breaker.Failures },
			IsSuccessful: func(err error) bool { return !unavailable(err) },
			IsExcluded:   func(err error) bool { return errors.Is(err, errNotCalled) },
			OnStateChange: func(_ string, _, to gobreaker.State) {
				if to == gobreaker.StateOpen {
					g.mu.Lock()
					g.opened = time.Now()
					g.mu.Unlock()
				}
			},
		})
	}
	if p.Budget.Calls > 0 {
		perSecond := float64(p.Budget.Calls) / p.Budget.Per.Seconds()
		g.limiter = rate.NewLimiter(rate.Limit(perSecond), p.Budget.Calls)
	}
	return g
}

// admit asks whether a call may go to the store, after wait. With a nil error done must be told how it went; else the
// error says when to ask again.
func (g *guard) admit() (wait time.Duration, done func(error), err error) {
	now := time.Now()
	g.mu.Lock()
	g.load(now)
	until, code, reason, failures := g.until, g.code, g.reason, g.failures
	g.mu.Unlock()
	if wait := until.Sub(now); wait > 0 {
		return 0, nil, held(code, reason, failures, wait)
	}
	var told func(error)
	if g.breaker != nil {
		if told, err = g.breaker.Allow(); err != nil {
			g.mu.Lock()
			wait := max(g.opened.Add(g.limits.Open).Sub(now), time.Second)
			code, reason, failures = g.code, g.reason, max(g.failures, g.limits.Failures)
			g.mu.Unlock()
			return 0, nil, held(code, reason, failures, wait)
		}
	}
	if g.limiter != nil {
		turn := g.limiter.ReserveN(now, 1)
		if wait = turn.DelayFrom(now); wait > maxBackoff {
			turn.CancelAt(now)
			if told != nil {
				told(errNotCalled)
			}
			return 0, nil, &backend.Error{
				Code:       backend.CodeThrottled,
				Reason:     fmt.Sprintf("the provider's budget of %d calls in %s is used up", g.budget.Calls, g.budget.Per),
				RetryAfter: wait,
			}
		}
		g.remember(func(r *failureRecord) { r.Spent++ })
	}
	return wait, g.outcome(told), nil
}

// errNotCalled tells the breaker of a call that was not made, or was cut off by us: it says nothing about the store.
var errNotCalled = errors.New("not called")

// held is the error of a call that was not made; reason is that of the last one that was.
func held(code backend.Code, reason string, failures int, wait time.Duration) error {
	e := &backend.Error{Code: backend.CodeUnavailable, RetryAfter: wait}
	in := max(wait.Round(time.Second), time.Second)
	last := fmt.Sprintf(" %d times in a row", failures)
	switch {
	case failures <= 1 && reason == "":
		last = ""
	case failures <= 1:
		last = ": " + reason
	case reason != "":
		last += ", at last: " + reason
	}
	switch code {
	case backend.CodeAuthRequired:
		e.Code = code
		e.Reason = "the store refused the provider's login" + last
		e.Remedy = fmt.Sprintf("check its credentials; the next try is in %s", in)
	case backend.CodeThrottled:
		e.Code = code
		e.Reason = fmt.Sprintf("the store asked to be left alone; the next try is in %s", in)
	default:
		e.Reason = fmt.Sprintf("the store failed%s; the next try is in %s", last, in)
	}
	return e
}

// outcome gives the func that is told how a call went.
func (g *guard) outcome(breaker func(error)) func(error) {
	return func(err error) {
		if isReplaced(err) || err == errClosed {
			err = errNotCalled
		}
		if breaker != nil {
			breaker(err)
		}
		if err == errNotCalled {
			return
		}
		code := backend.CodeOf(err)
		if code == backend.CodeAuthRequired && (g.logins || underway(err)) {
			return
		}
		now := time.Now()
		g.mu.Lock()
		defer g.mu.Unlock()
		if !unavailable(err) && code != backend.CodeAuthRequired {
			if g.failures > 0 || !g.until.IsZero() {
				g.failures, g.code, g.reason, g.until = 0, "", "", time.Time{}
				g.remember(func(r *failureRecord) { r.Failures, r.Code, r.Reason, r.Until = 0, "", "", time.Time{} })
			}
			return
		}
		g.code, g.reason = code, reasonOf(err)
		if g.memory == nil {
			g.failures++
			g.extend(now.Add(g.pause(code, g.failures, err)))
			return
		}
		after := g.remember(func(r *failureRecord) {
			r.Failures++
			r.Code, r.Reason = code, g.reason
			if r.Until.Sub(now) > maxOpen {
				r.Until = time.Time{} // the wall clock was set back
			}
			if until := now.Add(g.pause(code, r.Failures, err)); until.After(now) && until.After(r.Until) {
				r.Until = until
			}
		})
		g.failures = max(g.failures+1, after.Failures)
		if wait := after.Until.Sub(now); wait > 0 {
			g.extend(now.Add(wait)) // by the monotonic clock
		}
	}
}

// underway reports whether err tells of a login under way, and so of one person's that is missing.
func underway(err error) bool {
	var e *backend.Error
	return errors.As(err, &e) && e.Login != nil
}

// maxReason is how many bytes of a reason are kept.
const maxReason = 300

// reasonOf is why err happened, without what to do about it.
func reasonOf(err error) string {
	var e *backend.Error
	if !errors.As(err, &e) || len(e.Reason) > maxReason {
		return ""
	}
	return e.Reason
}

func (g *guard) extend(until time.Time) {
	if until.After(g.until) {
		g.until = until
	}
}

// pause is how long to leave the store alone after that many failures in a row. A refused login gets one free repeat, as
// a person who corrects a setting needs it; outages are the breaker's until it opens, and then doubling, so that
// processes which live shorter than the breaker stays open do not start afresh.
func (g *guard) pause(code backend.Code, failures int, err error) time.Duration {
	wait := min(backend.RetryAfter(err), maxOpen)
	free, first := g.limits.Failures-1, g.limits.Open
	if code == backend.CodeAuthRequired {
		free, first = 1, authPause
	} else if g.breaker == nil || g.memory == nil {
		return wait
	}
	if n := failures - free; n > 0 {
		doubled := float64(first) * math.Pow(2, float64(min(n-1, 10)))
		wait = max(wait, time.Duration(min(doubled, float64(maxOpen))))
	}
	return wait
}

const authPause = 2 * time.Second

// load takes over what other processes remember, once. Called with g.mu held.
func (g *guard) load(now time.Time) {
	if g.loaded {
		return
	}
	g.loaded = true
	if g.memory == nil {
		return
	}
	r := g.memory.load(g.digest)
	g.failures, g.code, g.reason = r.Failures, r.Code, r.Reason
	if g.ignore {
		return // but for the count, which a success clears on disk too
	}
	if wait := r.Until.Sub(now); wait > 0 && wait <= maxOpen { // farther off: the wall clock was set back
		g.until = now.Add(wait) // by the monotonic clock
	}
	if spent := int(math.Ceil(g.spent(r, now))); spent > 0 {
		g.limiter.AllowN(now, min(spent, g.budget.Calls))
	}
}

// spent is how much of the budget is used up, all processes together, by what r says.
func (g *guard) spent(r failureRecord, now time.Time) float64 {
	if g.limiter == nil {
		return 0
	}
	back := max(now.Sub(r.At).Seconds(), 0) * float64(g.limiter.Limit())
	return max(min(r.Spent, float64(g.budget.Calls))-back, 0)
}

// remember changes what all processes know. What is spent is brought up to date before.
func (g *guard) remember(change func(*failureRecord)) failureRecord {
	if g.memory == nil {
		var r failureRecord
		change(&r)
		return r
	}
	now := time.Now()
	return g.memory.update(g.digest, func(r *failureRecord) {
		r.Spent = g.spent(*r, now)
		change(r)
	})
}
