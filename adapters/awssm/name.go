package awssm

import (
	"strings"

	"github.com/credresolve/credresolve/internal/awsform"
)

// isName reports whether s can be the name of a secret. AWS itself uses the exclamation mark, in the names of secrets that
// another service manages.
func isName(s string) bool { return awsform.IsText(s, 1, 512, "_/+=.@!-") }

func isARN(s string) bool { return strings.HasPrefix(s, "arn:") }

// regionOf gives the region of a secret's ARN, whole or partial; nothing when arn is none.
func regionOf(arn string) string {
	p := strings.SplitN(arn, ":", 7)
	if len(p) != 7 || p[0] != "arn" || !awsform.IsPartition(p[1]) || p[2] != "secretsmanager" || !awsform.IsRegion(p[3]) ||
		!awsform.IsAccount(p[4]) || p[5] != "secret" || !awsform.IsText(p[6], 1, 512+suffixLength, "_/+=.@!-") {
		return ""
	}
	return p[3]
}

func isUUID(s string) bool {
	return len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' &&
		strings.Count(s, "-") == 4 && strings.Trim(s, "-0123456789abcdefABCDEF") == ""
}

// resource is the last part of an ARN: the name, with or without suffix.
func resource(arn string) string { return arn[strings.LastIndexByte(arn, ':')+1:] }

// withoutSuffix gives the name or partial ARN that s is with its suffix, or nothing.
func withoutSuffix(s string) string {
	if n := len(s) - suffixLength; n > 0 && s[n] == '-' {
		return s[:n]
	}
	return ""
}
