package cli

import "io/fs"

// ownerOf has nothing to give where files have access lists in place of an owner and a mode.
func ownerOf(fs.FileInfo) int { return -1 }
