package server

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/resolver"
)

// What metrics call the path of container credentials.
const containerPath = "/v1/credentials/{role}"

// refreshHint is when an SDK is to ask again for a credential without an end. All SDKs want one: botocore fails without, and
// asks at each request within the last 15 minutes.
const refreshHint = 30 * time.Minute

// container answers as the endpoint does from which AWS SDKs take the credentials of a container.
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
type container struct {
	s     *Server
	roles []route
}

func newContainer(s *Server) http.Handler {
	return &container{s: s, roles: reads((*Server).containerGet)}
}

func (c *container) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/v1/credentials/") {
		c.s.answer(w, r, &containerProtocol, c.roles, containerPath)
		return
	}
	c.s.answer(w, r, &containerProtocol, nil, otherPath)
}

var containerProtocol = protocol{
	token: func(r *http.Request) (string, error) { return bearer(r), nil },
	fail:  containerFail,
}

func containerFail(req *request, err error) {
	code := backend.CodeOf(err)
	status, text := code.HTTPStatus(), err.Error()
	var own *badRequest
	switch {
	case errors.As(err, &own) && own.status == http.StatusNotFound:
		status, code, text = own.status, backend.CodeNotFound, "credresolve answers GET /v1/credentials/ROLE here"
	case errors.As(err, &own):
		status = own.status
	case req.caller == nil && code == backend.CodeAuthRequired:
		text = "the request has no valid token; set AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE to the file that serve.container_credentials.token_file names"
	}
	out, _ := json.Marshal(struct {
		Code    backend.Code `json:"code"`
		Message string       `json:"message"`
	}{code, text})
	req.write(status, out)
}

func (s *Server) containerGet(req *request) {
	role := strings.TrimPrefix(req.r.URL.Path, "/v1/credentials/")
	ref, known := req.state.serve.ContainerCredentials.Roles[role]
	if !known {
		req.fail(&backend.Error{Code: backend.CodeNotFound, Reason: "there is no such role", Remedy: "see serve.container_credentials.roles"})
		return
	}
	v, err := s.one(req, ref, resolver.Demand{})
	if err != nil {
		req.fail(err)
		return
	}
	c, err := awsCredential(v)
	if err == nil {
		err = c.check(time.Now())
	}
	if err != nil {
		req.fail(err)
		return
	}
	need := 256
	for _, m := range c.members() {
		need += wireLen(m.secret)
	}
	out := append(slices.Grow(req.out[:0], need), '{')
	for _, m := range c.members() {
		if m.secret.IsZero() {
			continue
		}
		_ = m.secret.Use(func(b []byte) error {
			out = backend.AppendJSONString(append(append(append(out, '"'), m.name...), `":`...), b)
			return nil
		})
		out = append(out, ',')
	}
	out = append(out, `"Expiration":"`...)
	out = c.expires.UTC().AppendFormat(out, time.RFC3339)
	req.out = append(out, "\"}\n"...)
	req.write(http.StatusOK, req.out)
}

// awsKeys is a credential of AWS as the endpoint gives it.
type awsKeys struct {
	id, key, token, role, account backend.Secret
	expires                       time.Time
}

type awsMember struct {
	name   string
	secret backend.Secret
}

func (c *awsKeys) members() []awsMember {
	return []awsMember{{"AccessKeyId", c.id}, {"SecretAccessKey", c.key}, {"Token", c.token}, {"RoleArn", c.role}, {"AccountId", c.account}}
}

// awsNames are what stores call the parts of a credential of AWS: credresolve and credential files, Vault's engine, AWS's own
// answers. Of several the first counts.
var awsNames = struct{ id, key, token, role, account, expires []string }{
	id:      []string{"access_key_id", "access_key", "AccessKeyId", "aws_access_key_id", "AWS_ACCESS_KEY_ID", "accessKeyId"},
	key:     []string{"secret_access_key", "secret_key", "SecretAccessKey", "aws_secret_access_key", "AWS_SECRET_ACCESS_KEY", "secretAccessKey"},
	token:   []string{"session_token", "security_token", "SessionToken", "aws_session_token", "AWS_SESSION_TOKEN", "sessionToken", "Token"},
	role:    []string{"role_arn", "RoleArn", "roleArn"},
	account: []string{"account_id", "AccountId", "aws_account_id", "accountId"},
	expires: []string{"expiration", "Expiration"},
}

var errNoAWSFields = &backend.Error{
	Code: backend.CodeUnsupported, Reason: "the secret is no credential of AWS",
	Remedy: "it needs the fields access_key_id and secret_access_key",
}

// awsCredential finds the parts of a credential of AWS in v.
func awsCredential(v *resolver.Value) (*awsKeys, error) {
	fields := v.Fields()
	if len(fields) == 0 { // such as one member of a document, which is an object itself
		_ = v.Secret().Use(func(b []byte) error {
			fields, _ = backend.FieldsFromJSON(b)
			return nil
		})
	}
	maps.DeleteFunc(fields, func(_ string, s backend.Secret) bool { // Vault has null for no token
		return s.IsJSON() && s.Equal(backend.NewJSONSecret([]byte("null"))) || s.Len() == 0
	})
	if err := allText(fields); err != nil {
		return nil, err
	}
	first := func(names []string) backend.Secret {
		for _, name := range names {
			if s, ok := fields[name]; ok {
				return s
			}
		}
		return backend.Secret{}
	}
	c := &awsKeys{
		id: first(awsNames.id), key: first(awsNames.key), token: first(awsNames.token), role: first(awsNames.role), account: first(awsNames.account),
		expires: v.Expires(),
	}
	if c.id.IsZero() || c.key.IsZero() {
		return nil, errNoAWSFields
	}
	if c.token.IsZero() {
		c.token = backend.NewSecret(nil) // botocore fails without the member
	}
	if end := first(awsNames.expires); !end.IsZero() {
		at, err := time.Parse(time.RFC3339, string(end.Reveal()))
		if err != nil {
			return nil, backend.Errorf(backend.CodeUnsupported, "the credential's expiration is no time as RFC 3339 has it")
		}
		if c.expires.IsZero() || at.Before(c.expires) {
			c.expires = at
		}
	}
	return c, nil
}

// check fails for a credential that has ended, and gives one without an end a time to ask again.
func (c *awsKeys) check(now time.Time) error {
	switch {
	case c.expires.IsZero():
		c.expires = now.Add(refreshHint)
	case !c.expires.After(now):
		return backend.Errorf(backend.CodeExpired, "the credential has ended")
	}
	return nil
}
