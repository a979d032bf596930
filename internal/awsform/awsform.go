// Package awsform knows the forms of AWS's names, and bounds its answers, for the adapters that talk to AWS. The forms are
// checked by hand: a program that links an adapter and does not use it shall not compile patterns.
package awsform

import (
	"errors"
	"io"
	"strings"
)

// IsText reports whether s has least to most bytes, all of them ASCII letters, digits or in more.
func IsText(s string, least, most int, more string) bool {
	return len(s) >= least && len(s) <= most && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(more, r)
	}) < 0
}

// IsRole reports whether arn is that of an IAM role.
func IsRole(arn string) bool {
	p := strings.SplitN(arn, ":", 6)
	return len(p) == 6 && p[0] == "arn" && IsPartition(p[1]) && p[2] == "iam" && p[3] == "" && IsAccount(p[4]) &&
		strings.HasPrefix(p[5], "role/") && IsText(p[5], 6, 600, "_+=,.@/-")
}

// IsPartition reports whether s can be the name of a partition: aws, aws-cn.
func IsPartition(s string) bool { return strings.HasPrefix(s, "aws") && IsRegion(s) }

// IsAccount reports whether s is the number of an account.
func IsAccount(s string) bool { return len(s) == 12 && strings.Trim(s, "0123456789") == "" }

// IsRegion reports whether s can be the name of a region: eu-west-1.
func IsRegion(s string) bool {
	return IsText(s, 2, 63, "-") && s == strings.ToLower(s) && s[0] != '-' && s[len(s)-1] != '-'
}

// ErrTooLong is the error of reading on where Limit ends.
var ErrTooLong = errors.New("the answer is too long")

// Limit lets most bytes of body be read, and fails with ErrTooLong after them.
func Limit(body io.ReadCloser, most int) io.ReadCloser { return &limited{body, most} }

type limited struct {
	io.ReadCloser
	left int
}

func (b *limited) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, ErrTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
