package grants

import (
	"errors"
	"time"

	"github.com/credresolve/credresolve/backend"
)

const (
	mostLead   = 5 * time.Minute  // before its end a credential is refreshed, or a third of its life
	dueAgain   = 30 * time.Second // after a refresh that gave what is due already
	pauseValid = 5 * time.Minute  // after a refresh that failed while the credential is good, doubled each time; or half of what is left
	mostValid  = time.Hour
	pauseEnded = time.Second // after one that failed when it is not
	mostEnded  = 5 * time.Minute
	mostWait   = time.Hour // that a server may ask for
)

// due is when a successor is to be made; zero: at no time that is known.
func (r *record) due() time.Time {
	var due time.Time
	life := r.Expires.Sub(r.Obtained)
	switch {
	case !r.RefreshAfter.IsZero():
		due = r.RefreshAfter
	case !r.Expires.IsZero():
		due = r.Expires.Add(-min(mostLead, life/3))
	default:
		return due
	}
	if !due.After(r.Obtained) { // a server that always says so must not make us ask all the time
		due = r.Obtained.Add(dueAgain)
		if life > 0 {
			due = r.Obtained.Add(min(dueAgain, life*2/3))
		}
	}
	if life > 0 && due.After(r.Expires) {
		due = r.Expires
	}
	return due
}

// isDue reports whether a successor is to be made now. What was got in the future was got before the clock was set back, or by a
// host whose clock is ahead: when it ends is not known.
func (r *record) isDue(now time.Time) bool {
	due := r.due()
	return r.Ended || !due.IsZero() && (!now.Before(due) || now.Add(hostSkew).Before(r.Obtained))
}

// usable reports whether the credential may still be handed out.
func (r *record) usable(now time.Time) bool {
	return !r.Ended && (r.Expires.IsZero() || now.Before(r.Expires))
}

// next is when another exchange may be made after those that failed; zero: at once. good tells whether the credential is good
// meanwhile.
func (r *record) next(good bool) time.Time {
	if r.Failures == 0 {
		return time.Time{}
	}
	first, most := pauseEnded, mostEnded
	if good {
		first, most = pauseValid, mostValid
	}
	pause := min(first<<min(r.Failures-1, 20), most)
	if good && !r.Expires.IsZero() { // the more often, the nearer the end
		pause = min(pause, max(r.Expires.Sub(r.Failed)/2, dueAgain))
	}
	next := r.Failed.Add(pause)
	if r.NotBefore.After(next) {
		next = r.NotBefore
	}
	return next
}

// paused reports whether no exchange is made yet after those that failed. A failure in the future was one before the clock was set
// back, and does not count.
func (r *record) paused(now time.Time, good bool) bool {
	return !now.Add(hostSkew).Before(r.Failed) && now.Before(r.next(good))
}

// fail notes that an exchange failed for a reason that may pass.
func (r *record) fail(err error, now time.Time) {
	r.State, r.Attempt = stateActive, nil
	r.Failures++
	r.Failure, r.Failed, r.NotBefore = backend.CodeOf(err), now.Round(0), time.Time{}
	r.FailureReason, r.FailureRemedy = reasonOf(err), ""
	var known *backend.Error
	if errors.As(err, &known) {
		r.FailureRemedy = known.Remedy
	}
	if wait := backend.RetryAfter(err); wait > 0 {
		r.NotBefore = r.Failed.Add(min(wait, mostWait))
	}
	switch r.Failure {
	case backend.CodeUnavailable, backend.CodeTimeout, backend.CodeCanceled, backend.CodeInternal:
		r.Unanswered = now
	}
}

// failure is the error of the exchange that failed last, for who asks before the next.
func (r *record) failure(now time.Time, good bool) error {
	e := &backend.Error{Code: r.Failure, Remedy: r.FailureRemedy, Reason: "the refresh of the login of " + r.key.String() + " failed at " + at(r.Failed) +
		" and is tried again at " + at(r.next(good)) + ": " + r.FailureReason}
	switch r.Failure {
	case backend.CodeTimeout, backend.CodeCanceled, backend.CodeInternal, "":
		e.Code = backend.CodeUnavailable
	}
	if e.Code.Retryable() {
		e.RetryAfter = max(r.next(good).Sub(now), 0)
	}
	return e
}
