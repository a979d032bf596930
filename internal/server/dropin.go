package server

import (
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// protocol is how clients of another server speak: how they show a token, and how they are told that a request failed. What
// lies between is the same for all listeners.
type protocol struct {
	// token gives the token that r brings, empty for none. An error is that of a request which lacks what the protocol wants
	// beside it.
	token func(r *http.Request) (string, error)
	// fail answers the request as a whole with err.
	fail func(req *request, err error)
}

// dropIns are the listeners for clients of other servers, those that are not configured without an address.
func (s *Server) dropIns(serve config.Serve) []extra {
	return []extra{
		{
			name: "aws_agent", address: serve.AWSAgent.Listen, tokenFile: serve.AWSAgent.TokenFile,
			consumer: func(now *config.Serve) string { return now.AWSAgent.Consumer }, handler: newAWSAgent(s),
		},
		{
			name: "vault", address: serve.Vault.Listen, tokenFile: serve.Vault.TokenFile,
			consumer: func(now *config.Serve) string { return now.Vault.Consumer }, handler: newVault(s),
		},
		{
			name: "container_credentials", address: serve.ContainerCredentials.Listen, tokenFile: serve.ContainerCredentials.TokenFile,
			consumer: func(now *config.Serve) string { return now.ContainerCredentials.Consumer }, handler: newContainer(s),
		},
	}
}

// dropInPaths are what metrics call the paths of the drop-ins.
func dropInPaths() []string {
	return []string{
		awsQueryPath, awsPathPath, awsPingPath,
		vaultSecretPath, vaultMountsPath, vaultTokenPath, vaultHealthPath, vaultSealPath,
		containerPath,
	}
}

// reads are the routes of a path that can be read alone.
func reads(handle func(*Server, *request)) []route {
	return []route{{method: http.MethodGet, handle: handle}}
}

// one resolves one ref for req's caller.
func (s *Server) one(req *request, ref credref.Ref, d resolver.Demand) (*resolver.Value, error) {
	answers, err := s.resolve(req, append(req.asks[:0], ask{ref: ref}), d)
	if err != nil {
		return nil, err
	}
	return answers[0].value, answers[0].err
}

// text answers with text for people.
func (req *request) text(status int, text string) {
	h := req.w.Header()
	h["Content-Type"] = []string{"text/plain; charset=utf-8"}
	h["Cache-Control"] = headerNoStore
	req.status = status
	req.w.WriteHeader(status)
	_, _ = req.w.Write([]byte(text))
}

// header gives a header that may stand once, empty where it does not or stands twice.
func header(r *http.Request, name string) string {
	if values := r.Header[name]; len(values) == 1 {
		return values[0]
	}
	return ""
}

// bearer gives the token in the header Authorization, after Bearer, or as it is.
func bearer(r *http.Request) string {
	value := header(r, "Authorization")
	if scheme, rest, ok := strings.Cut(value, " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(rest)
	}
	return value
}

// fieldsOf gives the fields of v where v is nothing beside them: its secret, if it has one, is what a ref to one secret of
// many selects, the only field or the field "value". It is nil of a secret that is a text of its own.
func fieldsOf(v *resolver.Value) map[string]backend.Secret {
	if !v.HasFields() {
		return nil
	}
	fields := v.Fields()
	selected, ok := fields["value"]
	if len(fields) == 1 {
		for _, s := range fields {
			selected, ok = s, true
		}
	}
	if v.Secret().IsZero() || ok && v.Secret().Equal(selected) {
		return fields
	}
	return nil
}

// errBinary is the error of what a text cannot hold.
var errBinary = &backend.Error{
	Code: backend.CodeUnsupported, Reason: "the secret has a value that is not UTF-8, which this protocol cannot carry",
	Remedy: "read it from the sidecar's own API",
}

// allText fails with errBinary unless every field is UTF-8.
func allText(fields map[string]backend.Secret) error {
	for _, s := range fields {
		if err := isText(s); err != nil {
			return err
		}
	}
	return nil
}

func isText(s backend.Secret) error {
	return s.Use(func(b []byte) error {
		if !utf8.Valid(b) {
			return errBinary
		}
		return nil
	})
}
