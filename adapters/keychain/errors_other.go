//go:build !linux && !windows && !(darwin && cgo)

package keychain

func platformErrors() []osErr { return nil }
