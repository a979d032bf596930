package awssm

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"pgregory.net/rapid"

	"github.com/credresolve/credresolve/backend"
)

func TestARNsAndNames(t *testing.T) {
	t.Parallel()
	for arn, want := range map[string]string{
		"arn:aws:secretsmanager:eu-west-1:123456789012:secret:app/db-AbCdEf":            "eu-west-1",
		"arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:a":                    "cn-north-1",
		"arn:aws-us-gov:secretsmanager:us-gov-west-1:123456789012:secret:rds!db-x":      "us-gov-west-1",
		"arn:aws:secretsmanager:eu-west-1:12345678901x:secret:a":                        "",
		"arn:aws:secretsmanager:eu-west-1:123456789012:secret:":                         "",
		"arn:aws:secretsmanager:eu-west-1:123456789012:secret:a:b":                      "",
		"arn:aws:secretsmanager::123456789012:secret:a":                                 "",
		"arn:evil:secretsmanager:eu-west-1:123456789012:secret:a":                       "",
		"arn:aws:secretsmanager:eu-west-1:123456789012:" + strings.Repeat("secret:", 2): "",
	} {
		if got := regionOf(arn); got != want {
			t.Errorf("the region of %s is %q, want %q", arn, got, want)
		}
	}
	for id, want := range map[string]bool{
		"3b9a7f0e-0d2c-4f27-9d43-0a6c0b7f6a11": true, "3B9A7F0E-0D2C-4F27-9D43-0A6C0B7F6A11": true,
		"3b9a7f0e-0d2c-4f27-9d43-0a6c0b7f6a1g": false, "3b9a7f0e-0d2c-4f27-9d43-0a6c0b7f6a1": false,
		"3b9a7f0e00d2c-4f27-9d43-0a6c0b7f6a11": false, "------------------------------------": false, "AWSCURRENT": false,
	} {
		if isUUID(id) != want {
			t.Errorf("%s is a UUID: %v", id, !want)
		}
	}
}

func TestFits(t *testing.T) {
	t.Parallel()
	const arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:"
	for _, tt := range []struct {
		id, name, arn string
		want          int
	}{
		{"a", "a", arn + "a-AbCdEf", 2},
		{arn + "a-AbCdEf", "a", arn + "a-AbCdEf", 3},
		{arn + "a", "a", arn + "a-AbCdEf", 1},
		{arn + "a-AbCdEf", "a-AbCdEf", arn + "a-AbCdEf-GhIjKl", 1}, // the partial ARN of one is the ARN of another
		{"a", "b", arn + "b-AbCdEf", 0},
		{"a-AbCdEf", "a", arn + "a-AbCdEf", 0},
		{"", "", "", 3},
	} {
		if got := valueFits(tt.id, tt.name, tt.arn); got != tt.want {
			t.Errorf("%s fits %s as %d, want %d", tt.id, tt.arn, got, tt.want)
		}
	}
	for _, tt := range []struct {
		id, told string
		fits     bool
	}{
		{"a", "a", true}, {"a", arn + "a-AbCdEf", true}, {"a", arn + "a", true}, {arn + "a", "a", true}, {arn + "a-AbCdEf", "a", true},
		{arn + "a", arn + "a-AbCdEf", true}, {arn + "a-AbCdEf", arn + "a", true},
		{"a", "b", false}, {"a", arn + "b-AbCdEf", false}, {arn + "a-AbCdEf", arn + "a-GhIjKl", false}, {"a", "", false},
	} {
		if got := errorFits(tt.id, tt.told) > 0; got != tt.fits {
			t.Errorf("an error told of %q fits %q: %v", tt.told, tt.id, got)
		}
	}
}

func TestParseVersionGivesOneOrNone(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		version := rapid.OneOf(rapid.String(), rapid.StringMatching(`(id:|stage:)?[A-Z0-9a-f-]{0,70}`)).Draw(t, "version")
		id, stage, err := parseVersion(version)
		switch {
		case id != "" && stage != "":
			t.Fatalf("%q is both an id and a label", version)
		case err != nil && (id != "" || stage != "" || backend.CodeOf(err) != backend.CodeInvalidID):
			t.Fatalf("%q fails with %v, and gives %q and %q", version, err, id, stage)
		case err == nil && id == "" && stage == "" && version != "" && !strings.HasSuffix(version, currentStage):
			t.Fatalf("%q became the current version", version)
		case err == nil && id+stage != "" && !strings.HasSuffix(version, id+stage):
			t.Fatalf("%q became %q", version, id+stage)
		}
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	key := backend.Literal(backend.NewSecretString("x"))
	const role = "arn:aws:iam::123456789012:role/path/reader"
	good := []Config{
		{}, {Region: "us-gov-west-1"}, {AccessKeyID: key, SecretAccessKey: key, SessionToken: key}, {Endpoint: "http://localhost:4566"},
		{RoleARN: role, ExternalID: "a:b/c", SessionName: "me@host", SessionDuration: 3600e9, STSEndpoint: "https://sts.example"},
		{FIPS: true, DualStack: true}, {RecoveryDays: 30, Filters: map[string][]string{"tag-key": {"a"}}},
	}
	for _, c := range good {
		if _, err := New(c, backend.Host{}); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
		if len(c.Reach()) == 0 {
			t.Errorf("%+v reaches nothing", c)
		}
		if c.RoleARN != "" && !slices.ContainsFunc(c.Reach(), func(r backend.Reach) bool { return strings.Contains(r.Value, c.RoleARN) }) {
			t.Errorf("%+v does not show its role", c)
		}
	}
	for tells, c := range map[string]Config{
		"region":           {Region: "canary.example/x"},
		"belong together":  {AccessKeyID: key},
		"session_token":    {SessionToken: key},
		"role_arn":         {RoleARN: "canary"},
		"need role_arn":    {ExternalID: "abc"},
		"external_id":      {RoleARN: role, ExternalID: "canary canary"},
		"session_name":     {RoleARN: role, SessionName: "canary/canary"},
		"session_duration": {RoleARN: role, SessionDuration: 1e9},
		"endpoint":         {Endpoint: "https://user:canary@example"},
		"sts_endpoint":     {RoleARN: role, STSEndpoint: "canary"},
		"fips":             {Endpoint: "https://example", FIPS: true},
		"timeout":          {Timeout: -1},
		"recovery_days":    {RecoveryDays: 6},
		"filters":          {Filters: map[string][]string{"name": {"canary"}}},
		"1 to 10 values":   {Filters: map[string][]string{"tag-key": {}}},
	} {
		_, err := New(c, backend.Host{})
		if backend.CodeOf(err) != backend.CodeInvalidConfig || !strings.Contains(err.Error(), tells) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", tells, err)
		}
	}
	k := Kind()
	b, err := k.Open(k.NewConfig(), backend.Host{})
	if err != nil || k.Name != "awssm" || b == nil {
		t.Errorf("the kind %s gives %v, %v", k.Name, b, err)
	}
}

type recorder func(*http.Request) (*http.Response, error)

func (r recorder) Do(req *http.Request) (*http.Response, error) { return r(req) }

func TestEndpoints(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		config Config
		want   string
	}{
		{Config{Region: "eu-west-1"}, "secretsmanager.eu-west-1.amazonaws.com"},
		{Config{Region: "us-east-1", FIPS: true}, "secretsmanager-fips.us-east-1.amazonaws.com"},
		{Config{Region: "eu-west-1", DualStack: true}, "secretsmanager.eu-west-1.amazonaws.com"}, // which has IPv6 addresses too
		{Config{Region: "eusc-de-east-1", DualStack: true}, "secretsmanager.eusc-de-east-1.api.amazonwebservices.eu"},
		{Config{Region: "us-east-1", FIPS: true, DualStack: true}, "secretsmanager-fips.us-east-1.amazonaws.com"},
		{Config{Region: "cn-north-1"}, "secretsmanager.cn-north-1.amazonaws.com.cn"},
		{Config{Region: "us-gov-west-1"}, "secretsmanager.us-gov-west-1.amazonaws.com"},
		{Config{Region: "eu-west-1", Endpoint: "https://vpce-1.vpce.example"}, "vpce-1.vpce.example"},
	} {
		c, want := tt.config, tt.want
		c.AccessKeyID, c.SecretAccessKey = backend.Literal(backend.NewSecretString("AKIA")), backend.Literal(backend.NewSecretString("x"))
		s, err := c.load(t.Context(), &processes{life: t.Context()})
		if err != nil {
			t.Fatal(err)
		}
		host := ""
		options := s.client.Options()
		options.HTTPClient = recorder(func(r *http.Request) (*http.Response, error) {
			if host = r.URL.Host; r.URL.Scheme != "https" || !strings.Contains(r.UserAgent(), "credresolve") {
				t.Errorf("%s is called by %s as %s", host, r.URL.Scheme, r.UserAgent())
			}
			return nil, context.Canceled
		})
		_, _ = secretsmanager.New(options).GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: aws.String("s")})
		if host != want {
			t.Errorf("%+v calls %s, want %s", c.detail(), host, want)
		}
		s.close()
	}
}
