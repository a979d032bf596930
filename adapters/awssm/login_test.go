package awssm_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/awssm"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/mototest"
)

// home gives the SDK an environment and files of its own.
func home(t *testing.T, config, credentials string) string {
	t.Helper()
	dir := t.TempDir()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("HOME", dir)
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(dir, "config"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(dir, "credentials"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	write(t, filepath.Join(dir, "config"), config)
	write(t, filepath.Join(dir, "credentials"), credentials)
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// signer gives the access key id that a call was signed with.
func signer(c mototest.Call) string {
	_, key, _ := strings.Cut(c.Header.Get("Authorization"), "Credential=")
	key, _, _ = strings.Cut(key, "/")
	return key
}

func lastSigner(t *testing.T, p *mototest.Proxy) string {
	t.Helper()
	calls := p.Calls("GetSecretValue")
	if len(calls) == 0 {
		t.Fatal("no call arrived")
	}
	return signer(calls[len(calls)-1])
}

const filed = `[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key = canary-default
[work]
aws_access_key_id = AKIAWORK
aws_secret_access_key = canary-work
`

func TestDefaultChain(t *testing.T) {
	p := mototest.New(t)
	create(t, p, "s", "x")
	profiles := "[default]\nregion = eu-west-1\n[profile work]\nregion = eu-west-1\n" +
		"[profile chained]\nregion = eu-west-1\nrole_arn = arn:aws:iam::" + p.Account + ":role/chained\nsource_profile = work\nexternal_id = from-profile\n" +
		"[profile processed]\nregion = eu-west-1\nrole_arn = arn:aws:iam::" + p.Account + ":role/processed\nsource_profile = process\nexternal_id = from-hop\n" +
		"[profile process]\nregion = eu-west-1\ncredential_process = /bin/echo '{\"Version\":1,\"AccessKeyId\":\"AKIAPROCESS\",\"SecretAccessKey\":\"canary\"}'\n"
	for _, tt := range []struct {
		name   string
		env    map[string]string
		config awssm.Config
		signer string // or its prefix
	}{
		{"default profile", nil, awssm.Config{}, "AKIADEFAULT"},
		{"profile of the provider", nil, awssm.Config{Profile: "work"}, "AKIAWORK"},
		{"profile of the environment", map[string]string{"AWS_PROFILE": "work"}, awssm.Config{}, "AKIAWORK"},
		{"profile of the provider before the environment's", map[string]string{"AWS_PROFILE": "nope"}, awssm.Config{Profile: "work"}, "AKIAWORK"},
		{"key of the environment", map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "canary"}, awssm.Config{}, "AKIAENV"},
		{"profile before the environment's key", map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "canary"}, awssm.Config{Profile: "work"}, "AKIAWORK"},
		{"key of the provider", map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "canary"}, awssm.Config{
			AccessKeyID: backend.Literal(backend.NewSecretString("AKIAOWN")), SecretAccessKey: backend.Literal(backend.NewSecretString("canary")),
		}, "AKIAOWN"},
		{"process", nil, awssm.Config{Profile: "process"}, "AKIAPROCESS"},
		{"role over a process", map[string]string{"AWS_ENDPOINT_URL_STS": p.URL}, awssm.Config{Profile: "processed"}, "ASIA"},
		{"role of a profile", map[string]string{"AWS_ENDPOINT_URL_STS": p.URL}, awssm.Config{Profile: "chained"}, "ASIA"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home(t, profiles, filed)
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			p.Reset()
			tt.config.Endpoint = p.URL
			b := open(t, tt.config)
			if c := get(t, b, "s", ""); text(c) != "x" {
				t.Errorf("read %q", text(c))
			}
			if got := lastSigner(t, p); !strings.HasPrefix(got, tt.signer) {
				t.Errorf("signed with %s, want %s", got, tt.signer)
			}
			want := map[string]string{"processed": "ExternalId=from-hop", "chained": "ExternalId=from-profile"}[tt.config.Profile]
			if calls := p.Calls("AssumeRole"); want != "" && (len(calls) != 1 || !strings.Contains(calls[0].Body, want)) {
				t.Errorf("%d roles assumed, not one with %s", len(calls), want)
			}
		})
	}
	if t.Run("web identity", func(t *testing.T) {
		dir := home(t, "", "")
		write(t, filepath.Join(dir, "token"), "canary.jwt")
		t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", filepath.Join(dir, "token"))
		t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::"+p.Account+":role/web")
		t.Setenv("AWS_ENDPOINT_URL_STS", p.URL)
		t.Setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", p.URL)
		t.Setenv("AWS_REGION", "eu-west-1")
		p.Reset()
		b := open(t, awssm.Config{})
		get(t, b, "s", "")
		if len(p.Calls("AssumeRoleWithWebIdentity")) != 1 || !strings.HasPrefix(lastSigner(t, p), "ASIA") {
			t.Error("the web identity's role was not used")
		}
	}) {
		t.Run("instance role", func(t *testing.T) {
			home(t, "", "")
			t.Setenv("AWS_EC2_METADATA_DISABLED", "")
			imds := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/latest/api/token":
					w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
					_, _ = fmt.Fprint(w, "token")
				case strings.HasSuffix(r.URL.Path, "/security-credentials/"):
					_, _ = fmt.Fprint(w, "role")
				default:
					_, _ = fmt.Fprintf(w, `{"Code":"Success","AccessKeyId":"ASIAIMDS","SecretAccessKey":"canary","Token":"canary","Expiration":%q}`,
						time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
				}
			}))
			defer imds.Close()
			t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.URL)
			get(t, open(t, awssm.Config{Endpoint: p.URL, Region: "eu-west-1"}), "s", "")
			if got := lastSigner(t, p); got != "ASIAIMDS" {
				t.Errorf("signed with %s", got)
			}
		})
	}
}

func TestNoLogin(t *testing.T) {
	p := mototest.Alone(t)
	hang := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(hang); silent.Close() })
	config := `[profile sso]
region = eu-west-1
sso_session = corp
sso_account_id = 123456789012
sso_role_name = reader
[sso-session corp]
sso_region = eu-west-1
sso_start_url = https://corp.example/start
[profile console]
region = eu-west-1
login_session = arn:aws:iam::123456789012:user/u
[profile process]
region = eu-west-1
credential_process = /bin/sh -c "echo canary; echo canary >&2; exit 3"
[profile mfa]
region = eu-west-1
role_arn = arn:aws:iam::123456789012:role/r
source_profile = work
mfa_serial = arn:aws:iam::123456789012:mfa/u
[profile orphan]
region = eu-west-1
role_arn = arn:aws:iam::123456789012:role/r
source_profile = nope
[profile noregion]
`
	for _, tt := range []struct {
		name   string
		env    map[string]string
		config awssm.Config
		code   backend.Code
		tells  string
	}{
		{"nothing at all", nil, awssm.Config{Region: "eu-west-1"}, backend.CodeAuthRequired, "no AWS credentials were found"},
		{"silent instance metadata", map[string]string{"AWS_EC2_METADATA_DISABLED": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": silent.URL}, awssm.Config{Region: "eu-west-1"}, backend.CodeAuthRequired, "aws sso login"},
		{"signed out", nil, awssm.Config{Profile: "sso"}, backend.CodeAuthRequired, "run: aws sso login --profile sso"},
		{"signed out of the console", nil, awssm.Config{Profile: "console"}, backend.CodeAuthRequired, "run: aws login --profile console"},
		{"process that fails", nil, awssm.Config{Profile: "process"}, backend.CodeAuthRequired, "credential_process"},
		{"one-time code", nil, awssm.Config{Profile: "mfa"}, backend.CodeAuthRequired, "mfa_serial"},
		{"no such profile", nil, awssm.Config{Profile: "nope"}, backend.CodeInvalidConfig, `no AWS profile "nope"`},
		{"no such source profile", nil, awssm.Config{Profile: "orphan"}, backend.CodeInvalidConfig, `no AWS profile "nope"`},
		{"no region", nil, awssm.Config{Profile: "noregion"}, backend.CodeInvalidConfig, "no AWS region"},
		{"a region that is none", map[string]string{"AWS_REGION": "canary.example/#"}, awssm.Config{}, backend.CodeInvalidConfig, "not the name of a region"},
		{"a bundle that is none", map[string]string{"AWS_CA_BUNDLE": "/dev/null"}, awssm.Config{Region: "eu-west-1"}, backend.CodeInvalidConfig, "cannot be loaded"},
		{"no web identity token", map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": "/nonexistent/canary", "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/r"}, awssm.Config{Region: "eu-west-1"}, backend.CodeAuthRequired, "web identity token file"},
		{"no container", map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/canary"}, awssm.Config{Region: "eu-west-1"}, backend.CodeUnavailable, "connection refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			credentials := filed
			if tt.config.Profile == "" {
				credentials = ""
			}
			home(t, config, credentials)
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			if tt.config.Endpoint == "" {
				tt.config.Endpoint = p.URL
			}
			start := time.Now()
			_, err := open(t, tt.config).Get(t.Context(), backend.Request{ID: "s"})
			fails(t, err, tt.code, tt.tells)
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("it took %v to tell", took)
			}
		})
	}
	if n := len(p.All()); n > 0 {
		t.Errorf("%d calls were made without a login", n)
	}
}

func TestFilesThatChange(t *testing.T) {
	p := mototest.New(t)
	create(t, p, "s", "x")
	dir := home(t, "", filed)
	b := open(t, awssm.Config{Region: "eu-west-1", Endpoint: p.URL, Profile: "late"})
	_, err := b.Get(t.Context(), backend.Request{ID: "s"})
	fails(t, err, backend.CodeInvalidConfig)
	write(t, filepath.Join(dir, "credentials"), "[late]\naws_access_key_id = AKIAOLD\naws_secret_access_key = canary\n")
	get(t, b, "s", "") // a failed load is tried again
	if got := lastSigner(t, p); got != "AKIAOLD" {
		t.Errorf("signed with %s", got)
	}
	write(t, filepath.Join(dir, "credentials"), "[late]\naws_access_key_id = AKIANEW\naws_secret_access_key = canary\n")
	get(t, b, "s", "")
	if got := lastSigner(t, p); got != "AKIAOLD" {
		t.Errorf("a login that works was replaced: signed with %s", got)
	}
	p.Fail("GetSecretValue", mototest.Refuse(400, "ExpiredTokenException", textCanary))
	get(t, b, "s", "")
	if got := lastSigner(t, p); got != "AKIANEW" {
		t.Errorf("after the refusal signed with %s", got)
	}
}

// A credential_process must neither read what is meant for us nor write where a person or a log sees it.
func TestProcessIsQuiet(t *testing.T) {
	p := mototest.New(t)
	create(t, p, "s", "x")
	dir := home(t, "", "")
	script := filepath.Join(dir, "process")
	write(t, script, `cat >&2; echo canary >&2
echo '{"Version":1,"AccessKeyId":"AKIAPROCESS","SecretAccessKey":"canary"}'
`)
	write(t, filepath.Join(dir, "config"), "[profile process]\nregion = eu-west-1\ncredential_process = /bin/sh "+script+"\n")
	in, err := os.CreateTemp(dir, "in")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.WriteString("canary from standard input"); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	out, err := os.CreateTemp(dir, "out")
	if err != nil {
		t.Fatal(err)
	}
	stdin, stderr := os.Stdin, os.Stderr
	os.Stdin, os.Stderr = in, out
	_, err = open(t, awssm.Config{Profile: "process", Endpoint: p.URL}).Get(t.Context(), backend.Request{ID: "s"})
	os.Stdin, os.Stderr = stdin, stderr
	if err != nil {
		t.Fatal(err)
	}
	if at, err := in.Seek(0, 1); at != 0 || err != nil {
		t.Errorf("the process read %d bytes of our standard input", at)
	}
	if shown, err := os.ReadFile(out.Name()); len(shown) > 0 || err != nil {
		t.Errorf("the process wrote %q to our standard error", shown)
	}
}

// TestProcessEndsWithClose has a credential_process that does not end, with a child of its own.
func TestProcessEndsWithClose(t *testing.T) {
	p := mototest.Alone(t)
	dir := home(t, "", "")
	pids := filepath.Join(dir, "pids")
	script := filepath.Join(dir, "process")
	write(t, script, "sleep 60 &\necho $! $$ > "+pids+"\nwait\n")
	write(t, filepath.Join(dir, "config"), "[profile process]\nregion = eu-west-1\ncredential_process = /bin/sh "+script+"\n")
	b, err := awssm.New(awssm.Config{Profile: "process", Endpoint: p.URL}, backend.Host{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := b.Get(ctx, backend.Request{ID: "s"})
		ended <- err
	}()
	var started []string
	for deadline := time.Now().Add(20 * time.Second); len(started) < 2 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		text, _ := os.ReadFile(pids)
		started = strings.Fields(string(text))
	}
	if len(started) < 2 {
		t.Fatal("the process did not start")
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Get ended with %v", err)
	}
	start := time.Now()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("Close took %v", took)
	}
	for _, pid := range started {
		n, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatal(err)
		}
		alive := func() bool {
			return exec.Command("/bin/sh", "-c", fmt.Sprintf("kill -0 %d 2>/dev/null && ! grep -q '^State:.Z' /proc/%d/status", n, n)).Run() == nil
		}
		for deadline := time.Now().Add(5 * time.Second); alive() && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		}
		if alive() {
			t.Errorf("process %d is left behind", n)
		}
	}
}

// TestProcessAnswers has a credential_process that prints no credentials.
func TestProcessAnswers(t *testing.T) {
	p := mototest.Alone(t)
	for name, printed := range map[string]string{
		"nothing": "", "no JSON": textCanary, "another version": `{"Version":2,"AccessKeyId":"A","SecretAccessKey":"canary"}`,
		"no key": `{"Version":1,"AccessKeyId":"A"}`, "expired": `{"Version":1,"AccessKeyId":"A","SecretAccessKey":"canary","Expiration":"2001-01-01T00:00:00Z"}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := home(t, "", "")
			answer := filepath.Join(dir, "answer")
			write(t, answer, printed)
			write(t, filepath.Join(dir, "config"), "[profile process]\nregion = eu-west-1\ncredential_process = /bin/cat "+answer+"\n")
			_, err := open(t, awssm.Config{Profile: "process", Endpoint: p.URL}).Get(t.Context(), backend.Request{ID: "s"})
			fails(t, err, backend.CodeAuthRequired, "credential_process")
		})
	}
}

// keys is a source of access keys that rotates when one is rejected.
type keys struct {
	mu       sync.Mutex
	n        int
	gets     int
	rejected []string
	err      error
}

func (k *keys) source(form string) backend.Source {
	return backend.NewSource(func(context.Context) (backend.Secret, string, error) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.gets++
		return backend.NewSecretString(fmt.Sprintf(form, k.n)), fmt.Sprint("rev", k.n), k.err
	}, func(revision string) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.rejected = append(k.rejected, revision)
		k.n++
	})
}

func TestKeyFromAnotherProvider(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	create(t, p, "s", "x")
	var ids, secrets keys
	c := basic(p)
	c.AccessKeyID, c.SecretAccessKey = ids.source("AKIA%d"), secrets.source("canary%d")
	b := open(t, c)
	get(t, b, "s", "")
	get(t, b, "s", "")
	if ids.gets != 1 || lastSigner(t, p) != "AKIA0" {
		t.Errorf("the source was asked %d times for one login", ids.gets)
	}
	p.Fail("GetSecretValue", mototest.Refuse(400, "UnrecognizedClientException", textCanary))
	get(t, b, "s", "")
	if fmt.Sprint(ids.rejected, secrets.rejected) != "[rev0] [rev0]" || lastSigner(t, p) != "AKIA1" {
		t.Errorf("rejected %v and %v, signed with %s", ids.rejected, secrets.rejected, lastSigner(t, p))
	}
	p.Reset()
	p.Fail("GetSecretValue", mototest.Times(2, mototest.Refuse(400, "InvalidSignatureException", textCanary))...)
	_, err := b.Get(t.Context(), backend.Request{ID: "s"})
	fails(t, err, backend.CodeAuthRequired, "check access_key_id")
	if n := len(p.All()); n != 2 {
		t.Errorf("%d calls with keys that are refused, want one repeat", n)
	}
	get(t, b, "s", "")

	// What the other provider says is told, but not as if it were about the secret asked for.
	for code, want := range map[backend.Code]backend.Code{
		backend.CodeNotFound: backend.CodeAuthRequired, backend.CodeLocked: backend.CodeLocked,
		backend.CodeUnavailable: backend.CodeUnavailable, backend.CodeTimeout: backend.CodeUnavailable, backend.CodeDenied: backend.CodeDenied,
	} {
		bad := keys{err: backend.Errorf(code, "the reason there")}
		c.SecretAccessKey = bad.source("%d")
		_, err := open(t, c).Get(t.Context(), backend.Request{ID: "s"})
		fails(t, err, want, "secret_access_key could not be read: the reason there")
	}
	foreign := keys{err: fmt.Errorf("canary")}
	c.SecretAccessKey = foreign.source("%d")
	_, err = open(t, c).Get(t.Context(), backend.Request{ID: "s"})
	fails(t, err, backend.CodeInternal, "secret_access_key")
	c.SecretAccessKey = backend.Literal(backend.NewSecretString(""))
	_, err = open(t, c).Get(t.Context(), backend.Request{ID: "s"})
	fails(t, err, backend.CodeAuthRequired, "secret_access_key is empty")
}

func TestSlowSourceEndsWithTheCaller(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	defer close(release)
	c := basic(mototest.Alone(t))
	c.AccessKeyID = backend.NewSource(func(context.Context) (backend.Secret, string, error) {
		<-release
		return backend.NewSecretString("AKIA"), "", nil
	}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := open(t, c).Get(ctx, backend.Request{ID: "s"})
	fails(t, err, backend.CodeTimeout)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("returned after %v", took)
	}
}

// role are the settings of a provider that assumes a role at p.
func role(p *mototest.Proxy) awssm.Config {
	c := basic(p)
	c.STSEndpoint, c.RoleARN = p.URL, "arn:aws:iam::"+p.Account+":role/reader"
	if p.Account == "" {
		c.RoleARN = "arn:aws:iam::123456789012:role/reader"
	}
	return c
}

func TestRole(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	create(t, p, "s", "x")
	c := role(p)
	var ids keys
	c.AccessKeyID, c.ExternalID, c.SessionName, c.SessionDuration = ids.source("AKIA%d"), "ext:1", "sess", time.Hour
	b := open(t, c)
	var wg sync.WaitGroup
	var failed atomic.Int64
	for range 32 {
		wg.Go(func() {
			if _, err := b.Get(t.Context(), backend.Request{ID: "s"}); err != nil {
				failed.Add(1)
			}
		})
	}
	wg.Wait()
	assumed := p.Calls("AssumeRole")
	if failed.Load() > 0 || len(assumed) != 1 {
		t.Fatalf("32 first calls: %d failed, %d logins", failed.Load(), len(assumed))
	}
	for _, part := range []string{"ExternalId=ext%3A1", "RoleSessionName=sess", "DurationSeconds=3600", "role%2Freader"} {
		if !strings.Contains(assumed[0].Body, part) {
			t.Errorf("the login lacks %s", part)
		}
	}
	before := lastSigner(t, p)
	if signer(assumed[0]) != "AKIA0" || !strings.HasPrefix(before, "ASIA") {
		t.Errorf("assumed as %s, read as %s", signer(assumed[0]), before)
	}
	// A session that AWS ends early is replaced; the key that it was made with is not to blame.
	p.Fail("GetSecretValue", mototest.Refuse(400, "ExpiredTokenException", textCanary))
	get(t, b, "s", "")
	if lastSigner(t, p) == before || len(ids.rejected) > 0 {
		t.Errorf("read again as %s, rejected %v", lastSigner(t, p), ids.rejected)
	}
	// A key that STS refuses is.
	p.Fail("GetSecretValue", mototest.Refuse(400, "ExpiredTokenException", textCanary))
	p.Fail("AssumeRole", mototest.RefuseXML(403, "InvalidClientTokenId", textCanary))
	_, err := b.Get(t.Context(), backend.Request{ID: "s"})
	fails(t, err, backend.CodeAuthRequired, "assuming arn:aws:iam::")
	if fmt.Sprint(ids.rejected) != "[rev0]" {
		t.Errorf("rejected %v", ids.rejected)
	}
	get(t, b, "s", "")
	assumed = p.Calls("AssumeRole")
	if last := assumed[len(assumed)-1]; signer(last) != "AKIA1" {
		t.Errorf("assumed as %s", signer(last))
	}
}

func TestRoleIsRefused(t *testing.T) {
	t.Parallel()
	p := mototest.Alone(t)
	b := open(t, role(p))
	for _, tt := range []struct {
		name  string
		fault mototest.Fault
		code  backend.Code
		calls int
		tells string
	}{
		{"denied", mototest.RefuseXML(403, "AccessDenied", textCanary), backend.CodeDenied, 1, "trust policy"},
		{"unknown key", mototest.RefuseXML(403, "InvalidClientTokenId", textCanary), backend.CodeAuthRequired, 2, "does not know these credentials"},
		{"bad signature", mototest.RefuseXML(403, "SignatureDoesNotMatch", textCanary), backend.CodeAuthRequired, 2, ""},
		{"expired", mototest.RefuseXML(403, "ExpiredToken", textCanary), backend.CodeAuthRequired, 2, "expired"},
		{"settings", mototest.RefuseXML(400, "ValidationError", textCanary), backend.CodeInvalidConfig, 1, "does not accept its settings"},
		{"throttled", mototest.RefuseXML(400, "Throttling", textCanary), backend.CodeThrottled, 1, "too many calls"},
		{"down", mototest.Raw(503, "text/html", textCanary), backend.CodeUnavailable, 1, "503"},
		{"garbage", mototest.Raw(200, "text/html", "<html>"+textCanary), backend.CodeUnavailable, 1, ""},
		{"cut", mototest.LoseAnswer, backend.CodeUnavailable, 1, "the connection ended"},
	} {
		p.Reset()
		p.Fail("AssumeRole", mototest.Times(tt.calls, tt.fault)...)
		_, err := b.Get(t.Context(), backend.Request{ID: "s"})
		t.Run(tt.name, func(t *testing.T) { fails(t, err, tt.code, "assuming arn:aws:iam::123456789012:role/reader", tt.tells) })
		if n := len(p.All()); n != tt.calls {
			t.Errorf("%s: %d calls, want %d", tt.name, n, tt.calls)
		}
	}
	p.Fail("AssumeRole", mototest.Hang)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := b.Get(ctx, backend.Request{ID: "s"})
	fails(t, err, backend.CodeTimeout)
}

func TestClockThatIsOff(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	create(t, p, "s", "x")
	b := open(t, basic(p))
	get(t, b, "s", "")
	p.Reset()
	theirs := time.Now().Add(3 * time.Hour).UTC()
	p.Fail("GetSecretValue", mototest.Refuse(400, "InvalidSignatureException", textCanary, "Date", theirs.Format(http.TimeFormat)))
	get(t, b, "s", "")
	calls := p.Calls("GetSecretValue")
	signed, err := time.Parse("20060102T150405Z", calls[len(calls)-1].Header.Get("X-Amz-Date"))
	if err != nil || len(calls) != 2 || signed.Sub(theirs).Abs() > time.Minute {
		t.Errorf("%d calls, the last signed at %v, when it was %v for AWS: %v", len(calls), signed, theirs, err)
	}
}
