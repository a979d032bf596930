package awssm

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/credresolve/credresolve/backend"
)

var (
	_ backend.BatchGetter = (*Backend)(nil)
	_ backend.Prober      = (*Backend)(nil)
	_ backend.Checker     = (*Backend)(nil)
	_ backend.Writer      = (*Backend)(nil)
	_ backend.Lister      = (*Backend)(nil)
	_ backend.Describer   = (*Backend)(nil)
)

// Backend reads and writes the secrets of one account and region. It is safe for concurrent use.
type Backend struct {
	config      Config
	callerBound bool
	life        context.Context // ends with Close
	end         context.CancelFunc
	processes   *processes
	noBatch     atomic.Int64 // until when, in Unix nanoseconds, BatchGetSecretValue is not tried

	mu      sync.Mutex
	current *session
	loading *loading // nil when none is under way
	closed  bool
}

// New gives a Backend of c. It does no I/O, and does not look at the AWS configuration of the user yet.
func New(c Config, h backend.Host) (*Backend, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	b := &Backend{config: c}
	b.life, b.end = context.WithCancel(context.Background())
	b.processes = &processes{life: b.life, interactive: h.Interactive}
	lookup := h.LookupEnv
	if lookup == nil {
		lookup = os.LookupEnv
	}
	for name, outranked := range c.callerVariables() {
		if value, set := lookup(name); set && value != "" && !outranked {
			b.callerBound = true
		}
	}
	return b, nil
}

// Describe implements backend.Describer. The backend is bound to its caller when a variable of the environment decides
// who we are or where we ask.
func (b *Backend) Describe() backend.Description {
	return backend.Description{
		Detail: b.config.detail(), Versions: true, Fields: true,
		MaxValue: maxValue, MaxBatch: maxBatch, CallerBound: b.callerBound,
	}
}

// call does one call of AWS, and repeats it once after a new login when AWS refuses the credentials.
func call[In, Out any](ctx context.Context, b *Backend,
	op func(*secretsmanager.Client, context.Context, *In, ...func(*secretsmanager.Options)) (*Out, error), in *In,
) (*Out, error) {
	for repeated := false; ; repeated = true {
		s, err := b.session(ctx)
		if err != nil {
			return nil, err
		}
		out, err := op(s.client, ctx, in)
		if err == nil {
			return out, nil
		}
		f := s.classify(ctx, err)
		if f.skewed { // the same client now knows the right time
			if repeated {
				return nil, f.err
			}
			continue
		}
		if f.refused && (f.login || !s.role) {
			s.source.reject()
		}
		if backend.CodeOf(f.err) == backend.CodeAuthRequired {
			b.drop(s)
		}
		if !f.refused || repeated {
			return nil, f.err
		}
	}
}

const currentStage = "AWSCURRENT"

// parseVersion reads a request's version. At most one of the results is set; neither for the current version.
func parseVersion(version string) (id, stage string, err error) {
	kind, rest, prefixed := strings.Cut(version, ":")
	switch {
	case version == "":
		return "", "", nil
	case prefixed && kind == "id":
		id = rest
	case prefixed && kind == "stage":
		stage = rest
	case isUUID(version):
		id = version
	default:
		stage = version
	}
	if prefixed && id == "" && stage == "" || id != "" && (len(id) < 32 || len(id) > 64) || len(stage) > 256 {
		return "", "", errVersion
	}
	if stage == currentStage {
		stage = ""
	}
	return id, stage, nil
}

// checkID keeps from AWS what it would refuse, since one such id spoils the batch that it is in.
func checkID(id string) error {
	if !isName(id) && regionOf(id) == "" {
		return errID
	}
	return nil
}

// elsewhere tells, in an error for an ARN that was not found, that it is of another region than we ask.
func (b *Backend) elsewhere(id string, err error) error {
	var e *backend.Error
	region := regionOf(id)
	b.mu.Lock()
	s := b.current
	b.mu.Unlock()
	if region == "" || s == nil || region == s.region || !errors.As(err, &e) || e.Code != backend.CodeNotFound {
		return err
	}
	hinted := *e
	hinted.Remedy = "the ARN is of region " + region + ": ask a provider of that region"
	return &hinted
}

// Get implements backend.Backend.
func (b *Backend) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	id, stage, err := parseVersion(req.Version)
	if err == nil {
		err = checkID(req.ID)
	}
	if err != nil {
		return nil, about(req.ID, err)
	}
	in := &secretsmanager.GetSecretValueInput{SecretId: &req.ID}
	if id != "" {
		in.VersionId = &id
	} else {
		in.VersionStage = aws.String(cmp.Or(stage, currentStage))
	}
	out, err := call(ctx, b, (*secretsmanager.Client).GetSecretValue, in)
	if err != nil {
		return nil, about(req.ID, b.elsewhere(req.ID, err))
	}
	c, err := credential(types.SecretValueEntry{
		ARN: out.ARN, Name: out.Name, CreatedDate: out.CreatedDate, SecretBinary: out.SecretBinary,
		SecretString: out.SecretString, VersionId: out.VersionId, VersionStages: out.VersionStages,
	})
	if err != nil {
		return nil, about(req.ID, err)
	}
	return c, nil
}

// credential makes a Credential of what AWS answered, and clears what it can of it.
func credential(v types.SecretValueEntry) (*backend.Credential, error) {
	c := &backend.Credential{Version: aws.ToString(v.VersionId), Metadata: map[string]string{}}
	switch {
	case v.SecretString != nil:
		text := []byte(*v.SecretString)
		c.Secret = backend.NewSecret(text)
		c.Fields, _ = backend.FieldsFromJSON(text)
		clear(text)
	case v.SecretBinary != nil:
		c.Secret = backend.NewSecret(v.SecretBinary)
		clear(v.SecretBinary)
	default:
		return nil, backend.Errorf(backend.CodeUnavailable, "the answer has no secret in it; check the endpoint")
	}
	for key, value := range map[string]*string{"arn": v.ARN, "name": v.Name} {
		if value != nil {
			c.Metadata[key] = *value
		}
	}
	if v.CreatedDate != nil {
		c.Metadata["created"] = v.CreatedDate.UTC().Format(time.RFC3339Nano)
	}
	if len(v.VersionStages) > 0 {
		c.Metadata["stages"] = strings.Join(slices.Sorted(slices.Values(v.VersionStages)), ",")
	}
	return c, nil
}

// Probe implements backend.Prober. It describes a secret that need not exist: AWS authenticates a caller before it looks
// at permissions or names, so that "not found" and "denied" both show a login that works.
func (b *Backend) Probe(ctx context.Context) error {
	_, err := call(ctx, b, (*secretsmanager.Client).DescribeSecret,
		&secretsmanager.DescribeSecretInput{SecretId: aws.String("credresolve/probe")})
	if errors.Is(err, backend.ErrNotFound) || errors.Is(err, backend.ErrDenied) {
		return nil
	}
	return err
}

// CurrentVersion implements backend.Checker. Where the caller may read the secret but not describe it, and for a pinned
// version that has no label any more, it answers errors.ErrUnsupported.
func (b *Backend) CurrentVersion(ctx context.Context, req backend.Request) (string, error) {
	id, stage, err := parseVersion(req.Version)
	if err == nil {
		err = checkID(req.ID)
	}
	if err != nil {
		return "", about(req.ID, err)
	}
	out, err := b.describe(ctx, req.ID)
	switch {
	case errors.Is(err, backend.ErrDenied):
		return "", about(req.ID, backend.Errorf(backend.CodeUnsupported, "the caller may not describe the secret"))
	case err != nil:
		return "", about(req.ID, b.elsewhere(req.ID, err))
	}
	if _, listed := out.VersionIdsToStages[id]; id != "" && listed {
		return id, nil
	} else if id != "" {
		return "", about(req.ID, backend.Errorf(backend.CodeUnsupported, "AWS does not list versions without a staging label"))
	}
	if version := labelled(out.VersionIdsToStages, cmp.Or(stage, currentStage)); version != "" {
		return version, nil
	}
	return "", about(req.ID, backend.Errorf(backend.CodeNotFound, reasonAbsent))
}

// describe fails for a secret that is marked for deletion, as every other call does.
func (b *Backend) describe(ctx context.Context, id string) (*secretsmanager.DescribeSecretOutput, error) {
	out, err := call(ctx, b, (*secretsmanager.Client).DescribeSecret, &secretsmanager.DescribeSecretInput{SecretId: &id})
	if err == nil && out.DeletedDate != nil {
		return nil, backend.Errorf(backend.CodeNotFound, reasonDeleted)
	}
	return out, err
}

// labelled gives the id of the version that has the label stage, or nothing.
func labelled(stages map[string][]string, stage string) string {
	for id, labels := range stages {
		if slices.Contains(labels, stage) {
			return id
		}
	}
	return ""
}

// List implements backend.Lister. Secrets that are marked for deletion are left out.
func (b *Backend) List(ctx context.Context, prefix string) iter.Seq2[backend.Entry, error] {
	return func(yield func(backend.Entry, error) bool) {
		if prefix != "" && !isName(prefix) {
			return
		}
		in := &secretsmanager.ListSecretsInput{MaxResults: aws.Int32(100)}
		for key, values := range b.config.Filters {
			in.Filters = append(in.Filters, types.Filter{Key: types.FilterNameStringType(key), Values: values})
		}
		if prefix != "" && prefix[0] != '!' { // which would turn the meaning of the filter around
			in.Filters = append(in.Filters, types.Filter{Key: types.FilterNameStringTypeName, Values: []string{prefix}})
		}
		seen := make(map[string]bool)
		for {
			out, err := call(ctx, b, (*secretsmanager.Client).ListSecrets, in)
			if err != nil {
				yield(backend.Entry{}, err)
				return
			}
			for _, s := range out.SecretList {
				name := aws.ToString(s.Name)
				// The filter of AWS has been looser than a prefix, and a page may repeat what the one before had.
				if !strings.HasPrefix(name, prefix) || seen[name] || s.DeletedDate != nil {
					continue
				}
				seen[name] = true
				e := backend.Entry{
					ID: name, Version: labelled(s.SecretVersionsToStages, currentStage), Modified: aws.ToTime(s.LastChangedDate),
					Metadata: map[string]string{"arn": aws.ToString(s.ARN)},
				}
				if !yield(e, nil) {
					return
				}
			}
			if aws.ToString(out.NextToken) == "" {
				return
			}
			if aws.ToString(in.NextToken) == *out.NextToken {
				yield(backend.Entry{}, backend.Errorf(backend.CodeUnavailable, "AWS gave the same page of the list twice"))
				return
			}
			in.NextToken = out.NextToken
		}
	}
}

// Close ends the login and its connections. What comes after it fails; a second Close does nothing.
func (b *Backend) Close() error {
	b.end()
	defer b.processes.close()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.current != nil {
		b.current.close()
		b.current = nil
	}
	return nil
}
