package safefile

import "github.com/credresolve/credresolve/backend"

// Problem is what is wrong with a file.
type Problem string

// The problems.
const (
	NotFound      Problem = "not found"      // the file, or a directory on the way to it, does not exist
	NoAccess      Problem = "no access"      // the operating system refuses
	BadPath       Problem = "bad path"       // not absolute, or not a path at all
	Symlink       Problem = "symlink"        // a link that Policy.Links does not follow
	HardLink      Problem = "hard link"      // more than one name
	Directory     Problem = "directory"      // a directory where a file was asked for
	NotADirectory Problem = "no directory"   // a file where a directory was asked for, or must be
	Special       Problem = "special"        // a FIFO, a socket or a device
	Owner         Problem = "owner"          // of somebody who is not in Policy.Owners
	Mode          Problem = "mode"           // permission bits of Policy.Deny
	Parent        Problem = "parent"         // a directory on the way in which others could replace the file
	NotExecutable Problem = "not executable" // nobody may execute it
	Outside       Problem = "outside"        // in none of Policy.Dirs
	TooBig        Problem = "too big"        // over Policy.MaxBytes
	Changed       Problem = "changed"        // written or replaced while it was read
	Checksum      Problem = "checksum"       // another content than the pinned one
	Broken        Problem = "broken"         // an error of the file system
)

// Code is what p means for the secret that was to be read from the file.
func (p Problem) Code() backend.Code {
	switch p {
	case NotFound:
		return backend.CodeNotFound
	case NoAccess, Symlink, HardLink, Special, Owner, Mode, Parent, NotExecutable, Outside, Checksum:
		return backend.CodeDenied
	case BadPath, Directory, NotADirectory, TooBig:
		return backend.CodeInvalidConfig
	case Changed, Broken:
		return backend.CodeUnavailable
	}
	return backend.CodeInternal
}

// Error tells why a file is refused. Its text is one line in lower case and starts with the path.
type Error struct {
	Problem Problem
	Path    string // the file, directory or link that is at fault
	Reason  string // "can be read by others (mode 0644)"
	Remedy  string // what mends it, a command where there is one; may be empty
}

func (e *Error) Error() string {
	s := e.Path + " " + e.Reason
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}
