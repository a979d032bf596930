package backend

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// BatchGetter is a Backend whose store can answer many requests in one call.
type BatchGetter interface {
	Backend
	// GetBatch gives one Result for each request, in their order, duplicates included. The error is the whole
	// provider's: then there are no results. A store that answers only some kinds of request in a batch fetches the
	// others one by one; ErrUnsupported means that this configuration has no batch call at all.
	GetBatch(ctx context.Context, reqs []Request) ([]Result, error)
}

// Result is the outcome of one Request of a batch: a Credential or an error, never both.
type Result struct {
	Credential *Credential
	Err        error
}

// batchFallback bounds the calls under way at once where the store has no batch call.
const batchFallback = 16

// GetBatch answers reqs in their order, in the store's own batch call where b has one, else in concurrent single calls.
// The error is the whole provider's.
func GetBatch(ctx context.Context, b Backend, reqs []Request) ([]Result, error) {
	if bg, ok := b.(BatchGetter); ok {
		results, err := bg.GetBatch(ctx, reqs)
		if err == nil && len(results) != len(reqs) {
			return nil, Errorf(CodeInternal, "the backend gave %d results for %d requests", len(results), len(reqs))
		}
		if err == nil || !errors.Is(err, errors.ErrUnsupported) {
			return results, err
		}
	}
	results := make([]Result, len(reqs))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(batchFallback, len(reqs)) {
		wg.Go(func() {
			for i := range next {
				c, err := b.Get(ctx, reqs[i])
				results[i] = Result{c, err}
			}
		})
	}
	for i := range reqs {
		next <- i
	}
	close(next)
	wg.Wait()
	return results, nil
}

// unsupported is the answer of the package functions where b lacks a capability that cannot be made up for.
func unsupported(what string) error {
	return &Error{Code: CodeUnsupported, Reason: fmt.Sprintf("this provider cannot %s", what)}
}
