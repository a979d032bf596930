package sts

import (
	"context"
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/credresolve/credresolve/backend"
)

var (
	_ backend.Login            = (*Backend)(nil)
	_ backend.CredentialProber = (*Backend)(nil)
)

const codeField = "code"

// asks reports whether a person has to enter a one-time code.
func (c Config) asks() bool { return c.MFASerial != "" && c.MFACode.IsZero() }

// StartLogin implements backend.Login where the caller has an MFA device and no source of its codes.
func (b *Backend) StartLogin(ctx context.Context, req backend.Request, _ backend.LoginOptions) (backend.LoginState, error) {
	if err := ctx.Err(); err != nil {
		return backend.LoginState{}, err
	}
	if !b.config.asks() {
		return backend.LoginState{}, errNotNeeded
	}
	if _, err := b.stepsOf(req); err != nil {
		return backend.LoginState{}, err
	}
	return b.logins.Start(req, []backend.LoginField{{
		Name: codeField, Label: "one-time code", Help: "six digits that the MFA device " + b.config.MFASerial + " shows",
	}})
}

// SubmitLogin implements backend.Login. AWS takes each code once: one that it refuses ends the login.
func (b *Backend) SubmitLogin(ctx context.Context, state string, input map[string]backend.Secret) (backend.LoginState, error) {
	return b.logins.Submit(ctx, state, input, func(ctx context.Context, req backend.Request, input map[string]backend.Secret) (*backend.Grant, error) {
		code := ""
		_ = input[codeField].Use(func(text []byte) error {
			code = strings.TrimSpace(string(text))
			return nil
		})
		if !isCode(code) {
			return nil, backend.Errorf(backend.CodeUsage, "the one-time code is not six digits")
		}
		c, err := b.get(ctx, req, code)
		if known := (*backend.Error)(nil); errors.As(err, &known) && known.Code.Retryable() {
			again := *known // AWS may have taken the code before the answer was lost
			again.Remedy = "try again with the next code that the device shows"
			return nil, &again
		}
		if err != nil {
			return nil, err
		}
		about := map[string]string{"mfa_serial": b.config.MFASerial}
		if arn := c.Metadata["arn"]; arn != "" {
			about["arn"] = arn
		}
		return &backend.Grant{Credential: c, About: about}, nil
	})
}

// PollLogin implements backend.Login.
func (b *Backend) PollLogin(_ context.Context, state string) (backend.LoginState, error) {
	return b.logins.Poll(state)
}

// CancelLogin implements backend.Login.
func (b *Backend) CancelLogin(_ context.Context, state string) error { return b.logins.Cancel(state) }

func isCode(s string) bool { return len(s) == 6 && strings.Trim(s, "0123456789") == "" }

// ProbeCredential implements backend.CredentialProber by GetCallerIdentity, which AWS lets every credential call.
func (b *Backend) ProbeCredential(ctx context.Context, _ backend.Request, have *backend.Credential) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var text [3]string
	for i, name := range []string{"access_key_id", "secret_access_key", "session_token"} {
		_ = have.Fields[name].Use(func(b []byte) error {
			text[i] = string(b)
			return nil
		})
	}
	ctx, done := b.within(ctx)
	defer done()
	s, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	s.options.Credentials = credentials.NewStaticCredentialsProvider(text[0], text[1], text[2])
	_, err = sts.New(s.options).GetCallerIdentity(ctx, nil)
	if err == nil {
		return nil
	}
	switch err := failure(ctx, err, "asking who the credential is of", false); backend.CodeOf(err) {
	case backend.CodeAuthRequired: // AWS does not know it any more
		return backend.Errorf(backend.CodeExpired, "AWS does not accept the credential any more")
	default:
		return err
	}
}
