package awssm

import (
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/awsform"
)

// Config are the settings of a provider of kind awssm.
type Config struct {
	// Region is the AWS region, such as eu-west-1. Empty: AWS_REGION, or what the profile names.
	Region string `yaml:"region"`
	// Profile is the profile of ~/.aws/config to use; it outranks credentials in the environment. Empty: AWS_PROFILE, else
	// the profile "default".
	Profile string `yaml:"profile"`
	// AccessKeyID is the id of an access key to sign with instead of the default chain. Empty: the default chain.
	AccessKeyID backend.Source `yaml:"access_key_id"`
	// SecretAccessKey belongs to AccessKeyID. Empty: the default chain.
	SecretAccessKey backend.Source `yaml:"secret_access_key"`
	// SessionToken belongs to an AccessKeyID that is temporary. Empty: the access key is a lasting one.
	SessionToken backend.Source `yaml:"session_token"`
	// RoleARN is a role to assume with the credentials found. Empty: they are used themselves.
	RoleARN string `yaml:"role_arn"`
	// ExternalID is the external id that the role's trust policy wants. Empty: none is sent.
	ExternalID string `yaml:"external_id"`
	// SessionName names the role's session in CloudTrail. Empty: credresolve.
	SessionName string `yaml:"session_name"`
	// SessionDuration is how long the role's session lasts, 15m to 12h; it is renewed before its end. Zero: 15m.
	SessionDuration time.Duration `yaml:"session_duration"`
	// Endpoint is the URL of the Secrets Manager endpoint, for a VPC endpoint or an emulator. Empty: the one of AWS for
	// the region, or AWS_ENDPOINT_URL_SECRETS_MANAGER.
	Endpoint string `yaml:"endpoint"`
	// STSEndpoint is the URL of the STS endpoint that role_arn is assumed at. Empty: the one of AWS for the region.
	STSEndpoint string `yaml:"sts_endpoint"`
	// FIPS makes the endpoints of AWS FIPS 140 ones. False: what AWS_USE_FIPS_ENDPOINT or the profile says.
	FIPS bool `yaml:"fips"`
	// DualStack makes the endpoints of AWS reachable by IPv6 too. False: what AWS_USE_DUALSTACK_ENDPOINT or the profile
	// says.
	DualStack bool `yaml:"dual_stack"`
	// Timeout bounds one call to AWS. Zero: 30s.
	Timeout time.Duration `yaml:"timeout"`
	// KMSKeyID is the KMS key that encrypts secrets which put creates. Empty: the AWS managed key aws/secretsmanager.
	KMSKeyID string `yaml:"kms_key_id"`
	// RecoveryDays is how long a deleted secret can be restored, 7 to 30 days. Zero: 30 days.
	RecoveryDays int `yaml:"recovery_days"`
	// Filters narrow what list shows, as ListSecrets takes them: description, tag-key, tag-value, primary-region,
	// owning-service or all, each with the values to match. Empty: every secret is shown.
	Filters map[string][]string `yaml:"filters"`
}

const (
	defaultTimeout     = 30 * time.Second
	defaultSessionName = "credresolve"
)

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
	case c.RoleARN != "" && !awsform.IsRole(c.RoleARN):
		return invalid("role_arn is not the ARN of a role, such as arn:aws:iam::123456789012:role/reader")
	case c.RoleARN == "" && (c.ExternalID != "" || c.SessionName != "" || c.SessionDuration != 0 || c.STSEndpoint != ""):
		return invalid("external_id, session_name, session_duration and sts_endpoint need role_arn")
	case c.ExternalID != "" && !awsform.IsText(c.ExternalID, 2, 1224, "_+=,.@:/-"):
		return invalid("external_id is not 2 to 1,224 letters, digits or any of _+=,.@:/-")
	case c.SessionName != "" && !awsform.IsText(c.SessionName, 2, 64, "_+=,.@-"):
		return invalid("session_name is not 2 to 64 letters, digits or any of _+=,.@-")
	case c.SessionDuration != 0 && (c.SessionDuration < 15*time.Minute || c.SessionDuration > 12*time.Hour):
		return invalid("session_duration is not within 15m and 12h")
	case c.Endpoint != "" && (c.FIPS || c.DualStack):
		return invalid("fips and dual_stack choose an endpoint of AWS: they cannot be set beside endpoint")
	case c.Timeout < 0:
		return invalid("timeout is negative")
	case c.RecoveryDays != 0 && (c.RecoveryDays < 7 || c.RecoveryDays > 30):
		return invalid("recovery_days is not within 7 and 30")
	}
	for name, endpoint := range map[string]string{"endpoint": c.Endpoint, "sts_endpoint": c.STSEndpoint} {
		u, err := url.Parse(endpoint)
		if endpoint != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" ||
			u.User != nil || u.RawQuery != "" || u.Fragment != "") {
			return invalid("%s is not a plain URL, such as https://host:port", name)
		}
	}
	known := types.FilterNameStringType("").Values()
	for key, values := range c.Filters {
		if key == string(types.FilterNameStringTypeName) || !slices.Contains(known, types.FilterNameStringType(key)) {
			return invalid("filters has a key that is none of description, tag-key, tag-value, primary-region, owning-service, all")
		}
		if len(values) == 0 || len(values) > 10 {
			return invalid("filters: %s does not have 1 to 10 values", key)
		}
	}
	return nil
}

// Reach tells which addresses are called, and which files and variables of the user decide the rest.
func (c Config) Reach() []backend.Reach {
	service := func(endpoint, name string) backend.Reach {
		switch {
		case endpoint != "":
			return backend.Reach{What: backend.ReachAddress, Value: endpoint}
		case c.Region != "":
			return backend.Reach{What: backend.ReachAddress, Value: "AWS " + name + " in " + c.Region}
		}
		return backend.Reach{What: backend.ReachAddress, Value: "AWS " + name + " in the region of the environment"}
	}
	reach := []backend.Reach{service(c.Endpoint, "Secrets Manager")}
	if c.RoleARN != "" {
		sts := service(c.STSEndpoint, "STS")
		sts.Value += ", as role " + c.RoleARN
		reach = append(reach, sts)
	}
	reach = append(reach,
		backend.Reach{What: backend.ReachFile, Value: "~/.aws/config"},
		backend.Reach{What: backend.ReachFile, Value: "~/.aws/credentials"},
		backend.Reach{What: backend.ReachEnvironment, Value: "AWS_*"})
	if c.AccessKeyID.IsZero() {
		profile := c.Profile
		if profile == "" {
			profile = "of AWS_PROFILE"
		}
		reach = append(reach, backend.Reach{What: backend.ReachExecutable, Value: "credential_process of the AWS profile " + profile + ", if it has one"})
	}
	return reach
}

// Kind is the kind "awssm" for a registry.
func Kind() backend.Kind {
	return backend.NewKind("awssm", "AWS Secrets Manager",
		func(c Config, h backend.Host) (backend.Backend, error) { return New(c, h) })
}

// detail is the line of Describe.
func (c Config) detail() string {
	parts := []string{"AWS Secrets Manager"}
	if c.Region != "" {
		parts = append(parts, "region "+c.Region)
	}
	if c.Profile != "" {
		parts = append(parts, "profile "+c.Profile)
	}
	if c.RoleARN != "" {
		parts = append(parts, "role "+c.RoleARN)
	}
	if c.Endpoint != "" {
		parts = append(parts, "at "+c.Endpoint)
	}
	if plainText(c.Endpoint) || plainText(c.STSEndpoint) {
		parts = append(parts, "not encrypted on the network")
	}
	return strings.Join(parts, ", ")
}

// plainText reports whether secrets would cross a network unencrypted on their way to endpoint.
func plainText(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())
}

// callerVariables are the variables that the default chain reads and that change whom we are or where we ask, each with
// whether a setting of c outranks it.
func (c Config) callerVariables() map[string]bool {
	region, static, endpoint := c.Region != "", !c.AccessKeyID.IsZero(), c.Endpoint != ""
	identity := static || c.Profile != ""
	profile := c.Profile != "" || static && region && endpoint // it may have an endpoint of its own
	return map[string]bool{
		"AWS_REGION": region, "AWS_DEFAULT_REGION": region,
		"AWS_PROFILE": profile, "AWS_DEFAULT_PROFILE": profile,
		"AWS_CONFIG_FILE": static && region && endpoint, "AWS_SHARED_CREDENTIALS_FILE": static && region && endpoint,
		"AWS_ACCESS_KEY_ID": identity, "AWS_ACCESS_KEY": identity, "AWS_WEB_IDENTITY_TOKEN_FILE": identity,
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": static, "AWS_CONTAINER_CREDENTIALS_FULL_URI": static,
		"AWS_ENDPOINT_URL": endpoint, "AWS_ENDPOINT_URL_SECRETS_MANAGER": endpoint,
		"AWS_ENDPOINT_URL_STS": c.RoleARN == "" || c.STSEndpoint != "", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": endpoint,
		"AWS_USE_FIPS_ENDPOINT": c.FIPS || endpoint, "AWS_USE_DUALSTACK_ENDPOINT": c.DualStack || endpoint,
	}
}
