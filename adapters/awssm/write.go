package awssm

import (
	"context"
	"crypto/rand"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	smithyrand "github.com/aws/smithy-go/rand"

	"github.com/credresolve/credresolve/backend"
)

const (
	maxValue    = 65536 // bytes, of SecretString and of SecretBinary
	stagePrefix = "CREDRESOLVE-"
	tidyTimeout = 2 * time.Second
)

// Strength implements backend.Writer: AWS moves a staging label only from the version that it is at.
func (b *Backend) Strength() backend.Strength { return backend.StrengthStore }

// payload is a value as AWS takes it: a text or bytes.
type payload struct {
	text  *string
	bytes []byte
}

func newPayload(v backend.Value) (payload, error) {
	plain := v.Secret.Reveal()
	if v.Fields != nil {
		for _, f := range v.Fields {
			if f.Use(func(b []byte) error {
				if !utf8.Valid(b) {
					return errFieldBytes
				}
				return nil
			}) != nil {
				return payload{}, errFieldBytes
			}
		}
		var err error
		if plain, err = backend.FieldsToJSON(v.Fields); err != nil {
			return payload{}, backend.Errorf(backend.CodeUnsupported, "the fields cannot be written as a JSON object")
		}
	}
	switch {
	case len(plain) == 0:
		return payload{}, errEmptyValue
	case len(plain) > maxValue:
		n := len(plain)
		clear(plain)
		return payload{}, backend.Errorf(backend.CodeUnsupported, "a value of %d bytes is over the limit of %d", n, maxValue)
	case utf8.Valid(plain):
		text := string(plain)
		clear(plain)
		return payload{text: &text}, nil
	}
	return payload{bytes: plain}, nil
}

// Put implements backend.Writer. A value that is UTF-8 becomes the SecretString, another the SecretBinary, and fields one
// JSON object. Each Put sends one idempotency token, which becomes the version, however often the call is repeated.
func (b *Backend) Put(ctx context.Context, req backend.Request, v backend.Value, cond backend.Condition) (string, error) {
	version, err := b.put(ctx, req, v, cond)
	if err != nil {
		return "", about(req.ID, err)
	}
	return version, nil
}

func (b *Backend) put(ctx context.Context, req backend.Request, v backend.Value, cond backend.Condition) (string, error) {
	if req.Version != "" {
		return "", errPinned
	}
	if err := checkID(req.ID); err != nil {
		return "", err
	}
	p, err := newPayload(v)
	if err != nil {
		return "", err
	}
	defer clear(p.bytes)
	token, err := smithyrand.NewUUID(rand.Reader).GetUUID()
	if err != nil {
		return "", backend.Errorf(backend.CodeInternal, "no random token could be made")
	}
	switch {
	case cond.Absent && cond.Version != "":
		return "", backend.Errorf(backend.CodeConflict, "a secret cannot both be absent and have a version")
	case cond.Absent:
		return b.create(ctx, req.ID, p, token)
	case cond.Version != "":
		return b.swap(ctx, req.ID, p, token, cond.Version)
	}
	version, err := b.putVersion(ctx, req.ID, p, token)
	if !errors.Is(err, backend.ErrNotFound) || isARN(req.ID) {
		return version, err
	}
	version, err = b.create(ctx, req.ID, p, token)
	if errors.Is(err, errExists) { // somebody was faster
		return b.putVersion(ctx, req.ID, p, token)
	}
	return version, err
}

// create makes the secret; ErrConflict when it exists, also as one that is marked for deletion.
func (b *Backend) create(ctx context.Context, name string, p payload, token string) (string, error) {
	if isARN(name) {
		return "", errNewByARN
	}
	in := &secretsmanager.CreateSecretInput{Name: &name, SecretString: p.text, SecretBinary: p.bytes, ClientRequestToken: &token}
	if b.config.KMSKeyID != "" {
		in.KmsKeyId = &b.config.KMSKeyID
	}
	out, err := call(ctx, b, (*secretsmanager.Client).CreateSecret, in)
	switch {
	case errors.Is(err, backend.ErrConflict):
		return "", errExists
	case errors.Is(err, backend.ErrNotFound):
		return "", errDeleted
	case err != nil:
		return "", err
	}
	return aws.ToString(out.VersionId), nil
}

// putVersion adds a version under the labels stages, AWSCURRENT when there are none.
func (b *Backend) putVersion(ctx context.Context, id string, p payload, token string, stages ...string) (string, error) {
	out, err := call(ctx, b, (*secretsmanager.Client).PutSecretValue, &secretsmanager.PutSecretValueInput{
		SecretId: &id, SecretString: p.text, SecretBinary: p.bytes, ClientRequestToken: &token, VersionStages: stages,
	})
	if err != nil {
		return "", err
	}
	return aws.ToString(out.VersionId), nil
}

// swap makes p the current value if the version have is the current one. AWS cannot compare when it stores a value, but it
// moves AWSCURRENT only from the version that the caller says it is at. So the value is stored under a label of its own
// first, which no reader asks for.
func (b *Backend) swap(ctx context.Context, id string, p payload, token, have string) (string, error) {
	now, err := b.describe(ctx, id)
	switch {
	case errors.Is(err, backend.ErrDenied): // then only the move will tell
	case errors.Is(err, backend.ErrNotFound):
		return "", backend.Errorf(backend.CodeConflict, "the secret does not exist")
	case err != nil:
		return "", err
	case labelled(now.VersionIdsToStages, currentStage) != have:
		return "", errStale
	}
	stage := stagePrefix + rand.Text()[:16]
	version, err := b.putVersion(ctx, id, p, token, stage)
	if err == nil {
		err = b.moveStage(ctx, id, currentStage, have, version)
	}
	// The label goes in any case, also when ctx has ended meanwhile; without one, AWS forgets a version that was not used.
	tctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTimeout)
	defer cancel()
	switch backend.CodeOf(err) {
	case backend.CodeOK:
	case backend.CodeDenied, backend.CodeInvalidID, backend.CodeNotFound, backend.CodeThrottled, backend.CodeAuthRequired, backend.CodeUnsupported:
	default: // the answer was lost, not the call
		if d, derr := b.describe(tctx, id); derr == nil && labelled(d.VersionIdsToStages, currentStage) == token {
			version, err = token, nil
		}
	}
	_ = b.moveStage(tctx, id, stage, token, "")
	switch backend.CodeOf(err) {
	case backend.CodeOK:
		return version, nil
	case backend.CodeInvalidID:
		return "", errStale
	case backend.CodeNotFound:
		return "", backend.Errorf(backend.CodeConflict, "the secret does not exist any more")
	}
	return "", err
}

// moveStage takes the label stage from one version, and gives it to the other unless that is empty.
func (b *Backend) moveStage(ctx context.Context, id, stage, from, to string) error {
	in := &secretsmanager.UpdateSecretVersionStageInput{SecretId: &id, VersionStage: &stage, RemoveFromVersionId: &from}
	if to != "" {
		in.MoveToVersionId = &to
	}
	_, err := call(ctx, b, (*secretsmanager.Client).UpdateSecretVersionStage, in)
	return err
}

// Delete implements backend.Writer. The secret can be restored for recovery_days; until then its name is taken.
func (b *Backend) Delete(ctx context.Context, req backend.Request, cond backend.Condition) error {
	switch {
	case req.Version != "":
		return about(req.ID, errPinned)
	case cond != backend.Condition{}:
		return about(req.ID, errDeleteIf)
	}
	err := checkID(req.ID)
	if err == nil {
		in := &secretsmanager.DeleteSecretInput{SecretId: &req.ID}
		if b.config.RecoveryDays != 0 {
			in.RecoveryWindowInDays = aws.Int64(int64(b.config.RecoveryDays))
		}
		_, err = call(ctx, b, (*secretsmanager.Client).DeleteSecret, in)
	}
	if err != nil {
		return about(req.ID, err)
	}
	return nil
}
