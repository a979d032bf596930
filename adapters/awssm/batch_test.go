package awssm_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/sync/errgroup"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/mototest"
)

func TestThousandSecretsAreFiftyCalls(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	b := open(t, basic(p))
	var g errgroup.Group
	g.SetLimit(8)
	reqs := make([]backend.Request, 1000)
	for i := range reqs {
		reqs[i].ID = fmt.Sprintf("n/%04d", i)
		g.Go(func() error {
			_, err := b.Put(t.Context(), reqs[i], backend.Value{Secret: backend.NewSecretString("value of " + reqs[i].ID)}, backend.Condition{Absent: true})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	rand.Shuffle(len(reqs), func(i, j int) { reqs[i], reqs[j] = reqs[j], reqs[i] })
	p.Reset()
	results, err := b.GetBatch(t.Context(), reqs)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.Err != nil || text(r.Credential) != "value of "+reqs[i].ID {
			t.Fatalf("%s: %v, %v", reqs[i].ID, r.Credential, r.Err)
		}
	}
	if calls := p.All(); len(calls) != 50 || len(p.Calls("BatchGetSecretValue")) != 50 {
		t.Errorf("%d calls, want 50 of BatchGetSecretValue", len(calls))
	}
}

func TestBatchOfEverything(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	b := open(t, basic(p))
	first := create(t, p, "a", "one")
	arn := aws.ToString(first.ARN)
	if _, err := b.Put(t.Context(), backend.Request{ID: "a"}, backend.Value{Secret: backend.NewSecretString("two")}, backend.Condition{}); err != nil {
		t.Fatal(err)
	}
	create(t, p, "b", `{"k":"v"}`)
	create(t, p, "gone", "x")
	remove(t, p, "gone")
	p.Reset()
	reqs := []backend.Request{
		{ID: "a"}, {ID: arn}, {ID: arn[:len(arn)-7]}, {ID: "a", Version: "AWSPREVIOUS"}, {ID: "a", Version: aws.ToString(first.VersionId)},
		{ID: "b"}, {ID: "nope"}, {ID: "gone"}, {ID: "not a name"}, {ID: "a"}, {ID: "a", Version: "stage:AWSCURRENT"}, {ID: "a", Version: "id:x"},
	}
	want := []string{"two", "two", "two", "one", "one", `{"k":"v"}`, "not_found", "not_found", "invalid_id", "two", "two", "invalid_id"}
	results, err := backend.GetBatch(t.Context(), b, reqs)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		got := string(backend.CodeOf(r.Err))
		if r.Err == nil {
			got = text(r.Credential)
		}
		if got != want[i] {
			t.Errorf("%v: %s (%v), want %s", reqs[i], got, r.Err, want[i])
		}
	}
	fails(t, results[6].Err, backend.CodeNotFound, `"nope"`, "does not exist")
	fails(t, results[7].Err, backend.CodeNotFound, `"gone"`, "marked for deletion")
	if n, single := len(p.Calls("BatchGetSecretValue")), len(p.Calls("GetSecretValue")); n != 1 || single != 2 {
		t.Errorf("%d batch and %d single calls, want 1 and 2", n, single)
	}
	p.Reset()
	if results, err := b.GetBatch(t.Context(), []backend.Request{{ID: "b"}, {ID: "b"}}); err != nil || results[1].Err != nil {
		t.Error(err, results)
	}
	if len(p.Calls("GetSecretValue")) != 1 || len(p.All()) != 1 {
		t.Error("one secret needs no permission for the batch call")
	}
	if results, err := b.GetBatch(t.Context(), nil); err != nil || len(results) != 0 {
		t.Error("an empty batch: ", results, err)
	}
}

const json11 = "application/x-amz-json-1.1"

func batchOf(n int) []backend.Request {
	reqs := make([]backend.Request, n)
	for i := range reqs {
		reqs[i].ID = fmt.Sprintf("s%02d", i)
	}
	return reqs
}

func TestBatchErrorsStayApart(t *testing.T) {
	t.Parallel()
	p := mototest.Alone(t)
	b := open(t, basic(p))
	arn := func(name string) string { return "arn:aws:secretsmanager:eu-west-1:123456789012:secret:" + name }
	reqs := []backend.Request{{ID: "ok"}, {ID: "denied"}, {ID: "kms"}, {ID: "gone"}, {ID: "busy"}, {ID: "odd"}, {ID: arn("full-AbCdEf")}, {ID: arn("part")}, {ID: "silent"}}
	entry := func(id, code, message string) string {
		return fmt.Sprintf(`{"SecretId":%q,"ErrorCode":%q,"Message":%q}`, id, code, message)
	}
	p.Fail("BatchGetSecretValue", mototest.Raw(200, json11, `{"SecretValues":[{"Name":"ok","ARN":"`+arn("ok-AbCdEf")+`","VersionId":"v","SecretString":"`+secretCanary+`"}],"Errors":[`+
		strings.Join([]string{
			entry("denied", "AccessDeniedException", textCanary),
			entry(arn("kms-AbCdEf"), "DecryptionFailure", textCanary), // asked by name, told by ARN
			entry("gone", "InvalidRequestException", "You can't perform this operation on the secret because it was marked for deletion."),
			entry("busy", "InternalServiceError", textCanary),
			entry("odd", "canary-code", textCanary),
			entry("full", "ResourceNotFoundException", textCanary), // asked by ARN, told by name
			entry(arn("part-GhIjKl"), "ResourceNotFoundException", textCanary),
		}, ",")+`]}`))
	p.Fail("GetSecretValue", mototest.Refuse(400, "ResourceNotFoundException", textCanary))
	results, err := b.GetBatch(t.Context(), reqs)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []backend.Code{
		backend.CodeOK, backend.CodeDenied, backend.CodeDenied, backend.CodeNotFound, backend.CodeUnavailable, backend.CodeInternal,
		backend.CodeNotFound, backend.CodeNotFound, backend.CodeNotFound,
	} {
		if want == backend.CodeOK {
			if results[i].Err != nil || text(results[i].Credential) != secretCanary {
				t.Errorf("%s: %v", reqs[i].ID, results[i].Err)
			}
			continue
		}
		fails(t, results[i].Err, want, reqs[i].ID)
	}
	if n := len(p.Calls("GetSecretValue")); n != 1 {
		t.Errorf("%d single calls, want one: for the id that the answer left out", n)
	}
}

func TestBatchPages(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	b := open(t, basic(p))
	value := func(name string) string {
		return fmt.Sprintf(`{"Name":%q,"ARN":"arn:aws:secretsmanager:eu-west-1:123456789012:secret:%s-AbCdEf","SecretString":"of %s"}`, name, name, name)
	}
	p.Fail("BatchGetSecretValue",
		mototest.Raw(200, json11, `{"SecretValues":[`+value("s00")+`],"NextToken":"t1"}`),
		mototest.Raw(200, json11, `{"NextToken":"t2"}`),
		mototest.Raw(200, json11, `{"SecretValues":[`+value("s01")+`,`+value("s02")+`],"NextToken":"t2"}`)) // a token that repeats ends it
	create(t, p, "s03", "of s03")
	results, err := b.GetBatch(t.Context(), batchOf(4))
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if want := fmt.Sprintf("of s%02d", i); r.Err != nil || text(r.Credential) != want {
			t.Errorf("result %d: %v", i, r.Err)
		}
	}
	calls := p.Calls("BatchGetSecretValue")
	if len(calls) != 3 || !strings.Contains(calls[1].Body, `"t1"`) || !strings.Contains(calls[2].Body, `"t2"`) {
		t.Errorf("%d pages were asked for", len(calls))
	}
}

func TestBatchWherePolicyDeniesIt(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	b := open(t, basic(p))
	for _, r := range batchOf(3) {
		create(t, p, r.ID, "x")
	}
	p.Fail("BatchGetSecretValue", mototest.Refuse(400, "AccessDeniedException", textCanary))
	p.Fail("GetSecretValue", mototest.Refuse(400, "AccessDeniedException", textCanary))
	for round := range 2 {
		results, err := b.GetBatch(t.Context(), batchOf(3))
		if err != nil {
			t.Fatal(err)
		}
		denied := 0
		for _, r := range results {
			if r.Err != nil {
				fails(t, r.Err, backend.CodeDenied)
				denied++
			}
		}
		if denied != 1-round {
			t.Errorf("round %d: %d were denied", round, denied)
		}
	}
	if n, single := len(p.Calls("BatchGetSecretValue")), len(p.Calls("GetSecretValue")); n != 1 || single != 6 {
		t.Errorf("%d batch and %d single calls: the denial was not remembered", n, single)
	}
}

func TestBatchCallThatFailsAsAWhole(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		fault   mototest.Fault
		code    backend.Code // of each secret; ok: single calls answered
		batches int          // after a second round
	}{
		{"one id spoiled it", mototest.Refuse(400, "ResourceNotFoundException", textCanary), backend.CodeOK, 2},
		{"AWS dislikes an id", mototest.Refuse(400, "ValidationException", textCanary), backend.CodeOK, 2},
		{"the endpoint has no such call", mototest.Refuse(400, "UnknownOperationException", textCanary), backend.CodeOK, 1},
		{"throttled", mototest.Refuse(400, "ThrottlingException", textCanary), backend.CodeThrottled, 2},
		{"down", mototest.Refuse(503, "ServiceUnavailable", textCanary), backend.CodeUnavailable, 2},
		{"garbage", mototest.Raw(200, json11, "<html>"+textCanary), backend.CodeUnavailable, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := mototest.New(t)
			b := open(t, basic(p))
			for _, r := range batchOf(3) {
				create(t, p, r.ID, "x")
			}
			p.Fail("BatchGetSecretValue", tt.fault)
			results, err := b.GetBatch(t.Context(), batchOf(3))
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range results {
				if tt.code != backend.CodeOK {
					fails(t, r.Err, tt.code)
				} else if r.Err != nil {
					t.Error(r.Err)
				}
			}
			if results, err = b.GetBatch(t.Context(), batchOf(3)); err != nil || results[0].Err != nil {
				t.Error("the second round: ", err, results[0].Err)
			}
			if n := len(p.Calls("BatchGetSecretValue")); n != tt.batches {
				t.Errorf("%d batch calls in two rounds, want %d", n, tt.batches)
			}
		})
	}
}

func TestBatchWithARefusedLogin(t *testing.T) {
	t.Parallel()
	p := mototest.Alone(t)
	b := open(t, basic(p))
	p.Fail("BatchGetSecretValue", mototest.Times(200, mototest.Refuse(400, "UnrecognizedClientException", textCanary))...)
	results, err := b.GetBatch(t.Context(), batchOf(100))
	fails(t, err, backend.CodeAuthRequired)
	if results != nil {
		t.Error("there are results beside the error of all")
	}
}
