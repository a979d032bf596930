package awssm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"golang.org/x/sync/errgroup"

	"github.com/credresolve/credresolve/adapters/awssm"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/mototest"
)

func plain(s string) backend.Value { return backend.Value{Secret: backend.NewSecretString(s)} }

func put(t testing.TB, b *awssm.Backend, id, value string, cond backend.Condition) string {
	t.Helper()
	version, err := b.Put(t.Context(), backend.Request{ID: id}, plain(value), cond)
	if err != nil {
		t.Fatal(err)
	}
	return version
}

// stages gives the labels of every version of id.
func stages(t testing.TB, p *mototest.Proxy, id string) map[string][]string {
	t.Helper()
	out, err := direct(p).DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: &id})
	if err != nil {
		t.Fatal(err)
	}
	return out.VersionIdsToStages
}

func noPrivateStage(t testing.TB, p *mototest.Proxy, id string) {
	t.Helper()
	if all := fmt.Sprint(stages(t, p, id)); strings.Contains(all, "CREDRESOLVE") {
		t.Errorf("a private stage stayed behind: %s", all)
	}
}

func TestPut(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	b := open(t, basic(p))
	first := put(t, b, "new", secretCanary, backend.Condition{})
	second := put(t, b, "new", "two", backend.Condition{})
	if c := get(t, b, "new", ""); text(c) != "two" || c.Version != second {
		t.Errorf("current is version %s", c.Version)
	}
	if c := get(t, b, "new", "AWSPREVIOUS"); text(c) != secretCanary || c.Version != first {
		t.Errorf("previous is version %s", c.Version)
	}
	third := put(t, b, get(t, b, "new", "").Metadata["arn"], "three", backend.Condition{})
	if c := get(t, b, "new", ""); c.Version != third {
		t.Error("a put by ARN did not arrive")
	}
	bin := []byte{0, 0xff, 1}
	if _, err := b.Put(t.Context(), backend.Request{ID: "bin"}, backend.Value{Secret: backend.NewSecret(bin)}, backend.Condition{Absent: true}); err != nil {
		t.Fatal(err)
	}
	if c := get(t, b, "bin", ""); !bytes.Equal(c.Secret.Reveal(), bin) {
		t.Errorf("bytes came back as %x", c.Secret.Reveal())
	}
	fields := backend.Value{Fields: map[string]backend.Secret{"user": backend.NewSecretString("ü<>"), "port": backend.NewJSONSecret([]byte("5432"))}}
	if _, err := b.Put(t.Context(), backend.Request{ID: "fields"}, fields, backend.Condition{}); err != nil {
		t.Fatal(err)
	}
	if c := get(t, b, "fields", ""); text(c) != `{"port":5432,"user":"ü<>"}` || string(c.Fields["user"].Reveal()) != "ü<>" {
		t.Errorf("fields came back as %s", text(c))
	}
	if _, err := backend.PutField(t.Context(), b, backend.Request{ID: "fields"}, "user", backend.NewSecretString("u2"), backend.Condition{}); err != nil {
		t.Fatal(err)
	}
	if c := get(t, b, "fields", ""); text(c) != `{"port":5432,"user":"u2"}` {
		t.Errorf("a field was put: %s", text(c))
	}
	noPrivateStage(t, p, "fields")
	if _, err := b.Put(t.Context(), backend.Request{ID: "most"}, plain(strings.Repeat("x", 65536)), backend.Condition{}); err != nil {
		t.Errorf("65,536 bytes: %v", err)
	}
}

func TestPutRefuses(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	b := open(t, basic(p))
	version := put(t, b, "s", "one", backend.Condition{Absent: true})
	create(t, p, "doomed", "x")
	remove(t, p, "doomed")
	arn := "arn:aws:secretsmanager:eu-west-1:" + p.Account + ":secret:nope-AbCdEf"
	other := "00000000-0000-4000-8000-000000000000"
	for _, tt := range []struct {
		name  string
		req   backend.Request
		value backend.Value
		cond  backend.Condition
		code  backend.Code
		tells string
	}{
		{"exists", backend.Request{ID: "s"}, plain("x"), backend.Condition{Absent: true}, backend.CodeConflict, "exists already"},
		{"changed", backend.Request{ID: "s"}, plain("x"), backend.Condition{Version: other}, backend.CodeConflict, "changed"},
		{"missing", backend.Request{ID: "nope"}, plain("x"), backend.Condition{Version: version}, backend.CodeConflict, "does not exist"},
		{"both conditions", backend.Request{ID: "s"}, plain("x"), backend.Condition{Absent: true, Version: version}, backend.CodeConflict, ""},
		{"pinned", backend.Request{ID: "s", Version: version}, plain("x"), backend.Condition{}, backend.CodeUnsupported, ""},
		{"empty", backend.Request{ID: "s"}, plain(""), backend.Condition{}, backend.CodeUnsupported, "no empty value"},
		{"nothing", backend.Request{ID: "s"}, backend.Value{}, backend.Condition{}, backend.CodeUnsupported, "no empty value"},
		{"too long", backend.Request{ID: "s"}, plain(strings.Repeat("x", 65537)), backend.Condition{}, backend.CodeUnsupported, "65537 bytes is over the limit of 65536"},
		{"bytes too long", backend.Request{ID: "s"}, plain(strings.Repeat("\xff", 65537)), backend.Condition{}, backend.CodeUnsupported, "over the limit"},
		{"field of bytes", backend.Request{ID: "s"}, backend.Value{Fields: map[string]backend.Secret{"k": backend.NewSecret([]byte{0xff})}}, backend.Condition{}, backend.CodeUnsupported, "UTF-8"},
		{"doomed", backend.Request{ID: "doomed"}, plain("x"), backend.Condition{}, backend.CodeConflict, "restore-secret"},
		{"doomed, absent", backend.Request{ID: "doomed"}, plain("x"), backend.Condition{Absent: true}, backend.CodeConflict, "marked for deletion"},
		{"doomed, version", backend.Request{ID: "doomed"}, plain("x"), backend.Condition{Version: version}, backend.CodeConflict, ""},
		{"missing ARN", backend.Request{ID: arn}, plain("x"), backend.Condition{}, backend.CodeNotFound, ""},
		{"new ARN", backend.Request{ID: arn}, plain("x"), backend.Condition{Absent: true}, backend.CodeInvalidID, "needs a name"},
	} {
		_, err := b.Put(t.Context(), tt.req, tt.value, tt.cond)
		if t.Run(tt.name, func(t *testing.T) { fails(t, err, tt.code, tt.tells) }); err == nil {
			t.Errorf("%s was stored", tt.name)
		}
	}
	if c := get(t, b, "s", ""); text(c) != "one" || c.Version != version {
		t.Error("a refused write changed the secret")
	}
	if n := len(stages(t, p, "s")); n != 1 {
		t.Errorf("refused writes left %d versions", n)
	}
}

func TestCompareAndSwap(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	b := open(t, basic(p))
	first := put(t, b, "s", "one", backend.Condition{Absent: true})
	second := put(t, b, "s", "two", backend.Condition{Version: first})
	if c := get(t, b, "s", ""); text(c) != "two" || c.Version != second {
		t.Errorf("current is %s", text(c))
	}
	if c := get(t, b, "s", "AWSPREVIOUS"); c.Version != first {
		t.Errorf("previous is %s", c.Version)
	}
	noPrivateStage(t, p, "s")
	results, err := b.GetBatch(t.Context(), []backend.Request{{ID: "s"}, {ID: "nope"}})
	if err != nil || text(results[0].Credential) != "two" {
		t.Error("the batch call reads another current version: ", err)
	}

	// A writer that comes between our look and our move wins.
	p.Fail("PutSecretValue", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if _, err := direct(p).PutSecretValue(r.Context(), &secretsmanager.PutSecretValueInput{SecretId: aws.String("s"), SecretString: aws.String("theirs")}); err != nil {
			t.Error(err)
		}
		next.ServeHTTP(w, r)
	})
	_, err = b.Put(t.Context(), backend.Request{ID: "s"}, plain("ours"), backend.Condition{Version: second})
	fails(t, err, backend.CodeConflict, "changed since that version")
	if c := get(t, b, "s", ""); text(c) != "theirs" {
		t.Errorf("current is %s", text(c))
	}
	noPrivateStage(t, p, "s")

	// A caller that may not describe the secret can swap all the same.
	third := get(t, b, "s", "").Version
	p.Fail("DescribeSecret", mototest.Times(2, mototest.Refuse(400, "AccessDeniedException", textCanary))...)
	_, err = b.Put(t.Context(), backend.Request{ID: "s"}, plain("stale"), backend.Condition{Version: first})
	fails(t, err, backend.CodeConflict)
	fourth := put(t, b, "s", "four", backend.Condition{Version: third})
	if c := get(t, b, "s", ""); c.Version != fourth {
		t.Error("the swap without DescribeSecret did not happen")
	}
	noPrivateStage(t, p, "s")
}

func TestOneOfManySwapsWins(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	b := open(t, basic(p))
	version := put(t, b, "s", "start", backend.Condition{})
	var won, lost atomic.Int64
	var g errgroup.Group
	for i := range 8 {
		g.Go(func() error {
			_, err := b.Put(t.Context(), backend.Request{ID: "s"}, plain(fmt.Sprint("writer ", i)), backend.Condition{Version: version})
			switch {
			case err == nil:
				won.Add(1)
			case errors.Is(err, backend.ErrConflict):
				lost.Add(1)
			default:
				return err
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if won.Load() != 1 || lost.Load() != 7 {
		t.Errorf("%d writers won, %d lost", won.Load(), lost.Load())
	}
	noPrivateStage(t, p, "s")
	var created atomic.Int64
	for range 8 {
		g.Go(func() error {
			_, err := b.Put(t.Context(), backend.Request{ID: "fresh"}, plain("x"), backend.Condition{Absent: true})
			if err == nil {
				created.Add(1)
			} else if !errors.Is(err, backend.ErrConflict) {
				return err
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil || created.Load() != 1 {
		t.Errorf("%d writers created the secret, %v", created.Load(), err)
	}
}

func TestSwapThatIsInterrupted(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		op      string
		fault   mototest.Fault
		code    backend.Code
		current string
	}{
		{"the move fails", "UpdateSecretVersionStage", mototest.Refuse(500, "InternalServiceError", textCanary), backend.CodeUnavailable, "one"},
		{"the move is denied", "UpdateSecretVersionStage", mototest.Refuse(400, "AccessDeniedException", textCanary), backend.CodeDenied, "one"},
		{"the answer to the move is lost", "UpdateSecretVersionStage", mototest.LoseAnswer, backend.CodeOK, "two"},
		{"the answer to the put is lost", "PutSecretValue", mototest.LoseAnswer, backend.CodeUnavailable, "one"},
		{"the put is throttled", "PutSecretValue", mototest.Refuse(400, "ThrottlingException", textCanary), backend.CodeThrottled, "one"},
		{"the caller leaves during the move", "UpdateSecretVersionStage", mototest.Hang, backend.CodeTimeout, "one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := mototest.New(t)
			b := open(t, basic(p))
			version := put(t, b, "s", "one", backend.Condition{})
			p.Fail(tt.op, tt.fault)
			ctx := t.Context()
			if tt.code == backend.CodeTimeout {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
				defer cancel()
			}
			_, err := b.Put(ctx, backend.Request{ID: "s"}, plain("two"), backend.Condition{Version: version})
			if tt.code != backend.CodeOK {
				fails(t, err, tt.code)
			} else if err != nil {
				t.Error(err)
			}
			if c := get(t, b, "s", ""); text(c) != tt.current {
				t.Errorf("current is %q", text(c))
			}
			noPrivateStage(t, p, "s")
		})
	}
}

func TestPutIsRepeatedWithOneToken(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	b := open(t, basic(p))
	put(t, b, "s", "one", backend.Condition{})
	p.Reset()
	p.Fail("PutSecretValue", mototest.Refuse(400, "ExpiredTokenException", textCanary))
	version := put(t, b, "s", "two", backend.Condition{})
	calls := p.Calls("PutSecretValue")
	if len(calls) != 2 || !strings.Contains(calls[0].Body, version) || !strings.Contains(calls[1].Body, version) {
		t.Errorf("%d calls, not each with the token that became the version", len(calls))
	}
	// Two who create the same secret at once: the second puts a version instead.
	p.Fail("PutSecretValue", mototest.Refuse(400, "ResourceNotFoundException", textCanary))
	put(t, b, "s", "three", backend.Condition{})
	if c := get(t, b, "s", ""); text(c) != "three" {
		t.Errorf("current is %q", text(c))
	}
}

func TestSettingsOfWrites(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	c := basic(p)
	c.KMSKeyID, c.RecoveryDays = "alias/app", 7
	b := open(t, c)
	put(t, b, "s", "x", backend.Condition{})
	if body := p.Calls("CreateSecret")[0].Body; !strings.Contains(body, `"KmsKeyId":"alias/app"`) {
		t.Error("the KMS key was not sent")
	}
	if err := b.Delete(t.Context(), backend.Request{ID: "s"}, backend.Condition{}); err != nil {
		t.Fatal(err)
	}
	if body := p.Calls("DeleteSecret")[0].Body; !strings.Contains(body, `"RecoveryWindowInDays":7`) {
		t.Error("the recovery window was not sent")
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	b := open(t, basic(p))
	version := put(t, b, "s", "x", backend.Condition{})
	for _, cond := range []backend.Condition{{Version: version}, {Absent: true}} {
		if err := b.Delete(t.Context(), backend.Request{ID: "s"}, cond); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("delete if %+v: %v, want ErrUnsupported", cond, err)
		}
	}
	if err := b.Delete(t.Context(), backend.Request{ID: "s", Version: version}, backend.Condition{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("delete of a version: %v, want ErrUnsupported", err)
	}
	if err := b.Delete(t.Context(), backend.Request{ID: "s"}, backend.Condition{}); err != nil {
		t.Fatal(err)
	}
	_, err := b.Get(t.Context(), backend.Request{ID: "s"})
	fails(t, err, backend.CodeNotFound, "marked for deletion")
	fails(t, b.Delete(t.Context(), backend.Request{ID: "s"}, backend.Condition{}), backend.CodeNotFound, "marked for deletion")
	fails(t, b.Delete(t.Context(), backend.Request{ID: "nope"}, backend.Condition{}), backend.CodeNotFound, "does not exist")
	if body := p.Calls("DeleteSecret")[0].Body; strings.Contains(body, "RecoveryWindow") || strings.Contains(body, "Force") {
		t.Errorf("the deletion is not AWS's default: %s", body)
	}
	if b.Strength() != backend.StrengthStore {
		t.Error("the strength is " + string(b.Strength()))
	}
}
