//go:build !linux

package sdnotify

// monotonic is not known; managers elsewhere do not ask for it.
func monotonic() int64 { return 0 }
