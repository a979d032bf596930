package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
)

// serviceAccountToken is where Kubernetes puts the token of a pod.
const serviceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// method is what differs between the ways to log in.
type method struct {
	takes  []string // the settings of Auth that it uses, beside method
	needs  []string // those of them that must be set
	remedy string   // what to do when the login is refused
	// static: there is no login, the token is handed over.
	static bool
	// path is where to log in, below auth/<mount>/.
	path func(Auth) string
	// payload is what to send, and what to call when the server refuses it.
	payload func(context.Context, *Backend) (map[string]backend.Secret, func(), error)
}

// methods are the ways to log in. The remedies name what a person does; they are shown when a login was refused.
func methods() map[string]method {
	return map[string]method{
		"token": {static: true, takes: []string{"token"},
			remedy: "run: vault login, or set VAULT_TOKEN or auth.token"},
		"token_file": {static: true, takes: []string{"token_file"}, needs: []string{"token_file"},
			remedy: "see that the agent that writes auth.token_file is running"},
		"none": {static: true,
			remedy: "see that the agent at address logs in by itself, and that it lets its token be used (use_auto_auth_token)"},
		"approle": {takes: []string{"mount", "role_id", "secret_id", "secret_id_wrapped"}, needs: []string{"role_id"},
			remedy:  "issue a new secret id with: vault write -f auth/<mount>/role/<role>/secret-id",
			path:    func(Auth) string { return "login" },
			payload: appRolePayload},
		"userpass": {takes: []string{"mount", "username", "password"}, needs: []string{"username", "password"},
			remedy:  "correct auth.username or auth.password",
			path:    func(a Auth) string { return "login/" + a.Username },
			payload: userpassPayload},
		"kubernetes": {takes: []string{"mount", "role", "jwt", "jwt_file"}, needs: []string{"role"},
			remedy:  "see that the role is bound to this service account and namespace",
			path:    func(Auth) string { return "login" },
			payload: jwtPayload},
		"jwt": {takes: []string{"mount", "role", "jwt", "jwt_file"},
			remedy:  "see that the token is fresh, and that the role takes its audience and subject",
			path:    func(Auth) string { return "login" },
			payload: jwtPayload},
		"cert": {takes: []string{"mount", "role"},
			remedy:  "see that tls.client_cert is valid, and known to the auth method",
			path:    func(Auth) string { return "login" },
			payload: certPayload},
	}
}

func (a Auth) method() string {
	if a.Method == "" {
		return "token"
	}
	return a.Method
}

func (a Auth) mount() string {
	if m := strings.Trim(a.Mount, "/"); m != "" {
		return m
	}
	return a.method()
}

// validate reports a method that does not exist, and settings that the method lacks or does not use.
func (a Auth) validate(hasCertificate bool) error {
	m, ok := methods()[a.method()]
	if !ok {
		names := slices.Sorted(maps.Keys(methods()))
		e := backend.Errorf(backend.CodeInvalidConfig, "auth.method is %q; the methods are %s", a.Method, strings.Join(names, ", "))
		if near := backend.Nearest(a.Method, names); near != "" {
			e.Remedy = fmt.Sprintf("did you mean %q?", near)
		}
		return e
	}
	set := []struct {
		name string
		is   bool
	}{
		{"mount", a.Mount != ""}, {"token", !a.Token.IsZero()}, {"token_file", a.TokenFile != ""}, {"role_id", a.RoleID != ""},
		{"secret_id", !a.SecretID.IsZero()}, {"secret_id_wrapped", a.SecretIDWrapped}, {"username", a.Username != ""},
		{"password", !a.Password.IsZero()}, {"role", a.Role != ""}, {"jwt", !a.JWT.IsZero()}, {"jwt_file", a.JWTFile != ""},
	}
	for _, s := range set {
		switch {
		case s.is && !slices.Contains(m.takes, s.name):
			return backend.Errorf(backend.CodeInvalidConfig, "auth.%s is set, which method %s does not use", s.name, a.method())
		case !s.is && slices.Contains(m.needs, s.name):
			return backend.Errorf(backend.CodeInvalidConfig, "auth.%s is missing, which method %s needs", s.name, a.method())
		}
	}
	switch {
	case !validPath(a.mount()):
		return backend.Errorf(backend.CodeInvalidConfig, "auth.mount is not a path")
	case a.Username != "" && (!validPath(a.Username) || strings.Contains(a.Username, "/")):
		return backend.Errorf(backend.CodeInvalidConfig, "auth.username is not a name")
	case a.SecretIDWrapped && a.SecretID.IsZero():
		return backend.Errorf(backend.CodeInvalidConfig, "auth.secret_id_wrapped is set without auth.secret_id")
	case !a.JWT.IsZero() && a.JWTFile != "":
		return backend.Errorf(backend.CodeInvalidConfig, "auth.jwt and auth.jwt_file exclude one another")
	case a.method() == "jwt" && a.JWT.IsZero() && a.JWTFile == "":
		return backend.Errorf(backend.CodeInvalidConfig, "auth.jwt or auth.jwt_file is missing, which method jwt needs")
	case a.method() == "cert" && !hasCertificate:
		return backend.Errorf(backend.CodeInvalidConfig, "tls.client_cert and tls.client_key are missing, which method cert needs")
	}
	return nil
}

// authError is the error of a login that was refused.
func (b *Backend) authError(reason string) *backend.Error {
	return &backend.Error{Code: backend.CodeAuthRequired, Reason: b.target + ": " + reason, Remedy: methods()[b.settings.Auth.method()].remedy}
}

// sourceError is the error of a secret setting that could not be had. A secret that is missing there is not the one
// that the caller asked for: it must read as a login that is missing, not as not found.
func (b *Backend) sourceError(setting string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var e *backend.Error
	if !errors.As(err, &e) {
		return b.authError("auth." + setting + " could not be had")
	}
	out := *e
	out.Reason = "auth." + setting + ": " + (&backend.Error{Code: e.Code, Reason: e.Reason}).Error()
	switch e.Code {
	case backend.CodeUnavailable, backend.CodeThrottled, backend.CodeLocked, backend.CodeAuthRequired:
	default:
		out.Code = backend.CodeAuthRequired
	}
	return &out
}

// secret asks a setting for its secret, which must not be blank, and gives what to call when the server refuses it.
func (b *Backend) secret(ctx context.Context, setting string, s backend.Source) (backend.Secret, func(), error) {
	value, revision, err := s.Get(ctx)
	if err != nil {
		return backend.Secret{}, nil, b.sourceError(setting, err)
	}
	return value, func() { s.Reject(revision) }, b.usable(setting, value)
}

// usable reports a secret that cannot be sent: it is blank, or no text.
func (b *Backend) usable(setting string, s backend.Secret) error {
	return s.Use(func(text []byte) error {
		switch {
		case len(bytes.TrimSpace(text)) == 0:
			return b.authError("auth." + setting + " is blank")
		case !utf8.Valid(text):
			return b.authError("auth." + setting + " is not text")
		}
		return nil
	})
}

// trimmed is s without the white space around it, which files and prompts leave behind.
func trimmed(s backend.Secret) backend.Secret {
	var out backend.Secret
	_ = s.Use(func(text []byte) error { out = backend.NewSecret(bytes.TrimSpace(text)); return nil })
	return out
}

// fromFile reads the secret in a file of the settings. The file may be replaced at any time, be a link, and be readable
// to a group, as the sinks of agents and the projections of Kubernetes are.
func (b *Backend) fromFile(setting, path string) (backend.Secret, error) {
	const limit = 64 << 10
	path = b.settings.path(path)
	fail := func(reason string) (backend.Secret, error) {
		return backend.Secret{}, b.authError("auth." + setting + " " + path + ": " + reason)
	}
	// A pipe would block the open for good.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fail("it is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(fileReason(err, ""))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	defer clear(text)
	switch {
	case err != nil:
		return fail(fileReason(err, ""))
	case len(text) > limit:
		return fail("it is larger than 64 KiB")
	}
	s := backend.NewSecret(bytes.TrimSpace(text))
	return s, b.usable(setting, s)
}

// token finds the token of the static methods, and gives what to call when the server refuses it.
func (b *Backend) token(ctx context.Context) (backend.Secret, func(), error) {
	s, reject, err := b.findToken(ctx)
	if err != nil {
		return backend.Secret{}, nil, err
	}
	// It goes into a header, which takes no more than that.
	return s, reject, s.Use(func(token []byte) error {
		if bytes.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return b.authError("what stands in the place of the token is not a token")
		}
		return nil
	})
}

func (b *Backend) findToken(ctx context.Context) (backend.Secret, func(), error) {
	a := b.settings.Auth
	nothing := func() {}
	switch {
	case a.method() == "none":
		return backend.NewSecret(nil), nothing, nil
	case a.method() == "token_file":
		s, err := b.fromFile("token_file", a.TokenFile)
		return s, nothing, err
	case !a.Token.IsZero():
		s, reject, err := b.secret(ctx, "token", a.Token)
		return trimmed(s), reject, err
	}
	if v := b.settings.environ()("TOKEN"); v != "" {
		s := trimmed(backend.NewSecretString(v))
		return s, nothing, b.usable("token", s)
	}
	if home, err := b.settings.home(); err == nil {
		file := filepath.Join(home, ".vault-token")
		if _, err := os.Stat(file); err == nil {
			s, err := b.fromFile("token", file)
			return s, nothing, err
		}
	}
	return backend.Secret{}, nil, b.authError("there is no token: neither auth.token nor VAULT_TOKEN is set, nor is there a file ~/.vault-token")
}

func userpassPayload(ctx context.Context, b *Backend) (map[string]backend.Secret, func(), error) {
	password, reject, err := b.secret(ctx, "password", b.settings.Auth.Password)
	return map[string]backend.Secret{"password": password}, reject, err
}

func certPayload(_ context.Context, b *Backend) (map[string]backend.Secret, func(), error) {
	payload := map[string]backend.Secret{}
	if role := b.settings.Auth.Role; role != "" {
		payload["name"] = backend.NewSecretString(role)
	}
	return payload, func() {}, nil
}

func jwtPayload(ctx context.Context, b *Backend) (map[string]backend.Secret, func(), error) {
	a := b.settings.Auth
	payload := map[string]backend.Secret{}
	if a.Role != "" {
		payload["role"] = backend.NewSecretString(a.Role)
	}
	reject := func() {}
	var token backend.Secret
	var err error
	if a.JWT.IsZero() {
		file := a.JWTFile
		if file == "" {
			file = serviceAccountToken
		}
		token, err = b.fromFile("jwt_file", file)
	} else {
		token, reject, err = b.secret(ctx, "jwt", a.JWT)
	}
	payload["jwt"] = trimmed(token)
	return payload, reject, err
}

func appRolePayload(ctx context.Context, b *Backend) (map[string]backend.Secret, func(), error) {
	a := b.settings.Auth
	payload := map[string]backend.Secret{"role_id": backend.NewSecretString(a.RoleID)}
	if a.SecretID.IsZero() {
		return payload, func() {}, nil
	}
	secretID, reject, err := b.secret(ctx, "secret_id", a.SecretID)
	if err != nil {
		return nil, nil, err
	}
	secretID = trimmed(secretID)
	if a.SecretIDWrapped {
		if secretID, err = b.unwrapped.secretID(ctx, b, secretID); err != nil {
			if errors.Is(err, backend.ErrAuthRequired) {
				reject()
			}
			return nil, nil, err
		}
		rejectSource := reject
		reject = func() { b.unwrapped.forget(); rejectSource() }
	}
	payload["secret_id"] = secretID
	return payload, reject, nil
}

// unwrapped is the secret id that a wrapping token gave. A wrapping token yields it once only, so it is kept for the
// next login, until the server refuses it or the setting gives another wrapping token. Logins, which alone use it, do
// not overlap.
type unwrapped struct {
	from [sha256.Size]byte
	id   backend.Secret
}

func (u *unwrapped) forget() { *u = unwrapped{} }

func (u *unwrapped) secretID(ctx context.Context, b *Backend, wrapping backend.Secret) (backend.Secret, error) {
	var from [sha256.Size]byte
	_ = wrapping.Use(func(token []byte) error { from = sha256.Sum256(token); return nil })
	if !u.id.IsZero() && u.from == from {
		return u.id, nil
	}
	// Who intercepts a wrapping token can unwrap it and wrap something else, but not under the same creation path.
	body, err := jsonBody(map[string]backend.Secret{"token": wrapping})
	if err != nil {
		return backend.Secret{}, err
	}
	defer clear(body)
	const gone = "the wrapping token in auth.secret_id is not valid: it was used before, by somebody else if not by you, or is too old"
	var made struct {
		CreationPath string `json:"creation_path"`
	}
	if err := b.wrapping(ctx, "", "sys/wrapping/lookup", body, gone, &made); err != nil {
		return backend.Secret{}, err
	}
	if role := "auth/" + b.settings.Auth.mount() + "/role/"; !strings.Contains("/"+made.CreationPath, "/"+role) ||
		!strings.HasSuffix(made.CreationPath, "secret-id") {
		return backend.Secret{}, b.authError("the wrapping token in auth.secret_id was not made for a secret id of " + role)
	}
	var data struct {
		SecretID json.RawMessage `json:"secret_id"`
	}
	if err := b.wrapping(ctx, string(wrapping.Reveal()), "sys/wrapping/unwrap", []byte("{}"), gone, &data); err != nil {
		return backend.Secret{}, err
	}
	defer clear(data.SecretID)
	if len(data.SecretID) == 0 {
		return backend.Secret{}, b.authError("the wrapping token in auth.secret_id wraps no secret id")
	}
	*u = unwrapped{from: from, id: backend.SecretFromJSON(data.SecretID)}
	return u.id, nil
}

// wrapping makes a call about a wrapping token, which is its own permission, and decodes the answer's data. Looking it up
// takes it in the body and no login, using it up takes it as the login.
func (b *Backend) wrapping(ctx context.Context, token, path string, body []byte, gone string, data any) error {
	client, err := b.newClient(token)
	if err != nil {
		return err
	}
	a, err := b.send(ctx, client, call{method: http.MethodPut, path: path, body: body})
	if err != nil {
		return err
	}
	defer a.wipe()
	if refused(a) {
		return b.authError(gone)
	}
	if err := b.failure(a, path); err != nil {
		return err
	}
	if json.Unmarshal(a.Data, data) != nil {
		return b.garbled(path)
	}
	return nil
}

// jsonBody is the JSON object of fields, which the caller should zero.
func jsonBody(fields map[string]backend.Secret) ([]byte, error) {
	for _, f := range fields {
		if err := f.Use(func(text []byte) error {
			if !utf8.Valid(text) {
				return errNoBinary
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	body, err := backend.FieldsToJSON(fields)
	if err != nil || !json.Valid(body) {
		return nil, backend.Errorf(backend.CodeInternal, "the fields could not be encoded")
	}
	return body, nil
}

// loginCall is the request that logs in.
func (b *Backend) loginCall(ctx context.Context) (call, func(), error) {
	a := b.settings.Auth
	m := methods()[a.method()]
	payload, reject, err := m.payload(ctx, b)
	if err != nil {
		return call{}, nil, err
	}
	body, err := jsonBody(payload)
	path := "auth/" + a.mount() + "/" + m.path(a)
	return call{method: http.MethodPut, path: path, query: url.Values{}, body: body, about: path}, reject, err
}
