package awssm

import "strings"

// The forms are checked by hand: a program that links the adapter and does not use it shall not compile patterns.

// isText reports whether s has least to most bytes, all of them ASCII letters, digits or in more.
func isText(s string, least, most int, more string) bool {
	return len(s) >= least && len(s) <= most && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(more, r)
	}) < 0
}

// isName reports whether s can be the name of a secret. AWS itself uses the exclamation mark, in the names of secrets that
// another service manages.
func isName(s string) bool { return isText(s, 1, 512, "_/+=.@!-") }

func isARN(s string) bool { return strings.HasPrefix(s, "arn:") }

// regionOf gives the region of a secret's ARN, whole or partial; nothing when arn is none.
func regionOf(arn string) string {
	p := strings.SplitN(arn, ":", 7)
	if len(p) != 7 || p[0] != "arn" || !isPartition(p[1]) || p[2] != "secretsmanager" || !isRegion(p[3]) ||
		!isAccount(p[4]) || p[5] != "secret" || !isText(p[6], 1, 512+suffixLength, "_/+=.@!-") {
		return ""
	}
	return p[3]
}

// isRole reports whether arn is that of an IAM role.
func isRole(arn string) bool {
	p := strings.SplitN(arn, ":", 6)
	return len(p) == 6 && p[0] == "arn" && isPartition(p[1]) && p[2] == "iam" && p[3] == "" && isAccount(p[4]) &&
		strings.HasPrefix(p[5], "role/") && isText(p[5], 6, 600, "_+=,.@/-")
}

func isPartition(s string) bool { return strings.HasPrefix(s, "aws") && isRegion(s) }

func isAccount(s string) bool { return len(s) == 12 && strings.Trim(s, "0123456789") == "" }

func isRegion(s string) bool {
	return isText(s, 2, 63, "-") && s == strings.ToLower(s) && s[0] != '-' && s[len(s)-1] != '-'
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
