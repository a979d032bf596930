package server

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/mototest"
)

// containerAnswer is what SDKs read.
type containerAnswer struct {
	AccessKeyID     string `json:"AccessKeyId"` //nolint:gosec // it is compared
	SecretAccessKey string
	Token           *string
	Expiration      time.Time
	RoleArn         string
	AccountID       string `json:"AccountId"`
}

func (sc *sidecar) container(role string) reply {
	sc.t.Helper()
	return sc.ask("container_credentials", "GET", "/v1/credentials/"+role, "Authorization: "+sc.token("aws-container.token"))
}

func TestContainerCredentials(t *testing.T) {
	t.Parallel()
	ends := time.Now().Add(40 * time.Minute).UTC().Truncate(time.Second)
	soon := ends.Add(-10 * time.Minute)
	null := backend.NewJSONSecret([]byte("null"))
	ofVault := fields("access_key", "AKIA-c4nary", "secret_key", "key-c4nary")
	ofVault["security_token"], ofVault["session_token"] = null, null
	var s shelf
	for id, c := range map[string]*backend.Credential{
		"ours":     {Type: backend.TypeAWS, Expires: ends, Fields: fields("access_key_id", "AKIA-c4nary", "secret_access_key", "key-c4nary", "session_token", "t-c4nary")},
		"vault":    {Fields: ofVault, Expires: ends},
		"sts":      {Fields: fields("AccessKeyId", "AKIA-c4nary", "SecretAccessKey", "key-c4nary", "SessionToken", "t-c4nary", "Expiration", soon.Format(time.RFC3339)), Expires: ends},
		"file":     {Fields: fields("aws_access_key_id", "AKIA-c4nary", "aws_secret_access_key", "key-c4nary", "aws_session_token", "t-c4nary", "role_arn", "arn:aws:iam::1:role/x", "account_id", "1")},
		"text":     {Secret: backend.NewSecretString(`{"AccessKeyId":"AKIA-c4nary","SecretAccessKey":"key-c4nary","Token":"t-c4nary"}`)},
		"lasting":  {Fields: fields("access_key_id", "AKIA-c4nary", "secret_access_key", "key-c4nary", "session_token", "")},
		"past":     {Fields: fields("access_key_id", "AKIA-c4nary", "secret_access_key", "key-c4nary", "expiration", "2020-01-01T00:00:00Z")},
		"no time":  {Fields: fields("access_key_id", "AKIA-c4nary", "secret_access_key", "key-c4nary", "expiration", "c4nary")},
		"half":     {Fields: fields("access_key_id", "AKIA-c4nary", "user", "u-c4nary")},
		"no key":   {Fields: map[string]backend.Secret{"access_key_id": backend.NewSecretString("AKIA-c4nary"), "secret_access_key": null}},
		"a word":   {Secret: backend.NewSecretString("word-c4nary")},
		"binary":   {Fields: map[string]backend.Secret{"access_key_id": backend.NewSecretString("AKIA-c4nary"), "secret_access_key": backend.NewSecret([]byte("c4nary\xff"))}},
		"escaping": {Fields: fields("access_key_id", "AKIA-\"c4nary", "secret_access_key", "key-\\c4nary\n+/=", "session_token", "t-c4nary")},
	} {
		s.put(id, c, nil)
	}
	roles := ""
	for id := range s.holds {
		roles += "\"" + id + "\": {provider: s, id: \"" + id + "\"}, "
	}
	sc := startWith(t, "  s: {kind: shelf}\n", "  container_credentials: {listen: \"127.0.0.1:0\", token_file: aws-container.token, roles: {"+roles+"a/b: cred://s/ours}}\n", s.kind())
	for role, want := range map[string]struct {
		id, key, token string
		ends           time.Time
		role, account  string
	}{
		"ours":     {"AKIA-c4nary", "key-c4nary", "t-c4nary", ends, "", ""},
		"a/b":      {"AKIA-c4nary", "key-c4nary", "t-c4nary", ends, "", ""},
		"vault":    {"AKIA-c4nary", "key-c4nary", "", ends, "", ""},
		"sts":      {"AKIA-c4nary", "key-c4nary", "t-c4nary", soon, "", ""},
		"file":     {"AKIA-c4nary", "key-c4nary", "t-c4nary", time.Time{}, "arn:aws:iam::1:role/x", "1"},
		"text":     {"AKIA-c4nary", "key-c4nary", "t-c4nary", time.Time{}, "", ""},
		"lasting":  {"AKIA-c4nary", "key-c4nary", "", time.Time{}, "", ""},
		"escaping": {"AKIA-\"c4nary", "key-\\c4nary\n+/=", "t-c4nary", time.Time{}, "", ""},
	} {
		got := sc.container(role)
		var a containerAnswer
		if got.json(t, &a); got.status != 200 || a.AccessKeyID != want.id || a.SecretAccessKey != want.key || a.Token == nil || *a.Token != want.token || a.RoleArn != want.role || a.AccountID != want.account {
			t.Errorf("%s: status %d", role, got.status)
		}
		if left := time.Until(a.Expiration); want.ends.IsZero() && (left < refreshHint-time.Minute || left > refreshHint) || !want.ends.IsZero() && !a.Expiration.Equal(want.ends) {
			t.Errorf("%s: it ends in %v", role, left)
		}
	}
	for role, status := range map[string]int{"past": 410, "no time": 422, "half": 422, "no key": 422, "a word": 422, "binary": 422, "unknown": 404, "": 404, "a": 404} {
		got := sc.container(strings.ReplaceAll(role, " ", "%20"))
		var e struct{ Code, Message string }
		if got.json(t, &e); got.status != status || e.Code == "" || e.Message == "" || strings.Contains(got.body, canary) {
			t.Errorf("%s: status %d, want %d: %s", role, got.status, status, e.Message)
		}
	}
	for _, header := range []string{"Authorization: Bearer ", "Authorization: bearer "} {
		if got := sc.ask("container_credentials", "GET", "/v1/credentials/ours", header+sc.token("aws-container.token")); got.status != 200 {
			t.Errorf("%s: status %d", header, got.status)
		}
	}
	for _, header := range []string{"Authorization: Basic " + sc.token("aws-container.token"), "X-Vault-Token: " + sc.token("aws-container.token")} {
		if got := sc.ask("container_credentials", "GET", "/v1/credentials/ours", header); got.status != 401 {
			t.Errorf("another way to show the token: status %d", got.status)
		}
	}
	sc.public(sc.token("aws-container.token"))
}

// An end that comes while the credential is cached is an end.
func TestContainerCredentialsAreNeverPast(t *testing.T) {
	t.Parallel()
	var s shelf
	s.put("x", &backend.Credential{Fields: fields("access_key_id", "AKIA-c4nary", "secret_access_key", "key-c4nary", "expiration", time.Now().Add(3*time.Second).UTC().Format(time.RFC3339))}, nil)
	sc := startWith(t, "  s: {kind: shelf, cache: {ttl: 1h, max_stale: 1h}}\n", "  container_credentials: {listen: \"127.0.0.1:0\", token_file: aws-container.token, roles: {x: cred://s/x}}\n", s.kind())
	if got := sc.container("x"); got.status != 200 {
		t.Errorf("before its end: status %d", got.status)
	}
	time.Sleep(3 * time.Second)
	if got := sc.container("x"); got.status != 410 || strings.Contains(got.body, canary) {
		t.Errorf("after its end: status %d", got.status)
	}
}

// containerOf runs a sidecar with a role, and gives the environment that leads an SDK to it and to nothing else.
func containerOf(t *testing.T) (sc *sidecar, env map[string]string) {
	t.Helper()
	var s shelf
	s.put("x", &backend.Credential{Expires: time.Now().Add(time.Hour), Fields: fields("access_key", "AKIAC4NARY", "secret_key", "key-c4nary", "security_token", "t-c4nary")}, nil)
	s.put("lasting", &backend.Credential{Fields: fields("access_key_id", "AKIAC4NARY", "secret_access_key", "key-c4nary")}, nil)
	sc = startWith(t, "  s: {kind: shelf}\n", "  container_credentials: {listen: \"127.0.0.1:0\", token_file: aws-container.token, roles: {deploy: cred://s/x, lasting: cred://s/lasting, other: cred://s/none}}\n", s.kind())
	return sc, map[string]string{
		"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://" + sc.at("container_credentials") + "/v1/credentials/deploy", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": filepath.Join(sc.dir, "aws-container.token"),
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_WEB_IDENTITY_TOKEN_FILE": "", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN": "", "AWS_CONFIG_FILE": filepath.Join(sc.dir, "none"), "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(sc.dir, "none"), "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_REGION": mototest.Region,
	}
}

// The SDK for Go, as it is, signs with what it takes from the drop-in.
func TestContainerCredentialsOfTheGoSDK(t *testing.T) { // not parallel: the SDK reads the variables of the process
	sc, env := containerOf(t)
	for name, value := range env {
		t.Setenv(name, value)
	}
	cfg, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := cfg.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.AccessKeyID != "AKIAC4NARY" || got.SecretAccessKey != "key-c4nary" || got.SessionToken != "t-c4nary" || got.Source != endpointcreds.ProviderName || !got.CanExpire || time.Until(got.Expires) < 50*time.Minute {
		t.Errorf("another credential, of %s, which ends %v", got.Source, got.Expires)
	}
	store := mototest.Alone(t)
	sm := secretsmanager.NewFromConfig(cfg, func(o *secretsmanager.Options) { o.BaseEndpoint, o.RetryMaxAttempts = aws.String(store.URL), 1 })
	_, _ = sm.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: aws.String("x")})
	if calls := store.Calls("GetSecretValue"); len(calls) != 1 || !strings.Contains(calls[0].Header.Get("Authorization"), "Credential=AKIAC4NARY/") || calls[0].Header.Get("X-Amz-Security-Token") != "t-c4nary" {
		t.Errorf("%d calls were signed", len(calls))
	}
	// The SDK shows the code and the message of a failure.
	for uri, tells := range map[string]string{"other": "not_found", "unknown": "not_found: there is no such role"} {
		t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", strings.TrimSuffix(env["AWS_CONTAINER_CREDENTIALS_FULL_URI"], "deploy")+uri)
		cfg, err := config.LoadDefaultConfig(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cfg.Credentials.Retrieve(t.Context()); err == nil || !strings.Contains(err.Error(), tells) {
			t.Errorf("%s: %v", uri, err)
		}
	}
	t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "")
	t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "wrong")
	if cfg, err = config.LoadDefaultConfig(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := cfg.Credentials.Retrieve(t.Context()); err == nil || !strings.Contains(err.Error(), "auth_required: the request has no valid token") {
		t.Errorf("a wrong token: %v", err)
	}
	sc.public(sc.token("aws-container.token"))
}

// botocore, as it is, takes the same, also a credential without a session token or an end.
func TestContainerCredentialsOfBotocore(t *testing.T) {
	t.Parallel()
	sc, env := containerOf(t)
	script := `
import json, os, boto3, botocore.credentials
if not hasattr(botocore.credentials.ContainerProvider, "ENV_VAR_AUTH_TOKEN_FILE"):  # before 1.34.41
    with open(os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]) as f:
        os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = f.read()
c = boto3.Session(region_name="` + mototest.Region + `").get_credentials()
f = c.get_frozen_credentials()
print(json.dumps({"method": c.method, "same": [f.access_key == "AKIA" + "C4NARY", f.secret_key == "key-" + "c4nary", f.token == os.environ["TOKEN"]], "refresh": c.refresh_needed()}))
`
	found := 0
	for _, python := range []string{"/usr/bin/python3", "python3"} { // of two versions where there are two
		if exec.CommandContext(t.Context(), python, "-c", "import boto3").Run() != nil {
			continue
		}
		found++
		for role, token := range map[string]string{"deploy": "t-c4nary", "lasting": ""} {
			cmd := exec.CommandContext(t.Context(), python, "-c", script)
			cmd.Env = append(cmd.Env, "PATH="+os.Getenv("PATH"), "HOME="+sc.dir, "TOKEN="+token)
			for name, value := range env {
				if value != "" {
					cmd.Env = append(cmd.Env, name+"="+strings.Replace(value, "/deploy", "/"+role, 1))
				}
			}
			out, err := cmd.CombinedOutput()
			var got struct {
				Method  string
				Same    []bool
				Refresh bool
			}
			if err != nil || json.Unmarshal(out, &got) != nil || got.Method != "container-role" || len(got.Same) != 3 || !got.Same[0] || !got.Same[1] || !got.Same[2] || got.Refresh {
				t.Errorf("%s, %s: %v: %s", python, role, err, strings.ReplaceAll(string(out), canary, "[a secret]"))
			}
		}
	}
	if found == 0 {
		t.Skip("needs python3-boto3: apt-get install python3-boto3")
	}
	sc.public(sc.token("aws-container.token"))
}

func TestContainerHint(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c := &awsKeys{}
	if err := c.check(now); err != nil || c.expires.Sub(now) != refreshHint {
		t.Errorf("%v, %v", c.expires, err)
	}
	if err := (&awsKeys{expires: now}).check(now); backend.CodeOf(err).HTTPStatus() != http.StatusGone {
		t.Errorf("one that ends now: %v", err)
	}
}
