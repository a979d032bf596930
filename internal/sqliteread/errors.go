package sqliteread

import "fmt"

// Problem says what is wrong with a database. Problems of its files are safefile's.
type Problem string

// The problems.
const (
	Busy      Problem = "busy"      // being written, or in need of the recovery that only its owner may do
	Malformed Problem = "malformed" // not a database, or broken
	Foreign   Problem = "foreign"   // a database with features that this package does not read
)

// Error tells why a database cannot be read. It holds nothing of the content.
type Error struct {
	Problem Problem
	Path    string
	Reason  string
}

func (e *Error) Error() string { return e.Path + " " + e.Reason }

func (d *database) malformed(format string, args ...any) error {
	return &Error{Malformed, d.path, "is no sound SQLite database: " + fmt.Sprintf(format, args...)}
}

func (d *database) foreign(what string) error {
	return &Error{Foreign, d.path, what}
}
