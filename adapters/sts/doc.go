// Package sts gets temporary credentials of AWS from its Security Token Service.
//
// # IDs
//
// The ARN of a role, a name under roles in the configuration, or "session" for a session of the caller itself
// (GetSessionToken). There are no versions. The credential is of type aws, has the fields access_key_id,
// secret_access_key and session_token, and ends when AWS says.
//
// # Configuration
//
// See Config. The caller is the access key of the configuration, a web identity token, or what the SDK's default chain
// finds; a credential_process of the AWS profile is not run. A role with via is assumed through others, each with the
// credentials of the one before; AWS limits every session but the first of such a chain to one hour.
//
// # Errors
//
// See the table in errors.go. No text of AWS or of the SDK is shown.
//
// # Capabilities
//
// Login, where mfa_serial is set without mfa_code: a person enters a one-time code. Probe of a credential, by GetCallerIdentity. AWS
// has no call that tells whether a role can be assumed, and none that ends a session.
package sts
