package cli

import (
	"errors"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/resolver"
)

// newResult is the answer for one ref, in the form of the sidecar's. What get prints is what the ref selects: the fields beside
// it are left away.
func newResult(o resolver.Outcome) client.Result {
	r := client.NewResult(o)
	r.Fields = nil
	return r
}

// failed gives the status of the first of errs that is not nil, having printed those that say says to; nil when all are.
func (a *app) failed(errs []error, say bool) error {
	var first error
	seen := make(map[string]bool)
	for _, err := range errs {
		if err == nil {
			continue
		}
		if first == nil {
			first = err
		}
		if text := err.Error(); say && !seen[text] {
			seen[text] = true
			a.complain(err)
		}
	}
	if first == nil {
		return nil
	}
	return &exit{status: exitStatusOf(first)}
}

// exitStatusOf is the exit status for err.
func exitStatusOf(err error) int {
	var own *exit
	var by interrupted
	switch {
	case errors.As(err, &own):
		return own.status
	case errors.As(err, &by):
		return statusOf(by.sig)
	}
	return backend.CodeOf(err).ExitStatus()
}
