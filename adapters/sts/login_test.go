package sts_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/sts"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/mototest"
)

func enter(code string) map[string]backend.Secret {
	return map[string]backend.Secret{"code": backend.NewSecretString(code)}
}

func TestLoginByCode(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	c := basic(p)
	c.MFASerial, c.Roles = device, map[string]sts.Role{"deploy": {RoleARN: reader}}
	b := open(t, c)
	if !b.Describe().Login {
		t.Error("no login is announced")
	}
	req := backend.Request{ID: "deploy"}
	_, err := b.Get(t.Context(), req)
	fails(t, err, backend.CodeAuthRequired, "credresolve login")
	s, err := b.StartLogin(t.Context(), req, backend.LoginOptions{})
	if err != nil || s.Status != backend.LoginPending || len(s.Fields) != 1 || s.Fields[0].Name != "code" || !strings.Contains(s.Fields[0].Help, device) {
		t.Fatalf("%+v, %v", s, err)
	}
	for _, slip := range []string{"", "12345", "1234567", "c4nary"} {
		_, err = b.SubmitLogin(t.Context(), s.State, enter(slip))
		fails(t, err, backend.CodeUsage, "")
	}
	if calls := len(p.Calls("AssumeRole")); calls != 0 {
		t.Errorf("%d calls for codes that are none", calls)
	}
	s, err = b.SubmitLogin(t.Context(), s.State, enter(" 654321\n"))
	if err != nil || s.Status != backend.LoginSuccess || s.Grant == nil || !s.Grant.Refresh.IsZero() {
		t.Fatalf("%+v, %v", s, err)
	}
	if f := form(t, p, "AssumeRole", 0); f.Get("TokenCode") != "654321" || f.Get("SerialNumber") != device || f.Get("RoleArn") != reader {
		t.Errorf("assumed with %v", f)
	}
	if got := s.Grant; got.Credential.Type != backend.TypeAWS || time.Until(got.Credential.Expires) < 50*time.Minute ||
		got.About["mfa_serial"] != device || !strings.Contains(got.About["arn"], "assumed-role/reader") {
		t.Errorf("%+v", got)
	}
	if err := b.ProbeCredential(t.Context(), req, s.Grant.Credential); err != nil {
		t.Errorf("in force: %v", err)
	}
	p.Fail("GetCallerIdentity", mototest.RefuseXML(403, "ExpiredToken", canary))
	fails(t, b.ProbeCredential(t.Context(), req, s.Grant.Credential), backend.CodeExpired, "")
}

// A code that AWS refuses is spent, and ends the login.
func TestLoginByRefusedCode(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	c := basic(p)
	c.MFASerial = device
	b := open(t, c)
	req := backend.Request{ID: "session"}
	s, err := b.StartLogin(t.Context(), req, backend.LoginOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.Fail("GetSessionToken", mototest.RefuseXML(403, "AccessDenied", "MultiFactorAuthentication failed "+canary))
	s, err = b.SubmitLogin(t.Context(), s.State, enter("123456"))
	if err != nil || s.Status != backend.LoginError || !strings.Contains(s.Message, "one-time code") || strings.Contains(s.Message, canary) || s.Grant != nil {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err = b.StartLogin(t.Context(), req, backend.LoginOptions{}); err != nil {
		t.Fatal(err)
	}
	p.Fail("GetSessionToken", mototest.Raw(503, "text/html", canary))
	_, err = b.SubmitLogin(t.Context(), s.State, enter("123456"))
	fails(t, err, backend.CodeUnavailable, "the next code")
	if err := b.CancelLogin(t.Context(), s.State); err != nil {
		t.Error(err)
	}
	if s, err := b.PollLogin(t.Context(), s.State); err != nil || s.Status != backend.LoginCancelled {
		t.Errorf("%+v, %v", s, err)
	}
	_, err = b.StartLogin(t.Context(), backend.Request{ID: "nobody"}, backend.LoginOptions{})
	fails(t, err, backend.CodeNotFound, "")
	c.MFASerial = ""
	if _, err := open(t, c).StartLogin(t.Context(), req, backend.LoginOptions{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("without a device: %v", err)
	}
}
