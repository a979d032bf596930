package awssm_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/mototest"
)

func TestGetRotation(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	b := open(t, basic(p))
	create(t, p, "s", "one")
	beside := func(want ...string) {
		t.Helper()
		c := get(t, b, "s", "")
		others, err := b.GetRotation(t.Context(), backend.Request{ID: "s"}, c)
		if err != nil || len(others) != len(want) {
			t.Fatalf("%d versions, %v", len(others), err)
		}
		for i, c := range others {
			if text(c) != want[i] {
				t.Errorf("%d is %q, want %q", i, text(c), want[i])
			}
		}
	}
	put := func(value string, stages ...string) {
		t.Helper()
		if _, err := direct(p).PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{SecretId: aws.String("s"), SecretString: &value, VersionStages: stages}); err != nil {
			t.Fatal(err)
		}
	}
	beside()
	put("two")
	beside("one")
	put("three", "AWSPENDING")
	beside("three", "one")
	if others, err := b.GetRotation(t.Context(), backend.Request{ID: "s", Version: "AWSPREVIOUS"}, get(t, b, "s", "AWSPREVIOUS")); err != nil || others != nil {
		t.Errorf("of a pinned version: %v, %v", others, err)
	}
	p.Fail("GetSecretValue", mototest.Refuse(400, "AccessDeniedException", "c4nary"))
	_, err := b.GetRotation(t.Context(), backend.Request{ID: "s"}, &backend.Credential{})
	if backend.CodeOf(err) != backend.CodeDenied {
		t.Errorf("denied: %v", err)
	}
}
