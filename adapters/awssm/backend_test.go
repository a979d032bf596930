package awssm_test

import (
	"context"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/credresolve/credresolve/adapters/awssm"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/mototest"
)

const (
	keyCanary    = "canary-secret-access-key"
	secretCanary = "canary-s3cr3t"
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

func get(t testing.TB, b *awssm.Backend, id, version string) *backend.Credential {
	t.Helper()
	c, err := b.Get(t.Context(), backend.Request{ID: id, Version: version})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func text(c *backend.Credential) string { return string(c.Secret.Reveal()) }

var _ = context.Background
var _ = aws.String

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
	}
}
