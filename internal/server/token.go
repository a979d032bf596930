package server

import (
	"time"

	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/internal/listen"
)

const badTokenPause = 2 * time.Second

// tokens are the named tokens of the configuration. They are read when the sidecar starts and at each reload.
type tokens map[string][]byte

func readTokens(s config.Serve) (tokens, error) {
	out := tokens{}
	for name, path := range s.Tokens {
		token, err := listen.Token(path)
		if err != nil {
			return nil, err
		}
		out[name] = token
	}
	return out, nil
}

// name gives the name of the token that was presented at d, empty for none: config.OwnerName for d's own. Every token is
// compared, whichever fits.
func (t tokens) name(token []byte, d *door) string {
	found := ""
	for name, own := range t {
		if listen.Equal(own, token) {
			found = name
		}
	}
	if d.token != nil && listen.Equal(d.token, token) {
		found = config.OwnerName
	}
	return found
}
