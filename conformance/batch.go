package conformance

import (
	"strconv"

	"github.com/credresolve/credresolve/backend"
)

func batchCases() []Case {
	const capBatch = "batch"
	return []Case{
		{
			Name: "batch/order", Capability: capBatch, Rule: "a batch gives one outcome for each request, in their order", Needs: []string{"get/value"},
			run: func(t *trial) {
				b := t.batcher()
				ids, values := t.several(5)
				ids[0], ids[4] = ids[4], ids[0]
				values[0], values[4] = values[4], values[0]
				t.wantBatch(t.batch(b, requests(ids...)), values)
			},
		},
		{
			Name: "batch/empty", Capability: capBatch, Rule: "a batch of no requests gives no outcomes and no error", Needs: []string{"batch/order"},
			run: func(t *trial) {
				b := t.batcher()
				t.at("in GetBatch of nothing")
				results, err := b.GetBatch(t.ctx, nil)
				if err != nil || len(results) != 0 {
					t.Errorf("GetBatch of nothing: expected nothing, saw %d outcomes and %s", len(results), t.sawErr(err))
				}
			},
		},
		{
			Name: "batch/duplicates", Capability: capBatch, Rule: "a request that stands in a batch twice has two outcomes", Needs: []string{"batch/order"},
			run: func(t *trial) {
				b := t.batcher()
				ids, v := t.several(2)
				t.wantBatch(t.batch(b, requests(ids[0], ids[1], ids[0], ids[0])), [][]byte{v[0], v[1], v[0], v[0]})
			},
		},
		{
			Name: "batch/partial", Capability: capBatch, Rule: "a request that fails in a batch has its own error, and the others their credentials",
			Needs: []string{"batch/order", "get/missing"},
			run: func(t *trial) {
				b := t.batcher()
				ids, v := t.several(2)
				results := t.batch(b, requests(ids[0], t.id("missing"), ids[1]))
				if len(results) != 3 {
					t.Fatalf("GetBatch of 3 requests: expected 3 outcomes, saw %d", len(results))
				}
				t.wantErr("the outcome of a secret that does not exist", results[1].Err, backend.CodeNotFound)
				if results[1].Credential != nil {
					t.Errorf("the outcome of a secret that does not exist: expected an error alone, saw a credential beside it")
				}
				t.wantBatch([]backend.Result{results[0], results[2]}, v)
			},
		},
		{
			Name: "batch/denied", Capability: capBatch, Rule: "a secret that the store refuses does not make a batch fail", Needs: []string{"batch/partial", "fault/one-id"},
			run: func(t *trial) {
				b := t.batcher()
				ids, v := t.several(3)
				t.fault(Fault{Kind: FaultDeny, ID: ids[1]})
				results := t.batch(b, requests(ids...))
				t.wantErr("the outcome of a secret that is refused", results[1].Err, backend.CodeDenied)
				t.wantBatch([]backend.Result{results[0], results[2]}, [][]byte{v[0], v[2]})
			},
		},
		{
			Name: "batch/same-as-get", Capability: capBatch, Rule: "a batch gives the same credentials and errors as single Gets",
			Needs: []string{"batch/order", "batch/partial", "get/identity", "error/type", "version/refused", "version/missing"},
			run: func(t *trial) {
				b := t.batcher()
				ids, _ := t.several(2)
				reqs := append(requests(ids...), request(t.id("missing")), backend.Request{ID: ids[0], Version: "no-such-version"})
				for i, r := range t.batch(b, reqs) {
					c, err := t.get(b, reqs[i])
					if got, want := backend.CodeOf(r.Err), backend.CodeOf(err); got != want {
						t.Errorf("request %d: expected %s as a single Get gives, saw %s", i, want, got)
						continue
					}
					if err == nil {
						if what := differs(c, r.Credential); what != "" {
							t.Errorf("request %d: expected the credential that a single Get gives, saw another %s", i, what)
						}
					}
				}
			},
		},
		{
			Name: "batch/large", Capability: capBatch, Rule: "a batch of more requests than one call of the store carries is answered whole", Needs: []string{"batch/duplicates", "batch/partial"},
			run: func(t *trial) {
				b := t.batcher()
				n := 50
				if most := backend.Describe(b).MaxBatch; most > 0 {
					n = 2*most + 1
				}
				ids, values := t.several(3)
				reqs := make([]backend.Request, 0, n)
				want := make([][]byte, 0, n)
				for i := range n { // most of them missing: storing so many may take a store long
					if i%7 == 0 {
						reqs, want = append(reqs, request(ids[i%3])), append(want, values[i%3])
					} else {
						reqs, want = append(reqs, request(t.storeID(t.tag+"-none-"+strconv.Itoa(i)))), append(want, nil)
					}
				}
				t.wantBatch(t.batch(b, reqs), want)
			},
		},
		{
			Name: "batch/unavailable", Capability: capBatch, Rule: "a store that is gone fails the whole batch, or each request of it, as unavailable",
			Needs: []string{"batch/order", "fault/unavailable"},
			run: func(t *trial) {
				b := t.batcher()
				ids, _ := t.several(2)
				t.fault(Fault{Kind: FaultDisappear})
				t.at("in GetBatch")
				results, err := b.GetBatch(t.ctx, requests(ids...))
				if err != nil {
					t.wantErr("GetBatch", err, backend.CodeUnavailable)
					if len(results) > 0 {
						t.Errorf("GetBatch: expected no outcomes beside its error, saw %d", len(results))
					}
					return
				}
				for _, r := range results {
					t.wantErr("an outcome", r.Err, backend.CodeUnavailable)
				}
			},
		},
	}
}

// batcher opens a backend with a batch call, or skips the case.
func (t *trial) batcher() backend.BatchGetter {
	b := capability[backend.BatchGetter](t, t.open(), "batch")
	return b
}

// batch gives the outcomes of reqs, or ends the case.
func (t *trial) batch(b backend.BatchGetter, reqs []backend.Request) []backend.Result {
	t.at("in GetBatch")
	results, err := b.GetBatch(t.ctx, reqs)
	t.supported(err, "batch")
	if err != nil {
		t.Fatalf("GetBatch: expected one outcome for each request, saw %s", t.sawErr(err))
	}
	if len(results) != len(reqs) {
		t.Fatalf("GetBatch of %d requests: expected as many outcomes, saw %d", len(reqs), len(results))
	}
	return results
}

// wantBatch fails the case unless results have the values; nil stands for one that is missing.
func (t *trial) wantBatch(results []backend.Result, want [][]byte) {
	for i, r := range results {
		what := "outcome " + strconv.Itoa(i)
		switch {
		case want[i] == nil:
			t.wantErr(what, r.Err, backend.CodeNotFound)
		case r.Err != nil || r.Credential == nil:
			t.Errorf("%s: expected a credential, saw %s", what, t.saw(r.Credential, r.Err))
		default:
			t.wantPlain(what, r.Credential, want[i])
		}
	}
}

// several stores n canaries.
func (t *trial) several(n int) (ids []string, values [][]byte) {
	for range n {
		id, v := t.stored()
		ids, values = append(ids, id), append(values, v)
	}
	return ids, values
}
