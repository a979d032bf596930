package sts

import (
	"net/url"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/awsform"
)

// Config are the settings of a provider of kind sts.
type Config struct {
	// Region is the AWS region whose STS is asked, such as eu-west-1. Empty: AWS_REGION, or what the profile names.
	Region string `yaml:"region"`
	// Profile is the profile of ~/.aws/config to use. Empty: AWS_PROFILE, else the profile "default".
	Profile string `yaml:"profile"`
	// AccessKeyID is the id of an access key to sign with instead of the default chain. Empty: the default chain.
	AccessKeyID backend.Source `yaml:"access_key_id"`
	// SecretAccessKey belongs to AccessKeyID. Empty: the default chain.
	SecretAccessKey backend.Source `yaml:"secret_access_key"`
	// SessionToken belongs to an AccessKeyID that is temporary. Empty: the access key is a lasting one.
	SessionToken backend.Source `yaml:"session_token"`
	// WebIdentityToken is the JWT to assume the first role with, in place of credentials. Empty: none.
	WebIdentityToken backend.Source `yaml:"web_identity_token"`
	// WebIdentityTokenFile is a file that holds it, such as a Kubernetes service account's; it is read each time. Empty: none.
	WebIdentityTokenFile string `yaml:"web_identity_token_file"`
	// MFASerial is the serial number or ARN of the MFA device of the caller, which is then shown to assume the first role and
	// for "session". Empty: no MFA.
	MFASerial string `yaml:"mfa_serial"`
	// MFACode gives a one-time code of that device. AWS takes each code once. Empty: a person
	// enters one, by: credresolve login.
	MFACode backend.Source `yaml:"mfa_code"`
	// Duration is how long a session lasts unless its role says otherwise, 15m to 12h; 36h for "session". Zero: what AWS
	// takes, 1h for a role and 12h for "session".
	Duration time.Duration `yaml:"duration"`
	// SessionName names sessions in CloudTrail unless their role says otherwise. Empty: credresolve.
	SessionName string `yaml:"session_name"`
	// Roles are roles by name. Empty: roles are asked for by their ARN alone.
	Roles map[string]Role `yaml:"roles"`
	// Endpoint is the URL of STS, for a VPC endpoint or an emulator. Empty: the one of AWS for the region.
	Endpoint string `yaml:"endpoint"`
	// Timeout bounds one call to AWS. Zero: 30s.
	Timeout time.Duration `yaml:"timeout"`
}

// Role is a role, and how it is assumed.
type Role struct {
	// RoleARN is the ARN of the role. It must be set.
	RoleARN string `yaml:"role_arn"`
	// Via are the roles to assume before, the first one first: ARNs, or names of roles without via. Empty: the role is assumed
	// by the caller. AWS limits what is assumed by a role to 1h.
	Via []string `yaml:"via"`
	// SessionName names the session in CloudTrail. Empty: the provider's.
	SessionName string `yaml:"session_name"`
	// Duration is how long the session lasts, 15m to 12h, in a chain to 1h. Zero: the provider's, in a chain at most 1h.
	Duration time.Duration `yaml:"duration"`
	// ExternalID is what the role's trust policy wants. Empty: none is sent.
	ExternalID string `yaml:"external_id"`
	// Policy is a JSON policy that narrows what the session may do. Empty: the role's own.
	Policy string `yaml:"policy"`
	// PolicyARNs are managed policies that narrow it, at most 10. Empty: none.
	PolicyARNs []string `yaml:"policy_arns"`
	// Tags are session tags, at most 50. Empty: none.
	Tags map[string]string `yaml:"tags"`
	// TransitiveTags are keys of Tags that stay in the sessions of further roles. Empty: none.
	TransitiveTags []string `yaml:"transitive_tags"`
	// SourceIdentity is who stands behind the session; AWS keeps it throughout a chain. Empty: none is set.
	SourceIdentity string `yaml:"source_identity"`
}

const (
	idSession          = "session"
	defaultTimeout     = 30 * time.Second
	defaultSessionName = "credresolve"
	least              = 15 * time.Minute
	mostRole           = 12 * time.Hour
	mostSession        = 36 * time.Hour
	mostChained        = time.Hour
	nameMarks          = "_+=,.@-"
)

// web reports whether the first role is assumed with a web identity token.
func (c Config) web() bool { return !c.WebIdentityToken.IsZero() || c.WebIdentityTokenFile != "" }

// check tells the first thing that is wrong with c. No value is shown that could be a misplaced secret.
func (c Config) check() error {
	invalid := func(format string, args ...any) error {
		return backend.Errorf(backend.CodeInvalidConfig, format, args...)
	}
	switch {
	case c.Region != "" && !awsform.IsRegion(c.Region):
		return invalid("region is not the name of an AWS region, such as eu-west-1")
	case c.AccessKeyID.IsZero() != c.SecretAccessKey.IsZero():
		return invalid("access_key_id and secret_access_key belong together: set both or none")
	case !c.SessionToken.IsZero() && c.AccessKeyID.IsZero():
		return invalid("session_token needs access_key_id and secret_access_key")
	case !c.WebIdentityToken.IsZero() && c.WebIdentityTokenFile != "":
		return invalid("web_identity_token and web_identity_token_file exclude one another")
	case c.web() && (!c.AccessKeyID.IsZero() || c.MFASerial != ""):
		return invalid("a web identity token stands in place of access_key_id and mfa_serial: set one or the other")
	case c.MFASerial == "" && !c.MFACode.IsZero():
		return invalid("mfa_code needs mfa_serial")
	case c.MFASerial != "" && !awsform.IsText(c.MFASerial, 9, 256, "=/:,.@-_"):
		return invalid("mfa_serial is neither a serial number nor the ARN of an MFA device")
	case c.SessionName != "" && !awsform.IsText(c.SessionName, 2, 64, nameMarks):
		return invalid("session_name is not 2 to 64 letters, digits or any of _+=,.@-")
	case c.Duration != 0 && (c.Duration < least || c.Duration > mostSession):
		return invalid("duration is not within 15m and 36h")
	case c.Timeout < 0:
		return invalid("timeout is negative")
	}
	if u, err := url.Parse(c.Endpoint); c.Endpoint != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" ||
		u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		return invalid("endpoint is not a plain URL, such as https://host:port")
	}
	for name, r := range c.Roles {
		at := "roles." + name + ": "
		switch {
		case name == idSession || !awsform.IsText(name, 1, 64, nameMarks):
			return invalid("roles has a name that is %q, or not 1 to 64 letters, digits or any of %s", idSession, nameMarks)
		case !awsform.IsRole(r.RoleARN):
			return invalid("%srole_arn is not the ARN of a role, such as arn:aws:iam::123456789012:role/reader", at)
		case r.SessionName != "" && !awsform.IsText(r.SessionName, 2, 64, nameMarks):
			return invalid("%ssession_name is not 2 to 64 letters, digits or any of _+=,.@-", at)
		case r.Duration != 0 && (r.Duration < least || r.Duration > mostRole):
			return invalid("%sduration is not within 15m and 12h", at)
		case r.Duration > mostChained && len(r.Via) > 0:
			return invalid("%sduration is over 1h, to which AWS limits a role that another role assumes", at)
		case r.ExternalID != "" && !awsform.IsText(r.ExternalID, 2, 1224, "_+=,.@:/-"):
			return invalid("%sexternal_id is not 2 to 1,224 letters, digits or any of _+=,.@:/-", at)
		case r.SourceIdentity != "" && !awsform.IsText(r.SourceIdentity, 2, 64, nameMarks):
			return invalid("%ssource_identity is not 2 to 64 letters, digits or any of _+=,.@-", at)
		case len(r.Policy) > 2048 || len(r.PolicyARNs) > 10 || len(r.Tags) > 50:
			return invalid("%spolicy is over 2,048 characters, or there are over 10 policy_arns or 50 tags", at)
		}
		for _, key := range r.TransitiveTags {
			if _, ok := r.Tags[key]; !ok {
				return invalid("%stransitive_tags names a key that tags lacks", at)
			}
		}
		for _, via := range r.Via {
			hop, known := c.Roles[via]
			if !known && !awsform.IsRole(via) || len(hop.Via) > 0 {
				return invalid("%svia names what is neither the ARN of a role nor a role without via", at)
			}
		}
		if first := c.steps(r)[0]; c.web() && first.signed() {
			return invalid("%sexternal_id, tags and source_identity cannot be sent with a web identity token; the token carries them", at)
		}
	}
	return nil
}

// signed reports whether r has settings that AssumeRoleWithWebIdentity has no parameters for.
func (r Role) signed() bool { return r.ExternalID != "" || len(r.Tags) > 0 || r.SourceIdentity != "" }

// steps are the roles to assume for r, in order, with their durations and names filled in.
func (c Config) steps(r Role) []Role {
	var steps []Role
	for _, via := range r.Via {
		hop, known := c.Roles[via]
		if !known {
			hop = Role{RoleARN: via}
		}
		hop.Duration = 0 // it need live for the next step alone
		steps = append(steps, c.filled(hop, least))
	}
	most := mostRole
	if len(steps) > 0 {
		most = mostChained
	}
	return append(steps, c.filled(r, most))
}

func (c Config) filled(r Role, most time.Duration) Role {
	if r.Duration == 0 {
		r.Duration = min(c.Duration, most)
	}
	if r.SessionName == "" {
		r.SessionName = c.SessionName
	}
	if r.SessionName == "" {
		r.SessionName = defaultSessionName
	}
	return r
}

// Reach tells which addresses are called, and which files and variables of the user decide the rest.
func (c Config) Reach() []backend.Reach {
	at := c.Endpoint
	if at == "" {
		at = "AWS STS in the region of the environment"
		if c.Region != "" {
			at = "AWS STS in " + c.Region
		}
	}
	reach := []backend.Reach{
		{What: backend.ReachAddress, Value: at},
		{What: backend.ReachFile, Value: "~/.aws/config"},
		{What: backend.ReachFile, Value: "~/.aws/credentials"},
		{What: backend.ReachEnvironment, Value: "AWS_*"},
	}
	if c.WebIdentityTokenFile != "" {
		reach = append(reach, backend.Reach{What: backend.ReachFile, Value: c.WebIdentityTokenFile})
	}
	return reach
}

// Kind is the kind "sts" for a registry.
func Kind() backend.Kind {
	return backend.NewKind("sts", "AWS STS: temporary credentials of roles",
		func(c Config, h backend.Host) (backend.Backend, error) {
			b, err := New(c, h)
			if err != nil {
				return nil, err
			}
			return b, nil
		})
}
