package awssm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"go.uber.org/goleak"

	"github.com/credresolve/credresolve/adapters/awssm"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/mototest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Whatever holds the word canary must not be in an error.
const (
	keyCanary    = "c4nary-secret-access-key"
	secretCanary = "c4nary-s3cr3t"
	textCanary   = "c4nary text of AWS"
)

// basic are the settings of a provider that asks p with an access key of its own.
func basic(p *mototest.Proxy) awssm.Config {
	return awssm.Config{
		Region: mototest.Region, Endpoint: p.URL,
		AccessKeyID:     backend.Literal(backend.NewSecretString("AKIAIOSFODNN7EXAMPLE")),
		SecretAccessKey: backend.Literal(backend.NewSecretString(keyCanary)),
	}
}

func open(t testing.TB, c awssm.Config) *awssm.Backend {
	t.Helper()
	b, err := awssm.New(c, backend.Host{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// direct is the SDK's own client of p's account, for what the adapter does not do.
func direct(p *mototest.Proxy) *secretsmanager.Client {
	return secretsmanager.New(secretsmanager.Options{
		Region: mototest.Region, BaseEndpoint: &p.Direct, Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
	})
}

func create(t testing.TB, p *mototest.Proxy, name, value string) *secretsmanager.CreateSecretOutput {
	t.Helper()
	out, err := direct(p).CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: &name, SecretString: &value})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func remove(t testing.TB, p *mototest.Proxy, name string) {
	t.Helper()
	if _, err := direct(p).DeleteSecret(t.Context(), &secretsmanager.DeleteSecretInput{SecretId: &name}); err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, b *awssm.Backend, id, version string) *backend.Credential {
	t.Helper()
	c, err := b.Get(t.Context(), backend.Request{ID: id, Version: version})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func text(c *backend.Credential) string { return string(c.Secret.Reveal()) }

// fails checks an error: its code, what it tells, and what it keeps to itself.
func fails(t testing.TB, err error, code backend.Code, tells ...string) {
	t.Helper()
	if backend.CodeOf(err) != code {
		t.Errorf("%v (%s), want %s", err, backend.CodeOf(err), code)
		return
	}
	for _, part := range tells {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not tell %q", err, part)
		}
	}
	if all := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(all, "canary") {
		t.Errorf("the error shows too much: %s", all)
	}
	var own *backend.Error
	if !errors.As(err, &own) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is a foreign %T", err)
	}
}

func TestNamesAndARNs(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	b := open(t, basic(p))
	out := create(t, p, "app/db", secretCanary)
	arn := aws.ToString(out.ARN)
	for name, id := range map[string]string{"name": "app/db", "ARN": arn, "partial ARN": arn[:len(arn)-7]} {
		c := get(t, b, id, "")
		if text(c) != secretCanary || c.Version != aws.ToString(out.VersionId) || c.Fields != nil {
			t.Errorf("by %s: version %s, fields %v", name, c.Version, c.Fields)
		}
		if c.Metadata["arn"] != arn || c.Metadata["name"] != "app/db" || c.Metadata["stages"] != "AWSCURRENT" || c.Metadata["created"] == "" {
			t.Errorf("by %s: metadata %v", name, c.Metadata)
		}
		if strings.Contains(fmt.Sprintf("%+v", c), "canary") {
			t.Errorf("by %s: the credential prints its secret", name)
		}
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	b := open(t, basic(p))
	first := aws.ToString(create(t, p, "s", "one").VersionId)
	put := func(value string, stages ...string) string {
		out, err := direct(p).PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{
			SecretId: aws.String("s"), SecretString: &value, VersionStages: stages,
		})
		if err != nil {
			t.Fatal(err)
		}
		return aws.ToString(out.VersionId)
	}
	second := put("two")
	third := put("three", "GREEN")
	for version, want := range map[string]string{
		"": "two", "AWSCURRENT": "two", "stage:AWSCURRENT": "two", "AWSPREVIOUS": "one", "stage:AWSPREVIOUS": "one",
		"GREEN": "three", "stage:GREEN": "three", first: "one", "id:" + first: "one", second: "two", third: "three",
	} {
		c := get(t, b, "s", version)
		if text(c) != want {
			t.Errorf("version %q is %q, want %q", version, text(c), want)
		}
		current, err := b.CurrentVersion(t.Context(), backend.Request{ID: "s", Version: version})
		if err != nil || current != c.Version {
			t.Errorf("version %q: the check gives %q, %v; Get gives %q", version, current, err, c.Version)
		}
	}
	for _, version := range []string{"BLUE", "stage:BLUE", "00000000-0000-4000-8000-000000000000"} {
		_, err := b.Get(t.Context(), backend.Request{ID: "s", Version: version})
		fails(t, err, backend.CodeNotFound, `"s"`, "or its version does not exist")
	}
	_, err := b.CurrentVersion(t.Context(), backend.Request{ID: "s", Version: "BLUE"})
	fails(t, err, backend.CodeNotFound)
	// A version without a label is not listed, but may be there.
	_, err = b.CurrentVersion(t.Context(), backend.Request{ID: "s", Version: "00000000-0000-4000-8000-000000000000"})
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("check of an unlisted version: %v, want ErrUnsupported", err)
	}
	p.Reset()
	for _, version := range []string{"id:", "id:short", "stage:", "id:" + strings.Repeat("x", 65), strings.Repeat("x", 257)} {
		_, err := b.Get(t.Context(), backend.Request{ID: "s", Version: version})
		fails(t, err, backend.CodeInvalidID)
		_, err = b.CurrentVersion(t.Context(), backend.Request{ID: "s", Version: version})
		fails(t, err, backend.CodeInvalidID)
	}
	if calls := p.All(); len(calls) > 0 {
		t.Errorf("AWS was asked for versions that cannot be: %d calls", len(calls))
	}
}

func TestBinaryAndFields(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	b := open(t, basic(p))
	bin := []byte{0, 1, 0xff, '{', '}'}
	if _, err := direct(p).CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String("bin"), SecretBinary: bin}); err != nil {
		t.Fatal(err)
	}
	if c := get(t, b, "bin", ""); !bytes.Equal(c.Secret.Reveal(), bin) || c.Fields != nil {
		t.Errorf("binary came back as %x with fields %v", c.Secret.Reveal(), c.Fields)
	}
	const doc = `{"user":"u","port":5432,"big":12345678901234567890,"tags":["a", "b"],"none":null}`
	create(t, p, "json", doc)
	c := get(t, b, "json", "")
	if text(c) != doc {
		t.Errorf("the whole SecretString is %s", text(c))
	}
	for name, want := range map[string]string{"user": "u", "port": "5432", "big": "12345678901234567890", "tags": `["a","b"]`, "none": "null"} {
		if got := string(c.Fields[name].Reveal()); got != want || c.Fields[name].IsJSON() != (name != "user") {
			t.Errorf("field %s is %s", name, got)
		}
	}
	for name, value := range map[string]string{"text": "plain", "array": `[1]`, "brace": "{not json"} {
		create(t, p, name, value)
		if c := get(t, b, name, ""); c.Fields != nil || text(c) != value {
			t.Errorf("%s has fields %v", name, c.Fields)
		}
	}
}

func TestNotFound(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	b := open(t, basic(p))
	create(t, p, "doomed", secretCanary)
	remove(t, p, "doomed")
	if _, err := direct(p).CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String("empty")}); err != nil {
		t.Fatal(err)
	}
	elsewhere := "arn:aws:secretsmanager:us-east-1:" + p.Account + ":secret:app-AbCdEf"
	for id, tells := range map[string]string{
		"nope": "does not exist", "doomed": "marked for deletion", "empty": "or its version does not exist",
		elsewhere: "the ARN is of region us-east-1",
	} {
		_, err := b.Get(t.Context(), backend.Request{ID: id})
		fails(t, err, backend.CodeNotFound, id, tells)
		_, err = b.CurrentVersion(t.Context(), backend.Request{ID: id})
		fails(t, err, backend.CodeNotFound, id, tells)
		results, err := b.GetBatch(t.Context(), []backend.Request{{ID: id}, {ID: "nope"}})
		if err != nil {
			t.Fatal(err)
		}
		fails(t, results[0].Err, backend.CodeNotFound, id, tells)
	}
	// The words of AWS itself, and a code without known words.
	for message, want := range map[string]backend.Code{
		"You can't perform this operation on the secret because it was marked for deletion.": backend.CodeNotFound,
		"a secret with this name is already scheduled for deletion":                          backend.CodeNotFound,
		textCanary: backend.CodeUnsupported,
	} {
		p.Fail("GetSecretValue", mototest.Refuse(400, "InvalidRequestException", message))
		_, err := b.Get(t.Context(), backend.Request{ID: "x"})
		fails(t, err, want)
	}
}

func TestIDsThatCannotBe(t *testing.T) {
	t.Parallel()
	p := mototest.Alone(t)
	b := open(t, basic(p))
	for _, id := range []string{
		"", "a b", "a\nb", "ü", strings.Repeat("a", 513), "arn:aws:s3:::bucket", "arn:aws:secretsmanager:eu-west-1:1:secret:x",
		"arn:aws:secretsmanager:eu-west-1:123456789012:secret:", "name?x=1", "a:b", "canary misplaced",
	} {
		_, err := b.Get(t.Context(), backend.Request{ID: id})
		fails(t, err, backend.CodeInvalidID)
		_, err = b.CurrentVersion(t.Context(), backend.Request{ID: id})
		fails(t, err, backend.CodeInvalidID)
		_, err = b.Put(t.Context(), backend.Request{ID: id}, backend.Value{Secret: backend.NewSecretString("x")}, backend.Condition{})
		fails(t, err, backend.CodeInvalidID)
		fails(t, b.Delete(t.Context(), backend.Request{ID: id}, backend.Condition{}), backend.CodeInvalidID)
		results, err := b.GetBatch(t.Context(), []backend.Request{{ID: id}, {ID: id}})
		if err != nil {
			t.Fatal(err)
		}
		fails(t, results[1].Err, backend.CodeInvalidID)
	}
	if n := len(p.All()); n > 0 {
		t.Errorf("AWS was asked %d times for ids that cannot be", n)
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	b := open(t, basic(p))
	create(t, p, "s", secretCanary)
	if err := b.Probe(t.Context()); err != nil {
		t.Error(err)
	}
	p.Fail("DescribeSecret", mototest.Refuse(400, "AccessDeniedException", textCanary))
	if err := b.Probe(t.Context()); err != nil {
		t.Errorf("a caller that AWS knows has logged in, whatever it may do: %v", err)
	}
	for _, call := range p.All() {
		if call.Op != "DescribeSecret" {
			t.Errorf("the probe called %s", call.Op)
		}
	}
	p.Fail("DescribeSecret", mototest.Times(2, mototest.Refuse(400, "UnrecognizedClientException", textCanary))...)
	fails(t, b.Probe(t.Context()), backend.CodeAuthRequired)
	p.Fail("DescribeSecret", mototest.Refuse(500, "InternalServiceError", textCanary))
	fails(t, b.Probe(t.Context()), backend.CodeUnavailable)
}

func TestCheckWithoutPermission(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	b := open(t, basic(p))
	create(t, p, "s", "one")
	have := get(t, b, "s", "")
	p.Fail("DescribeSecret", mototest.Refuse(400, "AccessDeniedException", textCanary))
	changed, got, err := backend.Changed(t.Context(), b, backend.Request{ID: "s"}, have)
	if err != nil || changed || got == nil {
		t.Errorf("changed %v, %v: a caller that may only read compares what it reads", changed, err)
	}
	if changed, got, err := backend.Changed(t.Context(), b, backend.Request{ID: "s"}, have); err != nil || changed || got != nil {
		t.Errorf("changed %v, %v", changed, err)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	for i := range 50 {
		create(t, p, fmt.Sprintf("many/%03d", i), "x")
	}
	in := &secretsmanager.CreateSecretInput{Name: aws.String("one/tagged"), SecretString: aws.String("x"), Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("t")}}}
	tagged, err := direct(p).CreateSecret(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	create(t, p, "one/doomed", "x")
	create(t, p, "not/one/", "x")
	remove(t, p, "one/doomed")
	b := open(t, basic(p))
	list := func(b *awssm.Backend, prefix string) []backend.Entry {
		t.Helper()
		var entries []backend.Entry
		for e, err := range b.List(t.Context(), prefix) {
			if err != nil {
				t.Fatal(err)
			}
			entries = append(entries, e)
		}
		return entries
	}
	for prefix, want := range map[string]int{"": 52, "many/": 50, "many/01": 10, "one": 1, "tagged": 0, "a b": 0, "!many": 0} {
		entries := list(b, prefix)
		distinct := make(map[string]bool)
		for _, e := range entries {
			distinct[e.ID] = true
		}
		if len(entries) != want || len(distinct) != want {
			t.Errorf("%d secrets start with %q (%d distinct), want %d", len(entries), prefix, len(distinct), want)
		}
	}
	e := list(b, "one/")[0]
	if e.ID != "one/tagged" || e.Version != aws.ToString(tagged.VersionId) || time.Since(e.Modified).Abs() > time.Hour || e.Metadata["arn"] != aws.ToString(tagged.ARN) {
		t.Errorf("listed %+v", e)
	}
	c := basic(p)
	c.Filters = map[string][]string{"tag-key": {"team"}}
	if entries := list(open(t, c), ""); len(entries) != 1 || entries[0].ID != "one/tagged" {
		t.Errorf("the filter let through %v", entries)
	}
	p.Reset()
	for range b.List(t.Context(), "") {
		break
	}
	if n := len(p.Calls("ListSecrets")); n != 1 {
		t.Errorf("a caller that wanted one entry caused %d pages", n)
	}
	p.Fail("ListSecrets", mototest.Pass, mototest.Refuse(400, "ThrottlingException", textCanary))
	n := 0
	for _, err := range b.List(t.Context(), "") {
		if n++; err != nil {
			fails(t, err, backend.CodeThrottled)
			break
		}
	}
	if n != 21 {
		t.Errorf("%d entries came before and with the error of the second page, want 21", n)
	}
	p.Fail("ListSecrets", mototest.Times(2, mototest.Raw(200, "application/x-amz-json-1.1", `{"SecretList":[{"Name":"a"}],"NextToken":"again"}`))...)
	var ids []string
	for e, err := range b.List(t.Context(), "") {
		if err != nil {
			fails(t, err, backend.CodeUnavailable, "the same page")
			break
		}
		ids = append(ids, e.ID)
	}
	if !slices.Equal(ids, []string{"a"}) {
		t.Errorf("pages that repeat gave %v", ids)
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	d := open(t, awssm.Config{Region: "eu-west-1", Profile: "work", Endpoint: "http://10.0.0.1:4566"}).Describe()
	if !d.Versions || !d.Fields || d.MaxValue != 65536 || d.MaxBatch != 20 {
		t.Errorf("described as %+v", d)
	}
	for _, part := range []string{"eu-west-1", "work", "10.0.0.1", "not encrypted"} {
		if !strings.Contains(d.Detail, part) {
			t.Errorf("%q does not tell %q", d.Detail, part)
		}
	}
	want := []string{"batch", "probe", "check", "write", "list"}
	if got := backend.Capabilities(open(t, awssm.Config{})); !slices.Equal(got, want) {
		t.Errorf("capabilities %v, want %v", got, want)
	}
}

func TestCallerBound(t *testing.T) {
	t.Parallel()
	static := basic(&mototest.Proxy{URL: "https://vpce.example"})
	noEndpoint := static
	noEndpoint.Endpoint = ""
	for name, tt := range map[string]struct {
		config awssm.Config
		env    map[string]string
		want   bool
	}{
		"nothing set":                 {awssm.Config{}, nil, false},
		"profile of the environment":  {awssm.Config{Region: "eu-west-1"}, map[string]string{"AWS_PROFILE": "x"}, true},
		"key of the environment":      {awssm.Config{Region: "eu-west-1"}, map[string]string{"AWS_ACCESS_KEY_ID": "x"}, true},
		"region of the environment":   {awssm.Config{}, map[string]string{"AWS_REGION": "x"}, true},
		"region outranked":            {awssm.Config{Region: "eu-west-1"}, map[string]string{"AWS_REGION": "x"}, false},
		"endpoint of the environment": {awssm.Config{Region: "eu-west-1"}, map[string]string{"AWS_ENDPOINT_URL": "x"}, true},
		"profile outranks the key":    {awssm.Config{Region: "eu-west-1", Profile: "p"}, map[string]string{"AWS_ACCESS_KEY_ID": "x"}, false},
		"profile of another file":     {awssm.Config{Region: "eu-west-1", Profile: "p"}, map[string]string{"AWS_CONFIG_FILE": "x"}, true},
		"own key, region, endpoint":   {static, map[string]string{"AWS_PROFILE": "x", "AWS_CONFIG_FILE": "x", "AWS_REGION": "x", "AWS_ENDPOINT_URL": "x", "AWS_ACCESS_KEY_ID": "x"}, false},
		"endpoint of the profile":     {noEndpoint, map[string]string{"AWS_PROFILE": "x"}, true},
		"endpoint of another file":    {noEndpoint, map[string]string{"AWS_CONFIG_FILE": "x"}, true},
		"endpoint of STS": {awssm.Config{Region: "eu-west-1", RoleARN: "arn:aws:iam::123456789012:role/reader"},
			map[string]string{"AWS_ENDPOINT_URL_STS": "x"}, true},
		"unrelated": {awssm.Config{}, map[string]string{"HOME": "x", "AWS_PAGER": "x"}, false},
	} {
		b, err := awssm.New(tt.config, backend.Host{LookupEnv: func(name string) (string, bool) { v, ok := tt.env[name]; return v, ok }})
		if err != nil {
			t.Fatal(err)
		}
		if got := b.Describe().CallerBound; got != tt.want {
			t.Errorf("%s: caller bound is %v", name, got)
		}
	}
}

func TestOpeningDoesNoIO(t *testing.T) {
	t.Parallel()
	asked := false
	c := awssm.Config{
		Region: "eu-west-1", Profile: "no-such-profile",
		AccessKeyID: backend.NewSource(func(context.Context) (backend.Secret, string, error) {
			asked = true
			return backend.Secret{}, "", nil
		}, nil),
		SecretAccessKey: backend.Literal(backend.NewSecretString("x")),
	}
	b := open(t, c)
	b.Describe()
	if asked {
		t.Error("opening asked a source")
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	p := mototest.Alone(t)
	b := open(t, basic(p))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := b.Get(t.Context(), backend.Request{ID: "a"})
	fails(t, err, backend.CodeUnavailable, "closed")
	fails(t, b.Probe(t.Context()), backend.CodeUnavailable, "closed")
	_, err = b.Put(t.Context(), backend.Request{ID: "a"}, backend.Value{Secret: backend.NewSecretString("x")}, backend.Condition{})
	fails(t, err, backend.CodeUnavailable, "closed")
	for _, err := range b.List(t.Context(), "") {
		fails(t, err, backend.CodeUnavailable, "closed")
	}
	if n := len(p.All()); n > 0 {
		t.Errorf("a closed provider made %d calls", n)
	}
}
