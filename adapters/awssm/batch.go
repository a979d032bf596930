package awssm

import (
	"context"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"golang.org/x/sync/errgroup"

	"github.com/credresolve/credresolve/backend"
)

const (
	maxBatch      = 20 // of BatchGetSecretValue
	maxPages      = maxBatch + 1
	parallelCalls = 8
	noBatchFor    = 10 * time.Minute // policies change rarely, and a denied call costs a round trip
	suffixLength  = len("-AbCdEf")   // what AWS appends to a name to make an ARN
)

// GetBatch implements backend.BatchGetter. Current versions go out in calls of 20; pinned versions, and what
// BatchGetSecretValue gave no answer for, are fetched singly. A login that is refused is the error of all.
func (b *Backend) GetBatch(ctx context.Context, reqs []backend.Request) ([]backend.Result, error) {
	type key struct{ id, version string }
	var (
		index   = make(map[key]int, len(reqs)) // where in distinct and found
		unique  []backend.Request
		current []int
		single  []int
	)
	for _, req := range reqs {
		k := key{req.ID, req.Version}
		if _, twice := index[k]; twice {
			continue
		}
		i := len(unique)
		index[k] = i
		unique = append(unique, req)
		if id, stage, err := parseVersion(req.Version); err == nil && id == "" && stage == "" && checkID(req.ID) == nil {
			current = append(current, i)
		} else {
			single = append(single, i)
		}
	}
	found := make([]backend.Result, len(unique))
	fetch := func(ctx context.Context, i int) func() error {
		return func() error {
			c, err := b.Get(ctx, unique[i])
			found[i] = backend.Result{Credential: c, Err: err}
			return ofAll(err)
		}
	}
	var (
		mu      sync.Mutex
		missing []int
	)
	first, fctx := errgroup.WithContext(ctx)
	first.SetLimit(parallelCalls)
	for len(current) > 0 {
		chunk := current[:min(maxBatch, len(current))]
		current = current[len(chunk):]
		if len(chunk) == 1 {
			single = append(single, chunk[0])
			continue
		}
		first.Go(func() error {
			ids := make([]string, len(chunk))
			for n, i := range chunk {
				ids[n] = unique[i].ID
			}
			results, err := b.getMany(fctx, ids)
			mu.Lock()
			defer mu.Unlock()
			for n, i := range chunk {
				switch {
				case err != nil:
					found[i] = backend.Result{Err: about(ids[n], err)}
				case results[n] == (backend.Result{}):
					missing = append(missing, i)
				default:
					found[i] = results[n]
				}
			}
			return ofAll(err)
		})
	}
	for _, i := range single {
		first.Go(fetch(fctx, i))
	}
	if err := first.Wait(); err != nil {
		return nil, err
	}
	second, sctx := errgroup.WithContext(ctx)
	second.SetLimit(parallelCalls)
	for _, i := range missing {
		second.Go(fetch(sctx, i))
	}
	if err := second.Wait(); err != nil {
		return nil, err
	}
	results := make([]backend.Result, len(reqs))
	for n, req := range reqs {
		results[n] = found[index[key{req.ID, req.Version}]]
	}
	return results, nil
}

// ofAll gives err when it is the whole provider's: then every further call would fail the same way.
func ofAll(err error) error {
	switch backend.CodeOf(err) {
	case backend.CodeAuthRequired, backend.CodeInvalidConfig:
		return err
	}
	return nil
}

// getMany does one batch call with all of its pages. A zero Result is an id that it gave no answer for. Its error is
// that of every id.
func (b *Backend) getMany(ctx context.Context, ids []string) ([]backend.Result, error) {
	var (
		results = make([]backend.Result, len(ids))
		nearest = make([]int, len(ids)) // how well results fits the id
		in      = &secretsmanager.BatchGetSecretValueInput{SecretIdList: ids}
	)
	if time.Now().UnixNano() < b.noBatch.Load() {
		return results, nil
	}
	for range maxPages {
		out, err := call(ctx, b, (*secretsmanager.Client).BatchGetSecretValue, in)
		switch backend.CodeOf(err) {
		case backend.CodeOK:
		case backend.CodeDenied, backend.CodeUnsupported:
			b.noBatch.Store(time.Now().Add(noBatchFor).UnixNano())
			return results, nil
		case backend.CodeNotFound, backend.CodeInvalidID, backend.CodeInternal:
			return results, nil // one id spoiled the call
		default:
			return nil, err
		}
		for _, v := range out.SecretValues {
			c, err := credential(v)
			for n, id := range ids {
				if fit := valueFits(id, aws.ToString(v.Name), aws.ToString(v.ARN)); fit > nearest[n] {
					nearest[n] = fit
					results[n] = backend.Result{Credential: c}
					if err != nil {
						results[n] = backend.Result{Err: about(id, err)}
					}
				}
			}
		}
		for _, e := range out.Errors {
			err := entryError(aws.ToString(e.ErrorCode), aws.ToString(e.Message))
			for n, id := range ids {
				if fit := errorFits(id, aws.ToString(e.SecretId)); fit > nearest[n] {
					nearest[n] = fit
					results[n] = backend.Result{Err: about(id, b.elsewhere(id, err))}
				}
			}
		}
		if next := aws.ToString(out.NextToken); next == "" || next == aws.ToString(in.NextToken) {
			break
		}
		in.NextToken = out.NextToken
	}
	return results, nil
}

// valueFits tells how surely the secret of that name and ARN is the one that id means: not at all (0), by an ARN without
// its suffix, by name, or by ARN. A partial ARN comes last, since it can also be the full ARN of another secret.
func valueFits(id, name, arn string) int {
	switch {
	case id == arn:
		return 3
	case id == name:
		return 2
	case isARN(id) && id == withoutSuffix(arn):
		return 1
	}
	return 0
}

// errorFits is valueFits for an error, of which AWS tells the name or the ARN, not always the one that was asked for.
func errorFits(id, told string) int {
	switch {
	case id == told:
		return 3
	case isARN(told) && (id == withoutSuffix(told) || !isARN(id) && (id == resource(told) || id == withoutSuffix(resource(told)))):
		return 1
	case isARN(id) && (told == withoutSuffix(id) || !isARN(told) && (told == resource(id) || told == withoutSuffix(resource(id)))):
		return 1
	}
	return 0
}
