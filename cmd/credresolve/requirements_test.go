package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/internal/oidctest"
)

// Scopes are those that an authorization server granted.
func TestRequiredScopes(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	u := newUser(t)
	u.write("robot", oidctest.RobotSecret)
	u.write("credresolve.yaml", fmt.Sprintf(`version: 1
providers:
  key: {kind: file, path: robot, mode: raw}
  idp:
    kind: oauth2
    endpoints: {token: %soauth/token}
    grant: client_credentials
    client_id: %s
    client_secret: {provider: key, id: value}
    scopes: [openid, profile]
`, strings.TrimSuffix(p.Issuer, "/")+"/", oidctest.Robot))
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"))
	u.write("has.yaml", "- {env: IDP_TOKEN, provider: idp, type: oauth2, scopes: [openid, profile]}\n")
	u.write("lacks.yaml", "- {env: IDP_TOKEN, provider: idp, type: oauth2, scopes: [openid, admin]}\n")
	if got := u.run("requirements", "has.yaml"); got.status != 0 || !strings.Contains(got.stdout, "ok") {
		t.Errorf("%+v", got)
	}
	if got := u.run("requirements", "lacks.yaml"); got.status != 5 || !strings.Contains(got.stdout, "unsupported: cred://idp/default lacks the scopes admin; ") {
		t.Errorf("%+v", got)
	}
	if got := u.run("run", "--requirements", "has.yaml", "--", "sh", "-c", `test -n "$IDP_TOKEN" && exit 4`); got.status != 4 {
		t.Errorf("%+v", got)
	}
	if got := u.run("run", "--requirements", "lacks.yaml", "--", "true"); got.status != statusNotRun || !strings.HasPrefix(got.stderr, "credresolve: lacks.yaml:1:4: IDP_TOKEN: cred://idp/default lacks the scopes admin; ") {
		t.Errorf("%+v", got)
	}
}
