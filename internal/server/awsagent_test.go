package server

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/credresolve/credresolve/adapters/awssm"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/mototest"
)

// awsOutput is what the agent answers, in the SDK's own type; of the time it makes a text.
type awsOutput struct {
	secretsmanager.GetSecretValueOutput
	CreatedDate string
}

func (o awsOutput) created(t *testing.T) time.Time {
	t.Helper()
	seconds, err := strconv.ParseFloat(o.CreatedDate, 64)
	if err != nil {
		t.Errorf("CreatedDate is %q", o.CreatedDate)
	}
	return time.UnixMilli(int64(seconds * 1000))
}

// agent asks the AWS agent for what target names.
func (sc *sidecar) agent(target string) reply {
	sc.t.Helper()
	return sc.ask("aws_agent", "GET", target, "X-Aws-Parameters-Secrets-Token: "+sc.token("aws.token"))
}

func (sc *sidecar) awsGet(target string) awsOutput {
	sc.t.Helper()
	got := sc.agent(target)
	if got.status != 200 {
		sc.t.Fatalf("%s: status %d", target, got.status)
	}
	var out awsOutput
	got.json(sc.t, &out)
	return out
}

const awsServe = "  aws_agent: {listen: \"127.0.0.1:0\", token_file: aws.token, provider: m}\n"

func TestAWSAgentAnswersFromAnyProvider(t *testing.T) {
	t.Parallel()
	var s shelf
	s.put("one", &backend.Credential{Fields: fields("password", "one-c4nary")}, nil)
	many := fields("user", "u-c4nary", "password", "p-\"c4nary\n")
	many["port"] = backend.NewJSONSecret([]byte("5432.10"))
	s.put("a b/+%", &backend.Credential{Fields: many}, nil)
	s.put("both", &backend.Credential{Secret: backend.NewSecretString("own-c4nary"), Fields: many}, nil)
	s.put("binary", &backend.Credential{Secret: backend.NewSecret([]byte("c4nary\xff\x00"))}, nil)
	s.put("empty", &backend.Credential{Secret: backend.NewSecret(nil)}, nil)
	sc := startWith(t, "  s: {kind: shelf}\n", awsServe, s.kind())
	short := func(ref string) string { return "/secretsmanager/get?secretId=" + url.QueryEscape(ref) }
	for name, c := range map[string]struct{ target, name, value, binary string }{
		"a plain one":             {target: "/secretsmanager/get?secretId=plain", name: "plain", value: "plain-c4nary"},
		"by its path":             {target: "/v1/plain", name: "plain", value: "plain-c4nary"},
		"the current stage":       {target: "/secretsmanager/get?secretId=plain&versionStage=AWSCURRENT", name: "plain", value: "plain-c4nary"},
		"not refreshed":           {target: "/v1/plain?refreshNow=False", name: "plain", value: "plain-c4nary"},
		"refreshed":               {target: "/v1/plain?refreshNow=1", name: "plain", value: "plain-c4nary"},
		"JSON text as it is":      {target: "/secretsmanager/get?secretId=db", name: "db", value: `{"user":"u-c4nary","password":"p-c4nary","port":5432}`},
		"a short form":            {target: short("cred://s/both"), name: "cred://s/both", value: "own-c4nary"},
		"a short form in a path":  {target: "/v1/" + url.PathEscape("cred://m/db#user"), name: "cred://m/db#user", value: "u-c4nary"},
		"a field":                 {target: short("cred://m/db#password"), name: "cred://m/db#password", value: "p-c4nary"},
		"a number":                {target: short("cred://conf//n"), name: "cred://conf//n", value: "7"},
		"fields alone":            {target: short("cred://s/a%20b%2F+%25"), name: "cred://s/a%20b%2F+%25", value: `{"password":"p-\"c4nary\n","port":5432.10,"user":"u-c4nary"}`},
		"the only field is a map": {target: short("cred://s/one"), name: "cred://s/one", value: `{"password":"one-c4nary"}`},
		"binary":                  {target: short("cred://s/binary"), name: "cred://s/binary", binary: "c4nary\xff\x00"},
		"an empty one":            {target: short("cred://s/empty"), name: "cred://s/empty"},
	} {
		t.Run(name, func(t *testing.T) {
			sc := *sc
			sc.t = t
			out := sc.awsGet(c.target)
			if aws.ToString(out.SecretString) != c.value || string(out.SecretBinary) != c.binary || (out.SecretString == nil) != (c.binary != "") {
				t.Error("another value")
			}
			if aws.ToString(out.Name) != c.name || !slices.Equal(out.VersionStages, []string{"AWSCURRENT"}) || time.Since(out.created(t)).Abs() > time.Minute {
				t.Errorf("name %q, stages %v, created %s", aws.ToString(out.Name), out.VersionStages, out.CreatedDate)
			}
			if !regexp.MustCompile(`^[0-9a-f-]{32,64}$`).MatchString(aws.ToString(out.VersionId)) {
				t.Errorf("version %q", aws.ToString(out.VersionId))
			}
			// A client may come back with the ARN, and then gets the same.
			arn := aws.ToString(out.ARN)
			again := sc.awsGet("/secretsmanager/get?secretId=" + url.QueryEscape(arn))
			if !regexp.MustCompile(`^arn:aws:secretsmanager:[^:]+:[0-9]{12}:secret:.+-[0-9a-f]{6}$`).MatchString(arn) || aws.ToString(again.ARN) != arn ||
				aws.ToString(again.SecretString) != c.value || !bytes.Equal(again.SecretBinary, out.SecretBinary) || aws.ToString(again.VersionId) != aws.ToString(out.VersionId) {
				t.Errorf("%s is not what it stands for", arn)
			}
		})
	}
	sc.public(sc.token("aws.token"))
}

// What the agent says for itself is plain text, what AWS says is AWS's JSON; nothing of a request is repeated.
func TestAWSAgentErrors(t *testing.T) {
	t.Parallel()
	var s shelf
	s.put("plain", &backend.Credential{Secret: backend.NewSecretString("s-c4nary")}, nil)
	s.put("fields", &backend.Credential{Fields: map[string]backend.Secret{"a": backend.NewSecret([]byte("c4nary\xff")), "b": backend.NewSecretString("b-c4nary")}}, nil)
	sc := startWith(t, "  s: {kind: shelf}\n", awsServe, s.kind())
	const inText = ""
	for name, c := range map[string]struct {
		target string
		status int
		typ    string // of AWS's form
		text   string
	}{
		"no secretId":             {"/secretsmanager/get", 400, inText, "missing parameter secretId"},
		"an empty one":            {"/secretsmanager/get?secretId=", 400, inText, "missing parameter secretId"},
		"none in the path":        {"/v1/", 400, inText, "missing secret ID"},
		"two":                     {"/secretsmanager/get?secretId=plain&secretId=db", 400, inText, "twice"},
		"in the path and query":   {"/v1/plain?secretId=db", 400, inText, "unknown parameter"},
		"a bad refreshNow":        {"/secretsmanager/get?secretId=plain&refreshNow=yes", 400, inText, "invalid refreshNow value"},
		"an unknown parameter":    {"/secretsmanager/get?secretId=plain&x-c4nary=1", 400, inText, "unknown parameter"},
		"a role":                  {"/secretsmanager/get?secretId=plain&roleArn=arn:aws:iam::123456789012:role/x", 400, inText, "roleArn"},
		"no percent-encoding":     {"/secretsmanager/get?secretId=%zz", 400, inText, "percent-encoded"},
		"a bad short form":        {"/secretsmanager/get?secretId=cred://c4nary", 400, inText, ""},
		"an empty version":        {"/secretsmanager/get?secretId=plain&versionId=", 400, inText, "versionId is empty"},
		"two versions":            {"/secretsmanager/get?secretId=cred://m/plain%3Fversion=1&versionId=1", 400, inText, "version"},
		"another path":            {"/c4nary", 404, inText, "Not found"},
		"no such secret":          {"/v1/none", 400, "ResourceNotFoundException", ""},
		"no such provider":        {"/v1/cred://x/y", 400, "InvalidParameterException", ""},
		"no id":                   {"/v1/a%00b", 400, "InvalidParameterException", ""},
		"no such version":         {"/v1/plain?versionId=7", 400, "ResourceNotFoundException", ""},
		"no such stage":           {"/v1/plain?versionStage=AWSPREVIOUS", 400, "ResourceNotFoundException", ""},
		"no versions":             {"/v1/cred://s/plain?versionId=7", 400, "InvalidRequestException", ""},
		"no stages":               {"/v1/cred://s/plain?versionStage=AWSPREVIOUS", 400, "InvalidRequestException", ""},
		"a field that is no text": {"/v1/cred://s/fields", 400, "InvalidRequestException", "UTF-8"},
		"another's ARN":           {"/v1/arn:aws:secretsmanager:credresolve:000000000000:secret:m/plain-abcdef", 400, "ResourceNotFoundException", ""},
	} {
		got := sc.agent(c.target)
		if got.status != c.status || strings.Contains(got.body, canary) || !strings.Contains(got.body, c.text) {
			t.Errorf("%s: status %d, want %d: %s", name, got.status, c.status, got.body)
		}
		var e struct {
			Type    string `json:"__type"`
			Message string `json:"message"`
		}
		if isJSON := json.Unmarshal([]byte(got.body), &e) == nil; isJSON != (c.typ != inText) || e.Type != c.typ || isJSON && e.Message == "" {
			t.Errorf("%s: %s", name, got.body)
		}
	}
	own := "X-Aws-Parameters-Secrets-Token: " + sc.token("aws.token")
	for name, c := range map[string]struct {
		got    reply
		status int
		body   string
	}{
		"forwarded":              {sc.ask("aws_agent", "GET", "/v1/plain", own, "X-Forwarded-For: 10.0.0.1"), 400, "Forwarded"},
		"another's token":        {sc.ask("aws_agent", "GET", "/v1/plain", "X-Aws-Parameters-Secrets-Token: x"), 403, "Bad Token"},
		"no token":               {sc.ask("aws_agent", "GET", "/v1/plain"), 403, "Bad Token"},
		"another method":         {sc.ask("aws_agent", "POST", "/v1/plain", own), 405, "Not allowed"},
		"health without a token": {sc.ask("aws_agent", "GET", "/ping"), 200, "healthy"},
	} {
		if c.got.status != c.status || c.got.body != c.body {
			t.Errorf("%s: status %d, %s", name, c.got.status, c.got.body)
		}
	}
	if got := sc.ask("aws_agent", "GET", "/v1/plain", "X-Vault-Token: "+sc.token("aws.token")); got.status != 200 {
		t.Errorf("the agent's other header: status %d", got.status)
	}
}

func TestAWSAgentRefreshes(t *testing.T) {
	t.Parallel()
	var s shelf
	s.put("x", &backend.Credential{Secret: backend.NewSecretString("one-c4nary")}, nil)
	sc := startWith(t, "  s: {kind: shelf, cache: {ttl: 1h}}\n", strings.Replace(awsServe, "provider: m", "provider: s", 1), s.kind())
	before := sc.awsGet("/v1/x")
	s.put("x", &backend.Credential{Secret: backend.NewSecretString("two-c4nary")}, nil)
	if out := sc.awsGet("/v1/x"); aws.ToString(out.SecretString) != "one-c4nary" || s.read("x") != 1 {
		t.Error("a cached one was fetched")
	}
	time.Sleep(1100 * time.Millisecond) // what is younger is new enough for refreshNow
	after := sc.awsGet("/v1/x?refreshNow=true")
	if aws.ToString(after.SecretString) != "two-c4nary" || s.read("x") != 2 || aws.ToString(after.VersionId) == aws.ToString(before.VersionId) {
		t.Error("refreshNow gave what was cached, or calls another content the same version")
	}
	if out := sc.awsGet("/v1/x"); aws.ToString(out.SecretString) != "two-c4nary" || s.read("x") != 2 {
		t.Error("what was refreshed was not kept")
	}
}

// The client that AWS's documentation shows for Python, with the standard library in the place of requests.
func TestAWSAgentFromPython(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3: apt-get install python3")
	}
	sc := start(t, awsServe)
	script := `
import json, sys, urllib.error, urllib.parse, urllib.request

def get_secret(secret_id):
    url = f"http://{sys.argv[1]}/secretsmanager/get?secretId={urllib.parse.quote(secret_id)}"
    with open(sys.argv[2]) as fp:
        token = fp.read()
    request = urllib.request.Request(url, headers={"X-Aws-Parameters-Secrets-Token": token.strip()})
    with urllib.request.urlopen(request) as response:
        return response.read().decode()

answer = json.loads(get_secret("db"))
secret = json.loads(answer["SecretString"])
assert secret["password"] == "p-" + "c4nary" and secret["port"] == 5432, "another value"
float(answer["CreatedDate"])
try:
    get_secret("none")
except urllib.error.HTTPError as e:
    print(e.code, json.loads(e.read())["__type"])
`
	out, err := exec.CommandContext(t.Context(), python, "-c", script, sc.at("aws_agent"), filepath.Join(sc.dir, "aws.token")).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "400 ResourceNotFoundException" {
		t.Errorf("%v: %s", err, strings.ReplaceAll(string(out), canary, "[a secret]"))
	}
}

// The same reads at AWS by its SDK, and at the drop-in: every field is the same.
func TestAWSAgentAnswersAsAWSDoes(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	sdk := secretsmanager.New(secretsmanager.Options{
		Region: mototest.Region, BaseEndpoint: aws.String(p.Direct), Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
	ctx := t.Context()
	create := func(in *secretsmanager.CreateSecretInput) {
		t.Helper()
		if _, err := sdk.CreateSecret(ctx, in); err != nil {
			t.Fatal(err)
		}
	}
	create(&secretsmanager.CreateSecretInput{Name: aws.String("app/text"), SecretString: aws.String("first-c4nary")})
	create(&secretsmanager.CreateSecretInput{Name: aws.String("app/json"), SecretString: aws.String(`{"b": "c4nary \u00e9 \"", "a": 1.50,  "c": {"d": [1, 2]}}`)})
	create(&secretsmanager.CreateSecretInput{Name: aws.String("app/one"), SecretString: aws.String(`{"password":"c4nary"}`)})
	create(&secretsmanager.CreateSecretInput{Name: aws.String("app/binary"), SecretBinary: []byte("c4nary\x00\xff")})
	if _, err := sdk.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{SecretId: aws.String("app/text"), SecretString: aws.String("second-c4nary")}); err != nil {
		t.Fatal(err)
	}
	previous, err := sdk.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: aws.String("app/text"), VersionStage: aws.String("AWSPREVIOUS")})
	if err != nil {
		t.Fatal(err)
	}
	sc := startWith(t, "  aws: {kind: awssm, region: "+mototest.Region+", endpoint: \""+p.URL+"\", access_key_id: {provider: m, id: plain}, secret_access_key: {provider: m, id: plain}}\n",
		strings.Replace(awsServe, "provider: m", "provider: aws", 1), awssm.Kind())
	for name, in := range map[string]*secretsmanager.GetSecretValueInput{
		"text":           {SecretId: aws.String("app/text")},
		"JSON":           {SecretId: aws.String("app/json")},
		"one member":     {SecretId: aws.String("app/one")},
		"binary":         {SecretId: aws.String("app/binary")},
		"by ARN":         {SecretId: previous.ARN},
		"current":        {SecretId: aws.String("app/text"), VersionStage: aws.String("AWSCURRENT")},
		"previous":       {SecretId: aws.String("app/text"), VersionStage: aws.String("AWSPREVIOUS")},
		"by version":     {SecretId: aws.String("app/text"), VersionId: previous.VersionId},
		"by both":        {SecretId: aws.String("app/text"), VersionId: previous.VersionId, VersionStage: aws.String("AWSPREVIOUS")},
		"no such":        {SecretId: aws.String("app/none")},
		"no such stage":  {SecretId: aws.String("app/text"), VersionStage: aws.String("AWSPENDING")},
		"no such number": {SecretId: aws.String("app/text"), VersionId: aws.String("00000000-0000-0000-0000-000000000000")},
	} {
		t.Run(name, func(t *testing.T) {
			sc := *sc
			sc.t = t
			query := url.Values{"secretId": {*in.SecretId}}
			if in.VersionId != nil {
				query.Set("versionId", *in.VersionId)
			}
			if in.VersionStage != nil {
				query.Set("versionStage", *in.VersionStage)
			}
			want, err := sdk.GetSecretValue(t.Context(), in)
			if err != nil {
				if got := sc.agent("/secretsmanager/get?" + query.Encode()); got.status != 400 || !strings.Contains(got.body, `"__type":"ResourceNotFoundException"`) {
					t.Errorf("status %d: %s; AWS says %v", got.status, got.body, err)
				}
				return
			}
			got := sc.awsGet("/secretsmanager/get?" + query.Encode())
			slices.Sort(want.VersionStages)
			if aws.ToString(got.ARN) != aws.ToString(want.ARN) || aws.ToString(got.Name) != aws.ToString(want.Name) || aws.ToString(got.VersionId) != aws.ToString(want.VersionId) ||
				!slices.Equal(got.VersionStages, want.VersionStages) || got.created(t).Sub(*want.CreatedDate).Abs() > time.Millisecond {
				t.Errorf("%s %s %s %v %s", aws.ToString(got.ARN), aws.ToString(got.Name), aws.ToString(got.VersionId), got.VersionStages, got.CreatedDate)
			}
			if (got.SecretString == nil) != (want.SecretString == nil) || aws.ToString(got.SecretString) != aws.ToString(want.SecretString) || !bytes.Equal(got.SecretBinary, want.SecretBinary) {
				t.Error("another value")
			}
		})
	}
	if got := sc.agent("/v1/app/text?versionId=" + aws.ToString(previous.VersionId) + "&versionStage=AWSCURRENT"); got.status != 400 || !strings.Contains(got.body, "ResourceNotFoundException") {
		t.Errorf("a version that has not that stage: status %d", got.status)
	}
	sc.public(sc.token("aws.token"))
}

// Beyond its connections the listener says so as the agent does, and still answers for its health.
func TestAWSAgentConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	sc := start(t, awsServe+"  limits: {connections: 1}\n")
	c, err := net.Dial("tcp", sc.at("aws_agent"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /ping HTTP/1.1\r\nHost: "+sc.at("aws_agent")+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
		t.Fatal(err)
	}
	if got := sc.agent("/v1/plain"); got.status != 429 || got.body != "Connection limit exceeded" || got.header.Get("Retry-After") == "" {
		t.Errorf("a request: status %d", got.status)
	}
	if got := sc.ask("aws_agent", "GET", "/ping"); got.status != 200 {
		t.Errorf("health: status %d", got.status)
	}
}

func TestSecondsOfTheAWSAgent(t *testing.T) {
	t.Parallel()
	for want, at := range map[string]time.Time{
		"1569534789": time.Unix(1569534789, 0), "1569534789.046": time.Unix(1569534789, 46_000_000), "1699900000.5": time.Unix(1699900000, 500_000_000),
	} {
		if got := awsSeconds(at); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
