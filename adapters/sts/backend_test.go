package sts_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/credresolve/credresolve/adapters/sts"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/mototest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	canary = "c4nary"
	reader = "arn:aws:iam::123456789012:role/reader"
	hub    = "arn:aws:iam::123456789012:role/hub"
	device = "arn:aws:iam::123456789012:mfa/me"
)

func text(s string) backend.Source { return backend.Literal(backend.NewSecretString(s)) }

func basic(p *mototest.Proxy) sts.Config {
	return sts.Config{Region: mototest.Region, Endpoint: p.URL, AccessKeyID: text("AKIAIOSFODNN7EXAMPLE"), SecretAccessKey: text(canary)}
}

// web are the settings of a caller with a web identity token.
func web(p *mototest.Proxy) sts.Config {
	c := basic(p)
	c.AccessKeyID, c.SecretAccessKey = backend.Source{}, backend.Source{}
	return c
}

func open(t *testing.T, c sts.Config) *sts.Backend {
	t.Helper()
	b, err := sts.New(c, backend.Host{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// get gets id and checks that the credential is whole and lasts for life.
func get(t *testing.T, b *sts.Backend, id string, life time.Duration) *backend.Credential {
	t.Helper()
	c, err := b.Get(t.Context(), backend.Request{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"access_key_id", "secret_access_key", "session_token"} {
		if c.Fields[name].Len() == 0 {
			t.Errorf("no %s", name)
		}
	}
	if left := time.Until(c.Expires); c.Type != backend.TypeAWS || left > life+time.Minute || left < life-5*time.Minute {
		t.Errorf("type %s, %v left, want %v", c.Type, left, life)
	}
	return c
}

func fails(t *testing.T, err error, code backend.Code, tells string) {
	t.Helper()
	if backend.CodeOf(err) != code || !strings.Contains(fmt.Sprint(err), tells) {
		t.Errorf("%v (%s), want %s that tells %q", err, backend.CodeOf(err), code, tells)
	}
	if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), canary) {
		t.Errorf("the error shows too much: %v", err)
	}
}

// form gives the parameters of the n-th call of op.
func form(t *testing.T, p *mototest.Proxy, op string, n int) url.Values {
	t.Helper()
	calls := p.Calls(op)
	if len(calls) <= n {
		t.Fatalf("%d calls of %s", len(calls), op)
	}
	v, err := url.ParseQuery(calls[n].Body)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func signer(c mototest.Call) string {
	_, key, _ := strings.Cut(c.Header.Get("Authorization"), "Credential=")
	key, _, _ = strings.Cut(key, "/")
	return key
}

func TestAssumeRole(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	c := basic(p)
	c.Roles = map[string]sts.Role{"deploy": {
		RoleARN: reader, SessionName: "ci", Duration: 2 * time.Hour, ExternalID: "ext:1", Policy: `{"Version":"2012-10-17","Statement":[]}`,
		PolicyARNs: []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"}, Tags: map[string]string{"team": "a"}, TransitiveTags: []string{"team"}, SourceIdentity: "alice",
	}}
	b := open(t, c)
	got := get(t, b, "deploy", 2*time.Hour)
	if !strings.HasSuffix(got.Metadata["arn"], "assumed-role/reader/ci") {
		t.Errorf("arn %q", got.Metadata["arn"])
	}
	f := form(t, p, "AssumeRole", 0)
	for name, want := range map[string]string{
		"RoleArn": reader, "RoleSessionName": "ci", "DurationSeconds": "7200", "ExternalId": "ext:1", "SourceIdentity": "alice",
		"PolicyArns.member.1.arn": "arn:aws:iam::aws:policy/ReadOnlyAccess", "Tags.member.1.Key": "team", "Tags.member.1.Value": "a",
		"TransitiveTagKeys.member.1": "team", "Policy": `{"Version":"2012-10-17","Statement":[]}`,
	} {
		if f.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, f.Get(name), want)
		}
	}
	get(t, b, reader, time.Hour)
	if f := form(t, p, "AssumeRole", 1); f.Get("RoleSessionName") != "credresolve" || f.Has("ExternalId") || f.Has("DurationSeconds") {
		t.Errorf("a bare role is assumed with %v", f)
	}
}

func TestChain(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	c := basic(p)
	c.MFASerial, c.MFACode, c.Duration = device, text("123456\n"), 8*time.Hour
	c.Roles = map[string]sts.Role{"hub": {RoleARN: hub, ExternalID: "in"}, "deploy": {RoleARN: reader, Via: []string{"hub"}}}
	get(t, open(t, c), "deploy", time.Hour)
	first, second := form(t, p, "AssumeRole", 0), form(t, p, "AssumeRole", 1)
	if first.Get("RoleArn") != hub || first.Get("ExternalId") != "in" || first.Get("TokenCode") != "123456" || first.Get("SerialNumber") != device ||
		second.Get("RoleArn") != reader || second.Has("TokenCode") || second.Get("DurationSeconds") != "3600" {
		t.Errorf("assumed with %v and then %v", first, second)
	}
	if calls := p.Calls("AssumeRole"); signer(calls[0]) != "AKIAIOSFODNN7EXAMPLE" || !strings.HasPrefix(signer(calls[1]), "ASIA") {
		t.Errorf("signed by %s and %s", signer(calls[0]), signer(calls[1]))
	}
	p.Fail("AssumeRole", mototest.Pass, mototest.RefuseXML(403, "AccessDenied", canary))
	_, err := open(t, c).Get(t.Context(), backend.Request{ID: "deploy"})
	fails(t, err, backend.CodeDenied, "assuming "+reader)
}

func TestSession(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	c := basic(p)
	c.Duration = 2 * time.Hour
	get(t, open(t, c), "session", 2*time.Hour)
	c.MFASerial = device
	_, err := open(t, c).Get(t.Context(), backend.Request{ID: "session"})
	fails(t, err, backend.CodeAuthRequired, "credresolve login")
	var rejected atomic.Int32
	c.MFACode = backend.NewSource(func(context.Context) (backend.Secret, string, error) {
		return backend.NewSecretString("123456"), "r", nil
	},
		func(string) { rejected.Add(1) })
	b := open(t, c)
	get(t, b, "session", 2*time.Hour)
	if f := form(t, p, "GetSessionToken", 1); f.Get("TokenCode") != "123456" || f.Get("SerialNumber") != device {
		t.Errorf("asked with %v", f)
	}
	p.Fail("GetSessionToken", mototest.RefuseXML(403, "AccessDenied", "MultiFactorAuthentication failed "+canary))
	_, err = b.Get(t.Context(), backend.Request{ID: "session"})
	fails(t, err, backend.CodeAuthRequired, "one-time code")
	if rejected.Load() != 1 || len(p.Calls("GetSessionToken")) != 3 {
		t.Errorf("%d codes rejected in %d calls; a spent code is not to be shown again", rejected.Load(), len(p.Calls("GetSessionToken")))
	}
	c.MFACode = text(canary)
	_, err = open(t, c).Get(t.Context(), backend.Request{ID: "session"})
	fails(t, err, backend.CodeAuthRequired, "six digits")
}

func TestWebIdentity(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	path := filepath.Join(t.TempDir(), "token")
	c := web(p)
	c.WebIdentityTokenFile = path
	b := open(t, c)
	_, err := b.Get(t.Context(), backend.Request{ID: reader})
	fails(t, err, backend.CodeAuthRequired, "web_identity_token_file")
	for i, token := range []string{"one.jwt", "two.jwt"} {
		if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		get(t, b, reader, time.Hour)
		if f := form(t, p, "AssumeRoleWithWebIdentity", i); f.Get("WebIdentityToken") != token || p.Calls("AssumeRoleWithWebIdentity")[i].Header.Get("Authorization") != "" {
			t.Errorf("shown %q, want %q without a signature", f.Get("WebIdentityToken"), token)
		}
	}
	_, err = b.Get(t.Context(), backend.Request{ID: "session"})
	fails(t, err, backend.CodeUnsupported, "")

	// A token of another provider that AWS refuses is got anew, once.
	var gets, rejected atomic.Int32
	c.WebIdentityTokenFile = ""
	c.WebIdentityToken = backend.NewSource(func(context.Context) (backend.Secret, string, error) {
		return backend.NewSecretString(fmt.Sprintf("%s-%d", canary, gets.Add(1))), "r", nil
	}, func(string) { rejected.Add(1) })
	b = open(t, c)
	p.Fail("AssumeRoleWithWebIdentity", mototest.RefuseXML(400, "ExpiredTokenException", canary))
	get(t, b, reader, time.Hour)
	if gets.Load() != 2 || rejected.Load() != 1 {
		t.Errorf("asked %d times, rejected %d", gets.Load(), rejected.Load())
	}
	p.Fail("AssumeRoleWithWebIdentity", mototest.Times(2, mototest.RefuseXML(400, "InvalidIdentityToken", canary))...)
	_, err = b.Get(t.Context(), backend.Request{ID: reader})
	fails(t, err, backend.CodeAuthRequired, "web identity token")
}

func TestFaults(t *testing.T) {
	t.Parallel()
	p := mototest.Alone(t)
	b := open(t, basic(p))
	for _, tt := range []struct {
		name  string
		fault mototest.Fault
		code  backend.Code
		tells string
	}{
		{"denied", mototest.RefuseXML(403, "AccessDenied", canary), backend.CodeDenied, "trust policy"},
		{"expired", mototest.RefuseXML(403, "ExpiredToken", canary), backend.CodeAuthRequired, "expired"},
		{"unknown key", mototest.RefuseXML(403, "InvalidClientTokenId", canary), backend.CodeAuthRequired, "does not know"},
		{"settings", mototest.RefuseXML(400, "ValidationError", canary), backend.CodeInvalidConfig, "duration"},
		{"throttled", mototest.RefuseXML(400, "Throttling", canary), backend.CodeThrottled, "too many calls"},
		{"down", mototest.Raw(503, "text/html", canary), backend.CodeUnavailable, "503"},
		{"garbage", mototest.Raw(200, "text/html", "<html>"+canary), backend.CodeUnavailable, "endpoint"},
		{"empty", mototest.Raw(200, "text/xml", "<AssumeRoleResponse><AssumeRoleResult/></AssumeRoleResponse>"), backend.CodeUnavailable, "endpoint"},
		{"endless", mototest.Raw(200, "text/xml", "<AssumeRoleResponse><AssumeRoleResult>"+strings.Repeat("<a/>", 1<<19)), backend.CodeUnavailable, ""},
		{"redirect", mototest.Redirect(307, "http://127.0.0.1:1/"), backend.CodeUnavailable, "not followed"},
		{"lost", mototest.LoseAnswer, backend.CodeUnavailable, "the connection ended"},
		{"cut", mototest.Cut, backend.CodeUnavailable, ""},
	} {
		p.Reset()
		p.Fail("AssumeRole", tt.fault)
		_, err := b.Get(t.Context(), backend.Request{ID: reader})
		t.Run(tt.name, func(t *testing.T) { fails(t, err, tt.code, tt.tells) })
		if n := len(p.All()); n != 1 {
			t.Errorf("%s: %d calls", tt.name, n)
		}
	}
	p.Fail("AssumeRole", mototest.Times(2, mototest.Hang)...)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := b.Get(ctx, backend.Request{ID: reader})
	fails(t, err, backend.CodeTimeout, "")
	c := basic(p)
	c.Timeout = 50 * time.Millisecond
	_, err = open(t, c).Get(t.Context(), backend.Request{ID: reader})
	fails(t, err, backend.CodeUnavailable, "no answer in time")
}

func TestRequestsThatCannotBe(t *testing.T) {
	t.Parallel()
	p := mototest.Alone(t)
	b := open(t, basic(p))
	for _, tt := range []struct {
		req  backend.Request
		code backend.Code
	}{
		{backend.Request{ID: "unknown"}, backend.CodeNotFound},
		{backend.Request{ID: "arn:aws:s3:::" + canary}, backend.CodeInvalidID},
		{backend.Request{ID: ""}, backend.CodeInvalidID},
		{backend.Request{ID: reader, Version: "1"}, backend.CodeUnsupported},
	} {
		_, err := b.Get(t.Context(), tt.req)
		fails(t, err, tt.code, "")
	}
	_ = b.Close()
	_, err := b.Get(t.Context(), backend.Request{ID: reader})
	fails(t, err, backend.CodeUnavailable, "closed")
	if len(p.All()) != 0 {
		t.Error("AWS was asked")
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	key := text(canary)
	roles := func(r sts.Role) map[string]sts.Role { return map[string]sts.Role{"r": r} }
	for tells, c := range map[string]sts.Config{
		"region":                  {Region: "A B"},
		"belong together":         {AccessKeyID: key},
		"session_token":           {SessionToken: key},
		"exclude one another":     {WebIdentityToken: key, WebIdentityTokenFile: "x"},
		"in place of":             {WebIdentityToken: key, MFASerial: device},
		"mfa_code needs":          {MFACode: key},
		"mfa_serial is":           {MFASerial: "; rm"},
		"within 15m and 36h":      {Duration: time.Minute},
		"plain URL":               {Endpoint: "ftp://x"},
		"role_arn":                {Roles: roles(sts.Role{RoleARN: canary})},
		"over 1h":                 {Roles: roles(sts.Role{RoleARN: reader, Via: []string{hub}, Duration: 2 * time.Hour})},
		"via names":               {Roles: roles(sts.Role{RoleARN: reader, Via: []string{"r"}})},
		"transitive_tags":         {Roles: roles(sts.Role{RoleARN: reader, TransitiveTags: []string{"x"}})},
		"with a web identity":     {WebIdentityToken: key, Roles: roles(sts.Role{RoleARN: reader, ExternalID: "ext"})},
		"not 1 to 64":             {Roles: map[string]sts.Role{"session": {RoleARN: reader}}},
		"source_identity is not ": {Roles: roles(sts.Role{RoleARN: reader, SourceIdentity: "a b"})},
	} {
		_, err := sts.New(c, backend.Host{})
		fails(t, err, backend.CodeInvalidConfig, tells)
	}
}

// Not parallel: the environment belongs to the whole process.
func TestDefaultChain(t *testing.T) {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "config")
	t.Setenv("AWS_CONFIG_FILE", path)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(dir, "none"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	p := mototest.New(t)
	b := open(t, web(p))
	for _, tt := range []struct {
		file  string
		code  backend.Code
		tells string
	}{
		{"[default]\n", backend.CodeAuthRequired, "aws sso login"},
		{"[default]\ncredential_process = echo " + canary + "\n", backend.CodeUnsupported, "credential_process"},
		{"[default]\naws_access_key_id = AKIAFILED\naws_secret_access_key = " + canary + "\n", backend.CodeOK, ""},
	} {
		if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Get(t.Context(), backend.Request{ID: reader}); tt.code != backend.CodeOK || err != nil {
			fails(t, err, tt.code, tt.tells)
		}
	}
	calls := p.Calls("AssumeRole")
	if len(calls) != 1 || signer(calls[0]) != "AKIAFILED" {
		t.Errorf("%d calls", len(calls))
	}

	// A role of the profile that STS is too busy to give will be there later: nobody has to log in.
	t.Setenv("AWS_ENDPOINT_URL_STS", p.URL)
	profile := "[default]\nrole_arn = " + hub + "\nsource_profile = base\n[profile base]\naws_access_key_id = A\naws_secret_access_key = " + canary + "\n"
	if err := os.WriteFile(path, []byte(profile), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Fail("AssumeRole", mototest.RefuseXML(400, "Throttling", canary))
	_, err := b.Get(t.Context(), backend.Request{ID: reader})
	fails(t, err, backend.CodeThrottled, "getting AWS credentials")
}
