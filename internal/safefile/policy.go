package safefile

import "io/fs"

// Policy says which files are accepted. The zero Policy accepts any regular file of any size that is reached without a
// link and has one name.
type Policy struct {
	// Owners are the ids of the users who may own the file and the links on its way. Empty: everybody. The directories
	// above may also be root's. Not looked at on Windows.
	Owners []int
	// Deny are the permission bits that must not be set on the file: 0o077 for a secret, 0o022 for a program. Not looked at
	// on Windows.
	Deny fs.FileMode
	// Mounted lifts the read and execute bits from Deny where a container's runtime mounted the file: it is root's, or
	// nobody has write permission.
	Mounted bool
	// Links says which symbolic links are followed.
	Links Links
	// HardLinks accepts a file that has more than one name.
	HardLinks bool
	// OpenParents accepts the file wherever it is. Otherwise nobody but Owners and root may be able to replace a directory
	// on the way to it: each is theirs and not writable by group or others, unless it is sticky as /tmp is.
	OpenParents bool
	// Executable demands that somebody may execute the file. Not looked at on Windows.
	Executable bool
	// Dirs are absolute directories, in one of which the file must be after links were followed. Empty: anywhere.
	Dirs []string
	// MaxBytes is the greatest size. Zero: no limit.
	MaxBytes int64
}

// Links says which symbolic links are followed.
type Links int

// The rules for links. All but LinksAbove follow what the operating system itself lays out: root's links in / and /var,
// such as /bin, /var/run and, on macOS, /tmp.
const (
	LinksNone    Links = iota // no link
	LinksMount                // NAME -> ..data/NAME and ..data -> ..VERSION of one directory, as the kubelet makes them
	LinksTrusted              // every link whose owner and directory Owners and OpenParents accept
	LinksAbove                // every link but the last component
)

// maxLinks bounds the links on the way to one file, as the kernel does with 40.
const maxLinks = 40
