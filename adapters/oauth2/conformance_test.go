package oauth2_test

import (
	"net/url"
	"testing"

	"go.uber.org/goleak"

	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
	"github.com/credresolve/credresolve/internal/conformancetest"
	"github.com/credresolve/credresolve/internal/oidctest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The store makes the tokens: none can be put there, and the rules about values do not apply.
func TestConformance(t *testing.T) {
	p := oidctest.Start(t, oidctest.Options{})
	server, err := url.Parse(p.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	conformancetest.Run(t, "oauth2", conformance.Harness{
		Open: func(t conformance.T, dial *conformance.Dialer) backend.Backend {
			at := p.Issuer
			if dial != nil {
				at = "http://" + dial.Through(server.Host) + "/"
			}
			b, err := oauth2.New(oauth2.Config{
				Endpoints: oauth2.Endpoints{Token: at + "oauth/token"}, Grant: "client_credentials",
				ClientID: oidctest.Robot, ClientSecret: secret(oidctest.RobotSecret),
			}, backend.Host{})
			if err != nil {
				t.Fatalf("opening: %v", err)
			}
			return b
		},
		InvalidIDs: []string{"", "other", "a/b", "DEFAULT", "a\x00"},
		Secrets:    [][]byte{[]byte(oidctest.RobotSecret)},
	})
}
